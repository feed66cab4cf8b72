//! What rules compare with, checked while it is decoded.

use std::fmt::Display;

use serde::{Deserialize, Deserializer, de::Error};

use crate::model::world::Cidr;

/// Exact text, `prefix*`, `*suffix` or `*` for anything that is there. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(pub String);

/// A path: a [`Pattern`], or a template with `{*}` and `{**}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathPattern(pub String);

/// An address or prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IpBlock(pub Cidr);

/// A port, which Istio's API writes as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortText(pub u16);

/// A namespace, in which `*` stands for any characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamespacePattern(pub String);

/// `name`, in the namespace of the policy, or `namespace/name`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceAccount {
    pub namespace: Option<String>,
    pub name: String,
}

/// A value that text is read as.
pub(super) trait Parse: Sized {
    fn parse(text: &str) -> Result<Self, String>;
}

fn checked<'de, D: Deserializer<'de>, T: Parse>(de: D) -> Result<T, D::Error> {
    let text = String::deserialize(de)?;
    T::parse(&text).map_err(D::Error::custom)
}

macro_rules! decoded {
    ($($kind:ty),*) => {$(
        impl<'de> Deserialize<'de> for $kind {
            fn deserialize<D: Deserializer<'de>>(de: D) -> Result<Self, D::Error> {
                checked(de)
            }
        }
    )*};
}
decoded!(Pattern, PathPattern, IpBlock, PortText, NamespacePattern, ServiceAccount);

fn not<T>(text: &str, what: impl Display) -> Result<T, String> {
    Err(format!("`{text}` is not {what}"))
}

impl Parse for Pattern {
    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("must not be empty: write * for any value".to_owned());
        }
        // Istio takes the second one for the character itself, so that a DENY rule hardly ever matches.
        if text.len() > 1 && text.starts_with('*') && text.ends_with('*') {
            return Err(format!("`{text}`: * may stand at the beginning or at the end, not at both"));
        }
        Ok(Self(text.into()))
    }
}

impl Parse for IpBlock {
    fn parse(text: &str) -> Result<Self, String> {
        Cidr::parse(text).map(Self).map_or_else(|| not(text, "an IP address or prefix"), Ok)
    }
}

impl Parse for PortText {
    fn parse(text: &str) -> Result<Self, String> {
        let digits = !text.is_empty() && text.chars().all(|c| c.is_ascii_digit());
        let port = text.parse().ok().filter(|port| digits && *port != 0);
        port.map(Self).map_or_else(|| not(text, "a port (1 to 65535)"), Ok)
    }
}

impl Parse for NamespacePattern {
    fn parse(text: &str) -> Result<Self, String> {
        let ok = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '*');
        if !text.is_empty() && text.len() <= 63 && text.chars().all(ok) {
            return Ok(Self(text.to_owned()));
        }
        not(text, "a namespace (lower case, digits and -, with * for any characters)")
    }
}

impl Parse for ServiceAccount {
    fn parse(text: &str) -> Result<Self, String> {
        let label = |text: &str| {
            let ok = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.');
            !text.is_empty() && text.chars().all(ok)
        };
        let (namespace, name) = match text.split_once('/') {
            Some((namespace, name)) => (Some(namespace), name),
            None => (None, text),
        };
        if text.len() > 320 || !label(name) || !namespace.is_none_or(|ns| label(ns) && !ns.contains('.')) {
            return not(text, "`serviceAccount` or `namespace/serviceAccount` (wildcards are not allowed)");
        }
        Ok(Self { namespace: namespace.map(str::to_owned), name: name.to_owned() })
    }
}

impl PathPattern {
    /// Whether it is a template rather than a pattern.
    pub fn is_template(&self) -> bool {
        is_template(&self.0)
    }
}

fn is_template(text: &str) -> bool {
    text.contains("{*}") || text.contains("{**}")
}

impl Parse for PathPattern {
    fn parse(text: &str) -> Result<Self, String> {
        Pattern::parse(text)?;
        if !is_template(text) {
            return match text.contains(['{', '}']) {
                true => Err(format!("`{text}`: of braces only {{*}} and {{**}} are known")),
                false => Ok(Self(text.to_owned())),
            };
        }
        let refused = |why: &str| Err(format!("`{text}` is not a path template: {why}"));
        let Some(rest) = text.strip_prefix('/') else { return refused("it must begin with /") };
        let mut open_end = false;
        for segment in rest.split('/') {
            match segment {
                _ if open_end && segment.contains(['{', '}']) => return refused("{**} must be the last operator"),
                "{*}" => {}
                "{**}" => open_end = true,
                _ if segment.contains(['{', '}']) => return refused("an operator must be a whole segment"),
                _ if !segment.chars().all(|c| c.is_ascii_alphanumeric() || "-._~%!$&'()+,;:@=".contains(c)) => {
                    return refused("beside operators only the characters of a path are allowed, without *");
                }
                "" => return refused("a segment is empty"),
                _ => {}
            }
        }
        Ok(Self(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        for ok in ["*", "/a*", "*.txt", "/a/{*}", "/{*}/b/{**}/c", "/{**}", "/a//b", "/store/{*}/cart@2"] {
            assert!(PathPattern::parse(ok).is_ok(), "{ok}");
        }
        for bad in
            ["", "/{a}", "/a{*}", "/{**}/{*}", "/{**}/{**}", "a/{*}", "/{*}/", "/a*/{*}", "/{*}//b", "/{*}/b?c", "/}"]
        {
            assert!(PathPattern::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn one_wildcard_at_one_end() {
        for ok in ["*", "a*", "*a", "a*b", "GET"] {
            assert!(Pattern::parse(ok).is_ok(), "{ok}");
        }
        for bad in ["", "*a*", "**", "*/admin*", "*/*"] {
            assert!(Pattern::parse(bad).is_err() && PathPattern::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn callers() {
        for ok in ["a", "ns/a", "ns/a.b"] {
            assert!(ServiceAccount::parse(ok).is_ok(), "{ok}");
        }
        for bad in ["", "*", "/a", "ns/", "a/b/c", "n.s/a", "A", "ns/a*"] {
            assert!(ServiceAccount::parse(bad).is_err(), "{bad}");
        }
        for (text, ok) in [("80", true), ("0", false), ("65536", false), ("+80", false), ("", false), ("http", false)] {
            assert_eq!(PortText::parse(text).is_ok(), ok, "{text}");
        }
        for (text, ok) in [("a-*", true), ("*", true), ("a.b", false), ("", false), ("A", false)] {
            assert_eq!(NamespacePattern::parse(text).is_ok(), ok, "{text}");
        }
    }
}
