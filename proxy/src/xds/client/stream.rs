//! The shell around a protocol machine: one gRPC stream, reconnected for ever.

use std::{collections::BTreeMap, pin::pin, sync::Arc, time::Duration};

use futures_util::{FutureExt, StreamExt, TryFutureExt};
use http::uri::PathAndQuery;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, sleep, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, client::Grpc};
use tonic_prost::ProstCodec;

use super::{
    Interests, Protocol, Settled,
    backoff::Backoff,
    grpc::{Dialer, chain, describe},
};
use crate::{
    ir::{ConfigSource, Name},
    xds::{
        driver::{Event, Report},
        kind::Kind,
    },
};

/// How long a server may refuse to read before the stream counts as dead.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);

/// Responses handed to the driver before the verdict on the first is waited for, so that those that queued up come into
/// force together; and their bytes.
const AHEAD: usize = 64;
const AHEAD_BYTES: usize = 1 << 20;

/// One stream's configuration and its ends towards the driver.
#[derive(Debug)]
pub struct Stream {
    /// In status and logs.
    pub label: Arc<str>,
    pub source: ConfigSource,
    /// The type of a separate stream; `None` is the aggregated one.
    pub kind: Option<Kind>,
    pub cluster: Name,
    pub authority: Option<Box<str>>,
    pub metadata: Vec<(Box<str>, Box<str>)>,
    pub dialer: Arc<Dialer>,
    pub interests: watch::Receiver<Arc<Interests>>,
    pub(in crate::xds) events: mpsc::Sender<Event>,
}

impl Stream {
    /// Runs until the driver is gone; cancel safe.
    pub async fn run<P: Protocol>(mut self, mut protocol: P) {
        let options = &self.dialer.options;
        let mut backoff = Backoff::new(options.backoff_base, options.backoff_max);
        loop {
            if self.interests.wait_for(|i| !i.is_empty()).await.is_err() {
                return;
            }
            let mut connected = None;
            let Err(reason) = self.session(&mut protocol, &mut connected).await else { return };
            if let Some(since) = connected {
                let since: Instant = since;
                backoff.lived(since.elapsed());
            }
            let wait = backoff.next(fastrand::f64());
            tracing::warn!(source = %self.label, reason, retry_in = ?wait, "xDS stream ended");
            if self.report(Report::Failed(reason)).await.is_err() {
                return;
            }
            sleep(wait).await;
        }
    }

