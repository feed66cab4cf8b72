use super::*;

fn policy(name: &str, namespace: &str, spec: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {{{spec}}}\n---\n"
    )
}

fn mode(yaml: &str, labels: &[(&str, &str)], port: u16) -> Mode {
    let labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    loaded(yaml).peer_policy("apps", &labels).of(port)
}

#[test]
fn port_over_workload_over_namespace_over_mesh_over_permissive() {
    let mesh = policy("mesh", "istio-system", "mtls: {mode: STRICT}");
    let namespace = policy("ns", "apps", "mtls: {mode: DISABLE}");
    let unset = policy("ns", "apps", "mtls: {mode: UNSET}");
    let workload = policy(
        "w",
        "apps",
        "selector: {matchLabels: {app: a}}, mtls: {mode: PERMISSIVE}, portLevelMtls: {80: {mode: STRICT}, 81: {mode: UNSET}}",
    );
    let ports_only = policy("w", "apps", "selector: {matchLabels: {app: a}}, portLevelMtls: {80: {mode: DISABLE}}");
    let a = [("app", "a"), ("version", "v1")];
    let table = [
        ("# none\n".to_owned(), 80, Mode::Permissive),
        (mesh.clone(), 80, Mode::Strict),
        (mesh.clone() + &namespace, 80, Mode::Disable),
        (mesh.clone() + &unset, 80, Mode::Strict),
        (mesh.clone() + &namespace + &workload, 80, Mode::Strict),
        (mesh.clone() + &namespace + &workload, 81, Mode::Permissive),
        (mesh.clone() + &namespace + &workload, 82, Mode::Permissive),
        (mesh.clone() + &ports_only, 80, Mode::Disable),
        (mesh.clone() + &ports_only, 81, Mode::Strict),
    ];
    for (index, (yaml, port, expected)) in table.iter().enumerate() {
        assert_eq!(mode(yaml, &a, *port), *expected, "row {index}");
    }
    // Policies of others do not reach here.
    assert_eq!(mode(&(namespace + &workload), &[("app", "b")], 80), Mode::Disable);
    assert_eq!(mode(&policy("x", "elsewhere", "mtls: {mode: STRICT}"), &a, 80), Mode::Permissive);
}

fn created(name: &str, namespace: &str, at: &str, spec: &str) -> String {
    policy(name, namespace, spec).replace("}\nspec", &format!(", creationTimestamp: '{at}'}}\nspec"))
}

#[test]
fn of_two_on_one_level_the_older_counts() {
    let (early, late) = ("2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z");
    let noted = |yaml: &str, text: &str| {
        let world = loaded(yaml);
        assert!(world.notes.iter().any(|n| n.contains(text)), "{text} in {:?}", world.notes);
    };
    let yaml =
        created("a", "apps", late, "mtls: {mode: DISABLE}") + &created("b", "apps", early, "mtls: {mode: STRICT}");
    assert_eq!(mode(&yaml, &[], 80), Mode::Strict);
    noted(&yaml, "PeerAuthentication apps/a (");
    let same_age = policy("a", "apps", "mtls: {mode: STRICT}") + &policy("b", "apps", "mtls: {mode: DISABLE}");
    assert_eq!(mode(&same_age, &[], 80), Mode::Strict, "then by name");
    let labels = [("app", "a"), ("tier", "b")];
    let selectors = created("a", "apps", late, "selector: {matchLabels: {app: a}}, mtls: {mode: DISABLE}")
        + &created("b", "apps", early, "selector: {matchLabels: {tier: b}}, mtls: {mode: STRICT}");
    assert_eq!(mode(&selectors, &labels, 80), Mode::Strict);
    let roots = created("a", "istio-system", late, "mtls: {mode: DISABLE}")
        + &created("b", "outrigger-system", early, "mtls: {mode: STRICT}");
    assert_eq!(mode(&roots, &[], 80), Mode::Strict);
    noted(&roots, "is for the whole mesh too");
    // The oldest counts even if it says nothing.
    let unset = created("a", "istio-system", early, "mtls: {mode: UNSET}")
        + &created("b", "istio-system", late, "mtls: {mode: STRICT}");
    assert_eq!(mode(&unset, &[], 80), Mode::Permissive);
}

#[test]
fn a_dry_run_is_not_in_force() {
    let dry = |spec: &str, value: &str| {
        policy("dry", "apps", spec)
            .replace("}\nspec", &format!(", annotations: {{istio.io/dry-run: '{value}'}}}}\nspec"))
    };
    let strict = dry("mtls: {mode: STRICT}", "true");
    assert_eq!(mode(&strict, &[], 80), Mode::Permissive);
    let world = loaded(&strict);
    let tried = world.peer_authentication("apps", &Default::default(), true);
    assert_eq!((tried.policy().default, tried.decides(80).unwrap().meta.name.as_str()), (Mode::Strict, "dry"));
    let beside = loaded(&(policy("a", "apps", "mtls: {mode: PERMISSIVE}") + &strict));
    let mode_of = |dry_run| beside.peer_authentication("apps", &Default::default(), dry_run).policy().default;
    assert_eq!((mode_of(false), mode_of(true)), (Mode::Permissive, Mode::Strict), "it is to replace the other");
    assert_eq!(mode(&dry("mtls: {mode: STRICT}", "false"), &[], 80), Mode::Strict);
    assert_problems(&dry("mtls: {mode: STRICT}", "yes"), &["1 metadata.annotations.istio.io/dry-run: is neither"]);
    let pointless = loaded(&dry("mtls: {mode: DISABLE}", "true"));
    assert!(pointless.notes.iter().any(|n| n.contains("nothing of it is STRICT")), "{:?}", pointless.notes);
}

#[test]
fn nonsense_is_refused() {
    assert_problems(
        &policy("a", "apps", "portLevelMtls: {80: {mode: STRICT}}"),
        &["1 spec.portLevelMtls: ports need a selector"],
    );
    assert_problems(&policy("a", "apps", "mtls: {mode: MAYBE}"), &["1 spec.mtls.mode: unknown variant `MAYBE`"]);
    assert_problems(
        &policy("a", "apps", "selector: {matchLabels: {app: 'a*'}}, mtls: {mode: STRICT}"),
        &["1 spec.selector.matchLabels: `app: a*` is not a label"],
    );
}

#[test]
fn a_selector_in_a_root_namespace_selects_nobody() {
    let chosen = policy("c", "istio-system", "selector: {matchLabels: {app: a}}, mtls: {mode: STRICT}");
    let labels = [("app".to_owned(), "a".to_owned())].into();
    let world = loaded(&chosen);
    for namespace in ["istio-system", "apps"] {
        assert_eq!(world.peer_policy(namespace, &labels).of(80), Mode::Permissive, "{namespace}");
    }
    assert!(world.notes.iter().any(|note| note.contains("no effect in a root namespace")), "{:?}", world.notes);
}
