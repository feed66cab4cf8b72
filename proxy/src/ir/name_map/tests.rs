use std::collections::BTreeMap;

use super::*;

fn map(items: &[(&str, &Arc<u8>)]) -> NameMap<Arc<u8>> {
    items.iter().map(|(name, value)| ((*name).into(), (*value).clone())).collect()
}

fn changes(before: &NameMap<Arc<u64>>, after: &NameMap<Arc<u64>>) -> BTreeMap<Name, Option<u64>> {
    let mut seen = BTreeMap::new();
    before.differences(after, |name, now| {
        assert!(seen.insert(name.clone(), now.map(|v| **v)).is_none(), "{name} twice");
    });
    seen
}

#[test]
fn differences_see_additions_removals_and_replacements() {
    let (one, two) = (Arc::new(1), Arc::new(2));
    let before = map(&[("a", &one), ("b", &one), ("c", &one), ("e", &one)]);
    let after = map(&[("b", &one), ("c", &two), ("d", &two), ("f", &two)]);
    let mut seen = Vec::new();
    before.differences(&after, |name, now| seen.push((name.to_string(), now.map(|v| **v))));
    seen.sort();
    let expected = [("a", None), ("c", Some(2)), ("d", Some(2)), ("e", None), ("f", Some(2))];
    assert_eq!(seen, expected.map(|(name, value)| (name.to_owned(), value)));
}

#[test]
fn random_histories_agree_with_an_ordinary_map() {
    let mut random = fastrand::Rng::with_seed(7);
    let mut model: BTreeMap<Name, Arc<u64>> = BTreeMap::new();
    let mut trie = NameMap::default();
    let (mut old_model, mut old_trie) = (model.clone(), trie.clone());
    for step in 0..20_000u64 {
        let name: Name = format!("service-{}", random.u32(..3000)).into();
        if random.u32(..5) < 2 + u32::from(step < 6000) {
            let value = Arc::new(step);
            assert_eq!(trie.insert(name.clone(), value.clone()), model.insert(name.clone(), value));
        } else {
            assert_eq!(trie.remove(&name), model.remove(&name));
        }
        assert_eq!((trie.len(), trie.get(&name)), (model.len(), model.get(&name)));
        if step % 500 == 499 {
            assert!(trie.sorted().into_iter().eq(&model));
            assert_eq!(trie.iter().count(), trie.iter().len());
            let mut expected: BTreeMap<Name, Option<u64>> = BTreeMap::new();
            for (name, value) in &model {
                if old_model.get(name).is_none_or(|old| !Arc::ptr_eq(old, value)) {
                    expected.insert(name.clone(), Some(**value));
                }
            }
            expected.extend(old_model.keys().filter(|n| !model.contains_key(*n)).map(|n| (n.clone(), None)));
            assert_eq!(changes(&old_trie, &trie), expected);
            let rebuilt: NameMap<_> = model.clone().into_iter().collect();
            assert_eq!(rebuilt, trie);
            (old_model, old_trie) = (model.clone(), trie.clone());
        }
    }
    for name in model.keys() {
        trie.remove(name);
    }
    assert!(trie.is_empty() && trie.iter().next().is_none());
    assert_eq!(trie, NameMap::default());
}

#[test]
fn a_copy_is_not_touched_by_changes_of_the_other_and_shares_the_rest() {
    let names: Vec<Name> = (0..5000).map(|i| format!("n{i}").into()).collect();
    let before: NameMap<Arc<u64>> = names.iter().cloned().zip((0..).map(Arc::new)).collect();
    let mut after = before.clone();
    assert!(after.is_same(&before));
    assert_eq!(after.remove("nobody"), None);
    assert!(after.is_same(&before), "nothing changed");
    after.insert(names[17].clone(), Arc::new(99));
    assert_eq!((*before["n17"], *after["n17"]), (17, 99));
    let shared = before.root.slots.iter().zip(&after.root.slots);
    let apart = shared.filter(|(a, b)| match (a, b) {
        (node::Slot::Branch(a), node::Slot::Branch(b)) => !Arc::ptr_eq(a, b),
        _ => false,
    });
    assert_eq!(apart.count(), 1);
}
