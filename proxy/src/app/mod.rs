//! The only composition root: settings and bootstrap in, a running proxy out.
//!
//! The calling thread becomes the control thread: xDS, identity, DNS, admin, signals and drain run on its own runtime,
//! and nothing it does delays a request. Workers are started here and told what to listen on.

mod application;
#[cfg(test)]
mod balancing_tests;
mod control;
mod ending;
mod export;
#[cfg(test)]
mod idle_tests;
#[cfg(test)]
mod keys_tests;
#[cfg(test)]
mod limits_tests;
mod logging;
mod memory;
mod overload;
#[cfg(test)]
mod policy_tests;
mod reload;
mod replace;
mod report;
mod retiring;
#[cfg(test)]
mod revoked_tests;
mod shutdown;
#[cfg(test)]
mod silent_tests;
mod sockets;
#[cfg(test)]
mod streams_tests;
mod succession;
mod supervise;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod transport;

pub use self::memory::Allocator;

use std::{net::SocketAddr, process::ExitCode, sync::Arc};

use outrigger_wire::pb::envoy::config::core::v3::Node;

use crate::{
    bootstrap::{self, Bootstrap},
    ir::{Name, snapshot::Snapshot},
    live::{self, Builder, Publisher},
    policy::debug::DebugKeys,
    settings::{self, Mode, Settings, XDS_CLUSTER},
    telemetry::{access_log::Sinks, mesh::Workload, metrics, registry::Registry, trace::Tracers},
    tls::{Secrets, files::FileWatcher},
    upstream::{
        Deps,
        lb::{Callers, Place},
    },
    worker::{self, Shared},
    xds::{self, decode::Notes},
};

/// How long the end of the process waits for access log lines to be written.
const FLUSH_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(2);

/// A configuration that cannot be used.
const EXIT_CONFIG: u8 = 64;

