use http::{HeaderMap, Method};
use serde_json::json;

use super::{Descriptor, Descriptors, descriptors::Facts};
use crate::{
    ir::{
        Metadata,
        format::Template,
        matcher::{Cidr, HeaderMatcher, HeaderRule, QueryMatcher, QueryRule, StringMatcher},
        rate_limit::{Action, Hits, HitsNumber, Limit, LimitOverride, MetadataKey, MetadataSource, Rule},
    },
    policy::router::RequestFacts,
};

fn metadata(value: serde_json::Value) -> Metadata {
    value.as_object().unwrap().iter().map(|(k, v)| (k.clone(), v.as_object().unwrap().clone())).collect()
}

/// The descriptors as text, of a request that has a little of everything.
fn described(rule: &Rule) -> Vec<String> {
    let mut headers = HeaderMap::new();
    headers.append("x-user", "ann".parse().unwrap());
    headers.append("x-user", "ben".parse().unwrap());
    headers.append("x-empty", "".parse().unwrap());
    let request = RequestFacts {
        certificate: Default::default(),
        authority: "a.test",
        path: "/p?id=a%20b&flag&id=2#id=3",
        method: &Method::PUT,
        scheme: "https",
        headers: &headers,
        random: 0,
    };
    let route = metadata(json!({"ns": {"a": {"b": "deep"}, "n": 5, "empty": ""}}));
    let dynamic = metadata(json!({"ns": {"limit": {"requests_per_unit": 7, "unit": "HOUR"}, "user": "dyn"}}));
    let cluster = metadata(json!({"ns": {"tier": "gold"}}));
    let facts = Facts {
        request: &request,
        remote: "10.1.2.3".parse().unwrap(),
        service_cluster: "me",
        cluster: Some("up"),
        route: Some(&route),
        cluster_metadata: &|| Some(&cluster),
        dynamic: Some(&dynamic),
        render: &|template| match template.literal() {
            Some(text) => text.to_owned(),
            None => "12.9".to_owned(),
        },
    };
    let mut into = Descriptors::new();
    rule.describe(&facts, &mut into);
    into.iter().map(text).collect()
}

fn text(descriptor: &Descriptor<'_>) -> String {
    let entries: Vec<String> = descriptor.entries.iter().map(|(k, v)| format!("{k}={v}")).collect();
    let mut text = entries.join(",");
    if let Some(Limit { requests, unit }) = descriptor.limit {
        text += &format!(" limit {requests}/{unit}");
    }
    if let Some(hits) = descriptor.hits {
        text += &format!(" hits {}{hits}", if descriptor.negative { "-" } else { "" });
    }
    text
}

fn rule(actions: impl IntoIterator<Item = Action>) -> Rule {
    Rule { actions: actions.into_iter().collect(), ..Rule::default() }
}

fn one(action: Action) -> Option<String> {
    described(&rule([action])).pop()
}

fn header(name: &str, skip_if_absent: bool) -> Action {
    Action::RequestHeader { name: name.into(), key: "k".into(), skip_if_absent }
}

fn parameter(name: &str, skip_if_absent: bool) -> Action {
    Action::QueryParameter { name: name.into(), key: "q".into(), skip_if_absent }
}

fn noted(from: MetadataSource, path: &[&str], default: &str, skip_if_absent: bool) -> Action {
    let at = MetadataKey { namespace: "ns".into(), path: path.iter().map(|p| (*p).into()).collect() };
    Action::Metadata { key: "m".into(), from, at, default: default.into(), skip_if_absent }
}

#[test]
fn every_action_makes_its_entry() {
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(one(Action::SourceCluster), some("source_cluster=me"));
    assert_eq!(one(Action::DestinationCluster), some("destination_cluster=up"));
    assert_eq!(one(Action::RemoteAddress), some("remote_address=10.1.2.3"));
    assert_eq!(one(Action::MaskedRemoteAddress { v4: 16, v6: 64 }), some("masked_remote_address=10.1.0.0/16"));
    assert_eq!(one(Action::Generic { key: "g".into(), value: "v".into() }), some("g=v"));
    assert_eq!(one(header("x-user", false)), some("k=ann"), "the first value");
    assert_eq!(one(header("x-empty", false)), some("k="));
    assert_eq!(one(header(":path", false)), some("k=/p?id=a%20b&flag&id=2#id=3"));
    assert_eq!(one(header(":method", false)), some("k=PUT"));
    assert_eq!(one(header(":authority", false)), some("k=a.test"));
    assert_eq!(one(parameter("id", false)), some("q=a b"));
    assert_eq!(one(parameter("flag", false)), some("q="));
    assert_eq!(one(noted(MetadataSource::Route, &["a", "b"], "", false)), some("m=deep"));
    assert_eq!(one(noted(MetadataSource::Dynamic, &["user"], "", false)), some("m=dyn"));
    assert_eq!(one(noted(MetadataSource::Cluster, &["tier"], "", false)), some("m=gold"));
}

