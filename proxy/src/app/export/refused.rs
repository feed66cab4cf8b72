//! What follows when a collector does not take a batch, as OTLP has it: the same again later, less at once, or nothing.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{Response, StatusCode, header};

use crate::l7::side::SideError;

/// A call that failed.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) why: SideError,
    pub(super) next: Next,
}

/// What to do with its records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// The same may work later, not before so long.
    Later(Duration),
    /// In two parts they may.
    Smaller,
    Never,
}

impl From<SideError> for Refused {
    fn from(why: SideError) -> Self {
        let next = match &why {
            SideError::NoCluster | SideError::NoHost | SideError::Timeout | SideError::Failed(_) => {
                Next::Later(Duration::ZERO)
            }
            // RESOURCE_EXHAUSTED without a word of when: that is what gRPC says to messages that are too long.
            SideError::Status(8, _) => Next::Smaller,
            SideError::Status(code, _) if passes(*code) => Next::Later(Duration::ZERO),
            SideError::Later { code, delay, .. } if passes(*code) => Next::Later(*delay),
            SideError::Status(..) | SideError::Later { .. } | SideError::TooLarge | SideError::Malformed => Next::Never,
        };
        Self { why, next }
    }
}

/// CANCELLED, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, ABORTED, OUT_OF_RANGE, UNAVAILABLE, DATA_LOSS.
fn passes(code: u16) -> bool {
    matches!(code, 1 | 4 | 8 | 10 | 11 | 14 | 15)
}

impl Refused {
    /// What an HTTP response says; `None`: the records were taken.
    pub(super) fn of_response(response: &Response<Bytes>, now: SystemTime) -> Option<Self> {
        let status = response.status();
        let next = match status {
            status if status.is_success() => return None,
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                let text = response.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
                Next::Later(text.and_then(|text| after(text, now)).unwrap_or_default())
            }
            StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT => Next::Later(Duration::ZERO),
            StatusCode::PAYLOAD_TOO_LARGE => Next::Smaller,
            _ => Next::Never,
        };
        Some(Self { why: SideError::Failed(format!("HTTP status {status}")), next })
    }
}

/// `retry-after`: seconds, or a moment.
fn after(text: &str, now: SystemTime) -> Option<Duration> {
    let moment = || httpdate::parse_http_date(text).ok().map(|at| at.duration_since(now).unwrap_or_default());
    text.parse().ok().map(Duration::from_secs).or_else(moment)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_pass_is_asked_again_and_what_is_refused_is_not() {
        let status = |code| SideError::Status(code, String::new());
        let next = |error: SideError| Refused::from(error).next;
        for passing in [SideError::NoHost, SideError::Timeout, SideError::Failed("reset".into()), status(14)] {
            assert_eq!(next(passing), Next::Later(Duration::ZERO));
        }
        for lasting in [status(3), status(7), status(12), status(16), SideError::TooLarge, SideError::Malformed] {
            assert_eq!(next(lasting), Next::Never);
        }
        assert_eq!(next(status(8)), Next::Smaller);
        let delay = Duration::from_secs(7);
        let later = |code| next(SideError::Later { code, message: String::new(), delay });
        assert_eq!((later(8), later(14), later(3)), (Next::Later(delay), Next::Later(delay), Next::Never));
    }

    #[test]
    fn a_response_says_when_and_how() {
        let now = SystemTime::UNIX_EPOCH;
        let next = |status: u16, after: Option<&str>| {
            let mut response = Response::new(Bytes::new());
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            if let Some(after) = after {
                response.headers_mut().insert(header::RETRY_AFTER, after.parse().unwrap());
            }
            Refused::of_response(&response, now).map(|refused| refused.next)
        };
        let later = |seconds| Some(Next::Later(Duration::from_secs(seconds)));
        assert_eq!((next(200, None), next(503, None), next(502, Some("9"))), (None, later(0), later(0)));
        assert_eq!((next(429, Some("30")), next(503, Some("soon"))), (later(30), later(0)));
        assert_eq!(next(503, Some("Thu, 01 Jan 1970 00:01:00 GMT")), later(60));
        assert_eq!((next(413, None), next(400, Some("1"))), (Some(Next::Smaller), Some(Next::Never)));
    }
}
