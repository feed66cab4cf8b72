//! Matchers on metadata. All kinds exist here: one that is not understood refuses what it is part of.

use outrigger_wire::pb::envoy::r#type::matcher::v3::{
    DoubleMatcher as PbDouble, ListMatcher as PbList, MetadataMatcher as Pb, ValueMatcher as PbValue,
    double_matcher::MatchPattern as DoublePattern, list_matcher::MatchPattern as ListPattern,
    metadata_matcher::path_segment::Segment, value_matcher::MatchPattern,
};

use super::{at::At, fields::fields, matcher, report::Reject, scalar::not_empty};
use crate::ir::metadata::{DoubleMatcher, MetadataMatcher, ValueMatcher};

/// How deep matchers may lie in each other.
const MAX_DEPTH: u32 = 16;

#[allow(dead_code, reason = "for the filters that decide on metadata")]
pub(crate) fn metadata_matcher(message: &Pb, at: &At<'_>) -> Result<MetadataMatcher, Reject> {
    fields!(at, message => Pb { read: [filter, path, value, invert] });
    if message.path.is_empty() {
        return Err(at.field("path").reject("must not be empty"));
    }
    Ok(MetadataMatcher {
        filter: not_empty(&message.filter, &at.field("filter"))?.into(),
        path: at.each("path", &message.path, |segment, at| {
            let Segment::Key(key) = at.required("key", &segment.segment)?;
            not_empty(key, &at.field("key")).map(Box::from)
        })?,
        value: value_matcher(at.required("value", &message.value)?, &at.field("value"))?,
        invert: message.invert,
    })
}

/// A matcher on one value.
#[allow(dead_code, reason = "for the filters that decide on metadata")]
pub(crate) fn value_matcher(message: &PbValue, at: &At<'_>) -> Result<ValueMatcher, Reject> {
    value(message, at, 0)
}

fn value(message: &PbValue, at: &At<'_>, depth: u32) -> Result<ValueMatcher, Reject> {
    if depth > MAX_DEPTH {
        return Err(at.reject(format!("more than {MAX_DEPTH} matchers in each other")));
    }
    Ok(match at.required("match_pattern", &message.match_pattern)? {
        MatchPattern::NullMatch(_) => ValueMatcher::Null,
        MatchPattern::DoubleMatch(m) => ValueMatcher::Double(double(m, &at.field("double_match"))?),
        MatchPattern::StringMatch(m) => ValueMatcher::String(matcher::string(m, &at.field("string_match"))?),
        MatchPattern::BoolMatch(wanted) => ValueMatcher::Bool(*wanted),
        MatchPattern::PresentMatch(wanted) => ValueMatcher::Present(*wanted),
        MatchPattern::ListMatch(m) => ValueMatcher::List(Box::new(list(m, &at.field("list_match"), depth)?)),
        MatchPattern::OrMatch(m) => {
            let at = at.field("or_match");
            if m.value_matchers.len() < 2 {
                return Err(at.field("value_matchers").reject("must have at least two elements"));
            }
            ValueMatcher::Or(at.each("value_matchers", &m.value_matchers, |m, at| value(m, at, depth + 1))?)
        }
    })
}

fn double(message: &PbDouble, at: &At<'_>) -> Result<DoubleMatcher, Reject> {
    Ok(match at.required("match_pattern", &message.match_pattern)? {
        DoublePattern::Exact(wanted) => DoubleMatcher::Exact(*wanted),
        DoublePattern::Range(range) => DoubleMatcher::Range { start: range.start, end: range.end },
    })
}

fn list(message: &PbList, at: &At<'_>, depth: u32) -> Result<ValueMatcher, Reject> {
    let ListPattern::OneOf(m) = at.required("match_pattern", &message.match_pattern)?;
    value(m, &at.field("one_of"), depth + 1)
}
