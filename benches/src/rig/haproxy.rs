//! HAProxy's configuration for the same work: routing by host, retries, least connections, mutual TLS.

use std::fmt::Write as _;

use anyhow::bail;

use super::{
    APP_PORT, HOST,
    bootstrap::{PROBE, service_endpoints, service_name},
    plan::{App, Between, Features, Place, Plan, Sessions, Via},
};
use crate::account::Side;

pub(super) fn config(side: Side, plan: &Plan, place: &Place<'_>) -> anyhow::Result<String> {
    if plan.via == Via::Xds {
        bail!("HAProxy takes no xDS");
    }
    if !plan.extra.is_empty() {
        bail!("HAProxy has no equivalent of this configuration");
    }
    if plan.features == Features::AccessLog {
        bail!("HAProxy logs to a syslog server, not to a file: not comparable");
    }
    if plan.sessions == Sessions::FullPostQuantum {
        bail!("OpenSSL 3.0 has no hybrid key exchange");
    }
    let mode = if plan.is_http() { "http" } else { "tcp" };
    // Twice the connections plus some must fit into 20000 open files.
    let mut text = format!(
        "global\n  maxconn 9800\n  nbthread {}\n  tune.ssl.default-dh-param 2048\n\
         defaults\n  mode {mode}\n  timeout connect 10s\n  timeout client 1h\n  timeout server 1h\n  \
         timeout http-keep-alive 1h\n  retries 2\n",
        place.workers
    );
    if plan.is_http() {
        let reuse = if plan.sessions == Sessions::Pooled { "always" } else { "never" };
        let _ =
            writeln!(text, "  retry-on conn-failure empty-response 503\n  option redispatch 1\n  http-reuse {reuse}");
    }
    match side {
        Side::Out => outbound(&mut text, plan, place)?,
        Side::In => inbound(&mut text, plan, place),
    }
    Ok(text)
}

fn alpn(between: Between) -> &'static str {
    match between {
        Between::Http2 => " alpn h2",
        Between::Http1 => " alpn http/1.1",
        Between::TcpTls | Between::Tcp => "",
    }
}

fn outbound(text: &mut String, plan: &Plan, place: &Place<'_>) -> anyhow::Result<()> {
    let proto = if plan.is_http() && plan.app == App::Http2 { " proto h2" } else { "" };
    let _ = write!(text, "frontend outbound\n  bind 0.0.0.0:15001{proto}\n");
    if plan.is_http() {
        let map = place.dir.join("hosts.map");
        let mut lines = format!("{HOST} {PROBE}\n");
        for n in 0..plan.services {
            let name = service_name(n);
            for form in [format!("{name}.default.svc.cluster.local"), name.clone(), format!("{name}.default")] {
                let _ = writeln!(lines, "{form} {name}\n{form}:{APP_PORT} {name}");
            }
        }
        std::fs::write(&map, lines)?;
        let _ = writeln!(text, "  use_backend %[req.hdr(host),lower,map_str({})]", map.display());
    } else {
        let _ = writeln!(text, "  default_backend {PROBE}");
    }
    let dir = place.dir.display();
    let tls = if plan.is_tls() {
        let reuse = if !plan.sessions.resumes() { " no-ssl-reuse" } else { "" };
        let alpn = alpn(plan.between);
        // Without a server name: HAProxy would look for it in the certificate, where only the SPIFFE URI is.
        format!(" ssl crt {dir}/client.pem ca-file {dir}/root.pem verify required ssl-min-ver TLSv1.3{alpn}{reuse}")
    } else {
        String::new()
    };
    let mut backend = |name: &str, servers: &[(String, u16)]| {
        let _ = write!(text, "backend {name}\n  balance leastconn\n");
        for (n, (ip, port)) in servers.iter().enumerate() {
            let _ = writeln!(text, "  server s{n} {ip}:{port}{tls}");
        }
    };
    let servers: Vec<_> = place.servers.iter().map(|ip| (ip.to_string(), APP_PORT)).collect();
    backend(PROBE, &servers);
    (0..plan.services).for_each(|n| backend(&service_name(n), &service_endpoints(n)));
    Ok(())
}

fn inbound(text: &mut String, plan: &Plan, place: &Place<'_>) {
    let dir = place.dir.display();
    let tls = if plan.is_tls() {
        format!(
            " ssl crt {dir}/server.pem ca-file {dir}/root.pem verify required ssl-min-ver TLSv1.3 curves X25519{}",
            alpn(plan.between)
        )
    } else {
        String::new()
    };
    let proto = if plan.is_http() && plan.app == App::Http2 { " proto h2" } else { "" };
    let _ = write!(
        text,
        "frontend inbound\n  bind 0.0.0.0:15006{tls}\n  default_backend app\nbackend app\n  server app \
         127.0.0.1:{APP_PORT}{proto}\n"
    );
}
