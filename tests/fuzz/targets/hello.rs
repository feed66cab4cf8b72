//! The first bytes of a connection, read from a socket as they come, and a TLS handshake with whoever sent them.

use std::{cell::RefCell, sync::Arc, time::Duration};

use base64::Engine as _;
use outrigger_proxy::{
    ir::listener::Transport,
    live::LiveChain,
    net::{
        inspect::{InspectError, InspectPlan, inspect},
        sniff::{MAX_BYTES, Verdict, classify},
    },
};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
    runtime::Runtime,
};

use super::fixture;

const CERTIFICATE: &str = include_str!("../../../proxy/src/tls/testdata/ec.crt");
const KEY: &str = include_str!("../../../proxy/src/tls/testdata/ec-sec1.key");

struct Stage {
    runtime: Runtime,
    listener: TcpListener,
    chain: Arc<LiveChain>,
}

thread_local! {
    static STAGE: RefCell<Option<Stage>> = const { RefCell::new(None) };
}

pub(super) fn run(data: &[u8]) {
    if data.len() > 2 * MAX_BYTES {
        return;
    }
    STAGE.with_borrow_mut(|stage| {
        let stage = stage.get_or_insert_with(Stage::new);
        stage.runtime.block_on(exchange(&stage.listener, &stage.chain, data));
    });
}

async fn exchange(listener: &TcpListener, chain: &LiveChain, data: &[u8]) {
    let address = listener.local_addr().expect("it is bound");
    let (client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
    let (mut client, (server, _)) = (client.expect("a connection"), accepted.expect("a connection"));
    // Neither end waits for the other one in the kernel.
    client.set_zero_linger().expect("a socket's option");
    let plan = InspectPlan { tls: true, http: true, timeout: Some(Duration::from_secs(10)), max_bytes: MAX_BYTES };
    let half = data.len() / 2;
    let speak = async {
        for part in [&data[..half], &data[half..]] {
            // It may have been told to go.
            let _ = client.write_all(part).await;
            tokio::task::yield_now().await;
        }
        let _ = client.shutdown().await;
        client
    };
    let serve = async {
        let found = match inspect(server, &plan, std::future::pending::<()>).await {
            Ok(found) => found,
            Err(InspectError::TooLarge(_)) => return assert!(data.len() >= MAX_BYTES),
            Err(InspectError::Io(_)) => return,
        };
        assert!(!found.timed_out && !found.server_first);
        match classify(data) {
            Verdict::NeedMore => assert!(found.eof || data.is_empty(), "decided on too little"),
            Verdict::Tls(hello) => {
                assert_eq!(
                    (found.transport, &found.server_name, &found.alpn),
                    (Transport::Tls, &hello.sni, &hello.alpn)
                );
            }
            Verdict::Http1 { .. } | Verdict::Http2 => assert_eq!(found.alpn.len(), 1),
            Verdict::Other => assert!(found.server_name.is_none() && found.alpn.is_empty()),
        }
        let tls = chain.tls.as_ref().expect("the chain ends TLS");
        let done = tls.accept(found.plain, Duration::from_secs(10)).await;
        assert!(done.is_err(), "a handshake without the client's half of it");
    };
    let _ = tokio::join!(speak, serve);
}

impl Stage {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a port");
        Self { runtime, listener, chain: chain() }
    }
}

/// A filter chain that asks clients for a certificate of an authority, which is its own.
pub(super) fn chain() -> Arc<LiveChain> {
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let yaml = include_str!("../tls.yaml").replace("$certificate", &quoted(CERTIFICATE)).replace("$key", &quoted(KEY));
    fixture::live(&yaml).listener("tls").expect("the fixture has it").chains[0].clone()
}

/// Whether it is the certificate of the fixture itself.
pub(super) fn is_own(der: &[u8]) -> bool {
    let body: String = CERTIFICATE.lines().filter(|line| !line.starts_with('-')).collect();
    base64::engine::general_purpose::STANDARD.decode(body).is_ok_and(|own| own == der)
}
