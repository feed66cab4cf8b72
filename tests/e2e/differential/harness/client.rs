//! The scripted client: sends, and notes down everything that comes back.

use std::{
    fmt::Write,
    io::ErrorKind,
    path::PathBuf,
    time::{Duration, Instant},
};

use tokio::{net::TcpStream, time::timeout};

use super::{
    client_http2,
    observe::{body_text, field_line},
    request::{Req, Talk, Version},
    wire::{End, Framing, Head, Wire},
};

/// How long a script waits for anything: longer than every configured time, even on a loaded machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(25);
/// How long an idle connection is watched for its end.
const WATCH: Duration = Duration::from_millis(2500);

/// Lines that say what the client observed.
pub(crate) type Lines = Vec<String>;

/// Where a client goes, and what it brings.
#[derive(Clone, Debug)]
pub(crate) struct Door {
    pub(crate) port: u16,
    /// The folder of the certificates.
    pub(crate) dir: PathBuf,
}

pub(crate) async fn connect(door: &Door) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect(("127.0.0.1", door.port)).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Sends the requests on one connection, one after the other.
pub(crate) async fn send(door: &Door, requests: &[Req]) -> Lines {
    let mut lines = Vec::new();
    if requests.first().is_some_and(|r| r.version == Version::Http2) {
        client_http2::send(door, requests, &mut lines).await;
        return lines;
    }
    let mut wire = match connect(door).await {
        Ok(stream) => match requests.first().and_then(|r| r.tls) {
            None => Wire::new(stream),
            Some(tls) => match super::tls::handshake(stream, tls, &door.dir, &mut lines).await {
                Some(stream) => Wire::new(stream),
                None => return lines,
            },
        },
        Err(e) => return vec![format!("no connection: {:?}", e.kind())],
    };
    for request in requests {
        lines.push(request.describe());
        let start = Instant::now();
        let goes_on = match timeout(PATIENCE, one(&mut wire, request, &mut lines)).await {
            Ok(goes_on) => goes_on,
            Err(_) => {
                lines.push("< (no end within patience)".to_owned());
                false
            }
        };
        marks(request, start.elapsed(), &mut lines);
        if !goes_on {
            break;
        }
    }
    lines
}

/// The body of the answer to one request.
pub(crate) async fn fetch(door: &Door, request: &Req) -> Option<String> {
    let mut wire = Wire::new(connect(door).await.ok()?);
    wire.write(&encode(request).0).await.ok()?;
    let head = wire.head().await.ok()?;
    let framing = Framing::of_response(&head, &request.method, head.word(1).parse().ok()?);
    Some(String::from_utf8_lossy(&wire.body(framing).await.data).into_owned())
}

/// Notes on which side of each mark the answer came.
pub(crate) fn marks(request: &Req, elapsed: Duration, lines: &mut Lines) {
    for mark in &request.marks {
        let side = if elapsed < *mark { "before" } else { "after" };
        lines.push(format!("< {side} {} ms", mark.as_millis()));
    }
}

fn encode(request: &Req) -> (Vec<u8>, Vec<u8>) {
    let version = if request.version == Version::Http10 { "HTTP/1.0" } else { "HTTP/1.1" };
    let mut head = format!("{} {} {version}\r\n", request.method, request.target);
    if !request.authority.is_empty() {
        let _ = write!(head, "Host: {}\r\n", request.authority);
    }
    request.fields.iter().for_each(|(n, v)| head += &format!("{n}: {v}\r\n"));
    let mut body = Vec::new();
    if request.chunked {
        head += "transfer-encoding: chunked\r\n";
        if !request.body.is_empty() {
            body.extend(format!("{:x}\r\n", request.body.len()).bytes());
            body.extend(&request.body);
            body.extend(b"\r\n");
        }
        if !request.unfinished {
            body.extend(b"0\r\n");
            request.trailers.iter().for_each(|(n, v)| body.extend(format!("{n}: {v}\r\n").bytes()));
            body.extend(b"\r\n");
        }
    } else if !request.body.is_empty() || request.unfinished {
        let length = request.body.len() + usize::from(request.unfinished) * 1000;
        let _ = write!(head, "content-length: {length}\r\n");
        body.extend(&request.body);
    }
    (format!("{head}\r\n").into_bytes(), body)
}

