//! Random histories from a seed: whatever a control plane does in whatever order, the invariant holds at every moment and
//! nothing stays behind for ever.

use super::*;
use crate::ir::name_map::NameMap;

/// A small deterministic generator.
struct Draw(u64);

impl Draw {
    fn next(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below
    }

    /// A random subset of `all`.
    fn some<'a>(&mut self, all: &[&'a str]) -> Vec<&'a str> {
        all.iter().filter(|_| self.next(2) == 0).copied().collect()
    }
}

const CLUSTERS: [&str; 4] = ["a", "b", "c", "d"];
const SECRETS: [&str; 2] = ["s", "t"];
const ROUTES: [&str; 3] = ["p", "q", "r"];
const LISTENERS: [&str; 3] = ["l", "m", "n"];

fn cluster_of(draw: &mut Draw, name: &str) -> Any {
    let secrets = draw.some(&SECRETS).join(",");
    let spec = if secrets.is_empty() { String::new() } else { format!("secrets={secrets}") };
    let version = draw.next(3);
    if draw.next(3) == 0 { fixed(name, version, &spec) } else { eds(name, version, &spec) }
}

fn listener_of(draw: &mut Draw, name: &str) -> Any {
    let mut words = Vec::new();
    for (key, all) in [("rds", &ROUTES[..]), ("tcp", &CLUSTERS[..]), ("secrets", &SECRETS[..])] {
        let some = draw.some(all).join(",");
        if !some.is_empty() {
            words.push(format!("{key}={some}"));
        }
    }
    listener(name, &words.join(";"))
}

fn step(bed: &mut Bed, draw: &mut Draw) {
    let full = draw.next(2) == 0;
    match draw.next(6) {
        0 => {
            let items = draw.some(&CLUSTERS).into_iter().map(|n| bare(cluster_of(draw, n))).collect();
            let removed = if full { Vec::new() } else { draw.some(&["e", "f"]) };
            bed.deliver(Kind::Cluster, "v", full, items, &removed);
        }
        1 => {
            let items = draw.some(&LISTENERS).into_iter().map(|n| bare(listener_of(draw, n))).collect();
            bed.deliver(Kind::Listener, "v", full, items, &[]);
        }
        2 => {
            let version = u32::try_from(draw.next(3)).unwrap();
            let items = draw.some(&CLUSTERS).into_iter().map(|n| bare(endpoints(n, version))).collect();
            let removed = if full { Vec::new() } else { draw.some(&CLUSTERS) };
            bed.deliver(Kind::Endpoints, "v", full, items, &removed);
        }
        3 => {
            let mut items = Vec::new();
            for name in draw.some(&ROUTES) {
                items.push(bare(routes(name, &draw.some(&CLUSTERS).join(","))));
            }
            bed.deliver(Kind::Routes, "v", full, items, &[]);
        }
        4 => {
            let items = draw.some(&SECRETS).into_iter().map(|n| bare(secret(n, 1))).collect();
            bed.deliver(Kind::Secret, "v", full, items, &[]);
        }
        _ => {
            let to = bed.seconds + draw.next(8);
            bed.at(to);
        }
    }
}

/// All slots as they were before a step.
type Before = [Table; 5];

