//! The one who comes: takes listening sockets, and takes over once it is ready.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, bail};
use tokio::{
    net::UnixStream,
    sync::Notify,
    time::{sleep, timeout},
};

use super::{
    Estate, MOST_SOCKETS, Peers, STEP, VERSION,
    wire::{Channel, Message},
};
use crate::{
    admin::{Admin, State},
    app::sockets::Offered,
    net::socket::{self, ListenOptions},
};

/// What a predecessor gave, and the way back to it.
pub(in crate::app) struct Inheritance {
    channel: Channel,
    pub(in crate::app) estate: Estate,
}

impl Inheritance {
    /// Asks whoever serves at `path`. `None`: nobody does. A refusal is an error: two processes must not compete.
    pub(in crate::app) async fn ask(path: &Path, peers: &Peers) -> anyhow::Result<Option<Self>> {
        let stream = match UnixStream::connect(path).await {
            Ok(stream) => stream,
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
                return Ok(None);
            }
            Err(error) => return Err(error).with_context(|| format!("cannot reach {}", path.display())),
        };
        let owner = stream.peer_cred().map_err(|e| e.to_string()).and_then(|peer| peers.same_user(&peer));
        let owner = owner.map_err(|reason| anyhow::anyhow!("{} is not to be trusted: {reason}", path.display()))?;
        let taking =
            async { timeout(STEP, take(Channel::new(stream))).await.context("the running process does not answer")? };
        let taken = taking.await.with_context(|| format!("cannot take over from process {owner}"))?;
        tracing::info!(
            pid = owner,
            epoch = taken.estate.epoch + 1,
            addresses = taken.estate.listeners.len(),
            "taking over"
        );
        Ok(Some(taken))
    }
}

#[cfg(test)]
impl Inheritance {
    pub(super) fn channel(&mut self) -> &mut Channel {
        &mut self.channel
    }
}

async fn take(mut channel: Channel) -> anyhow::Result<Inheritance> {
    let program = concat!("outrigger-proxy ", env!("CARGO_PKG_VERSION")).to_owned();
    // A refusal may be there already, and the other side gone.
    let said = channel.say(&Message::Hello { version: VERSION, program }, &[]).await;
    let (epoch, parts) = match channel.hear().await {
        Ok(Some(Message::Offer { version: VERSION, epoch, parts })) => (epoch, parts),
        Ok(Some(Message::Refused(reason))) => bail!("it refuses: {reason}"),
        Ok(Some(other)) => bail!("it says {other:?}"),
        Ok(None) => bail!("it does not answer"),
        Err(error) => return Err(said.err().unwrap_or(error).into()),
    };
    let mut estate = Estate { epoch, listeners: Vec::new(), servers: Vec::new() };
    let mut total = 0;
    for _ in 0..parts.min(MOST_SOCKETS) {
        match channel.hear().await?.context("it ended")? {
            Message::Listener { address, bound, options, sockets } => {
                total += sockets;
                let sockets = channel.take(sockets)?;
                add(&mut estate.listeners, (address, bound), options, sockets)?;
            }
            Message::Server(address) => {
                total += 1;
                let socket = channel.take(1)?.pop().context("no socket")?;
                estate.servers.push((address, socket));
            }
            other => bail!("it says {other:?}"),
        }
        anyhow::ensure!(total <= MOST_SOCKETS, "it has more sockets than {MOST_SOCKETS}");
    }
    Ok(Inheritance { channel, estate })
}

fn add(
    listeners: &mut Vec<Offered>,
    (address, bound): (SocketAddr, SocketAddr),
    options: ListenOptions,
    sockets: Vec<OwnedFd>,
) -> anyhow::Result<()> {
    let sockets: Vec<TcpListener> = sockets.into_iter().map(TcpListener::from).collect();
    for socket in &sockets {
        anyhow::ensure!(socket::listens_at(socket, bound), "a socket that does not listen at {bound}");
        socket.set_nonblocking(true)?;
    }
    match listeners.iter_mut().find(|known| known.address == address) {
        Some(known) => known.sockets.extend(sockets),
        None => listeners.push(Offered { address, bound, options, sockets }),
    }
    Ok(())
}

/// Waits for its moment.
pub(in crate::app) struct Successor {
    pub(in crate::app) path: PathBuf,
    /// How long it may take to be ready.
    pub(in crate::app) patience: Duration,
    /// How long the predecessor has for its connections.
    pub(in crate::app) drain: Duration,
    /// Told once this process is ready.
    pub(in crate::app) ready: Arc<Notify>,
    pub(in crate::app) admin: Arc<Admin>,
}

impl Successor {
    /// Takes over when the process is ready. `place` takes the place at the path, for the next successor.
    pub(in crate::app) async fn run(
        self,
        Inheritance { mut channel, .. }: Inheritance,
        place: impl FnOnce() -> io::Result<()>,
    ) -> anyhow::Result<()> {
        tokio::select! {
            () = self.ready.notified() => {}
            () = sleep(self.patience) => bail!("not ready for {:?}; the running process goes on", self.patience),
            _ = channel.hear() => {
                // Nobody else serves now: as ready as can be is better than nothing.
                tracing::warn!("the running process ended before this one was ready");
                place().with_context(|| format!("--replace-socket {}", self.path.display()))?;
                return self.admin.serve();
            }
        }
        // Who comes next finds this process, or the predecessor if this fails.
        place().with_context(|| format!("--replace-socket {}", self.path.display()))?;
        let taken = timeout(STEP, async {
            channel.say(&Message::TakeOver { drain: self.drain }, &[]).await?;
            channel.hear().await
        });
        match taken.await {
            Ok(Ok(Some(Message::HandedOver))) => tracing::info!("took over"),
            // It may have ended, or be stuck: this one serves, and two accept from the same queues at worst.
            other => tracing::warn!(?other, "the running process did not confirm"),
        }
        self.admin.serve()?;
        watch(&mut channel, &self.admin.state()).await;
        Ok(())
    }
}

/// Notes what the predecessor still has, until it ends.
async fn watch(channel: &mut Channel, state: &State) {
    while let Ok(Some(message)) = channel.hear().await {
        if let Message::Draining { connections } = message {
            state.set_parent_connections(connections);
        }
    }
    state.set_parent_connections(0);
    tracing::info!("the predecessor has ended");
}
