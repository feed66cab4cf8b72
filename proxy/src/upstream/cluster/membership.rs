//! What counts as a change of a cluster's membership: as in Envoy, hosts of a priority that come or go.

use std::{collections::BTreeMap, sync::Arc};

use crate::ir::endpoint::{Address, Assignment};

/// How many priorities have other hosts than before.
pub(super) fn changes(before: Option<&Arc<Assignment>>, now: Option<&Arc<Assignment>>) -> u32 {
    match (before, now) {
        (Some(before), Some(now)) if Arc::ptr_eq(before, now) => 0,
        _ => {
            let (before, now) = (hosts(before), hosts(now));
            let gone = before.keys().filter(|priority| !now.contains_key(priority)).count();
            let changed = now.iter().filter(|(priority, hosts)| before.get(priority) != Some(hosts)).count();
            (gone + changed) as u32
        }
    }
}

/// The hosts of each priority that has any, in an order of their own.
fn hosts(assignment: Option<&Arc<Assignment>>) -> BTreeMap<u32, Vec<&Address>> {
    let mut hosts: BTreeMap<u32, Vec<&Address>> = BTreeMap::new();
    for locality in assignment.into_iter().flat_map(|a| &a.localities).filter(|l| !l.endpoints.is_empty()) {
        hosts.entry(locality.priority).or_default().extend(locality.endpoints.iter().map(|e| &e.address));
    }
    hosts.values_mut().for_each(|addresses| {
        addresses.sort_unstable();
        addresses.dedup();
    });
    hosts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ir::endpoint::Locality, upstream::testing};

    fn assignment(priorities: &[&[u16]]) -> Arc<Assignment> {
        let endpoint = |port: &u16| testing::endpoint(Address::Ip(([10, 0, 0, 1], *port).into()));
        let locality = |(priority, ports): (u32, &&[u16])| Locality {
            priority,
            endpoints: ports.iter().map(endpoint).collect(),
            ..Locality::default()
        };
        Arc::new(Assignment { localities: (0..).zip(priorities).map(locality).collect(), overprovisioning: 140 })
    }

    #[test]
    fn hosts_that_come_or_go_count_once_per_priority() {
        let none = None;
        for (before, now, expected) in [
            (none, none, 0),
            (none, Some(&[&[1, 2][..]][..]), 1),
            (none, Some(&[&[1][..], &[2]][..]), 2),
            (Some(&[&[1, 2][..]][..]), Some(&[&[2, 1][..]][..]), 0),
            (Some(&[&[1, 2][..]][..]), Some(&[&[1, 2, 3][..]][..]), 1),
            (Some(&[&[1, 2][..], &[3]][..]), Some(&[&[1, 2][..]][..]), 1),
            (Some(&[&[1][..], &[2]][..]), Some(&[&[2][..], &[1]][..]), 2),
            (Some(&[&[1][..]][..]), none, 1),
        ] {
            let (from, to) = (before.map(assignment), now.map(assignment));
            assert_eq!(changes(from.as_ref(), to.as_ref()), expected, "{before:?} {now:?}");
        }
        let same = assignment(&[&[1]]);
        assert_eq!(changes(Some(&same), Some(&same)), 0);
    }
}
