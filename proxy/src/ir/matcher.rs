//! Matchers on strings, headers and addresses: values with one pure `matches` each.

use std::{borrow::Cow, net::IpAddr};

/// Longest regular expression accepted, in bytes.
const MAX_REGEX: usize = 16 << 10;

/// A regular expression that must match the whole input (RE2 semantics), compared by its source text.
#[derive(Clone, Debug)]
pub struct Regex(regex::Regex);

impl Regex {
    /// Compiles `source`, anchored at both ends, with the program size bounded.
    pub fn full(source: &str) -> Result<Self, String> {
        if source.contains(')') {
            // `a)|(?:b` would close the group below and so escape the anchors.
            Self::build(source)?;
        }
        Self::build(&format!("^(?:{source})$"))
    }

    /// Compiles `source` unanchored, for substitution.
    pub fn search(source: &str) -> Result<Self, String> {
        Self::build(source)
    }

    fn build(source: &str) -> Result<Self, String> {
        if source.len() > MAX_REGEX {
            return Err(format!("regular expression of {} bytes is longer than {MAX_REGEX}", source.len()));
        }
        regex::RegexBuilder::new(source).size_limit(1 << 20).build().map(Self).map_err(|e| e.to_string())
    }

    pub fn is_match(&self, text: &str) -> bool {
        self.0.is_match(text)
    }

    /// Replaces every match; `substitution` uses `${1}` group references and `$$` for a dollar.
    pub fn replace_all(&self, text: &str, substitution: &str) -> String {
        self.0.replace_all(text, substitution).into_owned()
    }

    /// The groups of a match.
    pub(super) fn captures<'t>(&self, text: &'t str) -> Option<regex::Captures<'t>> {
        self.0.captures(text)
    }

    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// Number of capture groups, with group 0, the whole match.
    pub fn groups(&self) -> usize {
        self.0.captures_len()
    }
}

impl PartialEq for Regex {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}
impl Eq for Regex {}

/// `envoy.type.matcher.v3.StringMatcher`. With `ignore_case` the pattern is stored in ASCII lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StringMatcher {
    pub pattern: Pattern,
    pub ignore_case: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pattern {
    Exact(Box<str>),
    Prefix(Box<str>),
    Suffix(Box<str>),
    Contains(Box<str>),
    Regex(Regex),
}

impl StringMatcher {
    pub fn exact(text: &str) -> Self {
        Self { pattern: Pattern::Exact(text.into()), ignore_case: false }
    }

    pub fn matches(&self, text: &str) -> bool {
        if self.ignore_case && text.bytes().any(|b| b.is_ascii_uppercase()) {
            return self.matches_as_is(&text.to_ascii_lowercase());
        }
        self.matches_as_is(text)
    }

    fn matches_as_is(&self, text: &str) -> bool {
        match &self.pattern {
            Pattern::Exact(p) => text == &**p,
            Pattern::Prefix(p) => text.starts_with(&**p),
            Pattern::Suffix(p) => text.ends_with(&**p),
            Pattern::Contains(p) => text.contains(&**p),
            Pattern::Regex(p) => p.is_match(text),
        }
    }
}

/// `envoy.config.route.v3.HeaderMatcher`. The name is lower case; pseudo headers keep their colon (`:method`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderMatcher {
    pub name: Box<str>,
    pub rule: HeaderRule,
    pub invert: bool,
    pub treat_missing_as_empty: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderRule {
    /// `present_match`: whether the header must be present (true) or absent (false).
    Present(bool),
    Value(StringMatcher),
    /// Half-open range over the value as a base-10 integer.
    Range {
        start: i64,
        end: i64,
    },
}

impl HeaderMatcher {
    /// Decides on a header that may occur several times: any of its values may match, and inverted none may. Looked at
    /// one by one: joined, a second value would hide the first from an exact rule.
    pub fn matches_any<'a>(&self, mut values: impl Iterator<Item = Cow<'a, str>>) -> bool {
        let Some(first) = values.next() else { return self.matches(None) };
        let first = self.matches(Some(&first));
        if self.invert {
            first && values.all(|v| self.matches(Some(&v)))
        } else {
            first || values.any(|v| self.matches(Some(&v)))
        }
    }

    /// Decides on the header's only value, `None` when it is absent.
    pub fn matches(&self, value: Option<&str>) -> bool {
        let value = match (value, self.treat_missing_as_empty) {
            (None, true) => Some(""),
            (value, _) => value,
        };
        let hit = match (&self.rule, value) {
            (HeaderRule::Present(wanted), value) => value.is_some() == *wanted,
            // An absent header matches no value rule, inverted or not: Envoy's `HeaderUtility::matchHeaders`
            // returns false without looking at `invert_match` unless the rule is on presence.
            (_, None) => return false,
            (HeaderRule::Value(matcher), Some(value)) => matcher.matches(value),
            (HeaderRule::Range { start, end }, Some(value)) => {
                value.parse::<i64>().is_ok_and(|n| n >= *start && n < *end)
            }
        };
        hit != self.invert
    }
}

/// `envoy.config.route.v3.QueryParameterMatcher`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueryMatcher {
    pub name: Box<str>,
    pub rule: QueryRule,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QueryRule {
    /// Whether the parameter must be there (true) or not (false).
    Present(bool),
    Value(StringMatcher),
}

impl QueryMatcher {
    /// Decides on the first value of the parameter.
    pub fn matches(&self, value: Option<&str>) -> bool {
        match (&self.rule, value) {
            (QueryRule::Present(wanted), value) => value.is_some() == *wanted,
            (QueryRule::Value(matcher), value) => value.is_some_and(|v| matcher.matches(v)),
        }
    }
}

/// `envoy.config.route.v3.CookieMatcher`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CookieMatcher {
    pub name: Box<str>,
    pub value: StringMatcher,
    pub invert: bool,
}

impl CookieMatcher {
    /// Decides on the first value of the cookie; an absent one matches inverted only.
    pub fn matches(&self, value: Option<&str>) -> bool {
        value.is_some_and(|value| self.value.matches(value)) != self.invert
    }
}

/// An address range; the host bits of `address` are already cleared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cidr {
    pub address: IpAddr,
    pub prefix_len: u8,
}

impl Cidr {
    /// Builds a range, clearing host bits; `None` when `prefix_len` exceeds the family's width.
    pub fn new(address: IpAddr, prefix_len: u8) -> Option<Self> {
        let address = match address {
            IpAddr::V4(a) if prefix_len <= 32 => {
                let mask = u32::MAX.checked_shl(32 - u32::from(prefix_len)).unwrap_or(0);
                IpAddr::V4((u32::from(a) & mask).into())
            }
            IpAddr::V6(a) if prefix_len <= 128 => {
                let mask = u128::MAX.checked_shl(128 - u32::from(prefix_len)).unwrap_or(0);
                IpAddr::V6((u128::from(a) & mask).into())
            }
            _ => return None,
        };
        Some(Self { address, prefix_len })
    }

    /// Whether `ip` is inside; families never match each other (callers canonicalise v4-mapped addresses first).
    pub fn contains(&self, ip: IpAddr) -> bool {
        Self::new(ip, self.prefix_len).is_some_and(|net| net.address == self.address)
    }
}
