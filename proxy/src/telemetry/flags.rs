//! Envoy's response flags: why a request or connection ended as it did.

use std::fmt;

/// A set of response flags.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Flags(u32);

macro_rules! flags {
    ($($(#[$doc:meta])* $name:ident = $bit:literal, $short:literal;)*) => {
        impl Flags {
            $($(#[$doc])* pub const $name: Self = Self(1 << $bit);)*
            const NAMES: &[(Self, &'static str)] = &[$((Self::$name, $short),)*];
        }
    };
}

// In the order they are named: why there was no other try comes before what the last one came to.
flags! {
    UPSTREAM_RETRY_LIMIT_EXCEEDED = 4, "URX";
    /// A circuit breaker was open.
    UPSTREAM_OVERFLOW = 2, "UO";
    /// No healthy upstream host.
    NO_HEALTHY_UPSTREAM = 0, "UH";
    /// The upstream connection could not be made.
    UPSTREAM_CONNECTION_FAILURE = 1, "UF";
    /// No route, or no filter chain.
    NO_ROUTE = 3, "NR";
    NO_CLUSTER = 5, "NC";
    DURATION_TIMEOUT = 6, "DT";
    DOWNSTREAM_CONNECTION_TERMINATION = 7, "DC";
    LOCAL_RESET = 8, "LR";
    UPSTREAM_REMOTE_RESET = 9, "UR";
    UPSTREAM_CONNECTION_TERMINATION = 10, "UC";
    UPSTREAM_REQUEST_TIMEOUT = 11, "UT";
    STREAM_IDLE_TIMEOUT = 12, "SI";
    DOWNSTREAM_PROTOCOL_ERROR = 13, "DPE";
    UPSTREAM_PROTOCOL_ERROR = 14, "UPE";
    UPSTREAM_MAX_STREAM_DURATION = 15, "UMSDR";
    RATE_LIMITED = 16, "RL";
    UNAUTHORIZED = 17, "UAEX";
    DELAY_INJECTED = 18, "DI";
    FAULT_INJECTED = 19, "FI";
    OVERLOAD = 20, "OM";
    DNS_FAILURE = 21, "DF";
    RATE_LIMIT_SERVICE_ERROR = 22, "RLSE";
}

impl Flags {
    pub fn insert(&mut self, other: Self) {
        self.0 |= other.0;
    }

    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl fmt::Display for Flags {
    /// Comma-separated short names, `-` when there is none.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("-");
        }
        let mut first = true;
        for (flag, name) in Self::NAMES {
            if self.contains(*flag) {
                if !first {
                    f.write_str(",")?;
                }
                first = false;
                f.write_str(name)?;
            }
        }
        Ok(())
    }
}
