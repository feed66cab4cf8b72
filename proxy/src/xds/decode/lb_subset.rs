//! Subsets: `lb_subset_config`, the `Subset` policy, and the criteria of routes.

use std::sync::Arc;

use outrigger_wire::pb::{
    envoy::{
        config::{
            cluster::v3::cluster::{LbSubsetConfig as Legacy, lb_subset_config::LbSubsetSelector as LegacySelector},
            core::v3::Metadata,
        },
        extensions::load_balancing_policies::subset::v3::{
            Subset as Pb,
            subset::{
                LbSubsetFallbackPolicy as Fallback, LbSubsetMetadataFallbackPolicy as MetadataFallback,
                LbSubsetSelector as Selector, lb_subset_selector::LbSubsetSelectorFallbackPolicy as Own,
            },
        },
    },
    google::protobuf::Struct,
};

use super::{at::At, fields::fields, metadata, report::Reject, scalar::enumeration};
use crate::ir::{
    balancing::{Criteria, MAX_ALTERNATIVES, SelectorFallback, SubsetFallback, SubsetSelector, Subsets},
    share::share,
};

/// The namespace of the labels that subsets go by.
const LB: &str = "envoy.lb";

/// The cluster's own field, which has the same numbers as the policy.
pub(crate) fn legacy(message: &Option<Legacy>, at: &At<'_>) -> Result<Option<Subsets>, Reject> {
    let Some(m) = message else { return Ok(None) };
    let at = at.field("lb_subset_config");
    fields!(&at, m => Legacy {
        read: [
            fallback_policy, default_subset, subset_selectors, locality_weight_aware, scale_locality_weight,
            panic_mode_any, list_as_any, metadata_fallback_policy,
        ],
    });
    let selector = |m: &LegacySelector| Selector {
        keys: m.keys.clone(),
        single_host_per_subset: m.single_host_per_subset,
        fallback_policy: m.fallback_policy,
        fallback_keys_subset: m.fallback_keys_subset.clone(),
    };
    let policy = Pb {
        fallback_policy: m.fallback_policy,
        default_subset: m.default_subset.clone(),
        subset_selectors: m.subset_selectors.iter().map(selector).collect(),
        locality_weight_aware: m.locality_weight_aware,
        scale_locality_weight: m.scale_locality_weight,
        panic_mode_any: m.panic_mode_any,
        list_as_any: m.list_as_any,
        metadata_fallback_policy: m.metadata_fallback_policy,
        ..Pb::default()
    };
    subsets(&policy, &at)
}

/// `None` without selectors: then there is nothing to choose a subset by.
pub(crate) fn subsets(message: &Pb, at: &At<'_>) -> Result<Option<Subsets>, Reject> {
    fields!(at, message => Pb {
        read: [
            fallback_policy, default_subset, subset_selectors, locality_weight_aware, scale_locality_weight,
            panic_mode_any, list_as_any, metadata_fallback_policy, allow_redundant_keys, subset_lb_policy,
        ],
    });
    let selectors: Vec<_> =
        at.each("subset_selectors", &message.subset_selectors, selector)?.into_iter().flatten().collect();
    if selectors.is_empty() {
        return Ok(None);
    }
    let alternatives: MetadataFallback =
        enumeration(message.metadata_fallback_policy, &at.field("metadata_fallback_policy"))?;
    let fallback: Fallback = enumeration(message.fallback_policy, &at.field("fallback_policy"))?;
    Ok(Some(Subsets {
        fallback: match fallback {
            Fallback::NoFallback => SubsetFallback::None,
            Fallback::AnyEndpoint => SubsetFallback::Any,
            Fallback::DefaultSubset => SubsetFallback::Default,
        },
        default: message.default_subset.as_ref().map(pairs).unwrap_or_default(),
        selectors,
        locality_weight_aware: message.locality_weight_aware,
        scale_locality_weight: message.scale_locality_weight,
        panic_any: message.panic_mode_any,
        list_as_any: message.list_as_any,
        fallback_list: alternatives == MetadataFallback::FallbackList,
        redundant_keys: message.allow_redundant_keys,
    }))
}

fn selector(message: &Selector, at: &At<'_>) -> Result<Option<SubsetSelector>, Reject> {
    fields!(at, message => Selector {
        read: [keys, single_host_per_subset, fallback_policy, fallback_keys_subset],
    });
    let sorted = |keys: &[String]| {
        let mut keys: Vec<Box<str>> = keys.iter().map(|key| key.as_str().into()).collect();
        keys.sort_unstable();
        keys.dedup();
        keys
    };
    let keys = sorted(&message.keys);
    if keys.is_empty() {
        at.field("keys").harmless("without keys there are no subsets to select");
        return Ok(None);
    }
    if message.single_host_per_subset && keys.len() > 1 {
        return Err(at.field("keys").reject("single_host_per_subset takes one key"));
    }
    let own: Own = enumeration(message.fallback_policy, &at.field("fallback_policy"))?;
    let fewer = at.field("fallback_keys_subset");
    let fallback_keys = sorted(&message.fallback_keys_subset);
    if own != Own::KeysSubset && !fallback_keys.is_empty() {
        fewer.harmless("belongs to the fallback policy KEYS_SUBSET");
    }
    let fallback = match own {
        Own::NotDefined => SelectorFallback::Inherit,
        Own::NoFallback => SelectorFallback::Of(SubsetFallback::None),
        Own::AnyEndpoint => SelectorFallback::Of(SubsetFallback::Any),
        Own::DefaultSubset => SelectorFallback::Of(SubsetFallback::Default),
        Own::KeysSubset => {
            let part = fallback_keys.iter().all(|key| keys.contains(key)) && fallback_keys.len() < keys.len();
            if !part || fallback_keys.is_empty() {
                return Err(fewer.reject("must be some of the keys, and not all"));
            }
            SelectorFallback::Keys(fallback_keys)
        }
    };
    Ok(Some(SubsetSelector { keys, fallback, single_host: message.single_host_per_subset }))
}

fn pairs(message: &Struct) -> Vec<(Box<str>, serde_json::Value)> {
    metadata::object(message).into_iter().map(|(key, value)| (key.into(), value)).collect()
}

/// `metadata_match`: what it says of `envoy.lb`, in front of what `under` says.
pub(crate) fn criteria(
    message: &Option<Metadata>,
    under: Option<&Arc<Criteria>>,
    at: &At<'_>,
) -> Option<Arc<Criteria>> {
    let own = message.as_ref().and_then(|m| m.filter_metadata.get(LB)).map(|m| Criteria::new(pairs(m)));
    if own.as_ref().is_some_and(|own| own.alternatives().len() == MAX_ALTERNATIVES) {
        at.field("metadata_match").unsupported(format!("of a fallback_list the first {MAX_ALTERNATIVES} count"));
    }
    match (own, under) {
        (None, under) => under.cloned(),
        (Some(own), None) => Some(share(own)),
        (Some(own), Some(under)) => Some(share(under.overridden(&own))),
    }
}
