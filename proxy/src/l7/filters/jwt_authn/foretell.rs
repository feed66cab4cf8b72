//! What the filter would say of a request's tokens, as far as the keys are here: none is fetched for it.

use std::{
    pin::pin,
    task::{Context, Poll, Waker},
    time::Instant,
};

use serde_json::Map;

use super::{Asked, Session, denial, is_preflight, now, unknown, uri};
use crate::{
    ir::{
        http::HttpFilter,
        jwt_authn::{JwksSource, JwtAuthn},
    },
    l7::{
        filters::{Call, Levels, Stop},
        pipeline::Inbound,
    },
    live::LiveJwt,
    policy::jwt::Failure,
};

impl Call<'_> {
    /// Whether the route would be found anew, or the answer; outside of it, why that is not known.
    pub(in crate::l7::filters) fn foretell_jwt(
        &self,
        config: &JwtAuthn,
        (filter, place): (&HttpFilter, usize),
        levels: &Levels<'_>,
        request: &mut Inbound,
    ) -> Result<Result<bool, Stop>, String> {
        let Some(live) = self.filters.jwt(place) else {
            return Ok(Err(denial(config, Failure::NoKeys, &uri(request), request, self)));
        };
        if config.bypass_cors_preflight && is_preflight(request) {
            return Ok(Ok(false));
        }
        let requirement = match self.asked(config, filter, levels, request) {
            Asked::Nothing => return Ok(Ok(false)),
            Asked::Requirement(requirement) => requirement,
            Asked::Unknown(reason) => return Ok(Err(unknown(&reason))),
        };
        if !all_here(config, live) {
            return Err("keys would have to be fetched first".to_owned());
        }
        let uri = uri(request);
        let mut session = Session { call: self, config, live, now: now(), extracted: Map::new(), reroute: false };
        let result = match pin!(session.satisfies(requirement, request)).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(result) => result,
            Poll::Pending => return Err("keys are being fetched".to_owned()),
        };
        let Session { extracted, reroute, .. } = session;
        if !extracted.is_empty() {
            self.flow.record.metadata.set(super::NAMESPACE, extracted);
        }
        Ok(match result {
            Ok(()) => Ok(reroute),
            Err(failure) => Err(denial(config, failure, &uri, request, self)),
        })
    }
}

/// Whether verifying asks nobody.
fn all_here(config: &JwtAuthn, live: &LiveJwt) -> bool {
    config.providers.iter().enumerate().all(|(place, provider)| match &provider.keys {
        JwksSource::Local(_) => true,
        JwksSource::Remote(_) => {
            live.keys.get(place).and_then(|store| store.get()).is_some_and(|kept| kept.is_valid(Instant::now()))
        }
    })
}
