//! `outriggerctl explain`: which way a described request would take, and why; by a directory, or as a proxy says.

use std::{collections::BTreeMap, net::IpAddr, path::PathBuf, process::ExitCode};

use anyhow::{Context, bail};
use clap::Args;
use serde_json::{Map, Value};

use super::{
    asking,
    output::{Output, emit},
    parse::pair,
};
use crate::{
    explain::{Caller, Kind, Request, explain},
    model::{self, Locality, World},
    resources::{ClientKind, Node},
};

#[derive(Debug, Args)]
pub struct Arguments {
    /// Directory of YAML and JSON documents.
    #[arg(required_unless_present = "proxy", conflicts_with = "proxy")]
    dir: Option<PathBuf>,
    /// Ask the admin interface of this running proxy instead: what it would do with its configuration of now.
    #[arg(long, value_name = "HOST:PORT",
          conflicts_with_all = ["from", "namespace", "ip", "label", "claim", "claims", "service_account", "scheme",
                              "plaintext"])]
    proxy: Option<String>,
    /// With --proxy: the request comes to this workload instead of from it.
    #[arg(long, requires = "proxy")]
    pub(super) inbound: bool,
    /// With --proxy: the address that the host has, where it is a name.
    #[arg(long, value_name = "IP", requires = "proxy")]
    pub(super) address: Option<IpAddr>,
    /// With --proxy: protocols that the caller's TLS offers, separated by commas; those of the mesh where it comes inbound
    /// with an identity.
    #[arg(long, value_name = "NAMES", requires = "proxy")]
    pub(super) alpn: Option<String>,
    /// The workload that calls, as the documents have it.
    #[arg(long, value_name = "NAMESPACE/NAME", conflicts_with_all = ["namespace", "ip", "label"])]
    from: Option<String>,
    /// Namespace of a workload that the documents do not have.
    #[arg(long)]
    namespace: Option<String>,
    /// Address of that workload; may be repeated.
    #[arg(long, value_name = "IP")]
    ip: Vec<IpAddr>,
    /// Label of that workload; may be repeated.
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    label: Vec<(String, String)>,
    /// The name or address that is called, as the application writes it.
    #[arg(long)]
    pub(super) host: String,
    #[arg(long, default_value_t = 80)]
    pub(super) port: u16,
    #[arg(long, default_value = "GET")]
    pub(super) method: http::Method,
    /// Path and query.
    #[arg(long, default_value = "/")]
    pub(super) path: String,
    /// Header of the request; may be repeated.
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    pub(super) header: Vec<(String, String)>,
    /// `Host` of the request, where it is another than the host that is called.
    #[arg(long)]
    pub(super) authority: Option<String>,
    #[arg(long, default_value = "http")]
    scheme: String,
    /// Opaque bytes instead of HTTP.
    #[arg(long, conflicts_with = "sni")]
    pub(super) tcp: bool,
    /// Identity that the called side sees, where it is not the caller's own: spiffe://DOMAIN/ns/NAMESPACE/sa/ACCOUNT.
    #[arg(long, value_name = "SPIFFE-ID", conflicts_with = "plaintext")]
    pub(super) source_principal: Option<String>,
    /// Address that the called side sees.
    #[arg(long, value_name = "IP")]
    pub(super) source_ip: Option<IpAddr>,
    /// Service account of a workload that the documents do not have.
    #[arg(long, default_value = "default", conflicts_with = "from")]
    service_account: String,
    /// No mutual TLS, as a caller without sidecar.
    #[arg(long)]
    plaintext: bool,
    /// Claim of a valid token; may be repeated, with one name for a list.
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    claim: Vec<(String, String)>,
    /// Claims of a valid token, as JSON.
    #[arg(long, value_name = "JSON", value_parser = claims)]
    claims: Option<Map<String, Value>>,
    /// First part of every identity.
    #[arg(long, env = "OUTRIGGER_TRUST_DOMAIN")]
    trust_domain: Option<String>,
    /// TLS of the application, with this server name.
    #[arg(long, value_name = "NAME")]
    pub(super) sni: Option<String>,
    #[arg(long, short, value_enum, default_value_t)]
    pub(super) output: Output,
}

