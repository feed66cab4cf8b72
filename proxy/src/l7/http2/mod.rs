//! What both sides of HTTP/2 share: a stream's bytes in, its bytes out, and the pings that prove a connection alive.
//!
//! Straight on `h2`: a stream costs no channel and, unless its body outlasts the head of the answer, no task of its own.
//! Knows nothing of pools, routes or who the peer is.

mod keepalive;
mod pump;
mod received;
mod tunnel;

pub use self::{keepalive::KeepAlive, pump::Pump, received::Received, tunnel::Tunnel};

use http::{HeaderMap, HeaderName, header};

/// Takes out what belongs to an HTTP/1 connection (RFC 9113 section 8.2.2).
pub fn strip_connection_headers(headers: &mut HeaderMap, request: bool) {
    const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
    const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
    let concerned = |name: &HeaderName| {
        matches!(
            name.as_str(),
            "connection" | "keep-alive" | "proxy-connection" | "upgrade" | "te" | "transfer-encoding"
        )
    };
    // Hardly any message has one of them: a look over the names is cheaper than a search for each.
    if !headers.keys().any(concerned) {
        return;
    }
    for name in [header::TRANSFER_ENCODING, header::UPGRADE, KEEP_ALIVE, PROXY_CONNECTION] {
        headers.remove(name);
    }
    if !(request && headers.get(header::TE).is_some_and(|te| te == "trailers")) {
        headers.remove(header::TE);
    }
    if let Some(named) = headers.remove(header::CONNECTION)
        && let Ok(named) = named.to_str()
    {
        named.split(',').for_each(|name| drop(headers.remove(name.trim())));
    }
}

/// The length that `content-length` announces, if all its values agree.
pub fn content_length(headers: &HeaderMap) -> Option<u64> {
    let mut values = headers.get_all(header::CONTENT_LENGTH).iter();
    let first: u64 = values.next()?.to_str().ok()?.parse().ok()?;
    values.all(|v| v.to_str().is_ok_and(|v| v.parse() == Ok(first))).then_some(first)
}

#[cfg(test)]
mod tests;
