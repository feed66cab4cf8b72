//! The IPv6 loop guard address on `lo`.
//!
//! The proxy's inbound side binds ::6 when it calls the application. All of 127.0.0.0/8 is local by itself, ::6 is not:
//! it must be on an interface. Owns that one address. Invariant: an address somebody else added is never removed.

use std::net::IpAddr;

use crate::error::Error;
use crate::host;
use crate::links::{Address, Links, Origin};
use crate::plan::LOOP_GUARD_V6;

/// Adds the address unless it is there. Says so if IPv6 is switched off on `lo`, where it cannot be added.
pub(super) fn ensure() -> Result<(bool, Option<String>), Error> {
    let links = Links::open()?;
    if find(&links)?.is_some() {
        return Ok((false, None));
    }
    let lo = links.loopback()?;
    if host::ipv6_disabled_on(&lo.name) {
        let notice = format!(
            "IPv6 is switched off by sysctl on {}: the rules are in place, the loop guard address {LOOP_GUARD_V6} is \
             not; install again after switching it on",
            lo.name
        );
        return Ok((false, Some(notice)));
    }
    links.add_address(lo.index, LOOP_GUARD_V6.into(), 128)?;
    Ok((true, None))
}

/// Removes the address if it is ours. On kernels that do not keep who added an address it counts as ours if
/// `we_were_here`.
pub(super) fn remove(we_were_here: bool) -> Result<bool, Error> {
    if !host::has_ipv6() {
        return Ok(false);
    }
    let links = Links::open()?;
    let Some(address) = find(&links)? else { return Ok(false) };
    let ours = address.origin == Some(Origin::Ours) || (we_were_here && !links.keeps_origin()?);
    if ours {
        links.delete_address(address.link, address.ip, address.prefix)?;
    }
    Ok(ours)
}

fn find(links: &Links) -> Result<Option<Address>, Error> {
    let lo = links.loopback()?.index;
    let guard = IpAddr::V6(LOOP_GUARD_V6);
    Ok(links.addresses()?.into_iter().find(|address| address.ip == guard && address.link == lo))
}
