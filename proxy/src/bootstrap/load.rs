//! From text to a checked bootstrap.

use std::{borrow::Cow, collections::HashSet, hash::Hash, sync::Arc};

use outrigger_wire::{
    json,
    packed::Packed,
    pb::envoy::config::{
        bootstrap::v3::{Bootstrap as Pb, ClusterManager},
        core::v3::{Node, TypedExtensionConfig, node::UserAgentVersionType},
    },
};
use prost::Message;

use super::{Bootstrap, BootstrapError, admin, dynamic, files, references, runtime, statics, statics::Statics};
use crate::{
    ir::{Name, cluster::Bind, cluster::Cluster, listener::Listener, secret::Secret},
    xds::decode::{
        Notes, Reject, address,
        at::{At, rooted},
        cluster, extension,
        fields::fields,
        listener,
        scalar::not_empty,
        secret, tracing,
    },
};

const USER_AGENT: &str = "outrigger";
/// What the control plane may rely on.
const CLIENT_FEATURES: &[&str] = &["xds.config.resource-in-sotw"];

/// Full name of the message.
const NAME: &str = "envoy.config.bootstrap.v3.Bootstrap";

/// Reads a bootstrap. `overlay` (`--config-yaml`) is merged over it as protobuf merges: scalars replace, lists append.
///
/// A text that is given away is freed before it is decoded.
pub fn load<'a>(text: impl Into<Cow<'a, str>>, overlay: Option<&str>) -> Result<(Bootstrap, Notes), BootstrapError> {
    let encoded = encode(&text.into(), overlay)?;
    let mut notes = Notes::default();
    let decoded = rooted(NAME, "", &mut notes, |at| decode(&encoded, at))?;
    Ok((decoded, notes))
}

fn encode(text: &str, overlay: Option<&str>) -> Result<Vec<u8>, BootstrapError> {
    let mut encoded = match (text.trim().is_empty(), overlay) {
        (true, Some(_)) => Vec::new(),
        _ => json::read_bytes(NAME, text)?,
    };
    if let Some(overlay) = overlay {
        // Messages are merged by the concatenation of their encodings.
        encoded.extend(json::read_bytes(NAME, overlay)?);
        let merged = Pb::decode(encoded.as_slice());
        let invalid = |e: prost::DecodeError| json::Error::Invalid { message: "overlay".into(), reason: e.to_string() };
        encoded = merged.map_err(invalid)?.encode_to_vec();
    }
    Ok(encoded)
}

/// What `--mode validate` prints about a bootstrap that is usable; an error means it is not. Unlike [`load`] it also looks
/// whether the files that the bootstrap names can be read.
pub fn validate(text: &str, overlay: Option<&str>) -> Result<Notes, BootstrapError> {
    let (bootstrap, notes) = load(text, overlay)?;
    files::readable(&bootstrap)?;
    Ok(notes)
}

fn decode(encoded: &[u8], at: &At<'_>) -> Result<Bootstrap, Reject> {
    let (message, statics) = Statics::of(encoded).map_err(|e| at.reject(e.to_string()))?;
    fields!(at, &message => Pb {
        read: [
            node, static_resources, dynamic_resources, cluster_manager, layered_runtime, admin, overload_manager,
            bootstrap_extensions, stats_sinks, tracing,
        ],
        harmless: [
            flags_path, deferred_stat_options, stats_config, stats_flush_interval, watchdog, watchdogs,
            enable_dispatcher_stats, stats_server_version_override, inline_headers, perf_tracing_file_path,
            default_regex_engine, listener_manager, grpc_async_client_manager_config, memory_allocator_manager,
            enable_worker_cpu_affinity, stats_flush, stats_eviction, fatal_actions, node_context_params,
        ],
        unsupported: [
            hds_config, header_prefix, use_tcp_for_dns_lookups, dns_resolution_config,
            typed_dns_resolver_config, config_sources, default_config_source, default_socket_interface,
            certificate_provider_instances, xds_config_tracker_extension, application_log_config,
        ],
        refuse: [xds_delegate_extension],
    });
    for (i, sink) in message.stats_sinks.iter().enumerate() {
        at.index("stats_sinks", i).unsupported(format!("{}: statistics are pulled, not pushed", sink.name));
    }
    extensions(&message.bootstrap_extensions, at)?;
    let upstream_bind = manager(&message.cluster_manager, at)?;
    let runtime = runtime::layers(&message.layered_runtime, at)?;
    let overload = runtime::overload(&message.overload_manager, at)?;

    let inner = at.field("static_resources");
    let listeners = statics::each(&inner, "listeners", &statics.listeners, |m, at| {
        let mut listener = listener::listener(m, at)?;
        listener.connection_limit = runtime.listener_limits.get(&listener.name).copied();
        Ok(Arc::new(listener))
    })?;
    let clusters = statics::each(&inner, "clusters", &statics.clusters, |m, at| {
        let mut cluster = cluster::cluster(m, at)?;
        cluster.bind = cluster.bind.or_else(|| upstream_bind.clone());
        Ok(Arc::new(cluster))
    })?;
    let secrets = statics::each(&inner, "secrets", &statics.secrets, |m, at| {
        secret::secret(m, at).map(|(name, secret)| (name, Arc::new(secret)))
    })?;
    unique(&listeners, &clusters, &secrets, &inner)?;

    let bootstrap = Bootstrap {
        node: node(message.node.unwrap_or_default()),
        dynamic: dynamic::dynamic(&message.dynamic_resources, at)?,
        admin: admin::admin(&message.admin, at)?,
        max_downstream_connections: overload.or(runtime.max_downstream_connections),
        listener_limits: runtime.listener_limits,
        upstream_bind,
        local_cluster: message
            .cluster_manager
            .as_ref()
            .map(|m| m.local_cluster_name.as_str())
            .filter(|name| !name.is_empty())
            .map(Name::from),
        listeners,
        clusters,
        secrets,
        tracing: match message.tracing.as_ref().and_then(|m| m.http.as_ref()) {
            Some(m) => tracing::provider(m, &at.field("tracing").field("http"))?,
            None => None,
        },
        packed: Packed::pack(encoded),
    };
    references::check(&bootstrap, at)?;
    Ok(bootstrap)
}

