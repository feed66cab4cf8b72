//! Who asked the process to end: SIGTERM, SIGINT, `/quitquitquit`, `/drain_listeners`.

use tokio::sync::mpsc;

use crate::admin::Request;

pub(super) fn channel() -> (mpsc::UnboundedSender<Request>, mpsc::UnboundedReceiver<Request>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    tokio::spawn(signals(sender.clone()));
    (sender, receiver)
}

/// Turns signals into requests: the first SIGTERM or SIGINT drains, the second cuts.
async fn signals(requests: mpsc::UnboundedSender<Request>) {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut term), Ok(mut int), Ok(mut hup)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()), signal(SignalKind::hangup()))
    else {
        tracing::error!("cannot handle signals");
        return;
    };
    let mut asked = false;
    loop {
        tokio::select! {
            _ = hup.recv() => {
                let _ = requests.send(Request::ReopenLogs);
                continue;
            }
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        let _ = requests.send(if asked { Request::Cut } else { Request::Stop });
        asked = true;
    }
}
