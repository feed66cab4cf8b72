//! Statistics of rate limits, under Envoy's names.

use crate::block;

block! {
    /// `<stat_prefix>.http_local_rate_limit.*`.
    pub struct LocalLimitStats {
        counters {
            enabled, enforced, rate_limited, ok, shadow_mode,
        }
        gauges {}
    }
}

block! {
    /// `local_rate_limit.<stat_prefix>.*`, of connections.
    pub struct ConnectionLimitStats { counters { rate_limited } gauges {} }
}

block! {
    /// `ratelimit.<stat_prefix>.*`, of connections.
    pub struct GlobalConnectionLimitStats {
        counters { total, error, over_limit, ok, cx_closed, failure_mode_allowed }
        gauges { active }
    }
}
