use std::{net::TcpListener, sync::Arc};

use tokio::sync::mpsc;

use super::{wire::Message, *};
use crate::{live::Publisher, net::socket::ListenOptions, worker::Shared};

/// One who serves at a path, without a control loop: the test answers.
struct Rig {
    dir: tempfile::TempDir,
    asks: mpsc::UnboundedReceiver<Ask>,
}

impl Rig {
    fn start(peers: Peers) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (asks, asked) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared::new(Arc::new(Publisher::default()), None));
        let predecessor = Predecessor::listen(dir.path().join("socket"), peers, asks, shared).unwrap();
        tokio::spawn(predecessor.run());
        Self { dir, asks: asked }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("socket")
    }

    /// Answers one who asks with a listening socket.
    async fn give(&mut self, sockets: &[TcpListener]) {
        let Some(Ask::Offer(reply)) = self.asks.recv().await else { panic!("no offer was asked for") };
        let bound = sockets[0].local_addr().unwrap();
        let options = ListenOptions { reuse_port: true, ..ListenOptions::default() };
        let sockets = sockets.iter().map(|s| s.try_clone().unwrap()).collect();
        let listeners = vec![Offered { address: bound, bound, options, sockets }];
        assert!(reply.send(Ok(Estate { epoch: 4, listeners, servers: Vec::new() })).is_ok());
    }
}

fn own() -> Peers {
    Peers::new(&[])
}

async fn refusal(path: &Path) -> String {
    match Inheritance::ask(path, &own()).await {
        Err(error) => format!("{error:#}"),
        Ok(taken) => panic!("not refused: {}", taken.is_some()),
    }
}

#[tokio::test]
async fn sockets_change_hands_and_one_successor_at_a_time_takes_over() {
    let mut rig = Rig::start(own());
    assert_eq!(fs::metadata(rig.path()).unwrap().permissions().mode() & 0o777, 0o600);
    // More than one message may carry.
    let first = TcpListener::bind("127.0.0.1:0").unwrap();
    let sockets: Vec<_> = (0..300).map(|_| first.try_clone().unwrap()).collect();
    let path = rig.path();
    let asking = tokio::spawn(async move { Inheritance::ask(&path, &own()).await });
    rig.give(&sockets).await;
    let inheritance = asking.await.unwrap().unwrap().unwrap();
    assert_eq!((inheritance.estate.epoch, inheritance.estate.listeners.len()), (4, 1));
    let offered = &inheritance.estate.listeners[0];
    assert_eq!((offered.sockets.len(), offered.bound), (300, first.local_addr().unwrap()));
    assert!(refusal(&rig.path()).await.contains("another process is taking over"));
    // Gone before it was ready: nothing happened, and the next one gets its chance.
    drop(inheritance);
    assert!(matches!(rig.asks.recv().await, Some(Ask::Withdrawn)));
    let path = rig.path();
    let asking = tokio::spawn(async move {
        loop {
            // Until the first one's end is noticed throughout.
            if let Ok(taken) = Inheritance::ask(&path, &own()).await {
                return taken;
            }
            tokio::task::yield_now().await;
        }
    });
    rig.give(&sockets[..1]).await;
    let Some(mut inheritance) = asking.await.unwrap() else { panic!("nobody there") };
    let drain = Duration::from_secs(77);
    inheritance.channel().say(&Message::TakeOver { drain }, &[]).await.unwrap();
    let Some(Ask::TakeOver { drain: told, done }) = rig.asks.recv().await else { panic!("it was to take over") };
    assert_eq!(told, drain);
    done.send(()).unwrap();
    assert_eq!(inheritance.channel().hear().await.unwrap(), Some(Message::HandedOver));
    assert_eq!(inheritance.channel().hear().await.unwrap(), Some(Message::Draining { connections: 0 }));
}

#[tokio::test]
async fn a_place_that_a_failed_successor_took_is_taken_back() {
    let mut rig = Rig::start(own());
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let path = rig.path();
    let asking = tokio::spawn(async move { Inheritance::ask(&path, &own()).await });
    rig.give(std::slice::from_ref(&socket)).await;
    let inheritance = asking.await.unwrap().unwrap();
    let taken = listen(&rig.path()).unwrap();
    drop((taken, inheritance));
    assert!(matches!(rig.asks.recv().await, Some(Ask::Withdrawn)));
    let path = rig.path();
    let asking = tokio::spawn(async move {
        loop {
            if let Ok(Some(taken)) = Inheritance::ask(&path, &own()).await {
                return taken;
            }
            tokio::task::yield_now().await;
        }
    });
    rig.give(std::slice::from_ref(&socket)).await;
    assert_eq!(asking.await.unwrap().estate.listeners.len(), 1);
}

#[tokio::test]
async fn whoever_may_not_gets_nothing() {
    let rig = Rig::start(Peers::none());
    assert!(refusal(&rig.path()).await.contains("--replace-allow-exe"));
    let nobody = rig.dir.path().join("nobody");
    assert!(Inheritance::ask(&nobody, &own()).await.unwrap().is_none(), "an ordinary start");
    let stale = rig.dir.path().join("stale");
    drop(std::os::unix::net::UnixListener::bind(&stale).unwrap());
    assert!(Inheritance::ask(&stale, &own()).await.unwrap().is_none());
    // Only a socket is replaced.
    fs::write(&nobody, "precious").unwrap();
    assert_eq!(listen(&nobody).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    assert!(Inheritance::ask(&nobody, &own()).await.is_ok_and(|taken| taken.is_none()));
    assert_eq!(fs::read_to_string(&nobody).unwrap(), "precious");
}

#[tokio::test]
async fn another_version_is_refused() {
    let rig = Rig::start(own());
    let stream = tokio::net::UnixStream::connect(rig.path()).await.unwrap();
    let mut channel = wire::Channel::new(stream);
    channel.say(&Message::Hello { version: VERSION + 1, program: "next".into() }, &[]).await.unwrap();
    let Some(Message::Refused(reason)) = channel.hear().await.unwrap() else { panic!("not refused") };
    assert_eq!(reason, "next speaks version 2, not 1");
}
