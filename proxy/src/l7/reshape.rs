//! `local_reply_config`: what an operator makes of the answers this proxy gives itself.
//!
//! The first mapper whose filter accepts the exchange changes status, text, headers and format; without one the
//! manager's own format applies. As in Envoy redirects are such answers, too, and a gRPC client hears the text as its
//! status message.

use std::borrow::Cow;

use http::{HeaderMap, HeaderValue, Response, StatusCode, header::CONTENT_TYPE};

use super::{
    flow::Flow,
    headers::{self, RequestView},
};
use crate::{
    ir::{
        format::{LogFormat, Operator},
        http::LocalReply,
        route::BodyFormat,
    },
    telemetry::{access_log, format::Facts},
};

/// A configuration, and the request that is answered.
#[derive(Clone, Copy)]
pub(super) struct Shape<'a> {
    pub(super) config: &'a LocalReply,
    pub(super) request: &'a RequestView<'a>,
}

/// What becomes of an answer, beside its status and text.
#[derive(Debug, Default)]
pub(super) struct Reshaped {
    pub(super) headers: HeaderMap,
    pub(super) content_type: Option<HeaderValue>,
}

impl Reshaped {
    /// Puts it on the response, whose own headers yield; a gRPC response keeps its content type.
    pub(super) fn dress<B>(self, response: &mut Response<B>, is_grpc: bool) {
        let headers = response.headers_mut();
        if let Some(content_type) = self.content_type.filter(|_| !is_grpc && headers.contains_key(CONTENT_TYPE)) {
            headers.insert(CONTENT_TYPE, content_type);
        }
        for name in self.headers.keys().filter(|name| !(is_grpc && **name == CONTENT_TYPE)) {
            headers.remove(name);
            for value in self.headers.get_all(name) {
                headers.append(name.clone(), value.clone());
            }
        }
    }
}

impl Shape<'_> {
    /// Changes an answer; flags and details are noted already.
    pub(super) fn apply(&self, flow: &Flow, status: &mut StatusCode, body: &mut Cow<'static, str>) -> Reshaped {
        let mut reshaped = Reshaped::default();
        flow.record.facts(Some(self.request), |facts| {
            let facts = |status: StatusCode| Facts { status: status.as_u16(), ..*facts };
            let mut format = self.config.format.as_ref();
            let mapper = self.config.mappers.iter().find(|m| access_log::accepts(&m.filter, &facts(*status)));
            if let Some(mapper) = mapper {
                if let Some(text) = &mapper.body {
                    *body = text.to_string().into();
                }
                headers::apply_response(&mapper.headers, &mut reshaped.headers, *status, &facts(*status));
                *status = mapper.status.unwrap_or(*status);
                format = mapper.format.as_ref().or(format);
            }
            if let Some(format) = format {
                *body = rendered(format, body, &facts(*status)).into();
                reshaped.content_type = content_type(format);
            }
        });
        reshaped
    }
}

fn rendered(format: &BodyFormat, body: &str, facts: &Facts<'_>) -> String {
    let mut text = String::new();
    let mut own = format.format.clone();
    own.substitute(&Operator::LocalReplyBody, body);
    access_log::render(&own, facts, &mut text);
    text
}

/// The content type of a formatted body; none: plain text.
pub(super) fn content_type(format: &BodyFormat) -> Option<HeaderValue> {
    match (&format.content_type, &format.format) {
        (Some(content_type), _) => Some(content_type.clone()),
        (None, LogFormat::Json(_)) => Some(HeaderValue::from_static("application/json")),
        (None, LogFormat::Text(_)) => None,
    }
}
