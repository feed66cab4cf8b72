//! "JWT Token": who shows no token, a wrong one, or one without the group.

use outrigger_tests::{need, peers::root};

use super::security::{Foo, step};

/// A file of the samples that the page downloads.
fn sample(name: &str) -> String {
    let path = root().join("control-plane-stub/testdata/tasks").join(name);
    std::fs::read_to_string(path).unwrap().trim().to_owned()
}

#[test]
fn jwt_token() {
    need!("ip", "curl");
    let mut foo = Foo::start();
    let status = |token: Option<&str>| {
        let value = token.map(|token| format!("Bearer {token}"));
        let headers: Vec<(&str, &str)> = value.iter().map(|value| ("authorization", value.as_str())).collect();
        foo.status("GET", "/headers", &headers)
    };
    let (token, groups) = (sample("demo.jwt"), sample("groups-scope.jwt"));
    assert_eq!(status(None), 200);
    // The page's keys are in the internet.
    let rule = step("authz-jwt.yaml", 0);
    let uri = rule.find("    jwksUri:").unwrap();
    foo.apply(&format!("{}    jwks: '{}'\n", &rule[..uri], sample("jwks.json")));
    assert_eq!(status(Some("invalidToken")), 401);
    assert_eq!(status(None), 200, "nobody asks for a token yet");
    foo.apply(&step("authz-jwt.yaml", 1));
    assert_eq!(status(Some(&token)), 200);
    assert_eq!(status(None), 403);
    // Another's payload below a good signature.
    let parts: Vec<&str> = token.split('.').collect();
    let forged = [parts[0], groups.split('.').nth(1).unwrap(), parts[2]].join(".");
    assert_eq!(status(Some(&forged)), 401);
    foo.apply(&step("authz-jwt.yaml", 2));
    assert_eq!(status(Some(&groups)), 200);
    assert_eq!(status(Some(&token)), 403, "no such claim");
    assert_eq!(status(None), 403);
    foo.assert_sound();
}
