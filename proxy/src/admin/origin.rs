//! Who a browser asks for: its user, or a page of somebody else's that the user looks at.
//!
//! The interface is open to whoever reaches it, and a browser on this machine does, whatever page it shows. Pure.
//! Invariant: no page of another origin gets an answer, under whatever name it knows this address.

use std::net::IpAddr;

use http::{HeaderMap, header};

/// Why a request is not answered.
pub(super) fn refusal(headers: &HeaderMap) -> Option<&'static str> {
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    if text("sec-fetch-site").is_some_and(|site| !matches!(site, "same-origin" | "none")) {
        return Some("asked for by a page of another origin\n");
    }
    let host = text("host").unwrap_or_default();
    let origin = text(header::ORIGIN.as_str());
    let own = |origin: &str| origin.split_once("://").is_some_and(|(_, at)| at.eq_ignore_ascii_case(host));
    if origin.is_some_and(|origin| !own(origin)) {
        return Some("asked for by a page of another origin\n");
    }
    // Browsers say less of themselves to addresses without TLS, but always what they are.
    let browser = origin.is_some()
        || headers.keys().any(|name| name.as_str().starts_with("sec-fetch-"))
        || text(header::USER_AGENT.as_str()).is_some_and(|agent| agent.starts_with("Mozilla/"));
    (browser && !is_here(host)).then_some("a browser has to ask by address, or for localhost: any name can lead here\n")
}

/// Whether nobody can make this name lead to somewhere else.
fn is_here(host: &str) -> bool {
    if host.parse::<IpAddr>().is_ok() {
        return true;
    }
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    let lower = bare.to_ascii_lowercase();
    bare.parse::<IpAddr>().is_ok() || lower == "localhost" || lower.ends_with(".localhost")
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    fn refused(fields: &[(&'static str, &'static str)]) -> bool {
        let pairs = fields.iter().map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v)));
        refusal(&pairs.collect()).is_some()
    }

    #[test]
    fn pages_of_others_are_refused_and_tools_are_not() {
        let agent = ("user-agent", "Mozilla/5.0 (X11)");
        for good in [
            &[("host", "sidecar:15000")][..],
            &[],
            &[("host", "pod.ns:15020"), ("user-agent", "Prometheus/2.53"), ("accept", "text/html")],
            &[("host", "localhost:15000"), agent, ("sec-fetch-site", "none")],
            &[("host", "127.0.0.1:15000"), agent, ("sec-fetch-site", "same-origin")],
            &[("host", "[::1]:15000"), agent, ("origin", "http://[::1]:15000")],
            &[("host", "10.0.0.1"), agent],
        ] {
            assert!(!refused(good), "{good:?}");
        }
        for bad in [
            &[("host", "127.0.0.1:15000"), ("sec-fetch-site", "cross-site")][..],
            &[("host", "127.0.0.1:15000"), ("sec-fetch-site", "same-site")],
            &[("host", "127.0.0.1:15000"), ("origin", "http://evil.test")],
            &[("host", "127.0.0.1:15000"), ("origin", "http://127.0.0.1:80")],
            &[("host", "127.0.0.1:15000"), ("origin", "null")],
            &[("host", "rebound.evil.test:15000"), agent],
            &[("host", "rebound.evil.test"), ("sec-fetch-mode", "cors")],
            &[("host", "evil.test"), ("origin", "http://evil.test")],
            &[("host", "localhost.evil.test:15000"), agent],
        ] {
            assert!(refused(bad), "{bad:?}");
        }
    }
}
