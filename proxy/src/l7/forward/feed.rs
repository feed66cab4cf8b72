//! What a try says of its host, for outlier detection: Envoy's mapping.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, header};

use crate::{
    l7::{
        body::Body,
        client::{SendError, SendErrorKind, Sent},
        timeouts::Expired,
    },
    upstream::{
        Cluster, ConnectErrorKind, Endpoint,
        outlier::{Outcome, Probe},
    },
};

const FAIL_NOW: HeaderName = HeaderName::from_static("x-envoy-immediate-health-check-fail");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// What became of a try.
type Tried = Result<Result<Sent, Box<SendError<Body>>>, Expired>;

/// Reports a try, as far as it says anything of the host.
pub(super) fn report(cluster: &Cluster, endpoint: &Arc<Endpoint>, probe: Option<Probe>, tried: &Tried) {
    if cluster.config.check().is_some()
        && let Ok(Ok(sent)) = tried
        && sent.response.headers().contains_key(&FAIL_NOW)
    {
        cluster.failed_by_itself(endpoint);
    }
    if cluster.config.outlier().is_some()
        && let Some(outcome) = outcome(tried)
    {
        cluster.report(endpoint, probe, outcome);
    }
}

fn outcome(tried: &Tried) -> Option<Outcome> {
    match tried {
        Ok(Ok(sent)) => {
            let status = sent.response.status().as_u16();
            Some(Outcome::Response(grpc(sent.response.headers()).unwrap_or(status)))
        }
        Ok(Err(error)) => match &error.kind {
            SendErrorKind::Connect(error) if error.kind == ConnectErrorKind::Overflow => None,
            SendErrorKind::Connect(_)
            | SendErrorKind::Refused
            | SendErrorKind::Reset { .. }
            | SendErrorKind::StreamReset
            | SendErrorKind::Protocol => Some(Outcome::Failed),
            // An idle connection may be closed at any time, our limits are ours, and so is the request's body.
            SendErrorKind::Unsent | SendErrorKind::PoolOverflow | SendErrorKind::Body => None,
        },
        Err(Expired::Response | Expired::PerTry | Expired::PerTryIdle | Expired::Upstream) => Some(Outcome::TimedOut),
        Err(Expired::Request | Expired::Stream | Expired::Idle) => None,
    }
}

/// The HTTP status that a gRPC status in the head (a response of trailers only) stands for.
fn grpc(headers: &HeaderMap) -> Option<u16> {
    let kind = headers.get(header::CONTENT_TYPE)?.as_bytes();
    if !kind.starts_with(b"application/grpc") {
        return None;
    }
    let status = headers.get(&GRPC_STATUS)?.to_str().ok()?;
    Some(match status.parse::<u32>() {
        Ok(0) => 200,
        Ok(1) => 499,
        Ok(3 | 9 | 11) => 400,
        Ok(4) => 504,
        Ok(5) => 404,
        Ok(6 | 10) => 409,
        Ok(7) => 403,
        Ok(8) => 429,
        Ok(12) => 501,
        Ok(14) => 503,
        Ok(16) => 401,
        Ok(_) | Err(_) => 500,
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_grpc_status_in_the_head_counts_as_the_http_status_it_stands_for() {
        let mut headers = HeaderMap::new();
        headers.insert(&GRPC_STATUS, HeaderValue::from_static("14"));
        assert_eq!(grpc(&headers), None, "no gRPC");
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc+proto"));
        for (status, http) in [("14", 503), ("0", 200), ("4", 504), ("13", 500), ("5", 404), ("nonsense", 500)] {
            headers.insert(&GRPC_STATUS, HeaderValue::from_static(status));
            assert_eq!(grpc(&headers), Some(http), "{status}");
        }
        headers.remove(&GRPC_STATUS);
        assert_eq!(grpc(&headers), None, "it comes in the trailers");
    }
}