pub fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    if let Some(proxy) = &arguments.proxy {
        if arguments.trust_domain.is_some() {
            eprintln!("note: --trust-domain is nothing to a running proxy, which has its own");
        }
        return asking::run(proxy, &arguments);
    }
    let trust_domain = arguments.trust_domain.as_deref().unwrap_or("cluster.local");
    let dir = arguments.dir.as_deref().context("a directory is needed")?;
    let settings = model::Settings { trust_domain: trust_domain.to_owned(), ..model::Settings::default() };
    let world = match model::load_with(dir, settings) {
        Ok(world) => world,
        Err(problems) => {
            for problem in &problems {
                eprintln!("{problem}");
            }
            return Ok(ExitCode::FAILURE);
        }
    };
    let explanation = explain(&world, &client(&world, &arguments)?, &request(&arguments)?);
    let explanation = explanation.map_err(|reason| anyhow::anyhow!(reason))?;
    emit(&explanation, arguments.output, || explanation.to_string())?;
    Ok(ExitCode::SUCCESS)
}

fn client(world: &World, arguments: &Arguments) -> anyhow::Result<Node> {
    let node = |(namespace, account): (&str, &str), ips, labels| Node {
        id: "outriggerctl".to_owned(),
        kind: ClientKind::Outrigger,
        namespace: namespace.to_owned(),
        service_account: account.to_owned(),
        ips,
        labels,
        locality: Locality::default(),
    };
    let Some(from) = &arguments.from else {
        let namespace = arguments.namespace.as_deref().unwrap_or("default");
        let labels: BTreeMap<_, _> = arguments.label.iter().cloned().collect();
        return Ok(node((namespace, &arguments.service_account), arguments.ip.clone(), labels));
    };
    let (namespace, name) = from.split_once('/').unwrap_or(("default", from));
    let mut own = world.workloads.iter().filter(|w| w.namespace == namespace);
    let Some(workload) = own.find(|w| w.name == name) else {
        bail!("the documents have no Pod or WorkloadEntry {name} in namespace {namespace} that runs");
    };
    let ips = workload.addresses.iter().filter_map(model::Address::ip).collect();
    let account = if workload.service_account.is_empty() { "default" } else { &workload.service_account };
    Ok(node((namespace, account), ips, workload.labels.clone()))
}

fn request(arguments: &Arguments) -> anyhow::Result<Request> {
    let mut headers = http::HeaderMap::new();
    for (name, value) in &arguments.header {
        let wrong = || format!("{name}={value} is not a header");
        let name = http::HeaderName::from_bytes(name.as_bytes()).with_context(wrong)?;
        headers.append(name, http::HeaderValue::from_str(value).with_context(wrong)?);
    }
    if !arguments.path.starts_with('/') {
        bail!("the path must start with /");
    }
    Ok(Request {
        kind: match (arguments.tcp, &arguments.sni) {
            (true, _) => Kind::Tcp,
            (false, Some(_)) => Kind::Tls,
            (false, None) => Kind::Http,
        },
        host: arguments.host.clone(),
        port: arguments.port,
        server_name: arguments.sni.clone(),
        method: arguments.method.clone(),
        scheme: arguments.scheme.clone(),
        path: arguments.path.clone(),
        authority: arguments.authority.clone(),
        headers,
        caller: Caller {
            principal: arguments.source_principal.clone(),
            address: arguments.source_ip,
            plaintext: arguments.plaintext,
            claims: token(arguments),
        },
    })
}

fn claims(text: &str) -> Result<Map<String, Value>, String> {
    serde_json::from_str(text).map_err(|e| format!("not an object of JSON: {e}"))
}

/// One value of a name is text, several are a list.
fn token(arguments: &Arguments) -> Map<String, Value> {
    let mut all = arguments.claims.clone().unwrap_or_default();
    let mut given: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
    for (name, value) in &arguments.claim {
        given.entry(name).or_default().push(value.as_str().into());
    }
    for (name, mut values) in given {
        let value = if values.len() == 1 { values.swap_remove(0) } else { Value::Array(values) };
        all.insert(name.to_owned(), value);
    }
    all
}
