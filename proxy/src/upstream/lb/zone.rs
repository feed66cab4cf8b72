//! Zone-aware routing: stay in the own zone as far as that loads every host of the cluster alike.
//!
//! How far depends on where the callers run: the hosts of the local cluster, of which this proxy is one. Envoy's
//! arithmetic, in ten-thousandths. Only the first priority takes part.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use arc_swap::{ArcSwap, ArcSwapOption};

use super::{Event, SplitMix, below, tier::Tier};
use crate::ir::{
    Name,
    balancing::ZoneAware,
    endpoint::{Assignment, Health},
};

/// Where something runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Place {
    pub region: Box<str>,
    pub zone: Box<str>,
    pub sub_zone: Box<str>,
}

/// The local cluster: who this proxy's peers are, and where.
#[derive(Debug, Default)]
pub struct Callers {
    name: Option<Name>,
    /// `--service-cluster`, what this proxy calls itself.
    pub service_cluster: Box<str>,
    own: Place,
    version: AtomicU64,
    counts: ArcSwapOption<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    /// By place, number and weight of healthy hosts.
    healthy: HashMap<Place, Size>,
    hosts: u64,
    available: u64,
    places: usize,
    /// Hosts of any health in our own place.
    here: u64,
}

/// How large the healthy part of a zone is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) hosts: u64,
    pub(super) weight: u64,
}

impl Size {
    pub(super) fn of(weights: impl Iterator<Item = u32>) -> Self {
        weights.fold(Self::default(), |size, weight| Self {
            hosts: size.hosts + 1,
            weight: size.weight.saturating_add(u64::from(weight)),
        })
    }
}

impl Callers {
    /// The cluster `name` (`local_cluster_name`), of which a proxy at `own` is a part.
    pub fn new(name: Option<Name>, own: Place) -> Self {
        Self { name, own, ..Self::default() }
    }

    /// How many hosts the local cluster has; none as long as it is not known.
    pub fn hosts(&self) -> u64 {
        self.counts.load().as_ref().map_or(0, |counts| counts.hosts)
    }

    /// Whether zones count at all.
    pub fn is_known(&self) -> bool {
        self.name.is_some()
    }

    /// Whether `cluster` is the local cluster.
    pub fn is(&self, cluster: &str) -> bool {
        self.name.as_deref() == Some(cluster)
    }

    /// Takes note of where the local cluster's hosts are.
    pub fn update(&self, assignment: &Assignment) {
        let mut counts = Counts::default();
        let mut places: HashMap<Place, u64> = HashMap::new();
        for locality in assignment.localities.iter().filter(|l| l.priority == 0 && !l.endpoints.is_empty()) {
            let place = Place {
                region: locality.region.clone(),
                zone: locality.zone.clone(),
                sub_zone: locality.sub_zone.clone(),
            };
            let count = |health| locality.endpoints.iter().filter(|e| e.health == health).count() as u64;
            let (healthy, degraded) = (count(Health::Healthy), count(Health::Degraded));
            counts.hosts += locality.endpoints.len() as u64;
            counts.available += healthy + degraded;
            let endpoints = locality.endpoints.iter().filter(|e| e.health == Health::Healthy);
            let (here, more) =
                (counts.healthy.entry(place.clone()).or_default(), Size::of(endpoints.map(|e| e.weight)));
            *here = Size { hosts: here.hosts + more.hosts, weight: here.weight.saturating_add(more.weight) };
            *places.entry(place).or_default() += locality.endpoints.len() as u64;
        }
        counts.places = places.len();
        counts.here = places.get(&self.own).copied().unwrap_or_default();
        self.counts.store(Some(Arc::new(counts)));
        self.version.fetch_add(1, Relaxed);
    }
}

/// One zone's hosts of the first priority.
#[derive(Debug)]
pub(super) struct Zone {
    pub(super) place: Place,
    pub(super) healthy: Size,
    pub(super) tiers: [Option<Tier>; 2],
}

/// Zones of one balancer.
#[derive(Debug)]
pub(super) struct Zones {
    config: ZoneAware,
    panic_threshold: u8,
    callers: Arc<Callers>,
    /// Our own first, if the cluster has hosts there.
    zones: Box<[Zone]>,
    has_own: bool,
    /// With the version of the callers it was worked out for.
    route: ArcSwap<(u64, Route)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// Zones do not count.
    Anywhere,
    /// Everything stays.
    Stay,
    /// So many ten-thousandths stay; the others go by capacity left over, summed up from zone to zone.
    Part { stay: u64, capacity: Box<[u64]> },
    /// The callers themselves are in panic, and traffic is to fail then.
    Fail,
}

