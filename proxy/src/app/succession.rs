//! Starts what makes this process a successor, and later a predecessor.

use std::sync::{Arc, OnceLock};

use tokio::sync::{Notify, mpsc};

use super::{
    control::Handover,
    replace::{Inheritance, Peers, Predecessor, Successor},
};
use crate::{
    admin::{Admin, Request},
    settings::Replace,
    worker::Shared,
};

pub(super) struct Succession {
    /// For the control loop; `None` where nothing ever changes hands.
    pub(super) handover: Option<Handover>,
    /// Why this process could not take over.
    pub(super) failure: Arc<OnceLock<String>>,
}

/// Serves the admin interface: at once, or when a predecessor stops doing so. `epoch` is the number of processes before
/// this one; `end` ends this one if it cannot take over.
pub(super) fn start(
    settings: &Replace,
    inheritance: Option<Inheritance>,
    admin: &Arc<Admin>,
    shared: &Arc<Shared>,
    (epoch, end): (u64, mpsc::UnboundedSender<Request>),
) -> anyhow::Result<Succession> {
    let failure = Arc::new(OnceLock::new());
    let Some(path) = settings.replace_socket.clone() else {
        admin.serve()?;
        return Ok(Succession { handover: None, failure });
    };
    let (ask, asks) = mpsc::unbounded_channel();
    let ready = Arc::new(Notify::new());
    let handover = Handover { asks, admin: admin.clone(), epoch, ready: ready.clone() };
    let peers = Peers::new(&settings.replace_allow_exe);
    let (place, shared) = (path.clone(), shared.clone());
    let take_place = move || -> std::io::Result<()> {
        tokio::spawn(Predecessor::listen(place, peers, ask, shared)?.run());
        Ok(())
    };
    let Some(inheritance) = inheritance else {
        take_place().map_err(|e| anyhow::anyhow!("--replace-socket {}: {e}", path.display()))?;
        admin.serve()?;
        return Ok(Succession { handover: Some(handover), failure });
    };
    let successor = Successor {
        path,
        patience: settings.patience(),
        drain: settings.parent_shutdown_time(),
        ready,
        admin: admin.clone(),
    };
    let failed = failure.clone();
    tokio::spawn(async move {
        if let Err(error) = successor.run(inheritance, take_place).await {
            let _ = failed.set(format!("cannot take over: {error:#}"));
            let _ = end.send(Request::Cut);
        }
    });
    Ok(Succession { handover: Some(handover), failure })
}
