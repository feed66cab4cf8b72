//! Requests that ask with a signed header what was decided on them.

use std::{sync::Arc, time::SystemTime};

use serde_json::Value;

use super::{
    faults::{OK, chain},
    peer::header,
    support::{pair, run},
};
use crate::{
    ir::{
        http::FilterKind,
        rbac::{Action, Engine, Policies, Rbac},
    },
    policy::debug::{DebugKeys, Signed},
};

const REQUEST: Signed<'_> = Signed { method: "GET", host: "x", path: "/p" };

fn key() -> Arc<DebugKeys> {
    Arc::new(DebugKeys::new(b"a key of enough bytes").unwrap())
}

fn signed() -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    key().sign(now + 60, &REQUEST)
}

fn trace(head: &str) -> Option<Value> {
    header(head, "x-outrigger-trace").map(|text| serde_json::from_str(text).unwrap())
}

#[test]
fn who_asks_with_a_signature_is_told_what_was_decided() {
    run(async {
        let (proxy, upstream) = pair(|s| {
            (s.debug, s.unlogged) = (Some(key()), true);
        })
        .await;
        let mut client = proxy.connect().await;
        let asked = signed();
        client.send(&format!("GET /p HTTP/1.1\r\nHost: x\r\nX-Outrigger-Debug: {asked}\r\n\r\n")).await;
        let mut server = upstream.accept().await;
        let head = server.head().await;
        assert_eq!(header(&head, "x-outrigger-debug"), None, "whoever had it could ask as well");
        // Nor is it believed what it was not asked for.
        server.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Outrigger-Trace: forged\r\n\r\nok").await;
        let head = client.head().await;
        let told = trace(&head).expect("it is told");
        assert_eq!(told["outcome"]["cluster"], "up");
        assert_eq!(told["route"]["name"], "the-route");
        assert_eq!((&told["happened"]["status"], &told["happened"]["cluster"]), (&200.into(), &"up".into()));
        let host = told["happened"]["host"].as_str().unwrap();
        assert_eq!(told["forwarding"]["endpoints"]["hosts"][0]["address"], host);
        assert_eq!(client.exactly(2).await, "ok");
        assert_eq!(proxy.stats.local().downstream_rq_total.get(), 1, "explaining is no request");
        // Whoever does not ask is told nothing.
        client.send("GET /p HTTP/1.1\r\nHost: x\r\n\r\n").await;
        server.head().await;
        server.send(OK).await;
        assert_eq!(trace(&client.head().await), None);
    });
}

#[test]
fn who_has_no_key_passes_nothing_on() {
    run(async {
        let (proxy, upstream) = pair(|_| ()).await;
        let mut client = proxy.connect().await;
        client.send(&format!("GET /p HTTP/1.1\r\nHost: x\r\nX-Outrigger-Debug: {}\r\n\r\n", signed())).await;
        let mut server = upstream.accept().await;
        assert_eq!(header(&server.head().await, "x-outrigger-debug"), None);
        server.send(OK).await;
        assert_eq!(trace(&client.head().await), None);
    });
}

#[test]
fn forged_headers_go_nowhere() {
    run(async {
        let (proxy, upstream) = pair(|s| s.debug = Some(key())).await;
        let elsewhere = key().sign(u64::MAX, &Signed { path: "/q", ..REQUEST });
        let forged = DebugKeys::new(b"another key of enough bytes").unwrap().sign(u64::MAX, &REQUEST);
        let mut client = proxy.connect().await;
        let mut server = None;
        for value in [forged.as_str(), &elsewhere, "", "v1;99999999999;00", "1"] {
            client.send(&format!("GET /p HTTP/1.1\r\nHost: x\r\nX-Outrigger-Debug: {value}\r\n\r\n")).await;
            if server.is_none() {
                server = Some(upstream.accept().await);
            }
            let server = server.as_mut().unwrap();
            assert_eq!(header(&server.head().await, "x-outrigger-debug"), None, "{value}");
            server.send(OK).await;
            assert_eq!(trace(&client.head().await), None, "{value}");
            client.exactly(2).await;
        }
    });
}

#[test]
fn a_denial_is_told_with_its_policy() {
    run(async {
        let nobody = Engine::Policies(Policies { action: Action::Allow, ..Policies::default() });
        let rbac = Rbac { rules: Some(nobody), ..Rbac::default() };
        let (proxy, _upstream) = pair(|s| {
            s.debug = Some(key());
            chain(s, [("guard", FilterKind::Rbac(Arc::new(rbac)))]);
        })
        .await;
        let mut client = proxy.connect().await;
        client.send(&format!("GET /p HTTP/1.1\r\nHost: x\r\nX-Outrigger-Debug: {}\r\n\r\n", signed())).await;
        let head = client.head().await;
        assert!(head.starts_with("HTTP/1.1 403"), "{head}");
        let told = trace(&head).expect("it is told");
        assert_eq!(told["filters"][0]["authorization"], "denied");
        assert_eq!(told["outcome"]["details"], told["happened"]["details"]);
    });
}
