//! Statistics without contention: every worker writes its own block, a scrape adds the blocks up.
//!
//! A block is allocated when a worker first touches it, and the pointers to the blocks when the first worker does, so a
//! configured but unused cluster costs next to nothing. Handles are resolved once per connection or configuration change; an increment is one uncontended add.

use std::{
    cell::Cell,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use super::histogram::{Distribution, Histogram};

thread_local! {
    static SHARD: Cell<usize> = const { Cell::new(0) };
}

/// Binds the calling thread to shard `index`; the control thread and tests are shard 0, workers count from 1.
pub fn set_shard(index: usize) {
    SHARD.with(|s| s.set(index));
}

static PANICS: Counter = Counter(AtomicU64::new(0));

/// Panics of the whole process; the panic hook counts them. Each is a bug and has cost a connection.
pub fn panics() -> &'static Counter {
    &PANICS
}

static SHARDS: OnceLock<usize> = OnceLock::new();

/// Fixes the number of shards (workers + 1) before the first block exists; later calls change nothing.
pub fn set_shards(count: usize) {
    let _ = SHARDS.set(count.max(1));
}

/// How many shards there are.
pub fn shards() -> usize {
    *SHARDS.get_or_init(|| 1)
}

/// The calling thread's shard.
pub fn shard() -> usize {
    SHARD.with(Cell::get)
}

