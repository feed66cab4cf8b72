//! The first phase of a request: what is malformed is refused, what is ambiguous is made plain.
//!
//! Afterwards every request looks alike, whatever codec it came over: an origin-form path, the authority in `Host`, no
//! hop-by-hop fields, forwarding headers that tell the truth. All later decisions see only this form, and it is what
//! goes upstream.

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, Version, header, request::Parts, uri::PathAndQuery,
};

use super::{
    debug,
    forwarded::{self, Origin},
    headers,
    names::Names,
    respond::{Reply, is_grpc},
    wire::SILENT_TE,
};
use crate::{
    ir::{
        http::{ConnectionManager, StripPort, Underscores},
        listener::Direction,
    },
    policy::{
        path::{self, Normalized},
        router::strip_port,
    },
    telemetry::{flags::Flags, record::ConnInfo},
};

#[cfg(test)]
#[path = "sanitize_tests.rs"]
mod tests;

pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What a request wants its connection or stream to become.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tunnel {
    None,
    /// HTTP/1.1 `Upgrade`, lower case.
    Upgrade(Box<str>),
    /// RFC 8441: an HTTP/2 CONNECT with `:protocol`.
    Extended(Box<str>),
    Connect,
}

impl Tunnel {
    /// The name `upgrade_configs` knows it by.
    pub fn kind(&self) -> Option<&str> {
        match self {
            Self::None => None,
            Self::Upgrade(kind) | Self::Extended(kind) => Some(kind),
            Self::Connect => Some("connect"),
        }
    }
}

/// What the phase found out.
#[derive(Clone, Debug)]
pub struct Sane {
    pub origin: Origin,
    pub tunnel: Tunnel,
    pub grpc: bool,
    /// What one look over the names found.
    pub(in crate::l7) names: Names,
}

/// Checks and rewrites a request head.
pub fn sanitize(hcm: &ConnectionManager, conn: &ConnInfo, parts: &mut Parts) -> Result<Sane, Reply> {
    if parts.version == Version::HTTP_10 && !hcm.http1.accept_http_10 {
        return Err(Reply::new(StatusCode::UPGRADE_REQUIRED, "low_version"));
    }
    let names = Names::of(&parts.headers);
    debug::take(names, parts);
    let tunnel = tunnel(parts, names);
    if matches!(tunnel, Tunnel::Extended(_)) {
        // Another spelling of an HTTP/1 upgrade, and the application will see that one: so does whoever decides.
        parts.method = Method::GET;
        parts.extensions.remove::<hyper::ext::Protocol>();
    }
    if names.has(Names::TE) && parts.headers.get(header::TE).is_some_and(|te| te == SILENT_TE) {
        parts.headers.remove(header::TE);
    }
    if parts.headers.len() > hcm.max_header_count as usize {
        return Err(Reply::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "request_headers_too_large")
            .body(format!("more than {} request headers", hcm.max_header_count)));
    }
    // The parser of HTTP/2 takes a quote for a letter of names, which no reader of HTTP/1 does.
    if parts.version == Version::HTTP_2 && parts.headers.keys().any(|name| name.as_str().contains('"')) {
        return Err(Reply::new(StatusCode::BAD_REQUEST, "http2.invalid.header.field"));
    }
    if names.has(Names::TRANSFER_ENCODING) && !headers::chunked_at_most(&mut parts.headers) {
        return Err(Reply::new(StatusCode::NOT_IMPLEMENTED, "http1.invalid_transfer_encoding"));
    }
    authority(hcm, conn, parts)?;
    underscores(hcm.underscores, &mut parts.headers)?;
    if names.hop_by_hop() {
        headers::strip_hop_by_hop(&mut parts.headers);
    }
    if let Tunnel::Upgrade(kind) | Tunnel::Extended(kind) = &tunnel {
        ask_for(kind, &mut parts.headers)?;
    }
    if parts.version == Version::HTTP_2 && names.has(Names::COOKIE) {
        headers::join_cookies(&mut parts.headers);
    }
    target(hcm, parts, &tunnel)?;
    if conn.direction == Direction::Inbound && names.has(Names::ENVOY) {
        // Peer metadata comes from the peer's certificate; these would let an application invent its own.
        for name in headers::among(&parts.headers, &["x-envoy-peer-metadata", "x-envoy-peer-metadata-id"]) {
            parts.headers.remove(name);
        }
    }
    let origin = forwarded::apply(hcm, conn, &mut parts.headers, names);
    request_id(hcm, origin, &mut parts.headers);
    let grpc = names.has(Names::CONTENT_TYPE) && is_grpc(&parts.headers);
    Ok(Sane { origin, tunnel, grpc, names })
}

