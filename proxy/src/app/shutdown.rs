//! Who asked the process to end: SIGTERM, SIGINT, `/quitquitquit`, `/drain_listeners`.

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};

use crate::admin::Request;

/// From here on signals are requests: SIGTERM and SIGINT drain at first and cut when they come again, SIGHUP reads
/// the bootstrap file again and reopens the access logs.
pub(super) fn channel() -> std::io::Result<(mpsc::UnboundedSender<Request>, mpsc::UnboundedReceiver<Request>)> {
    let (sender, receiver) = mpsc::unbounded_channel();
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    let mut hup = signal(SignalKind::hangup())?;
    let requests = sender.clone();
    tokio::spawn(async move {
        loop {
            let request = tokio::select! {
                _ = term.recv() => Request::Signal,
                _ = int.recv() => Request::Signal,
                _ = hup.recv() => Request::Reload,
            };
            if requests.send(request).is_err() {
                return;
            }
        }
    });
    Ok((sender, receiver))
}
