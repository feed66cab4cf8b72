//! "TCP Traffic Shifting": connections to v1, then a fifth of them to v2. The page comes through a gateway; here the
//! client is in the mesh, with the page's routes for it.

use std::net::Ipv4Addr;

use outrigger_tests::{Member, Mesh, Workload, need};

use super::{
    apps::{App, say_line},
    is_share, join,
    kubectl::{apply, apply_text, published, stage},
};

#[test]
fn tcp_traffic_shifting() {
    const CONNECTIONS: usize = 200;
    need!("ip", "curl");
    let mut mesh = Mesh::start(&[]);
    stage(&mesh, "default", &published("tcp-echo.yaml"));
    let mut workloads = join(
        &mut mesh,
        [
            Member::new("sleep", &[("app", "sleep")]),
            Member::new("tcp-echo-v1", &[("app", "tcp-echo"), ("version", "v1")]),
            Member::new("tcp-echo-v2", &[("app", "tcp-echo"), ("version", "v2")]),
        ],
    );
    let [sleep, v1, v2] = &workloads;
    let _apps = [App::lines(&v1.pod, 9000, "one"), App::lines(&v2.pod, 9000, "two")];
    let second = |connections: usize| {
        let address = (Ipv4Addr::new(10, 96, 0, 30), 9000);
        let answers: Vec<_> = (0..connections).map(|_| say_line(&sleep.pod, address, "date")).collect();
        assert!(answers.iter().all(|a| a == "one date" || a == "two date"), "{answers:?}");
        answers.iter().filter(|answer| *answer == "two date").count()
    };

    let mesh_rules = published("tcp-echo-20-v2-mesh.yaml");
    let all = mesh_rules.replace("weight: 80", "weight: 100").replace("weight: 20", "weight: 0");
    apply_text(&mesh, "default", &all);
    assert_eq!(second(30), 0, "all timestamps are `one`");
    apply(&mesh, "tcp-echo-20-v2.yaml");
    assert_eq!(second(30), 0, "rules for the gateway are not for the mesh");
    apply(&mesh, "tcp-echo-20-v2-mesh.yaml");
    let two = second(CONNECTIONS);
    assert!(is_share(two, CONNECTIONS, 20.0), "{two} of {CONNECTIONS} are `two`");
    workloads.iter_mut().for_each(Workload::assert_sound);
    mesh.assert_no_refusals();
}