/// Runs the program and says how it ended.
pub fn main(settings: Settings) -> ExitCode {
    let log = match logging::init(&settings.log_level, settings.log_json) {
        Ok(log) => log,
        Err(reason) => {
            eprintln!("outrigger-proxy: --log-level: {reason}");
            return ExitCode::from(2);
        }
    };
    if let (true, Some(socket)) = (settings.replace.supervise, &settings.replace.replace_socket) {
        return supervise::run(socket);
    }
    for flag in settings.ignored.given() {
        tracing::warn!(flag, "this Envoy flag has no effect here");
    }
    let (bootstrap, notes) = match load(&settings, settings.mode != Mode::Serve) {
        Ok(loaded) => loaded,
        Err(reason) => {
            eprintln!("outrigger-proxy: {reason}");
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    if settings.mode != Mode::Serve {
        notes.iter().for_each(|note| println!("{note}"));
        println!("configuration OK");
        return ExitCode::SUCCESS;
    }
    notes.iter().for_each(|note| tracing::warn!("{note}"));
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("outrigger-proxy: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run(settings, bootstrap, log)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Reads the bootstrap, from the file or made from the settings, and checks that what is static in it can be built.
///
/// `files`: also whether the files that it names can be read. A proxy that starts waits for them instead.
fn load(settings: &Settings, files: bool) -> Result<(Bootstrap, Notes), String> {
    let overlay = settings.config_yaml.as_deref();
    let (text, origin) = match &settings.config_path {
        Some(path) => {
            let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
            (text, path.display().to_string())
        }
        None if settings.xds_address.is_none() && overlay.is_some() => (String::new(), "--config-yaml".to_owned()),
        None => (settings.made_bootstrap()?.to_string(), "the settings".to_owned()),
    };
    if files {
        bootstrap::validate(&text, overlay).map_err(|e| format!("{origin}: {e}"))?;
    }
    let (mut bootstrap, notes) = bootstrap::load(text, overlay).map_err(|e| format!("{origin}: {e}"))?;
    if let Some(problem) = check(&bootstrap).first() {
        return Err(format!("{origin}: {}: {}", problem.resource, problem.reason));
    }
    let node = &mut bootstrap.node;
    let fill = |field: &mut String, value: &Option<String>| {
        if let (true, Some(value)) = (field.is_empty(), value) {
            field.clone_from(value);
        }
    };
    fill(&mut node.id, &settings.service_node);
    fill(&mut node.cluster, &settings.service_cluster);
    if settings.service_zone.is_some() {
        fill(&mut node.locality.get_or_insert_default().zone, &settings.service_zone);
    }
    Ok((bootstrap, notes))
}

/// Builds the static resources once: what cannot work at all is an error before anything is served.
fn check(bootstrap: &Bootstrap) -> Vec<live::Problem> {
    let secrets = Arc::new(Secrets::default());
    bootstrap.secrets.iter().for_each(|(name, secret)| secrets.set(name.clone(), secret.clone()));
    let statics = Snapshot {
        listeners: bootstrap.listeners.iter().map(|l| (l.name.clone(), l.clone())).collect(),
        clusters: bootstrap.clusters.iter().map(|c| (c.name.clone(), c.clone())).collect(),
        ..Snapshot::default()
    };
    live::check(&statics, &secrets)
}

/// Who calls together with this proxy, as zone-aware routing counts them.
fn callers(node: &Node, local_cluster: Option<Name>) -> Callers {
    let place = node.locality.clone().unwrap_or_default();
    let place = Place { region: place.region.into(), zone: place.zone.into(), sub_zone: place.sub_zone.into() };
    let mut callers = Callers::new(local_cluster, place);
    callers.service_cluster = node.cluster.as_str().into();
    callers
}

async fn run(settings: Settings, bootstrap: Bootstrap, log: logging::Handle) -> anyhow::Result<()> {
    // Before all else: as the first process of a container it would not hear a signal that nobody waits for.
    let (shutdown, asked) = shutdown::channel()?;
    raise_open_files();
    let debug = debug_keys(&settings)?;
    let debug_keys = debug.clone();
    let mut inheritance = inheritance(&settings.replace).await?;
    let workers = settings.workers();
    metrics::set_shards(workers + 1);
    let publisher = Arc::new(Publisher::default());
    let shared = Shared::new(publisher.clone(), bootstrap.max_downstream_connections)
        .giving_back(memory::give_back)
        .bounding_requests(settings.lifecycle.max_requests);
    let shared = Arc::new(shared);
    let secrets = Arc::new(Secrets::default());
    let registry = Arc::new(Registry::default());
    let node = bootstrap.node.metadata.as_ref().map(xds::decode::metadata::object).unwrap_or_default();
    registry.mesh.init(Workload::of_node(&node), settings.metrics.bounds());
    let sinks = Sinks::start()?;
    let handles = worker::spawn_all(workers, &shared)?;

    let transport = transport::ClusterTransport::new(publisher.clone(), settings.spiffe_endpoint_socket.clone());
    let subscription = xds::start(start_config(&settings, &bootstrap), Arc::new(transport));
    let held = sockets::Held::of(&settings.lifecycle);
    let mut sockets = sockets::Sockets::new(handles);
    if settings.replace.replace_socket.is_some() {
        sockets = sockets.keeping();
    }
    let epoch = inheritance.as_ref().map_or(0, |i| i.estate.epoch + 1);
    let (inherited, servers) = inheritance.as_mut().map(|i| i.estate.take()).unwrap_or_default();
    sockets.inherit(inherited);
    // Before the first configuration: who connects now waits in the kernel instead of being refused.
    capture_addresses(&settings).into_iter().for_each(|address| sockets.reserve(address, held));
    let context = crate::admin::Context {
        settings: settings.clone(),
        address: settings.admin_address.map(bootstrap::AdminAddress::Tcp).or(bootstrap.admin.clone().map(|admin| {
            if !admin.access_log.is_empty() {
                tracing::warn!("admin.access_log: requests to the admin interface are not logged");
            }
            admin.address
        })),
        node: bootstrap.node.clone(),
        publisher: publisher.clone(),
        shared: shared.clone(),
        registry: registry.clone(),
        secrets: secrets.clone(),
        sinks: sinks.clone(),
        subscription: subscription.clone(),
        set_log_level: Box::new(move |level| log.set(level)),
        shutdown: shutdown.clone(),
        workers,
    };
    let admin = Arc::new(crate::admin::prepare(context, servers)?);
    admin.state().set_epoch(epoch);

    tokio::spawn(FileWatcher::new(secrets.clone()).run());
    tracing::info!(workers, node = %bootstrap.node.id, version = env!("CARGO_PKG_VERSION"), "starting");
    let upstream =
        Deps { secrets: secrets.clone(), callers: Arc::new(callers(&bootstrap.node, bootstrap.local_cluster.clone())) };
    let tracers = Arc::new(Tracers::new(bootstrap.tracing.clone(), registry.spans.clone()));
    let (stop_exporting, stopped) = tokio::sync::watch::channel(false);
    // What exports is bound to this thread, as connections are to theirs.
    let local = tokio::task::LocalSet::new();
    let exporting = local.spawn_local(export::run(tracers.clone(), publisher, stopped));
    let builder = Builder { secrets, registry, sinks: sinks.clone(), tracers, upstream, debug };
    let times = control::Times {
        end: ending::Times { total: settings.lifecycle.drain_time(), accepting: settings.lifecycle.min_drain_time() },
        chain_drain: settings.lifecycle.chain_drain_time(),
        // What is inherited is served by the predecessor until then.
        hold: settings.lifecycle.hold_time().filter(|_| inheritance.is_none()),
    };
    let application = application::Application::new(&settings.lifecycle.exit_when);
    let limits = overload::Sources::find(settings.lifecycle.overload_memory);
    let overload = overload::Overload::new(settings.lifecycle.overload_percent, limits);
    let supervisor = settings.replace.supervisor();
    let succession = succession::start(&settings.replace, inheritance, &admin, &shared, (epoch, shutdown))?;
    let reload = reload::Reload {
        settings,
        running: bootstrap,
        subscription: subscription.clone(),
        state: admin.state(),
        debug: debug_keys,
    };
    let beside =
        control::Beside { application, overload, reload: reload.start(), handover: succession.handover, supervisor };
    let configuration = subscription.clone();
    let control = control::Control::new(builder, subscription, sockets, admin.state(), shared, times, beside);
    let workers = local.run_until(control.run(asked)).await;
    workers.iter().for_each(|worker| worker.send(worker::Command::Stop));
    // The threads are joined off the runtime: a worker may be in the middle of a request.
    tokio::task::spawn_blocking(move || workers.into_iter().for_each(worker::Handle::join)).await?;
    // Whoever asked for the end is still to get an answer.
    admin.stop().await;
    // Spans of the last requests wait for their batch.
    let _ = stop_exporting.send(true);
    if tokio::time::timeout(FLUSH_TIMEOUT, local.run_until(exporting)).await.is_err() {
        tracing::warn!("not all spans could be exported before the end");
    }
    local.run_until(configuration.flush(FLUSH_TIMEOUT)).await;
    // Lines are still on their way to the writer.
    tokio::task::spawn_blocking(move || sinks.flush(FLUSH_TIMEOUT)).await?;
    tracing::info!("stopped");
    succession.failure.get().map_or(Ok(()), |reason| Err(anyhow::anyhow!("{reason}")))
}

/// What a running process gives, if there is one to be replaced.
async fn inheritance(settings: &settings::Replace) -> anyhow::Result<Option<replace::Inheritance>> {
    let Some(path) = &settings.replace_socket else { return Ok(None) };
    replace::Inheritance::ask(path, &replace::Peers::new(&settings.replace_allow_exe)).await
}

/// The keys of requests that are told what was decided on them.
fn debug_keys(settings: &Settings) -> anyhow::Result<Option<Arc<DebugKeys>>> {
    let Some(path) = &settings.debug_key_file else { return Ok(None) };
    let text = std::fs::read(path).map_err(|e| anyhow::anyhow!("--debug-key-file {}: {e}", path.display()))?;
    let keys = DebugKeys::new(&text).map_err(|e| anyhow::anyhow!("--debug-key-file {}: {e}", path.display()))?;
    Ok(Some(Arc::new(keys)))
}

fn start_config(settings: &Settings, bootstrap: &Bootstrap) -> xds::StartConfig {
    // Without a file the token both opens the xDS stream and gets the certificate; with one, the operator says so.
    let made = settings.config_path.is_none();
    let ca_cluster =
        settings.ca_cluster.clone().or_else(|| (made && settings.token_file.is_some()).then(|| XDS_CLUSTER.to_owned()));
    let ads = bootstrap.dynamic.ads.as_ref().map(|ads| xds::AdsConfig {
        cluster: ads.cluster.clone(),
        delta: ads.delta,
        metadata: ads.metadata.clone(),
        authority: ads.authority.clone(),
    });
    let mut grpc = xds::GrpcOptions::default();
    if let Some(timeout) = bootstrap.dynamic.ads.as_ref().and_then(|ads| ads.timeout) {
        grpc.connect_timeout = timeout;
    }
    // Pings as the control plane's own cluster asks for them.
    let control_plane = ads.as_ref().and_then(|ads| bootstrap.clusters.iter().find(|c| c.name == ads.cluster));
    if let Some((interval, cluster)) = control_plane.and_then(|c| Some((c.http.http2.keepalive_interval?, c))) {
        grpc.keepalive = Some(interval);
        grpc.keepalive_timeout = cluster.http.http2.keepalive_timeout;
    }
    if let (Some(path), Some(ads)) = (&settings.token_file, &ads) {
        grpc.token = Some(xds::TokenFile { path: path.clone(), clusters: vec![ads.cluster.clone()] });
    }
    xds::StartConfig {
        node: bootstrap.node.clone(),
        ads,
        lds: bootstrap.dynamic.lds.clone(),
        cds: bootstrap.dynamic.cds.clone(),
        statics: reload::statics(bootstrap),
        upstream_bind: bootstrap.upstream_bind.clone(),
        bootstrap: Some(bootstrap.packed.clone()),
        identity: ca_cluster.map(|cluster| xds::IdentityConfig {
            ca_cluster: cluster.as_str().into(),
            token_file: settings.token_file.clone(),
            root_file: settings.xds_root_cert.clone(),
            spiffe_id: None,
            ttl: std::time::Duration::from_secs(settings.cert_ttl_s),
            metadata: Vec::new(),
        }),
        workload_api: settings.spiffe_endpoint_socket.is_some(),
        grpc,
        warming: xds::Warming::default(),
        saved: settings.lifecycle.state_dir.clone().map(|dir| xds::SavedConfig {
            dir,
            max_age: settings.lifecycle.state_max_age(),
            patience: settings.lifecycle.state_patience(),
        }),
    }
}

/// The capture ports of a proxy that has no file of its own, in both families.
fn capture_addresses(settings: &Settings) -> Vec<SocketAddr> {
    if settings.config_path.is_some() || settings.xds_address.is_none() {
        return Vec::new();
    }
    let ports = [settings.outbound_port, settings.inbound_port].into_iter().filter(|port| *port != 0);
    ports.flat_map(|port| [SocketAddr::from(([0u8; 4], port)), SocketAddr::from(([0u16; 8], port))]).collect()
}

/// Two descriptors a connection: the soft limit of 1024 is far too low for a proxy. The hard limit is the operator's.
fn raise_open_files() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let raised =
        getrlimit(Resource::RLIMIT_NOFILE).and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
}