/// What came into force names only what is in force or what the control plane does not have; what is used stays.
fn check(bed: &Bed, before: &Before, seed: u64) {
    let store = &bed.store;
    let active = |kind: Kind, name: &Name| store.table(kind).get(name).is_some_and(|s| s.active.is_some());
    for kind in [Kind::Listener, Kind::Routes] {
        for (name, slot) in store.table(kind) {
            let Some(version) = &slot.active else { continue };
            for (routes, _) in &version.needs().routes {
                assert!(active(Kind::Routes, routes), "seed {seed}: {name} without routes {routes}");
            }
            let old = before[kind as usize].get(name).and_then(|s| s.active.as_ref());
            let activated = old.is_none_or(|old| !same(&old.resource, &version.resource));
            for cluster in &version.needs().clusters {
                let exists = store.table(Kind::Cluster).get(cluster).is_some_and(|s| s.latest.is_some());
                assert!(
                    !activated || !exists || active(Kind::Cluster, cluster),
                    "seed {seed}: {kind} {name} came into force before its cluster {cluster}"
                );
                let was = before[Kind::Cluster as usize].get(cluster);
                let lost = was.is_some_and(|s| s.active.is_some()) && !active(Kind::Cluster, cluster);
                let had_its_time = was.is_some_and(|s| {
                    s.latest.is_none() && s.since.is_some_and(|at| bed.now().mono >= at + Duration::from_secs(15))
                });
                assert!(!lost || had_its_time, "seed {seed}: {kind} {name} lost its cluster {cluster}");
            }
        }
    }
    for (name, slot) in store.table(Kind::Cluster) {
        let old = before[Kind::Cluster as usize].get(name).and_then(|s| s.active.as_ref());
        let (Some(version), Some(old)) = (&slot.active, old) else { continue };
        if !same(&old.resource, &version.resource) {
            // A replacement needs everything, however long it takes; only "no such endpoints" is an answer, too.
            for secret in &version.needs().secrets {
                assert!(active(Kind::Secret, &secret.name), "seed {seed}: {name} replaced without {secret:?}");
            }
            for (endpoints, _) in &version.needs().endpoints {
                let answered = store.table(Kind::Endpoints).get(endpoints).is_some_and(|s| s.absent);
                assert!(
                    answered || active(Kind::Endpoints, endpoints),
                    "seed {seed}: {name} replaced without endpoints"
                );
            }
        }
    }
    let in_force = |kind: Kind| -> Vec<&Name> {
        store.table(kind).iter().filter(|(_, s)| s.active.is_some()).map(|(n, _)| n).collect()
    };
    fn names<V>(map: &NameMap<V>) -> impl Iterator<Item = &Name> {
        map.sorted().into_iter().map(|(name, _)| name)
    }
    let message = "the last publication is not the state";
    assert!(names(&bed.snapshot.clusters).eq(in_force(Kind::Cluster)), "seed {seed}: {message}");
    assert!(names(&bed.snapshot.endpoints).eq(in_force(Kind::Endpoints)), "seed {seed}: {message}");
    assert!(names(&bed.snapshot.listeners).eq(in_force(Kind::Listener)), "seed {seed}: {message}");
    assert!(names(&bed.snapshot.routes).eq(in_force(Kind::Routes)), "seed {seed}: {message}");
    assert!(names(&bed.snapshot.secrets).eq(in_force(Kind::Secret)), "seed {seed}: {message}");
}

#[test]
fn random_histories_keep_the_invariant_and_come_to_rest() {
    for seed in 1..400u64 {
        let mut draw = Draw(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let mut bed = Bed::bare();
        for _ in 0..60 {
            let before = bed.store.tables.clone();
            step(&mut bed, &mut draw);
            check(&bed, &before, seed);
            bed.audit();
        }
        // The control plane becomes orderly: everything that is asked for is delivered, and time passes.
        bed.sotw(Kind::Cluster, CLUSTERS.map(|n| cluster_of(&mut draw, n)));
        bed.sotw(Kind::Listener, LISTENERS.map(|n| listener_of(&mut draw, n)));
        bed.sotw(Kind::Secret, SECRETS.map(|n| secret(n, 2)));
        bed.sotw(Kind::Endpoints, CLUSTERS.map(|n| endpoints(n, 7)));
        bed.sotw(Kind::Routes, ROUTES.map(|n| routes(n, "a,d")));
        bed.at(bed.seconds + 1000);
        assert!(bed.store.waiting().is_empty(), "seed {seed}: {:?}", bed.store.waiting());
        for kind in Kind::ALL {
            for (name, slot) in bed.store.table(kind) {
                assert!(slot.latest.is_some() && !slot.is_pending(), "seed {seed}: {kind} {name} {slot:?}");
            }
        }
        assert_eq!(bed.clusters(), CLUSTERS);
        assert_eq!(bed.listeners(), LISTENERS);
        assert_eq!(bed.deadline, None, "seed {seed}: nothing is left to wait for");
        // And everything goes.
        bed.sotw(Kind::Listener, []);
        bed.sotw(Kind::Cluster, []);
        bed.at(bed.seconds + 1000);
        let snapshot = Snapshot { version: bed.snapshot.version, ..Snapshot::default() };
        assert_eq!(bed.snapshot, snapshot, "seed {seed}");
        assert!(Kind::ALL.iter().all(|k| bed.store.table(*k).is_empty()), "seed {seed}: {:?}", bed.store);
    }
}