#[test]
fn what_is_absent_leaves_the_descriptor_out_or_is_skipped() {
    let generic = || Action::Generic { key: "g".into(), value: "v".into() };
    for (absent, skipped) in [
        (header("x-none", false), header("x-none", true)),
        (parameter("none", false), parameter("none", true)),
        (noted(MetadataSource::Route, &["n"], "", false), noted(MetadataSource::Route, &["n"], "", true)),
        (noted(MetadataSource::Route, &["empty"], "", false), noted(MetadataSource::Route, &["a"], "", true)),
    ] {
        assert_eq!(described(&rule([generic(), absent.clone()])), Vec::<String>::new(), "{absent:?}");
        assert_eq!(described(&rule([generic(), skipped.clone()])), ["g=v"], "{skipped:?}");
        assert_eq!(described(&rule([skipped])), Vec::<String>::new(), "nothing is no descriptor");
    }
    assert_eq!(one(noted(MetadataSource::Route, &["n"], "def", false)).as_deref(), Some("m=def"));
}

#[test]
fn matches_are_expected_or_not() {
    let headers = |value: &str, expect| Action::HeaderMatch {
        key: "h".into(),
        value: "yes".into(),
        expect,
        headers: vec![HeaderMatcher {
            name: "x-user".into(),
            rule: HeaderRule::Value(StringMatcher::exact(value)),
            invert: false,
            treat_missing_as_empty: false,
        }],
    };
    let query = |name: &str, expect| Action::QueryMatch {
        key: "q".into(),
        value: "yes".into(),
        expect,
        parameters: vec![QueryMatcher { name: name.into(), rule: QueryRule::Present(true) }],
    };
    assert_eq!(one(headers("ben", true)).as_deref(), Some("h=yes"));
    assert_eq!(one(headers("carl", true)), None);
    assert_eq!(one(headers("carl", false)).as_deref(), Some("h=yes"));
    assert_eq!(one(headers("ben", false)), None);
    assert_eq!(one(query("flag", true)).as_deref(), Some("q=yes"));
    assert_eq!(one(query("none", true)), None);
    assert_eq!(one(query("none", false)).as_deref(), Some("q=yes"));
    let address = |value: &str, default: &str, invert| Action::AddressMatch {
        key: "r".into(),
        value: Template::parse(value).unwrap(),
        default: default.into(),
        ranges: vec![Cidr::new("10.0.0.0".parse().unwrap(), 8).unwrap()],
        invert,
    };
    assert_eq!(one(address("in", "", false)).as_deref(), Some("r=in"));
    assert_eq!(one(address("in", "", true)), None);
    assert_eq!(one(address("%REQ(x)%", "", false)).as_deref(), Some("r=12.9"));
}

#[test]
fn limits_and_hits_come_along() {
    let generic = Action::Generic { key: "g".into(), value: "v".into() };
    let with = |limit, hits| Rule { limit, hits, ..rule([generic.clone()]) };
    let fixed = LimitOverride::Fixed(Limit { requests: 3, unit: 2 });
    assert_eq!(described(&with(Some(fixed), None)), ["g=v limit 3/2"]);
    let key = |path: &str| MetadataKey { namespace: "ns".into(), path: vec![path.into()] };
    assert_eq!(described(&with(Some(LimitOverride::Metadata(key("limit"))), None)), ["g=v limit 7/3"]);
    assert_eq!(described(&with(Some(LimitOverride::Metadata(key("user"))), None)), ["g=v"]);
    let hits = |number, negative| Some(Hits { number, negative });
    assert_eq!(described(&with(None, hits(HitsNumber::Fixed(0), false))), ["g=v hits 0"]);
    assert_eq!(described(&with(None, hits(HitsNumber::Fixed(4), true))), ["g=v hits -4"]);
    let format = |text| HitsNumber::Format(Template::parse(text).unwrap());
    assert_eq!(described(&with(None, hits(format("%REQ(x)%"), false))), ["g=v hits 12"]);
    assert_eq!(described(&with(None, hits(format("many"), false))), Vec::<String>::new(), "no number");
}
