//! The same questions to a real Envoy: whatever its JSON has, ours has, but for what is listed here.

use std::collections::BTreeSet;

use outrigger_tests::{Kind, need};

use super::rig::{Rig, keys};

/// Questions, and members of Envoy's answers (by the beginning of their paths) that ours do not have.
const QUESTIONS: &[(&str, &[&str])] = &[
    ("/clusters?format=json", &[]),
    ("/listeners?format=json", &[]),
    ("/certs", &[]),
    ("/memory", &[]),
    ("/runtime", &[]),
    ("/init_dump", &[]),
    ("/config_dump?resource=static_clusters&mask=cluster.name", &[]),
    ("/config_dump?resource=static_listeners&mask=listener.name,listener.address", &[]),
    ("/config_dump?mask=bootstrap.node.id", &[]),
    // Its build, its compiled-in extensions, switches of its own command line, and a field that is empty.
    (
        "/server_info",
        &[".node.extensions", ".node.user_agent_build_version", ".node.locality.sub_zone", ".command_line_options"],
    ),
];

/// Statuses of what is wrong, or not there.
const STATUSES: &[(&str, &str)] = &[
    ("GET", "/config_dump?mask=nope"),
    ("GET", "/config_dump?mask=static_clusters.cluster.name"),
    ("GET", "/config_dump?resource=nope"),
    ("GET", "/config_dump?resource=bootstrap"),
    ("GET", "/config_dump?resource=static_clusters&mask=cluster.nope"),
    ("GET", "/stats?type=Nonsense"),
    ("GET", "/stats?format=nonsense"),
    ("GET", "/contention"),
    ("GET", "/hot_restart_version"),
    ("GET", "/logging"),
    ("GET", "/healthcheck/fail"),
    ("GET", "/nothing"),
    ("POST", "/logging"),
    ("POST", "/logging?paths=admin:debug,router:trace"),
    ("POST", "/reset_counters"),
    ("POST", "/healthcheck/fail"),
    ("POST", "/healthcheck/ok"),
];

#[test]
fn answers_have_what_envoys_have() {
    need!("envoy");
    let (envoy, ours) = (Rig::start(Kind::Envoy), Rig::start(Kind::Outrigger));
    let mut lacking = Vec::new();
    for (question, apart) in QUESTIONS {
        let (mut theirs, mut own) = (BTreeSet::new(), BTreeSet::new());
        keys(&envoy.json(question), "", &mut theirs);
        keys(&ours.json(question), "", &mut own);
        let missing = theirs.difference(&own).filter(|path| !apart.iter().any(|part| path.starts_with(part)));
        lacking.extend(missing.map(|path| format!("{question}: {path}")));
    }
    for (method, question) in STATUSES {
        let (theirs, own) = (envoy.call(method, question).0, ours.call(method, question).0);
        if theirs != own {
            lacking.push(format!("{method} {question}: {own} and not {theirs}"));
        }
    }
    assert!(lacking.is_empty(), "{}", lacking.join("\n"));
    let names = |rig: &Rig| {
        let text = rig.call("POST", "/logging").1;
        text.lines().next().unwrap_or_default().to_owned()
    };
    assert_eq!(names(&envoy), names(&ours));
    ours.stop();
    envoy.stop();
}
