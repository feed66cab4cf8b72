//! `load_balancing_policy`: policies as extensions, of which the first that is known wins.

use outrigger_wire::pb::envoy::{
    config::cluster::v3::LoadBalancingPolicy,
    extensions::load_balancing_policies::{
        cluster_provided::v3::ClusterProvided,
        common::v3::ConsistentHashingLbConfig,
        least_request::v3::{LeastRequest, least_request::SelectionMethod},
        maglev::v3::Maglev as PbMaglev,
        random::v3::Random,
        ring_hash::v3::{RingHash as PbRing, ring_hash::HashFunction},
        round_robin::v3::RoundRobin,
        subset::v3::Subset,
        wrr_locality::v3::WrrLocality,
    },
};

use super::{
    at::At,
    extension::{self, Extension},
    fields::fields,
    hash_policy::hash_policies,
    lb_options::{self, Localities, least_request, localities, slow_start, table_size},
    lb_peak_ewma as peak_ewma, lb_subset,
    report::{NoteKind, Reject},
    scalar::{bool_or, enumeration},
};
use crate::ir::{
    balancing::{HashKeys, LbOptions, Maglev, RingHash},
    cluster::LbPolicy,
    route::HashPolicy,
};

/// A policy with all that it says.
pub(crate) struct Found {
    pub policy: LbPolicy,
    pub options: LbOptions,
    pub localities: Localities,
}

/// The first policy that is known wins, as in Envoy; `depth` bounds policies in policies.
pub(crate) fn extensions(message: &LoadBalancingPolicy, at: &At<'_>, depth: u32) -> Result<Found, Reject> {
    let mut seen = Vec::new();
    for (i, policy) in message.policies.iter().enumerate() {
        let at = at.index("policies", i);
        let at = at.field("typed_extension_config");
        let config = policy.typed_extension_config.as_ref();
        let any = config.and_then(|c| c.typed_config.as_ref()).ok_or_else(|| at.reject("is required"))?;
        let extension = extension::open(any, &at)?;
        if let Some(found) = known(&extension, &at, depth)? {
            return Ok(found);
        }
        seen.push(extension.kind.into_owned());
    }
    Err(at.field("policies").reject(format!("none of the policies is supported by this release: {}", seen.join(", "))))
}

fn known(extension: &Extension<'_>, at: &At<'_>, depth: u32) -> Result<Option<Found>, Reject> {
    let plain = |policy, localities| Found { policy, options: LbOptions::default(), localities };
    Ok(Some(if extension.is::<RoundRobin>() {
        let m: RoundRobin = extension.message(at)?;
        fields!(at, &m => RoundRobin { read: [locality_lb_config, slow_start_config] });
        let options = LbOptions { slow_start: slow_start(&m.slow_start_config, at)?, ..LbOptions::default() };
        Found { policy: LbPolicy::RoundRobin, options, localities: localities(&m.locality_lb_config, at)? }
    } else if extension.is::<Random>() {
        let m: Random = extension.message(at)?;
        plain(LbPolicy::Random, localities(&m.locality_lb_config, at)?)
    } else if extension.is::<LeastRequest>() {
        let m: LeastRequest = extension.message(at)?;
        fields!(at, &m => LeastRequest {
            read: [
                choice_count, locality_lb_config, selection_method, active_request_bias, slow_start_config,
                enable_full_scan,
            ],
        });
        let method: SelectionMethod = enumeration(m.selection_method, &at.field("selection_method"))?;
        let full_scan = method == SelectionMethod::FullScan || bool_or(&m.enable_full_scan, false);
        let config = least_request(&m.choice_count, &m.active_request_bias, full_scan, at)?;
        let options = LbOptions { slow_start: slow_start(&m.slow_start_config, at)?, ..LbOptions::default() };
        Found { policy: LbPolicy::LeastRequest(config), options, localities: localities(&m.locality_lb_config, at)? }
    } else if extension.is::<PbRing>() {
        ring_hash(&extension.message(at)?, at)?
    } else if extension.is::<PbMaglev>() {
        maglev(&extension.message(at)?, at)?
    } else if extension.kind == peak_ewma::KIND {
        plain(LbPolicy::PeakEwma(peak_ewma::peak_ewma(extension, at)?), Localities::Unsaid)
    } else if extension.is::<ClusterProvided>() {
        plain(LbPolicy::ClusterProvided, Localities::Unsaid)
    } else if extension.is::<WrrLocality>() && depth < 2 {
        let m: WrrLocality = extension.message(at)?;
        let inner = at.required("endpoint_picking_policy", &m.endpoint_picking_policy)?;
        let found = extensions(inner, &at.field("endpoint_picking_policy"), depth + 1)?;
        Found { localities: Localities::Weighted, ..found }
    } else if extension.is::<Subset>() && depth == 0 {
        let m: Subset = extension.message(at)?;
        let inner = at.required("subset_lb_policy", &m.subset_lb_policy)?;
        let mut found = extensions(inner, &at.field("subset_lb_policy"), depth + 1)?;
        found.options.subsets = lb_subset::subsets(&m, at)?;
        found
    } else {
        return Ok(None);
    }))
}

