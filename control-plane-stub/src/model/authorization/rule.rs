//! One rule: from whom, to what, under which conditions; and what it comes to as a list of clauses.

use serde::{Deserialize, Deserializer, de::Error};

use super::values::{IpBlock, NamespacePattern, Parse, PathPattern, Pattern, PortText, ServiceAccount};
use crate::model::scalars::header_name;

/// Matches what one of `from`, one of `to` and all of `when` take; a list that is not there takes everything.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    #[serde(default, deserialize_with = "some")]
    pub from: Vec<From>,
    #[serde(default, deserialize_with = "some")]
    pub to: Vec<To>,
    #[serde(default)]
    pub when: Vec<Condition>,
}

/// A list that says something if it is there: an empty one would match everything.
fn some<'de, D: Deserializer<'de>, T: Deserialize<'de>>(de: D) -> Result<Vec<T>, D::Error> {
    let list = Vec::<T>::deserialize(de)?;
    if list.is_empty() {
        return Err(D::Error::custom("must not be empty: remove it to match everything"));
    }
    Ok(list)
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct From {
    pub source: Source,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct To {
    pub operation: Operation,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Source {
    pub principals: Vec<Pattern>,
    pub not_principals: Vec<Pattern>,
    pub request_principals: Vec<Pattern>,
    pub not_request_principals: Vec<Pattern>,
    pub namespaces: Vec<NamespacePattern>,
    pub not_namespaces: Vec<NamespacePattern>,
    pub service_accounts: Vec<ServiceAccount>,
    pub not_service_accounts: Vec<ServiceAccount>,
    pub ip_blocks: Vec<IpBlock>,
    pub not_ip_blocks: Vec<IpBlock>,
    pub remote_ip_blocks: Vec<IpBlock>,
    pub not_remote_ip_blocks: Vec<IpBlock>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Operation {
    pub hosts: Vec<Pattern>,
    pub not_hosts: Vec<Pattern>,
    pub ports: Vec<PortText>,
    pub not_ports: Vec<PortText>,
    pub methods: Vec<Pattern>,
    pub not_methods: Vec<Pattern>,
    pub paths: Vec<PathPattern>,
    pub not_paths: Vec<PathPattern>,
}

/// Values of which one must match, and values of which none may.
#[derive(Debug, PartialEq)]
pub struct Both<'a, T> {
    pub values: &'a [T],
    pub not_values: &'a [T],
}

// Derived, it would ask the same of the values.
impl<T> Clone for Both<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Both<'_, T> {}

/// One attribute of a connection or request, and what it is compared with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Clause<'a> {
    Principal(Both<'a, Pattern>),
    RequestPrincipal(Both<'a, Pattern>),
    ServiceAccount(Both<'a, ServiceAccount>),
    Namespace(Both<'a, NamespacePattern>),
    RemoteIp(Both<'a, IpBlock>),
    SourceIp(Both<'a, IpBlock>),
    Audience(Both<'a, Pattern>),
    Presenter(Both<'a, Pattern>),
    /// Name of the claim, from the outermost in.
    Claim(&'a [String], Both<'a, Pattern>),
    Header(&'a str, Both<'a, Pattern>),
    Host(Both<'a, Pattern>),
    Method(Both<'a, Pattern>),
    Path(Both<'a, PathPattern>),
    Port(Both<'a, PortText>),
    DestinationIp(Both<'a, IpBlock>),
    ServerName(Both<'a, Pattern>),
    /// Metadata of an Envoy filter: its name, the key.
    Metadata(&'a str, &'a str, Both<'a, Pattern>),
}

impl Clause<'_> {
    /// Whether a connection that is not HTTP has no such attribute.
    pub fn is_http_only(&self) -> bool {
        match self {
            Self::RequestPrincipal(_)
            | Self::Audience(_)
            | Self::Presenter(_)
            | Self::Claim(..)
            | Self::Header(..)
            | Self::Host(_)
            | Self::Method(_)
            | Self::Path(_) => true,
            Self::Principal(_)
            | Self::ServiceAccount(_)
            | Self::Namespace(_)
            | Self::RemoteIp(_)
            | Self::SourceIp(_)
            | Self::Port(_)
            | Self::DestinationIp(_)
            | Self::ServerName(_)
            | Self::Metadata(..) => false,
        }
    }
}

/// One `when`: a key and what it is compared with.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    /// As the operator wrote it.
    pub key: String,
    pub compared: Key,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Key {
    Header(String, Lists<Pattern>),
    SourceIp(Lists<IpBlock>),
    RemoteIp(Lists<IpBlock>),
    Namespace(Lists<NamespacePattern>),
    ServiceAccount(Lists<ServiceAccount>),
    Principal(Lists<Pattern>),
    RequestPrincipal(Lists<Pattern>),
    Audience(Lists<Pattern>),
    Presenter(Lists<Pattern>),
    Claim(Vec<String>, Lists<Pattern>),
    DestinationIp(Lists<IpBlock>),
    DestinationPort(Lists<PortText>),
    ServerName(Lists<Pattern>),
    Metadata(String, String, Lists<Pattern>),
}

/// As [`Both`], owned.
#[derive(Clone, Debug, PartialEq)]
pub struct Lists<T> {
    values: Vec<T>,
    not_values: Vec<T>,
}

impl<T> Lists<T> {
    /// Borrowed.
    pub fn both(&self) -> Both<'_, T> {
        Both { values: &self.values, not_values: &self.not_values }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawCondition {
    key: String,
    #[serde(default)]
    values: Vec<String>,
    #[serde(default)]
    not_values: Vec<String>,
}

impl<'de> Deserialize<'de> for Condition {
    fn deserialize<D: Deserializer<'de>>(de: D) -> Result<Self, D::Error> {
        let raw = RawCondition::deserialize(de)?;
        let compared = Key::read(&raw).map_err(|reason| D::Error::custom(format!("{}: {reason}", raw.key)))?;
        Ok(Self { key: raw.key, compared })
    }
}

fn lists<T: Parse>(raw: &RawCondition) -> Result<Lists<T>, String> {
    if raw.values.is_empty() && raw.not_values.is_empty() {
        return Err("needs values or notValues".to_owned());
    }
    let parsed = |texts: &[String]| texts.iter().map(|text| T::parse(text)).collect::<Result<Vec<_>, _>>();
    Ok(Lists { values: parsed(&raw.values)?, not_values: parsed(&raw.not_values)? })
}

/// The names in `[a][b]`, or one name that holds brackets itself.
fn bracketed(text: &str) -> Result<Vec<String>, String> {
    let inner = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).filter(|inner| !inner.is_empty());
    let inner = inner.ok_or("needs a name in brackets, as in key[name]")?;
    let parts: Vec<String> = inner.split("][").map(str::to_owned).collect();
    if parts.iter().all(|part| !part.is_empty() && !part.contains(['[', ']'])) {
        return Ok(parts);
    }
    Ok(vec![inner.to_owned()])
}

impl Key {
    fn read(raw: &RawCondition) -> Result<Self, String> {
        let key = raw.key.as_str();
        if let Some(rest) = key.strip_prefix("request.headers") {
            let [name] = <[String; 1]>::try_from(bracketed(rest)?).map_err(|_| "names one header only".to_owned())?;
            if !matches!(name.as_str(), ":method" | ":path" | ":scheme") {
                header_name(&name)?;
            }
            return Ok(Self::Header(name, lists(raw)?));
        }
        if let Some(rest) = key.strip_prefix("request.auth.claims") {
            return Ok(Self::Claim(bracketed(rest)?, lists(raw)?));
        }
        if key.starts_with("experimental.envoy.filters.") {
            let filter = key.trim_start_matches("experimental.");
            let (name, rest) = filter.find('[').map(|at| filter.split_at(at)).ok_or("needs a key in brackets")?;
            let [inner] = <[String; 1]>::try_from(bracketed(rest)?).map_err(|_| "names one key only".to_owned())?;
            return Ok(Self::Metadata(name.to_owned(), inner, lists(raw)?));
        }
        Ok(match key {
            "source.ip" => Self::SourceIp(lists(raw)?),
            "remote.ip" => Self::RemoteIp(lists(raw)?),
            "source.namespace" => Self::Namespace(lists(raw)?),
            "source.serviceAccount" => Self::ServiceAccount(lists(raw)?),
            "source.principal" => Self::Principal(lists(raw)?),
            "request.auth.principal" => Self::RequestPrincipal(lists(raw)?),
            "request.auth.audiences" => Self::Audience(lists(raw)?),
            "request.auth.presenter" => Self::Presenter(lists(raw)?),
            "destination.ip" => Self::DestinationIp(lists(raw)?),
            "destination.port" => Self::DestinationPort(lists(raw)?),
            "connection.sni" => Self::ServerName(lists(raw)?),
            _ => {
                return Err(
                    "is not a key known here: correct it, leaving the condition out would match more".to_owned()
                );
            }
        })
    }

    /// The clause, and whether it is about the caller (else about what is called).
    fn clause(&self) -> (Clause<'_>, bool) {
        match self {
            Self::Header(name, lists) => (Clause::Header(name, lists.both()), true),
            Self::SourceIp(lists) => (Clause::SourceIp(lists.both()), true),
            Self::RemoteIp(lists) => (Clause::RemoteIp(lists.both()), true),
            Self::Namespace(lists) => (Clause::Namespace(lists.both()), true),
            Self::ServiceAccount(lists) => (Clause::ServiceAccount(lists.both()), true),
            Self::Principal(lists) => (Clause::Principal(lists.both()), true),
            Self::RequestPrincipal(lists) => (Clause::RequestPrincipal(lists.both()), true),
            Self::Audience(lists) => (Clause::Audience(lists.both()), true),
            Self::Presenter(lists) => (Clause::Presenter(lists.both()), true),
            Self::Claim(names, lists) => (Clause::Claim(names, lists.both()), true),
            Self::DestinationIp(lists) => (Clause::DestinationIp(lists.both()), false),
            Self::DestinationPort(lists) => (Clause::Port(lists.both()), false),
            Self::ServerName(lists) => (Clause::ServerName(lists.both()), false),
            Self::Metadata(filter, key, lists) => (Clause::Metadata(filter, key, lists.both()), false),
        }
    }
}

fn said<'a, T>(values: &'a [T], not_values: &'a [T], clause: fn(Both<'a, T>) -> Clause<'a>) -> Option<Clause<'a>> {
    (!values.is_empty() || !not_values.is_empty()).then(|| clause(Both { values, not_values }))
}

impl Source {
    /// What it says of the caller, in Istio's order.
    pub fn clauses(&self) -> Vec<Clause<'_>> {
        let all = [
            said(&self.principals, &self.not_principals, Clause::Principal),
            said(&self.request_principals, &self.not_request_principals, Clause::RequestPrincipal),
            said(&self.service_accounts, &self.not_service_accounts, Clause::ServiceAccount),
            said(&self.namespaces, &self.not_namespaces, Clause::Namespace),
            said(&self.remote_ip_blocks, &self.not_remote_ip_blocks, Clause::RemoteIp),
            said(&self.ip_blocks, &self.not_ip_blocks, Clause::SourceIp),
        ];
        all.into_iter().flatten().collect()
    }
}

impl Operation {
    /// What it says of the call, in Istio's order.
    pub fn clauses(&self) -> Vec<Clause<'_>> {
        let all = [
            said(&self.hosts, &self.not_hosts, Clause::Host),
            said(&self.methods, &self.not_methods, Clause::Method),
            said(&self.paths, &self.not_paths, Clause::Path),
            said(&self.ports, &self.not_ports, Clause::Port),
        ];
        all.into_iter().flatten().collect()
    }
}

impl Rule {
    /// The callers it takes: one of the lists must hold, all clauses of it.
    pub fn callers(&self) -> Vec<Vec<Clause<'_>>> {
        self.alternatives(self.from.iter().map(|from| from.source.clauses()), true)
    }

    /// The calls it takes, likewise.
    pub fn calls(&self) -> Vec<Vec<Clause<'_>>> {
        self.alternatives(self.to.iter().map(|to| to.operation.clauses()), false)
    }

    fn alternatives<'a>(
        &'a self,
        listed: impl Iterator<Item = Vec<Clause<'a>>>,
        of_caller: bool,
    ) -> Vec<Vec<Clause<'a>>> {
        let conditions = || {
            let clauses = self.when.iter().map(|condition| condition.compared.clause());
            clauses.filter(move |(_, caller)| *caller == of_caller).map(|(clause, _)| clause)
        };
        let mut all: Vec<Vec<Clause<'_>>> =
            listed.map(|clauses| clauses.into_iter().chain(conditions()).collect()).collect();
        if all.is_empty() {
            all.push(conditions().collect());
        }
        all
    }
}
