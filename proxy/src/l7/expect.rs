//! `Expect: 100-continue` from end to end: the client's body is asked for when the upstream asks for it.
//!
//! The client's expectation is answered at the moment its body is first polled, by hyper or, over HTTP/2, by [`Asked`]:
//! holding the poll back is all it takes. An upstream that never says `100` (many do not) gets the body after a second,
//! as curl does it.

use std::{
    cell::{Cell, RefCell},
    future::Future,
    pin::Pin,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use futures_util::task::AtomicWaker;
use http::{HeaderMap, Request, StatusCode, header};
use tokio::time::Sleep;

use super::http2::Received;

const PATIENCE: Duration = Duration::from_secs(1);

/// Whether the client waits for `100 Continue`.
pub fn is_expected(headers: &HeaderMap) -> bool {
    headers.get(header::EXPECT).is_some_and(|v| v.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

/// Whether anybody wants the body of a client that waits to be asked for it.
#[derive(Debug, Default)]
pub struct Asked {
    asked: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Asked {
    fn ask(&self) {
        if !self.asked.replace(true)
            && let Some(waker) = self.waker.take()
        {
            waker.wake();
        }
    }

    /// Ready when the client is to be told to go on.
    pub fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.asked.get() {
            return Poll::Ready(());
        }
        *self.waker.borrow_mut() = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// The body of such a client.
#[derive(Debug)]
pub struct Awaited {
    body: Received,
    asked: Rc<Asked>,
}

impl Awaited {
    pub fn new(body: Received) -> (Self, Rc<Asked>) {
        let asked = Rc::new(Asked::default());
        (Self { body, asked: asked.clone() }, asked)
    }

    /// The body; to poll it is to ask for it.
    pub fn ask(&mut self) -> Pin<&mut Received> {
        self.asked.ask();
        Pin::new(&mut self.body)
    }

    pub fn body(&self) -> &Received {
        &self.body
    }
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
