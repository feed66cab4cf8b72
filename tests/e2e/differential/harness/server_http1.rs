//! An HTTP/1 server that does exactly what its plan says, wrong things included.

use std::{fmt::Write, sync::Arc, time::Duration};

use tokio::net::TcpStream;

use super::{
    host::{Host, Seen},
    reply::{Act, Answer, AnswerEnd, Reply},
    wire::{End, Framing, Wire},
};

pub(crate) async fn serve(host: Arc<Host>, stream: TcpStream) {
    let lingerless = stream.into_std().and_then(|s| Ok((socket2::Socket::from(s.try_clone()?), s)));
    let Ok((control, stream)) = lingerless else { return };
    let Ok(stream) = TcpStream::from_std(stream) else { return };
    let mut wire = Wire::new(stream);
    loop {
        match request(&host, &mut wire).await {
            Next::Request => {}
            Next::Close => return,
            Next::Reset => {
                let _ = control.set_linger(Some(Duration::ZERO));
                return;
            }
        }
    }
}

enum Next {
    Request,
    Close,
    Reset,
}

async fn request(host: &Arc<Host>, wire: &mut Wire) -> Next {
    let Ok(head) = wire.head().await else { return Next::Close };
    let (method, path) = (head.word(0).to_owned(), head.word(1).to_owned());
    let line = format!("{} {method} {path}", head.word(2));
    let framing = Framing::of_request(&head);
    let expects = head.get("expect").is_some();
    let fields = head.fields;
    let (index, reply, _active) = host.arrive(Seen { line, fields, ..Seen::default() }, &path);
    if !reply.early {
        if expects && wire.write(b"HTTP/1.1 100 Continue\r\n\r\n").await.is_err() {
            return Next::Close;
        }
        let body = wire.body(framing).await;
        let complete = body.end == End::Complete;
        host.ended(index, body);
        if !complete {
            return Next::Close;
        }
    }
    let next = match answer(host.name, wire, &reply, &method).await {
        Ok(next) => next,
        Err(Gone) => {
            host.afterwards(index, "the proxy closed the connection");
            return Next::Close;
        }
    };
    if reply.early && matches!(next, Next::Request) {
        let body = wire.body(framing).await;
        let complete = body.end == End::Complete;
        host.ended(index, body);
        if !complete {
            return Next::Close;
        }
    }
    next
}

/// The proxy ended the connection before its time.
struct Gone;

/// Waits, unless the proxy ends the connection.
async fn wait(wire: &mut Wire, time: Duration) -> Result<(), Gone> {
    if time.is_zero() {
        return Ok(());
    }
    tokio::select! {
        () = tokio::time::sleep(time) => Ok(()),
        () = gone(wire) => Err(Gone),
    }
}

async fn gone(wire: &mut Wire) {
    while matches!(wire.fill().await, Ok(n) if n > 0) {}
}

async fn answer(name: &str, wire: &mut Wire, reply: &Reply, method: &str) -> Result<Next, Gone> {
    let say = async |wire: &mut Wire, bytes: &[u8]| wire.write(bytes).await.map_err(|_| Gone);
    for (status, fields) in &reply.interim {
        let mut head = format!("HTTP/1.1 {status} Interim\r\n");
        fields.iter().for_each(|(n, v)| head += &format!("{n}: {v}\r\n"));
        say(wire, format!("{head}\r\n").as_bytes()).await?;
    }
    wait(wire, reply.delay).await?;
    match &reply.act {
        Act::Answer(a) => body(name, wire, a, method).await,
        Act::Raw(bytes) => {
            say(wire, bytes).await?;
            wire.finish().await;
            Ok(Next::Close)
        }
        Act::Close => Ok(Next::Close),
        Act::Reset(_) => Ok(Next::Reset),
        Act::Hang => {
            gone(wire).await;
            Err(Gone)
        }
        Act::Switch(protocol) => {
            let head =
                format!("HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: {protocol}\r\n\r\n");
            say(wire, head.as_bytes()).await?;
            loop {
                let heard = wire.take_buffered().to_ascii_uppercase();
                say(wire, &heard).await?;
                match wire.fill().await {
                    Ok(n) if n > 0 => {}
                    _ => return Ok(Next::Close),
                }
            }
        }
    }
}

async fn body(name: &str, wire: &mut Wire, answer: &Answer, method: &str) -> Result<Next, Gone> {
    let default = [(Duration::ZERO, name.as_bytes().to_vec())];
    let parts = if answer.parts.is_empty() && !answer.bodiless { &default[..] } else { &answer.parts[..] };
    let length: usize = parts.iter().map(|(_, p)| p.len()).sum();
    let mut head = format!("HTTP/1.1 {} Scripted\r\n", answer.status);
    answer.fields.iter().for_each(|(n, v)| head += &format!("{n}: {v}\r\n"));
    let given = answer.fields.iter().any(|(n, _)| n == "content-length");
    if answer.chunked {
        head += "transfer-encoding: chunked\r\n";
    } else if !given && !matches!(answer.status, 204 | 304) {
        let more = usize::from(matches!(answer.end, AnswerEnd::Cut | AnswerEnd::Reset | AnswerEnd::Hang)) * 1000;
        let _ = write!(head, "content-length: {}\r\n", length + more);
    }
    if answer.end == AnswerEnd::CompleteAndClose {
        head += "connection: close\r\n";
    }
    let mut bytes = format!("{head}\r\n").into_bytes();
    let parts = if method == "HEAD" { &[][..] } else { parts };
    for (delay, part) in parts {
        if !delay.is_zero() {
            wire.write(&std::mem::take(&mut bytes)).await.map_err(|_| Gone)?;
            wait(wire, *delay).await?;
        }
        if answer.chunked {
            bytes.extend(format!("{:x}\r\n", part.len()).bytes());
        }
        bytes.extend(part);
        if answer.chunked {
            bytes.extend(b"\r\n");
        }
    }
    let ends = matches!(answer.end, AnswerEnd::Complete | AnswerEnd::CompleteAndClose);
    if answer.chunked && ends && method != "HEAD" {
        bytes.extend(b"0\r\n");
        answer.trailers.iter().for_each(|(n, v)| bytes.extend(format!("{n}: {v}\r\n").bytes()));
        bytes.extend(b"\r\n");
    }
    wire.write(&bytes).await.map_err(|_| Gone)?;
    match answer.end {
        AnswerEnd::Complete => Ok(Next::Request),
        AnswerEnd::CompleteAndClose => {
            wire.finish().await;
            Ok(Next::Close)
        }
        AnswerEnd::Cut => Ok(Next::Close),
        // What was said must be heard first: a reset discards what the peer has not read.
        AnswerEnd::Reset => wait(wire, Duration::from_millis(300)).await.map(|()| Next::Reset),
        AnswerEnd::Hang => {
            gone(wire).await;
            Err(Gone)
        }
    }
}
