//! What an authorization service says, in whichever form it does.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use outrigger_wire::pb::envoy::{
    config::core::v3::{HeaderValueOption, header_value_option::HeaderAppendAction},
    service::auth::v3::{CheckResponse, check_response::HttpResponse},
    r#type::v3::HttpStatus,
};
use serde_json::{Map, Value};

use crate::{
    ir::{ext_authz::HttpService, matcher::StringMatcher, route::AppendAction},
    l7::structs,
};

const TO_REMOVE: HeaderName = HeaderName::from_static("x-envoy-auth-headers-to-remove");
const SERVICE_TIME: HeaderName = HeaderName::from_static("x-envoy-upstream-service-time");

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Ok,
    Denied,
    /// Nobody could say.
    Error,
}

/// A header change that the service wants, not looked at yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Change {
    pub name: String,
    pub value: Vec<u8>,
    pub action: AppendAction,
    /// Appended within the line that is there, and only there.
    pub joined: bool,
}

#[derive(Debug)]
pub(super) struct Verdict {
    pub kind: Kind,
    /// Of a denial, or of an error where the service says so.
    pub status: Option<StatusCode>,
    pub body: Bytes,
    own: bool,
    pub request: Vec<Change>,
    pub remove: Vec<String>,
    pub query: Vec<(String, String)>,
    pub query_remove: Vec<String>,
    /// Of the response: the upstream's, or the denial.
    pub response: Vec<Change>,
    pub metadata: Map<String, Value>,
    /// Some change is of a kind that does not exist.
    pub invalid: bool,
}

impl Verdict {
    fn new(kind: Kind) -> Self {
        Self {
            kind,
            status: None,
            body: Bytes::new(),
            own: false,
            request: Vec::new(),
            remove: Vec::new(),
            query: Vec::new(),
            query_remove: Vec::new(),
            response: Vec::new(),
            metadata: Map::new(),
            invalid: false,
        }
    }

    pub(super) fn denied() -> Self {
        Self::new(Kind::Denied)
    }

    pub(super) fn error() -> Self {
        Self::new(Kind::Error)
    }

    pub(super) fn is_ok(&self) -> bool {
        self.kind == Kind::Ok
    }

    /// Whether the service says how its own failure is to be answered.
    pub(super) fn has_own_answer(&self) -> bool {
        self.own
    }

    pub(super) fn changes_request(&self) -> bool {
        !(self.request.is_empty() && self.remove.is_empty() && self.query.is_empty() && self.query_remove.is_empty())
    }

    #[expect(deprecated, reason = "services still use it")]
    fn changes(&mut self, options: Vec<HeaderValueOption>, of_request: bool) -> Vec<Change> {
        let mut change = |option: HeaderValueOption| {
            let header = option.header.unwrap_or_default();
            let overwrite = (AppendAction::OverwriteIfExistsOrAdd, false);
            let (action, joined) = match (&option.append, HeaderAppendAction::try_from(option.append_action)) {
                (Some(append), _) if append.value => (AppendAction::AppendIfExistsOrAdd, true),
                (Some(_), _) => overwrite,
                // As in Envoy only the old field counts here.
                (None, _) if of_request => overwrite,
                (None, Ok(HeaderAppendAction::AppendIfExistsOrAdd)) => (AppendAction::AppendIfExistsOrAdd, false),
                (None, Ok(HeaderAppendAction::AddIfAbsent)) => (AppendAction::AddIfAbsent, false),
                (None, Ok(HeaderAppendAction::OverwriteIfExistsOrAdd)) => overwrite,
                (None, Ok(HeaderAppendAction::OverwriteIfExists)) => (AppendAction::OverwriteIfExists, false),
                (None, Err(_)) => {
                    self.invalid = true;
                    overwrite
                }
            };
            let value = if header.value.is_empty() { header.raw_value } else { header.value.into_bytes() };
            Change { name: header.key.to_ascii_lowercase(), value, action, joined }
        };
        options.into_iter().map(&mut change).collect()
    }

    fn answer(&mut self, status: Option<HttpStatus>, headers: Vec<HeaderValueOption>, body: String) {
        self.response = self.changes(headers, false);
        self.body = body.into();
        self.own = true;
        if let Some(HttpStatus { code }) = status.filter(|s| s.code != 0) {
            let known = u16::try_from(code).ok().filter(|c| (200..600).contains(c));
            self.status = known.and_then(|c| StatusCode::from_u16(c).ok());
        }
    }
}

