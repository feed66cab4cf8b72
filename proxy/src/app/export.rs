//! Exports what waits in outboxes: batches to collectors, through the proxy's own clusters, on the control thread.
//!
//! A collector that is away is asked again for a while, less and less often; its batch is lost then, and counted. Other
//! collectors do not notice.

use std::{
    cell::Cell,
    rc::Rc,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, header};
use prost::Message;
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};

use crate::{
    ir::{
        Name,
        tracing::{Collector, HttpCollector},
    },
    l7::{
        Engine,
        side::{self, Ask},
    },
    live::{Publisher, Reader},
    telemetry::{format::constant, outbox::Outbox, trace::Tracers},
};

mod refused;
#[cfg(test)]
mod tests;

use self::refused::{Next, Refused};

/// How long records wait for others at most.
const GATHER: Duration = Duration::from_secs(1);
/// How long a call may take where nothing is configured.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Calls for one batch that may work later.
const CALLS: u32 = 5;
/// After the first that failed; then twice as long each time.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Whatever the collector asks for.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Bytes that every collector takes at once: who refuses so few does not mean the size.
const NEVER_TOO_MUCH: usize = 32 << 10;
/// Bytes of an answer.
const MAX_ANSWER: usize = 64 << 10;

const AGENT: &str = concat!("OTel-OTLP-Exporter-Outrigger/", env!("CARGO_PKG_VERSION"));

/// Serves every outbox until `stop`; what waits then is sent once more.
pub(super) async fn run(tracers: Arc<Tracers>, publisher: Arc<Publisher>, mut stop: watch::Receiver<bool>) {
    let mut serving = tokio::task::JoinSet::new();
    let mut engine: Option<Rc<Engine>> = None;
    let mut sweep = interval(GATHER);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = tracers.outboxes.added.notified() => {
                for outbox in tracers.outboxes.all().into_iter().filter(|outbox| outbox.claim()) {
                    // There is none before somebody exports.
                    let engine = engine.get_or_insert_with(|| Rc::new(Engine::new(Reader::new(publisher.clone()))));
                    serving.spawn_local(export(outbox, engine.clone(), stop.clone()));
                }
            }
            _ = sweep.tick(), if engine.is_some() => {
                if let Some(engine) = &engine {
                    engine.sweep(Instant::now());
                }
                while serving.try_join_next().is_some() {}
            }
            _ = stop.changed() => break,
        }
    }
    while serving.join_next().await.is_some() {}
}

/// Serves one outbox until nobody writes to it any more.
async fn export(outbox: Arc<Outbox>, engine: Rc<Engine>, stop: watch::Receiver<bool>) {
    let away = Cell::new(false);
    serve(outbox, stop.clone(), async |outbox, timed| empty(outbox, &engine, timed, (&stop, &away)).await).await;
}

async fn serve(mut outbox: Arc<Outbox>, mut stop: watch::Receiver<bool>, send: impl AsyncFn(&Outbox, bool)) {
    let mut gather = interval(GATHER);
    gather.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let timed = tokio::select! {
            _ = gather.tick() => true,
            () = outbox.full.notified() => false,
            _ = stop.changed() => true,
        };
        send(&outbox, timed).await;
        if *stop.borrow() {
            return;
        }
        // Nobody finds it from the moment that it is ours alone: whoever wants one of the kind gets another.
        match Arc::try_unwrap(outbox) {
            Ok(last) => return send(&last, timed).await,
            Err(used) => outbox = used,
        }
    }
}

/// Sends as many records as wait at this moment.
async fn empty(outbox: &Outbox, engine: &Engine, timed: bool, (stop, away): (&watch::Receiver<bool>, &Cell<bool>)) {
    let send = async |part: &[Vec<u8>]| {
        let request = outbox.destination.signal.request(part.iter().map(Vec::as_slice));
        send(outbox, engine, &request.into()).await
    };
    let wait = async |pause: Duration| {
        let mut stop = stop.clone();
        let goes_on = !*stop.borrow();
        if goes_on {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = stop.changed() => {}
            }
        }
        goes_on
    };
    let mut left = outbox.len();
    while left > 0 {
        let records = outbox.take();
        if records.is_empty() {
            return;
        }
        left = left.saturating_sub(records.len());
        if timed {
            outbox.counts.timer_flushed.fetch_add(1, Relaxed);
        }
        deliver(outbox, &records, away, (&send, &wait)).await;
    }
}

