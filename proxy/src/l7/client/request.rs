//! Puts a request's head into the form its connection's protocol wants; only here is the protocol finally known.
//!
//! A request may come in either form (or in the form of an earlier try): the authority in the URI, or a `host` header.
//! Where both are there the URI's authority is the one that counts.

use http::{
    HeaderValue, Method, Request, Uri, Version,
    header::HOST,
    uri::{Authority, PathAndQuery, Scheme},
};

use super::types::HttpProtocol;
use crate::{l7::debug, telemetry::record::PeerInfo};

/// Why a head cannot be sent.
pub(super) type Unfit = &'static str;

pub(super) fn prepare<B>(
    request: &mut Request<B>,
    protocol: HttpProtocol,
    peer: Option<&PeerInfo>,
) -> Result<(), Unfit> {
    debug::pass_on(request, peer);
    match protocol {
        HttpProtocol::Http1 => for_http1(request),
        HttpProtocol::Http2 => for_http2(request, peer.is_some()),
    }
}

/// Origin form with a `host` header; CONNECT keeps the authority form.
fn for_http1<B>(request: &mut Request<B>) -> Result<(), Unfit> {
    *request.version_mut() = Version::HTTP_11;
    if let Some(authority) = request.uri().authority() {
        if request.headers().get(HOST).is_none_or(|h| h.as_bytes() != authority.as_str().as_bytes()) {
            let host = HeaderValue::from_str(authority.as_str()).map_err(|_| "the authority is no header value")?;
            request.headers_mut().insert(HOST, host);
        }
        if *request.method() == Method::CONNECT {
            if request.uri().scheme().is_some() {
                let authority = authority_of(request)?.ok_or("CONNECT without an authority")?;
                *request.uri_mut() = Uri::from(authority);
            }
            return Ok(());
        }
        let parts = std::mem::take(request.uri_mut()).into_parts();
        let path = parts.path_and_query.unwrap_or_else(|| PathAndQuery::from_static("/"));
        *request.uri_mut() = Uri::from(path);
    } else if *request.method() == Method::CONNECT {
        return Err("CONNECT without an authority");
    }
    Ok(())
}

/// Scheme, authority and path in the URI, no `host` header.
fn for_http2<B>(request: &mut Request<B>, tls: bool) -> Result<(), Unfit> {
    let authority = authority_of(request)?;
    request.headers_mut().remove(HOST);
    let Some(authority) = authority else {
        if *request.method() == Method::CONNECT {
            return Err("CONNECT without an authority");
        }
        // HTTP/1.0 without a host: h2 writes the head without `:authority` only for requests of that version.
        *request.version_mut() = Version::HTTP_11;
        return Ok(());
    };
    *request.version_mut() = Version::HTTP_2;
    let plain_connect =
        *request.method() == Method::CONNECT && request.extensions().get::<hyper::ext::Protocol>().is_none();
    if plain_connect {
        *request.uri_mut() = Uri::from(authority);
        return Ok(());
    }
    if request.uri().scheme().is_some() && request.uri().authority().is_some() {
        return Ok(());
    }
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    parts.scheme.get_or_insert(if tls { Scheme::HTTPS } else { Scheme::HTTP });
    parts.authority = Some(authority);
    parts.path_and_query.get_or_insert_with(|| PathAndQuery::from_static("/"));
    *request.uri_mut() = Uri::from_parts(parts).map_err(|_| "the request target fits no URI")?;
    Ok(())
}

fn authority_of<B>(request: &Request<B>) -> Result<Option<Authority>, Unfit> {
    if let Some(authority) = request.uri().authority() {
        return Ok(Some(authority.clone()));
    }
    match request.headers().get(HOST) {
        None => Ok(None),
        Some(host) if host.is_empty() => Ok(None),
        Some(host) => Authority::try_from(host.as_bytes()).map(Some).map_err(|_| "the host header is no authority"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: Method, uri: &'static str, host: Option<&'static str>) -> Request<()> {
        let mut request = Request::new(());
        *request.method_mut() = method;
        *request.uri_mut() = Uri::from_static(uri);
        if let Some(host) = host {
            request.headers_mut().insert(HOST, HeaderValue::from_static(host));
        }
        request
    }

    #[test]
    fn either_form_becomes_either_form() {
        for (uri, host) in [("http://a.b:1/p?q", Some("other")), ("/p?q", Some("a.b:1")), ("http://a.b:1/p?q", None)] {
            let mut one = request(Method::GET, uri, host);
            prepare(&mut one, HttpProtocol::Http1, None).unwrap();
            assert_eq!(
                (one.uri().to_string(), &one.headers()[HOST]),
                ("/p?q".into(), &HeaderValue::from_static("a.b:1"))
            );
            assert_eq!(one.version(), Version::HTTP_11);
            prepare(&mut one, HttpProtocol::Http2, Some(&PeerInfo::default())).unwrap();
            assert_eq!(one.uri(), "https://a.b:1/p?q");
            assert!(!one.headers().contains_key(HOST));
            assert_eq!(one.version(), Version::HTTP_2);
        }
    }

    #[test]
    fn special_targets() {
        let mut connect = request(Method::CONNECT, "a.b:443", None);
        prepare(&mut connect, HttpProtocol::Http1, None).unwrap();
        assert_eq!(connect.uri(), "a.b:443");
        assert_eq!(connect.headers()[HOST], "a.b:443");
        prepare(&mut connect, HttpProtocol::Http2, None).unwrap();
        assert_eq!(connect.uri(), "a.b:443");
        let mut options = request(Method::OPTIONS, "*", Some("a.b"));
        prepare(&mut options, HttpProtocol::Http1, None).unwrap();
        assert_eq!(options.uri(), "*");
        let mut old = request(Method::GET, "/x", None);
        prepare(&mut old, HttpProtocol::Http2, None).unwrap();
        assert_eq!((old.version(), old.uri().path()), (Version::HTTP_11, "/x"));
        let mut bad = request(Method::GET, "/x", Some("a b"));
        assert!(prepare(&mut bad, HttpProtocol::Http2, None).is_err());
    }
}
