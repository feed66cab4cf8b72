//! Role based access control (`envoy.config.rbac.v3`) as HTTP and network filter.
//!
//! A permission and a principal are both a [`Rule`]. What is here can be decided: a matcher that is not known has been
//! refused with its resource, and what needs HTTP is refused where there is none. Deciding is `policy::rbac`'s.

mod index;
pub mod tree;

use std::time::Duration;

pub use self::index::{Index, Places};
use self::tree::Tree;
use super::{
    Name,
    matcher::{Cidr, HeaderMatcher, StringMatcher},
    metadata::MetadataMatcher,
    path_template::PathTemplate,
};

/// `envoy.extensions.filters.http.rbac.v3.RBAC`, and the common part of the network filter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rbac {
    /// `None`: nothing is enforced.
    pub rules: Option<Engine>,
    /// Evaluated and reported, not enforced.
    pub shadow: Option<Engine>,
    /// Before the names of the statistics and metadata of each.
    pub rules_prefix: Box<str>,
    pub shadow_prefix: Box<str>,
    pub track_per_rule: bool,
}

impl Rbac {
    /// Whether some rule looks at what filters noted of a stream.
    pub fn reads_metadata(&self) -> bool {
        [&self.rules, &self.shadow].into_iter().flatten().any(|engine| match engine {
            Engine::Policies(set) => {
                set.policies.iter().any(|p| p.permissions.reads_metadata() || p.principals.reads_metadata())
            }
            Engine::Tree(tree) => tree.reads_metadata,
        })
    }
}

/// `envoy.extensions.filters.network.rbac.v3.RBAC`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkRbac {
    pub stat_prefix: Name,
    pub rbac: Rbac,
    /// How long a refused connection is kept before it is closed.
    pub delay_deny: Option<Duration>,
}

/// What decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Engine {
    Policies(Policies),
    Tree(Tree),
}

impl Engine {
    /// Whether some rule looks at headers, other than what says where a request goes.
    pub fn reads_headers(&self) -> bool {
        match self {
            Self::Policies(set) => {
                set.policies.iter().any(|p| p.permissions.reads_headers() || p.principals.reads_headers())
            }
            Self::Tree(tree) => tree.reads_headers,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Action {
    #[default]
    Allow,
    Deny,
    Log,
}

/// `envoy.config.rbac.v3.RBAC`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policies {
    pub action: Action,
    /// In the order of their names: the first that matches is the one that counts.
    pub policies: Box<[Policy]>,
    pub index: Box<Index>,
}

impl Policies {
    pub fn new(action: Action, mut policies: Vec<Policy>) -> Self {
        policies.sort_by(|a, b| a.name.cmp(&b.name));
        Self { action, index: Box::new(Index::new(&policies)), policies: policies.into() }
    }
}

/// Matches where one of its permissions and one of its principals do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    pub name: Name,
    pub permissions: Rule,
    pub principals: Rule,
}

/// A permission or a principal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rule {
    Any,
    All(Box<[Rule]>),
    OneOf(Box<[Rule]>),
    Not(Box<Rule>),
    Header(Box<HeaderMatcher>),
    /// The path without query and fragment.
    Path(StringMatcher),
    Template(Box<PathTemplate>),
    DestinationIp(Cidr),
    /// Half-open.
    DestinationPort {
        start: u32,
        end: u32,
    },
    ServerName(StringMatcher),
    /// Over TLS, and with this name if there is one.
    Authenticated(Option<StringMatcher>),
    /// With a certificate that was verified, and this name in it if there is one.
    Mtls(Option<SanMatcher>),
    /// The peer's name as Istio's `io.istio.peer_principal` has it.
    PeerPrincipal(StringMatcher),
    /// The peer of the connection.
    Peer(Cidr),
    /// The client, as `x-forwarded-for` names it where that is trusted.
    Client(Cidr),
    Metadata(Box<MetadataMatcher>, MetadataSource),
}

impl Rule {
    fn reads_metadata(&self) -> bool {
        match self {
            Self::Metadata(..) => true,
            Self::All(rules) | Self::OneOf(rules) => rules.iter().any(Self::reads_metadata),
            Self::Not(rule) => rule.reads_metadata(),
            _ => false,
        }
    }

    fn reads_headers(&self) -> bool {
        match self {
            Self::Header(matcher) => !matches!(&*matcher.name, ":method" | ":path" | ":authority" | ":scheme"),
            Self::All(rules) | Self::OneOf(rules) => rules.iter().any(Self::reads_headers),
            Self::Not(rule) => rule.reads_headers(),
            _ => false,
        }
    }

    /// Every one of `rules`.
    pub fn all_of(rules: Vec<Rule>) -> Self {
        Self::alone(rules).unwrap_or_else(Self::All)
    }

    /// Some one of `rules`.
    pub fn any_of(rules: Vec<Rule>) -> Self {
        Self::alone(rules).unwrap_or_else(Self::OneOf)
    }

    /// The only rule, or all of them.
    fn alone(mut rules: Vec<Rule>) -> Result<Self, Box<[Rule]>> {
        match (rules.pop(), rules.is_empty()) {
            (Some(only), true) => Ok(only),
            (last, _) => {
                rules.extend(last);
                Err(rules.into())
            }
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MetadataSource {
    #[default]
    Dynamic,
    Route,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SanMatcher {
    pub kind: SanKind,
    pub matcher: StringMatcher,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SanKind {
    Uri,
    Dns,
}
