//! A new connection for every request.

use std::time::Duration;

use super::{
    bench::{Bench, Title},
    http::warm_up,
    measure,
};
use crate::{
    load::{Seen, wrk},
    rig::{Between, Plan, Rig, Sessions},
};

pub(super) fn run(bench: &mut Bench<'_>) -> anyhow::Result<()> {
    let window = bench.options.window();
    for (case, sessions, title) in [
        ("plain", Sessions::Pooled, "from the application, kept HTTP/2 in mTLS between the proxies"),
        ("resumed", Sessions::Resumed, "from the application and between the proxies, TLS sessions resumed"),
        ("full", Sessions::Full, "from the application and between the proxies, full mutual TLS handshakes"),
        ("full-pq", Sessions::FullPostQuantum, "the same with X25519MLKEM768"),
    ] {
        let plan = Plan { sessions, ..Plan::http(Between::Http2) };
        let mut rigs = bench.rigs(&plan, &bench.contenders())?;
        rigs.slots.iter().filter_map(|s| s.rig.as_ref().ok()).for_each(widen_ports);
        warm_up(bench, &mut rigs, load)?;
        let title = format!("16 clients, a new connection for every request: {title}");
        bench.case(&Title::new("new-conn", case, title), &mut rigs, |rig| {
            measure::requests(rig, |rig| load(rig, window))
        })?;
    }
    Ok(())
}

fn load(rig: &Rig, length: Duration) -> anyhow::Result<Seen> {
    let url = format!("http://{}/", rig.target());
    wrk::run(&rig.client, &url, wrk::Load { connections: 16, length, new_connections: true })
}

/// Tens of thousands of connections between two addresses need all ports, and soon again.
fn widen_ports(rig: &Rig) {
    for pod in [&rig.client, rig.server()] {
        pod.sh("sysctl -qw net.ipv4.ip_local_port_range='1024 65535' net.ipv4.tcp_tw_reuse=1");
        // Without conntrack (no proxy, no redirection) there is nothing to shorten.
        let _ = pod.try_sh("sysctl -qw net.netfilter.nf_conntrack_tcp_timeout_time_wait=1");
    }
}
