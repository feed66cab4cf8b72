//! Checks against servers that say exactly what a test tells them to.

use std::{
    convert::Infallible, net::SocketAddr, sync::atomic::AtomicUsize, sync::atomic::Ordering::SeqCst, time::Duration,
};

use hyper::service::service_fn;
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::{
    ir::{cluster::Discovery, endpoint::Address, health_check::StatusRange, matcher::StringMatcher},
    upstream::{Deps, health::state::tests::check, testing},
};

fn target(address: SocketAddr) -> Target {
    let endpoints = vec![testing::endpoint(Address::Ip(address))];
    let config = testing::config("some|cluster", Discovery::Static(testing::assignment(endpoints)));
    let cluster = Cluster::build(Arc::new(config), None, &Deps::default(), None).unwrap();
    let endpoint = cluster.members()[0].endpoint.clone();
    let host = HeaderValue::from_static("some|cluster");
    Target { stats: cluster.check_stats(), cluster, endpoint, detour: Detour::default(), host }
}

/// Serves every connection in a task; counts them.
async fn serve<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> (SocketAddr, Arc<AtomicUsize>)
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let accepted = Arc::<AtomicUsize>::default();
    let count = accepted.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            count.fetch_add(1, SeqCst);
            tokio::spawn(serve(stream));
        }
    });
    (address, accepted)
}

/// An HTTP server of either version.
async fn http_server(
    answer: impl Fn(Request<Incoming>) -> Response<String> + Clone + Send + Sync + 'static,
) -> (SocketAddr, Arc<AtomicUsize>) {
    serve(move |stream| {
        let answer = answer.clone();
        let service = service_fn(move |request| {
            let response = answer(request);
            async move { Ok::<_, Infallible>(response) }
        });
        async move {
            let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
            let _ = builder.serve_connection(TokioIo::new(stream), service).await;
        }
    })
    .await
}

fn http_probe() -> HttpProbe {
    HttpProbe {
        host: "".into(),
        path: "/healthz?x".into(),
        method: Method::GET,
        http2: false,
        send: Vec::new(),
        receive: Vec::new(),
        response_buffer: 1024,
        headers: vec![(HeaderName::from_static("x-check"), HeaderValue::from_static("1"))],
        remove: vec![header::USER_AGENT],
        expected: vec![StatusRange { first: 200, end: 201 }],
        retriable: vec![StatusRange { first: 429, end: 430 }],
        service_name: None,
    }
}

fn http_check(change: impl FnOnce(&mut HttpProbe)) -> HealthCheck {
    let mut probe = http_probe();
    change(&mut probe);
    check(Probe::Http(Box::new(probe)))
}

async fn once(target: &Target, check: &HealthCheck) -> Outcome {
    probe(target, check, &mut Kept::default()).await
}

fn fault(outcome: &Outcome) -> Option<Fault> {
    match outcome {
        Outcome::Passed { .. } => None,
        Outcome::Failed { fault, .. } => Some(*fault),
    }
}

const WELL: Outcome = Outcome::Passed { degraded: false };

#[tokio::test]
async fn an_http_check_asks_as_configured_over_one_connection() {
    for http2 in [false, true] {
        let (address, accepted) = http_server(|request| {
            let host = request.uri().authority().map(ToString::to_string);
            let host = host.or_else(|| Some(request.headers().get("host")?.to_str().ok()?.to_owned())).unwrap();
            assert!(["some|cluster", "some-cluster"].contains(&&*host), "{host}");
            assert_eq!(request.uri().path_and_query().unwrap(), "/healthz?x");
            assert_eq!(request.headers()["x-check"], "1");
            assert!(!request.headers().contains_key("user-agent"));
            Response::new("all is well".to_owned())
        })
        .await;
        let (target, check) = (target(address), http_check(|p| p.http2 = http2));
        let mut kept = Kept::default();
        for _ in 0..3 {
            assert_eq!(probe(&target, &check, &mut kept).await, WELL);
        }
        assert_eq!(accepted.load(SeqCst), 1, "reused");
        let alone = HealthCheck { reuse_connection: false, ..check };
        for _ in 0..2 {
            assert_eq!(once(&target, &alone).await, WELL);
        }
        assert_eq!(accepted.load(SeqCst), 3);
        assert_eq!(target.cluster.breaker(false).used(), [0; 4], "no circuit breaker counts it");
    }
}

#[tokio::test]
async fn the_status_decides() {
    let (address, _) = http_server(|request| {
        let status = request.headers()["x-status"].to_str().unwrap().parse::<u16>().unwrap();
        Response::builder().status(status).header("x-envoy-degraded", "").body(String::new()).unwrap()
    })
    .await;
    let target = target(address);
    for (status, expected) in [("200", None), ("503", Some(Fault::Answer)), ("429", Some(Fault::Retriable))] {
        let check = http_check(|p| p.headers = vec![(HeaderName::from_static("x-status"), status.parse().unwrap())]);
        let outcome = once(&target, &check).await;
        assert_eq!(fault(&outcome), expected, "{status}");
        assert!(status != "200" || outcome == Outcome::Passed { degraded: true });
    }
}

