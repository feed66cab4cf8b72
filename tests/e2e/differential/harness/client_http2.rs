//! The scripted client over HTTP/2.

use std::time::Instant;

use bytes::Bytes;
use h2::client::SendRequest;
use http::Request;
use tokio::time::timeout;

use super::{
    client::{Door, Lines, PATIENCE, connect, marks},
    observe::{body_text, field_line},
    request::Req,
    server_http2::{collect, fields, map, reason},
    wire::{End, Fields},
};

pub(crate) async fn send(door: &Door, requests: &[Req], lines: &mut Lines) {
    let stream = match connect(door).await {
        Ok(stream) => stream,
        Err(e) => return lines.push(format!("no connection: {:?}", e.kind())),
    };
    let (mut client, connection) = match h2::client::handshake(stream).await {
        Ok(pair) => pair,
        Err(e) => return lines.push(format!("no HTTP/2: {e}")),
    };
    let connection = tokio::spawn(connection);
    for request in requests {
        lines.push(request.describe());
        let start = Instant::now();
        let goes_on = match timeout(PATIENCE, one(&mut client, request, lines)).await {
            Ok(goes_on) => goes_on,
            Err(_) => {
                lines.push("< (no end within patience)".to_owned());
                false
            }
        };
        marks(request, start.elapsed(), lines);
        if !goes_on {
            break;
        }
    }
    drop(client);
    connection.abort();
    // It is closed when the step ends, not some time later.
    let _ = connection.await;
}

fn sorted(prefix: &str, list: &Fields, lines: &mut Lines) {
    let mut fields: Lines = list.iter().map(|(n, v)| field_line(prefix, n, v)).collect();
    fields.sort();
    lines.append(&mut fields);
}

async fn one(client: &mut SendRequest<Bytes>, request: &Req, lines: &mut Lines) -> bool {
    let uri = match request.method.as_str() {
        "CONNECT" if request.protocol.is_none() => request.authority.clone(),
        _ => format!("http://{}{}", request.authority, request.target),
    };
    let mut head = Request::builder().method(request.method.as_str()).uri(uri);
    if let Some(headers) = head.headers_mut() {
        *headers = map(&request.fields);
    }
    if let Some(protocol) = request.protocol {
        head = head.extension(h2::ext::Protocol::from_static(protocol));
    }
    let head = head.body(()).expect("scripts hold valid requests");
    let has_body =
        !request.body.is_empty() || !request.trailers.is_empty() || request.unfinished || request.method == "CONNECT";
    let ready = std::future::poll_fn(|cx| client.poll_ready(cx)).await;
    let sent = ready.and_then(|()| client.send_request(head, !has_body));
    let (response, mut stream) = match sent {
        Ok(pair) => pair,
        Err(e) => {
            lines.push(format!("< no stream: {}", reason(&e)));
            return false;
        }
    };
    if has_body && request.method != "CONNECT" {
        tokio::time::sleep(request.pause).await;
        let last = request.trailers.is_empty() && !request.unfinished;
        let _ = stream.send_data(Bytes::copy_from_slice(&request.body), last);
        if !request.trailers.is_empty() {
            let _ = stream.send_trailers(map(&request.trailers));
        }
    }
    let response = match response.await {
        Ok(response) => response,
        Err(e) => {
            lines.push(format!("< reset {}", reason(&e)));
            return e.is_reset();
        }
    };
    let (head, mut incoming) = response.into_parts();
    lines.push(format!("< HTTP/2 {}", head.status.as_u16()));
    sorted("<", &fields(&head.headers), lines);
    if let Some(text) = request.tunnel.filter(|_| head.status == 200) {
        let _ = stream.send_data(Bytes::from_static(text.as_bytes()), true);
    }
    let body = collect(&mut incoming).await;
    lines.push(format!("< body {}", body_text(&body.data)));
    sorted("< trailer", &body.trailers, lines);
    lines.push(format!("< {}", body.end));
    drop(stream);
    matches!(body.end, End::Complete | End::Reset(_))
}
