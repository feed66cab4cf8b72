//! `outrigger-control serve`: puts directory, keys, server and status together.

use std::{
    io::Write,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
};
use tokio_util::sync::CancellationToken;

use super::{limits::LimitArguments, parse::duration};
use crate::{
    auth::{Identity, token::Tokens},
    ca::{Authority, ROOT_CERT},
    model,
    server::{Addresses, Options, Server, Trust},
    state::StateDir,
    status::Status,
    translate,
    watch::{DirectoryWatch, Load, Loaded},
};

/// Shorter certificates would be renewed more often than they can be spread.
const MIN_CERT_TTL: Duration = Duration::from_secs(10);
/// Longer than the root lives is never meant.
const MAX_CERT_TTL: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// Notes logged of one load.
const MAX_NOTES: usize = 100;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Args)]
pub struct Arguments {
    /// Directory of YAML and JSON documents to serve.
    #[arg(long, env = "OUTRIGGER_CONFIG", value_name = "DIR")]
    config: PathBuf,
    /// Directory for the root key, the root certificate and the token key; created with mode 0700.
    #[arg(long, env = "OUTRIGGER_STATE", value_name = "DIR")]
    state: PathBuf,
    /// Plaintext xDS: no encryption, for tests and loopback.
    #[arg(long, env = "OUTRIGGER_XDS_ADDRESS", default_value = "127.0.0.1:15010", value_name = "IP:PORT")]
    xds_address: SocketAddr,
    /// xDS and certificate requests over TLS, authenticated by bearer token or client certificate.
    #[arg(long, env = "OUTRIGGER_XDS_TLS_ADDRESS", default_value = "0.0.0.0:15012", value_name = "IP:PORT")]
    xds_tls_address: SocketAddr,
    /// /status, /metrics and /ready over HTTP.
    #[arg(long, env = "OUTRIGGER_STATUS_ADDRESS", default_value = "127.0.0.1:15014", value_name = "IP:PORT")]
    status_address: SocketAddr,
    /// First part of every identity: spiffe://TRUST_DOMAIN/ns/NAMESPACE/sa/SERVICE_ACCOUNT.
    #[arg(long, env = "OUTRIGGER_TRUST_DOMAIN", default_value = "cluster.local")]
    trust_domain: String,
    /// Longest life of a workload's certificate.
    #[arg(long, env = "OUTRIGGER_CERT_TTL", default_value = "24h", value_parser = duration)]
    cert_ttl: Duration,
    /// Further names and addresses in the server's own certificate.
    #[arg(long, env = "OUTRIGGER_TLS_SAN", value_delimiter = ',', value_name = "NAME|IP")]
    tls_san: Vec<String>,
    /// Believe the namespace and service account a plaintext client claims and give it that identity's key. For tests.
    #[arg(long, env = "OUTRIGGER_INSECURE_PLAINTEXT_IDENTITY")]
    insecure_plaintext_identity: bool,
    /// Connections at once, on each xDS port.
    #[arg(long, env = "OUTRIGGER_MAX_CONNECTIONS", default_value_t = 8192)]
    max_connections: usize,
    /// Of these, from one address (for IPv6 one /64).
    #[arg(long, env = "OUTRIGGER_MAX_CONNECTIONS_PER_ADDRESS", default_value_t = 2048)]
    max_connections_per_address: usize,
    /// ADS streams at once, in all.
    #[arg(long, env = "OUTRIGGER_MAX_STREAMS", default_value_t = 8192)]
    max_streams: usize,
    /// Of these, of one identity: of all Pods with one service account.
    #[arg(long, env = "OUTRIGGER_MAX_STREAMS_PER_IDENTITY", default_value_t = 4096)]
    max_streams_per_identity: usize,
    #[command(flatten)]
    limits: LimitArguments,
    /// Write the bound addresses to this file as JSON, once everything listens.
    #[arg(long, env = "OUTRIGGER_PORTS_FILE", value_name = "FILE")]
    ports_file: Option<PathBuf>,
    /// What to log: error, warn, info, debug, trace, or per module (`info,outrigger_control::server=debug`).
    #[arg(long, env = "OUTRIGGER_LOG", default_value = "info,notify=error")]
    log: String,
    #[arg(long, env = "OUTRIGGER_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
}

/// Runs the server until SIGTERM or SIGINT.
pub fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    log(&arguments)?;
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?
        .block_on(serve(arguments))
}