#[tokio::test]
async fn the_body_the_name_and_the_host_itself_have_a_say() {
    let (address, _) = http_server(|request| {
        let builder = Response::builder().header("x-envoy-upstream-healthchecked-cluster", "orders-v1");
        let builder = match request.uri().path() {
            "/enough" => builder.header("x-envoy-immediate-health-check-fail", "true"),
            _ => builder,
        };
        builder.body("one two three".to_owned()).unwrap()
    })
    .await;
    let target = target(address);
    let with = |receive: &[&str], buffer| {
        http_check(|p| {
            p.receive = receive.iter().map(|r| r.as_bytes().to_vec()).collect();
            p.response_buffer = buffer;
        })
    };
    assert_eq!(once(&target, &with(&["one", "three"], 1024)).await, WELL);
    assert_eq!(fault(&once(&target, &with(&["three", "one"], 1024)).await), Some(Fault::Answer), "in order");
    assert_eq!(fault(&once(&target, &with(&["three"], 8)).await), Some(Fault::Answer), "beyond the buffer");
    for (name, expected) in [("orders-v1", None), ("carts", Some(Fault::Answer))] {
        let check = http_check(|p| p.service_name = Some(StringMatcher::exact(name)));
        assert_eq!(fault(&once(&target, &check).await), expected, "{name}");
    }
    let check = http_check(|p| p.path = "/enough".into());
    assert_eq!(fault(&once(&target, &check).await), Some(Fault::Answer));
}

#[tokio::test]
async fn nobody_there_and_nobody_answering_are_failures_of_the_network() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    assert_eq!(fault(&once(&target(closed), &http_check(|_| {})).await), Some(Fault::Network));
    let (silent, _) = serve(|stream| async move {
        let _held = stream;
        std::future::pending::<()>().await;
    })
    .await;
    let check = HealthCheck { timeout: Duration::from_millis(50), ..http_check(|_| {}) };
    assert_eq!(fault(&once(&target(silent), &check).await), Some(Fault::Timeout));
    let mut elsewhere = target(closed);
    let (open, _) = http_server(|_| Response::new(String::new())).await;
    elsewhere.detour.port = Some(open.port());
    assert_eq!(once(&elsewhere, &http_check(|_| {})).await, WELL, "another port for checks");
}

#[tokio::test]
async fn a_tcp_check_sends_and_looks_for_what_comes() {
    let (address, _) = serve(|mut stream| async move {
        let mut asked = [0; 4];
        if stream.read_exact(&mut asked).await.is_ok() && &asked == b"PING" {
            let _ = stream.write_all(b"+PO").await;
            let _ = stream.write_all(b"NG\r\n").await;
        }
    })
    .await;
    let target = target(address);
    let check = |send: &str, receive: &[&str]| {
        let receive = receive.iter().map(|r| r.as_bytes().to_vec()).collect();
        check(Probe::Tcp(TcpProbe { send: send.into(), receive }))
    };
    assert_eq!(once(&target, &check("", &[])).await, WELL, "it connects");
    assert_eq!(once(&target, &check("PING", &["+", "PONG"])).await, WELL);
    assert_eq!(fault(&once(&target, &check("PING", &["-ERR"])).await), Some(Fault::Network));
    assert_eq!(fault(&once(&target, &check("PONG", &["P"])).await), Some(Fault::Network));
}

#[tokio::test]
async fn an_endless_answer_is_not_read_to_its_end() {
    let (address, _) = serve(|mut stream| async move { while stream.write_all(&[b'x'; 4096]).await.is_ok() {} }).await;
    let probe = TcpProbe { send: Vec::new(), receive: vec![b"y".to_vec()] };
    assert_eq!(fault(&once(&target(address), &check(Probe::Tcp(probe))).await), Some(Fault::Answer));
}

#[tokio::test]
async fn a_grpc_check_wants_to_hear_serving() {
    let (address, _) = http_server(|request| {
        assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
        assert_eq!(request.headers()["content-type"], "application/grpc");
        let status = request.headers()["x-serving"].to_str().unwrap();
        let grpc = if status == "12" { "12" } else { "0" };
        let message = format!("\0\0\0\0\u{2}\u{8}{}", char::from(status.parse::<u8>().unwrap()));
        Response::builder().header("grpc-status", grpc).body(message).unwrap()
    })
    .await;
    let target = target(address);
    for (status, expected) in [("1", None), ("2", Some(Fault::Answer)), ("12", Some(Fault::Answer))] {
        let metadata = vec![(HeaderName::from_static("x-serving"), HeaderValue::from_static(status))];
        let probe = GrpcProbe { service: "orders".into(), metadata, ..GrpcProbe::default() };
        assert_eq!(fault(&once(&target, &check(Probe::Grpc(probe))).await), expected, "{status}");
    }
}
