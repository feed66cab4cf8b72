//! Host names and who may see them: short names, wildcards, `exportTo`.

use std::collections::BTreeSet;

use super::Settings;

/// A host as VirtualService and DestinationRule name it, made absolute.
pub type Host = String;

/// Istio's rule: a name without a dot is a Service of the document's own namespace; anything else is taken as it is.
pub(super) fn absolute(host: &str, namespace: &str, settings: &Settings) -> Host {
    if host.contains('.') || host.contains('*') {
        host.to_ascii_lowercase()
    } else {
        format!("{}.{namespace}.svc.{}", host.to_ascii_lowercase(), settings.cluster_domain)
    }
}

/// Whether `pattern` (exact, or `*` followed by a suffix) covers `host`. A wildcard host is covered by a wider one.
pub(crate) fn covers(pattern: &str, host: &str) -> bool {
    match pattern.strip_prefix('*') {
        Some(suffix) => host.len() > suffix.len() && host.ends_with(suffix) || pattern == host,
        None => pattern == host,
    }
}

pub(super) fn is_dns_name(text: &str) -> bool {
    let ok = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    !text.is_empty() && text.len() <= 253 && text.chars().all(ok) && !text.starts_with(['-', '.'])
}

/// A host name, or one whose first label is `*`. The bare `*` is valid only where the caller says so.
pub(super) fn is_host(text: &str) -> bool {
    let rest = text.strip_prefix("*.").unwrap_or(text);
    let ok = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    !rest.is_empty() && rest.len() <= 253 && rest.chars().all(ok) && !rest.starts_with('.') && !rest.contains("..")
}

/// The namespaces that see an object.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Visibility {
    #[default]
    All,
    Namespaces(BTreeSet<String>),
}

impl Visibility {
    /// From `exportTo`: `*`, `.`, `~` (nobody) or names of namespaces.
    pub(super) fn new<S: AsRef<str>>(export_to: &[S], own: &str) -> Result<Self, String> {
        if export_to.is_empty() || export_to.iter().any(|e| e.as_ref() == "*") {
            return Ok(Self::All);
        }
        let mut namespaces = BTreeSet::new();
        for entry in export_to {
            match entry.as_ref() {
                "~" => {}
                "." => {
                    namespaces.insert(own.to_owned());
                }
                name if is_dns_name(name) => {
                    namespaces.insert(name.to_owned());
                }
                other => return Err(format!("`{other}` is neither a namespace nor one of `*`, `.`, `~`")),
            }
        }
        Ok(Self::Namespaces(namespaces))
    }

    /// Whether `namespace` sees it.
    pub fn includes(&self, namespace: &str) -> bool {
        match self {
            Self::All => true,
            Self::Namespaces(names) => names.contains(namespace),
        }
    }

    /// How far it goes: to `own` alone, to some namespaces, to all.
    pub(super) fn width(&self, own: &str) -> u8 {
        match self {
            Self::Namespaces(names) if names.len() == 1 && names.contains(own) => 0,
            Self::Namespaces(_) => 1,
            Self::All => 2,
        }
    }

    /// Whether some namespace sees both.
    pub fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::All, Self::All) => true,
            (Self::All, Self::Namespaces(names)) | (Self::Namespaces(names), Self::All) => !names.is_empty(),
            (Self::Namespaces(a), Self::Namespaces(b)) => !a.is_disjoint(b),
        }
    }
}
