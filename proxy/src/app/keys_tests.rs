//! Key sets that are fetched before anybody asks for them.

use std::{
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use super::testing::{Rig, server, until};
use crate::live::testing::{cluster, statics};

const KIND: &str = "type.googleapis.com/envoy.extensions.filters";
/// RFC 7515, appendix A.1; what it says has been out of date since 2011.
const TOKEN: &str = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const SET: &str = r#"{"keys":[{"kty":"oct","k":"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"}]}"#;

/// Has the keys after so many failures; counts how often it is asked.
fn keys(failures: usize) -> (SocketAddr, Arc<AtomicUsize>) {
    let asked = Arc::<AtomicUsize>::default();
    let count = asked.clone();
    let address = server(move |stream: TcpStream| {
        let mut writer = stream.try_clone().unwrap();
        let mut lines = BufReader::new(stream).lines();
        while lines.by_ref().map_while(Result::ok).any(|line| line.is_empty()) {
            let (status, body) = if count.fetch_add(1, Relaxed) < failures { (503, "") } else { (200, SET) };
            let answer = format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            if writer.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    });
    (address, asked)
}

fn listener(fetch: &str) -> String {
    format!(
        "\n  - name: l\n    address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}\n    filter_chains:\n    \
         - filters: [{{name: hcm, typed_config: {{'@type': {KIND}.network.http_connection_manager.v3.HttpConnectionManager, \
         stat_prefix: h, route_config: {{virtual_hosts: [{{name: v, domains: ['*'], routes: [{{match: {{prefix: /}}, \
         direct_response: {{status: 200}}}}]}}]}}, http_filters: [{{name: jwt, typed_config: {{'@type': \
         {KIND}.http.jwt_authn.v3.JwtAuthentication, providers: {{p: {{issuer: joe, clock_skew_seconds: 4000000000, \
         remote_jwks: {{http_uri: {{uri: 'http://keys/set', cluster: c, timeout: 20s}}, {fetch}}}}}}}, rules: [{{match: \
         {{prefix: /}}, requires: {{provider_name: p}}}}]}}}}, {{name: r, typed_config: {{'@type': \
         {KIND}.http.router.v3.Router}}}}]}}}}]\n"
    )
}

/// The status that a token gets.
fn status(rig: &mut Rig) -> String {
    let mut stream = rig.connect("l");
    let request = format!("GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\nauthorization: Bearer {TOKEN}\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let line = BufReader::new(stream).lines().next().unwrap().unwrap();
    line.split(' ').nth(1).unwrap_or_default().to_owned()
}

#[test]
fn keys_are_there_before_anybody_needs_them() {
    let (address, asked) = keys(1);
    let mut rig = Rig::new(2, None);
    rig.apply(&statics(&[listener("async_fetch: {failed_refetch_duration: 0.01s}")], &[cluster("c", address)]));
    until("they are fetched, once more after a failure", || asked.load(Relaxed) == 2);
    for _ in 0..3 {
        assert_eq!(status(&mut rig), "200");
    }
    assert_eq!(asked.load(Relaxed), 2, "by one worker, once");
}

#[test]
fn after_a_failure_nobody_is_asked_for_a_while() {
    let (address, asked) = keys(usize::MAX);
    let mut rig = Rig::new(2, None);
    rig.apply(&statics(&[listener("async_fetch: {failed_refetch_duration: 3600s}")], &[cluster("c", address)]));
    until("they are asked for", || asked.load(Relaxed) == 1);
    for _ in 0..5 {
        assert_eq!(status(&mut rig), "401");
    }
    assert_eq!(asked.load(Relaxed), 1);
    // Without a word about it they are asked for when they are needed, each time.
    rig.apply(&statics(&[listener("")], &[cluster("c", address)]));
    for n in 1..=3 {
        assert_eq!(status(&mut rig), "401");
        assert_eq!(asked.load(Relaxed), 1 + n);
    }
}
