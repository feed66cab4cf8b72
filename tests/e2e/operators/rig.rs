//! A proxy, or an Envoy, on one bootstrap file, with a small upstream.

use std::{
    collections::BTreeSet,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    process::Command,
    time::Duration,
};

use outrigger_tests::{Kind, Process, eventually, mesh::bin};
use serde_json::Value;

pub(crate) const KEY: &str = "a key of more than enough bytes";

pub(crate) struct Rig {
    pub(crate) admin: u16,
    pub(crate) port: u16,
    dir: tempfile::TempDir,
    process: Process,
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).unwrap().port()
}

/// Answers every request with `200`, for as long as the test runs.
fn upstream() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || serve(stream));
        }
    });
    port
}

fn serve(mut stream: TcpStream) {
    let mut seen = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(n) if n > 0 => seen.extend_from_slice(&buffer[..n]),
            _ => return,
        }
        while let Some(end) = seen.windows(4).position(|w| w == b"\r\n\r\n") {
            seen.drain(..end + 4);
            if stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").is_err() {
                return;
            }
        }
    }
}

const FILE: &str = r#"
node: {id: operators, cluster: tests, locality: {region: r, zone: z}}
admin: {address: {socket_address: {address: 127.0.0.1, port_value: $admin}}}
layered_runtime: {layers: [{name: base, static_layer: {envoy.resource_limits.listener.web.connection_limit: 500}}]}
static_resources:
  listeners:
  - name: web
    traffic_direction: OUTBOUND
    address: {socket_address: {address: 127.0.0.1, port_value: $port}}
    filter_chains:
    - filters:
      - name: hcm
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: web
          route_config:
            name: routes
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes:
              - {name: dead, match: {prefix: /dead}, route: {cluster: dead}}
              - {name: rest, match: {prefix: /}, route: {cluster: shop, timeout: 7s}}
          http_filters:
          - name: router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
  clusters:
  - name: shop
    type: STATIC
    load_assignment: {cluster_name: shop, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: $upstream}}}}]}]}
  - name: dead
    type: STATIC
    load_assignment: {cluster_name: dead, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 1}}}}]}]}
"#;

impl Rig {
    pub(crate) fn start(kind: Kind) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (admin, port) = (free_port(), free_port());
        let fill = [("$admin", admin), ("$port", port), ("$upstream", upstream())];
        let text = fill.iter().fold(FILE.to_owned(), |text, (name, port)| text.replace(name, &port.to_string()));
        let (file, key) = (dir.path().join("bootstrap.yaml"), dir.path().join("key"));
        std::fs::write(&file, text).unwrap();
        std::fs::write(&key, KEY).unwrap();
        let mut command = Command::new(kind.program());
        command.arg("-c").arg(&file).args(["--disable-hot-restart", "--concurrency", "1", "-l", "warning"]);
        command.env("OUTRIGGER_MIN_DRAIN_TIME_S", "0").env("OUTRIGGER_DEBUG_KEY_FILE", &key);
        let mut process = Process::spawn(&format!("{kind:?}"), command, dir.path());
        eventually(&format!("readiness of {kind:?}"), || {
            assert!(process.is_running(), "{kind:?} ended:\n{}", process.output());
            let ready = exchange(admin, "GET", "/ready", "").is_some_and(|(head, _)| head.contains(" 200 "));
            (ready && TcpStream::connect(("127.0.0.1", port)).is_ok()).then_some(()).ok_or_else(|| process.output())
        });
        Self { admin, port, dir, process }
    }

    pub(crate) fn key(&self) -> PathBuf {
        self.dir.path().join("key")
    }

    pub(crate) fn dir(&self) -> &std::path::Path {
        self.dir.path()
    }

    /// Status and body of a call to the admin interface.
    pub(crate) fn call(&self, method: &str, path: &str) -> (u16, String) {
        let (head, body) = exchange(self.admin, method, path, "").unwrap_or_else(|| panic!("{path} is not answered"));
        (status(&head), body)
    }

    pub(crate) fn json(&self, path: &str) -> Value {
        let (status, body) = self.call("GET", path);
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str(&body).unwrap_or_else(|e| panic!("{path}: {e}: {body}"))
    }

    /// Head and body of the answer to a request through the proxy.
    pub(crate) fn send(&self, path: &str, more: &str) -> (u16, String) {
        let (head, _) = exchange(self.port, "GET", path, more).unwrap_or_else(|| panic!("{path} is not answered"));
        (status(&head), head)
    }

    /// What `outriggerctl` prints.
    pub(crate) fn ctl(&self, arguments: &[&str]) -> String {
        let output = Command::new(bin("outriggerctl")).args(arguments).output().unwrap();
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{arguments:?}: {err}{out}");
        out.into_owned()
    }

    pub(crate) fn stop(mut self) {
        assert!(self.process.is_running(), "{}", self.process.output());
        self.process.stop();
        assert!(!self.process.output().contains("panicked"), "{}", self.process.output());
    }
}

fn status(head: &str) -> u16 {
    head.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0)
}

fn exchange(port: u16, method: &str, path: &str, more: &str) -> Option<(String, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(60))).ok()?;
    let request = format!("{method} {path} HTTP/1.1\r\nhost: shop.test\r\n{more}connection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut text = Vec::new();
    let _ = stream.read_to_end(&mut text);
    let text = String::from_utf8_lossy(&text).into_owned();
    let (head, body) = text.split_once("\r\n\r\n")?;
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    Some((head.to_owned(), if chunked { dechunked(body) } else { body.to_owned() }))
}

fn dechunked(mut body: &str) -> String {
    let mut whole = String::new();
    while let Some((length, rest)) = body.split_once("\r\n") {
        let length = usize::from_str_radix(length.trim(), 16).unwrap_or(0);
        if length == 0 || rest.len() < length {
            break;
        }
        whole += &rest[..length];
        body = rest[length..].trim_start_matches("\r\n");
    }
    whole
}

/// The paths of all members; elements of lists are one.
pub(crate) fn keys(value: &Value, prefix: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let path = format!("{prefix}.{name}");
                keys(value, &path, found);
                found.insert(path);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| keys(item, &format!("{prefix}[]"), found)),
        _ => {}
    }
}
