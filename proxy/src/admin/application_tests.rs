use clap::Parser as _;
use http::Method;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use super::*;
use crate::{admin::exposition::Type, settings::Settings};

const OPEN_METRICS: &str = "application/openmetrics-text;version=1.0.0,*/*;q=0.1";

/// An application that answers every request with `answer`, and what it is asked.
async fn application(answer: &'static str) -> (u16, tokio::task::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let task = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut asked = Vec::new();
        while !asked.ends_with(b"\r\n\r\n") {
            asked.push(stream.read_u8().await.unwrap());
        }
        let _ = stream.write_all(answer.as_bytes()).await;
        String::from_utf8(asked).unwrap().to_ascii_lowercase()
    });
    (port, task)
}

fn scraper(port: u16, more: &[&str]) -> Scraper {
    let port = port.to_string();
    let flags = ["outrigger-proxy", "-c", "x", "--prometheus-scrape", "--prometheus-port", &port];
    Scraper::new(&Settings::parse_from(flags.iter().chain(more)).metrics, &[]).unwrap().unwrap()
}

fn call(accept: &str) -> Call {
    Call { method: Method::GET, path: "/metrics".into(), query: Vec::new(), accept: accept.into(), html: false }
}

#[tokio::test]
async fn the_application_is_asked_for_what_the_scraper_takes() {
    let answer =
        "HTTP/1.1 200 OK\r\ncontent-type: application/openmetrics-text; version=1.0.0\r\n\r\na_total 1\n# EOF\n";
    let (port, asked) = application(answer).await;
    let found = scraper(port, &["--prometheus-path", "own"]).scrape(&call(OPEN_METRICS), Instant::now()).await.unwrap();
    assert_eq!((found.format, &*found.body), (Format::OpenMetrics, "a_total 1\n# EOF\n"));
    let asked = asked.await.unwrap();
    assert!(
        asked.starts_with("get /own http/1.1\r\n") && asked.contains("accept: application/openmetrics-text"),
        "{asked}"
    );
    // To who takes plain text only it is of no use.
    let (port, asked) = application(answer).await;
    let scraper = scraper(port, &[]);
    assert!(scraper.scrape(&call("text/plain"), Instant::now()).await.is_none());
    assert!(asked.await.unwrap().contains("accept: text/plain"));
    assert_eq!(scraper.counts(), (1, 1));
}

#[tokio::test]
async fn whatever_is_wrong_with_it_is_counted() {
    for answer in [
        "HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n123456789",
        "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nshort",
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n\u{7f}",
        "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 4\r\n\r\na 1\n",
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}",
        "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 7\r\n\r\na 1\nb x",
        "what is this",
        "",
    ] {
        let (port, asked) = application(answer).await;
        let scraper = scraper(port, &["--prometheus-max-bytes", "8"]);
        let found = scraper.scrape(&call(""), Instant::now()).await;
        assert!(found.is_none(), "{answer}: {found:?}");
        assert_eq!(scraper.counts(), (1, 1), "{answer}");
        asked.await.unwrap();
    }
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    assert!(scraper(nobody, &[]).scrape(&call(""), Instant::now()).await.is_none());
}

#[tokio::test]
async fn an_application_that_does_not_answer_is_not_waited_for() {
    // It takes the connection, in its queue, and that is all.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let scraper = scraper(listener.local_addr().unwrap().port(), &["--prometheus-timeout-ms", "20"]);
    assert!(scraper.scrape(&call(""), Instant::now()).await.is_none());
    assert_eq!(scraper.counts(), (1, 1));
}

#[tokio::test]
async fn scrapes_that_come_while_it_is_asked_share_the_answer() {
    let answer = "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\na_total 1\n";
    let (port, asked) = application(answer).await;
    let scraper = scraper(port, &[]);
    let came = Instant::now();
    let first = scraper.scrape(&call(""), came).await.unwrap();
    assert!(Arc::ptr_eq(&first, &scraper.scrape(&call(""), came).await.unwrap()));
    assert_eq!(scraper.counts(), (1, 0));
    asked.await.unwrap();
    assert!(scraper.scrape(&call(""), Instant::now()).await.is_none(), "it is asked again, and is gone");
    assert_eq!(scraper.counts(), (2, 1));
}

#[test]
fn what_is_ours_stays_ours() {
    let body =
        "# TYPE envoy_x counter\nenvoy_x 7\n# a comment\n\n# TYPE own gauge\nown 1\nenvoy_h_bucket{le=\"1\"} 1\n";
    let application = Application::new(Format::Text, body.to_owned()).unwrap();
    let mut text = String::new();
    let mut out = |piece: Bytes| {
        text.push_str(std::str::from_utf8(&piece).unwrap());
        true
    };
    let mut exposition = Exposition::new(Format::Text, &mut out);
    exposition.family("envoy_x", Type::Counter, "Help.");
    exposition.family("envoy_h", Type::Histogram, "Help.");
    application.write(&mut exposition);
    assert!(exposition.finish());
    assert!(text.ends_with("# TYPE envoy_h histogram\n# TYPE own gauge\nown 1\n"), "{text}");
}

#[test]
fn nobody_asks_himself() {
    let settings =
        Settings::parse_from(["outrigger-proxy", "-c", "x", "--prometheus-scrape", "--prometheus-port", "15020"]);
    assert!(Scraper::new(&settings.metrics, &["[::]:15020".parse().unwrap()]).is_err());
    let without = Settings::parse_from(["outrigger-proxy", "-c", "x", "--prometheus-scrape"]);
    assert!(Scraper::new(&without.metrics, &[]).is_err(), "a port is needed");
    let nothing = Settings::parse_from(["outrigger-proxy", "-c", "x"]);
    assert!(Scraper::new(&nothing.metrics, &[]).unwrap().is_none());
}
