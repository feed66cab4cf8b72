//! Interception for a meshed Pod: redirects its TCP connections to the proxy beside it, and proves by traffic that it
//! does. Semantics and names follow Istio's REDIRECT mode.
//!
//! ```text
//! outrigger-init install      rules into the current network namespace; twice is the same as once
//! outrigger-init uninstall    everything of ours out of it; the rest is as it was
//! outrigger-init print        the exact rules, without privilege
//! outrigger-init check        proof by traffic; give it the same settings as install
//! ```
//!
//! # Settings
//!
//! Each is a flag and a variable; the flag wins. Lists are comma separated, ranges are written `8000-8010`.
//!
//! | flag | variable | default | meaning |
//! |---|---|---|---|
//! | `--inbound-port` | `OUTRIGGER_INBOUND_PORT` | 15006 | where the proxy accepts captured inbound connections |
//! | `--outbound-port` | `OUTRIGGER_OUTBOUND_PORT` | 15001 | where the proxy accepts captured outbound connections |
//! | `--proxy-uid` | `OUTRIGGER_PROXY_UID` | 1337 | users whose connections are the proxy's own |
//! | `--proxy-gid` | `OUTRIGGER_PROXY_GID` | 1337 | groups whose connections are the proxy's own; may be empty |
//! | `--include-inbound-ports` | `OUTRIGGER_INCLUDE_INBOUND_PORTS` | `*` | ports captured inbound |
//! | `--exclude-inbound-ports` | `OUTRIGGER_EXCLUDE_INBOUND_PORTS` | | not captured inbound, besides 15020, 15021, 15090 and the inbound port, which never are |
//! | `--include-outbound-cidrs` | `OUTRIGGER_INCLUDE_OUTBOUND_CIDRS` | `*` | destinations captured outbound, both families in one list |
//! | `--include-outbound-ports` | `OUTRIGGER_INCLUDE_OUTBOUND_PORTS` | | ports captured outbound whatever the destination, in addition |
//! | `--exclude-outbound-cidrs` | `OUTRIGGER_EXCLUDE_OUTBOUND_CIDRS` | | destinations left alone; wins over both includes |
//! | `--exclude-outbound-ports` | `OUTRIGGER_EXCLUDE_OUTBOUND_PORTS` | | ports left alone; wins over both includes |
//! | `--exclude-interfaces` | `OUTRIGGER_EXCLUDE_INTERFACES` | | interfaces left alone in both directions |
//! | `--drop-invalid` | `OUTRIGGER_DROP_INVALID` | false | drop inbound TCP that connection tracking calls INVALID |
//! | `--ipv6` | `OUTRIGGER_IPV6` | auto | `auto` intercepts IPv6 where the kernel has it and refuses where that fails; `on` insists; `off` leaves it unmeshed and says so |
//! | `--backend` | `OUTRIGGER_BACKEND` | auto | `auto` takes the packet filter whose tables are in use, nft where none is; `iptables`, `iptables-legacy`, `nft` |
//! | `--output` (check) | `OUTRIGGER_OUTPUT` | table | `table` or `json` |
//!
//! # What is never captured
//!
//! Loopback destinations (so Docker's DNS on 127.0.0.11 keeps working), the proxy's own connections, the application
//! talking to its own addresses, IPv6 link-local destinations, and the proxy's inbound side calling the application
//! from the loop guard address 127.0.0.6 or ::6 (`install` puts ::6 on `lo`). A Pod that calls its own Service goes
//! out by the proxy and comes in again by its inbound side. Only TCP is captured.
//!
//! # The port guard
//!
//! Proxy and application draw source ports from one range, and the nat table is asked about the first packet of an
//! entry in connection tracking only. A dial of the proxy that is never answered, or a peer that vanished, leaves an
//! entry that is not redirected; a connection of the application from the same port to the same destination would
//! follow it past the proxy. So the proxy's connections carry a bit of the connection mark (0x08000000, the other bits
//! are left alone), and a SYN of anybody else that belongs to a marked entry is refused with a reset (filter table): the
//! application tries again, from another port. Packets other than SYN leave at the first test.
//!
//! Where the kernel lacks connmark, the filter table or REJECT, `install` warns and captures without the guard, and
//! `check` warns as well.
//!
//! Conntrack zones are no cure. A zone given by owner (`CT --zone-orig`, `ct original zone set`) separates the entries,
//! but what the kernel sends for a socket that is closed (data still buffered, the last ACK, resets) has no owner: it
//! misses the entry of its connection, is redirected as a connection of its own, and the data is lost.
//!
//! # Promises
//!
//! A failed install leaves nothing behind. Foreign rules, chains and policies are never touched; our chains begin with
//! `OUTRIGGER_`, with nft they are in the table `inet outrigger`. The jumps into them are appended, so rules that were
//! there keep their precedence. Rules of ours in two packet filters at once are an error, not a choice.
//! Two traces cannot be avoided: iptables-legacy keeps an empty table as long as its kernel module, and iptables over
//! nf_tables an empty built-in chain in a table that others use.
//!
//! # Privileges
//!
//! `install` and `uninstall` need CAP_NET_ADMIN. `check` also uses CAP_SETUID and CAP_SETGID (to connect as the proxy)
//! and CAP_SYS_ADMIN (a neighbour in a network namespace of its own, for a real inbound connection); proofs it cannot
//! try are reported as skipped. Where no proxy listens yet, `check` listens on the capture ports for a moment.
//!
//! # Exit codes
//!
//! 0 done or proven, 1 failed or capture broken, 2 wrong settings, 3 the environment lacks something.
#![deny(unsafe_code)]

pub mod apply;
pub mod backend;
pub mod cli;
pub mod error;
pub mod host;
pub mod links;
pub mod options;
pub mod plan;
pub mod verify;
