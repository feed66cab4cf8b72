//! Fault injection: waits, answers, and slows the response down, as [`policy::fault`](crate::policy::fault) decides.

use std::pin::pin;

use http::StatusCode;

use super::{After, Call, Stop};
use crate::{
    ir::{filters::Fault, route::Action},
    l7::{
        flow::Kept,
        outcome,
        pipeline::Inbound,
        respond::Reply,
        timeouts::{Timeouts, within},
    },
    live::ActiveFault,
    policy::{
        fault::{self, Abort, Draws},
        router::{Chosen, pick_target},
    },
    telemetry::flags::Flags,
};

impl Kept for ActiveFault {
    fn end(self: Box<Self>, _answered: bool) {}
}

impl Call<'_> {
    pub(super) async fn fault(&self, fault: &Fault, request: &Inbound, after: &mut After) -> Result<(), Stop> {
        let filters = self.filters;
        if *fault == Fault::default() {
            return Ok(());
        }
        let stats = filters.stats.local();
        if fault.max_active.is_some_and(|max| !filters.fault_fits(max)) {
            stats.faults_overflow.inc();
            return Ok(());
        }
        let facts = request.facts(self.random);
        if !fault::concerns(fault, &facts, self.cluster(request).map(Chosen::cluster)) {
            return Ok(());
        }
        let draws = Draws { delay: fastrand::u32(..), abort: fastrand::u32(..), rate: fastrand::u32(..) };
        let injected = fault::inject(fault, &request.parts.headers, draws);
        if injected == fault::Injected::default() {
            return Ok(());
        }
        self.flow.keep(Box::new(filters.hold_fault()));
        if let Some(kbps) = injected.kbps {
            stats.response_rl_injected.inc();
            after.throttle(kbps);
        }
        if let Some(delay) = injected.delay {
            stats.delays_injected.inc();
            self.flow.record.flag(Flags::DELAY_INJECTED);
            self.wait(pin!(tokio::time::sleep(delay))).await?;
        }
        let Some(abort) = injected.abort else { return Ok(()) };
        stats.aborts_injected.inc();
        let body = if fault.abort.as_ref().is_none_or(|a| a.body.is_empty()) {
            "fault filter abort".into()
        } else {
            fault.abort.as_ref().map(|a| a.body.to_string()).unwrap_or_default().into()
        };
        let reply = match abort {
            Abort::Http(status) => Reply::new(status, "fault_filter_abort"),
            // What a client gets that does not speak gRPC.
            Abort::Grpc(status) => Reply::new(StatusCode::OK, "fault_filter_abort").grpc(status),
        };
        Err(Stop::Reply(Box::new(Reply { body, ..reply.flag(Flags::FAULT_INJECTED) })))
    }

    /// The cluster the request is bound for.
    pub(super) fn cluster<'r>(&'r self, request: &'r Inbound) -> Option<Chosen<'r>> {
        match &self.selected?.route.action {
            Action::Forward(forward) => pick_target(&forward.target, &request.parts.headers, self.random),
            Action::Redirect(_) | Action::Direct(_) | Action::NonForwarding => None,
        }
    }

    /// Waits for `work` under the limits that hold before a request is forwarded; the route's timeout counts from then.
    pub(super) async fn wait<F: Future>(&self, work: std::pin::Pin<&mut F>) -> Result<F::Output, Stop> {
        let config = &self.conn.hcm.config;
        let route = self.selected.and_then(|s| match &s.route.action {
            Action::Forward(forward) => forward.stream.as_ref().and_then(|s| s.max),
            Action::Redirect(_) | Action::Direct(_) | Action::NonForwarding => None,
        });
        let timeouts = Timeouts {
            request: config.request_timeout,
            stream: route.unwrap_or(config.max_stream_duration),
            ..Timeouts::default()
        };
        let result = within(&timeouts, self.flow, None, work).await;
        self.flow.resume();
        result.map_err(|expired| Stop::Reply(Box::new(outcome::expired(expired, self.flow.request_done().is_some()))))
    }
}
