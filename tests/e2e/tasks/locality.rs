//! "Locality Load Balancing": failover from zone to zone to region as sidecars are drained, and shares by zone.

use std::net::Ipv4Addr;

use outrigger_tests::{Member, Mesh, Workload, eventually, need, until};

use super::{
    apps::{App, Message, get},
    is_share, join,
    kubectl::{apply, published, stage},
};

const PLACES: [(&str, &str); 4] =
    [("region1", "zone1"), ("region1", "zone2"), ("region2", "zone3"), ("region3", "zone4")];

struct Regions {
    _apps: Vec<App>,
    sleep: Workload,
    servers: [Workload; 4],
    mesh: Mesh,
}

fn start() -> Regions {
    let mut mesh = Mesh::start(&[]);
    stage(&mesh, "sample", &published("helloworld.yaml"));
    let place = |(region, zone)| [("topology.kubernetes.io/region", region), ("topology.kubernetes.io/zone", zone)];
    let labels = PLACES.map(|at| [vec![("app", "helloworld")], place(at).to_vec()].concat());
    let sleep = [vec![("app", "sleep")], place(PLACES[0]).to_vec()].concat();
    let member = |name, labels| Member { namespace: "sample", ..Member::new(name, labels) };
    let [one, two, three, four] = &labels;
    let [sleep, one, two, three, four] = join(
        &mut mesh,
        [
            member("sleep", &sleep),
            member("helloworld-1", one),
            member("helloworld-2", two),
            member("helloworld-3", three),
            member("helloworld-4", four),
        ],
    );
    let servers = [one, two, three, four];
    let app = |(server, (region, zone)): (&Workload, (&str, &str))| {
        let version = format!("{region}.{zone}");
        App::http(&server.pod, 5000, move |_| Message::answer(200, version.clone()))
    };
    let _apps = servers.iter().zip(PLACES).map(app).collect();
    mesh.settle();
    Regions { _apps, sleep, servers, mesh }
}

impl Regions {
    fn hello(&self) -> Message {
        get(&self.sleep.pod, (Ipv4Addr::new(10, 96, 0, 40), 5000), "helloworld.sample:5000", "/hello", &[])
    }

    /// As the page does it: the sidecar no longer accepts and says so, and kubelet marks its Pod.
    fn drain(&self, server: usize) {
        let pod = &self.servers[server].pod;
        pod.sh("curl -sSf -X POST http://127.0.0.1:15000/drain_listeners");
        until("the sidecar's refusal", || pod.try_connect((pod.ip4, 15006)).is_err());
        eventually("a failed readiness probe", || {
            let (_, code) = pod.try_sh("curl -s -o /dev/null -w '%{http_code}' http://127.0.0.1:15021/healthz/ready");
            if code == "503" { Ok(()) } else { Err(code) }
        });
        let file = format!("pod-{}.yaml", pod.name);
        let registered = std::fs::read_to_string(self.mesh.dir().join("config").join(&file)).unwrap();
        let not_ready = "  conditions:\n  - {type: Ready, status: \"False\"}\n";
        self.mesh.apply_and_wait(&file, &(registered + not_ready));
    }

    fn assert_sound(&mut self) {
        self.sleep.assert_sound();
        self.servers.iter_mut().for_each(Workload::assert_sound);
        self.mesh.assert_no_refusals();
    }
}

#[test]
fn locality_failover() {
    need!("ip", "curl");
    let mut regions = start();
    apply(&regions.mesh, "locality-failover.yaml");
    for (n, (region, zone)) in PLACES.iter().enumerate() {
        if n > 0 {
            regions.drain(n - 1);
            // The page allows the first call after a drain to fail; what follows stays in one place.
            let first = regions.hello().status();
            assert!(first == 200 || first == 503, "{first}");
        }
        for _ in 0..10 {
            let answer = regions.hello();
            assert_eq!((answer.status(), answer.body), (200, format!("{region}.{zone}")));
        }
    }
    regions.assert_sound();
}

#[test]
fn locality_weighted_distribution() {
    const CALLS: usize = 300;
    need!("ip", "curl");
    let mut regions = start();
    apply(&regions.mesh, "locality-distribute.yaml");
    let answers: Vec<String> = (0..CALLS).map(|_| regions.hello().body).collect();
    for ((region, zone), percent) in PLACES.iter().zip([70.0, 20.0, 0.0, 10.0]) {
        let place = format!("{region}.{zone}");
        let count = answers.iter().filter(|answer| **answer == place).count();
        assert!(is_share(count, CALLS, percent), "{place}: {count} of {CALLS}, expected {percent} %");
    }
    regions.assert_sound();
}
