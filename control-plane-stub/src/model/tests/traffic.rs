//! What of traffic policy is refused, and how documents of one host and of delegates go together.

use super::*;

fn rule(policy: &str) -> String {
    with_services(&format!(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: r}}\nspec:\n  host: reviews\n  trafficPolicy:\n    {policy}\n"
    ))
}

const POLICY: &str = "3 spec.trafficPolicy.";

/// Every problem of a traffic policy, below it.
#[track_caller]
fn assert_policy(policy: &str, expected: &[&str]) {
    let expected: Vec<String> = expected.iter().map(|text| format!("{POLICY}{text}")).collect();
    assert_problems(&rule(policy), &expected.iter().map(String::as_str).collect::<Vec<_>>());
}

#[test]
fn faults_mirrors_and_cors_make_sense() {
    let yaml = route(
        "  - fault: {}\n    route: [{destination: {host: reviews}}]\n\
         \x20 - fault: {delay: {percentage: {value: 101}, fixedDelay: 1s}}\n    route: [{destination: {host: reviews}}]\n\
         \x20 - fault: {delay: {percent: 1}, abort: {httpStatus: 500, grpcStatus: OK, percentage: {value: 1}}}\n    route: [{destination: {host: reviews}}]\n\
         \x20 - fault: {delay: {fixedDelay: 1s}, abort: {httpStatus: 99}}\n    route: [{destination: {host: reviews}}]\n\
         \x20 - mirror: {host: nobody}\n    mirrors: [{destination: {host: reviews, port: {number: 9}}}]\n    route: [{destination: {host: reviews}}]\n\
         \x20 - mirrorPercentage: {value: 5}\n    route: [{destination: {host: reviews}}]\n\
         \x20 - mirror: {host: reviews}\n    redirect: {uri: /x}\n\
         \x20 - corsPolicy: {allowOrigins: [{}], allowMethods: ['GET, PUT'], maxAge: 1500ms}\n    route: [{destination: {host: reviews}}]\n",
    );
    // What cannot be decoded is told first and alone.
    assert_problems(
        &yaml,
        &[
            "3 spec.http[1].fault.delay.percentage: 101 is not a percentage",
            "3 spec.http[3].fault.abort.httpStatus: 99 is not a status",
        ],
    );
    let decodable = yaml.replace("value: 101", "value: 100").replace("httpStatus: 99", "grpcStatus: ABORTED");
    assert_problems(
        &decodable,
        &[
            "3 spec.http[0].fault: needs delay, abort or both",
            "3 spec.http[2].fault.abort: needs exactly one of httpStatus, grpcStatus",
            "3 spec.http[2].fault.delay.fixedDelay: is missing",
            "3 spec.http[3].fault.abort.percentage: is missing: without it no request is aborted",
            "3 spec.http[3].fault.delay.percentage: is missing: without it no request is delayed",
            "3 spec.http[4].mirror.host: no Service or ServiceEntry declares nobody",
            "3 spec.http[4].mirrors: give mirror or mirrors",
            "3 spec.http[4].mirrors[0].destination.port.number: reviews.default.svc.cluster.local has no port 9",
            "3 spec.http[5].mirrorPercentage: is a share of what mirror sends",
            "3 spec.http[6]: rewrite, retries, timeout and mirror need a route",
            "3 spec.http[7].corsPolicy.allowMethods[0]: `GET, PUT` is neither",
            "3 spec.http[7].corsPolicy.allowOrigins[0]: give one of",
            "3 spec.http[7].corsPolicy.maxAge: must be whole seconds",
        ],
    );
}

#[test]
fn balancers_make_sense() {
    assert_policy(
        "loadBalancer: {simple: RANDOM, consistentHash: {useSourceIp: true, httpHeaderName: a b, ringHash: {}, maglev: {tableSize: 100}}}",
        &[
            "loadBalancer.consistentHash: give one of ringHash, maglev",
            "loadBalancer.consistentHash: give simple or consistentHash",
            "loadBalancer.consistentHash: needs exactly one of",
            "loadBalancer.consistentHash.httpHeaderName: `a b` is not a header name",
            "loadBalancer.consistentHash.maglev.tableSize: must be a prime number",
        ],
    );
    assert_policy(
        "loadBalancer: {consistentHash: {minimumRingSize: 9999999999, httpCookie: {name: 'a b', path: 'a;b'}}}",
        &[
            "loadBalancer.consistentHash.httpCookie.name: `a b` is not",
            "loadBalancer.consistentHash.httpCookie.path: holds",
            "loadBalancer.consistentHash.ringHash.minimumRingSize: must be at most",
        ],
    );
    assert_policy(
        "loadBalancer: {simple: RANDOM, warmupDurationSecs: 1s, warmup: {aggression: 0.5}}",
        &[
            "loadBalancer.warmup: works with LEAST_REQUEST and ROUND_ROBIN only",
            "loadBalancer.warmup.aggression: must be at least 1",
            "loadBalancer.warmup.duration: is missing",
            "loadBalancer.warmupDurationSecs: give warmup or",
        ],
    );
}

