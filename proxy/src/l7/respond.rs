//! Replies this proxy makes itself, in the form the client understands: plain HTTP, or gRPC status in headers.
//!
//! Texts, codes, flags and `response_code_details` are Envoy's, so runbooks and dashboards keep working.

use std::borrow::Cow;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use super::{
    body::Body,
    flow::Flow,
    reshape::{Reshaped, Shape},
};
use crate::telemetry::flags::Flags;

#[cfg(test)]
#[path = "respond_tests.rs"]
mod tests;

const OVERLOADED: HeaderName = HeaderName::from_static("x-envoy-overloaded");

/// A decision to answer here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    pub status: StatusCode,
    pub body: Cow<'static, str>,
    pub flags: Flags,
    /// Tells the caller that there is no point in trying again: `x-envoy-overloaded`.
    pub overloaded: bool,
    pub details: Cow<'static, str>,
    /// Overrides the status a gRPC client sees.
    pub grpc: Option<u16>,
    pub location: Option<String>,
    /// How often the request was tried, where the reply is the router's.
    pub attempts: u32,
}

impl Reply {
    pub fn new(status: StatusCode, details: impl Into<Cow<'static, str>>) -> Self {
        Self {
            status,
            body: Cow::Borrowed(""),
            flags: Flags::default(),
            overloaded: false,
            details: details.into(),
            grpc: None,
            location: None,
            attempts: 0,
        }
    }

    pub fn body(mut self, body: impl Into<Cow<'static, str>>) -> Self {
        self.body = body.into();
        self
    }

    pub fn flag(mut self, flag: Flags) -> Self {
        self.flags.insert(flag);
        self
    }

    pub fn overloaded(mut self, overloaded: bool) -> Self {
        self.overloaded = overloaded;
        self
    }

    pub fn grpc(mut self, status: u16) -> Self {
        self.grpc = Some(status);
        self
    }

    pub fn location(mut self, location: String) -> Self {
        self.location = Some(location);
        self
    }

    pub fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts;
        self
    }

    /// Makes the response and notes flags and details.
    pub(super) fn into_response(mut self, flow: &Flow, is_grpc: bool, shape: Option<Shape<'_>>) -> Response<Body> {
        flow.record.flag(self.flags);
        flow.record.details(self.details);
        let reshaped = match shape {
            Some(shape) => shape.apply(flow, &mut self.status, &mut self.body),
            None => Reshaped::default(),
        };
        let mut response = if is_grpc {
            grpc_response(self.grpc.unwrap_or_else(|| grpc_status(self.status)), &self.body)
        } else {
            text_response(self.status, Bytes::from(self.body.into_owned().into_bytes()))
        };
        reshaped.dress(&mut response, is_grpc);
        if let Some(location) = self.location.and_then(|l| HeaderValue::from_str(&l).ok()) {
            response.headers_mut().insert(header::LOCATION, location);
        }
        if self.overloaded {
            response.headers_mut().insert(OVERLOADED, HeaderValue::from_static("true"));
        }
        response
    }
}

/// A plain response with a text body.
pub fn text_response(status: StatusCode, body: Bytes) -> Response<Body> {
    let mut headers = HeaderMap::with_capacity(6);
    if !body.is_empty() {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    }
    let mut response = Response::new(if body.is_empty() { Body::Empty } else { Body::Full(Some(body)) });
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

/// What a gRPC client hears in place of a plain response.
pub fn grpc_reply(status: StatusCode, message: &str) -> Response<Body> {
    grpc_response(grpc_status(status), message)
}

/// A headers-only gRPC response.
fn grpc_response(status: u16, message: &str) -> Response<Body> {
    // What `grpc-message` percent-encodes: everything outside printable ASCII, and the percent sign itself.
    const SET: &AsciiSet = &CONTROLS.add(b'%');
    // A JSON format ends its line, which a header does not need.
    let message = message.strip_suffix('\n').unwrap_or(message);
    let mut response = Response::new(Body::Empty);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(HeaderName::from_static("grpc-status"), HeaderValue::from(status));
    if !message.is_empty()
        && let Ok(message) = HeaderValue::from_str(&utf8_percent_encode(message, SET).to_string())
    {
        headers.insert(HeaderName::from_static("grpc-message"), message);
    }
    response
}

/// gRPC's own mapping of HTTP statuses.
pub fn grpc_status(status: StatusCode) -> u16 {
    match status.as_u16() {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502 | 503 | 504 => 14,
        _ => 2,
    }
}

/// Whether a request is gRPC, by its content type.
pub fn is_grpc(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .and_then(|v| v.as_bytes().strip_prefix(b"application/grpc"))
        .is_some_and(|rest| matches!(rest.first(), None | Some(b'+')))
}
