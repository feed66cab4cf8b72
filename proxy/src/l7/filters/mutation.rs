//! The header mutation filter.

use std::{rc::Rc, sync::Arc};

use http::{HeaderMap, StatusCode, Uri, request::Parts};
use http_body::Body as _;
use smallvec::SmallVec;

use super::Retrailed;
use crate::{
    ir::{
        filters::{Mutation, Mutations, QueryMutation, Setting},
        route::AppendAction,
    },
    l7::{
        body::Body,
        flow::Flow,
        headers::{self, Pseudo, RequestView},
        incoming::Incoming,
        pipeline::Inbound,
    },
    telemetry::format::{self, Facts},
};

/// The mutations of the filter and the levels, in the order they apply.
pub(super) type All = SmallVec<[Arc<Mutations>; 2]>;

/// The filter's own mutations come first, then those of the levels.
pub(super) fn all<'a>(
    base: &Arc<Mutations>,
    settings: impl DoubleEndedIterator<Item = &'a Setting>,
    most_specific_wins: bool,
) -> All {
    let of = |setting: &'a Setting| match setting {
        Setting::HeaderMutation(mutations) => Some(mutations.clone()),
        _ => None,
    };
    let mut all = All::from_iter([base.clone()]);
    if most_specific_wins {
        all.extend(settings.rev().filter_map(of));
    } else {
        all.extend(settings.filter_map(of));
    }
    all
}

pub(super) fn request(all: &All, flow: &Rc<Flow>, request: &mut Inbound) {
    if Retrailed::<Incoming>::wanted(all, |m| &m.request_trailers) && !request.body.is_end_stream() {
        let body = std::mem::replace(&mut request.body, Incoming::None);
        let body = Retrailed::new(body, all.clone(), |m| &m.request_trailers, flow.clone());
        request.body = Incoming::Retrailed(Box::new(body));
    }
    let scheme = request.sane.origin.scheme;
    let Parts { method, uri, headers, .. } = &mut request.parts;
    for mutations in all {
        for mutation in &mutations.request {
            let path = uri.path_and_query().map_or("", |p| p.as_str());
            let pseudo = Pseudo { method, path, scheme };
            flow.record.facts(None, |facts| {
                headers::mutate(mutation, headers, |add, headers| {
                    headers::evaluate(add, &Facts { request: Some(&RequestView { pseudo, headers }), ..*facts })
                });
            });
        }
        if mutations.query.is_empty() || uri.path_and_query().is_none() {
            continue;
        }
        let path = uri.path_and_query().map_or("", |p| p.as_str());
        let view = RequestView { pseudo: Pseudo { method, path, scheme }, headers };
        let new = flow.record.facts(Some(&view), |facts| query(path, &mutations.query, facts));
        if let Ok(new) = new.parse::<Uri>() {
            *uri = new;
        }
    }
}

pub(super) fn response(
    all: &All,
    flow: &Flow,
    request: Option<&RequestView<'_>>,
    status: StatusCode,
    headers: &mut HeaderMap,
) {
    let request = request.map(|r| r as &dyn format::Headers);
    for mutation in all.iter().flat_map(|m| &m.response) {
        flow.record.facts(request, |facts| {
            headers::mutate(mutation, headers, |add, headers| {
                let response = headers::ResponseView(status, headers);
                headers::evaluate(add, &Facts { status: status.as_u16(), response: Some(&response), ..*facts })
            });
        });
    }
}

/// Whether some response mutation looks at the request.
pub(super) fn mentions_request(all: &All) -> bool {
    all.iter().flat_map(|m| &m.response).any(|mutation| match mutation {
        Mutation::Add(add) => headers::mentions_request(std::slice::from_ref(add)),
        Mutation::Remove(_) | Mutation::RemoveMatching(_) => false,
    })
}

pub(super) fn has_response(all: &All) -> bool {
    all.iter().any(|m| !m.response.is_empty() || !m.response_trailers.is_empty())
}

/// Mutates the trailers of a response that is on its way.
pub(super) fn response_trailers(body: Body, all: &All, flow: &Rc<Flow>) -> Body {
    let streams = matches!(body, Body::Download(_) | Body::Throttled(_)) && !body.is_end_stream();
    if !streams || !Retrailed::<Body>::wanted(all, |m| &m.response_trailers) {
        return body;
    }
    Body::Retrailed(Box::new(Retrailed::new(body, all.clone(), |m| &m.response_trailers, flow.clone())))
}

/// The path with its query parameters changed. As in Envoy, the parameters then stand in the order of their names; what
/// is not changed stays as it was encoded.
fn query(path: &str, mutations: &[QueryMutation], facts: &Facts<'_>) -> String {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let query = query.split('#').next().unwrap_or_default();
    // The decoded name, and both as they are written.
    let mut pairs: Vec<(String, String)> = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| match pair.split_once('=') {
            Some((key, _)) => (decode(key), pair.to_owned()),
            None => (decode(pair), format!("{pair}=")),
        })
        .collect();
    for mutation in mutations {
        match mutation {
            QueryMutation::Remove(name) => pairs.retain(|(key, _)| **key != **name),
            QueryMutation::Set { key, value, action } => {
                let mut text = String::new();
                format::render(value, facts, "", &mut text);
                let exists = pairs.iter().any(|(k, _)| **k == **key);
                let (add, clear) = match action {
                    AppendAction::AppendIfExistsOrAdd => (true, false),
                    AppendAction::AddIfAbsent => (!exists, false),
                    AppendAction::OverwriteIfExistsOrAdd => (true, true),
                    AppendAction::OverwriteIfExists => (exists, true),
                };
                if add {
                    pairs.retain(|(k, _)| !clear || **k != **key);
                    pairs.push((key.to_string(), format!("{}={}", encode(key), encode(&text))));
                }
            }
        }
    }
    pairs.sort_by(|a, b| a.0.cmp(&b.0));
    let mut out = path.to_owned();
    for (i, (_, pair)) in pairs.iter().enumerate() {
        out.push(if i == 0 { '?' } else { '&' });
        out.push_str(pair);
    }
    out
}

fn decode(text: &str) -> String {
    percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned()
}

fn encode(text: &str) -> String {
    const KEPT: &percent_encoding::AsciiSet =
        &percent_encoding::NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
    percent_encoding::utf8_percent_encode(text, KEPT).to_string()
}
