//! CORS: counts, answers preflights and marks responses, as [`policy::cors`](crate::policy::cors) decides.

use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use super::{After, Call, Levels, Stop, settings};
use crate::{
    ir::{filters::Setting, http::HttpFilter, route::Action},
    l7::{pipeline::Inbound, respond},
    policy::cors::{self, Draws, Policies, Verdict},
};

impl Call<'_> {
    pub(super) fn cors(
        &self,
        filter: &HttpFilter,
        levels: &Levels<'_>,
        request: &Inbound,
        after: &mut After,
    ) -> Result<(), Stop> {
        let Some(policies) = self.cors_policies(filter, levels) else { return Ok(()) };
        let draws = Draws { enabled: fastrand::u32(..), shadow: fastrand::u32(..) };
        let verdict = cors::decide(&policies, &request.parts.method, &request.parts.headers, draws);
        let stats = self.filters.stats.local();
        let valid = match &verdict {
            Verdict::Pass => return Ok(()),
            Verdict::Counted { valid } | Verdict::Preflight { valid, .. } => *valid,
            Verdict::Simple { grant } => grant.is_some(),
        };
        if valid { &stats.origin_valid } else { &stats.origin_invalid }.inc();
        match verdict {
            Verdict::Pass | Verdict::Counted { .. } => Ok(()),
            Verdict::Simple { grant } => {
                if let Some(grant) = grant {
                    after.grant(grant);
                }
                Ok(())
            }
            Verdict::Preflight { answer, .. } => Err(self.preflight(answer)),
        }
    }

    /// The policies in force, the most specific one first. Routes that do not forward have none.
    fn cors_policies<'p>(&self, filter: &HttpFilter, levels: &Levels<'p>) -> Option<Policies<'p>> {
        if !self.selected.is_some_and(|s| matches!(s.route.action, Action::Forward(_))) {
            return None;
        }
        let mut policies: Policies<'p> = settings(filter, levels)
            .filter_map(|setting| match setting {
                Setting::Cors(policy) => Some(&**policy),
                _ => None,
            })
            .collect();
        if policies.is_empty() {
            policies.extend(levels.iter().flatten().filter_map(|level| level.cors.as_deref()));
        }
        Some(policies)
    }

    fn preflight(&self, answer: HeaderMap) -> Stop {
        self.flow.record.details("cors_response");
        let mut response = respond::text_response(StatusCode::OK, Bytes::new());
        response.headers_mut().extend(answer);
        Stop::Answer(Box::new(response))
    }

    /// What the filter does whatever is drawn; `None` where that is up to chance. Counts nothing.
    pub(super) fn cors_certainly(
        &self,
        filter: &HttpFilter,
        levels: &Levels<'_>,
        request: &Inbound,
    ) -> Option<Result<(), Stop>> {
        let Some(policies) = self.cors_policies(filter, levels) else { return Some(Ok(())) };
        let decide = |draw| {
            let draws = Draws { enabled: draw, shadow: draw };
            match cors::decide(&policies, &request.parts.method, &request.parts.headers, draws) {
                Verdict::Preflight { answer, .. } => Some(answer),
                Verdict::Pass | Verdict::Counted { .. } | Verdict::Simple { .. } => None,
            }
        };
        match (decide(0), decide(999_999)) {
            (Some(_), Some(answer)) => Some(Err(self.preflight(answer))),
            (None, None) => Some(Ok(())),
            _ => None,
        }
    }
}