#[test]
fn localities_make_sense() {
    assert_policy(
        "loadBalancer: {localityLbSetting: {distribute: [{from: a/*/b, to: {a: 50, b: 49}}], failover: [{from: x, to: x}], failoverPriority: ['=x']}}",
        &[
            "loadBalancer.localityLbSetting.distribute: excludes failover",
            "loadBalancer.localityLbSetting.distribute[0]: `a/*/b` is not region/zone/subzone",
            "loadBalancer.localityLbSetting.distribute[0].to: the weights must add up to 100, not 99",
            "loadBalancer.localityLbSetting.failoverPriority[0]: `=x` is neither",
            "loadBalancer.localityLbSetting.failover[0]: needs two different regions",
        ],
    );
}

#[test]
fn limits_and_ejection_make_sense() {
    assert_policy(
        "outlierDetection: {minHealthPercent: 101, consecutiveLocalOriginFailures: 3, consecutiveErrors: 1, consecutiveGatewayErrors: 1}",
        &[
            "outlierDetection.consecutiveErrors: is the older name",
            "outlierDetection.consecutiveLocalOriginFailures: has no effect without",
            "outlierDetection.minHealthPercent: is not a percentage",
        ],
    );
    assert_policy(
        "connectionPool: {http: {useClientProtocol: true, h2UpgradePolicy: UPGRADE, maxConcurrentStreams: 3000000000}}",
        &[
            "connectionPool.http.h2UpgradePolicy: UPGRADE contradicts",
            "connectionPool.http.maxConcurrentStreams: must be at most",
        ],
    );
    assert_policy("retryBudget: {percent: 101}", &["retryBudget.percent: 101 is not a percentage"]);
    assert_policy(
        "portLevelSettings: [{port: {number: 80}}, {port: {number: 80}}]",
        &["portLevelSettings[1].port.number: port 80 is listed twice"],
    );
    // In Istio's API zero is nothing said.
    loaded(&rule("connectionPool: {tcp: {maxConnections: 0}}"));
}

#[test]
fn delegates_are_there_and_keep_to_their_part() {
    let root = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: root}\nspec:\n  hosts: [reviews]\n  http:\n  - delegate: {name: gone}\n  - delegate: {name: leaf, namespace: other}\n  - delegate: {name: private, namespace: other}\n---\n";
    let leaf = |name: &str, spec: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {name}, namespace: other}}\nspec: {{{spec}}}\n---\n"
        )
    };
    let yaml = with_services(
        &(root.to_owned()
            + &leaf("leaf", "http: [{match: [{sourceNamespace: x}], delegate: {name: more}}], gateways: [mesh]")
            + &leaf("private", "exportTo: [.], http: [{directResponse: {status: 204}}]")
            + &leaf("idle", "http: [{directResponse: {status: 204}}]")),
    );
    assert_problems(
        &yaml,
        &[
            "3 spec.http[0].delegate.name: there is no VirtualService default/gone without hosts",
            "3 spec.http[2].delegate.name: VirtualService other/private is not exported to default",
            "4 spec.hosts: needs at least one host: a delegate has nothing but http routes",
            "4 spec.http[0].delegate: a delegate must not delegate again",
            "4 spec.http[0].match[0]: sourceLabels, sourceNamespace and gateways belong to the route",
        ],
    );
    let idle = with_services(&leaf("idle", "http: [{directResponse: {status: 204}}]"));
    assert!(loaded(&idle).notes.iter().any(|n| n.contains("other/idle") && n.contains("no effect")));
}

