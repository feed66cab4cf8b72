//! Facts about the kernel and the process in the current network namespace, read from /proc.
//!
//! Owns the reading and its bounds; draws no conclusions. Invariant: reads only.

use std::path::Path;

use crate::error::Error;
use crate::plan::{Family, Table};

const CAP_SETGID: u32 = 6;
const CAP_SETUID: u32 = 7;
const CAP_NET_ADMIN: u32 = 12;
const CAP_SYS_ADMIN: u32 = 21;

/// Whether the process has CAP_NET_ADMIN.
pub fn has_net_admin() -> bool {
    capability(CAP_NET_ADMIN)
}

/// Whether the process has CAP_SYS_ADMIN.
pub fn has_sys_admin() -> bool {
    capability(CAP_SYS_ADMIN)
}

/// Whether the process may become another user and group.
pub fn may_change_ids() -> bool {
    capability(CAP_SETUID) && capability(CAP_SETGID)
}

/// Fails, naming the purpose, without CAP_NET_ADMIN.
pub fn require_net_admin(needed_for: &'static str) -> Result<(), Error> {
    if has_net_admin() { Ok(()) } else { Err(Error::Capability { capability: "NET_ADMIN", needed_for }) }
}

fn capability(bit: u32) -> bool {
    let Ok(status) = std::fs::read_to_string("/proc/self/status") else { return false };
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).is_some_and(|set| set >> bit & 1 == 1)
}

/// Whether the kernel has IPv6 in this namespace (addresses or not).
pub fn has_ipv6() -> bool {
    Path::new("/proc/self/net/if_inet6").exists()
}

/// Whether IPv6 is switched off by sysctl on this interface (as Docker does by default).
pub fn ipv6_disabled_on(interface: &str) -> bool {
    let path = format!("/proc/sys/net/ipv6/conf/{interface}/disable_ipv6");
    std::fs::read_to_string(path).is_ok_and(|text| text.trim() == "1")
}

/// Whether the legacy x_tables table exists in this namespace. Asking iptables-legacy itself would create it.
pub fn has_legacy_table(family: Family, table: Table) -> bool {
    let path = match family {
        Family::V4 => "/proc/self/net/ip_tables_names",
        Family::V6 => "/proc/self/net/ip6_tables_names",
    };
    std::fs::read_to_string(path).is_ok_and(|names| names.lines().any(|name| name == table.as_str()))
}

/// Packets connection tracking called INVALID so far in this namespace; `None` if it does not count.
pub fn conntrack_invalid() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/net/stat/nf_conntrack").ok()?;
    sum_column(&text, "invalid")
}

/// Local ports on which sockets of these users listen, from /proc/net/tcp and tcp6.
pub fn listening_ports(users: &[u32]) -> Vec<u16> {
    let mut ports = Vec::new();
    for name in ["tcp", "tcp6"] {
        let text = std::fs::read_to_string(format!("/proc/self/net/{name}")).unwrap_or_default();
        ports.extend(listening_in(&text, users));
    }
    ports.sort_unstable();
    ports.dedup();
    ports
}

fn listening_in(text: &str, users: &[u32]) -> Vec<u16> {
    const LISTEN: &str = "0A";
    text.lines()
        .skip(1)
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let owner: u32 = fields.get(7)?.parse().ok()?;
            let (_, port) = fields.get(1)?.rsplit_once(':')?;
            let wanted = fields.get(3) == Some(&LISTEN) && users.contains(&owner);
            wanted.then(|| u16::from_str_radix(port, 16).ok()).flatten()
        })
        .collect()
}

fn sum_column(text: &str, column: &str) -> Option<u64> {
    let mut lines = text.lines();
    let index = lines.next()?.split_whitespace().position(|name| name == column)?;
    lines
        .map(|line| line.split_whitespace().nth(index).and_then(|hex| u64::from_str_radix(hex, 16).ok()))
        .try_fold(0u64, |sum, value| value.map(|value| sum.saturating_add(value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conntrack_counters_are_summed_over_processors() {
        let text = "entries  clashres found new invalid ignore\n0a 00 01 00 0000000f 00\n0a 00 01 00 00000001 00\n";
        assert_eq!(sum_column(text, "invalid"), Some(16));
        assert_eq!(sum_column(text, "absent"), None);
        assert_eq!(sum_column("", "invalid"), None);
        assert_eq!(sum_column("a invalid\n1 zz\n", "invalid"), None);
    }

    #[test]
    fn only_listening_sockets_of_the_users_count() {
        let text = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
             0: 00000000:3A98 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1337        0 1 1\n\
             1: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1\n\
             2: 0100007F:0050 00000000:0000 01 00000000:00000000 00:00000000 00000000  1337        0 1 1\n\
             broken line\n";
        assert_eq!(listening_in(text, &[1337]), [15000]);
        assert_eq!(listening_in(text, &[0, 1337]), [15000, 8080]);
    }
}
