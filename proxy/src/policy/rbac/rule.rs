//! Whether one permission or principal matches.

use super::Facts;
use crate::{
    ir::{
        matcher::StringMatcher,
        rbac::{MetadataSource, Rule, SanKind, SanMatcher},
    },
    policy::router::header_matches,
    telemetry::record::PeerInfo,
};

pub(super) fn matches(rule: &Rule, facts: &Facts<'_>) -> bool {
    match rule {
        Rule::Any => true,
        Rule::All(rules) => rules.iter().all(|r| matches(r, facts)),
        Rule::OneOf(rules) => rules.iter().any(|r| matches(r, facts)),
        Rule::Not(rule) => !matches(rule, facts),
        Rule::Header(matcher) => facts.http.is_some_and(|http| header_matches(matcher, &http)),
        Rule::Path(matcher) => facts.path().is_some_and(|path| matcher.matches(path)),
        Rule::Template(template) => facts.path().is_some_and(|path| template.is_match(path)),
        Rule::DestinationIp(net) => net.contains(facts.local.ip()),
        Rule::DestinationPort { start, end } => (*start..*end).contains(&u32::from(facts.local.port())),
        Rule::ServerName(matcher) => matcher.matches(facts.server_name),
        Rule::Authenticated(None) => facts.tls.is_some(),
        Rule::Authenticated(Some(matcher)) => verified(facts).is_some_and(|peer| principal(peer, matcher)),
        Rule::Mtls(None) => verified(facts).is_some(),
        Rule::Mtls(Some(san)) => verified(facts).is_some_and(|peer| has_san(peer, san)),
        Rule::PeerPrincipal(matcher) => {
            verified(facts).and_then(|peer| peer.uri_sans.first()).is_some_and(|name| matcher.matches(name))
        }
        Rule::Peer(net) => net.contains(facts.peer.ip()),
        Rule::Client(net) => net.contains(facts.client.ip()),
        Rule::Metadata(matcher, source) => matcher.matches(match source {
            MetadataSource::Dynamic => facts.dynamic,
            MetadataSource::Route => facts.route,
        }),
    }
}

/// The peer, if its certificate was verified: a name that anybody can claim is none.
pub(super) fn verified<'a>(facts: &Facts<'a>) -> Option<&'a PeerInfo> {
    facts.tls.filter(|peer| peer.verified && peer.certificate.is_some())
}

/// Any URI name, else any DNS name, else the subject.
fn principal(peer: &PeerInfo, matcher: &StringMatcher) -> bool {
    let any = |names: &[Box<str>]| names.iter().any(|name| matcher.matches(name));
    any(&peer.uri_sans) || any(&peer.dns_sans) || matcher.matches(&peer.subject)
}

fn has_san(peer: &PeerInfo, san: &SanMatcher) -> bool {
    let names = match san.kind {
        SanKind::Uri => &peer.uri_sans,
        SanKind::Dns => &peer.dns_sans,
    };
    names.iter().any(|name| san.matcher.matches(name))
}
