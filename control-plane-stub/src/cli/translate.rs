//! `outriggerctl translate DIR`: the xDS one workload would get, as JSON or YAML.

use std::{collections::BTreeMap, net::IpAddr, path::PathBuf, process::ExitCode};

use anyhow::Context;
use clap::{Args, ValueEnum};
use outrigger_wire::{
    json,
    pb::{
        envoy::config::core::v3::Node as WireNode,
        google::protobuf::{Any, Struct, Value as WireValue, value::Kind},
    },
};
use serde_json::{Map, Value};

use super::{parse::pair, table::print};
use crate::{
    model,
    resources::{ClientKind, Node},
    server::node,
    translate,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum OutputFormat {
    Json,
    Yaml,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum KindArgument {
    Outrigger,
    Envoy,
    Grpc,
}

#[derive(Debug, Args)]
pub struct Arguments {
    /// Directory of YAML and JSON documents.
    dir: PathBuf,
    /// Node id, `sidecar~IP~NAME.NAMESPACE~DOMAIN`; the other flags win over what it says.
    #[arg(long, default_value = "outriggerctl")]
    node: String,
    #[arg(long)]
    namespace: Option<String>,
    #[arg(long)]
    service_account: Option<String>,
    /// Address of the Pod; may be repeated.
    #[arg(long, value_name = "IP")]
    ip: Vec<IpAddr>,
    /// Label of the Pod; may be repeated.
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    label: Vec<(String, String)>,
    #[arg(long, value_enum, default_value_t = KindArgument::Outrigger)]
    kind: KindArgument,
    #[arg(long, value_enum, default_value_t = OutputFormat::Json)]
    output: OutputFormat,
    /// First part of every identity.
    #[arg(long, env = "OUTRIGGER_TRUST_DOMAIN", default_value = "cluster.local")]
    trust_domain: String,
}

pub fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let settings = model::Settings { trust_domain: arguments.trust_domain.clone(), ..model::Settings::default() };
    let world = match model::load_with(&arguments.dir, settings) {
        Ok(world) => world,
        Err(problems) => {
            for problem in &problems {
                eprintln!("{problem}");
            }
            return Ok(ExitCode::FAILURE);
        }
    };
    let resources = translate::translate(&world, &node_of(&arguments)?);
    let mut all = Map::new();
    for (name, set) in [
        ("clusters", resources.clusters),
        ("endpoints", resources.endpoints),
        ("listeners", resources.listeners),
        ("routes", resources.routes),
    ] {
        all.insert(name.to_owned(), expand(set)?);
    }
    match arguments.output {
        OutputFormat::Json => print(&format!("{}\n", serde_json::to_string_pretty(&all)?))?,
        OutputFormat::Yaml => print(&format!("{}\n", serde_saphyr::to_string(&all)?))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The node exactly as a client with this id and metadata would be seen.
fn node_of(arguments: &Arguments) -> anyhow::Result<Node> {
    let text = |value: &str| WireValue { kind: Some(Kind::StringValue(value.to_owned())) };
    let mut fields = Vec::new();
    if let Some(namespace) = &arguments.namespace {
        fields.push(("NAMESPACE".to_owned(), text(namespace)));
    }
    if let Some(account) = &arguments.service_account {
        fields.push(("SERVICE_ACCOUNT".to_owned(), text(account)));
    }
    if !arguments.ip.is_empty() {
        let ips: Vec<String> = arguments.ip.iter().map(IpAddr::to_string).collect();
        fields.push(("INSTANCE_IPS".to_owned(), text(&ips.join(","))));
    }
    let labels = arguments.label.iter().map(|(key, value)| (key.clone(), text(value))).collect();
    let labels = WireValue { kind: Some(Kind::StructValue(Struct { fields: labels })) };
    fields.push(("LABELS".to_owned(), labels));
    let wire = WireNode {
        id: arguments.node.clone(),
        metadata: Some(Struct { fields: fields.into_iter().collect() }),
        ..WireNode::default()
    };
    let mut node = node::read(&wire, None).map_err(|status| anyhow::anyhow!("{}", status.message()))?;
    node.kind = match arguments.kind {
        KindArgument::Outrigger => ClientKind::Outrigger,
        KindArgument::Envoy => ClientKind::Envoy,
        KindArgument::Grpc => ClientKind::Grpc,
    };
    Ok(node)
}

fn expand(set: BTreeMap<String, Any>) -> anyhow::Result<Value> {
    let mut list = Vec::new();
    for (name, any) in set {
        let full_name = any.type_url.rsplit('/').next().unwrap_or_default();
        let mut value = json::bytes_to_value(full_name, &any.value).with_context(|| name.clone())?;
        if let Value::Object(object) = &mut value {
            object.shift_insert(0, "@type".to_owned(), Value::String(any.type_url.clone()));
        }
        list.push(value);
    }
    Ok(Value::Array(list))
}
