//! Upstream hosts that speak no HTTP, and one that says prepared bytes.

use std::sync::Arc;

use tokio::net::TcpStream;

use super::{
    host::{Host, Seen},
    wire::{End, Wire},
};

/// Greets, echoes in capitals, says how much it heard once the peer finished, and ends.
pub(crate) async fn talk(host: Arc<Host>, stream: TcpStream, greeting: &str) {
    let mut wire = Wire::new(stream);
    let (index, _, _active) = host.arrive(Seen { line: "TCP".to_owned(), ..Seen::default() }, "");
    if wire.write(greeting.as_bytes()).await.is_err() {
        return;
    }
    let mut body = super::wire::Body { data: Vec::new(), trailers: Vec::new(), end: End::Complete };
    loop {
        match wire.fill().await {
            Ok(0) => break,
            Ok(_) => {
                let heard = wire.take_buffered();
                if wire.write(&heard.to_ascii_uppercase()).await.is_err() {
                    body.end = End::Cut;
                }
                body.data.extend(heard);
            }
            Err(_) => body.end = End::Reset("by the proxy".to_owned()),
        }
        if body.end != End::Complete {
            break;
        }
    }
    let farewell = format!("({} heard {})", host.name, body.data.len());
    let _ = wire.write(farewell.as_bytes()).await;
    wire.finish().await;
    host.ended(index, body);
}

/// Waits for an HTTP/2 request, says the bytes, and stays until the peer leaves.
pub(crate) async fn bytes(host: Arc<Host>, stream: TcpStream, bytes: &[u8]) {
    let mut wire = Wire::new(stream);
    let mut heard = Vec::new();
    while !has_headers(&heard) {
        match wire.fill().await {
            Ok(n) if n > 0 => heard.extend(wire.take_buffered()),
            _ => return,
        }
    }
    let (index, _, _active) = host.arrive(Seen { line: "bytes".to_owned(), ..Seen::default() }, "");
    let _ = wire.write(bytes).await;
    wire.finish().await;
    let mut body = wire.rest().await;
    // Settings and windows are the proxy's own affair.
    body.data.clear();
    body.end = End::Complete;
    host.ended(index, body);
}

/// Whether a HEADERS frame is among what a client said.
fn has_headers(heard: &[u8]) -> bool {
    const PREFACE: usize = 24;
    const HEADERS: u8 = 1;
    let mut rest = heard.get(PREFACE..).unwrap_or_default();
    while let [a, b, c, kind, ..] = *rest {
        if kind == HEADERS {
            return true;
        }
        let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        rest = rest.get(9 + length..).unwrap_or_default();
    }
    false
}
