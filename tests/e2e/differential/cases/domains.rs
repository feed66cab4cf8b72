//! Which virtual host a request belongs to.

use crate::harness::{Case, case, get};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case("domains")
            .virtual_hosts(
                "
                - {name: exact, domains: [a.test, 'b.test:8080'], routes: [{match: {prefix: /}, direct_response: {status: 201}}]}
                - {name: suffix, domains: ['*.test'], routes: [{match: {prefix: /}, direct_response: {status: 202}}]}
                - {name: longer, domains: ['*.b.test', '*-c.test'], routes: [{match: {prefix: /}, direct_response: {status: 203}}]}
                - {name: prefix, domains: ['pre.*', 'pre.fix.*'], routes: [{match: {prefix: /}, direct_response: {status: 206}}]}
                - {name: rest, domains: ['*'], routes: [{match: {prefix: /}, direct_response: {status: 207}}]}
                ",
            )
            .requests(
                [
                    "a.test", "A.TEST", "a.test:80", "b.test:8080", "b.test", "x.test", ".test", "test", "x.b.test",
                    "y.x.b.test", "x-c.test", "pre.test", "pre.", "pre.x", "pre.fix.y", "other", "[::1]:80", "1.2.3.4",
                ]
                .map(|host| get("/").host(host)),
            ),
        case("domains-without-a-default")
            .virtual_hosts(
                "
                - {name: exact, domains: [a.test], routes: [{match: {prefix: /}, direct_response: {status: 201}}]}
                ",
            )
            .requests([get("/").host("a.test"), get("/").host("b.test"), get("/").host("b.test").h2()]),
        case("ignore-port-in-host-matching")
            .route_config("ignore_port_in_host_matching: true")
            .virtual_hosts(
                "
                - {name: exact, domains: [a.test], routes: [{match: {prefix: /}, direct_response: {status: 201}}]}
                - {name: rest, domains: ['*'], routes: [{match: {prefix: /}, direct_response: {status: 207}}]}
                ",
            )
            .requests(["a.test", "a.test:1234", "a.test:x", "b.test:80"].map(|host| get("/").host(host))),
        case("strip-any-host-port")
            .echoes(&["a"])
            .manager("strip_any_host_port: true")
            .virtual_hosts(
                "
                - {name: exact, domains: [a.test], routes: [{match: {prefix: /}, route: {cluster: $a}}]}
                ",
            )
            .requests(["a.test", "a.test:1234", "a.test:443", "[::1]:80"].map(|host| get("/").host(host)))
            .requests([get("/").host("a.test:99").h2()]),
        case("strip-matching-host-port")
            .echoes(&["a"])
            .manager("strip_matching_host_port: true")
            .requests([get("/").host("a.test:$port"), get("/").host("a.test:1"), get("/").host("a.test")]),
        case("x-forwarded-host-appended")
            .echoes(&["a"])
            .routes(
                "
                - match: {prefix: /}
                  route: {cluster: $a, host_rewrite_literal: other.test, append_x_forwarded_host: true}
                ",
            )
            .requests([get("/"), get("/").header("x-forwarded-host", "first.test"), get("/").host("other.test")]),
        case("require-tls")
            .virtual_host("require_tls: ALL")
            .echoes(&["a"])
            .requests([
                get("/x?y"),
                get("/x").header("x-forwarded-proto", "https"),
                get("/x").host("a.test:8080"),
                get("/x").h2(),
            ]),
    ]
}