/// Says who is asking, as Envoy does: whatever the file has there.
fn node(mut node: Node) -> Node {
    node.user_agent_name = USER_AGENT.to_owned();
    let version = env!("CARGO_PKG_VERSION").to_owned();
    node.user_agent_version_type = Some(UserAgentVersionType::UserAgentVersion(version));
    for feature in CLIENT_FEATURES {
        if !node.client_features.iter().any(|f| f == feature) {
            node.client_features.push((*feature).to_owned());
        }
    }
    node
}

fn manager(message: &Option<ClusterManager>, at: &At<'_>) -> Result<Option<Bind>, Reject> {
    let Some(message) = message else { return Ok(None) };
    let at = at.field("cluster_manager");
    fields!(&at, message => ClusterManager {
        read: [upstream_bind_config, local_cluster_name],
        harmless: [enable_deferred_cluster_creation],
        unsupported: [outlier_detection, load_stats_config],
    });
    match &message.upstream_bind_config {
        Some(m) => address::bind(m, &at.field("upstream_bind_config")),
        None => Ok(None),
    }
}

fn extensions(messages: &[TypedExtensionConfig], at: &At<'_>) -> Result<(), Reject> {
    for (i, message) in messages.iter().enumerate() {
        let at = at.index("bootstrap_extensions", i);
        let any = at.required("typed_config", &message.typed_config)?;
        let at = at.field("typed_config");
        extension::open(any, &at)?.ignore("bootstrap extension", &at)?;
    }
    Ok(())
}

fn unique(
    listeners: &[Arc<Listener>],
    clusters: &[Arc<Cluster>],
    secrets: &[(Name, Arc<Secret>)],
    at: &At<'_>,
) -> Result<(), Reject> {
    fn first_repeat<T: Eq + Hash>(items: impl Iterator<Item = T>) -> Option<usize> {
        let mut seen = HashSet::new();
        items.enumerate().find_map(|(i, item)| (!seen.insert(item)).then_some(i))
    }
    let twice = |list: &str, index: usize, name: &str| {
        Err(at.index(list, index).field("name").reject(format!("{name:?} occurs twice")))
    };
    if let Some(i) = first_repeat(listeners.iter().map(|l| &l.name)) {
        return twice("listeners", i, &listeners[i].name);
    }
    if let Some(i) = first_repeat(clusters.iter().map(|c| &c.name)) {
        return twice("clusters", i, &clusters[i].name);
    }
    if let Some(i) = first_repeat(secrets.iter().map(|(name, _)| name)) {
        return twice("secrets", i, &secrets[i].0);
    }
    let mut bound = HashSet::new();
    for (i, listener) in listeners.iter().enumerate().filter(|(_, l)| l.bind_to_port) {
        for address in listener.addresses.iter().filter(|a| a.port() != 0) {
            if !bound.insert(address) {
                let at = at.index("listeners", i);
                return Err(at.field("address").reject(format!("{address} is another listener's address already")));
            }
        }
    }
    Ok(())
}

impl Bootstrap {
    /// Whether the node can be told from others: a control plane needs that, a static configuration does not.
    pub fn require_node(&self) -> Result<(), Reject> {
        let dynamic = &self.dynamic;
        if dynamic.ads.is_none() && dynamic.lds.is_none() && dynamic.cds.is_none() {
            return Ok(());
        }
        rooted(NAME, "", &mut Notes::default(), |at| {
            let at = at.field("node");
            not_empty(&self.node.id, &at.field("id"))?;
            not_empty(&self.node.cluster, &at.field("cluster")).map(drop)
        })
    }
}
