//! Matchers on strings, headers and query parameters.

use outrigger_wire::pb::envoy::{
    config::route::v3::{
        HeaderMatcher as PbHeader, QueryParameterMatcher as PbQuery, header_matcher::HeaderMatchSpecifier,
        query_parameter_matcher::QueryParameterMatchSpecifier,
    },
    r#type::matcher::v3::{
        RegexMatchAndSubstitute, RegexMatcher, StringMatcher as PbString, string_matcher::MatchPattern,
    },
};

use super::{
    at::At,
    report::{NoteKind, Reject},
    scalar::{header_name, not_empty},
};
use crate::ir::matcher::{HeaderMatcher, HeaderRule, Pattern, QueryMatcher, QueryRule, Regex, StringMatcher};

pub(crate) fn string(message: &PbString, at: &At<'_>) -> Result<StringMatcher, Reject> {
    let fold =
        |text: &str| -> Box<str> { if message.ignore_case { text.to_ascii_lowercase().into() } else { text.into() } };
    let text = |name, text: &str| not_empty(text, &at.field(name)).map(fold);
    let pattern = match at.required("match_pattern", &message.match_pattern)? {
        // An exact match with nothing is meaningful: the header is there and empty.
        MatchPattern::Exact(t) => Pattern::Exact(fold(t)),
        MatchPattern::Prefix(t) => Pattern::Prefix(text("prefix", t)?),
        MatchPattern::Suffix(t) => Pattern::Suffix(text("suffix", t)?),
        MatchPattern::Contains(t) => Pattern::Contains(text("contains", t)?),
        MatchPattern::SafeRegex(r) => {
            if message.ignore_case {
                return Err(at.field("ignore_case").reject("has no effect on a regular expression: write (?i)"));
            }
            let pattern = Pattern::Regex(regex(r, &at.field("safe_regex"))?);
            return Ok(StringMatcher { pattern, ignore_case: false });
        }
        MatchPattern::Custom(_) => return Err(at.field("custom").reject("is not supported by this release")),
    };
    Ok(StringMatcher { pattern, ignore_case: message.ignore_case })
}

/// A regular expression that has to match the whole text.
pub(crate) fn regex(message: &RegexMatcher, at: &At<'_>) -> Result<Regex, Reject> {
    let source = not_empty(&message.regex, &at.field("regex"))?;
    Regex::full(source).map_err(|e| at.field("regex").reject(e))
}

/// A pattern to search for and what replaces it, with `\1` turned into the `${1}` of the IR.
pub(crate) fn substitution(message: &RegexMatchAndSubstitute, at: &At<'_>) -> Result<(Regex, Box<str>), Reject> {
    let matcher = at.required("pattern", &message.pattern)?;
    let source = not_empty(&matcher.regex, &at.field("pattern").field("regex"))?;
    let pattern = Regex::search(source).map_err(|e| at.field("pattern").field("regex").reject(e))?;
    let mut out = String::with_capacity(message.substitution.len());
    let mut chars = message.substitution.chars();
    while let Some(c) = chars.next() {
        match c {
            '$' => out.push_str("$$"),
            '\\' => match chars.next() {
                Some('\\') => out.push('\\'),
                Some(d) if d.is_ascii_digit() => {
                    let group = d as usize - '0' as usize;
                    if group >= pattern.groups() {
                        let reason = format!("there is no group {group} in the pattern");
                        return Err(at.field("substitution").reject(reason));
                    }
                    out.push_str(&format!("${{{group}}}"));
                }
                _ => return Err(at.field("substitution").reject("`\\` must be followed by a digit or `\\`")),
            },
            c if c == '\n' || c == '\r' || c == '\0' => {
                return Err(at.field("substitution").reject("must not contain control characters"));
            }
            c => out.push(c),
        }
    }
    Ok((pattern, out.into()))
}

pub(crate) fn headers(name: &str, messages: &[PbHeader], at: &At<'_>) -> Result<Vec<HeaderMatcher>, Reject> {
    at.each(name, messages, header)
}

pub(crate) fn header(message: &PbHeader, at: &At<'_>) -> Result<HeaderMatcher, Reject> {
    use HeaderMatchSpecifier as S;
    let name = not_empty(&message.name, &at.field("name"))?.to_ascii_lowercase();
    header_name(name.strip_prefix(':').unwrap_or(&name), &at.field("name"))?;
    let value = |pattern: Pattern| HeaderRule::Value(StringMatcher { pattern, ignore_case: false });
    let old = |field: &str| {
        at.field(field).note(NoteKind::Deprecated, "use string_match");
    };
    let plain = |field: &'static str, text: &str| -> Result<Box<str>, Reject> {
        old(field);
        not_empty(text, &at.field(field)).map(Box::from)
    };
    let rule = match &message.header_match_specifier {
        // Without a specifier the header only has to be there.
        None => HeaderRule::Present(true),
        Some(S::PresentMatch(present)) => HeaderRule::Present(*present),
        Some(S::StringMatch(m)) => HeaderRule::Value(string(m, &at.field("string_match"))?),
        Some(S::RangeMatch(range)) => HeaderRule::Range { start: range.start, end: range.end },
        Some(S::ExactMatch(t)) => value(Pattern::Exact(plain("exact_match", t)?)),
        Some(S::PrefixMatch(t)) => value(Pattern::Prefix(plain("prefix_match", t)?)),
        Some(S::SuffixMatch(t)) => value(Pattern::Suffix(plain("suffix_match", t)?)),
        Some(S::ContainsMatch(t)) => value(Pattern::Contains(plain("contains_match", t)?)),
        Some(S::SafeRegexMatch(r)) => {
            old("safe_regex_match");
            value(Pattern::Regex(regex(r, &at.field("safe_regex_match"))?))
        }
    };
    // Envoy takes `host` for `:authority` everywhere.
    let name = if name == "host" { ":authority".into() } else { name.into() };
    let treat_missing_as_empty = message.treat_missing_header_as_empty;
    Ok(HeaderMatcher { name, rule, invert: message.invert_match, treat_missing_as_empty })
}

pub(crate) fn query(message: &PbQuery, at: &At<'_>) -> Result<QueryMatcher, Reject> {
    use QueryParameterMatchSpecifier as S;
    let name = not_empty(&message.name, &at.field("name"))?.into();
    let rule = match &message.query_parameter_match_specifier {
        None => QueryRule::Present(true),
        Some(S::PresentMatch(present)) => QueryRule::Present(*present),
        Some(S::StringMatch(m)) => QueryRule::Value(string(m, &at.field("string_match"))?),
    };
    Ok(QueryMatcher { name, rule })
}
