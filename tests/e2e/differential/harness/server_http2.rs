//! An HTTP/2 server that does what its plan says.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream, server::SendResponse};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use tokio::net::TcpStream;

use super::{
    host::{Host, Seen},
    reply::{Act, Answer, AnswerEnd},
    wire::{Body, End, Fields},
};

pub(crate) async fn serve(host: Arc<Host>, stream: TcpStream) {
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    let (end, mut ended) = tokio::sync::mpsc::unbounded_channel::<()>();
    loop {
        tokio::select! {
            next = connection.accept() => match next {
                Some(Ok((request, respond))) => {
                    tokio::spawn(stream_of(host.clone(), request, respond, end.clone()));
                }
                _ => return,
            },
            // The plan ends the connection.
            _ = ended.recv() => return,
        }
    }
}

pub(crate) fn fields(headers: &HeaderMap) -> Fields {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    headers.iter().map(|(n, v)| (n.as_str().to_owned(), text(v))).collect()
}

pub(crate) fn map(fields: &Fields) -> HeaderMap {
    let pair = |(n, v): &(String, String)| {
        let name = HeaderName::from_bytes(n.as_bytes()).expect("scripts hold header names");
        (name, HeaderValue::from_bytes(v.as_bytes()).expect("scripts hold header values"))
    };
    fields.iter().map(pair).collect()
}

/// Everything a stream brings, and how it ended.
pub(crate) async fn collect(stream: &mut RecvStream) -> Body {
    let mut body = Body { data: Vec::new(), trailers: Vec::new(), end: End::Complete };
    while let Some(data) = stream.data().await {
        match data {
            Ok(data) => {
                let _ = stream.flow_control().release_capacity(data.len());
                body.data.extend_from_slice(&data);
            }
            Err(e) => {
                body.end = End::Reset(reason(&e));
                return body;
            }
        }
    }
    match stream.trailers().await {
        Ok(trailers) => body.trailers = trailers.as_ref().map(fields).unwrap_or_default(),
        Err(e) => body.end = End::Reset(reason(&e)),
    }
    body
}

pub(crate) fn reason(error: &h2::Error) -> String {
    match error.reason() {
        Some(reason) => format!("{reason:?}"),
        None => "with the connection".to_owned(),
    }
}

async fn stream_of(
    host: Arc<Host>,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    end: tokio::sync::mpsc::UnboundedSender<()>,
) {
    let (head, mut incoming) = request.into_parts();
    let path = head.uri.path_and_query().map(ToString::to_string).unwrap_or_default();
    let mut seen = Seen { line: format!("HTTP/2 {} {path}", head.method), ..Seen::default() };
    if let Some(authority) = head.uri.authority() {
        seen.fields.push((":authority".to_owned(), authority.to_string()));
    }
    if let Some(scheme) = head.uri.scheme_str() {
        seen.fields.push((":scheme".to_owned(), scheme.to_owned()));
    }
    seen.fields.extend(fields(&head.headers));
    let (index, reply, _active) = host.arrive(seen, &path);
    if !reply.early {
        let body = collect(&mut incoming).await;
        let complete = body.end == End::Complete;
        host.ended(index, body);
        if !complete {
            return;
        }
    }
    let was_reset = |e: Result<Reason, h2::Error>| match e {
        Ok(reason) => format!("the proxy reset the stream: {reason:?}"),
        Err(_) => "the proxy closed the connection".to_owned(),
    };
    tokio::select! {
        () = tokio::time::sleep(reply.delay) => {}
        reset = std::future::poll_fn(|cx| respond.poll_reset(cx)) => {
            host.afterwards(index, &was_reset(reset));
            return;
        }
    }
    let gone = match &reply.act {
        // A proxy that goes away while a short answer is on its way may come in time or not.
        Act::Answer(a) => answer(&host, a, head.method == http::Method::HEAD, respond)
            .await
            .err()
            .filter(|_| a.end != AnswerEnd::Complete),
        Act::Reset(code) => {
            respond.send_reset(Reason::from(*code));
            None
        }
        Act::Close | Act::Raw(_) | Act::Switch(_) => {
            let _ = end.send(());
            None
        }
        Act::Hang => Some(was_reset(std::future::poll_fn(|cx| respond.poll_reset(cx)).await)),
    };
    if let Some(gone) = gone {
        host.afterwards(index, &gone);
    }
    if reply.early {
        host.ended(index, collect(&mut incoming).await);
    }
}

async fn answer(host: &Host, answer: &Answer, only_head: bool, mut respond: SendResponse<Bytes>) -> Result<(), String> {
    let gone = |_| "the proxy reset the stream".to_owned();
    let mut head = Response::builder().status(answer.status);
    if let Some(headers) = head.headers_mut() {
        *headers = map(&answer.fields);
    }
    let head = head.body(()).expect("scripts hold statuses");
    let default = [(Duration::ZERO, host.name.as_bytes().to_vec())];
    let parts = if answer.parts.is_empty() && !answer.bodiless { &default[..] } else { &answer.parts[..] };
    let only_head = only_head || parts.is_empty() && answer.trailers.is_empty() && answer.end == AnswerEnd::Complete;
    let mut stream = respond.send_response(head, only_head).map_err(gone)?;
    if only_head {
        return Ok(());
    }
    for (delay, part) in parts {
        tokio::time::sleep(*delay).await;
        send(&mut stream, part).map_err(gone)?;
    }
    match answer.end {
        AnswerEnd::Complete | AnswerEnd::CompleteAndClose if answer.trailers.is_empty() => {
            stream.send_data(Bytes::new(), true).map_err(gone)
        }
        AnswerEnd::Complete | AnswerEnd::CompleteAndClose => stream.send_trailers(map(&answer.trailers)).map_err(gone),
        AnswerEnd::Cut | AnswerEnd::Reset => {
            // Data that waits to be written would be dropped by a reset.
            tokio::time::sleep(Duration::from_millis(300)).await;
            stream.send_reset(Reason::INTERNAL_ERROR);
            Ok(())
        }
        AnswerEnd::Hang => match std::future::poll_fn(|cx| stream.poll_reset(cx)).await {
            Ok(reason) => Err(format!("the proxy reset the stream: {reason:?}")),
            Err(_) => Err("the proxy closed the connection".to_owned()),
        },
    }
}

fn send(stream: &mut SendStream<Bytes>, part: &[u8]) -> Result<(), h2::Error> {
    stream.send_data(Bytes::copy_from_slice(part), false)
}
