//! `outriggerctl explain --proxy`: asks a running proxy what a request would come to there.

use std::{net::IpAddr, process::ExitCode};

use http::Method;
use serde_json::Value;

use super::{
    client::{block_on, call, query},
    explain::Arguments,
    output::{Output, emit},
    table::print,
};

pub(super) fn run(proxy: &str, arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let address: Option<IpAddr> = arguments.host.parse().ok();
    let authority = arguments.authority.clone().unwrap_or_else(|| arguments.host.clone());
    let parameters = [
        ("host", Some(authority)),
        ("address", address.map(|ip| ip.to_string())),
        ("port", Some(arguments.port.to_string())),
        ("method", Some(arguments.method.to_string())),
        ("path", Some(arguments.path.clone())),
        ("protocol", arguments.tcp.then(|| "tcp".to_owned())),
        ("sni", arguments.sni.clone()),
        ("source", arguments.source_ip.map(|ip| ip.to_string())),
        ("principal", arguments.source_principal.clone()),
        ("direction", arguments.inbound.then(|| "inbound".to_owned())),
        ("format", (arguments.output == Output::Table).then(|| "text".to_owned())),
    ];
    let headers = arguments.header.iter().map(|(name, value)| ("header", Some(format!("{name}:{value}"))));
    let path = format!("/explain?{}", query(parameters.into_iter().chain(headers)));
    let body = block_on(call(proxy, Method::GET, &path))?;
    if arguments.output == Output::Table {
        print(&String::from_utf8_lossy(&body))?;
    } else {
        emit(&serde_json::from_slice::<Value>(&body)?, arguments.output, String::new)?;
    }
    Ok(ExitCode::SUCCESS)
}
