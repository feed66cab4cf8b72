//! Endpoints that change all the time, and how soon a change is in use.

use std::{
    net::SocketAddr,
    rc::Rc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use hdrhistogram::Histogram;
use outrigger_wire::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;

use super::{ads::Ads, histogram, http1, micros, pacer::Pacer};

/// How long a change may take before the measurement is given up.
const PATIENCE: Duration = Duration::from_secs(10);

/// Puts `rate` changes a second into `ads` until dropped; `change(n)` makes the n-th.
pub(crate) async fn updates(ads: &Ads, rate: f64, change: impl Fn(u64) -> ClusterLoadAssignment) -> anyhow::Result<()> {
    let mut pacer = Pacer::new()?;
    let start = Instant::now();
    for n in 0.. {
        pacer.until(start + Duration::from_secs_f64(n as f64 / rate)).await?;
        ads.put(&change(n));
        tokio::task::yield_now().await;
    }
    Ok(())
}

/// Two servers that answer with bodies of their own, and the clusters' endpoints with one or the other.
pub(crate) struct Flip {
    /// Start of the body, endpoints.
    pub(crate) sides: [(u8, ClusterLoadAssignment); 2],
    pub(crate) times: usize,
}

/// Moves the cluster from one server to the other and back: the time from handing the change to the control plane until
/// the first request that the new server answered was sent. One request follows the other, so the truth is less than
/// one round trip below.
pub(crate) async fn flips(ads: &Ads, to: SocketAddr, request: Rc<[u8]>, flip: &Flip) -> anyhow::Result<Histogram<u64>> {
    let mut latency = histogram();
    let mut connection = http1::Connection::open(to).await?;
    for n in 0..flip.times {
        let (letter, endpoints) = &flip.sides[(n + 1) % 2];
        // Changes that come at one phase of the others would all meet the same neighbours.
        tokio::time::sleep(Duration::from_millis(20 + (n as u64 * 7) % 13)).await;
        let start = Instant::now();
        ads.put(endpoints);
        loop {
            let sent = Instant::now();
            let (head, first) = connection.exchange(&request).await.context("the probing connection")?;
            if head.status != 200 {
                bail!("status {} while endpoints change", head.status);
            }
            if first == Some(*letter) {
                latency.saturating_record(micros(sent - start).max(1));
                break;
            }
            if start.elapsed() > PATIENCE {
                bail!("a change was not in use after {PATIENCE:?}; refused: {:?}", ads.refused());
            }
        }
    }
    Ok(latency)
}
