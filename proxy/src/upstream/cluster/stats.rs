//! Everything that can be counted of a cluster, under Envoy's names: what the workers counted, and what follows from
//! its state at the moment somebody asks. A cluster that nobody uses stays as small as it is.

use super::{Cluster, Parts};
use crate::{
    ir::endpoint::Health,
    telemetry::metrics::Kind,
    upstream::{
        HealthFlag,
        breaker::{Breaker, Level},
    },
};

type Visitor<'a> = &'a mut dyn FnMut(&'static str, Kind, u64);

impl Cluster {
    /// Visits every value as (metric, kind, value).
    pub fn visit_stats(&self, visitor: Visitor<'_>) {
        for (metric, kind, value) in self.stats.totals() {
            visitor(metric, kind, value);
        }
        let latest = self.latest().map(|(parts, _)| parts);
        self.visit_membership(latest.as_deref(), visitor);
        let runtime = latest.as_ref().map(|parts| &parts.runtime);
        self.visit_balancing(latest.as_deref(), visitor);
        let config = &self.config;
        let unused = |thresholds| Breaker::new(thresholds);
        match runtime {
            Some(runtime) => {
                visit_breaker(&runtime.default, &DEFAULT, config.breaker.track_remaining, visitor);
                visit_breaker(&runtime.high, &HIGH, config.breaker_high.track_remaining, visitor);
            }
            None => {
                visit_breaker(&unused(&config.breaker), &DEFAULT, config.breaker.track_remaining, visitor);
                visit_breaker(&unused(&config.breaker_high), &HIGH, config.breaker_high.track_remaining, visitor);
            }
        }
        if config.outlier().is_some() {
            self.outlier_stats().visit(visitor);
        }
        if config.check().is_some() {
            self.check_stats().visit(visitor);
            let members = || latest.iter().flat_map(|parts| parts.members());
            let with = |flag| members().filter(|m| m.endpoint.has_flag(flag)).count() as u64;
            let healthy = members().count() as u64 - with(HealthFlag::FailedActiveCheck);
            visitor("health_check.healthy", Kind::Gauge, healthy);
            visitor("health_check.degraded", Kind::Gauge, with(HealthFlag::DegradedActiveCheck));
        }
    }

    fn visit_membership(&self, latest: Option<&Parts>, visitor: Visitor<'_>) {
        let (mut total, mut healthy, mut degraded) = (0u64, 0u64, 0u64);
        let mut count = |health: Health| {
            total += 1;
            healthy += u64::from(health == Health::Healthy);
            degraded += u64::from(health == Health::Degraded);
        };
        match latest {
            Some(parts) => parts.members().iter().for_each(|m| count(m.endpoint.health(m.health))),
            None => {
                let localities = self.assignment.iter().flat_map(|a| &a.localities);
                localities.flat_map(|l| &l.endpoints).for_each(|e| count(e.health));
            }
        }
        visitor("membership_total", Kind::Gauge, total);
        visitor("membership_healthy", Kind::Gauge, healthy);
        visitor("membership_degraded", Kind::Gauge, degraded);
        visitor("membership_change", Kind::Counter, self.life.changes().into());
    }

    /// Of clusters that know subsets or zones.
    fn visit_balancing(&self, latest: Option<&Parts>, visitor: Visitor<'_>) {
        let options = &self.config.lb_options;
        if options.subsets.is_none() && options.zone_aware.is_none() {
            return;
        }
        let Some(parts) = latest else { return };
        for (metric, kind, value) in parts.runtime.balancing.totals() {
            visitor(metric, kind, value);
        }
        if options.subsets.is_some() {
            visitor("lb_subsets_active", Kind::Gauge, parts.balancer.subsets().count() as u64);
        }
    }
}

/// The names of one priority: what is open, and what is left; in the order of [`Level`]s.
type Names = [(&'static str, &'static str); 5];

const DEFAULT: Names = [
    ("circuit_breakers.default.cx_open", "circuit_breakers.default.remaining_cx"),
    ("circuit_breakers.default.rq_pending_open", "circuit_breakers.default.remaining_pending"),
    ("circuit_breakers.default.rq_open", "circuit_breakers.default.remaining_rq"),
    ("circuit_breakers.default.rq_retry_open", "circuit_breakers.default.remaining_retries"),
    ("circuit_breakers.default.cx_pool_open", "circuit_breakers.default.remaining_cx_pools"),
];
const HIGH: Names = [
    ("circuit_breakers.high.cx_open", "circuit_breakers.high.remaining_cx"),
    ("circuit_breakers.high.rq_pending_open", "circuit_breakers.high.remaining_pending"),
    ("circuit_breakers.high.rq_open", "circuit_breakers.high.remaining_rq"),
    ("circuit_breakers.high.rq_retry_open", "circuit_breakers.high.remaining_retries"),
    ("circuit_breakers.high.cx_pool_open", "circuit_breakers.high.remaining_cx_pools"),
];

fn visit_breaker(breaker: &Breaker, names: &Names, remaining: bool, visitor: Visitor<'_>) {
    for ((open, left), Level { used, max }) in names.iter().zip(breaker.levels()) {
        visitor(open, Kind::Gauge, u64::from(used >= max));
        if remaining {
            visitor(left, Kind::Gauge, u64::from(max.saturating_sub(used)));
        }
    }
}
