//! Several DestinationRules of one namespace for one host: Istio's merge. The oldest keeps its policy, later ones add
//! their subsets.

use std::collections::HashMap;

use super::DestinationRule;
use crate::model::{document::Object, names::Visibility};

type Seen = (Visibility, Object<DestinationRule>);

/// Rules in their order, those with the same host, visibility and callers made into one.
pub(in crate::model) fn merge(rules: &[Seen], notes: &mut Vec<String>) -> Vec<Seen> {
    let mut merged: Vec<Seen> = Vec::new();
    let mut places: HashMap<(&str, &str), Vec<usize>> = HashMap::new();
    for (visibility, rule) in rules {
        let known = places.entry((&rule.meta.namespace, &rule.spec.host)).or_default();
        let same = |place: &&usize| {
            let (seen, other) = &merged[**place];
            seen == visibility && other.spec.callers() == rule.spec.callers()
        };
        let Some(place) = known.iter().find(same).copied() else {
            known.push(merged.len());
            merged.push((visibility.clone(), rule.clone()));
            continue;
        };
        let (_, first) = &mut merged[place];
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
