//! What the SPIFFE standard demands of a certificate that claims one of its identities (X.509-SVID, sections 2 to 5).
//!
//! Pure. Knows nothing of chains. Invariant: a certificate passes with one well-formed identity or with none; there is
//! no form of a name that one reader takes for an identity and another for something else.

use rustls::{Error, pki_types::CertificateDer};
use x509_parser::extensions::GeneralName;

use super::{
    Cause,
    error::Flaw,
    names::{self, San},
    spiffe::SpiffeId,
};
use crate::ir::{
    matcher::Pattern,
    secret::{SanKind, SanMatcher},
};

pub(super) const SELF_SIGNED: Flaw = Flaw {
    cause: Cause::SelfSigned,
    reason: std::borrow::Cow::Borrowed("the certificate is signed by itself and not trusted"),
};

/// Refuses a certificate with a name that looks like a SPIFFE identity and is not exactly one.
pub(super) fn check(leaf: &CertificateDer<'_>) -> Result<(), Error> {
    let flawed = |reason: String| Err(Flaw { cause: Cause::BadSvid, reason: reason.into() }.into());
    let Some(certificate) = names::parse(leaf) else { return flawed("the certificate cannot be read".to_owned()) };
    let readable = certificate.subject_alternative_name().is_ok_and(|extension| {
        let names = extension.iter().flat_map(|e| &e.value.general_names);
        !names.into_iter().any(|name| matches!(name, GeneralName::Invalid(..)))
    });
    if !readable {
        return flawed("the certificate's alternative names cannot be read, or there are two lists of them".to_owned());
    }
    let sans = names::sans(&certificate);
    let (mut uris, mut claims) = (0, false);
    for san in &sans {
        match san {
            San::Uri(uri) => {
                uris += 1;
                claims |= looks_like(uri);
            }
            San::Dns(name) | San::Email(name) if looks_like(name) => {
                return flawed(format!("a SPIFFE id is a URI, not what this certificate has: {san}"));
            }
            San::Dns(_) | San::Email(_) | San::Ip(_) => {}
        }
    }
    if !claims {
        return Ok(());
    }
    if uris != 1 {
        return flawed(format!("a certificate with a SPIFFE id has one URI, this one has {uris}"));
    }
    let id = sans.iter().find_map(|san| match san {
        San::Uri(uri) => Some(uri),
        _ => None,
    });
    match id.map(|id| (id, SpiffeId::parse(id))) {
        Some((_, Some(id))) if !id.path().is_empty() => {}
        Some((id, _)) => return flawed(format!("{:?} is not the SPIFFE id of a workload", excerpt(id))),
        None => return Ok(()),
    }
    if certificate.is_ca() {
        return flawed("an authority's certificate is not a workload's".to_owned());
    }
    Ok(())
}

/// Whatever somebody might take for a SPIFFE id.
fn looks_like(name: &str) -> bool {
    name.trim_start().get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case("spiffe:"))
}

fn excerpt(name: &str) -> String {
    name.chars().take(200).collect()
}

/// Whether subject and issuer are the same and not empty: authorities have names.
pub(super) fn is_self_signed(leaf: &CertificateDer<'_>) -> bool {
    names::parse(leaf).is_some_and(|c| c.issuer().as_raw() == c.subject().as_raw())
}

/// Whether the identity presented is of a trust domain that no matcher speaks of.
pub(super) fn is_foreign(matchers: &[SanMatcher], sans: &[San]) -> bool {
    let Some(presented) = sans.iter().find_map(|san| match san {
        San::Uri(uri) => SpiffeId::parse(uri),
        _ => None,
    }) else {
        return false;
    };
    let domains = matchers.iter().map(trust_domain).collect::<Option<Vec<_>>>();
    domains.is_some_and(|domains| !domains.contains(&presented.trust_domain()))
}

/// The trust domain a matcher is bound to; `None` when it may match others.
fn trust_domain(matcher: &SanMatcher) -> Option<&str> {
    if !matches!(matcher.kind, SanKind::Uri | SanKind::Any) {
        return None;
    }
    let (Pattern::Exact(text) | Pattern::Prefix(text)) = &matcher.matcher.pattern else { return None };
    text.strip_prefix("spiffe://")?.split_once('/').map(|(domain, _)| domain)
}

#[cfg(test)]
mod tests;
