//! gRPC-Web: requests of browsers become gRPC, and responses become what browsers can read.
//!
//! Trailers become a last frame of the body. With the text form both bodies are base64, translated as they pass.

mod text;

use std::{
    future::poll_fn,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use http_body::{Body as _, Frame, SizeHint};
use percent_encoding::{AsciiSet, CONTROLS, percent_encode};

pub use self::text::Decoded;
use self::text::Encoder;
use super::After;
use crate::l7::{
    body::{Body, BodyError},
    flow::Flow,
    incoming::Incoming,
    pipeline::Inbound,
    respond::{grpc_status, is_grpc},
};

const ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// How much of a body that is not gRPC becomes the message of the failure.
const MESSAGE: usize = 16 * 1024;

/// The flag of a frame with trailers.
const TRAILERS: u8 = 0x80;

/// The forms of gRPC-Web: whether a content type is one, and base64.
fn form(value: Option<&HeaderValue>) -> Option<bool> {
    match value?.as_bytes() {
        b"application/grpc-web" | b"application/grpc-web+proto" => Some(false),
        b"application/grpc-web-text" | b"application/grpc-web-text+proto" => Some(true),
        _ => None,
    }
}

/// Makes a gRPC request of one of gRPC-Web.
pub(super) fn request(request: &mut Inbound, after: &mut After) {
    let headers = &mut request.parts.headers;
    let Some(text) = form(headers.get(header::CONTENT_TYPE)) else { return };
    // It counts what the translation changes.
    headers.remove(header::CONTENT_LENGTH);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
    headers.entry(ACCEPT_ENCODING).or_insert(HeaderValue::from_static("identity"));
    let text_wanted = form(headers.get(header::ACCEPT)) == Some(true);
    request.sane.grpc = true;
    if text && !request.body.is_end_stream() {
        let body = std::mem::replace(&mut request.body, Incoming::None);
        request.body = Incoming::Decoded(Box::new(Decoded::new(body)));
    }
    after.grpc_web(text_wanted);
}

/// Makes a response of gRPC-Web of any response.
pub(super) async fn response(mut response: Response<Body>, text: bool) -> Response<Body> {
    let kind = if text { "application/grpc-web-text+proto" } else { "application/grpc-web+proto" };
    let translatable = is_grpc(response.headers())
        || response.status() == StatusCode::OK && form(response.headers().get(header::CONTENT_TYPE)) == Some(false);
    let status = response.status();
    let headers = response.headers_mut();
    headers.remove(header::CONTENT_LENGTH);
    headers.remove(header::TRAILER);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    if response.body().is_end_stream() {
        return response;
    }
    if translatable {
        return response
            .map(|body| Body::GrpcWeb(Box::new(GrpcWeb { body, encoder: text.then(Encoder::default), ended: false })));
    }
    // What is not gRPC becomes the message of a failure.
    let message = beginning(response.body_mut()).await;
    const SET: &AsciiSet = &CONTROLS.add(b'%');
    let headers = response.headers_mut();
    headers.insert(GRPC_STATUS, HeaderValue::from(grpc_status(status)));
    if let Ok(message) = HeaderValue::from_str(&percent_encode(&message, SET).to_string()) {
        headers.insert(GRPC_MESSAGE, message);
    }
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
    headers.remove(header::TRANSFER_ENCODING);
    response.map(|_| Body::Empty)
}

/// As much of a body as fits into a message.
async fn beginning(body: &mut Body) -> Bytes {
    let mut all = BytesMut::new();
    while let Some(Ok(frame)) = poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await {
        let Ok(data) = frame.into_data() else { break };
        let room = MESSAGE - all.len();
        all.put_slice(&data[..data.len().min(room)]);
        if all.len() == MESSAGE {
            break;
        }
    }
    all.freeze()
}

/// A gRPC response on its way to a browser.
pub struct GrpcWeb {
    body: Body,
    encoder: Option<Encoder>,
    ended: bool,
}

impl GrpcWeb {
    /// See [`Body::flow`].
    pub(in crate::l7) fn flow(&self) -> Option<&Rc<Flow>> {
        self.body.flow()
    }

    pub(in crate::l7) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        while !self.ended {
            let data = match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => {
                    self.ended = true;
                    self.encode(Bytes::new())
                }
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.encode(data),
                    Err(frame) => {
                        self.ended = true;
                        let trailers = frame.into_trailers().unwrap_or_default();
                        self.encode(trailers_frame(&trailers))
                    }
                },
            };
            if !data.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
        }
        Poll::Ready(None)
    }

    /// What is sent of the data; at the end, all that is left.
    fn encode(&mut self, data: Bytes) -> Bytes {
        match &mut self.encoder {
            None => data,
            Some(encoder) => encoder.encode(&data, self.ended),
        }
    }

    pub(in crate::l7) fn is_end_stream(&self) -> bool {
        self.ended
    }

    /// Nobody knows how long trailers are.
    pub(in crate::l7) fn size_hint(&self) -> SizeHint {
        if self.ended { SizeHint::with_exact(0) } else { SizeHint::default() }
    }
}

fn trailers_frame(trailers: &HeaderMap) -> Bytes {
    let mut text = BytesMut::new();
    for (name, value) in trailers {
        text.put_slice(name.as_str().as_bytes());
        text.put_u8(b':');
        text.put_slice(value.as_bytes());
        text.put_slice(b"\r\n");
    }
    let mut frame = BytesMut::with_capacity(5 + text.len());
    frame.put_u8(TRAILERS);
    frame.put_u32(u32::try_from(text.len()).unwrap_or(u32::MAX));
    frame.put_slice(&text);
    frame.freeze()
}
