//! Answers that the proxy gives by itself: redirects and direct responses.

use crate::harness::{Case, case, get, grpc_call, post, request};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case("redirect-codes").explained("8 < transfer-encoding", "an answer to HEAD has no body to frame")
            .routes(
                "
                - match: {path: /301}
                  redirect: {path_redirect: /to}
                - match: {path: /302}
                  redirect: {path_redirect: /to, response_code: FOUND}
                - match: {path: /303}
                  redirect: {path_redirect: /to, response_code: SEE_OTHER}
                - match: {path: /307}
                  redirect: {path_redirect: /to, response_code: TEMPORARY_REDIRECT}
                - match: {path: /308}
                  redirect: {path_redirect: /to, response_code: PERMANENT_REDIRECT}
                ",
            )
            .requests(["/301", "/302", "/303", "/307", "/308", "/301?a=b"].map(get))
            .requests([post("/307", "body"), request("HEAD", "/301"), get("/308").h2(), grpc_call("/301")]),
        case("redirect-parts")
            .routes(
                "
                - match: {prefix: /host}
                  redirect: {host_redirect: other.test}
                - match: {prefix: /port}
                  redirect: {port_redirect: 8443}
                - match: {prefix: /https}
                  redirect: {https_redirect: true}
                - match: {prefix: /scheme}
                  redirect: {scheme_redirect: ftp, host_redirect: other.test}
                - match: {prefix: /all}
                  redirect: {https_redirect: true, host_redirect: other.test, port_redirect: 444, path_redirect: '/p?q=1'}
                - match: {prefix: /strip}
                  redirect: {strip_query: true}
                - match: {prefix: /stripto}
                  redirect: {strip_query: true, path_redirect: /x}
                - match: {prefix: /same}
                  redirect: {}
                ",
            )
            .requests(
                [
                    "/host/x?a=b", "/port", "/https/x?y", "/scheme/a", "/all?c=d", "/strip/x?a=b", "/stripto?a", "/same",
                ]
                .map(get),
            )
            .requests(["/host", "/port", "/https", "/all"].map(|p| get(p).host("case.test:8080")))
            .requests(["/port", "/https"].map(|p| get(p).host("case.test:80")))
            .requests(["/port", "/https"].map(|p| get(p).host("[::1]:80")))
            .requests([get("/https").header("x-forwarded-proto", "https")]),
        case("redirect-rewrites")
            .routes(
                r"
                - match: {prefix: /old/}
                  redirect: {prefix_rewrite: /new/}
                - match: {prefix: /cut}
                  redirect: {prefix_rewrite: /}
                - match: {safe_regex: {regex: '/r/.*'}}
                  redirect: {regex_rewrite: {pattern: {regex: '^/r/([^/]+)/(.*)$'}, substitution: '/\2/\1'}}
                - match: {prefix: /q}
                  redirect: {prefix_rewrite: /z, strip_query: true}
                ",
            )
            .requests(["/old/a/b?c=d", "/cut/x", "/cut", "/r/a/b?q=1", "/r/a", "/q/x?gone=1"].map(get)),
        case("redirect-with-headers")
            .virtual_host("response_headers_to_add: [{header: {key: x-host, value: v}}]")
            .routes(
                "
                - match: {prefix: /}
                  redirect: {path_redirect: /to}
                  response_headers_to_add: [{header: {key: x-route, value: '%PROTOCOL%'}}]
                ",
            )
            .requests([get("/")]),
        case("direct-response")
            .routes(
                "
                - match: {path: /body}
                  direct_response: {status: 200, body: {inline_string: hello}}
                - match: {path: /bytes}
                  direct_response: {status: 418, body: {inline_bytes: aGVsbG8=}}
                - match: {path: /empty}
                  direct_response: {status: 200}
                - match: {path: /204}
                  direct_response: {status: 204}
                - match: {path: /304}
                  direct_response: {status: 304}
                - match: {path: /503}
                  direct_response: {status: 503, body: {inline_string: down}}
                ",
            )
            .requests(["/body", "/bytes", "/empty", "/204", "/304", "/503"].map(get))
            .requests([request("HEAD", "/body"), get("/body").h2(), request("HEAD", "/body").h2(), post("/body", "x")])
            .requests([grpc_call("/503"), grpc_call("/body"), grpc_call("/empty")]),
        case("grpc-statuses")
            .routes(
                "
                - match: {path: /400}
                  direct_response: {status: 400}
                - match: {path: /401}
                  direct_response: {status: 401}
                - match: {path: /403}
                  direct_response: {status: 403, body: {inline_string: 'no % entry'}}
                - match: {path: /404}
                  direct_response: {status: 404}
                - match: {path: /418}
                  direct_response: {status: 418}
                - match: {path: /429}
                  direct_response: {status: 429}
                - match: {path: /500}
                  direct_response: {status: 500}
                - match: {path: /502}
                  direct_response: {status: 502}
                - match: {path: /504}
                  direct_response: {status: 504}
                ",
            )
            .requests(["/400", "/401", "/403", "/404", "/418", "/429", "/500", "/502", "/504", "/no-route"].map(grpc_call)),
        case("direct-response-headers")
            .routes(
                "
                - match: {prefix: /}
                  direct_response: {status: 200, body: {inline_string: '<p>'}}
                  response_headers_to_add:
                  - header: {key: content-type, value: text/html}
                    append_action: OVERWRITE_IF_EXISTS_OR_ADD
                  - header: {key: x-more, value: more}
                  request_headers_to_add: [{header: {key: x-q, value: q}}]
                ",
            )
            .requests([get("/"), get("/").h2()]),
        case("direct-response-keeps-the-connection")
            .routes("- match: {prefix: /}\n  direct_response: {status: 200, body: {inline_string: hello}}")
            .on_one_connection([get("/1"), post("/2", "ignored body"), get("/3"), get("/4").header("connection", "close")])
            .on_one_connection([get("/5").h2(), post("/6", "ignored").h2()]),
    ]
}
