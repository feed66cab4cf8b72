//! The application's own metrics, shown with ours: what `prometheus.io/*` annotations ask for in Kubernetes.
//!
//! Asked over loopback at each scrape, bounded in time and size. An application that does not answer costs its part of
//! the answer, never ours, and is counted.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use anyhow::Context as _;
use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::{exposition::Format, http::Call, prometheus::Application};
use crate::{settings::MetricsSettings, telemetry::lines::Lines};

#[cfg(test)]
#[path = "application_tests.rs"]
mod tests;

/// See the module's head.
#[derive(Debug)]
pub(super) struct Scraper {
    address: SocketAddr,
    path: String,
    timeout: Duration,
    limit: usize,
    scrapes: AtomicU64,
    failures: AtomicU64,
}

static LINES: Lines = Lines::new();

impl Scraper {
    /// Where the settings ask for it; `open` are this proxy's own addresses.
    pub(super) fn new(settings: &MetricsSettings, open: &[SocketAddr]) -> anyhow::Result<Option<Self>> {
        if !settings.prometheus_scrape {
            return Ok(None);
        }
        let port = settings.prometheus_port.context("--prometheus-scrape needs --prometheus-port")?;
        anyhow::ensure!(open.iter().all(|own| own.port() != port), "--prometheus-port {port} is this proxy's own port");
        let path = &settings.prometheus_path;
        Ok(Some(Self {
            address: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port),
            path: if path.starts_with('/') { path.clone() } else { format!("/{path}") },
            timeout: Duration::from_millis(settings.prometheus_timeout_ms),
            limit: settings.prometheus_max_bytes,
            scrapes: AtomicU64::new(0),
            failures: AtomicU64::new(0),
        }))
    }

    /// How often it was asked, and how often in vain.
    pub(super) fn counts(&self) -> (u64, u64) {
        (self.scrapes.load(Relaxed), self.failures.load(Relaxed))
    }

    /// What the application says, in a format that the scraper of `call` takes.
    pub(super) async fn scrape(&self, call: &Call) -> Option<Application> {
        self.scrapes.fetch_add(1, Relaxed);
        let asked = tokio::time::timeout(self.timeout, self.ask(Format::accepted(&call.accept))).await;
        match asked.unwrap_or_else(|_| Err("timeout".to_owned())) {
            Ok(application) => Some(application),
            Err(reason) => {
                self.failures.fetch_add(1, Relaxed);
                if LINES.allow() {
                    tracing::warn!(address = %self.address, path = self.path, reason, "no metrics from the application");
                }
                None
            }
        }
    }

    async fn ask(&self, format: Format) -> Result<Application, String> {
        let stream = TcpStream::connect(self.address).await.map_err(|e| e.to_string())?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
        // It ends with the answer, or with the time for it.
        let connection = async move {
            let _ = connection.await;
            std::future::pending::<()>().await
        };
        let accept = match format {
            Format::OpenMetrics => "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5",
            Format::Text => "text/plain;version=0.0.4",
        };
        let request = Request::get(&self.path)
            .header(header::HOST, self.address.to_string())
            .header(header::ACCEPT, accept)
            .header(header::CONNECTION, "close")
            .body(Empty::<Bytes>::new())
            .map_err(|e| e.to_string())?;
        let answer = async {
            let response = sender.send_request(request).await.map_err(|e| e.to_string())?;
            if response.status() != StatusCode::OK {
                return Err(format!("status {}", response.status().as_u16()));
            }
            let kind = response.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
            let answered = Format::of_answer(kind.unwrap_or_default());
            if answered == Format::OpenMetrics && format == Format::Text {
                return Err("OpenMetrics, which the scraper does not take".to_owned());
            }
            let body = Limited::new(response.into_body(), self.limit).collect().await.map_err(|e| e.to_string())?;
            let body = String::from_utf8(body.to_bytes().into()).map_err(|_| "not UTF-8".to_owned())?;
            Ok(Application { format: answered, body })
        };
        tokio::select! {
            answer = answer => answer,
            () = connection => Err("closed".to_owned()),
        }
    }
}
