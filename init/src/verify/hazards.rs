//! Signs of trouble that no connection attempt shows.
//!
//! Owns two of them: applications that run as the proxy's user (nobody captures them), and packets that connection
//! tracking calls INVALID (they make the kernel reset live connections). Invariant: only warns.

use super::report::{Report, Status};
use crate::host;
use crate::options::{MESH_PORTS, Options};

/// Ports on which a proxy may listen besides the capture ports: admin, DNS, HBONE.
const PROXY_PORTS: [u16; 3] = [15000, 15053, 15008];

/// Adds what it finds.
pub(super) fn add(report: &mut Report, options: &Options) {
    let listening = host::listening_ports(options.proxy_uid.ids());
    let strange = strangers(&listening, options);
    if !strange.is_empty() {
        let list: Vec<String> = strange.iter().map(u16::to_string).collect();
        let detail = format!(
            "something listens as the proxy's user on port {}: an application with this user id bypasses the mesh",
            list.join(", ")
        );
        report.add("user-collision", None, Status::Warn, detail);
    }
    if let Some(invalid) = host::conntrack_invalid().filter(|&invalid| invalid > 0 && !options.drop_invalid) {
        let detail = format!(
            "connection tracking called {invalid} packets INVALID in this namespace; they can reset live connections, \
             --drop-invalid drops them"
        );
        report.add("conntrack", None, Status::Warn, detail);
    }
}

fn strangers(listening: &[u16], options: &Options) -> Vec<u16> {
    let own = [options.inbound_port, options.outbound_port];
    let known = |port: &u16| own.contains(port) || MESH_PORTS.contains(port) || PROXY_PORTS.contains(port);
    listening.iter().copied().filter(|port| !known(port)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::tests::options;

    #[test]
    fn the_proxys_own_ports_are_no_strangers() {
        let options = options(&["--inbound-port", "16006"]);
        assert_eq!(strangers(&[15000, 15001, 15006, 15021, 16006, 8080], &options), [15006, 8080]);
    }
}
