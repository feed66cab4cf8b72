use super::*;

mod conflicts;
mod endpoints;
mod files;
mod peers;
mod security;
mod traffic;

/// Loads one file and returns what was found wrong, as `document path: reason`.
fn problems(yaml: &str) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("mesh.yaml"), yaml).unwrap();
    let Err(problems) = load(dir.path()) else { return Vec::new() };
    assert!(problems.iter().all(|p| p.file.ends_with("mesh.yaml")));
    problems.iter().map(|p| format!("{} {}: {}", p.document, p.path, p.reason)).collect()
}

fn loaded(yaml: &str) -> World {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("mesh.yaml"), yaml).unwrap();
    load(dir.path()).unwrap_or_else(|problems| panic!("{problems:#?}"))
}

/// Each expected text must start one problem, in order; there must be no others.
#[track_caller]
fn assert_problems(yaml: &str, expected: &[&str]) {
    let found = problems(yaml);
    let right = found.len() == expected.len() && found.iter().zip(expected).all(|(f, e)| f.starts_with(e));
    assert!(right, "expected {expected:#?}\nfound {found:#?}");
}

const SERVICES: &str = "
apiVersion: v1
kind: Service
metadata: {name: reviews}
spec: {clusterIP: 10.0.0.1, ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: two, namespace: other}
spec: {clusterIP: 10.0.0.2, ports: [{name: http-a, port: 81}, {name: http-b, port: 82}]}
---
";

fn with_services(yaml: &str) -> String {
    format!("{SERVICES}{yaml}")
}

fn route(http: &str) -> String {
    let head =
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: r}\nspec:\n  hosts: [reviews]\n";
    with_services(&format!("{head}  http:\n{http}"))
}

#[test]
fn samples_load() {
    for name in ["bookinfo", "mixed", "traffic"] {
        let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(name);
        let world = load(&dir).unwrap_or_else(|problems| panic!("{problems:#?}"));
        assert!(world.services.len() >= 4, "{name}");
    }
}

#[test]
fn an_empty_directory_is_an_empty_world() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(load(dir.path()), Ok(World::default()));
}

#[test]
fn unknown_fields_name_their_path_and_all_are_reported() {
    let yaml = route(
        "  - matches: []\n    route:\n    - destination: {host: reviews, sub: v1}\n    retires: {}\n  - timeout: 5\n    route: [{destination: {host: reviews}}]\n",
    );
    assert_problems(
        &yaml,
        &[
            "3 spec.http[0].matches: `matches` is not a field known here",
            "3 spec.http[0].retires: `retires` is not a field",
            "3 spec.http[0].route[0].destination.sub: `sub` is not a field",
            "3 spec.http[1].timeout: invalid type: integer `5`, expected a string",
        ],
    );
}

#[test]
fn what_later_releases_bring_is_refused_by_name() {
    let yaml = route(
        "  - fault: {abort: {http2Error: x}, delay: {exponentialDelay: 1s}}\n    match: [{headers: {'@request.auth.claims.a': {exact: b}}}]\n    route: [{destination: {host: reviews}}]\n",
    );
    assert_problems(
        &yaml,
        &[
            "3 spec.http[0].fault.abort.http2Error: is not supported yet",
            "3 spec.http[0].fault.delay.exponentialDelay: is not supported yet",
            "3 spec.http[0].match[0].headers: `@request.auth.claims.a`: claims of tokens are not supported yet",
        ],
    );
}

#[test]
fn values_are_checked() {
    let yaml = route(
        "  - match: [{uri: {regex: '(a'}}]\n    route: [{destination: {host: reviews}, weight: -1}]\n  - retries: {attempts: 1, retryOn: sometimes}\n    route: [{destination: {host: reviews, port: {number: 70000}}}]\n  - match: [{uri: {exact: a, prefix: b}}]\n    headers: {request: {set: {x: '%NOPE%'}}}\n    redirect: {redirectCode: 418}\n",
    );
    assert_problems(
        &yaml,
        &[
            "3 spec.http[0].match[0].uri.regex: not a regular expression",
            "3 spec.http[0].route[0].weight: invalid value",
            "3 spec.http[1].retries.retryOn: `sometimes` is neither",
            "3 spec.http[1].route[0].destination.port.number: 70000 is not a port",
            "3 spec.http[2].headers.request.set: x: `%NOPE` is not an operator",
            "3 spec.http[2].match[0].uri: give exactly one",
            "3 spec.http[2].redirect.redirectCode: 418 is not one of",
        ],
    );
}

