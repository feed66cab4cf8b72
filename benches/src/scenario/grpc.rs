//! gRPC applications: HTTP/2 on all three legs.

use super::{
    bench::{Bench, Title},
    http::warm_up,
    measure,
};
use crate::{
    drive::{self, grpc},
    load::{Seen, curve, h2load},
    rig::{App, Between, HOST, Origin, Plan},
};

fn plan() -> Plan {
    Plan { app: App::Http2, origin: Origin::Grpc, ..Plan::http(Between::Http2) }
}

pub(super) fn run(bench: &mut Bench<'_>) -> anyhow::Result<()> {
    let mut rigs = bench.rigs(&plan(), &bench.contenders())?;
    let window = bench.options.window();
    warm_up(bench, &mut rigs, |rig, length| {
        h2load::run(&rig.client, rig.target(), h2load::Load { connections: 16, streams: 4, length })
    })?;
    let title = "unary calls of 100 bytes, 16 connections with 4 calls each at a time";
    bench.case(&Title::new("grpc", "unary", title), &mut rigs, |rig| {
        let load = h2load::Load { connections: 16, streams: 4, length: window };
        measure::requests(rig, |rig| h2load::run(&rig.client, rig.target(), load))
    })?;
    let title =
        "messages of 100 bytes to and fro on long streams, 16 connections with 4 streams each; requests are messages";
    bench.case(&Title::new("grpc", "streaming", title), &mut rigs, |rig| {
        let load = grpc::Load { to: rig.target(), connections: 16, streams: 4, length: window };
        measure::requests(rig, |rig| {
            let trips = rig.client.within(|| drive::block_on(grpc::stream(load, HOST)))?;
            Ok(Seen { completed: trips.len(), failed: 0, took: window, curve: curve(&trips) })
        })
    })?;
    bench.keep(plan(), rigs);
    Ok(())
}

/// How a single connection is spread over the workers, if at all.
pub(super) fn one(bench: &mut Bench<'_>) -> anyhow::Result<()> {
    let mut rigs = bench.rigs(&plan(), &bench.contenders())?;
    let window = bench.options.window();
    warm_up(bench, &mut rigs, |rig, length| {
        h2load::run(&rig.client, rig.target(), h2load::Load { connections: 1, streams: 100, length })
    })?;
    let title = "unary calls of 100 bytes, 100 at a time on one connection";
    bench.case(&Title::new("grpc-one", "unary", title), &mut rigs, |rig| {
        let load = h2load::Load { connections: 1, streams: 100, length: window };
        measure::requests(rig, |rig| h2load::run(&rig.client, rig.target(), load))
    })
}
