//! What takes hosts out of load balancing at run time, as far as their traffic shows it.

use std::time::Duration;

/// `OutlierDetection`; percentages are whole, thresholds of 0 are off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutlierDetection {
    pub interval: Duration,
    pub base_ejection_time: Duration,
    /// At least the base.
    pub max_ejection_time: Duration,
    pub max_ejection_time_jitter: Duration,
    pub max_ejection_percent: u32,
    /// The first host is ejected whatever share of the cluster it is.
    pub always_eject_one_host: bool,
    /// Failures of our own making (connects, timeouts, resets) are told apart from the host's error responses.
    pub split_local_origin: bool,
    pub consecutive_5xx: Consecutive,
    pub consecutive_gateway_failure: Consecutive,
    /// Only with `split_local_origin`.
    pub consecutive_local_origin_failure: Consecutive,
    pub success_rate: SuccessRate,
    pub failure_percentage: FailurePercentage,
    /// A passed active check returns an ejected host at once.
    pub active_check_unejects: bool,
}

/// So many failures in a row, and with which probability (in percent) they eject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Consecutive {
    pub threshold: u32,
    pub enforcing: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SuccessRate {
    pub enforcing: u32,
    pub enforcing_local_origin: u32,
    pub minimum_hosts: u32,
    pub request_volume: u32,
    /// In thousandths.
    pub stdev_factor: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailurePercentage {
    pub enforcing: u32,
    pub enforcing_local_origin: u32,
    pub threshold: u32,
    pub minimum_hosts: u32,
    pub request_volume: u32,
}

impl Default for OutlierDetection {
    /// Envoy's defaults.
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(10),
            base_ejection_time: Duration::from_secs(30),
            max_ejection_time: Duration::from_secs(300),
            max_ejection_time_jitter: Duration::ZERO,
            max_ejection_percent: 10,
            always_eject_one_host: false,
            split_local_origin: false,
            consecutive_5xx: Consecutive { threshold: 5, enforcing: 100 },
            consecutive_gateway_failure: Consecutive { threshold: 5, enforcing: 0 },
            consecutive_local_origin_failure: Consecutive { threshold: 5, enforcing: 100 },
            success_rate: SuccessRate {
                enforcing: 100,
                enforcing_local_origin: 100,
                minimum_hosts: 5,
                request_volume: 100,
                stdev_factor: 1900,
            },
            failure_percentage: FailurePercentage {
                enforcing: 0,
                enforcing_local_origin: 0,
                threshold: 85,
                minimum_hosts: 5,
                request_volume: 50,
            },
            active_check_unejects: true,
        }
    }
}