fn weighted(on: bool) -> Localities {
    if on { Localities::Weighted } else { Localities::Unsaid }
}

fn ring_hash(message: &PbRing, at: &At<'_>) -> Result<Found, Reject> {
    fields!(at, message => PbRing {
        read: [
            hash_function, minimum_ring_size, maximum_ring_size, use_hostname_for_hashing, hash_balance_factor,
            consistent_hashing_lb_config, locality_weighted_lb_config,
        ],
    });
    let (min_size, max_size) = lb_options::ring_sizes((&message.minimum_ring_size, &message.maximum_ring_size), at)?;
    let function: HashFunction = enumeration(message.hash_function, &at.field("hash_function"))?;
    let (keys, hash_policy) = match &message.consistent_hashing_lb_config {
        Some(m) => consistent(m, &at.field("consistent_hashing_lb_config"))?,
        None => {
            if message.use_hostname_for_hashing || message.hash_balance_factor.is_some() {
                at.note(NoteKind::Deprecated, "use consistent_hashing_lb_config");
            }
            (lb_options::hash_keys(message.use_hostname_for_hashing, &message.hash_balance_factor, at)?, Vec::new())
        }
    };
    let ring = RingHash { min_size, max_size, murmur: function == HashFunction::MurmurHash2, keys };
    Ok(Found {
        policy: LbPolicy::RingHash(ring),
        options: LbOptions { hash_policy, ..LbOptions::default() },
        localities: weighted(message.locality_weighted_lb_config.is_some()),
    })
}

fn maglev(message: &PbMaglev, at: &At<'_>) -> Result<Found, Reject> {
    fields!(at, message => PbMaglev {
        read: [table_size, consistent_hashing_lb_config, locality_weighted_lb_config],
    });
    let (keys, hash_policy) = match &message.consistent_hashing_lb_config {
        Some(m) => consistent(m, &at.field("consistent_hashing_lb_config"))?,
        None => Default::default(),
    };
    Ok(Found {
        policy: LbPolicy::Maglev(Maglev { table_size: table_size(&message.table_size, at)?, keys }),
        options: LbOptions { hash_policy, ..LbOptions::default() },
        localities: weighted(message.locality_weighted_lb_config.is_some()),
    })
}

fn consistent(message: &ConsistentHashingLbConfig, at: &At<'_>) -> Result<(HashKeys, Vec<HashPolicy>), Reject> {
    fields!(at, message => ConsistentHashingLbConfig {
        read: [use_hostname_for_hashing, hash_balance_factor, hash_policy],
    });
    let keys = lb_options::hash_keys(message.use_hostname_for_hashing, &message.hash_balance_factor, at)?;
    Ok((keys, hash_policies(&message.hash_policy, at)?))
}
