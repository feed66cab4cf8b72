//! What becomes of answers that the proxy gives itself.

use crate::harness::{Case, Serve, case, get, grpc_call, ok, plan, request, status};

/// Mappers by status, flag and header; a format for all.
const CONFIG: &str = "
local_reply_config:
  mappers:
  - filter: {status_code_filter: {comparison: {op: EQ, value: {default_value: 404, runtime_key: k}}}}
    status_code: 410
    body: {inline_string: gone}
    headers_to_add:
    - {header: {key: x-mapped, value: 'was %RESPONSE_CODE%'}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}
  - filter: {response_flag_filter: {flags: [UF, UH]}}
    body_format_override:
      json_format: {code: '%RESPONSE_CODE%', flags: '%RESPONSE_FLAGS%', text: '%LOCAL_REPLY_BODY%'}
  - filter: {header_filter: {header: {name: x-empty, present_match: true}}}
    body: {inline_string: ''}
  - filter:
      and_filter:
        filters:
        - {status_code_filter: {comparison: {op: GE, value: {default_value: 400, runtime_key: k}}}}
        - {header_filter: {header: {name: x-type, present_match: true}}}
    headers_to_add: [{header: {key: content-type, value: text/own}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}]
  body_format:
    content_type: text/x
    text_format_source: {inline_string: '<%LOCAL_REPLY_BODY%>%RESPONSE_CODE%:%REQ(:path)%'}
";

const ROUTES: &str = "
- match: {prefix: /up}
  route: {cluster: $a}
- match: {prefix: /nobody}
  route: {cluster: $none}
- match: {prefix: /dead}
  route: {cluster: $dead}
- match: {prefix: /direct}
  direct_response: {status: 403, body: {inline_string: direct}}
- match: {prefix: /created}
  direct_response: {status: 200}
- match: {prefix: /redirect}
  redirect: {path_redirect: /elsewhere}
";

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case("local-reply")
            .http1("a", plan([]).on("/up404", [status(404)]).on("/up", [ok()]))
            .host("dead", Serve::Nothing)
            .cluster("none", &[], "")
            .manager(CONFIG)
            .routes(ROUTES)
            .requests([
                get("/up"),
                get("/up404"),
                get("/missing"),
                get("/missing").h2(),
                request("HEAD", "/missing"),
                get("/nobody"),
                get("/direct"),
                get("/direct").header("x-empty", "1"),
                get("/direct").header("x-type", "1"),
                get("/created"),
                get("/redirect"),
                grpc_call("/missing"),
                grpc_call("/nobody"),
                grpc_call("/direct"),
            ]),
        case("local-reply-without-a-format")
            .cluster("none", &[], "")
            .manager(
                "
                local_reply_config:
                  mappers:
                  - filter: {response_flag_filter: {flags: [UH]}}
                    status_code: 500
                    body: {inline_string: sorry}
                  - filter: {status_code_filter: {comparison: {op: EQ, value: {default_value: 404, runtime_key: k}}}}
                    body: {inline_string: ''}
                ",
            )
            .routes("- match: {prefix: /x}\n  route: {cluster: $none}\n- match: {prefix: /d}\n  direct_response: {status: 404, body: {inline_string: none}}")
            .requests([get("/x"), grpc_call("/x"), get("/d"), get("/elsewhere")]),
    ]
}