/// Sends one request and notes its answers; whether the connection can go on.
async fn one(wire: &mut Wire, request: &Req, lines: &mut Lines) -> bool {
    let (head, body) = match &request.raw {
        Some(bytes) => (bytes.clone(), Vec::new()),
        None => encode(request),
    };
    let _ = wire.write(&head).await;
    let expects = request.fields.iter().any(|(n, _)| n == "expect");
    let mut body = Some(body);
    if !expects {
        tokio::time::sleep(request.pause).await;
        let _ = wire.write(&body.take().unwrap_or_default()).await;
    }
    loop {
        let head = match wire.head().await {
            Ok(head) => head,
            Err(end) => {
                lines.push(match end {
                    End::Complete => "< closed".to_owned(),
                    other => format!("< {other}"),
                });
                return false;
            }
        };
        let status: u16 = head.word(1).parse().unwrap_or(0);
        note_head(&head, status, request, lines);
        match status {
            100 => {
                let _ = wire.write(&body.take().unwrap_or_default()).await;
            }
            101 => return tunnel(wire, request, lines).await,
            102..=199 => {}
            200 if request.method == "CONNECT" => return tunnel(wire, request, lines).await,
            _ => return rest(wire, request, &head, status, lines).await,
        }
    }
}

fn note_head(head: &Head, status: u16, request: &Req, lines: &mut Lines) {
    lines.push(format!("< {} {status}", head.word(0)));
    let mut fields: Lines = head.fields.iter().map(|(n, v)| field_line("<", n, v)).collect();
    fields.sort();
    lines.append(&mut fields);
    if request.spelling {
        let mut names = head.names.clone();
        names.sort();
        lines.push(format!("< spelled {}", names.join(" ")));
    }
}

async fn rest(wire: &mut Wire, request: &Req, head: &Head, status: u16, lines: &mut Lines) -> bool {
    let framing = Framing::of_response(head, &request.method, status);
    let body = wire.body(framing).await;
    lines.push(format!("< body {}", body_text(&body.data)));
    body.trailers.iter().for_each(|(n, v)| lines.push(field_line("< trailer", n, v)));
    let announced = head.get("connection").is_some_and(|v| v.eq_ignore_ascii_case("close"));
    let goes_on = body.end == End::Complete && framing != Framing::UntilClose;
    lines.push(format!("< {}", body.end));
    let watched = request.afterwards || (announced && goes_on);
    if !watched {
        return goes_on;
    }
    if request.raw.is_some() {
        // More answers may follow on what was said at once.
        if let Ok(Ok(head)) = timeout(WATCH, wire.head()).await {
            let status = head.word(1).parse().unwrap_or(0);
            note_head(&head, status, request, lines);
            return Box::pin(rest(wire, request, &head, status, lines)).await;
        }
    }
    lines.push(match timeout(WATCH, wire.rest()).await {
        // Behind a complete answer an end is an end: what else was said decides whether it is a reset.
        Ok(body) if body.data.is_empty() => "< then closed".to_owned(),
        Ok(body) => format!("< then {} {}", body_text(&body.data), body.end),
        Err(_) => "< stays open".to_owned(),
    });
    false
}

/// Talks through a switched connection and ends it.
async fn tunnel(wire: &mut Wire, request: &Req, lines: &mut Lines) -> bool {
    if let Some(text) = request.tunnel {
        let _ = wire.write(text.as_bytes()).await;
        let mut heard = Vec::new();
        while heard.len() < text.len() && matches!(wire.fill().await, Ok(n) if n > 0) {
            heard.extend(wire.take_buffered());
        }
        lines.push(format!("< tunnel {}", body_text(&heard)));
    }
    wire.finish().await;
    let rest = wire.rest().await;
    lines.push(format!("< tunnel {} then {}", body_text(&rest.data), rest.end));
    false
}

/// Talks over a plain connection, or over TLS.
pub(crate) async fn talk(door: &Door, talk: &Talk) -> Lines {
    let mut lines = vec![format!("{:?} {:?}", talk.say, talk.tls)];
    if timeout(PATIENCE, converse(door, talk, &mut lines)).await.is_err() {
        lines.push("< (no end within patience)".to_owned());
    }
    lines
}

async fn converse(door: &Door, talk: &Talk, lines: &mut Lines) {
    let stream = match connect(door).await {
        Ok(stream) => stream,
        // Accepted and reset before we looked.
        Err(e) if e.kind() == ErrorKind::ConnectionReset => {
            lines.extend(["< heard \"\"".to_owned(), "< reset by peer".to_owned()]);
            return;
        }
        Err(e) => return lines.push(format!("no connection: {:?}", e.kind())),
    };
    let mut wire = match talk.tls {
        None => Wire::new(stream),
        Some(tls) => match super::tls::handshake(stream, tls, &door.dir, lines).await {
            Some(stream) => Wire::new(stream),
            None => return,
        },
    };
    let _ = wire.write(talk.say.as_bytes()).await;
    let mut heard = Vec::new();
    while !talk.hear.is_empty() && !String::from_utf8_lossy(&heard).contains(talk.hear) {
        match wire.fill().await {
            Ok(n) if n > 0 => heard.extend(wire.take_buffered()),
            _ => break,
        }
    }
    if talk.finish {
        wire.finish().await;
    }
    let rest = wire.rest().await;
    heard.extend(rest.data);
    lines.push(format!("< heard {}", body_text(&heard)));
    lines.push(format!("< {}", rest.end));
}
