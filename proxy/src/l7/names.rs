//! Which of the headers that every request is searched for are there at all, from one look over their names.
//!
//! A search costs a hash and a probe, and most requests have none of what sanitising looks for. A header that is noted
//! may be gone by the time it is looked for; one that is not noted is not there unless this proxy put it there.

use http::{HeaderMap, HeaderName, header};

/// Headers that a request has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Names(u16);

impl Names {
    pub(super) const TE: Self = Self(1);
    pub(super) const TRANSFER_ENCODING: Self = Self(1 << 1);
    pub(super) const UPGRADE: Self = Self(1 << 2);
    pub(super) const COOKIE: Self = Self(1 << 3);
    pub(super) const CONTENT_TYPE: Self = Self(1 << 4);
    /// `connection`, `keep-alive` and `proxy-connection`.
    pub(super) const HOP: Self = Self(1 << 5);
    /// Anything that begins with `x-envoy-`.
    pub(super) const ENVOY: Self = Self(1 << 6);
    pub(super) const FORWARDED_FOR: Self = Self(1 << 7);
    pub(super) const FORWARDED_PROTO: Self = Self(1 << 8);
    pub(super) const CLIENT_CERT: Self = Self(1 << 9);
    /// A trace's context: `traceparent`, `b3`, or what B3 has in several headers.
    pub(super) const TRACE: Self = Self(1 << 10);
    pub(super) const CLIENT_TRACE: Self = Self(1 << 11);
    pub(super) const DEBUG: Self = Self(1 << 12);

    pub(super) fn of(headers: &HeaderMap) -> Self {
        headers.keys().fold(Self::default(), |seen, name| Self(seen.0 | Self::note(name).0))
    }

    fn note(name: &HeaderName) -> Self {
        let text = name.as_str();
        match text.as_bytes().first() {
            Some(b'x') if text.starts_with("x-envoy-") => Self::ENVOY,
            Some(b'x') => match text {
                "x-forwarded-for" => Self::FORWARDED_FOR,
                "x-forwarded-proto" => Self::FORWARDED_PROTO,
                "x-forwarded-client-cert" => Self::CLIENT_CERT,
                "x-client-trace-id" => Self::CLIENT_TRACE,
                "x-outrigger-debug" => Self::DEBUG,
                "x-b3-traceid" | "x-b3-sampled" | "x-b3-flags" => Self::TRACE,
                _ => Self::default(),
            },
            Some(b't') if *name == header::TE => Self::TE,
            Some(b't') if *name == header::TRANSFER_ENCODING => Self::TRANSFER_ENCODING,
            Some(b't') if text == "traceparent" => Self::TRACE,
            Some(b'b') if text == "b3" => Self::TRACE,
            Some(b'u') if *name == header::UPGRADE => Self::UPGRADE,
            Some(b'c') => match *name {
                header::COOKIE => Self::COOKIE,
                header::CONTENT_TYPE => Self::CONTENT_TYPE,
                header::CONNECTION => Self::HOP,
                _ => Self::default(),
            },
            Some(b'k' | b'p') if matches!(text, "keep-alive" | "proxy-connection") => Self::HOP,
            _ => Self::default(),
        }
    }

    pub(super) fn has(self, any: Self) -> bool {
        self.0 & any.0 != 0
    }

    /// Whether connection-specific fields are there.
    pub(super) fn hop_by_hop(self) -> bool {
        self.has(Self(Self::HOP.0 | Self::UPGRADE.0 | Self::TE.0))
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn each_name_is_noted_as_itself() {
        let one = |name: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, HeaderValue::from_static("v"));
            Names::of(&headers)
        };
        for (name, noted) in [
            ("te", Names::TE),
            ("transfer-encoding", Names::TRANSFER_ENCODING),
            ("upgrade", Names::UPGRADE),
            ("cookie", Names::COOKIE),
            ("content-type", Names::CONTENT_TYPE),
            ("connection", Names::HOP),
            ("keep-alive", Names::HOP),
            ("proxy-connection", Names::HOP),
            ("x-envoy-anything", Names::ENVOY),
            ("x-forwarded-for", Names::FORWARDED_FOR),
            ("x-forwarded-proto", Names::FORWARDED_PROTO),
            ("x-forwarded-client-cert", Names::CLIENT_CERT),
            ("traceparent", Names::TRACE),
            ("b3", Names::TRACE),
            ("x-b3-traceid", Names::TRACE),
            ("x-b3-sampled", Names::TRACE),
            ("x-b3-flags", Names::TRACE),
            ("x-client-trace-id", Names::CLIENT_TRACE),
            ("x-outrigger-debug", Names::DEBUG),
        ] {
            assert_eq!(one(name), noted, "{name}");
        }
        for name in
            ["host", "x-envoy", "accept", "content-length", "trailer", "user-agent", "kind", "via", "tracestate", "b3x"]
        {
            assert_eq!(one(name), Names::default(), "{name}");
        }
    }
}
