//! Interfaces, addresses and routes of the current network namespace, over rtnetlink.
//!
//! Owns the netlink connection and its single-threaded runtime; offers plain blocking calls. It knows neither rules
//! nor proofs. Invariant: the namespace is the one the process was in when the connection was opened.

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures_util::TryStreamExt;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{
    AddressAttribute, AddressHeaderFlags, AddressMessage, AddressProtocol, AddressScope,
};
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags};
use rtnetlink::packet_route::route::RouteAttribute;
use rtnetlink::{Handle, LinkUnspec, LinkVeth, RouteMessageBuilder};

use crate::error::Error;

/// Marks addresses as ours (IFA_PROTO, kernel 5.18 and later; older ones ignore it).
const ADDRESS_TAG: AddressProtocol = AddressProtocol::Other(0x6f);

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    pub index: u32,
    pub name: String,
    pub up: bool,
    pub loopback: bool,
}

/// An address on an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    pub link: u32,
    pub ip: IpAddr,
    pub prefix: u8,
    /// Valid beyond the host and the link.
    pub global: bool,
    /// Who added it: `None` on kernels that do not keep that, or if nobody said.
    pub origin: Option<Origin>,
}

/// Who added an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    Ours,
    Other,
}

/// A connection to rtnetlink.
pub struct Links {
    runtime: tokio::runtime::Runtime,
    handle: Handle,
}

impl Links {
    /// Connects in the current network namespace.
    pub fn open() -> Result<Self, Error> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(Error::io("cannot start the netlink runtime"))?;
        let handle = runtime.block_on(async {
            let (connection, handle, _) = rtnetlink::new_connection()?;
            tokio::spawn(connection);
            Ok(handle)
        });
        Ok(Self { handle: handle.map_err(Error::io("cannot open a netlink socket"))?, runtime })
    }

    fn wait<T>(&self, what: &str, work: impl Future<Output = Result<T, rtnetlink::Error>>) -> Result<T, Error> {
        self.runtime.block_on(work).map_err(|error| Error::Netlink { what: what.to_owned(), reason: reason(&error) })
    }

    /// All interfaces.
    pub fn links(&self) -> Result<Vec<Link>, Error> {
        let messages: Vec<_> = self.wait("listing interfaces", self.handle.link().get().execute().try_collect())?;
        let link = |message: rtnetlink::packet_route::link::LinkMessage| {
            let name = message.attributes.into_iter().find_map(|attribute| match attribute {
                LinkAttribute::IfName(name) => Some(name),
                _ => None,
            });
            let flags = message.header.flags;
            Some(Link {
                index: message.header.index,
                name: name?,
                up: flags.contains(LinkFlags::Up),
                loopback: flags.contains(LinkFlags::Loopback),
            })
        };
        Ok(messages.into_iter().filter_map(link).collect())
    }

    /// The interface of that name.
    pub fn link(&self, name: &str) -> Result<Option<Link>, Error> {
        Ok(self.links()?.into_iter().find(|link| link.name == name))
    }

    /// The loopback interface.
    pub fn loopback(&self) -> Result<Link, Error> {
        let loopback = self.links()?.into_iter().find(|link| link.loopback);
        loopback.ok_or_else(|| Error::Netlink {
            what: "looking for the loopback interface".into(),
            reason: "there is none in this network namespace".into(),
        })
    }

    /// All addresses.
    pub fn addresses(&self) -> Result<Vec<Address>, Error> {
        let messages: Vec<_> = self.wait("listing addresses", self.handle.address().get().execute().try_collect())?;
        Ok(messages.iter().filter_map(address).collect())
    }

    /// Whether the kernel keeps who added an address: it does for its own ::1 or 127.0.0.1 if it does at all.
    pub fn keeps_origin(&self) -> Result<bool, Error> {
        Ok(self.addresses()?.iter().any(|address| address.ip.is_loopback() && address.origin.is_some()))
    }

    /// Adds an address, tagged as ours and usable at once.
    pub fn add_address(&self, link: u32, ip: IpAddr, prefix: u8) -> Result<(), Error> {
        let mut request = self.handle.address().add(link, ip, prefix);
        let message = request.message_mut();
        if ip.is_ipv6() {
            // Duplicate address detection would keep it unusable for a second.
            message.header.flags |= AddressHeaderFlags::Nodad;
        }
        message.attributes.push(AddressAttribute::Protocol(ADDRESS_TAG));
        self.wait(&format!("adding {ip}/{prefix}"), request.execute())
    }

    /// Removes an address.
    pub fn delete_address(&self, link: u32, ip: IpAddr, prefix: u8) -> Result<(), Error> {
        let mut message = AddressMessage::default();
        message.header.index = link;
        message.header.prefix_len = prefix;
        message.header.family = if ip.is_ipv6() { AddressFamily::Inet6 } else { AddressFamily::Inet };
        message.attributes.push(AddressAttribute::Local(ip));
        self.wait(&format!("removing {ip}/{prefix}"), self.handle.address().del(message).execute())
    }

    /// Brings an interface up.
    pub fn set_up(&self, link: u32) -> Result<(), Error> {
        let message = LinkUnspec::new_with_index(link).up().build();
        self.wait("bringing an interface up", self.handle.link().set(message).execute())
    }

    /// Creates a pair of connected interfaces.
    pub fn add_veth(&self, name: &str, peer: &str) -> Result<(), Error> {
        let message = LinkVeth::new(name, peer).build();
        self.wait(&format!("creating the veth pair {name}, {peer}"), self.handle.link().add(message).execute())
    }

    /// Moves an interface into the network namespace of a process.
    pub fn move_to_process(&self, link: u32, pid: u32) -> Result<(), Error> {
        let message = LinkUnspec::new_with_index(link).setns_by_pid(pid).build();
        self.wait("moving an interface to another namespace", self.handle.link().set(message).execute())
    }

    /// Deletes an interface.
    pub fn delete(&self, link: u32) -> Result<(), Error> {
        self.wait("deleting an interface", self.handle.link().del(link).execute())
    }

    /// The interface by which packets to this address leave; `None` if there is no route.
    pub fn route(&self, to: IpAddr) -> Result<Option<u32>, Error> {
        let message = match to {
            IpAddr::V4(v4) => RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(v4, 32).build(),
            IpAddr::V6(v6) => RouteMessageBuilder::<Ipv6Addr>::new().destination_prefix(v6, 128).build(),
        };
        let found = self.runtime.block_on(self.handle.route().get(message).execute().try_next());
        // The kernel answers ENETUNREACH and its relatives where there is no route.
        let Ok(Some(route)) = found else { return Ok(None) };
        Ok(route.attributes.into_iter().find_map(|attribute| match attribute {
            RouteAttribute::Oif(index) => Some(index),
            _ => None,
        }))
    }
}

fn address(message: &AddressMessage) -> Option<Address> {
    // IFA_LOCAL is the own address where IFA_ADDRESS is the other end of a point-to-point link.
    let local = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(ip) => Some(*ip),
        _ => None,
    });
    let any = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Address(ip) => Some(*ip),
        _ => None,
    });
    let origin = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Protocol(tag) if *tag == ADDRESS_TAG => Some(Origin::Ours),
        AddressAttribute::Protocol(_) => Some(Origin::Other),
        _ => None,
    });
    Some(Address {
        link: message.header.index,
        ip: local.or(any)?,
        prefix: message.header.prefix_len,
        global: message.header.scope == AddressScope::Universe,
        origin,
    })
}

fn reason(error: &rtnetlink::Error) -> String {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.to_io().to_string(),
        other => other.to_string(),
    }
}
