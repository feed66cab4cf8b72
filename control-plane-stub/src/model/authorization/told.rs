//! Clauses as an operator reads them.

use std::fmt;

use super::{Both, Clause, IpBlock, NamespacePattern, PathPattern, Pattern, PortText, ServiceAccount};

/// A value as the document has it.
trait Told {
    fn told(&self) -> String;
}

macro_rules! told {
    ($($kind:ty => $of:expr),* $(,)?) => {$(
        impl Told for $kind {
            fn told(&self) -> String {
                let of: fn(&$kind) -> String = $of;
                of(self)
            }
        }
    )*};
}
told! {
    Pattern => |v| v.0.clone(),
    PathPattern => |v| v.0.clone(),
    NamespacePattern => |v| v.0.clone(),
    PortText => |v| v.0.to_string(),
    IpBlock => |v| v.0.to_string(),
    ServiceAccount => |v| v.namespace.iter().chain([&v.name]).map(String::as_str).collect::<Vec<_>>().join("/"),
}

fn both<T: Told>(f: &mut fmt::Formatter<'_>, name: &str, both: &Both<'_, T>) -> fmt::Result {
    let list = |values: &[T]| values.iter().map(Told::told).collect::<Vec<_>>().join(", ");
    match (both.values.is_empty(), both.not_values.is_empty()) {
        (false, true) => write!(f, "{name} {}", list(both.values)),
        (true, _) => write!(f, "{name} other than {}", list(both.not_values)),
        (false, false) => write!(f, "{name} {} but none of {}", list(both.values), list(both.not_values)),
    }
}

impl fmt::Display for Clause<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Principal(v) => both(f, "principal", v),
            Self::RequestPrincipal(v) => both(f, "request principal", v),
            Self::ServiceAccount(v) => both(f, "service account", v),
            Self::Namespace(v) => both(f, "namespace", v),
            Self::RemoteIp(v) => both(f, "remote IP", v),
            Self::SourceIp(v) => both(f, "source IP", v),
            Self::Audience(v) => both(f, "audience", v),
            Self::Presenter(v) => both(f, "presenter", v),
            Self::Claim(names, v) => both(f, &format!("claim {}", names.join(".")), v),
            Self::Header(name, v) => both(f, &format!("header {name}"), v),
            Self::Host(v) => both(f, "host", v),
            Self::Method(v) => both(f, "method", v),
            Self::Path(v) => both(f, "path", v),
            Self::Port(v) => both(f, "port", v),
            Self::DestinationIp(v) => both(f, "destination IP", v),
            Self::ServerName(v) => both(f, "server name", v),
            Self::Metadata(filter, key, v) => both(f, &format!("metadata {filter}[{key}]"), v),
        }
    }
}
