//! Who the client is, as told to and by `x-forwarded-*` headers: `use_remote_address`, trusted hops, XFCC, `via`.
//!
//! Pure over a header map and the connection's facts. Only what the configuration trusts is believed: without it, the
//! peer's own address and certificate are all that counts.

use std::{
    fmt::Write,
    net::{IpAddr, SocketAddr},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::{headers, names::Names};
use crate::{
    ir::http::{ConnectionManager, ForwardClientCert},
    policy::router::ClientCertificate,
    telemetry::record::{ConnInfo, PeerInfo},
};

#[cfg(test)]
#[path = "forwarded_tests.rs"]
mod tests;

pub const XFF: HeaderName = HeaderName::from_static("x-forwarded-for");
pub const XFP: HeaderName = HeaderName::from_static("x-forwarded-proto");
pub const XFCC: HeaderName = HeaderName::from_static("x-forwarded-client-cert");
const XFPORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const EXTERNAL: HeaderName = HeaderName::from_static("x-envoy-external-address");
const INTERNAL: HeaderName = HeaderName::from_static("x-envoy-internal");
/// What only an internal client may ask of a proxy.
const PRIVILEGED: &[&str] = &[
    "x-envoy-internal",
    "x-envoy-upstream-rq-timeout-ms",
    "x-envoy-upstream-rq-per-try-timeout-ms",
    "x-envoy-upstream-rq-timeout-alt-response",
    "x-envoy-upstream-stream-duration-ms",
    "x-envoy-upstream-alt-stat-name",
    "x-envoy-expected-rq-timeout-ms",
    "x-envoy-retry-on",
    "x-envoy-retry-grpc-on",
    "x-envoy-max-retries",
    "x-envoy-retriable-status-codes",
    "x-envoy-retriable-header-names",
    "x-envoy-hedge-on-per-try-timeout",
    "x-envoy-force-trace",
    "x-envoy-ip-tags",
    "x-envoy-original-url",
];
/// What nobody outside may claim at the edge.
const EDGE: &[&str] = &[
    "x-envoy-decorator-operation",
    "x-envoy-downstream-service-cluster",
    "x-envoy-downstream-service-node",
    "x-envoy-original-path",
];

/// What the forwarding headers say, once they are sanitised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The trusted address of the client.
    pub remote: SocketAddr,
    pub internal: bool,
    /// `https` or `http`.
    pub scheme: &'static str,
    pub certificate: ClientCertificate,
}

/// Sanitises and completes the forwarding headers of a request.
pub(super) fn apply(hcm: &ConnectionManager, conn: &ConnInfo, headers: &mut HeaderMap, names: Names) -> Origin {
    let tls = conn.tls.is_some();
    let direct = conn.remote.ip().to_canonical();
    let mut remote = conn.remote;
    let (single, proto);
    let edge = hcm.use_remote_address;
    if edge {
        if hcm.xff_trusted_hops > 0
            && let Some(ip) = nth_from_right(headers, hcm.xff_trusted_hops - 1)
        {
            remote = SocketAddr::new(ip, 0);
        }
        single = !names.has(Names::FORWARDED_FOR);
        if !hcm.skip_xff_append {
            append(headers, &XFF, &direct.to_string());
        }
        let told = Some(()).filter(|()| hcm.xff_trusted_hops > 0).and_then(|()| scheme(headers, names));
        proto = told.unwrap_or_else(|| set_scheme(headers, tls));
        if hcm.append_forwarded_port && (hcm.xff_trusted_hops == 0 || !headers.contains_key(&XFPORT)) {
            headers.insert(XFPORT, HeaderValue::from(conn.local.port()));
        }
    } else {
        let forwarded = names.has(Names::FORWARDED_FOR);
        single = forwarded && one_address(headers);
        if let Some(ip) = forwarded.then(|| nth_from_right(headers, hcm.xff_trusted_hops)).flatten() {
            remote = SocketAddr::new(ip, 0);
        }
        proto = scheme(headers, names).unwrap_or_else(|| set_scheme(headers, tls));
    }
    // Internal is a request that came over one hop from an internal address, as Envoy decides it.
    let ip = remote.ip().to_canonical();
    let internal = single && hcm.internal_networks.iter().any(|network| network.contains(ip));
    if internal {
        headers.insert(INTERNAL, HeaderValue::from_static("true"));
    } else if names.has(Names::ENVOY) {
        for name in headers::among(headers, PRIVILEGED) {
            headers.remove(name);
        }
        if edge {
            for name in headers::among(headers, EDGE) {
                headers.remove(name);
            }
        }
    }
    if edge
        && !internal
        && let Ok(value) = HeaderValue::from_str(&ip.to_string())
    {
        headers.insert(EXTERNAL, value);
    }
    client_cert(hcm, conn.tls.as_deref(), headers, names.has(Names::CLIENT_CERT));
    if !hcm.via.is_empty() {
        append(headers, &http::header::VIA, &hcm.via);
    }
    let certificate = conn.tls.as_ref().map_or_else(ClientCertificate::default, |peer| ClientCertificate {
        presented: peer.certificate.is_some(),
        validated: peer.verified && !peer.resumed,
    });
    Origin { remote, internal, scheme: proto, certificate }
}

/// What `x-forwarded-proto` says, if it is one of the two it may say.
fn scheme(headers: &HeaderMap, names: Names) -> Option<&'static str> {
    let said = names.has(Names::FORWARDED_PROTO).then(|| headers.get(&XFP)).flatten()?;
    ["http", "https"].into_iter().find(|scheme| said == scheme)
}

