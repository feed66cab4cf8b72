//! A neighbour for the Pod: a process in a network namespace of its own, joined by a veth pair.
//!
//! Only packets from another namespace pass PREROUTING, and only a neighbour answers a connection that was not
//! captured with a prompt reset. Owns the helper process, the pair and its documentation addresses (TEST-NET-1 and
//! 2001:db8::/32). Invariant: when it is dropped, or this process dies, nothing is left behind.

use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use super::probe::{Attempt, Ended, attempt};
use crate::error::Error;
use crate::host;
use crate::links::Links;
use crate::plan::Family;

const NEAR: &str = "outrigger-chk0";
const FAR: &str = "outrigger-chk1";

/// The Pod's address on the pair.
pub fn near(family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(192, 0, 2, 2).into(),
        Family::V6 => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2).into(),
    }
}

/// The neighbour's address.
pub fn far(family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(192, 0, 2, 1).into(),
        Family::V6 => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into(),
    }
}

/// An address on the pair that nobody has: whoever calls it gets no answer.
pub fn silent(family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(192, 0, 2, 6).into(),
        Family::V6 => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 6).into(),
    }
}

fn prefix(family: Family) -> u8 {
    match family {
        Family::V4 => 29,
        Family::V6 => 125,
    }
}

/// The neighbour, as long as it lives.
pub struct Peer {
    child: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    families: Vec<Family>,
}

impl Peer {
    /// Sets it up, or says why that is impossible here.
    pub fn start(helper: &Path, links: &Links, v6: bool) -> Result<Self, String> {
        if !host::has_sys_admin() || !host::has_net_admin() {
            return Err("a neighbour in a network namespace of its own needs CAP_SYS_ADMIN".into());
        }
        let mut child = Command::new(helper)
            .arg("peer")
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("cannot start the neighbour: {error}"))?;
        let orders = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().expect("stdout was asked to be a pipe"));
        let mut peer = Self { child, orders, answers, families: Vec::new() };
        peer.expect("ready")?;
        peer.join(links, v6).map_err(|error| format!("cannot join the neighbour: {error}"))?;
        Ok(peer)
    }

    /// Whether the neighbour has an address of this family.
    pub fn has(&self, family: Family) -> bool {
        self.families.contains(&family)
    }

    /// The name of the Pod's interface towards it.
    pub fn interface(&self) -> &'static str {
        NEAR
    }

    /// Lets the neighbour connect.
    pub fn connect(&mut self, to: SocketAddr) -> Ended {
        match self.order(&format!("connect {to}")) {
            Ok(answer) => Ended::parse(&answer),
            Err(why) => Ended::NotRun(why),
        }
    }

    fn join(&mut self, links: &Links, v6: bool) -> Result<(), Error> {
        // A former check that was killed may have left the pair for the moment the kernel needs to clean up.
        if let Some(stale) = links.link(NEAR)? {
            links.delete(stale.index)?;
        }
        links.add_veth(NEAR, FAR)?;
        let missing = || Error::Netlink { what: "looking for the new veth pair".into(), reason: "it is gone".into() };
        let near_link = links.link(NEAR)?.ok_or_else(missing)?.index;
        let far_link = links.link(FAR)?.ok_or_else(missing)?.index;
        links.move_to_process(far_link, self.child.id())?;
        links.set_up(near_link)?;
        let mut families = vec![Family::V4];
        if v6 && !host::ipv6_disabled_on(NEAR) {
            families.push(Family::V6);
        }
        for &family in &families {
            links.add_address(near_link, near(family), prefix(family))?;
        }
        let order = if families.contains(&Family::V6) { "configure 6" } else { "configure 4" };
        match self.order(order).unwrap_or_else(|why| why).as_str() {
            "configured" => {}
            // The neighbour's namespace may have IPv6 switched off though the Pod has not.
            "configured 4 only" => families.retain(|&family| family == Family::V4),
            other => {
                return Err(Error::Netlink { what: "configuring the neighbour".into(), reason: other.to_owned() });
            }
        }
        self.families = families;
        Ok(())
    }

    fn order(&mut self, order: &str) -> Result<String, String> {
        let gone = || "the neighbour is gone".to_owned();
        let pipe = self.orders.as_mut().ok_or_else(gone)?;
        writeln!(pipe, "{order}").and_then(|()| pipe.flush()).map_err(|_| gone())?;
        self.answer()
    }

    fn answer(&mut self) -> Result<String, String> {
        let mut line = String::new();
        match self.answers.read_line(&mut line) {
            Ok(length) if length > 0 => Ok(line.trim().to_owned()),
            _ => Err("the neighbour is gone".into()),
        }
    }

    fn expect(&mut self, word: &str) -> Result<(), String> {
        match self.answer()? {
            answer if answer == word => Ok(()),
            answer => Err(answer),
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // Deleting one end deletes both, at once; the namespace's own cleanup would come later.
        if let Ok(links) = Links::open()
            && let Ok(Some(link)) = links.link(NEAR)
        {
            let _ = links.delete(link.index);
        }
        // End of input ends the neighbour.
        self.orders.take();
        let _ = self.child.wait();
    }
}

/// The neighbour's own life: leaves the namespace, then obeys orders until its input ends.
pub fn run() -> Result<(), String> {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)
        .map_err(|error| format!("cannot make a network namespace: {error}"))
        .inspect_err(|why| println!("{why}"))?;
    println!("ready");
    for line in std::io::stdin().lines() {
        let Ok(line) = line else { break };
        match line.split_once(' ') {
            Some(("configure", families)) => match configure(families == "6") {
                Ok(true) => println!("configured"),
                Ok(false) => println!("configured 4 only"),
                Err(error) => println!("{}", error.to_string().replace('\n', " ")),
            },
            Some(("connect", to)) => match to.parse() {
                Ok(to) => println!("{}", attempt(Attempt::to(to)).line()),
                Err(_) => println!("failed not an address"),
            },
            _ => println!("failed not an order"),
        }
    }
    Ok(())
}

/// Whether both families could be configured, of those wanted.
fn configure(v6: bool) -> Result<bool, Error> {
    let links = Links::open()?;
    links.set_up(links.loopback()?.index)?;
    let far_link = links.link(FAR)?.ok_or_else(|| Error::Netlink {
        what: "looking for the neighbour's interface".into(),
        reason: "it did not arrive".into(),
    })?;
    links.set_up(far_link.index)?;
    links.add_address(far_link.index, far(Family::V4), prefix(Family::V4))?;
    Ok(!v6 || links.add_address(far_link.index, far(Family::V6), prefix(Family::V6)).is_ok())
}