#[test]
fn a_delegate_inherits_what_it_does_not_say() {
    let yaml = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: root}\nspec:\n  hosts: [reviews]\n  http:\n  \
                - name: api\n    match: [{uri: {prefix: /a}, headers: {x: {exact: k}}}, {uri: {prefix: /b}}]\n    timeout: 3s\n    headers: {request: {set: {k: v}}}\n    delegate: {name: leaf}\n---\n\
                apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: leaf}\nspec:\n  http:\n  \
                - name: one\n    match: [{uri: {exact: /a/1}}, {uri: {prefix: /b/2}, method: {exact: GET}}]\n    route: [{destination: {host: reviews}}]\n    retries: {attempts: 1}\n  \
                - match: [{uri: {regex: '/a.*'}}]\n    route: [{destination: {host: reviews}}]\n  - timeout: 9s\n    route: [{destination: {host: reviews}}]\n";
    let world = loaded(&with_services(yaml));
    let routes = &world.virtual_service("default", "reviews.default.svc.cluster.local").unwrap().spec.http;
    assert_eq!(routes.len(), 2, "of a regular expression nobody can tell whether it stays within a prefix");
    assert_eq!(routes[0].name.as_deref(), Some("api-one"));
    assert_eq!(routes[0].timeout.map(|t| t.0.as_secs()), Some(3));
    assert_eq!(routes[0].retries.as_ref().map(|r| r.attempts), Some(1));
    assert_eq!(routes[0].headers.request.set.0.get("k").map(String::as_str), Some("v"));
    let [first, second] = routes[0].matches.as_slice() else { panic!("{:#?}", routes[0].matches) };
    assert_eq!(first.uri, Some(StringMatch::Exact("/a/1".to_owned())));
    assert_eq!(first.headers.get("x"), Some(&StringMatch::Exact("k".to_owned())));
    assert!(second.headers.is_empty() && second.method.is_some());
    assert_eq!(routes[1].matches.len(), 2, "no condition of its own: the root's");
    assert_eq!(routes[1].timeout.map(|t| t.0.as_secs()), Some(9));
}

#[test]
fn the_oldest_of_several_counts() {
    let vs = |name: &str, created: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {name}, creationTimestamp: '{created}'}}\nspec: {{hosts: [reviews], http: [{{route: [{{destination: {{host: reviews}}}}]}}]}}\n---\n"
        )
    };
    let world = loaded(&with_services(&(vs("a", "2026-02-01T00:00:00Z") + &vs("b", "2026-01-01T00:00:00Z"))));
    let first = world.virtual_service("default", "reviews.default.svc.cluster.local").unwrap();
    assert_eq!(first.meta.name, "b");
    assert!(world.notes.iter().any(|n| n.contains("VirtualService default/a (") && n.contains("not followed")));
}

#[test]
fn sidecars_make_sense() {
    let sidecar = |name: &str, spec: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n---\n"
        )
    };
    let yaml = sidecar(
        "a",
        "egress: [{hosts: []}], ingress: [{port: {number: 80, name: http}}, {port: {number: 80, name: h}}]",
    ) + &sidecar("b", "egress: [{hosts: ['./*']}]")
        + &sidecar("c", "workloadSelector: {labels: {app: x}}")
        + &sidecar("d", "workloadSelector: {labels: {app: x}}");
    assert_problems(
        &yaml,
        &[
            "1 spec.egress[0].hosts: needs at least one host",
            "1 spec.ingress[1].port.number: port 80 is listed twice",
            "2 spec.workloadSelector: Sidecar default/a (",
            "4 spec.workloadSelector: Sidecar default/c (",
        ],
    );
    let protocol = sidecar("a", "egress: [{hosts: ['./*'], port: {number: 80, protocol: TCP, name: t}}]");
    assert_problems(
        &with_services(&protocol),
        &[
            "3 spec.egress[0].port.protocol: port 80 of reviews.default.svc.cluster.local, which is listed, is of another",
        ],
    );
    let undecodable = sidecar(
        "a",
        "egress: [{hosts: [nowhere], port: {number: 1, protocol: FTP}, bind: 1.2.3.4, captureMode: NONE}]",
    ) + &sidecar("b", "outboundTrafficPolicy: {mode: ALLOW_ANY, egressProxy: {host: x}}")
        + &sidecar("c", "ingress: [{port: {number: 80, name: http}, defaultEndpoint: 'unix:///x'}]");
    assert_problems(
        &undecodable,
        &[
            "1 spec.egress[0].bind: is not supported yet",
            "1 spec.egress[0].captureMode: unknown variant `NONE`",
            "1 spec.egress[0].hosts[0]: `nowhere` is not namespace/name",
            "1 spec.egress[0].port.protocol: `FTP` is not a protocol",
            "2 spec.outboundTrafficPolicy.egressProxy: is not supported yet",
            "3 spec.ingress[0]: defaultEndpoint `unix:///x` is not",
        ],
    );
}

