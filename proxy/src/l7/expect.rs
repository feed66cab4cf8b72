//! `Expect: 100-continue` from end to end: the client's body is asked for when the upstream asks for it.
//!
//! hyper answers the client's expectation at the moment its body is first polled, so holding the poll back is all it
//! takes. An upstream that never says `100` (many do not) gets the body after a second, as curl does it.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures_util::task::AtomicWaker;
use http::{HeaderMap, Request, StatusCode, header};
use tokio::time::Sleep;

const PATIENCE: Duration = Duration::from_secs(1);

/// Whether the client waits for `100 Continue`.
pub fn is_expected(headers: &HeaderMap) -> bool {
    headers.get(header::EXPECT).is_some_and(|v| v.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

#[derive(Default)]
struct Shared {
    open: AtomicBool,
    waker: AtomicWaker,
}

/// Closed until the upstream wants the body.
pub struct Gate {
    shared: Arc<Shared>,
    patience: Pin<Box<Sleep>>,
}

/// Opens a gate; an extension of the request, for a client codec to find.
#[derive(Clone)]
pub struct Opener(Arc<Shared>);

impl Opener {
    /// The upstream said `100 Continue`.
    pub fn open(&self) {
        self.0.open.store(true, Ordering::Release);
        self.0.waker.wake();
    }
}

/// Attaches a gate to a request about to be sent.
pub fn gate<B>(request: &mut Request<B>) -> Gate {
    let shared = Arc::new(Shared::default());
    let opener = Opener(shared.clone());
    request.extensions_mut().insert(opener.clone());
    hyper::ext::on_informational(request, move |response| {
        if response.status() == StatusCode::CONTINUE {
            opener.open();
        }
    });
    Gate { shared, patience: Box::pin(tokio::time::sleep(PATIENCE)) }
}

impl Gate {
    pub(super) fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.shared.waker.register(cx.waker());
        if self.shared.open.load(Ordering::Acquire) {
            return Poll::Ready(());
        }
        self.patience.as_mut().poll(cx)
    }
}