/// Sends a batch, in parts where it is too large for the collector, or gives it up. `wait` says whether to go on.
async fn deliver(
    outbox: &Outbox,
    records: &[Vec<u8>],
    away: &Cell<bool>,
    (send, wait): (&impl AsyncFn(&[Vec<u8>]) -> Result<u64, Refused>, &impl AsyncFn(Duration) -> bool),
) {
    let counts = &outbox.counts;
    let mut pause = FIRST_PAUSE;
    let mut calls = 0;
    let mut parts = vec![records];
    while let Some(part) = parts.pop() {
        let count = part.len() as u64;
        let refused = match send(part).await {
            Ok(rejected) => {
                away.set(false);
                let rejected = rejected.min(count);
                counts.sent.fetch_add(count - rejected, Relaxed);
                counts.dropped.fetch_add(rejected, Relaxed);
                continue;
            }
            Err(refused) => refused,
        };
        counts.failed.fetch_add(1, Relaxed);
        if !away.replace(true) {
            // Once for a collector that went away, however long it stays so.
            let cluster = cluster(&outbox.destination.collector);
            tracing::warn!(%cluster, error = %refused.why, "a collector does not take what is exported");
        }
        match refused.next {
            Next::Later(asked) => {
                calls += 1;
                let jitter = pause.mul_f64(fastrand::f64() / 2.0);
                if calls < CALLS && wait((pause + jitter).max(asked).min(LONGEST_PAUSE)).await {
                    pause *= 2;
                    parts.push(part);
                    continue;
                }
            }
            Next::Smaller if count > 1 && part.iter().map(Vec::len).sum::<usize>() > NEVER_TOO_MUCH => {
                let (first, second) = part.split_at(part.len() / 2);
                parts.extend([second, first]);
                continue;
            }
            Next::Smaller if count > 1 => {}
            Next::Smaller | Next::Never => {
                counts.dropped.fetch_add(count, Relaxed);
                continue;
            }
        }
        // It is away, or has no room for anything: for the rest as well.
        let rest: usize = parts.drain(..).map(<[_]>::len).sum();
        counts.dropped.fetch_add(count + rest as u64, Relaxed);
    }
}

fn cluster(collector: &Collector) -> &Name {
    match collector {
        Collector::Grpc(service) => &service.cluster,
        Collector::Http(service) => &service.uri.cluster,
    }
}

/// `ExportTraceServiceResponse` and its kind.
#[derive(Clone, PartialEq, Message)]
struct Answer {
    #[prost(message, optional, tag = "1")]
    partial_success: Option<PartialSuccess>,
}

#[derive(Clone, PartialEq, Message)]
struct PartialSuccess {
    #[prost(int64, tag = "1")]
    rejected: i64,
}

impl Answer {
    fn rejected(&self) -> u64 {
        self.partial_success.as_ref().map_or(0, |partial| u64::try_from(partial.rejected).unwrap_or(0))
    }
}

/// Makes one call; how many records the collector refused.
async fn send(outbox: &Outbox, engine: &Engine, message: &Bytes) -> Result<u64, Refused> {
    let ask = |timeout: Option<Duration>| Ask {
        cluster: cluster(&outbox.destination.collector).clone(),
        timeout: Some(timeout.unwrap_or(TIMEOUT)),
        limit: MAX_ANSWER,
        downstream: None,
    };
    match &outbox.destination.collector {
        Collector::Grpc(service) => {
            let mut head = HeaderMap::new();
            if let Some(authority) = &service.authority {
                head.insert(header::HOST, authority.clone());
            }
            head.insert(header::USER_AGENT, HeaderValue::from_static(AGENT));
            for (name, value) in &service.metadata {
                if let Ok(value) = HeaderValue::from_str(&constant(value)) {
                    head.append(name.clone(), value);
                }
            }
            let path = outbox.destination.signal.method();
            let answer = side::unary_bytes(engine, &ask(service.timeout), (path, head), message).await?;
            // Who took the call took the records, whatever else the answer says.
            Ok(Answer::decode(answer).map_or(0, |answer| answer.rejected()))
        }
        Collector::Http(service) => {
            let response = side::http(engine, &ask(service.uri.timeout), post(service, message)).await?;
            if let Some(refused) = Refused::of_response(&response, SystemTime::now()) {
                return Err(refused);
            }
            Ok(Answer::decode(response.into_body()).map_or(0, |answer| answer.rejected()))
        }
    }
}

fn post(service: &HttpCollector, message: &Bytes) -> Request<Bytes> {
    let mut request = Request::new(message.clone());
    *request.method_mut() = Method::POST;
    *request.uri_mut() = http::Uri::from(service.path.clone());
    let headers = request.headers_mut();
    let host = if service.authority.is_empty() { &*service.uri.cluster } else { &*service.authority };
    if let Ok(host) = HeaderValue::from_str(host) {
        headers.insert(header::HOST, host);
    }
    headers.insert(header::USER_AGENT, HeaderValue::from_static(AGENT));
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(message.len()));
    for (name, value) in &service.headers {
        if let Ok(value) = HeaderValue::from_str(&constant(value)) {
            headers.insert(name.clone(), value);
        }
    }
    request
}
