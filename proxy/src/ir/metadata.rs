//! Matchers on metadata: values with one pure `matches` each, whoever keeps the metadata.
//!
//! What is not there matches nothing, and inverted it matches: as in Envoy.

use serde_json::Value;

use super::{Metadata, matcher::StringMatcher};

#[cfg(test)]
#[path = "metadata_tests.rs"]
mod tests;

/// The value at `path` below a namespace; the whole namespace is no value.
pub fn value_at<'a>(metadata: &'a Metadata, namespace: &str, path: &[Box<str>]) -> Option<&'a Value> {
    let (first, rest) = path.split_first()?;
    let top = metadata.get(namespace)?.get(&**first)?;
    rest.iter().try_fold(top, |value, key| value.as_object()?.get(&**key))
}

/// `envoy.type.matcher.v3.MetadataMatcher`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetadataMatcher {
    /// The namespace.
    pub filter: Box<str>,
    /// Never empty.
    pub path: Vec<Box<str>>,
    pub value: ValueMatcher,
    pub invert: bool,
}

impl MetadataMatcher {
    /// Decides on the metadata there is.
    pub fn matches(&self, metadata: Option<&Metadata>) -> bool {
        let value = metadata.and_then(|all| value_at(all, &self.filter, &self.path));
        self.value.matches(value) != self.invert
    }
}

/// `envoy.type.matcher.v3.ValueMatcher`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ValueMatcher {
    Null,
    Double(DoubleMatcher),
    String(StringMatcher),
    Bool(bool),
    /// `false` matches nothing, not even what is absent.
    Present(bool),
    /// Any element of a list.
    List(Box<ValueMatcher>),
    Or(Vec<ValueMatcher>),
}

impl ValueMatcher {
    /// Decides on a value, `None` when it is absent.
    pub fn matches(&self, value: Option<&Value>) -> bool {
        match (self, value) {
            (Self::Or(any), value) => any.iter().any(|m| m.matches(value)),
            (_, None) => false,
            (Self::Null, Some(value)) => value.is_null(),
            (Self::Double(m), Some(value)) => value.as_f64().is_some_and(|n| m.matches(n)),
            (Self::String(m), Some(value)) => value.as_str().is_some_and(|text| m.matches(text)),
            (Self::Bool(wanted), Some(value)) => value.as_bool() == Some(*wanted),
            (Self::Present(wanted), Some(_)) => *wanted,
            (Self::List(m), Some(value)) => value.as_array().is_some_and(|l| l.iter().any(|v| m.matches(Some(v)))),
        }
    }
}

/// `envoy.type.matcher.v3.DoubleMatcher`.
#[derive(Clone, Copy, Debug)]
pub enum DoubleMatcher {
    Exact(f64),
    /// Half open.
    Range {
        start: f64,
        end: f64,
    },
}

impl DoubleMatcher {
    pub fn matches(self, value: f64) -> bool {
        match self {
            Self::Exact(wanted) => value == wanted,
            Self::Range { start, end } => start <= value && value < end,
        }
    }

    fn bits(self) -> (bool, u64, u64) {
        match self {
            Self::Exact(wanted) => (false, wanted.to_bits(), 0),
            Self::Range { start, end } => (true, start.to_bits(), end.to_bits()),
        }
    }
}

/// By bits: what was configured the same way is the same.
impl PartialEq for DoubleMatcher {
    fn eq(&self, other: &Self) -> bool {
        self.bits() == other.bits()
    }
}
impl Eq for DoubleMatcher {}
