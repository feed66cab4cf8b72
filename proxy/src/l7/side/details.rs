//! `grpc-status-details-bin`: what a failed call says beyond its status, as far as anybody here wants to know.

use std::time::Duration;

use base64::{
    Engine,
    engine::{DecodePaddingMode::Indifferent, GeneralPurpose, GeneralPurposeConfig},
};
use http::{HeaderMap, HeaderName};
use prost::Message;

const DETAILS: HeaderName = HeaderName::from_static("grpc-status-details-bin");
const RETRY_INFO: &str = "type.googleapis.com/google.rpc.RetryInfo";

/// Binary metadata comes with padding and without.
const BASE64: GeneralPurpose =
    GeneralPurpose::new(&base64::alphabet::STANDARD, GeneralPurposeConfig::new().with_decode_padding_mode(Indifferent));

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

#[derive(Clone, PartialEq, Message)]
struct Any {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    delay: Option<Span>,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct Span {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

/// `RetryInfo`: after how long the same may be asked again. Without a length it may be at once.
pub(super) fn retry_delay(trailers: &HeaderMap) -> Option<Duration> {
    let status = Status::decode(&*BASE64.decode(trailers.get(&DETAILS)?).ok()?).ok()?;
    let info = status.details.iter().find(|any| any.type_url == RETRY_INFO)?;
    let delay = RetryInfo::decode(&*info.value).ok()?.delay.unwrap_or_default();
    let nanos = u32::try_from(delay.nanos).ok().filter(|nanos| *nanos < 1_000_000_000).unwrap_or(0);
    Some(Duration::new(u64::try_from(delay.seconds).unwrap_or(0), nanos))
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
    use http::HeaderValue;

    use super::*;

    fn trailers(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(DETAILS, HeaderValue::from_str(value).unwrap())])
    }

    fn status(delay: Option<Span>) -> Vec<u8> {
        let other = Any { type_url: "type.googleapis.com/google.rpc.Help".into(), value: vec![0xff] };
        let info = Any { type_url: RETRY_INFO.into(), value: RetryInfo { delay }.encode_to_vec() };
        Status { details: vec![other, info] }.encode_to_vec()
    }

    #[test]
    fn the_delay_is_read_with_padding_and_without() {
        let bytes = status(Some(Span { seconds: 2, nanos: 5 }));
        for text in [STANDARD.encode(&bytes), STANDARD_NO_PAD.encode(&bytes)] {
            assert_eq!(retry_delay(&trailers(&text)), Some(Duration::new(2, 5)));
        }
        assert_eq!(retry_delay(&trailers(&STANDARD.encode(status(None)))), Some(Duration::ZERO));
        let hostile = status(Some(Span { seconds: i64::MIN, nanos: i32::MAX }));
        assert_eq!(retry_delay(&trailers(&STANDARD.encode(hostile))), Some(Duration::ZERO));
        let long = status(Some(Span { seconds: i64::MAX, nanos: 999_999_999 }));
        assert!(retry_delay(&trailers(&STANDARD.encode(long))).is_some());
    }

    #[test]
    fn anything_else_says_nothing() {
        for text in ["", "!", "AAAA", "//////8="] {
            assert_eq!(retry_delay(&trailers(text)), None, "{text}");
        }
        assert_eq!(retry_delay(&HeaderMap::new()), None);
    }
}
