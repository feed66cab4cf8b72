//! The network filters of a chain, run in configured order once its TLS is done and before its terminal filter.
//!
//! A closed enum with one asynchronous step per filter. They look at the connection, never at its bytes, so nothing is
//! dialled for a connection that is refused, and a server that speaks first says nothing to it. Invariant: the terminal
//! filter runs only if every filter let the connection pass.

use std::{borrow::Cow, time::Duration};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    live::{LiveNetwork, LiveNetworkFilter},
    net::io::Io,
    telemetry::{flags::Flags, record::ConnInfo},
    worker::Worker,
};

/// A filter does not want the connection.
pub(super) struct Refusal {
    pub(super) flags: Flags,
    /// For the access log.
    pub(super) details: Cow<'static, str>,
    /// How long the connection is kept before it is closed.
    pub(super) delay: Option<Duration>,
}

/// How long, and for how many bytes, a peer that was turned away may go on sending.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 64 << 10;

impl Refusal {
    /// Closes the connection. What the peer still sends is read and dropped for a while: closing a socket with unread
    /// bytes resets it.
    pub(super) async fn end(&self, io: &mut Io) {
        if let Some(delay) = self.delay {
            tokio::time::sleep(delay).await;
        }
        let lingering = async {
            io.shutdown().await?;
            let mut scratch = vec![0; 1024];
            let mut left = LINGER_BYTES;
            while left > 0 {
                match io.read(&mut scratch).await? {
                    0 => break,
                    n => left = left.saturating_sub(n),
                }
            }
            std::io::Result::Ok(())
        };
        let _ = tokio::time::timeout(LINGER, lingering).await;
    }
}

/// Asks every filter.
pub(super) async fn run(worker: &Worker, network: &LiveNetwork, info: &ConnInfo) -> Result<(), Refusal> {
    for filter in &network.filters {
        step(worker, filter, info).await?;
    }
    Ok(())
}

/// Whether the filters that decide by themselves would let a connection pass. Counts nothing.
pub(super) fn would_pass(network: &LiveNetwork, info: &ConnInfo) -> bool {
    network.filters.iter().all(|filter| match filter {
        LiveNetworkFilter::Rbac(rbac) => super::rbac::allows(rbac, info),
    })
}

/// Asks the filters again about a connection that they let pass: whether they would refuse it now, and why.
pub(super) fn again(network: &LiveNetwork, info: &ConnInfo) -> Option<String> {
    network.filters.iter().find_map(|filter| match filter {
        LiveNetworkFilter::Rbac(rbac) => super::rbac::refusal(rbac, info),
    })
}

/// What one filter says.
async fn step(_worker: &Worker, filter: &LiveNetworkFilter, info: &ConnInfo) -> Result<(), Refusal> {
    match filter {
        LiveNetworkFilter::Rbac(rbac) => super::rbac::check(rbac, info),
    }
}
