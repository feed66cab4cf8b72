//! How a cluster balances load: policies, subsets and their options (`envoy.extensions.load_balancing_policies`).
//!
//! Plain data like the rest of the configuration. Criteria carry a hash of their own, so that finding a subset by them
//! costs one look-up however many pairs they have.

use std::{
    hash::{BuildHasher, Hasher},
    sync::Arc,
    time::Duration,
};

use serde_json::Value;

use super::route::HashPolicy;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LbPolicy {
    RoundRobin,
    LeastRequest(LeastRequest),
    Random,
    RingHash(RingHash),
    Maglev(Maglev),
    PeakEwma(PeakEwma),
    ClusterProvided,
}

impl LbPolicy {
    /// Whether picks depend on the request's hash: nobody else computes one.
    pub fn is_hashed(self) -> bool {
        matches!(self, Self::RingHash(_) | Self::Maglev(_))
    }
}

/// A finite number that is not negative.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Number(f64);

impl Eq for Number {}

impl Number {
    pub const ONE: Self = Self(1.0);

    /// `None` for what is negative, infinite or no number.
    pub fn new(value: f64) -> Option<Self> {
        (value.is_finite() && value >= 0.0).then_some(Self(value))
    }

    pub fn get(self) -> f64 {
        self.0
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeastRequest {
    /// At least 2.
    pub choices: u32,
    /// `FULL_SCAN`: look at every host.
    pub full_scan: bool,
    /// `active_request_bias`; it counts where weights differ.
    pub bias: Number,
}

impl Default for LeastRequest {
    fn default() -> Self {
        Self { choices: 2, full_scan: false, bias: Number::ONE }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingHash {
    pub min_size: u32,
    /// Not less than `min_size`.
    pub max_size: u32,
    /// `MURMUR_HASH_2` instead of xxHash.
    pub murmur: bool,
    pub keys: HashKeys,
}

impl Default for RingHash {
    fn default() -> Self {
        Self { min_size: 1024, max_size: 8 << 20, murmur: false, keys: HashKeys::default() }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Maglev {
    /// A prime.
    pub table_size: u32,
    pub keys: HashKeys,
}

impl Default for Maglev {
    fn default() -> Self {
        Self { table_size: 65_537, keys: HashKeys::default() }
    }
}

/// `ConsistentHashingLbConfig`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HashKeys {
    /// A host is known by its hostname instead of its address; its `hash_key` metadata comes before either.
    pub hostname: bool,
    /// `hash_balance_factor` in percent of the average load; 0: unbounded.
    pub balance_factor: u32,
}

/// Latency-aware power of two choices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeakEwma {
    /// At least 2.
    pub choices: u32,
    /// The time constant of the decay.
    pub decay: Duration,
    /// What an idle host without measurements is taken for.
    pub default_rtt: Duration,
    /// In milliseconds: what a host with requests but without a single answer costs at least.
    pub penalty: Number,
}

impl Default for PeakEwma {
    fn default() -> Self {
        Self {
            choices: 2,
            decay: Duration::from_secs(10),
            default_rtt: Duration::from_millis(10),
            penalty: Number(1_000_000.0),
        }
    }
}

/// What few clusters configure, kept apart because there are thousands of the others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LbOptions {
    pub slow_start: Option<SlowStart>,
    /// `None`: localities play no part, or only by their weights.
    pub zone_aware: Option<ZoneAware>,
    pub subsets: Option<Subsets>,
    /// The hash policy of the load balancer: it comes before the route's.
    pub hash_policy: Vec<HashPolicy>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlowStart {
    pub window: Duration,
    /// Above zero.
    pub aggression: Number,
    /// In thousandths of the full weight.
    pub min_permille: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ZoneAware {
    /// Share of picks that prefer their own zone, in percent.
    pub enabled_percent: u32,
    pub min_cluster_size: u64,
    pub fail_on_panic: bool,
    /// Stay in the zone however many callers it has, as long as so many hosts there are healthy; 0: never.
    pub force_local: u32,
    /// `HEALTHY_HOSTS_WEIGHT`: zones compare by the weights of their hosts instead of by their number.
    pub by_weight: bool,
}

impl Default for ZoneAware {
    fn default() -> Self {
        Self { enabled_percent: 100, min_cluster_size: 6, fail_on_panic: false, force_local: 0, by_weight: false }
    }
}

/// `LbSubsetConfig`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subsets {
    pub fallback: SubsetFallback,
    /// The default subset's labels.
    pub default: Vec<(Box<str>, Value)>,
    /// Never empty.
    pub selectors: Vec<SubsetSelector>,
    pub locality_weight_aware: bool,
    pub scale_locality_weight: bool,
    /// A fallback without hosts gives way to all hosts.
    pub panic_any: bool,
    /// A host whose label is a list is in the subsets of all its elements.
    pub list_as_any: bool,
    /// `FALLBACK_LIST`: criteria may bring alternatives.
    pub fallback_list: bool,
    /// Criteria may have pairs that no selector asks for.
    pub redundant_keys: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SubsetFallback {
    #[default]
    None,
    Any,
    Default,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubsetSelector {
    /// Sorted, without repetitions, never empty.
    pub keys: Vec<Box<str>>,
    pub fallback: SelectorFallback,
    pub single_host: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SelectorFallback {
    /// The cluster's.
    Inherit,
    Of(SubsetFallback),
    /// `KEYS_SUBSET`: look again with only these keys, a proper part of the selector's.
    Keys(Vec<Box<str>>),
}

/// `metadata_match`: the labels a route asks of hosts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Criteria {
    /// Sorted by key.
    pairs: Vec<(Box<str>, Value)>,
    hash: u64,
    /// What the `fallback_list` among the pairs says, tried in its order.
    alternatives: Vec<Criteria>,
}

/// Whose list of alternatives [`Subsets::fallback_list`] allows.
const FALLBACK_LIST: &str = "fallback_list";

/// Most alternatives of one criteria.
pub const MAX_ALTERNATIVES: usize = 100;

impl Criteria {
    /// Criteria of `pairs`; of several with one key the last counts.
    pub fn new(pairs: impl IntoIterator<Item = (Box<str>, Value)>) -> Self {
        let plain = Self::exact(pairs);
        let Some(list) = plain.get(FALLBACK_LIST).and_then(Value::as_array) else { return plain };
        let others = || plain.pairs.iter().filter(|(key, _)| **key != *FALLBACK_LIST).cloned();
        let mut alternatives: Vec<Self> = list
            .iter()
            .filter_map(Value::as_object)
            .take(MAX_ALTERNATIVES)
            .map(|o| Self::exact(others().chain(o.iter().map(|(k, v)| (k.as_str().into(), v.clone())))))
            .collect();
        if list.is_empty() {
            alternatives.push(Self::exact(others()));
        }
        Self { alternatives, ..plain }
    }

    /// Criteria without alternatives, whatever their keys.
    pub fn exact(pairs: impl IntoIterator<Item = (Box<str>, Value)>) -> Self {
        let mut sorted = std::collections::BTreeMap::new();
        sorted.extend(pairs);
        let pairs: Vec<_> = sorted.into_iter().collect();
        Self { hash: hash_of(&pairs), pairs, alternatives: Vec::new() }
    }

    /// These criteria with those of `over` in front.
    pub fn overridden(&self, over: &Self) -> Self {
        Self::new(self.pairs.iter().chain(&over.pairs).cloned())
    }

    /// Only the pairs of `keys`; `None` unless there is one for each.
    pub fn only(&self, keys: &[Box<str>]) -> Option<Self> {
        let pairs: Vec<_> = self.pairs.iter().filter(|(key, _)| keys.contains(key)).cloned().collect();
        (pairs.len() == keys.len()).then(|| Self::exact(pairs))
    }

    pub fn get(&self, key: &str) -> Option<&Value> {
        self.pairs.iter().find(|(k, _)| **k == *key).map(|(_, v)| v)
    }

    pub fn pairs(&self) -> &[(Box<str>, Value)] {
        &self.pairs
    }

    pub fn alternatives(&self) -> &[Self] {
        &self.alternatives
    }

    /// The same for equal criteria, within one process.
    pub fn hash(&self) -> u64 {
        self.hash
    }
}

fn hash_of(pairs: &[(Box<str>, Value)]) -> u64 {
    let mut hasher = foldhash::fast::FixedState::with_seed(0).build_hasher();
    for (key, value) in pairs {
        hasher.write(key.as_bytes());
        // Objects are sorted by key, so equal values are equal text.
        hasher.write(value.to_string().as_bytes());
        hasher.write_u8(0xff);
    }
    hasher.finish()
}

/// Shared criteria: a route's are those of thousands of routes.
pub type SharedCriteria = Option<Arc<Criteria>>;
