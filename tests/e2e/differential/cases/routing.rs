//! Which route a request takes.

use crate::harness::{Case, case, get};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case("prefix")
            .echoes(&["a", "b"])
            .routes(
                "
                - match: {prefix: /a}
                  route: {cluster: $a}
                - match: {prefix: /b/}
                  route: {cluster: $b}
                ",
            )
            .requests([get("/a"), get("/abc?x=y"), get("/a/b"), get("/b"), get("/b/"), get("/b/c"), get("/A")]),
    ]
}
