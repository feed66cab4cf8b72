//! Zone-aware routing against the examples of Envoy's documentation.

use super::{
    testing::*,
    zone::{Route, Zones},
    *,
};
use crate::ir::{
    balancing::ZoneAware,
    endpoint::{Address, Assignment, Endpoint, Locality},
};

fn place(zone: &str) -> Place {
    Place { zone: zone.into(), ..Place::default() }
}

/// The callers: so many healthy hosts per zone, this proxy in `own`.
fn callers(own: &str, zones: &[(&str, usize)]) -> Arc<Callers> {
    let callers = Callers::new(Some("local".into()), place(own));
    callers.update(&assignment(zones, Health::Healthy));
    Arc::new(callers)
}

fn assignment(zones: &[(&str, usize)], health: Health) -> Assignment {
    let address = Address::Ip(([10, 0, 0, 1], 80).into());
    let endpoint = Endpoint { address, hostname: "".into(), weight: 1, health, metadata: None, check: None };
    let locality = |(zone, hosts): &(&str, usize)| Locality {
        zone: (*zone).into(),
        endpoints: vec![endpoint.clone(); *hosts],
        ..Locality::default()
    };
    Assignment { localities: zones.iter().map(locality).collect(), overprovisioning: 140 }
}

struct Cluster {
    balancer: Balancer,
    /// The zone of each host.
    zones: Vec<usize>,
}

impl Cluster {
    fn new(config: ZoneAware, callers: &Arc<Callers>, zones: &[(&str, usize)]) -> Self {
        let places: Vec<Place> = zones.iter().map(|(zone, _)| place(zone)).collect();
        let groups: Vec<_> = places.iter().map(|place| Group { place: Some(place), ..group(0, None) }).collect();
        let zones: Vec<usize> = zones.iter().enumerate().flat_map(|(i, (_, n))| std::iter::repeat_n(i, *n)).collect();
        let hosts: Vec<_> = zones.iter().map(|zone| host(1, Health::Healthy, *zone as u32)).collect();
        let more = Arc::new(LbOptions { zone_aware: Some(config), ..LbOptions::default() });
        let options = Options { more: &more, callers: Some(callers), ..options(Policy::RoundRobin) };
        Self { balancer: Balancer::new(&hosts, &groups, &options), zones }
    }

    fn route(&self) -> Route {
        self.balancer.all.zones().map_or(Route::Anywhere, Zones::route)
    }

    /// Picks per zone.
    fn counts(&self, zones: usize, n: u64) -> Vec<u64> {
        let mut sums = vec![0; zones];
        let counts = counts(&self.balancer, self.zones.len(), n, &|_| 0);
        counts.iter().zip(&self.zones).for_each(|(count, zone)| sums[*zone] += count);
        sums
    }
}

#[test]
fn enough_hosts_of_their_own_keep_everything_in_the_zone() {
    let callers = callers("a", &[("a", 5), ("b", 5)]);
    let cluster = Cluster::new(ZoneAware::default(), &callers, &[("b", 5), ("a", 5)]);
    assert_eq!(cluster.route(), Route::Stay);
    assert_eq!(cluster.counts(2, 1000), [0, 1000]);
}

#[test]
fn what_the_zone_cannot_take_goes_where_capacity_is_left() {
    // Callers 40/40/20 %, hosts 25/50/25 %: Envoy's own example.
    let callers = callers("a", &[("a", 8), ("b", 8), ("c", 4)]);
    let cluster = Cluster::new(ZoneAware::default(), &callers, &[("a", 5), ("b", 10), ("c", 5)]);
    assert_eq!(cluster.route(), Route::Part { stay: 6250, capacity: [0, 1000, 1500].into() });
    let n = 60_000;
    let rest = n as f64 * 0.375;
    assert_chi_squared(&cluster.counts(3, n), &[n as f64 * 0.625, rest * 2.0 / 3.0, rest / 3.0]);
}

#[test]
fn a_zone_without_hosts_sends_everything_away() {
    let callers = callers("z", &[("z", 2), ("a", 8)]);
    let cluster = Cluster::new(ZoneAware::default(), &callers, &[("a", 6), ("b", 6)]);
    // Zone a has more callers than hosts, so that only b has capacity left.
    assert_eq!(cluster.route(), Route::Part { stay: 0, capacity: [0, 5000].into() });
    assert_eq!(cluster.counts(2, 100), [0, 100]);
}

#[test]
fn every_host_gets_the_same_load_from_all_callers_together() {
    let (at, hosts) = ([("a", 6), ("b", 3), ("c", 1)], [("a", 4), ("b", 4), ("c", 12)]);
    let mut sums = vec![0u64; 3];
    for (zone, proxies) in at {
        let cluster = Cluster::new(ZoneAware::default(), &callers(zone, &at), &hosts);
        cluster.counts(3, 20_000 * proxies as u64).iter().zip(&mut sums).for_each(|(count, sum)| *sum += count);
    }
    assert_shares(&sums, &[4.0, 4.0, 12.0], 0.03);
}

