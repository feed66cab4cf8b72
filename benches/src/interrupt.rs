//! Ending in order: an interrupt lets what is under way finish, so that no namespace is left behind.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::bail;
use tokio::signal::unix::{SignalKind, signal};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// From now on SIGINT and SIGTERM end the run after the current step.
pub(crate) fn end_orderly() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::spawn(move || {
        runtime.block_on(async {
            let signals = [SignalKind::interrupt(), SignalKind::terminate()].map(signal);
            let [Ok(mut interrupt), Ok(mut terminate)] = signals else { return };
            let mut next = async || {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
            };
            next().await;
            INTERRUPTED.store(true, Ordering::Relaxed);
            // The second one is not orderly any more: back to the default.
            next().await;
            std::process::exit(130);
        });
    });
    Ok(())
}

/// Whether the operator wants to stop.
pub(crate) fn came() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// Fails when the operator wants to stop.
pub(crate) fn go_on() -> anyhow::Result<()> {
    if came() { bail!("interrupted: the result is not whole") } else { Ok(()) }
}