    /// One stream from connection to end; `Ok` only when the driver is gone.
    async fn session<P: Protocol>(&mut self, protocol: &mut P, connected: &mut Option<Instant>) -> Result<(), String> {
        let metadata = self.dialer.metadata(&self.cluster, &self.metadata).await?;
        let channel = self.dialer.channel(&self.cluster, self.authority.as_deref()).await?;
        *connected = Some(Instant::now());
        let Ok(held) = self.held().await else { return Ok(()) };
        if self.report(Report::Connected).await.is_err() {
            return Ok(());
        }
        protocol.connected(held);
        let mut wanted = Arc::clone(&self.interests.borrow_and_update());
        protocol.want(&wanted);
        let (send, receive) = mpsc::channel(32);
        flush(protocol, &send).await?;
        let mut request = Request::new(ReceiverStream::new(receive));
        *request.metadata_mut() = metadata;
        let mut grpc = Grpc::new(channel).max_decoding_message_size(self.dialer.options.max_message);
        let path = PathAndQuery::from_static(P::path(self.kind));
        let open = async move {
            grpc.ready().await.map_err(|e| tonic::Status::unavailable(chain(&e)))?;
            let codec = ProstCodec::<P::Request, P::Response>::default();
            grpc.streaming(request, path, codec).await.map(Response::into_inner)
        };
        // Servers may hold back even the response headers until they have something to say, so opening must not be
        // waited for alone: subscriptions may change meanwhile.
        let mut inbound = pin!(open.try_flatten_stream());
        let mut complained = false;
        let mut refusals = 0;
        loop {
            let (mut responses, mut end) = (Vec::new(), None);
            tokio::select! {
                changed = self.interests.changed() => {
                    if changed.is_err() {
                        return Ok(());
                    }
                }
                first = inbound.next() => {
                    let (mut message, mut size) = (Some(first), 0);
                    while let Some(next) = message.take() {
                        match next {
                            Some(Ok(response)) => {
                                size += prost::Message::encoded_len(&response);
                                responses.push(response);
                            }
                            Some(Err(status)) => end = Some(describe(&status)),
                            None => end = Some("closed by the server".to_owned()),
                        }
                        if end.is_none() && responses.len() < AHEAD && size < AHEAD_BYTES {
                            message = inbound.next().now_or_never();
                        }
                    }
                }
            }
            let mut verdicts = Vec::with_capacity(responses.len());
            for response in responses {
                match protocol.received(response) {
                    Ok(update) => {
                        let (kind, version, nonce) = (update.kind, update.version.clone(), update.nonce.clone());
                        let (reply, verdict) = oneshot::channel();
                        let event = Event::Update { source: self.source.clone(), update, reply };
                        if self.events.send(event).await.is_err() {
                            return Ok(());
                        }
                        verdicts.push((Settled { kind, version, nonce }, verdict));
                    }
                    Err(reason) if !complained => {
                        complained = true;
                        tracing::warn!(source = %self.label, reason, "xDS response ignored");
                    }
                    Err(_) => {}
                }
            }
            for (settled, verdict) in verdicts {
                let Ok(error) = verdict.await else { return Ok(()) };
                refusals = if error.is_some() { u32::saturating_add(refusals, 1) } else { 0 };
                // Not even a sleep of zero: the timer rounds it up to its next millisecond.
                let pause = restraint(refusals);
                if !pause.is_zero() {
                    sleep(pause).await;
                }
                protocol.settled(&settled, error);
                // One by one: the state of the world has room for one answer per type.
                flush(protocol, &send).await?;
            }
            if let Some(reason) = end {
                return Err(reason);
            }
            let now_wanted = Arc::clone(&self.interests.borrow_and_update());
            if !Arc::ptr_eq(&wanted, &now_wanted) {
                wanted = now_wanted;
                protocol.want(&wanted);
            }
            flush(protocol, &send).await?;
        }
    }

    async fn held(&self) -> Result<BTreeMap<Kind, BTreeMap<String, String>>, ()> {
        let kinds = self.kind.map_or(Kind::ALL.to_vec(), |kind| vec![kind]);
        let (reply, answer) = oneshot::channel();
        self.events.send(Event::Held { source: self.source.clone(), kinds, reply }).await.map_err(drop)?;
        answer.await.map_err(drop)
    }

    async fn report(&self, report: Report) -> Result<(), ()> {
        self.events.send(Event::Report { label: Arc::clone(&self.label), report }).await.map_err(drop)
    }
}

/// The pause before one more refusal in a row: a server that answers each with the same again would spin both sides.
fn restraint(refusals: u32) -> Duration {
    match refusals.checked_sub(4) {
        None => Duration::ZERO,
        Some(more) => Duration::from_millis(50 << more.min(5)),
    }
}

async fn flush<P: Protocol>(protocol: &mut P, send: &mpsc::Sender<P::Request>) -> Result<(), String> {
    while let Some(request) = protocol.next() {
        match timeout(SEND_TIMEOUT, send.send(request)).await {
            Ok(Ok(())) => {}
            // The receiving half ended; the inbound side knows why and says it next.
            Ok(Err(_)) => return Ok(()),
            Err(_) => return Err(format!("the server reads nothing for {SEND_TIMEOUT:?}")),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_refusals_slow_down_but_never_stop() {
        let waits: Vec<u128> = (0..12).map(|n| restraint(n).as_millis()).collect();
        assert_eq!(waits, [0, 0, 0, 0, 50, 100, 200, 400, 800, 1600, 1600, 1600]);
        assert_eq!(restraint(u32::MAX).as_millis(), 1600);
    }
}
