//! The settings of one interception: flags and `OUTRIGGER_*` variables, the flag wins.
//!
//! Owns parsing and the checks that need nothing but the settings themselves. It does not know rules or backends.
//! Invariant: an `Options` that went through `validate` can be turned into rules without further checks.

mod values;

#[cfg(test)]
mod tests;

use clap::{Args, ValueEnum};

pub use values::{Cidr, CidrList, CidrSelection, IdList, InterfaceName, PortRange, PortSelection, PortSet};

use crate::error::Error;

/// Ports of the mesh itself that are never captured inbound: metrics, readiness and Envoy's own Prometheus port.
pub const MESH_PORTS: [u16; 3] = [15020, 15021, 15090];

/// HBONE's port: a proxy that calls its own Pod there means the tunnel endpoint, not the application.
pub const HBONE_PORT: u16 = 15008;

/// Whether IPv6 TCP is intercepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Ipv6Mode {
    /// Intercept when the kernel has IPv6; refuse when it has and cannot be intercepted.
    Auto,
    /// Intercept; refuse when that is impossible for whatever reason.
    On,
    /// Leave IPv6 TCP alone, and say so.
    Off,
}

/// Which packet filter the operator asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum BackendChoice {
    /// The backend whose tables are in use; nft where none is.
    Auto,
    /// What the command `iptables` is on this system.
    Iptables,
    /// The legacy x_tables backend, explicitly.
    IptablesLegacy,
    /// Native nftables, table `inet outrigger`.
    Nft,
}

/// Everything that decides the rules.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// Port on which the proxy accepts captured inbound connections
    #[arg(long, env = "OUTRIGGER_INBOUND_PORT", default_value = "15006", value_name = "PORT")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..))]
    pub inbound_port: u16,

    /// Port on which the proxy accepts captured outbound connections
    #[arg(long, env = "OUTRIGGER_OUTBOUND_PORT", default_value = "15001", value_name = "PORT")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..))]
    pub outbound_port: u16,

    /// Numeric user ids of the proxy, comma separated: their traffic is not captured outbound
    #[arg(long, env = "OUTRIGGER_PROXY_UID", default_value = "1337", value_name = "UID,...")]
    pub proxy_uid: IdList,

    /// Numeric group ids of the proxy, comma separated; empty matches by user only
    #[arg(long, env = "OUTRIGGER_PROXY_GID", default_value = "1337", value_name = "GID,...")]
    pub proxy_gid: IdList,

    /// Inbound ports to capture: '*' for all, or a list of ports and ranges (8000-8010); empty for none
    #[arg(long, env = "OUTRIGGER_INCLUDE_INBOUND_PORTS", default_value = "*", value_name = "PORTS")]
    pub include_inbound_ports: PortSelection,

    /// Inbound ports not to capture, besides the mesh's own 15020, 15021, 15090 and the inbound capture port
    #[arg(long, env = "OUTRIGGER_EXCLUDE_INBOUND_PORTS", default_value = "", value_name = "PORTS")]
    pub exclude_inbound_ports: PortSet,

    /// Outbound ports to capture whatever the destination, in addition to the included CIDRs; or '*'
    #[arg(long, env = "OUTRIGGER_INCLUDE_OUTBOUND_PORTS", default_value = "", value_name = "PORTS")]
    pub include_outbound_ports: PortSelection,

    /// Outbound ports not to capture
    #[arg(long, env = "OUTRIGGER_EXCLUDE_OUTBOUND_PORTS", default_value = "", value_name = "PORTS")]
    pub exclude_outbound_ports: PortSet,

    /// Destinations to capture outbound: '*' for all, or a list of CIDRs of both families; empty for none
    #[arg(long, env = "OUTRIGGER_INCLUDE_OUTBOUND_CIDRS", default_value = "*", value_name = "CIDRS")]
    pub include_outbound_cidrs: CidrSelection,

    /// Destinations not to capture outbound (the metadata service, for example)
    #[arg(long, env = "OUTRIGGER_EXCLUDE_OUTBOUND_CIDRS", default_value = "", value_name = "CIDRS")]
    pub exclude_outbound_cidrs: CidrList,

    /// Network interfaces whose traffic is not captured, in neither direction
    #[arg(long, env = "OUTRIGGER_EXCLUDE_INTERFACES", value_delimiter = ',', value_name = "NAME,...")]
    pub exclude_interfaces: Vec<InterfaceName>,

    /// Drop inbound TCP packets that connection tracking calls INVALID (they make the kernel reset live connections)
    #[arg(long, env = "OUTRIGGER_DROP_INVALID", default_value = "false", num_args = 0..=1)]
    #[arg(default_missing_value = "true", require_equals = true, action = clap::ArgAction::Set, value_name = "BOOL")]
    pub drop_invalid: bool,

    /// IPv6 TCP: intercept if the kernel has it (auto), always (on), or leave it alone (off)
    #[arg(long, env = "OUTRIGGER_IPV6", default_value = "auto", value_enum)]
    pub ipv6: Ipv6Mode,

    /// Packet filter to use; auto takes the one whose tables are in use
    #[arg(long, env = "OUTRIGGER_BACKEND", default_value = "auto", value_enum)]
    pub backend: BackendChoice,
}

impl Options {
    /// Checks what one flag alone cannot: combinations that would loop or capture nothing by mistake.
    pub fn validate(&self) -> Result<(), Error> {
        if self.inbound_port == self.outbound_port {
            return Err(Error::Usage(format!(
                "--inbound-port and --outbound-port are both {}: the proxy could not tell the directions apart",
                self.inbound_port
            )));
        }
        if self.proxy_uid.is_empty() {
            return Err(Error::Usage(
                "--proxy-uid is empty: the proxy's own connections would be captured again and loop".into(),
            ));
        }
        if self.exclude_outbound_ports.covers_all() {
            return Err(Error::Usage(
                "--exclude-outbound-ports covers every port; to capture nothing outbound set \
                 --include-outbound-cidrs '' instead"
                    .into(),
            ));
        }
        Ok(())
    }

    /// Ports that are never captured inbound: the operator's, the mesh's own and the capture port itself.
    pub fn inbound_exclusions(&self) -> PortSet {
        let own = MESH_PORTS.iter().chain([&self.inbound_port]).map(|&port| PortRange::single(port));
        PortSet::from_ranges(self.exclude_inbound_ports.ranges().iter().copied().chain(own).collect())
    }

    /// Things the operator asked for that deserve to be said aloud.
    pub fn notices(&self) -> Vec<String> {
        let mut notices = Vec::new();
        if self.proxy_uid.contains(0) || self.proxy_gid.contains(0) {
            notices.push("the proxy's ids include 0: everything that runs as root bypasses the mesh".into());
        }
        if self.include_inbound_ports.is_none() {
            notices.push("no inbound port is included: inbound connections reach the application unmeshed".into());
        }
        if self.include_outbound_cidrs.is_none() && self.include_outbound_ports.is_none() {
            notices.push("no destination is included: outbound connections leave the Pod unmeshed".into());
        }
        if let CidrSelection::Only(list) = &self.include_outbound_cidrs {
            if list.iter().any(Cidr::is_loopback) {
                notices.push("--include-outbound-cidrs names loopback, which is never captured".into());
            }
            let ports = !self.include_outbound_ports.is_none();
            if !list.is_empty() && !ports && self.ipv6 != Ipv6Mode::Off && !list.iter().any(Cidr::is_ipv6) {
                notices.push(
                    "--include-outbound-cidrs has no IPv6 network: outbound IPv6 connections are not captured".into(),
                );
            }
        }
        notices
    }
}
