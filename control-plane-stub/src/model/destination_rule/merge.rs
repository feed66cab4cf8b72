//! Several DestinationRules of one namespace for one host: Istio's merge. The oldest keeps its policy, later ones add
//! their subsets.

use super::DestinationRule;
use crate::model::{document::Object, names::Visibility};

type Seen = (Visibility, Object<DestinationRule>);

/// Rules in their order, those with the same host, visibility and callers made into one.
pub(in crate::model) fn merge(rules: &[Seen], notes: &mut Vec<String>) -> Vec<Seen> {
    let mut merged: Vec<Seen> = Vec::new();
    for (visibility, rule) in rules {
        let same = |(seen, other): &&mut Seen| {
            seen == visibility
                && other.meta.namespace == rule.meta.namespace
                && other.spec.host == rule.spec.host
                && other.spec.callers() == rule.spec.callers()
        };
        let Some((_, first)) = merged.iter_mut().find(same) else {
            merged.push((visibility.clone(), rule.clone()));
            continue;
        };
        let into = &mut first.spec;
        let mut lost = Vec::new();
        for subset in &rule.spec.subsets {
            if into.subsets.iter().any(|known| known.name == subset.name) {
                lost.push(format!("its subset {}", subset.name));
            } else {
                into.subsets.push(subset.clone());
            }
        }
        if into.traffic_policy == Default::default() {
            into.traffic_policy.clone_from(&rule.spec.traffic_policy);
        } else if rule.spec.traffic_policy != Default::default() {
            lost.push("its trafficPolicy".to_owned());
        }
        let with = |lost: &str| format!(", {lost} is not followed");
        notes.push(format!(
            "DestinationRules {}/{} and {} are for {}: they are taken together{}",
            rule.meta.namespace,
            first.meta.name,
            rule.meta.name,
            rule.spec.host,
            lost.iter().map(|lost| with(lost)).collect::<String>()
        ));
    }
    merged
}