async fn serve(arguments: Arguments) -> anyhow::Result<ExitCode> {
    // Signals first: one that comes during start must end the start.
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT")?;
    check(&arguments)?;

    let state = StateDir::open(&arguments.state).context("state directory")?;
    let authority = Authority::open(&state, &arguments.trust_domain, arguments.cert_ttl).context("root of trust")?;
    let tokens = Tokens::open(&state, &arguments.trust_domain).context("token key")?;
    tracing::info!(root = %state.file(ROOT_CERT).display(), "give this certificate to those who must trust the mesh");
    let trust = Trust { authority: Arc::new(authority), tokens: Arc::new(tokens) };

    let rate_limits = arguments.limits.service()?;
    let status = Arc::new(Status::default());
    let (publisher, worlds) = watch::channel(None);
    let (rescan, asked) = mpsc::channel(16);
    let options = Options {
        xds: arguments.xds_address,
        xds_tls: arguments.xds_tls_address,
        status: arguments.status_address,
        trust_domain: arguments.trust_domain.clone(),
        tls_sans: arguments.tls_san.clone(),
        plaintext_identity: arguments.insecure_plaintext_identity,
        max_connections: arguments.max_connections,
        max_connections_per_address: arguments.max_connections_per_address,
        max_streams: arguments.max_streams,
        max_streams_per_identity: arguments.max_streams_per_identity,
        rate_limits: Arc::clone(&rate_limits),
    };
    let server = Server::bind(options, trust, worlds, Arc::clone(&status), rescan).await?;
    let addresses = server.addresses()?;
    tracing::info!(xds = %addresses.xds, xds_tls = %addresses.xds_tls, status = %addresses.status, "listening");
    if let Some(file) = &arguments.ports_file {
        write_ports(file, &addresses).with_context(|| format!("cannot write {}", file.display()))?;
    }

    let shutdown = CancellationToken::new();
    let watch = DirectoryWatch::new(&arguments.config, loader(settings(&arguments)), publisher, status)
        .context("configuration directory")?;
    let watching = tokio::spawn(watch.run(asked, shutdown.clone()));
    tokio::spawn(arguments.limits.clone().watch(rate_limits, shutdown.clone()));
    let stop = shutdown.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => tracing::info!("SIGTERM: shutting down"),
            _ = interrupt.recv() => tracing::info!("SIGINT: shutting down"),
        }
        stop.cancel();
    });
    let served = server.run(shutdown.clone()).await;
    shutdown.cancel();
    let _ = watching.await;
    served?;
    tracing::info!("stopped");
    Ok(ExitCode::SUCCESS)
}

/// Loads with the model, generates with the translation.
fn settings(arguments: &Arguments) -> model::Settings {
    let mut settings = model::Settings { trust_domain: arguments.trust_domain.clone(), ..model::Settings::default() };
    let endpoints = arguments.limits.endpoints();
    if !endpoints.is_empty() {
        settings.limit_service = endpoints;
    }
    settings
}

fn loader(settings: model::Settings) -> Arc<Load> {
    let told = Mutex::new(Vec::new());
    Arc::new(move |dir: &Path| {
        let world = model::load_with(dir, settings.clone())?;
        tell(&world.notes, &mut told.lock().unwrap_or_else(PoisonError::into_inner));
        let (limits, empty) = (translate::limits(&world), world.documents == 0);
        let generate = Box::new(move |node: &crate::resources::Node| translate::translate(&world, node));
        Ok(Loaded { generate, limits, empty })
    })
}

/// Logs what is noted and was not noted at the last load.
fn tell(notes: &[String], told: &mut Vec<String>) {
    let new = || notes.iter().filter(|note| !told.contains(note));
    for note in new().take(MAX_NOTES) {
        tracing::warn!(note, "configuration");
    }
    let more = new().count().saturating_sub(MAX_NOTES);
    if more > 0 {
        tracing::warn!(more, "further notes: see `outriggerctl validate`");
    }
    notes.clone_into(told);
}

fn check(arguments: &Arguments) -> anyhow::Result<()> {
    Identity::new(&arguments.trust_domain, "default", "default")?;
    if !(MIN_CERT_TTL..=MAX_CERT_TTL).contains(&arguments.cert_ttl) {
        bail!("--cert-ttl must be between 10s and 10 years");
    }
    let insecure = arguments.insecure_plaintext_identity;
    if insecure {
        tracing::warn!("--insecure-plaintext-identity: whoever reaches {} gets any identity", arguments.xds_address);
    }
    if !arguments.xds_address.ip().is_loopback() {
        if insecure {
            bail!("--insecure-plaintext-identity is refused while --xds-address is not a loopback address");
        }
        tracing::warn!("--xds-address {} shows the configuration to the network", arguments.xds_address);
    }
    Ok(())
}

/// Written whole and renamed, so that whoever waits for the file reads all of it.
fn write_ports(file: &Path, addresses: &Addresses) -> anyhow::Result<()> {
    let mut temporary = file.as_os_str().to_owned();
    temporary.push(format!(".{}", std::process::id()));
    let mut out = std::fs::File::create(&temporary)?;
    serde_json::to_writer(&mut out, addresses)?;
    out.write_all(b"\n")?;
    std::fs::rename(&temporary, file)?;
    Ok(())
}

fn log(arguments: &Arguments) -> anyhow::Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_new(&arguments.log).context("--log")?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let outcome = match arguments.log_format {
        LogFormat::Text => builder.with_ansi(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    outcome.map_err(|e| anyhow::anyhow!("cannot start logging: {e}"))
}