#[test]
fn reasons_to_let_zones_be() {
    let even = [("a", 5), ("b", 5)];
    let known = callers("a", &even);
    let route = |config, callers: &Arc<Callers>, zones: &[(&str, usize)]| Cluster::new(config, callers, zones).route();
    assert_eq!(route(ZoneAware::default(), &known, &[("a", 2), ("b", 3)]), Route::Anywhere, "a small cluster");
    let small = ZoneAware { min_cluster_size: 5, ..ZoneAware::default() };
    assert_eq!(route(small, &known, &[("a", 3), ("b", 2)]), Route::Stay);
    assert_eq!(route(ZoneAware::default(), &known, &[("a", 12)]), Route::Anywhere, "one zone");
    assert_eq!(route(ZoneAware::default(), &callers("a", &[("a", 5)]), &even), Route::Anywhere, "callers in one zone");
    let force = |least| ZoneAware { force_local: least, ..ZoneAware::default() };
    assert_eq!(route(force(1), &callers("a", &[("a", 5)]), &even), Route::Stay);
    assert_eq!(route(force(5), &callers("a", &[("a", 9), ("b", 1)]), &even), Route::Stay);
    assert_ne!(route(force(6), &callers("a", &[("a", 9), ("b", 1)]), &even), Route::Stay, "too few of its own");
    assert_eq!(route(ZoneAware::default(), &callers("z", &even), &even), Route::Anywhere, "not one of the callers");
    let unknown = Arc::new(Callers::new(Some("local".into()), place("a")));
    assert_eq!(route(ZoneAware::default(), &unknown, &even), Route::Anywhere, "nothing heard yet");
}

#[test]
fn zones_may_compare_by_weight() {
    let known = callers("a", &[("a", 5), ("b", 5)]);
    let places = [place("a"), place("b")];
    let groups = [0, 1].map(|i: usize| Group { place: Some(&places[i]), ..group(0, None) });
    let hosts: Vec<_> = (0..6).map(|i| host([1, 3][i / 3], Health::Healthy, (i / 3) as u32)).collect();
    let route = |by_weight| {
        let zone_aware = Some(ZoneAware { by_weight, ..ZoneAware::default() });
        let more = Arc::new(LbOptions { zone_aware, ..LbOptions::default() });
        let options = Options { more: &more, callers: Some(&known), ..options(Policy::RoundRobin) };
        Balancer::new(&hosts, &groups, &options).all.zones().map(Zones::route)
    };
    assert_eq!(route(false), Some(Route::Stay));
    assert_eq!(route(true), Some(Route::Part { stay: 5000, capacity: [0, 2500].into() }));
}

#[test]
fn a_share_of_picks_may_prefer_the_zone() {
    let config = ZoneAware { enabled_percent: 40, ..ZoneAware::default() };
    let cluster = Cluster::new(config, &callers("a", &[("a", 5), ("b", 5)]), &[("a", 5), ("b", 5)]);
    assert_shares(&cluster.counts(2, 50_000), &[70.0, 30.0], 0.03);
}

#[test]
fn all_hosts_of_the_local_cluster_are_counted() {
    let known = callers("a", &[("a", 2), ("b", 3)]);
    assert_eq!((Callers::default().hosts(), known.hosts()), (0, 5));
    known.update(&assignment(&[("a", 4)], Health::Unhealthy));
    assert_eq!(known.hosts(), 4);
}

#[test]
fn callers_that_change_take_effect_at_once() {
    let known = callers("a", &[("a", 5), ("b", 5)]);
    let cluster = Cluster::new(ZoneAware::default(), &known, &[("a", 5), ("b", 5)]);
    assert_eq!(cluster.route(), Route::Stay);
    known.update(&assignment(&[("a", 10), ("b", 0), ("c", 2)], Health::Healthy));
    assert_eq!(cluster.route(), Route::Part { stay: 6000, capacity: [0, 5000].into() });
    known.update(&assignment(&[("a", 5), ("b", 5)], Health::Unhealthy));
    assert_eq!(cluster.route(), Route::Anywhere, "callers in panic");
    let fail = ZoneAware { fail_on_panic: true, ..ZoneAware::default() };
    let cluster = Cluster::new(fail, &known, &[("a", 5), ("b", 5)]);
    assert_eq!(cluster.route(), Route::Fail);
    assert_eq!(cluster.balancer.pick(&draw(1)), None);
}

#[test]
fn panic_fails_where_that_is_wanted() {
    let more = |fail_on_panic| {
        let zone_aware = Some(ZoneAware { fail_on_panic, ..ZoneAware::default() });
        Arc::new(LbOptions { zone_aware, ..LbOptions::default() })
    };
    let sick = [host(1, Health::Unhealthy, 0), host(1, Health::Unhealthy, 0)];
    let pick = |more: &Arc<LbOptions>| {
        Balancer::new(&sick, ONE, &Options { more, ..options(Policy::RoundRobin) }).pick(&draw(1))
    };
    assert!(pick(&more(false)).is_some());
    assert_eq!(pick(&more(true)), None);
}
