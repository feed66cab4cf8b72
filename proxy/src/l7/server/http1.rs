//! HTTP/1: a codec while there are requests, and next to nothing while there are none.
//!
//! hyper's codec holds a read buffer of 8 KiB and room for a whole request for as long as it exists. So it exists from
//! the first byte of a head until the connection has idled for a while. What the connection is (peer, clocks, counts,
//! the end it is told of) lives beside it. Invariant: no byte is read while there is no codec, and a codec is given up
//! only after it said itself that it is between two requests and everything it wrote has left it.

use std::{
    future::poll_fn,
    pin::Pin,
    rc::Rc,
    task::{Poll, ready},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, Version};
use hyper::{body::Incoming as Http1Incoming, server::conn::http1, service::service_fn, upgrade::OnUpgrade};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncWrite, AsyncWriteExt};

use super::{
    Connection,
    clocks::{Clocks, Due, Served},
    drive::{End, drive},
};
use crate::{
    ir::http::ServerHeader,
    l7::{incoming::Incoming, pipeline::handle, upgrade::Promise, wire::Wire},
    net::io::{Io, Probe},
    telemetry::exchange::RequestRecord,
};

/// Serves a connection until it ends. `prefix` was read from it already.
pub(super) async fn serve(mut io: Io, mut prefix: Bytes, conn: &Rc<Connection>, mut clocks: Clocks) {
    // A handshake may have brought decrypted bytes along, which no socket tells of. A codec reads until there are none.
    let mut drained = !io.is_tls();
    loop {
        if drained && prefix.is_empty() && !head_comes(&mut io, conn, &mut clocks).await {
            return;
        }
        drained = true;
        // Boxed: what waits must not occupy the room of what works.
        match Box::pin(codec(io, prefix, conn, &mut clocks)).await {
            Some(rest) => (io, prefix) = rest,
            None => return,
        }
    }
}

/// Runs a codec; gives the connection back when it idles, with what was read and not looked at.
async fn codec(io: Io, prefix: Bytes, conn: &Rc<Connection>, clocks: &mut Clocks) -> Option<(Io, Bytes)> {
    let _held = conn.engine.held.hold();
    let mut running = {
        let service = {
            let conn = conn.clone();
            service_fn(move |mut request: Request<Http1Incoming>| {
                let promise = request.extensions_mut().remove::<OnUpgrade>().map(Promise::Http1);
                if promise.is_some() {
                    // Refused or not, hyper goes on expecting that it happens, and would let go of the socket.
                    conn.restless.set(true);
                }
                handle(conn.clone(), request.map(Incoming::Http1), promise)
            })
        };
        let wire = Wire::http1(io, prefix, conn.wire.clone(), conn.hcm.config.http1.trailers);
        builder(conn).serve_connection(TokioIo::new(wire), service).with_upgrades()
    };
    let end = drive(Pin::new(&mut running), |running| running.graceful_shutdown(), (conn, Served::Http1), clocks).await;
    if end == End::Over {
        return None;
    }
    conn.wire.rest(false);
    let parts = running.into_parts()?;
    if end == End::Late {
        late(conn, parts.io.into_inner().into_inner()).await;
        return None;
    }
    // Copied, also where it is nothing: it would keep the whole read buffer alive.
    Some((parts.io.into_inner().into_inner(), Bytes::copy_from_slice(&parts.read_buf)))
}

/// Answers a head that did not come to its end, which the codec has no words for, and closes.
async fn late(conn: &Rc<Connection>, mut io: Io) {
    const TEXT: &str = "request header timeout";
    /// A client that reads nothing either.
    const PATIENCE: Duration = Duration::from_secs(1);
    let record = RequestRecord::open(conn.scope.clone(), Version::HTTP_11);
    record.details("request_header_timeout");
    let status = StatusCode::REQUEST_TIMEOUT;
    let mut answer = format!(
        "HTTP/1.1 {status}\r\ncontent-length: {}\r\ncontent-type: text/plain\r\ndate: {}\r\n",
        TEXT.len(),
        httpdate::fmt_http_date(SystemTime::now())
    )
    .into_bytes();
    let config = &conn.hcm.config;
    if config.server_header != ServerHeader::PassThrough {
        answer.extend_from_slice(b"server: ");
        answer.extend_from_slice(config.server_name.as_bytes());
        answer.extend_from_slice(b"\r\n");
    }
    answer.extend_from_slice(b"connection: close\r\n\r\n");
    answer.extend_from_slice(TEXT.as_bytes());
    let said = tokio::time::timeout(PATIENCE, async {
        io.write_all(&answer).await?;
        io.shutdown().await
    });
    if !matches!(said.await, Ok(Ok(()))) {
        tracing::debug!("a late client did not hear of it");
    }
    record.response_head(status.as_u16(), &HeaderMap::new());
    record.sent(TEXT.len());
    record.response_complete();
}

fn builder(conn: &Connection) -> http1::Builder {
    let config = &conn.hcm.config;
    let header_bytes = config.max_header_bytes.max(1024) as usize;
    let mut builder = http1::Builder::new();
    builder
        .keep_alive(true)
        // A client that closes its side has left, as Envoy and nginx see it: its request is cancelled.
        .half_close(false)
        .preserve_header_case(config.http1.preserve_case)
        .max_header_size(header_bytes)
        // Of bodies: heads have the limit above.
        .max_buf_size(header_bytes.max(240 * 1024) + 16 * 1024)
        // Timed by `Clocks`: hyper's own timer also runs while a connection merely idles.
        .header_read_timeout(None);
    if config.max_header_count != 100 {
        builder.max_headers(config.max_header_count as usize);
    }
    builder
}

/// Waits without a codec. False: the connection is over.
async fn head_comes(io: &mut Io, conn: &Rc<Connection>, clocks: &mut Clocks) -> bool {
    let stats = conn.scope.stats.local();
    poll_fn(|cx| {
        loop {
            if let Poll::Ready(probe) = io.poll_probe(cx) {
                return Poll::Ready(probe == Probe::Readable);
            }
            match ready!(clocks.poll(cx, conn, Served::Resting)) {
                Due::Cut => {
                    io.reset_on_close();
                    return Poll::Ready(false);
                }
                // A request may be on its way; its response will say it.
                Due::Ending | Due::Old => continue,
                Due::Idle => stats.downstream_cx_idle_timeout.inc(),
                Due::Shutdown => {}
                // Of requests and codecs, and there is neither.
                Due::Head | Due::Stalled(_) | Due::Rest => continue,
            }
            // Everything was written, so there is room for a farewell; if not, the close has to do.
            let _ = Pin::new(&mut *io).poll_shutdown(cx);
            return Poll::Ready(false);
        }
    })
    .await
}
