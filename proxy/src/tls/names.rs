//! The names in a certificate: subject alternative names, their matchers, and the subject in RFC 2253 form.
//!
//! Pure functions of DER bytes. A name that cannot be read matches nothing.

use std::{fmt::Write, net::IpAddr};

use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer, x509::X509Name};

use crate::ir::{
    matcher::{Pattern, StringMatcher},
    secret::{SanKind, SanMatcher},
};

/// One subject alternative name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum San {
    Uri(Box<str>),
    Dns(Box<str>),
    Email(Box<str>),
    Ip(IpAddr),
}

impl std::fmt::Display for San {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Uri(s) => write!(f, "URI:{s}"),
            Self::Dns(s) => write!(f, "DNS:{s}"),
            Self::Email(s) => write!(f, "email:{s}"),
            Self::Ip(ip) => write!(f, "IP:{ip}"),
        }
    }
}

/// Parses a certificate that the TLS stack has already accepted as well-formed enough.
pub(super) fn parse(der: &[u8]) -> Option<X509Certificate<'_>> {
    X509Certificate::from_der(der).ok().filter(|(rest, _)| rest.is_empty()).map(|(_, certificate)| certificate)
}

/// The names of the four kinds that matchers know; none when the extension is malformed or doubled.
pub(super) fn sans(certificate: &X509Certificate<'_>) -> Vec<San> {
    let Ok(Some(extension)) = certificate.subject_alternative_name() else { return Vec::new() };
    extension
        .value
        .general_names
        .iter()
        .filter_map(|name| match name {
            GeneralName::URI(s) => Some(San::Uri((*s).into())),
            GeneralName::DNSName(s) => Some(San::Dns((*s).into())),
            GeneralName::RFC822Name(s) => Some(San::Email((*s).into())),
            GeneralName::IPAddress(bytes) => ip(bytes).map(San::Ip),
            _ => None,
        })
        .collect()
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    <[u8; 4]>::try_from(bytes).map(IpAddr::from).or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

/// Whether one of the names satisfies one of the matchers.
pub(super) fn any_match(matchers: &[SanMatcher], sans: &[San]) -> bool {
    matchers.iter().any(|m| sans.iter().any(|san| matches(m, san)))
}

fn matches(matcher: &SanMatcher, san: &San) -> bool {
    let wanted = |kind| matcher.kind == SanKind::Any || matcher.kind == kind;
    match san {
        San::Uri(s) => wanted(SanKind::Uri) && matcher.matcher.matches(s),
        San::Email(s) => wanted(SanKind::Email) && matcher.matcher.matches(s),
        San::Ip(ip) => wanted(SanKind::Ip) && matcher.matcher.matches(&ip.to_string()),
        San::Dns(s) => wanted(SanKind::Dns) && dns_matches(&matcher.matcher, s),
    }
}

/// An exact pattern is a host name that the certificate may cover with a wildcard; DNS names ignore case.
fn dns_matches(matcher: &StringMatcher, presented: &str) -> bool {
    if matcher.matches(presented) {
        return true;
    }
    let Pattern::Exact(host) = &matcher.pattern else { return false };
    if host.eq_ignore_ascii_case(presented) {
        return true;
    }
    covers(presented, host)
}

/// Whether the presented DNS name, which may have a wildcard as its whole first label, covers `host`.
pub(super) fn covers(presented: &str, host: &str) -> bool {
    if presented.eq_ignore_ascii_case(host) {
        return true;
    }
    let Some(parent) = presented.strip_prefix("*.") else { return false };
    let Some((label, rest)) = host.split_once('.') else { return false };
    // `*.com` is no name that an authority could vouch for.
    !label.is_empty() && parent.contains('.') && rest.eq_ignore_ascii_case(parent)
}

/// The subject as OpenSSL's `XN_FLAG_RFC2253` prints it, which is what Envoy reports.
pub(super) fn rfc2253(name: &X509Name<'_>) -> String {
    let rdns: Vec<_> = name.iter_rdn().collect();
    let mut out = String::new();
    for rdn in rdns.iter().rev() {
        if !out.is_empty() {
            out.push(',');
        }
        for (index, attribute) in rdn.iter().enumerate() {
            if index > 0 {
                out.push('+');
            }
            let oid = attribute.attr_type().to_id_string();
            match (short_name(&oid), attribute.as_str()) {
                (Some(key), Ok(value)) => {
                    out.push_str(key);
                    out.push('=');
                    escape(value, &mut out);
                }
                (key, _) => {
                    out.push_str(key.unwrap_or(&oid));
                    out.push_str("=#");
                    hex(attribute.as_slice(), &mut out);
                }
            }
        }
    }
    out
}

fn short_name(oid: &str) -> Option<&'static str> {
    Some(match oid {
        "2.5.4.3" => "CN",
        "2.5.4.4" => "SN",
        "2.5.4.5" => "serialNumber",
        "2.5.4.6" => "C",
        "2.5.4.7" => "L",
        "2.5.4.8" => "ST",
        "2.5.4.9" => "street",
        "2.5.4.10" => "O",
        "2.5.4.11" => "OU",
        "2.5.4.12" => "title",
        "2.5.4.42" => "GN",
        "0.9.2342.19200300.100.1.1" => "UID",
        "0.9.2342.19200300.100.1.25" => "DC",
        "1.2.840.113549.1.9.1" => "emailAddress",
        _ => return None,
    })
}

fn escape(value: &str, out: &mut String) {
    let last = value.len().saturating_sub(1);
    for (at, byte) in value.bytes().enumerate() {
        match byte {
            b',' | b'+' | b'"' | b'\\' | b'<' | b'>' | b';' => {
                out.push('\\');
                out.push(char::from(byte));
            }
            b'#' if at == 0 => out.push_str("\\#"),
            b' ' if at == 0 || at == last => out.push_str("\\ "),
            0x20..=0x7e => out.push(char::from(byte)),
            _ => {
                out.push('\\');
                hex(&[byte], out);
            }
        }
    }
}

fn hex(bytes: &[u8], out: &mut String) {
    for byte in bytes {
        // Writing to a string cannot fail.
        let _ = write!(out, "{byte:02X}");
    }
}

#[cfg(test)]
mod tests;
