//! How the proxy starts, changes and ends.

use std::{path::PathBuf, time::Duration};

use clap::Parser;

const START: &str = "Start";
const END: &str = "Changes and end";
const OVERLOAD: &str = "Overload";

/// Times and bounds of a start, of changes, and of the end.
#[derive(Clone, Debug, Parser)]
pub struct Lifecycle {
    /// Connections held per capture address until there is a configuration; more wait at their clients.
    #[arg(long, env = "OUTRIGGER_HOLD_CONNECTIONS", default_value_t = 1024, value_name = "N", help_heading = START)]
    pub hold_connections: u32,
    /// Bytes taken from each connection that is held.
    #[arg(long, env = "OUTRIGGER_HOLD_BYTES", default_value_t = 65_536, value_name = "BYTES", help_heading = START)]
    pub hold_bytes: u32,
    /// How long connections are held, in seconds; after it they are refused until there is a configuration. 0: no limit.
    #[arg(long, env = "OUTRIGGER_HOLD_TIME_S", default_value_t = 60, value_name = "SECONDS", help_heading = START)]
    pub hold_time_s: u64,
    /// Keep the last good configuration in this folder (without keys), and start with it when the control plane does not
    /// deliver. Nothing is kept without it.
    #[arg(long, env = "OUTRIGGER_STATE_DIR", value_name = "DIR", help_heading = START)]
    pub state_dir: Option<PathBuf>,
    /// A kept configuration that no control plane confirmed for so long is not used, in seconds.
    #[arg(
        long,
        env = "OUTRIGGER_STATE_MAX_AGE_S",
        default_value_t = 86_400,
        value_name = "SECONDS",
        value_parser = clap::value_parser!(u64).range(1..),
        help_heading = START
    )]
    pub state_max_age_s: u64,
    /// How long the control plane has to deliver before the kept configuration is used, in seconds; less when its stream
    /// fails twice, or once and does not come back in 2 s.
    #[arg(long, env = "OUTRIGGER_STATE_PATIENCE_S", default_value_t = 5, value_name = "SECONDS", help_heading = START)]
    pub state_patience_s: u64,

    /// Percent of the memory limit, and of the file descriptors, from which on new connections and requests are refused;
    /// halfway from there to all of it idle connections are closed as well. 0: never.
    #[arg(
        long,
        env = "OUTRIGGER_OVERLOAD_PERCENT",
        default_value_t = 90,
        value_name = "PERCENT",
        value_parser = clap::value_parser!(u8).range(..=99),
        help_heading = OVERLOAD
    )]
    pub overload_percent: u8,
    /// Memory that the process may use; the limit of its cgroup (v1 or v2) by default, without one there is none.
    #[arg(long, env = "OUTRIGGER_OVERLOAD_MEMORY", value_name = "BYTES", help_heading = OVERLOAD)]
    pub overload_memory: Option<u64>,

    /// Requests under way at once in the whole process; more are answered 503. No bound by default.
    #[arg(
        long,
        env = "OUTRIGGER_MAX_REQUESTS",
        value_name = "N",
        value_parser = clap::value_parser!(u64).range(1..),
        help_heading = OVERLOAD
    )]
    pub max_requests: Option<u64>,

    /// Time for connections to end on SIGTERM, in seconds, before they are cut.
    #[arg(
        long,
        default_value_t = 30,
        env = "OUTRIGGER_DRAIN_TIME_S",
        value_name = "SECONDS",
        value_parser = clap::value_parser!(u64).range(..=86_400),
        help_heading = END
    )]
    pub drain_time_s: u64,
    /// Time for which inbound connections are still accepted after SIGTERM, in seconds, while callers learn that this
    /// proxy goes away. A proxy that nobody is connected to ends at once after `/quitquitquit` or with `--exit-when`.
    #[arg(
        long,
        default_value_t = 5,
        env = "OUTRIGGER_MIN_DRAIN_TIME_S",
        value_name = "SECONDS",
        value_parser = clap::value_parser!(u64).range(..=86_400),
        help_heading = END
    )]
    pub min_drain_time_s: u64,
    /// Time for connections whose filter chain an update removed, in seconds, before they are cut, spread over 10 s.
    #[arg(
        long,
        default_value_t = 600,
        env = "OUTRIGGER_CHAIN_DRAIN_TIME_S",
        value_name = "SECONDS",
        value_parser = clap::value_parser!(u64).range(..=86_400),
        help_heading = END
    )]
    pub chain_drain_time_s: u64,
    /// Ports of the application, comma-separated. On SIGTERM outbound traffic is served until nobody listens on any of
    /// them; and when that is so for 5 s without SIGTERM, the proxy ends by itself.
    #[arg(
        long,
        env = "OUTRIGGER_EXIT_WHEN",
        value_delimiter = ',',
        value_name = "PORT",
        value_parser = clap::value_parser!(u16).range(1..),
        help_heading = END
    )]
    pub exit_when: Vec<u16>,
}

impl Lifecycle {
    pub fn drain_time(&self) -> Duration {
        Duration::from_secs(self.drain_time_s)
    }

    pub fn min_drain_time(&self) -> Duration {
        Duration::from_secs(self.min_drain_time_s)
    }

    pub fn chain_drain_time(&self) -> Duration {
        Duration::from_secs(self.chain_drain_time_s)
    }

    /// How long connections are held; `None` is for ever.
    pub fn hold_time(&self) -> Option<Duration> {
        (self.hold_time_s > 0).then(|| Duration::from_secs(self.hold_time_s))
    }

    pub fn state_max_age(&self) -> Duration {
        Duration::from_secs(self.state_max_age_s)
    }

    pub fn state_patience(&self) -> Duration {
        Duration::from_secs(self.state_patience_s)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_that_no_clock_reaches_are_refused() {
        for flag in ["--drain-time-s", "--min-drain-time-s", "--chain-drain-time-s"] {
            let given = |seconds: &str| Lifecycle::try_parse_from(["outrigger-proxy", flag, seconds]);
            assert!(
                given("86400").is_ok() && given("86401").is_err() && given("18446744073709551615").is_err(),
                "{flag}"
            );
        }
    }
}
