//! `outriggerctl explain --proxy`: asks a running proxy what a request would come to there.

use std::{net::IpAddr, process::ExitCode};

use http::Method;
use serde_json::Value;

use super::{
    client::{block_on, call, query},
    explain::Arguments,
    output::{Output, emit},
    table::{plain, print},
};

/// Where the proxy is asked about without an address: one that is nobody's (RFC 5737).
const NOWHERE: &str = "192.0.2.1";

/// What proxies of the mesh offer each other, unless another offer is asked about: by it a permissive port tells mutual
/// TLS of the mesh from an application's own.
fn alpn(arguments: &Arguments) -> Option<String> {
    let mesh = arguments.inbound && arguments.source_principal.is_some();
    let offered = if arguments.tcp { "istio" } else { "istio-http/1.1,istio" };
    arguments.alpn.clone().or_else(|| mesh.then(|| offered.to_owned()))
}

pub(super) fn run(proxy: &str, arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let address: Option<IpAddr> = arguments.address.or_else(|| arguments.host.parse().ok());
    if address.is_none() && !arguments.inbound {
        eprintln!("note: {} is no address; asked about {NOWHERE} (see --address)", arguments.host);
    }
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
        ("alpn", alpn(arguments)),
        ("direction", arguments.inbound.then(|| "inbound".to_owned())),
        ("format", (arguments.output == Output::Table).then(|| "text".to_owned())),
    ];
    let headers = arguments.header.iter().map(|(name, value)| ("header", Some(format!("{name}:{value}"))));
    let path = format!("/explain?{}", query(parameters.into_iter().chain(headers)));
    let body = block_on(call(proxy, Method::GET, &path))?;
    if arguments.output == Output::Table {
        print(&plain(&String::from_utf8_lossy(&body)))?;
    } else {
        emit(&serde_json::from_slice::<Value>(&body)?, arguments.output, String::new)?;
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::Ctl;

    #[derive(clap::Parser)]
    struct Only {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn offered(more: &[&str]) -> Option<String> {
        let all = ["x", "--proxy", "p:1", "--host", "10.0.0.1"].iter().chain(more);
        alpn(&Only::parse_from(all).arguments)
    }

    #[test]
    fn a_caller_of_the_mesh_offers_what_its_proxy_would() {
        let principal = ["--inbound", "--source-principal", "spiffe://cluster.local/ns/a/sa/b"];
        assert_eq!(offered(&principal).as_deref(), Some("istio-http/1.1,istio"));
        assert_eq!(offered(&[&principal[..], &["--tcp"]].concat()).as_deref(), Some("istio"));
        assert_eq!(offered(&[&principal[..], &["--alpn", "h2"]].concat()).as_deref(), Some("h2"));
        assert_eq!(offered(&["--inbound"]), None);
        assert_eq!(offered(&principal[1..]), None);
    }

    #[test]
    fn what_a_proxy_is_not_asked_about_is_refused() {
        for more in [&["--scheme", "https"][..], &["--plaintext"]] {
            let all = ["outriggerctl", "explain", "--proxy", "p:1", "--host", "h"].iter().chain(more);
            assert!(Ctl::try_parse_from(all).is_err(), "{more:?}");
        }
    }
}