#[test]
fn what_has_no_effect_is_noted() {
    let without = loaded(&rule("loadBalancer: {localityLbSetting: {failover: [{from: a, to: b}]}}"));
    let note = "have no effect without outlierDetection";
    assert!(without.notes.iter().any(|n| n.starts_with("DestinationRule default/r (") && n.ends_with(note)));
    let with =
        loaded(&rule("loadBalancer: {localityLbSetting: {failover: [{from: a, to: b}]}}\n    outlierDetection: {}"));
    assert_eq!(with.notes, Vec::<String>::new());
    let headless = with_services("").replace("clusterIP: 10.0.0.1", "clusterIP: None");
    let rule = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: r}\nspec: {host: reviews, trafficPolicy: {loadBalancer: {simple: RANDOM}}}\n";
    let world = loaded(&(headless + rule));
    assert!(
        world.notes.iter().any(|n| n.contains("its loadBalancer has no effect but on subsets")),
        "{:?}",
        world.notes
    );
}

#[test]
fn latency_awareness_is_an_upgrade_of_least_request() {
    let annotated = |value: &str, simple: &str| {
        rule(&format!("loadBalancer: {{simple: {simple}}}")).replace(
            "metadata: {name: r}",
            &format!("metadata: {{name: r, annotations: {{outrigger/latency-aware: '{value}'}}}}"),
        )
    };
    loaded(&annotated("true", "LEAST_REQUEST"));
    let path = "3 metadata.annotations.outrigger/latency-aware: ";
    assert_problems(&annotated("true", "RANDOM"), &[&format!("{path}is an upgrade of LEAST_REQUEST")]);
    assert_problems(&annotated("yes", "LEAST_REQUEST"), &[&format!("{path}`yes` is neither true nor false")]);
}

#[test]
fn retries_without_attempts_are_none() {
    let retries =
        |fields: &str| route(&format!("  - route: [{{destination: {{host: reviews}}}}]\n    retries: {{{fields}}}\n"));
    for fields in ["perTryTimeout: 2s", "retryOn: 5xx", "attempts: 0, backoff: 1s", "retryRemoteLocalities: true"] {
        assert_problems(&retries(fields), &["3 spec.http[0].retries.attempts: attempts is missing or 0"]);
    }
    for (fields, attempts) in [("", 0), ("attempts: 0", 0), ("attempts: 3, perTryTimeout: 2s", 3)] {
        let world = loaded(&retries(fields));
        let (_, object) = &world.virtual_services[0];
        assert_eq!(object.spec.http[0].retries.as_ref().map(|r| r.attempts), Some(attempts), "{fields}");
    }
}

#[test]
fn what_envoy_would_refuse_of_a_route_is_refused_here() {
    let regex = route("  - match: [{uri: {regex: '/a{1,2000}'}}]\n    route: [{destination: {host: reviews}}]\n");
    assert_problems(&regex, &["3 spec.http[0].match[0].uri.regex: `{1,2000}` repeats more"]);
    let header = route("  - route: [{destination: {host: reviews}}]\n    headers: {request: {set: {x: '%REQ%'}}}\n");
    assert_problems(&header, &["3 spec.http[0].headers.request.set: x: %REQ% needs the name of a header"]);
}

#[test]
fn shares_of_localities_do_not_overlap() {
    let rule = |distribute: &str| {
        with_services(&format!(
            "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: d}}\nspec: {{host: reviews, trafficPolicy: {{loadBalancer: {{localityLbSetting: {{distribute: [{distribute}]}}}}}}}}\n"
        ))
    };
    let place = "3 spec.trafficPolicy.loadBalancer.localityLbSetting.distribute";
    for (distribute, problem) in [
        ("{from: r1, to: {'r1/*': 50, r1/z1: 50}}", format!("{place}[0].to: `r1/*` and `r1/z1` overlap")),
        ("{from: r1, to: {'*': 50, r2: 50}}", format!("{place}[0].to: `*` and `r2` overlap")),
        (
            "{from: r1, to: {r1: 100}}, {from: 'r1/z1/*', to: {r1: 100}}",
            format!("{place}: from: `r1` and `r1/z1/*` overlap"),
        ),
    ] {
        assert_problems(&rule(distribute), &[&problem]);
    }
    let apart = "{from: r1/z1, to: {r1/z1: 50, r1/z2: 50}}, {from: 'r1/z2/*', to: {r1: 50, r2: 50}}";
    assert_eq!(problems(&rule(apart)), [""; 0]);
}

#[test]
fn round_robin_by_name_takes_one_endpoint() {
    let entry = "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: s}\nspec: {hosts: [s.example], resolution: DNS_ROUND_ROBIN, ports: [{number: 80, name: http, protocol: HTTP}], workloadSelector: {labels: {app: a}}}\n";
    assert_problems(entry, &["1 spec.workloadSelector: DNS_ROUND_ROBIN takes one endpoint"]);
}
