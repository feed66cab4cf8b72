//! `/explain`, `/tap` and the page, as `outriggerctl` and a browser show them.

use std::process::Command;

use outrigger_tests::{Kind, need};
use serde_json::Value;

use super::rig::Rig;

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

#[test]
fn what_is_explained_happens_and_is_seen() {
    let rig = Rig::start(Kind::Outrigger);
    let proxy = format!("127.0.0.1:{}", rig.admin);
    let port = rig.port.to_string();
    let ask =
        ["explain", "--proxy", &proxy, "--host", "127.0.0.1", "--port", &port, "--path", "/dead/1", "--output", "json"];
    let told: Value = serde_json::from_str(&rig.ctl(&ask)).unwrap();
    assert_eq!((&told["route"]["name"], &told["outcome"]["cluster"]), (&"dead".into(), &"dead".into()), "{told}");
    let text = rig.ctl(&["explain", "--proxy", &proxy, "--host", "127.0.0.1", "--port", &port]);
    assert!(text.contains("response_ms: 7000"), "{text}");

    // A watcher of one path sees that one, whatever else goes on.
    let watching = std::thread::spawn({
        let proxy = proxy.clone();
        move || {
            let tap =
                ["tap", "--proxy", &proxy, "--path", "/dead/", "--limit", "3", "--seconds", "60", "--output", "json"];
            let output = Command::new(outrigger_tests::mesh::bin("outriggerctl")).args(tap).output().unwrap();
            String::from_utf8_lossy(&output.stdout).into_owned()
        }
    });
    while !watching.is_finished() {
        assert_eq!(rig.send("/live", "").0, 200);
        assert_eq!(rig.send("/dead/2", "").0, 503);
    }
    let seen = lines(&watching.join().unwrap());
    assert_eq!(seen.len(), 4, "{seen:?}");
    for line in &seen[..3] {
        assert_eq!((&line["path"], &line["status"], &line["flags"]), (&"/dead/2".into(), &503.into(), &"UF".into()));
        assert_eq!((&line["cluster"], &line["route"]), (&"dead".into(), &"dead".into()));
    }
    assert_eq!((&seen[3]["end"], &seen[3]["lines"]), (&"limit".into(), &3.into()));

    // Who has the key is told by the request itself.
    let key = rig.key();
    let header = rig
        .ctl(&["debug-header", "--key-file", key.to_str().unwrap(), "--host", "shop.test", "--path", "/live"])
        .trim()
        .to_owned();
    let (status, head) = rig.send("/live", &format!("{header}\r\n"));
    let trace = head.lines().find_map(|l| l.strip_prefix("x-outrigger-trace: ")).unwrap_or_else(|| panic!("{head}"));
    let trace: Value = serde_json::from_str(trace).unwrap();
    assert_eq!(
        (status, &trace["happened"]["cluster"], &trace["outcome"]["cluster"]),
        (200, &"shop".into(), &"shop".into())
    );

    let levels: Value =
        serde_json::from_str(&rig.ctl(&["logs", "level", "router:debug", "--proxy", &proxy, "--output", "json"]))
            .unwrap();
    assert_eq!((&levels["router"], &levels["admin"]), (&"debug".into(), &"warning".into()));
    let top = rig.ctl(&["top", "--proxy", &proxy, "--interval", "1s", "--output", "yaml"]);
    assert!(top.contains("destination: shop") && top.contains("requests_per_second"), "{top}");
    assert!(rig.ctl(&["completions", "bash"]).contains("debug-header"));
    rig.stop();
}

#[test]
fn the_page_shows_state_clusters_and_failures_in_a_browser() {
    need!("chromium");
    let rig = Rig::start(Kind::Outrigger);
    for _ in 0..3 {
        assert_eq!(rig.send("/dead/x?a=b&c", "").0, 503);
        assert_eq!(rig.send("/fine", "").0, 200);
    }
    let profile = rig.dir().join("browser");
    let page = format!("http://127.0.0.1:{}/", rig.admin);
    // Time passes for the page when it waits for nothing, so that it looks more than once.
    let output = Command::new(outrigger_tests::find("chromium").unwrap())
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"])
        .arg(format!("--user-data-dir={}", profile.display()))
        .args(["--virtual-time-budget=6000", "--dump-dom", &page])
        .output()
        .unwrap();
    let dom = String::from_utf8_lossy(&output.stdout);
    let said = String::from_utf8_lossy(&output.stderr);
    for shown in [">LIVE<", ">shop<", ">dead<", "1/1", ">web<", ">503<", ">UF<", "/dead/"] {
        assert!(dom.contains(shown), "{shown} is not shown\n{said}\n{dom}");
    }
    assert!(dom.contains("a=b&amp;c"), "what a client sent is text");
    rig.stop();
}
