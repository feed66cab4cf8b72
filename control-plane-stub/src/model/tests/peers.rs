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
        (String::new(), 80, Mode::Permissive),
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

#[test]
fn contradictions_are_refused() {
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: p, namespace: apps, labels: {app: a, tier: b}}\nspec: {}\nstatus: {podIP: 10.0.0.1}\n---\n";
    let yaml = policy("a", "apps", "mtls: {mode: STRICT}") + &policy("b", "apps", "mtls: {mode: DISABLE}");
    assert_problems(&yaml, &["2 spec.selector: PeerAuthentication apps/a"]);
    let selectors = policy("a", "apps", "selector: {matchLabels: {app: a}}, mtls: {mode: STRICT}")
        + &policy("b", "apps", "selector: {matchLabels: {tier: b}}, mtls: {mode: DISABLE}");
    assert_problems(&(pod.to_owned() + &selectors), &["3 spec.selector: PeerAuthentication apps/a"]);
    assert_eq!(problems(&selectors), Vec::<String>::new());
    let roots =
        policy("a", "istio-system", "mtls: {mode: STRICT}") + &policy("b", "outrigger-system", "mtls: {mode: DISABLE}");
    assert_problems(&roots, &["2 spec.selector: PeerAuthentication istio-system/a"]);
    assert_problems(
        &policy("a", "apps", "portLevelMtls: {80: {mode: STRICT}}"),
        &["1 spec.portLevelMtls: ports need a selector"],
    );
    assert_problems(&policy("a", "apps", "mtls: {mode: MAYBE}"), &["1 spec.mtls.mode: unknown variant `MAYBE`"]);
}