/// A set of counters and gauges that can be listed by name.
pub trait Block: Default + Send + Sync + 'static {
    fn visit(&self, visitor: &mut dyn FnMut(&'static str, Kind, u64));

    /// Its distributions, if it has any.
    fn visit_histograms(&self, _: &mut dyn FnMut(&'static str, &Histogram)) {}
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
}

/// One block per worker.
#[derive(Debug)]
pub struct Sharded<T> {
    shards: OnceLock<Box<[OnceLock<Box<T>>]>>,
}

impl<T> Default for Sharded<T> {
    fn default() -> Self {
        Self { shards: OnceLock::new() }
    }
}

impl<T: Block> Sharded<T> {
    /// The calling worker's block.
    pub fn local(&self) -> &T {
        self.of(shard())
    }

    fn of(&self, index: usize) -> &T {
        let shards = self.shards.get_or_init(|| (0..shards()).map(|_| OnceLock::new()).collect());
        shards[index.min(shards.len() - 1)].get_or_init(Box::default)
    }

    /// The one block for levels that are set, not counted: what the whole process has one of.
    pub fn shared(&self) -> &T {
        self.of(0)
    }

    /// Sums all blocks; nothing is visited when no worker ever touched it.
    pub fn totals(&self) -> Vec<(&'static str, Kind, u64)> {
        let mut totals: Vec<(&'static str, Kind, u64)> = Vec::new();
        for block in self.shards.get().into_iter().flatten().filter_map(OnceLock::get) {
            let mut index = 0;
            block.visit(&mut |name, kind, value| {
                match totals.get_mut(index) {
                    Some(total) => total.2 = total.2.wrapping_add(value),
                    None => totals.push((name, kind, value)),
                }
                index += 1;
            });
        }
        totals
    }

    /// The sums of all distributions.
    pub fn distributions(&self) -> Vec<(&'static str, Distribution)> {
        let mut all: Vec<(&'static str, Distribution)> = Vec::new();
        for block in self.shards.get().into_iter().flatten().filter_map(OnceLock::get) {
            let mut index = 0;
            block.visit_histograms(&mut |name, histogram| {
                match all.get_mut(index) {
                    Some((_, sum)) => sum.add(&histogram.read()),
                    None => all.push((name, histogram.read())),
                }
                index += 1;
            });
        }
        all
    }
}

/// A monotonic count.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn inc(&self) {
        self.add(1);
    }

    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A level. One worker may see it below zero (another worker took what it gave back); the sum over workers is right.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    pub fn inc(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    pub fn dec(&self) {
        self.0.fetch_sub(1, Relaxed);
    }

    /// For levels in a [`Sharded::shared`] block.
    pub fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Declares a [`Block`]: `block! { /// doc pub struct Name { counter a, b; gauge c; } }`.
#[macro_export]
macro_rules! block {
    ($(#[$meta:meta])* pub struct $name:ident {
        counters { $($c:ident),* $(,)? } gauges { $($g:ident),* $(,)? } $(histograms { $($h:ident),* $(,)? })?
    }) => {
        $(#[$meta])*
        #[derive(Debug, Default)]
        #[repr(align(128))]
        pub struct $name {
            $(pub $c: $crate::telemetry::metrics::Counter,)*
            $(pub $g: $crate::telemetry::metrics::Gauge,)*
            $($(pub $h: $crate::telemetry::histogram::Histogram,)*)?
        }
        impl $crate::telemetry::metrics::Block for $name {
            fn visit(&self, visitor: &mut dyn FnMut(&'static str, $crate::telemetry::metrics::Kind, u64)) {
                $(visitor(stringify!($c), $crate::telemetry::metrics::Kind::Counter, self.$c.get());)*
                $(visitor(stringify!($g), $crate::telemetry::metrics::Kind::Gauge, self.$g.get());)*
            }
            $(
                fn visit_histograms(&self, visitor: &mut dyn FnMut(&'static str, &$crate::telemetry::histogram::Histogram)) {
                    $(visitor(stringify!($h), &self.$h);)*
                }
            )?
        }
    };
}

block! {
    /// `cluster.<name>.*`, Envoy's names.
    pub struct ClusterStats {
        counters {
            upstream_cx_total, upstream_cx_http1_total, upstream_cx_http2_total, upstream_cx_connect_fail,
            upstream_cx_connect_timeout, upstream_cx_overflow, upstream_cx_destroy, upstream_cx_idle_timeout,
            upstream_cx_rx_bytes_total, upstream_cx_tx_bytes_total, upstream_cx_none_healthy, lb_healthy_panic, upstream_cx_pool_overflow,
            upstream_rq_total, upstream_rq_completed, upstream_rq_1xx, upstream_rq_2xx, upstream_rq_3xx,
            upstream_rq_4xx, upstream_rq_5xx, upstream_rq_timeout, upstream_rq_per_try_timeout,
            upstream_rq_per_try_idle_timeout, upstream_rq_max_duration_reached,
            upstream_rq_retry, upstream_rq_retry_success, upstream_rq_retry_overflow, upstream_rq_retry_limit_exceeded,
            upstream_rq_retry_backoff_exponential, upstream_rq_retry_backoff_ratelimited, retry_or_shadow_abandoned,
            upstream_rq_pending_total, upstream_rq_pending_overflow, upstream_rq_cancelled, upstream_rq_rx_reset,
            upstream_rq_tx_reset, upstream_rq_replayed, upstream_internal_redirect_succeeded_total,
            upstream_internal_redirect_failed_total, ssl_handshake, ssl_connection_error, ssl_session_reused,
            ssl_fail_verify_error, ssl_fail_verify_san,
            update_attempt, update_success, update_failure, update_empty,
            ratelimit_ok, ratelimit_error, ratelimit_over_limit, ratelimit_failure_mode_allowed, ratelimit_fallback_ok,
            ratelimit_fallback_over_limit,
        }
        gauges { upstream_cx_active, upstream_rq_active, upstream_rq_pending_active }
        histograms { upstream_rq_time, upstream_cx_connect_ms }
    }
}

block! {
    /// `cluster.<name>.*` of clusters with subsets or zone-aware routing.
    pub struct BalancerStats {
        counters {
            lb_subsets_selected, lb_subsets_fallback, lb_subsets_fallback_panic, lb_subsets_created,
            lb_subsets_removed, lb_zone_routing_all_directly, lb_zone_routing_sampled, lb_zone_routing_cross_zone,
            lb_zone_no_capacity_left, lb_local_cluster_not_ok,
        }
        gauges {}
    }
}

block! {
    /// `http.<stat_prefix>.*`, Envoy's names.
    pub struct HttpStats {
        counters {
            downstream_cx_total, downstream_cx_http1_total, downstream_cx_http2_total, downstream_cx_upgrades_total,
            downstream_cx_protocol_error, downstream_cx_idle_timeout, downstream_cx_max_duration_reached,
            downstream_cx_drain_close, downstream_cx_destroy,
            downstream_rq_total, downstream_rq_completed, downstream_rq_http1_total, downstream_rq_http2_total,
            downstream_rq_1xx, downstream_rq_2xx, downstream_rq_3xx, downstream_rq_4xx, downstream_rq_5xx,
            downstream_rq_timeout, downstream_rq_header_timeout, downstream_rq_idle_timeout,
            downstream_rq_max_duration_reached, downstream_rq_too_large, downstream_rq_rx_reset, downstream_rq_tx_reset,
            downstream_rq_redirected_with_normalized_path, downstream_rq_failed_path_normalization,
            downstream_rq_ws_on_non_ws_route, downstream_rq_overload_close, no_route, no_cluster, rq_direct_response, rq_redirect, rq_total,
        }
        gauges { downstream_cx_active, downstream_rq_active, downstream_cx_upgrades_active }
        histograms { downstream_rq_time, downstream_cx_length_ms }
    }
}

block! {
    /// `tcp.<stat_prefix>.*`, Envoy's names.
    pub struct TcpStats {
        counters {
            downstream_cx_total, downstream_cx_no_route, downstream_cx_tx_bytes_total, downstream_cx_rx_bytes_total,
            idle_timeout, max_downstream_connection_duration, downstream_cx_spliced, downstream_cx_overload_close,
        }
        gauges { downstream_cx_active }
    }
}

block! {
    /// `listener.<stat_prefix>.*`, Envoy's names.
    pub struct ListenerStats {
        counters {
            downstream_cx_total, downstream_cx_destroy, downstream_cx_overflow, downstream_global_cx_overflow,
            downstream_cx_overload_reject,
            downstream_pre_cx_timeout,
            no_filter_chain_match, ssl_handshake, ssl_connection_error, ssl_fail_verify_no_cert,
            ssl_fail_verify_error, ssl_fail_verify_san, ssl_session_reused, ssl_handshake_timeout,
            downstream_cx_loop, downstream_listener_filter_error, accept_error,
            no_chain_destination, no_chain_plaintext, no_chain_tls, no_chain_server_name, no_chain_protocol,
            no_chain_other, downstream_cx_revoked, strict_mtls_would_deny,
            ssl_fail_no_certificate, ssl_fail_expired, ssl_fail_not_yet_valid, ssl_fail_self_signed,
            ssl_fail_unknown_issuer, ssl_fail_revoked, ssl_fail_purpose, ssl_fail_unpinned, ssl_fail_bad_svid,
            ssl_fail_trust_domain, ssl_fail_name, ssl_fail_certificate, ssl_fail_version, ssl_fail_parameters,
            ssl_fail_not_tls, ssl_fail_alert, ssl_fail_protocol, ssl_fail_timeout, ssl_fail_io, ssl_fail_not_ready,
        }
        gauges { downstream_cx_active, downstream_pre_cx_active }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_add_up_over_threads() {
        set_shards(3);
        let stats = std::sync::Arc::new(Sharded::<TcpStats>::default());
        assert!(stats.totals().is_empty(), "untouched blocks cost nothing");
        let threads: Vec<_> = (1..3)
            .map(|shard| {
                let stats = stats.clone();
                std::thread::spawn(move || {
                    set_shard(shard);
                    stats.local().downstream_cx_total.add(shard as u64);
                    stats.local().downstream_cx_active.inc();
                })
            })
            .collect();
        threads.into_iter().for_each(|t| t.join().unwrap());
        let totals = stats.totals();
        assert!(totals.contains(&("downstream_cx_total", Kind::Counter, 3)), "{totals:?}");
        assert!(totals.contains(&("downstream_cx_active", Kind::Gauge, 2)), "{totals:?}");
    }
}
