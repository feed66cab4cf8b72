//! What must hold for every world: nothing that is named is missing, nothing panics, the same world is the same bytes.

use std::collections::BTreeSet;

use super::*;

const SAMPLES: [(&str, &str, &[&str]); 3] = [
    ("bookinfo", "default", &["10.244.0.10", "10.244.0.13", "10.9.9.9"]),
    ("mixed", "apps", &["fd00:10:244::20", "10.244.1.1", "192.0.2.10"]),
    ("traffic", "default", &["10.244.2.1", "10.244.2.3", "10.244.2.9", "10.9.9.9"]),
];

/// Every cluster that a route, a mirror or a TCP proxy sends to.
fn named(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                match value {
                    Value::String(name) if key == "cluster" => {
                        found.insert(name.clone());
                    }
                    Value::Array(clusters) if key == "clusters" => {
                        found.extend(clusters.iter().filter_map(|c| c["name"].as_str()).map(str::to_owned));
                    }
                    value => named(value, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| named(item, found)),
        _ => {}
    }
}

#[test]
fn every_cluster_that_is_named_is_there() {
    for (name, namespace, ips) in SAMPLES {
        let world = world(name);
        for ip in ips {
            let resources = sidecar(&world, namespace, ip);
            let mut found = BTreeSet::new();
            resources
                .listeners
                .values()
                .chain(resources.routes.values())
                .for_each(|any| named(&json_of(any), &mut found));
            assert!(found.len() > 3, "{found:?}");
            let missing: Vec<_> = found.iter().filter(|cluster| !resources.clusters.contains_key(*cluster)).collect();
            assert!(missing.is_empty(), "{name} {ip}: {missing:?}");
            for (cluster, any) in &resources.clusters {
                let eds = json_of(any)["eds_cluster_config"]["service_name"].as_str().map(str::to_owned);
                assert!(eds.is_none_or(|service| resources.endpoints.contains_key(&service)), "{name} {ip}: {cluster}");
            }
            let routes = resources.listeners.values().flat_map(|any| rds(&json_of(any)));
            for wanted in routes.collect::<BTreeSet<_>>() {
                assert!(resources.routes.contains_key(&wanted), "{name} {ip}: no routes {wanted}");
            }
        }
    }
}

fn rds(listener: &Value) -> Vec<String> {
    let chains = listener["filter_chains"].as_array().into_iter().flatten().chain(listener.get("default_filter_chain"));
    let filters = chains.flat_map(|chain| chain["filters"].as_array().into_iter().flatten());
    let names = filters.filter_map(|f| f.pointer("/typed_config/rds/route_config_name")?.as_str());
    names.map(str::to_owned).collect()
}

/// A small generator: the same seed is the same mutation.
struct Draw(u64);

impl Draw {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound.max(1)
    }
}

/// One or two lines left out, doubled, or with a token in the place of another one of the file.
fn mutated(text: &str, seed: u64) -> String {
    let mut draw = Draw(seed);
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let tokens: Vec<&str> =
        text.split([' ', '\n', '{', '}', ',', '[', ']']).filter(|token| !token.is_empty()).collect();
    for _ in 0..=draw.below(2) {
        let at = draw.below(lines.len());
        match draw.below(4) {
            0 => {
                lines.remove(at);
            }
            1 => {
                let line = lines[at].clone();
                lines.insert(at, line);
            }
            _ => {
                let words: Vec<String> = lines[at].split([' ', ',', '}', ']']).map(str::to_owned).collect();
                let old = &words[draw.below(words.len())];
                if !old.is_empty() {
                    lines[at] = lines[at].replacen(old.as_str(), tokens[draw.below(tokens.len())], 1);
                }
            }
        }
    }
    lines.join("\n")
}

fn read(files: &[&str]) -> String {
    let path = |file: &&str| Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(file);
    let texts: Vec<_> = files.iter().map(|file| std::fs::read_to_string(path(file)).unwrap()).collect();
    texts.join("---\n")
}

#[test]
fn mutated_documents_are_refused_with_a_reason_or_translated() {
    mutate(&read(&["traffic/all.yaml"]), 0..250, ("default", &["10.244.2.1", "10.244.2.9"]));
}

#[test]
fn mutated_policies_are_refused_with_a_reason_or_translated() {
    let all = ["workloads", "everything", "custom", "jwt", "deny", "peers"].map(|name| format!("security/{name}.yaml"));
    mutate(&read(&all.each_ref().map(String::as_str)), 0..250, ("foo", &["10.244.1.20", "10.244.1.30"]));
}

fn mutate(text: &str, seeds: std::ops::Range<u64>, (namespace, ips): (&str, &[&str])) {
    let dir = tempfile::tempdir().unwrap();
    let (mut taken, mut refused) = (0, 0);
    for seed in seeds {
        std::fs::write(dir.path().join("a.yaml"), mutated(text, seed)).unwrap();
        match load(dir.path()) {
            Ok(world) => {
                taken += 1;
                for ip in ips {
                    let node = node(ClientKind::Envoy, namespace, ip);
                    let resources = translate(&world, &node);
                    assert!(resources == translate(&world, &node), "seed {seed}");
                    assert!(resources.listeners.contains_key("virtualOutbound"), "seed {seed}");
                }
            }
            Err(problems) => {
                refused += 1;
                let told = |p: &crate::model::Problem| !p.reason.is_empty() && !p.path.is_empty() && p.document > 0;
                assert!(problems.iter().all(told), "seed {seed}: {problems:?}");
            }
        }
    }
    assert!(taken > 10 && refused > 10, "{taken} taken, {refused} refused: the mutations try too little");
}