/// Exactly one authority, in `Host`.
fn authority(hcm: &ConnectionManager, conn: &ConnInfo, parts: &mut Parts) -> Result<(), Reply> {
    let missing = || Reply::new(StatusCode::BAD_REQUEST, "missing_host_header");
    // `GET name` is no target (RFC 9112 section 3.2): the parser takes it for a CONNECT's authority.
    let bare = parts.uri.scheme().is_none() && parts.uri.authority().is_some();
    if bare && parts.method != Method::CONNECT && parts.version != Version::HTTP_2 {
        return Err(Reply::new(StatusCode::BAD_REQUEST, "http1.codec_error").flag(Flags::DOWNSTREAM_PROTOCOL_ERROR));
    }
    let mut hosts = parts.headers.get_all(header::HOST).iter();
    let (first, second) = (hosts.next(), hosts.next());
    if second.is_some() {
        return Err(Reply::new(StatusCode::BAD_REQUEST, "http1.multiple_host_headers"));
    }
    // The authority of an absolute-form target or of `:authority` wins over `Host` (RFC 9112 section 3.2.2).
    let value = match (parts.uri.authority(), first) {
        (Some(authority), _) => HeaderValue::from_str(authority.as_str()).map_err(|_| missing())?,
        (None, Some(host)) if !host.is_empty() => {
            if !is_authority(host.as_bytes()) {
                return Err(Reply::new(StatusCode::BAD_REQUEST, "invalid_authority"));
            }
            if hcm.strip_port == StripPort::No {
                return Ok(());
            }
            host.clone()
        }
        (None, _) if parts.version == Version::HTTP_10 => {
            // Such clients know no `Host`: where they connected to is what they mean.
            if hcm.http1.default_host_for_http_10.is_empty() {
                HeaderValue::from_str(&conn.local.to_string())
            } else {
                HeaderValue::from_str(&hcm.http1.default_host_for_http_10)
            }
            .map_err(|_| missing())?
        }
        (None, _) => return Err(missing()),
    };
    if !is_authority(value.as_bytes()) {
        return Err(Reply::new(StatusCode::BAD_REQUEST, "invalid_authority"));
    }
    let value = stripped(hcm.strip_port, conn, &parts.method, value);
    parts.headers.insert(header::HOST, value);
    Ok(())
}

fn is_authority(bytes: &[u8]) -> bool {
    bytes.iter().all(|b| b.is_ascii_graphic() && !matches!(b, b'/' | b'?' | b'#' | b'\\' | b'@' | b'"' | b'<' | b'>'))
}

fn stripped(mode: StripPort, conn: &ConnInfo, method: &Method, value: HeaderValue) -> HeaderValue {
    if mode == StripPort::No || method == Method::CONNECT {
        return value;
    }
    let Ok(text) = value.to_str() else { return value };
    let host = strip_port(text);
    let port = text[host.len()..].strip_prefix(':').and_then(|p| p.parse::<u16>().ok());
    let strips = mode == StripPort::Any || port == Some(conn.local.port());
    if strips && host.len() < text.len() { HeaderValue::from_str(host).unwrap_or(value) } else { value }
}

fn underscores(mode: Underscores, headers: &mut HeaderMap) -> Result<(), Reply> {
    if mode == Underscores::Allow {
        return Ok(());
    }
    let found: Vec<HeaderName> = headers.keys().filter(|n| n.as_str().contains('_')).cloned().collect();
    if mode == Underscores::RejectRequest && !found.is_empty() {
        return Err(Reply::new(StatusCode::BAD_REQUEST, "unexpected_underscore"));
    }
    found.iter().for_each(|name| {
        headers.remove(name);
    });
    Ok(())
}

