//! Exports what waits in outboxes: batches to collectors, through the proxy's own clusters, on the control thread.
//!
//! A collector that is away is asked again for a while, less and less often; its batch is lost then, and counted. Other
//! collectors do not notice.

use std::{
    rc::Rc,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
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
        side::{self, Ask, SideError},
    },
    live::{Publisher, Reader},
    telemetry::{
        format::constant,
        outbox::{BATCH, Outbox},
        trace::Tracers,
    },
};

#[cfg(test)]
mod tests;

/// How long records wait for others at most.
const GATHER: Duration = Duration::from_secs(1);
/// How long a call may take where nothing is configured.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Calls for one batch.
const CALLS: u32 = 5;
/// After the first that failed; then twice as long each time.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
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
                    serving.spawn_local(serve(outbox, engine.clone(), stop.clone()));
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
async fn serve(outbox: Arc<Outbox>, engine: Rc<Engine>, mut stop: watch::Receiver<bool>) {
    let mut gather = interval(GATHER);
    gather.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut away = false;
    loop {
        let timed = tokio::select! {
            _ = gather.tick() => true,
            () = outbox.full.notified() => false,
            _ = stop.changed() => true,
        };
        let unused = Arc::strong_count(&outbox) == 1;
        loop {
            let records = outbox.take();
            if records.is_empty() {
                break;
            }
            if timed {
                outbox.counts.timer_flushed.fetch_add(1, Relaxed);
            }
            let whole = records.len() == BATCH;
            deliver(&outbox, &engine, &records, (&mut stop, &mut away)).await;
            if !whole {
                break;
            }
        }
        if unused || *stop.borrow() {
            return;
        }
    }
}

/// Sends a batch, or gives it up.
async fn deliver(
    outbox: &Outbox,
    engine: &Engine,
    records: &[Vec<u8>],
    (stop, away): (&mut watch::Receiver<bool>, &mut bool),
) {
    let request = Bytes::from(outbox.destination.signal.request(records.iter().map(Vec::as_slice)));
    let (count, counts) = (records.len() as u64, &outbox.counts);
    let mut pause = FIRST_PAUSE;
    for call in 1..=CALLS {
        let error = match send(outbox, engine, &request).await {
            Ok(rejected) => {
                *away = false;
                let rejected = rejected.min(count);
                counts.sent.fetch_add(count - rejected, Relaxed);
                counts.dropped.fetch_add(rejected, Relaxed);
                return;
            }
            Err(error) => error,
        };
        counts.failed.fetch_add(1, Relaxed);
        if !std::mem::replace(away, true) {
            // Once for a collector that went away, however long it stays so.
            let cluster = cluster(&outbox.destination.collector);
            tracing::warn!(%cluster, %error, "a collector does not take what is exported");
        }
        if call == CALLS || !is_passing(&error) || *stop.borrow() {
            break;
        }
        let jitter = pause.mul_f64(fastrand::f64() / 2.0);
        tokio::select! {
            () = tokio::time::sleep(pause + jitter) => {}
            _ = stop.changed() => {}
        }
        pause *= 2;
    }
    counts.dropped.fetch_add(count, Relaxed);
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
async fn send(outbox: &Outbox, engine: &Engine, message: &Bytes) -> Result<u64, SideError> {
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
            match response.status() {
                status if status.is_success() => {
                    Ok(Answer::decode(response.into_body()).map_or(0, |answer| answer.rejected()))
                }
                StatusCode::TOO_MANY_REQUESTS
                | StatusCode::BAD_GATEWAY
                | StatusCode::SERVICE_UNAVAILABLE
                | StatusCode::GATEWAY_TIMEOUT => Err(SideError::Status(14, response.status().to_string())),
                status => Err(SideError::Status(3, status.to_string())),
            }
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

/// Whether the same may work later, as OTLP has it.
fn is_passing(error: &SideError) -> bool {
    match error {
        SideError::NoCluster | SideError::NoHost | SideError::Timeout | SideError::Failed(_) => true,
        // CANCELLED, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, ABORTED, OUT_OF_RANGE, UNAVAILABLE, DATA_LOSS.
        SideError::Status(code, _) => matches!(code, 1 | 4 | 8 | 10 | 11 | 14 | 15),
        SideError::TooLarge | SideError::Malformed => false,
    }
}