/// An answer over gRPC.
#[expect(deprecated, reason = "services still use it")]
pub(super) fn of_check(response: CheckResponse) -> Verdict {
    let mut metadata = response.dynamic_metadata;
    let code = response.status.map_or(0, |status| status.code);
    let mut verdict = Verdict::new(if code == 0 { Kind::Ok } else { Kind::Denied });
    match response.http_response {
        Some(HttpResponse::OkResponse(ok)) => {
            if ok.dynamic_metadata.is_some() {
                metadata = ok.dynamic_metadata;
            }
            if code == 0 {
                verdict.request = verdict.changes(ok.headers, true);
                verdict.response = verdict.changes(ok.response_headers_to_add, false);
                verdict.remove = ok.headers_to_remove;
                verdict.query = ok.query_parameters_to_set.into_iter().map(|q| (q.key, q.value)).collect();
                verdict.query_remove = ok.query_parameters_to_remove;
            }
        }
        Some(HttpResponse::DeniedResponse(m)) if code != 0 => verdict.answer(m.status, m.headers, m.body),
        Some(HttpResponse::ErrorResponse(m)) if code != 0 => {
            verdict.kind = Kind::Error;
            verdict.answer(m.status, m.headers, m.body);
        }
        _ => {}
    }
    verdict.metadata = metadata.map(structs::from_struct).unwrap_or_default();
    verdict
}

/// An answer over HTTP, after so much time.
pub(super) fn of_http(service: &HttpService, response: Response<Bytes>, after: Duration) -> Verdict {
    let (mut head, body) = response.into_parts();
    if head.status.is_server_error() {
        return Verdict::error();
    }
    let millis = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
    head.headers.insert(SERVICE_TIME, HeaderValue::from(millis));
    let ok = head.status == StatusCode::OK;
    let mut verdict = Verdict::new(if ok { Kind::Ok } else { Kind::Denied });
    let lists = head.headers.get_all(TO_REMOVE).iter().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(','));
    let names = lists.map(str::trim).filter(|name| !name.is_empty()).map(str::to_ascii_lowercase);
    verdict.remove = if ok { names.collect() } else { Vec::new() };
    head.headers.remove(TO_REMOVE);
    for name in head.headers.keys() {
        if among(&service.metadata_from_headers, name)
            && let Some(value) = head.headers.get_all(name).iter().next_back()
        {
            let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
            verdict.metadata.insert(name.as_str().to_owned(), Value::String(value));
        }
    }
    if ok {
        let set = AppendAction::OverwriteIfExistsOrAdd;
        verdict.request = chosen(&head.headers, set, |name| among(&service.upstream_headers, name));
        let add = AppendAction::AppendIfExistsOrAdd;
        verdict.request.extend(chosen(&head.headers, add, |name| among(&service.upstream_headers_to_append, name)));
        verdict.response = chosen(&head.headers, add, |name| among(&service.client_headers_on_success, name));
        return verdict;
    }
    verdict.own = true;
    verdict.status = Some(head.status);
    verdict.response = chosen(&head.headers, AppendAction::AppendIfExistsOrAdd, |name| match &service.client_headers {
        None => true,
        Some(list) => matches!(name.as_str(), "www-authenticate" | "location") || among(list, name),
    });
    verdict.body = body;
    verdict
}

fn among(list: &[StringMatcher], name: &HeaderName) -> bool {
    list.iter().any(|m| m.matches(name.as_str()))
}

/// What hops keep to themselves, and what the new message says itself.
pub(super) fn is_hop(name: &str) -> bool {
    matches!(name, "connection" | "keep-alive" | "transfer-encoding" | "content-length" | "upgrade")
}

fn chosen(headers: &HeaderMap, action: AppendAction, is: impl Fn(&HeaderName) -> bool) -> Vec<Change> {
    let wanted = headers.iter().filter(|(name, _)| !is_hop(name.as_str()) && is(name));
    let change = |(name, value): (&HeaderName, &HeaderValue)| {
        let (name, value) = (name.as_str().to_owned(), value.as_bytes().to_vec());
        Change { name, value, action, joined: false }
    };
    wanted.map(change).collect()
}