fn tunnel(parts: &Parts, names: Names) -> Tunnel {
    if parts.method == Method::CONNECT {
        return match parts.extensions.get::<hyper::ext::Protocol>() {
            Some(protocol) => Tunnel::Extended(protocol.as_str().to_ascii_lowercase().into()),
            None => Tunnel::Connect,
        };
    }
    if parts.version != Version::HTTP_11 || !names.has(Names::UPGRADE) {
        return Tunnel::None;
    }
    let asked = parts
        .headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .any(|token| token.trim().eq_ignore_ascii_case("upgrade"));
    match parts.headers.get(header::UPGRADE).and_then(|v| v.to_str().ok()) {
        // An offer of HTTP/2 may be declined by not answering it (RFC 9110 section 7.8).
        Some(kind) if asked && !kind.split(',').any(|k| k.trim().eq_ignore_ascii_case("h2c")) => {
            Tunnel::Upgrade(kind.trim().to_ascii_lowercase().into())
        }
        _ => Tunnel::None,
    }
}

/// The headers of an upgrade that is still wanted, for routes and policies to see as for the upstream.
fn ask_for(kind: &str, headers: &mut HeaderMap) -> Result<(), Reply> {
    let kind = HeaderValue::from_str(kind).map_err(|_| Reply::new(StatusCode::BAD_REQUEST, "http1.codec_error"))?;
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, kind);
    Ok(())
}

/// The target as a normalised origin-form path.
fn target(hcm: &ConnectionManager, parts: &mut Parts, tunnel: &Tunnel) -> Result<(), Reply> {
    if *tunnel == Tunnel::Connect {
        return Ok(());
    }
    let whole = parts.uri.path_and_query().map_or("/", PathAndQuery::as_str);
    // `?query` alone asks for the root: what is decided on has to be what is sent.
    let rooted = whole.starts_with('/') || whole == "*";
    let fixed;
    let whole = if rooted {
        whole
    } else {
        fixed = format!("/{whole}");
        &fixed
    };
    let normal = match path::normalize(hcm, whole) {
        Normalized::Unchanged if rooted && parts.uri.authority().is_none() => return Ok(()),
        Normalized::Unchanged => PathAndQuery::try_from(whole)
            .map_err(|_| Reply::new(StatusCode::BAD_REQUEST, "path_normalization_failed"))?,
        Normalized::Changed(path) => PathAndQuery::from_maybe_shared(path.into_owned().into_bytes())
            .map_err(|_| Reply::new(StatusCode::BAD_REQUEST, "path_normalization_failed"))?,
        Normalized::Redirect(location) => {
            return Err(Reply::new(StatusCode::TEMPORARY_REDIRECT, "path_normalization_redirect").location(location));
        }
        Normalized::Rejected => return Err(Reply::new(StatusCode::BAD_REQUEST, "path_normalization_failed")),
    };
    parts.uri = Uri::from(normal);
    Ok(())
}

/// A fresh `x-request-id`, unless the request has one that may be kept.
fn request_id(hcm: &ConnectionManager, origin: Origin, headers: &mut HeaderMap) {
    if !hcm.generate_request_id {
        return;
    }
    let from_outside = hcm.use_remote_address && !origin.internal;
    let fresh = from_outside && !hcm.preserve_external_request_id;
    if !fresh && let Some(id) = headers.get_mut(&REQUEST_ID) {
        // No two are the same: in HTTP/2's table of past values they would only drive out what comes again.
        id.set_sensitive(true);
    } else {
        // Unique is enough here: nobody proves anything with a request id.
        let id = uuid::Builder::from_random_bytes(fastrand::u128(..).to_ne_bytes()).into_uuid();
        let mut buffer = [0; uuid::fmt::Hyphenated::LENGTH];
        let text = id.hyphenated().encode_lower(&mut buffer);
        if let Ok(mut value) = HeaderValue::from_str(text) {
            value.set_sensitive(true);
            headers.insert(REQUEST_ID, value);
        }
    }
}