fn set_scheme(headers: &mut HeaderMap, tls: bool) -> &'static str {
    let scheme = if tls { "https" } else { "http" };
    headers.insert(XFP, HeaderValue::from_static(scheme));
    scheme
}

/// The `n`th address from the right (0 is the last) over all `x-forwarded-for` lines.
fn nth_from_right(headers: &HeaderMap, n: u32) -> Option<IpAddr> {
    let lines: Vec<&str> = headers.get_all(&XFF).iter().map(|v| v.to_str().ok()).collect::<Option<_>>()?;
    lines
        .iter()
        .rev()
        .flat_map(|l| l.rsplit(','))
        .nth(n as usize)?
        .trim()
        .parse()
        .ok()
        .map(|ip: IpAddr| ip.to_canonical())
}

fn one_address(headers: &HeaderMap) -> bool {
    let mut lines = headers.get_all(&XFF).iter();
    match (lines.next(), lines.next()) {
        (Some(line), None) => !line.as_bytes().contains(&b','),
        _ => false,
    }
}

/// Appends to the last line of a list header, as Envoy's `appendXff` and `appendVia` do.
pub fn append(headers: &mut HeaderMap, name: &HeaderName, value: &str) {
    let joined = headers.get_all(name).iter().fold(Vec::new(), |mut all: Vec<u8>, line| {
        if !all.is_empty() {
            all.push(b',');
        }
        all.extend_from_slice(line.as_bytes());
        all
    });
    let text = if joined.is_empty() {
        HeaderValue::from_str(value)
    } else {
        let separator: &[u8] = if *name == http::header::VIA { b", " } else { b"," };
        HeaderValue::from_bytes(&[&joined, separator, value.as_bytes()].concat())
    };
    if let Ok(text) = text {
        headers.insert(name, text);
    }
}

/// `x-forwarded-client-cert` in its five modes.
fn client_cert(hcm: &ConnectionManager, tls: Option<&PeerInfo>, headers: &mut HeaderMap, told: bool) {
    let mode = hcm.client_cert;
    if mode == ForwardClientCert::AlwaysForwardOnly {
        return;
    }
    let peer = tls.filter(|t| t.certificate.is_some());
    let Some(peer) = peer.filter(|_| mode != ForwardClientCert::Sanitize) else {
        // Only a peer that proved who it is may say whom it speaks for.
        if told {
            headers.remove(&XFCC);
        }
        return;
    };
    if mode == ForwardClientCert::ForwardOnly {
        return;
    }
    let element = peer.client_cert_element.get_or_init(|| element(hcm, peer).into());
    if told && mode == ForwardClientCert::AppendForward {
        return append(headers, &XFCC, element);
    }
    match HeaderValue::from_str(element) {
        Ok(value) => headers.insert(XFCC, value),
        Err(_) => headers.remove(&XFCC),
    };
}

/// One element: `By=...;Hash=...;Cert="...";Chain="...";Subject="...";URI=...;DNS=...`, in Envoy's order.
fn element(hcm: &ConnectionManager, peer: &PeerInfo) -> String {
    let details = hcm.client_cert_details;
    let mut parts: Vec<String> = peer.local_uri_sans.iter().map(|san| format!("By={san}")).collect();
    if let Some(der) = &peer.certificate {
        parts.push(format!("Hash={}", sha256_hex(der)));
    }
    if details.cert
        && let Some(der) = &peer.certificate
    {
        parts.push(format!("Cert=\"{}\"", url_encoded_pem([&**der])));
    }
    if details.chain && !peer.chain.is_empty() {
        parts.push(format!("Chain=\"{}\"", url_encoded_pem(peer.chain.iter().map(|c| &**c))));
    }
    if details.subject {
        parts.push(format!("Subject=\"{}\"", peer.subject.replace('\\', "\\\\").replace('"', "\\\"")));
    }
    if details.uri {
        // Envoy writes the key even when the certificate has no URI.
        if peer.uri_sans.is_empty() {
            parts.push("URI=".into());
        }
        parts.extend(peer.uri_sans.iter().map(|san| format!("URI={san}")));
    }
    if details.dns {
        parts.extend(peer.dns_sans.iter().map(|san| format!("DNS={san}")));
    }
    parts.join(";")
}

fn sha256_hex(data: &[u8]) -> String {
    let digest = aws_digest(data);
    digest.iter().fold(String::with_capacity(64), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

fn aws_digest(data: &[u8]) -> Vec<u8> {
    rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256
        .tls13()
        .map(|suite| suite.common.hash_provider.hash(data).as_ref().to_vec())
        .unwrap_or_default()
}

/// PEM, URL-encoded as Envoy does (everything outside the unreserved set).
pub(super) fn url_encoded_pem<'a>(certificates: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut pem = String::new();
    for der in certificates {
        pem.push_str("-----BEGIN CERTIFICATE-----\n");
        let body = STANDARD.encode(der);
        for line in body.as_bytes().chunks(64) {
            pem.push_str(&String::from_utf8_lossy(line));
            pem.push('\n');
        }
        pem.push_str("-----END CERTIFICATE-----\n");
    }
    const SET: &percent_encoding::AsciiSet =
        &percent_encoding::NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
    percent_encoding::utf8_percent_encode(&pem, SET).to_string()
}