#[test]
fn routes_make_sense() {
    let yaml = route(
        "  - name: nothing\n  - route: [{destination: {host: reviews}}]\n    redirect: {uri: /}\n  - route: [{destination: {host: reviews}}, {destination: {host: reviews}}]\n  - match: [{uri: {prefix: x}}]\n    headers: {request: {remove: [host]}}\n    directResponse: {status: 200}\n",
    );
    assert_problems(
        &yaml,
        &[
            "3 spec.http[0]: needs exactly one of route",
            "3 spec.http[1]: needs exactly one of route",
            "3 spec.http[2].route: the weights of several",
            "3 spec.http[3].headers.request.remove: the host can only",
            "3 spec.http[3].match[0].uri: must start with /",
        ],
    );
}

#[test]
fn rewrites_are_what_envoy_takes() {
    let yaml = route(
        "  - rewrite: {uriRegexRewrite: {match: '^/(a)', rewrite: '/\\2'}}\n    route: [{destination: {host: reviews}}]\n  - redirect: {uri: \"/a\\nb\", scheme: ftp}\n",
    );
    assert_problems(
        &yaml,
        &[
            "3 spec.http[0].rewrite.uriRegexRewrite.rewrite: after",
            "3 spec.http[1].redirect.scheme: must be http or https",
            "3 spec.http[1].redirect.uri: must not be empty nor hold",
        ],
    );
}

#[test]
fn references_must_exist() {
    let yaml = route(
        "  - route: [{destination: {host: nobody}}]\n  - route: [{destination: {host: reviews, subset: v9}}]\n  - route: [{destination: {host: reviews, port: {number: 81}}}]\n  - route: [{destination: {host: two.other.svc.cluster.local}}]\n  - route: [{destination: {host: reviews.default}}]\n",
    );
    assert_problems(
        &yaml,
        &[
            "3 spec.http[0].route[0].destination.host: no Service or ServiceEntry declares nobody.default.svc.cluster.local",
            "3 spec.http[1].route[0].destination.subset: no DestinationRule that default sees for reviews.default.svc.cluster.local has a subset v9",
            "3 spec.http[2].route[0].destination.port.number: reviews.default.svc.cluster.local has no port 81, only 80",
            "3 spec.http[3].route[0].destination.port: two.other.svc.cluster.local has several ports",
            "3 spec.http[4].route[0].destination.host: no Service or ServiceEntry declares reviews.default:",
        ],
    );
}

#[test]
fn every_api_version_is_the_same() {
    let rule = |version: &str| {
        loaded(&with_services(&format!(
            "apiVersion: networking.istio.io/{version}\nkind: DestinationRule\nmetadata: {{name: r}}\nspec: {{host: reviews}}\n"
        )))
    };
    assert_eq!(rule("v1alpha3"), rule("v1"));
    assert_eq!(rule("v1beta1"), rule("v1"));
    let yaml = "apiVersion: networking.istio.io/v2\nkind: DestinationRule\nmetadata: {name: r}\nspec: {host: x}\n";
    assert_problems(yaml, &["1 apiVersion: version `v2`"]);
}

#[test]
fn policies_of_kinds_to_come_are_refused_and_foreign_kinds_pass() {
    let yaml = "apiVersion: networking.istio.io/v1alpha3\nkind: EnvoyFilter\nmetadata: {name: deny}\nspec: {}\n---\n\
                apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: r}\n---\n\
                apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\nspec: {replicas: 1}\n";
    assert_problems(
        yaml,
        &["1 kind: networking.istio.io EnvoyFilter is not supported", "2 kind: gateway.networking.k8s.io HTTPRoute"],
    );
    let world = loaded("apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\n");
    assert_eq!(world.notes, ["1 documents of kind apps/Deployment do not concern the mesh and were passed over"]);
}

#[test]
fn external_name_says_what_to_do() {
    let yaml = "apiVersion: v1\nkind: Service\nmetadata: {name: x}\nspec: {type: ExternalName, externalName: a.b}\n";
    assert_problems(
        yaml,
        &["1 spec.type: an ExternalName Service is only a DNS alias: describe the target with a ServiceEntry"],
    );
}
