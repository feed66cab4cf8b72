//! The one who serves: answers a successor, one at a time.

use std::{
    io,
    os::{fd::AsFd, unix::fs::MetadataExt},
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::{
    net::{UnixListener, UnixStream},
    sync::{Notify, Semaphore, mpsc, oneshot},
    time::{sleep, timeout},
};

use super::{
    Ask, Estate, Peers, STEP, VERSION, listen,
    wire::{Channel, Message},
};
use crate::{net::socket::MOST_PASSED, worker::Shared};

/// How often a successor hears how many connections are left.
const REPORT: Duration = Duration::from_secs(1);

/// Where successors come to.
pub(in crate::app) struct Predecessor {
    path: PathBuf,
    peers: Peers,
    asks: mpsc::UnboundedSender<Ask>,
    shared: Arc<Shared>,
    listener: (UnixListener, u64),
}

impl Predecessor {
    /// Takes the place at `path`.
    pub(in crate::app) fn listen(
        path: PathBuf,
        peers: Peers,
        asks: mpsc::UnboundedSender<Ask>,
        shared: Arc<Shared>,
    ) -> io::Result<Self> {
        let listener = listen(&path)?;
        Ok(Self { path, peers, asks, shared, listener })
    }

    /// Answers until the end.
    pub(in crate::app) async fn run(mut self) {
        let one = Arc::new(Semaphore::new(1));
        let withdrawn = Arc::new(Notify::new());
        loop {
            let stream = tokio::select! {
                accepted = self.listener.0.accept() => match accepted {
                    Ok((stream, _)) => stream,
                    Err(error) => {
                        tracing::warn!(%error, "cannot hear of a successor");
                        sleep(REPORT).await;
                        continue;
                    }
                },
                () = withdrawn.notified() => {
                    self.come_back();
                    continue;
                }
            };
            let pid = match self.peers.check(&stream) {
                Ok(pid) => pid,
                Err(reason) => {
                    tracing::warn!(reason, "somebody who may not asks for the listening sockets");
                    refuse(stream, reason);
                    continue;
                }
            };
            let Ok(permit) = one.clone().try_acquire_owned() else {
                refuse(stream, "another process is taking over already".to_owned());
                continue;
            };
            let (asks, shared, withdrawn) = (self.asks.clone(), self.shared.clone(), withdrawn.clone());
            tokio::spawn(async move {
                let mut channel = Channel::new(stream);
                match hand_over(&mut channel, &asks, pid).await {
                    Ok(true) => report(&mut channel, &shared, pid).await,
                    Ok(false) => {}
                    Err(error) => {
                        tracing::warn!(pid, %error, "a successor did not take over; this process goes on");
                        let _ = asks.send(Ask::Withdrawn);
                        withdrawn.notify_one();
                    }
                }
                drop(permit);
            });
        }
    }

    /// A successor that took the place and did not take over leaves it empty.
    fn come_back(&mut self) {
        if std::fs::symlink_metadata(&self.path).is_ok_and(|file| file.ino() == self.listener.1) {
            return;
        }
        match listen(&self.path) {
            Ok(listener) => self.listener = listener,
            Err(error) => tracing::error!(path = %self.path.display(), %error, "no successor can reach this process"),
        }
    }
}

fn refuse(stream: UnixStream, reason: String) {
    // It has not said anything so far, so there is room.
    if let Err(error) = Channel::new(stream).try_say(&Message::Refused(reason)) {
        tracing::debug!(%error, "it does not hear why");
    }
}

fn ended() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "it ended")
}

async fn soon<T>(step: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(STEP, step).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// True once the successor serves; false if it got nothing.
async fn hand_over(channel: &mut Channel, asks: &mpsc::UnboundedSender<Ask>, pid: u32) -> io::Result<bool> {
    let Some(first) = soon(channel.hear()).await? else { return Ok(false) };
    let estate = match first {
        Message::Hello { version: VERSION, .. } => {
            let (reply, answer) = oneshot::channel();
            let _ = asks.send(Ask::Offer(reply));
            answer.await.unwrap_or_else(|_| Err("this process ends".to_owned()))
        }
        Message::Hello { version, program } => Err(format!("{program} speaks version {version}, not {VERSION}")),
        _ => Err("it does not say hello".to_owned()),
    };
    let estate = match estate {
        Ok(estate) => estate,
        Err(reason) => {
            tracing::warn!(pid, reason, "a successor is refused");
            soon(channel.say(&Message::Refused(reason), &[])).await?;
            return Ok(false);
        }
    };
    tracing::info!(pid, addresses = estate.listeners.len(), "a successor gets the listening sockets");
    offer(channel, estate).await?;
    // It takes what time it needs; its end is heard of.
    let drain = match channel.hear().await? {
        Some(Message::TakeOver { drain }) => drain,
        Some(_) => return Err(io::Error::new(io::ErrorKind::InvalidData, "it says something else")),
        None => return Err(ended()),
    };
    let (done, stopped) = oneshot::channel();
    let _ = asks.send(Ask::TakeOver { drain, done });
    let _ = stopped.await;
    tracing::info!(pid, ?drain, "a successor has taken over; draining");
    // From here on there is no way back, whether or not it still hears.
    let _ = soon(channel.say(&Message::HandedOver, &[])).await;
    Ok(true)
}

async fn offer(channel: &mut Channel, estate: Estate) -> io::Result<()> {
    let batches = |count: usize| count.div_ceil(MOST_PASSED);
    let parts = estate.listeners.iter().map(|l| batches(l.sockets.len())).sum::<usize>() + estate.servers.len();
    soon(channel.say(&Message::Offer { version: VERSION, epoch: estate.epoch, parts }, &[])).await?;
    for offered in &estate.listeners {
        for batch in offered.sockets.chunks(MOST_PASSED) {
            let message = Message::Listener {
                address: offered.address,
                bound: offered.bound,
                options: offered.options,
                sockets: batch.len(),
            };
            let sockets: Vec<_> = batch.iter().map(AsFd::as_fd).collect();
            soon(channel.say(&message, &sockets)).await?;
        }
    }
    for (address, socket) in &estate.servers {
        soon(channel.say(&Message::Server(address.clone()), &[socket.as_fd()])).await?;
    }
    Ok(())
}

/// Tells the successor what is left here, until one of both ends.
async fn report(channel: &mut Channel, shared: &Shared, pid: u32) {
    loop {
        let connections = shared.connections.load(Ordering::Relaxed);
        if soon(channel.say(&Message::Draining { connections }, &[])).await.is_err() {
            tracing::warn!(pid, "the successor is gone");
            return;
        }
        sleep(REPORT).await;
    }
}
