//! Runs a codec to its end, or until it may be given up.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Instant,
};

use http::{HeaderMap, StatusCode, Version};

use super::{
    Connection,
    clocks::{Clocks, Due, Served},
};
use crate::telemetry::{exchange::RequestRecord, flags::Flags};

/// What became of a codec.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The connection is over.
    Over,
    /// A head did not come to its end in time.
    Late,
    /// The codec was between two requests and let go of the connection, which lives on.
    Resting,
}

/// Runs a codec with all the clocks on it.
pub(super) async fn drive<F: Future<Output = hyper::Result<()>>>(
    mut running: Pin<&mut F>,
    shutdown: impl Fn(Pin<&mut F>),
    (conn, served): (&Rc<Connection>, Served),
    clocks: &mut Clocks,
) -> End {
    let stats = conn.scope.stats.local();
    let mut turn = |cx: &mut Context<'_>| {
        loop {
            if let Poll::Ready(result) = running.as_mut().poll(cx) {
                if let Err(error) = result {
                    note_error(conn, &error);
                }
                return Poll::Ready(End::Over);
            }
            let Poll::Ready(due) = clocks.poll(cx, conn, served) else { return Poll::Pending };
            match due {
                Due::Cut => {
                    conn.wire.abort();
                    return Poll::Ready(End::Over);
                }
                // HTTP/2 says it at once. On HTTP/1 the next response does.
                Due::Ending | Due::Old if served != Served::Http2 => continue,
                Due::Ending | Due::Old | Due::Shutdown => {}
                Due::Head => {
                    stats.downstream_rq_header_timeout.inc();
                    return Poll::Ready(if conn.wire.is_quiet() { End::Late } else { End::Over });
                }
                Due::Stalled(flow) => {
                    // The client reads nothing, so hyper does not poll the body whose timer would end this.
                    flow.expire(Instant::now(), None);
                    conn.wire.abort();
                    return Poll::Ready(End::Over);
                }
                Due::Idle => stats.downstream_cx_idle_timeout.inc(),
                Due::Rest => {
                    // Told to shut down, hyper ends here and now if it is between two requests, and only then.
                    conn.wire.rest(true);
                    shutdown(running.as_mut());
                    match running.as_mut().poll(cx) {
                        Poll::Ready(Ok(())) => return Poll::Ready(End::Resting),
                        Poll::Ready(Err(error)) => {
                            note_error(conn, &error);
                            return Poll::Ready(End::Over);
                        }
                        // It holds more than can be seen from here: it answers that and closes.
                        Poll::Pending => conn.wire.rest(false),
                    }
                    clocks.shut(conn);
                    continue;
                }
            }
            clocks.shut(conn);
            shutdown(running.as_mut());
        }
    };
    poll_fn(|cx| conn.turn(cx, &mut turn)).await
}

fn note_error(conn: &Connection, error: &hyper::Error) {
    tracing::debug!(%error, "downstream connection ended with an error");
    if error.is_parse() || error.is_parse_too_large() || conn.wire.refused() {
        let stats = conn.scope.stats.local();
        stats.downstream_cx_protocol_error.inc();
        // hyper answered it: it is a request like any other to whoever reads the log.
        let record = RequestRecord::open(conn.scope.clone(), Version::HTTP_11);
        record.flag(Flags::DOWNSTREAM_PROTOCOL_ERROR);
        let status = if error.is_parse_too_large() {
            stats.downstream_rq_too_large.inc();
            record.details("request_headers_too_large");
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE
        } else {
            record.details("http1.codec_error");
            StatusCode::BAD_REQUEST
        };
        record.response_head(status.as_u16(), &HeaderMap::new());
        record.response_complete();
    }
    if error.is_user() {
        // A response was cut off: the close must not look like its end.
        conn.wire.abort();
    }
}
