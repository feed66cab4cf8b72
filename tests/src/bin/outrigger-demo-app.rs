//! The application of the demo and the tests: it knows nothing of any mesh.
//!
//! `outrigger-demo-app http ADDRESS NAME VERSION` answers every request with JSON about itself and what it saw;
//! `outrigger-demo-app greet ADDRESS TEXT` is a server that speaks first, then echoes.

use std::convert::Infallible;

use bytes::Bytes;
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncWriteExt, copy},
    net::TcpListener,
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["http", address, name, version] => http(TcpListener::bind(address).await?, name, version).await,
        ["greet", address, text] => greet(TcpListener::bind(address).await?, text).await,
        _ => anyhow::bail!("usage: outrigger-demo-app http ADDRESS NAME VERSION | greet ADDRESS TEXT"),
    }
}

async fn http(listener: TcpListener, name: &str, version: &str) -> anyhow::Result<()> {
    let (name, version) = (name.to_owned(), version.to_owned());
    loop {
        let (stream, peer) = listener.accept().await?;
        let (name, version) = (name.clone(), version.clone());
        tokio::spawn(async move {
            let service = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
                let header = |key: &str| request.headers().get(key).and_then(|v| v.to_str().ok()).unwrap_or("-");
                let body = serde_json::json!({
                    "service": name,
                    "version": version,
                    "method": request.method().as_str(),
                    "path": request.uri().path(),
                    "host": header("host"),
                    "peer": peer.ip().to_string(),
                    "client_identity": header("x-forwarded-client-cert"),
                });
                let response = http::Response::builder()
                    .header("content-type", "application/json")
                    .body(Full::new(Bytes::from(format!("{body}\n"))));
                async move { Ok::<_, Infallible>(response.expect("static headers are valid")) }
            });
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn greet(listener: TcpListener, text: &str) -> anyhow::Result<()> {
    loop {
        let (mut stream, _) = listener.accept().await?;
        let greeting = format!("{text}\r\n");
        tokio::spawn(async move {
            if stream.write_all(greeting.as_bytes()).await.is_ok() {
                let (mut read, mut write) = stream.split();
                let _ = copy(&mut read, &mut write).await;
            }
        });
    }
}
