//! Rate limits: what a request counts as, and whether a token bucket has room for it.
//!
//! Pure but for the buckets' own numbers, which all workers share. Refuses to know who asks, what time it is, and the
//! rate limit service. Invariant: what a request counts as depends on configuration and request only.

pub mod bucket;
pub mod descriptors;
pub mod limits;
pub mod local;
pub mod service;
mod wildcard;

#[cfg(test)]
mod bucket_tests;
#[cfg(test)]
mod descriptor_tests;
#[cfg(test)]
mod limits_tests;
#[cfg(test)]
mod local_tests;
#[cfg(test)]
mod service_tests;

use std::{borrow::Cow, hash::BuildHasher};

use smallvec::SmallVec;

use crate::ir::rate_limit::Limit;

/// One entry of a descriptor: key and value.
pub type Entry<'a> = (Cow<'a, str>, Cow<'a, str>);

pub type Entries<'a> = SmallVec<[Entry<'a>; 3]>;

/// What a request counts as.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Descriptor<'a> {
    pub entries: Entries<'a>,
    pub limit: Option<Limit>,
    pub hits: Option<u64>,
    /// The hits are given back.
    pub negative: bool,
    /// `x_ratelimit_option`: instead of what the filter says.
    pub headers: Option<bool>,
}

/// The descriptors of a request.
pub type Descriptors<'a> = SmallVec<[Descriptor<'a>; 2]>;

/// Hash of entries, the same for every way in which they are kept.
fn hash<'e, K: AsRef<str> + 'e, V: AsRef<str> + 'e>(
    state: &foldhash::fast::RandomState,
    entries: impl IntoIterator<Item = &'e (K, V)>,
) -> u64 {
    use std::hash::{Hash, Hasher};
    let mut hasher = state.build_hasher();
    for (key, value) in entries {
        key.as_ref().hash(&mut hasher);
        value.as_ref().hash(&mut hasher);
    }
    hasher.finish()
}

/// Whether both lists have the same keys and values.
fn same(kept: &[(Box<str>, Box<str>)], entries: &[Entry<'_>]) -> bool {
    kept.len() == entries.len() && kept.iter().zip(entries).all(|(k, e)| *k.0 == *e.0 && *k.1 == *e.1)
}
