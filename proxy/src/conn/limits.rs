//! Rate limits of connections, local and global.

use std::time::SystemTime;

use super::filters::Refusal;
use crate::{
    ir::format::Template,
    l7::{
        filters::global_limit::{ask_service, metadata},
        side::Ask,
    },
    live::{LiveConnectionLimit, LiveGlobalConnectionLimit},
    policy::rate_limit::{Descriptor, service},
    telemetry::{
        flags::Flags,
        format::{self, Facts, Known, Times},
        record::{ConnInfo, UpstreamFacts},
    },
    upstream::uptime,
    worker::Worker,
};

/// Takes a token of the bucket.
pub(super) fn local(limit: &LiveConnectionLimit) -> Result<(), Refusal> {
    if limit.admit(uptime().as_secs_f64()) {
        return Ok(());
    }
    limit.stats.local().rate_limited.inc();
    // The flag that Envoy's filter sets, whatever its name says.
    let flags = Flags::UPSTREAM_RETRY_LIMIT_EXCEEDED;
    Err(Refusal { flags, ..refusal("local_ratelimit_close_over_limit") })
}

fn refusal(details: &'static str) -> Refusal {
    Refusal { flags: Flags::default(), details: details.into(), delay: None }
}

/// Counts a call as long as it lasts, however it ends.
struct Active<'a>(&'a LiveGlobalConnectionLimit);

impl Drop for Active<'_> {
    fn drop(&mut self) {
        self.0.stats.local().active.dec();
    }
}

/// Asks the rate limit service.
pub(super) async fn global(worker: &Worker, limit: &LiveGlobalConnectionLimit, info: &ConnInfo) -> Result<(), Refusal> {
    let (config, stats) = (&limit.config, limit.stats.local());
    let render = |template: &Template| text(template, info);
    let describe = |entries: &Vec<(Box<str>, Template)>| Descriptor {
        entries: entries.iter().map(|(key, value)| (key.to_string().into(), render(value).into())).collect(),
        ..Descriptor::default()
    };
    let descriptors: Vec<Descriptor<'_>> = config.descriptors.iter().map(describe).collect();
    let question = service::question(&config.service.domain, &descriptors);
    let ask = Ask {
        cluster: config.service.cluster.clone(),
        timeout: config.service.timeout,
        limit: 64 << 10,
        downstream: Some(info.remote),
    };
    stats.total.inc();
    stats.active.inc();
    let active = Active(limit);
    let answer = ask_service(&worker.engine, &ask, metadata(&config.service, render), &question).await;
    drop(active);
    let answer = answer.ok();
    if let Some(noted) = answer.as_ref().and_then(|a| a.dynamic_metadata.as_ref()).filter(|m| !m.fields.is_empty()) {
        info.metadata.set("envoy.filters.network.ratelimit", service::fields(noted));
    }
    match answer.as_ref().and_then(service::allows) {
        Some(true) => {
            stats.ok.inc();
            Ok(())
        }
        Some(false) => {
            stats.over_limit.inc();
            stats.cx_closed.inc();
            Err(refusal("ratelimit_close_over_limit"))
        }
        None => {
            stats.error.inc();
            if config.failure_deny {
                stats.cx_closed.inc();
                return Err(refusal("ratelimit_error"));
            }
            stats.failure_mode_allowed.inc();
            Ok(())
        }
    }
}

/// The value of a template for a connection that is nowhere yet.
fn text(template: &Template, info: &ConnInfo) -> String {
    let (mut text, noted, upstream) = (String::new(), info.metadata.get(), UpstreamFacts::default());
    let facts = Facts {
        conn: info,
        protocol: None,
        status: 0,
        flags: Flags::default(),
        details: None,
        termination: None,
        trace: None,
        start: SystemTime::now(),
        times: Times::default(),
        bytes_received: 0,
        bytes_sent: 0,
        upstream: &upstream,
        downstream_failure: None,
        route: None,
        remote: info.remote,
        request: None,
        response: None,
        trailers: None,
        metadata: Known { dynamic: noted.as_deref(), route: None },
    };
    format::render(template, &facts, "", &mut text);
    text
}
