//! Which buckets a request draws from, and whether it may pass: Envoy's local limiter.
//!
//! A request takes from the bucket of every descriptor that it matches, the slowest first, then from the default bucket.
//! The first one without enough refuses it; what it took from others stays taken. Knows no clock and no request, only
//! descriptors. Invariant: one limiter is one set of buckets, whoever asks.

use std::sync::Arc;

use smallvec::SmallVec;

use super::{Descriptor, Entry, bucket::Bucket, hash, same, wildcard::Wildcard};
use crate::ir::rate_limit::{LimitedDescriptor, TokenBucket};

/// The buckets of one configured limit.
#[derive(Debug)]
pub struct LocalLimiter {
    default: Fallback,
    always_default: bool,
    state: foldhash::fast::RandomState,
    /// By the hash of their entries.
    fixed: Vec<Fixed>,
    wildcards: Vec<Wildcard>,
}

/// The bucket of requests that match no descriptor.
#[derive(Debug)]
enum Fallback {
    None,
    /// `max_tokens: 0`.
    Never,
    Bucket(Arc<Drawn>),
}

#[derive(Debug)]
struct Fixed {
    hash: u64,
    entries: Box<[(Box<str>, Box<str>)]>,
    drawn: Arc<Drawn>,
}

/// A bucket to draw from.
#[derive(Debug)]
pub struct Drawn {
    pub bucket: Bucket,
    pub shadow: bool,
}

impl Drawn {
    pub(super) fn new(config: &TokenBucket, shadow: bool) -> Arc<Self> {
        Arc::new(Self { bucket: Bucket::new(config), shadow })
    }
}

/// What a decision came to.
#[derive(Clone, Debug, Default)]
pub struct Decision {
    pub allowed: bool,
    /// The bucket that refused, or of those that a request which passes drew from the first.
    pub drawn: Option<Arc<Drawn>>,
    /// `x_ratelimit_option` of the descriptor that it was drawn from for.
    pub headers: Option<bool>,
    /// Buckets that would have refused, were they not in shadow mode.
    pub shadowed: u32,
    /// No bucket had a say.
    pub unlimited: bool,
}

impl LocalLimiter {
    /// `max_dynamic` bounds the buckets of each descriptor with wildcards.
    pub fn new(
        default: Option<&TokenBucket>,
        always_default: bool,
        descriptors: &[LimitedDescriptor],
        max_dynamic: u32,
    ) -> Self {
        let default = match default {
            None => Fallback::None,
            Some(config) if config.max_tokens == 0 => Fallback::Never,
            Some(config) => Fallback::Bucket(Drawn::new(config, false)),
        };
        let state = foldhash::fast::RandomState::default();
        let (wild, plain): (Vec<_>, Vec<_>) =
            descriptors.iter().partition(|d| d.entries.iter().any(|(_, value)| value.is_empty()));
        let mut fixed: Vec<Fixed> = plain
            .into_iter()
            .map(|d| Fixed {
                hash: hash(&state, &d.entries),
                entries: d.entries.as_slice().into(),
                drawn: Drawn::new(&d.bucket, d.shadow),
            })
            .collect();
        fixed.sort_by_key(|f| f.hash);
        let wildcards = wild.into_iter().map(|d| Wildcard::new(d, max_dynamic)).collect();
        Self { default, always_default, state, fixed, wildcards }
    }

    /// Decides on a request of which each token counts for as many as `share` proxies have the limit together.
    pub fn decide(&self, now: f64, descriptors: &[Descriptor<'_>], share: u32) -> Decision {
        let find = |entries: &[Entry<'_>]| self.find(entries, Wildcard::bucket);
        let give = |bucket: &Bucket, hits| bucket.give(now, hits);
        self.judge(descriptors, find, |bucket, tokens| bucket.take(now, tokens, share), give)
    }

    /// What [`Self::decide`] would say. No token moves.
    pub fn foresee(&self, now: f64, descriptors: &[Descriptor<'_>], share: u32) -> Decision {
        let find = |entries: &[Entry<'_>]| self.find(entries, Wildcard::peek);
        self.judge(descriptors, find, |bucket, tokens| bucket.has(now, tokens, share), |_, _| {})
    }

    fn judge(
        &self,
        descriptors: &[Descriptor<'_>],
        find: impl Fn(&[Entry<'_>]) -> Option<Arc<Drawn>>,
        take: impl Fn(&Bucket, f64) -> bool,
        give: impl Fn(&Bucket, f64),
    ) -> Decision {
        let mut matched: SmallVec<[(Arc<Drawn>, &Descriptor<'_>); 4]> = SmallVec::new();
        if !self.fixed.is_empty() || !self.wildcards.is_empty() {
            matched.extend(descriptors.iter().filter_map(|d| Some((find(&d.entries)?, d))));
            matched.sort_by(|a, b| a.0.bucket.rate().total_cmp(&b.0.bucket.rate()));
        }
        let mut shadowed = 0;
        for (drawn, descriptor) in &matched {
            let hits = descriptor.hits.unwrap_or(1) as f64;
            if descriptor.negative && descriptor.hits.is_some() {
                give(&drawn.bucket, hits);
            } else if !take(&drawn.bucket, hits) {
                if !drawn.shadow {
                    let (drawn, headers) = (Some(drawn.clone()), descriptor.headers);
                    return Decision { drawn, headers, shadowed, ..Decision::default() };
                }
                shadowed += 1;
            }
        }
        let first = matched.first();
        let passed = Decision {
            allowed: true,
            drawn: first.map(|(drawn, _)| drawn.clone()),
            headers: first.and_then(|(_, descriptor)| descriptor.headers),
            shadowed,
            unlimited: false,
        };
        if !matched.is_empty() && !self.always_default {
            return passed;
        }
        match &self.default {
            Fallback::None => Decision { unlimited: matched.is_empty(), ..passed },
            Fallback::Never => Decision { shadowed, ..Decision::default() },
            Fallback::Bucket(drawn) if take(&drawn.bucket, 1.0) => {
                Decision { drawn: passed.drawn.or_else(|| Some(drawn.clone())), ..passed }
            }
            Fallback::Bucket(drawn) => Decision { drawn: Some(drawn.clone()), shadowed, ..Decision::default() },
        }
    }

    fn find(&self, entries: &[Entry<'_>], wild: impl Fn(&Wildcard, &[Entry<'_>]) -> Arc<Drawn>) -> Option<Arc<Drawn>> {
        if !self.fixed.is_empty() {
            let hash = hash(&self.state, entries);
            let from = self.fixed.partition_point(|f| f.hash < hash);
            let of_hash = self.fixed[from..].iter().take_while(|f| f.hash == hash);
            if let Some(fixed) = of_hash.into_iter().find(|f| same(&f.entries, entries)) {
                return Some(fixed.drawn.clone());
            }
        }
        self.wildcards.iter().find(|w| w.matches(entries)).map(|w| wild(w, entries))
    }
}
