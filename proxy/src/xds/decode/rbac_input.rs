//! What match trees of RBAC filters look at, and how.

use outrigger_wire::pb::{
    envoy::{
        extensions::matching::{
            common_inputs::{
                network::v3::{
                    DestinationIpInput, DestinationPortInput, DirectSourceIpInput, DynamicMetadataInput,
                    ServerNameInput, SourceIpInput, SourcePortInput, dynamic_metadata_input::path_segment::Segment,
                },
                ssl::v3::{DnsSanInput, SubjectInput, UriSanInput},
            },
            input_matchers::{ip::v3::Ip, metadata::v3::Metadata},
        },
        r#type::matcher::v3::HttpRequestHeaderMatchInput,
    },
    xds::{
        core::v3::TypedExtensionConfig,
        r#type::matcher::v3::{
            StringMatcher as PbString,
            matcher::matcher_list::predicate::{SinglePredicate, single_predicate},
            string_matcher::MatchPattern,
        },
    },
};

use super::{
    address::cidr,
    at::At,
    extension,
    fields::fields,
    metadata_matcher::value_matcher,
    rbac::Layer,
    report::Reject,
    scalar::{header_name, not_empty},
};
use crate::ir::{
    matcher::{Pattern, Regex, StringMatcher},
    rbac::tree::{Input, Predicate, Test},
};

pub(super) fn single(message: &SinglePredicate, layer: Layer, at: &At<'_>) -> Result<Predicate, Reject> {
    fields!(at, message => SinglePredicate { read: [input, matcher] });
    let from = input(at.required("input", &message.input)?, layer, &at.field("input"))?;
    let test = match at.required("matcher", &message.matcher)? {
        single_predicate::Matcher::ValueMatch(m) => Test::Text(string(m, &at.field("value_match"))?),
        single_predicate::Matcher::CustomMatch(m) => custom(m, &at.field("custom_match"))?,
    };
    match (&from, &test) {
        (Input::Metadata { .. }, Test::Metadata { .. }) => {}
        (Input::Metadata { .. }, _) | (_, Test::Metadata { .. }) => {
            return Err(at.reject("metadata and its matcher go together"));
        }
        (
            Input::Header(_)
            | Input::Pseudo(_)
            | Input::DestinationPort
            | Input::SourcePort
            | Input::ServerName
            | Input::UriSan
            | Input::DnsSan
            | Input::Subject,
            Test::Ip(_),
        ) => return Err(at.reject("the input is no address")),
        (_, Test::Text(_)) | (Input::DestinationIp | Input::SourceIp | Input::DirectSourceIp, Test::Ip(_)) => {}
    }
    Ok(Predicate::Single(from, test))
}

pub(super) fn input(message: &TypedExtensionConfig, layer: Layer, at: &At<'_>) -> Result<Input, Reject> {
    let at = at.field("typed_config");
    let any = message.typed_config.as_ref().ok_or_else(|| at.reject("is required"))?;
    let extension = extension::open(any, &at)?;
    if extension.is::<HttpRequestHeaderMatchInput>() && layer == Layer::Http {
        let message: HttpRequestHeaderMatchInput = extension.message(&at)?;
        fields!(&at, &message => HttpRequestHeaderMatchInput { read: [header_name] });
        let at = at.field("header_name");
        let name = not_empty(&message.header_name, &at)?.to_ascii_lowercase();
        return match &*name {
            ":method" | ":path" | ":authority" | ":scheme" => Ok(Input::Pseudo(name.into())),
            "host" => Ok(Input::Pseudo(":authority".into())),
            name => header_name(name, &at).map(Input::Header),
        };
    }
    if extension.is::<DynamicMetadataInput>() {
        let message: DynamicMetadataInput = extension.message(&at)?;
        fields!(&at, &message => DynamicMetadataInput { read: [filter, path] });
        if message.path.is_empty() {
            return Err(at.field("path").reject("must not be empty"));
        }
        let path = at.each("path", &message.path, |segment, at| {
            let Segment::Key(key) = at.required("key", &segment.segment)?;
            not_empty(key, &at.field("key")).map(Box::<str>::from)
        })?;
        let namespace = not_empty(&message.filter, &at.field("filter"))?.into();
        return Ok(Input::Metadata { namespace, path: path.into() });
    }
    let known = [
        (extension.is::<DestinationIpInput>(), Input::DestinationIp),
        (extension.is::<DestinationPortInput>(), Input::DestinationPort),
        (extension.is::<SourceIpInput>(), Input::SourceIp),
        (extension.is::<SourcePortInput>(), Input::SourcePort),
        (extension.is::<DirectSourceIpInput>(), Input::DirectSourceIp),
        (extension.is::<ServerNameInput>(), Input::ServerName),
        (extension.is::<UriSanInput>(), Input::UriSan),
        (extension.is::<DnsSanInput>(), Input::DnsSan),
        (extension.is::<SubjectInput>(), Input::Subject),
    ];
    let known = known.into_iter().find_map(|(is, input)| is.then_some(input));
    known.ok_or_else(|| extension.refuse("input", &at))
}

fn custom(message: &TypedExtensionConfig, at: &At<'_>) -> Result<Test, Reject> {
    let at = at.field("typed_config");
    let any = message.typed_config.as_ref().ok_or_else(|| at.reject("is required"))?;
    let extension = extension::open(any, &at)?;
    if extension.is::<Ip>() {
        let message: Ip = extension.message(&at)?;
        fields!(&at, &message => Ip { read: [cidr_ranges], harmless: [stat_prefix] });
        if message.cidr_ranges.is_empty() {
            return Err(at.field("cidr_ranges").reject("must not be empty"));
        }
        return Ok(Test::Ip(at.each("cidr_ranges", &message.cidr_ranges, cidr)?.into()));
    }
    if extension.is::<Metadata>() {
        let message: Metadata = extension.message(&at)?;
        fields!(&at, &message => Metadata { read: [value, invert] });
        let value = value_matcher(at.required("value", &message.value)?, &at.field("value"))?;
        return Ok(Test::Metadata { value, invert: message.invert });
    }
    Err(extension.refuse("matcher", &at))
}

/// As Envoy's own string matcher, in another package.
fn string(message: &PbString, at: &At<'_>) -> Result<StringMatcher, Reject> {
    fields!(at, message => PbString { read: [ignore_case, match_pattern] });
    let fold =
        |text: &str| -> Box<str> { if message.ignore_case { text.to_ascii_lowercase().into() } else { text.into() } };
    let text = |name, text: &str| not_empty(text, &at.field(name)).map(fold);
    let pattern = match at.required("match_pattern", &message.match_pattern)? {
        MatchPattern::Exact(t) => Pattern::Exact(fold(t)),
        MatchPattern::Prefix(t) => Pattern::Prefix(text("prefix", t)?),
        MatchPattern::Suffix(t) => Pattern::Suffix(text("suffix", t)?),
        MatchPattern::Contains(t) => Pattern::Contains(text("contains", t)?),
        MatchPattern::SafeRegex(r) => {
            if message.ignore_case {
                return Err(at.field("ignore_case").reject("has no effect on a regular expression: write (?i)"));
            }
            let at = at.field("safe_regex");
            let at = at.field("regex");
            let regex = Regex::full(not_empty(&r.regex, &at)?).map_err(|e| at.reject(e))?;
            return Ok(StringMatcher { pattern: Pattern::Regex(regex), ignore_case: false });
        }
        MatchPattern::Custom(_) => return Err(at.field("custom").reject("is not supported by this release")),
    };
    Ok(StringMatcher { pattern, ignore_case: message.ignore_case })
}