/// What became of one pick.
pub(super) enum Chosen<'a> {
    Anywhere,
    Fail,
    Of(Option<&'a Tier>),
}

impl Zones {
    pub(super) fn new(config: ZoneAware, panic_threshold: u8, callers: &Arc<Callers>, mut zones: Vec<Zone>) -> Self {
        zones.sort_by_key(|zone| zone.place != callers.own);
        let has_own = zones.first().is_some_and(|zone| zone.place == callers.own);
        let this = Self {
            config,
            panic_threshold,
            callers: callers.clone(),
            zones: zones.into(),
            has_own,
            route: ArcSwap::from_pointee((u64::MAX, Route::Anywhere)),
        };
        drop(this.current());
        this
    }

    /// The route for the callers as they are; worked out again when they changed, which is rare.
    fn current(&self) -> arc_swap::Guard<Arc<(u64, Route)>> {
        let version = self.callers.version.load(Relaxed);
        let known = self.route.load();
        if known.0 == version {
            return known;
        }
        let route = self.callers.counts.load().as_deref().map_or(Route::Anywhere, |counts| self.work_out(counts));
        self.route.store(Arc::new((version, route)));
        self.route.load()
    }

    fn work_out(&self, callers: &Counts) -> Route {
        let size = |size: Size| if self.config.by_weight { size.weight } else { size.hosts };
        let all: u64 = self.zones.iter().map(|z| size(z.healthy)).sum();
        let force = self.config.force_local > 0;
        if self.zones.len() < 2
            || (callers.places < 2 && !force)
            || callers.here == 0
            || self.zones.iter().map(|z| z.healthy.hosts).sum::<u64>() < self.config.min_cluster_size
        {
            return Route::Anywhere;
        }
        if callers.hosts == 0
            || 100.0 * callers.available as f64 / (callers.hosts as f64) < f64::from(self.panic_threshold.min(100))
        {
            return if self.config.fail_on_panic { Route::Fail } else { Route::Anywhere };
        }
        let total: u64 = callers.healthy.values().map(|s| size(*s)).sum();
        let share = |part: u64, of: u64| 10_000u64.saturating_mul(part).checked_div(of).unwrap_or(0);
        // Ours, theirs: the callers' share of a zone and the cluster's.
        let shares: Vec<(u64, u64)> = self
            .zones
            .iter()
            .map(|zone| match size(zone.healthy) {
                0 => (0, 0),
                own => (share(callers.healthy.get(&zone.place).map_or(0, |s| size(*s)), total), share(own, all)),
            })
            .collect();
        let (ours, theirs) = shares[0];
        if self.has_own
            && (theirs > 0 && theirs >= ours
                || force && self.zones[0].healthy.hosts >= u64::from(self.config.force_local))
        {
            return Route::Stay;
        }
        let stay = if self.has_own { (theirs * 10_000).checked_div(ours).unwrap_or(0) } else { 0 };
        let mut sum = 0;
        let capacity = shares.iter().enumerate().map(|(i, (ours, theirs))| {
            if i > 0 || !self.has_own {
                sum += theirs.saturating_sub(*ours);
            }
            sum
        });
        Route::Part { stay, capacity: capacity.collect() }
    }

    /// The zone of one pick.
    pub(super) fn choose(&self, degraded: bool, random: &mut SplitMix, event: &dyn Fn(Event)) -> Chosen<'_> {
        let current = self.current();
        let zone = match &current.1 {
            Route::Anywhere => return Chosen::Anywhere,
            _ if below(random.next(), 100) as u32 >= self.config.enabled_percent => return Chosen::Anywhere,
            Route::Fail => {
                event(Event::LocalClusterNotOk);
                return Chosen::Fail;
            }
            Route::Stay => {
                event(Event::ZoneRoutingAllDirectly);
                0
            }
            Route::Part { stay, .. } if (below(random.next(), 10_000) as u64) < *stay => {
                event(Event::ZoneRoutingSampled);
                0
            }
            Route::Part { capacity, .. } => match capacity.last().copied().unwrap_or(0) {
                // Rounding left nothing to share out.
                0 => {
                    event(Event::ZoneNoCapacityLeft);
                    below(random.next(), self.zones.len())
                }
                sum => {
                    event(Event::ZoneRoutingCrossZone);
                    let at = below(random.next(), usize::try_from(sum).unwrap_or(usize::MAX)) as u64;
                    capacity.iter().position(|c| at < *c).unwrap_or(0)
                }
            },
        };
        Chosen::Of(self.zones[zone].tiers[usize::from(degraded)].as_ref())
    }

    #[cfg(test)]
    pub(super) fn route(&self) -> Route {
        self.current().1.clone()
    }
}
