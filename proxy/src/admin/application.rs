//! The application's own metrics, shown with ours: what `prometheus.io/*` annotations ask for in Kubernetes.
//!
//! Asked over loopback at each scrape, bounded in time and size; scrapes that come while it is asked share the answer.
//! What the application answers is not believed: what is no metrics costs its part of the answer, never ours, and is
//! counted. Invariant: every line of it that is shown can be read by scrapers, and is of no family of ours.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use anyhow::Context as _;
use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::{
    exposition::{Exposition, Format},
    foreign::lines,
    http::Call,
};
use crate::{settings::MetricsSettings, telemetry::lines::Lines};

#[cfg(test)]
#[path = "application_tests.rs"]
mod tests;

/// What the application answered to a scrape of ours.
#[derive(Debug)]
pub(super) struct Application {
    pub(super) format: Format,
    body: String,
}

impl Application {
    /// If all of it can be read.
    fn new(format: Format, body: String) -> Result<Self, String> {
        let unread = lines(&body, format).find_map(Result::err);
        match unread {
            None => Ok(Self { format, body }),
            Some(line) => Err(format!("line {line} is no metric")),
        }
    }

    /// Adds it, but what would be taken for ours.
    pub(super) fn write(&self, exposition: &mut Exposition<'_>) {
        for line in lines(&self.body, self.format).map_while(Result::ok) {
            if !exposition.is_wanted() {
                return;
            }
            if !exposition.has(line.name) {
                exposition.line(line.text);
            }
        }
    }
}

/// When it was asked, in which format, and what came of it.
type Last = (Instant, Format, Option<Arc<Application>>);

/// See the module's head.
#[derive(Debug)]
pub(super) struct Scraper {
    address: SocketAddr,
    path: String,
    timeout: Duration,
    limit: usize,
    scrapes: AtomicU64,
    failures: AtomicU64,
    last: Mutex<Option<Last>>,
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
            last: Mutex::default(),
        }))
    }

    /// How often it was asked, and how often in vain.
    pub(super) fn counts(&self) -> (u64, u64) {
        (self.scrapes.load(Relaxed), self.failures.load(Relaxed))
    }

    /// What the application says, in a format that the scraper of `call` takes; what it was asked for after that came is
    /// good enough.
    pub(super) async fn scrape(&self, call: &Call, came: Instant) -> Option<Arc<Application>> {
        let format = Format::accepted(&call.accept);
        let last = || self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((asked, of, found)) = &*last()
            && *asked >= came
            && *of == format
        {
            return found.clone();
        }
        let asked = Instant::now();
        let found = self.found(format).await.map(Arc::new);
        *last() = Some((asked, format, found.clone()));
        found
    }

    async fn found(&self, format: Format) -> Option<Application> {
        self.scrapes.fetch_add(1, Relaxed);
        let asked = tokio::time::timeout(self.timeout, self.ask(format)).await;
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
            let kind = response.headers().get(header::CONTENT_TYPE).map(|kind| kind.to_str().unwrap_or("?"));
            let answered = Format::of_answer(kind).ok_or("no content-type of metrics")?;
            if answered == Format::OpenMetrics && format == Format::Text {
                return Err("OpenMetrics, which the scraper does not take".to_owned());
            }
            let body = Limited::new(response.into_body(), self.limit).collect().await.map_err(|e| e.to_string())?;
            let body = String::from_utf8(body.to_bytes().into()).map_err(|_| "not UTF-8".to_owned())?;
            Application::new(answered, body)
        };
        tokio::select! {
            answer = answer => answer,
            () = connection => Err("closed".to_owned()),
        }
    }
}
