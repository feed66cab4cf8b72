//! One limit for two servers and two replicas of the control plane, in one Redis; and what holds while it is away.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use outrigger_tests::{
    Mesh, Pod, Process, Workload, eventually,
    mesh::{CONTROL, bin},
    need,
    pair::STRICT,
};

use crate::{
    held::{Asked, Bucket},
    load::press,
};

/// Each client asks one of the servers, so that what each server admits is known.
const SERVICES: [(&str, &str); 2] = [("10.96.0.10", "a"), ("10.96.0.11", "b")];
/// The second replica is the second Pod.
const REPLICA: &str = "10.88.0.2";
/// Full in three seconds: a machine that stalls for less loses nothing of the limit.
const LIMIT: Bucket = Bucket { rate: 20.0, burst: 60.0 };
/// From the first refusal, when nothing is left of the burst; what is measured is ten seconds of it.
const TIME: Duration = Duration::from_secs(13);
/// Of each client.
const CONNECTIONS: usize = 8;

fn redis(pod: &Pod) -> Process {
    let line =
        format!("redis-server --port 6379 --bind '*' --protected-mode no --save '' --dir {}", pod.dir().display());
    pod.serve("redis", 6379, &line)
}

struct Bench {
    clients: [Workload; 2],
    servers: [Workload; 2],
    _applications: Vec<Process>,
    redis: Option<Process>,
    replica: (Pod, Process),
    mesh: Mesh,
}

impl Bench {
    fn start() -> Self {
        let flags = [
            "--redis",
            &format!("redis://{CONTROL}:6379"),
            "--ratelimit-service",
            &format!("{CONTROL}:15012,{REPLICA}:15012"),
            "--redis-timeout",
            "5s",
        ];
        let mut mesh = Mesh::start_with(&SERVICES, &flags);
        let redis = Some(redis(mesh.control_pod()));
        let replica = mesh.replica("replica");
        assert_eq!(replica.0.ip4.to_string(), REPLICA);
        mesh.apply("strict.yaml", STRICT);
        for (address, name) in SERVICES {
            mesh.apply(
                &format!("service-{name}.yaml"),
                &format!(
                    "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: default}}\nspec:\n  clusterIP: \
                     {address}\n  selector: {{server: {name}}}\n  ports: [{{name: http, port: 80, targetPort: 9080}}]\n"
                ),
            );
        }
        let Bucket { rate, burst } = LIMIT;
        mesh.apply(
            "limit.yaml",
            &format!(
                "apiVersion: outrigger.dev/v1alpha1\nkind: RateLimit\nmetadata: {{name: shared, namespace: default}}\n\
                 spec:\n  selector: {{matchLabels: {{app: app}}}}\n  scope: global\n  \
                 rate: {{requests: {rate}, per: second}}\n  burst: {burst}\n  global: {{timeout: 10s}}\n"
            ),
        );
        let two = ["--concurrency", "2"];
        let clients = ["one", "two"].map(|name| mesh.workload_with(name, &[("app", name)], &two));
        let servers = SERVICES
            .map(|(_, name)| mesh.workload_with(&format!("server-{name}"), &[("app", "app"), ("server", name)], &two));
        let demo = bin("outrigger-demo-app");
        let application =
            |server: &Workload| server.pod.serve("app", 9080, &format!("{} http [::]:9080 app v1", demo.display()));
        let applications = servers.iter().map(application).collect();
        mesh.settle();
        let bench = Self { clients, servers, _applications: applications, redis, replica, mesh };
        bench.until_redis(true);
        bench
    }

    /// Waits until both replicas say that Redis is there, or that it is not.
    fn until_redis(&self, there: bool) {
        for pod in [self.mesh.control_pod(), &self.replica.0] {
            eventually(&format!("redis {there} in {}", pod.name), || {
                let text = pod.sh("curl -sS http://127.0.0.1:15014/metrics");
                let line = format!("outrigger_ratelimit_redis_connected {}\n", u8::from(there));
                if text.contains(&line) { Ok(()) } else { Err(text) }
            });
        }
    }

    /// Both clients at once ask for more than there is, each its server.
    fn press(&self) -> [Vec<Asked>; 2] {
        let refused = Arc::<OnceLock<_>>::default();
        let asking = |(client, (address, name)): (&Workload, (&str, &str))| {
            let to = format!("{address}:80").parse().unwrap();
            press(&client.pod, (name, to), CONNECTIONS, (&refused, TIME))
        };
        std::thread::scope(|scope| {
            let threads = [0, 1].map(|i| scope.spawn(move || asking((&self.clients[i], SERVICES[i]))));
            threads.map(|thread| thread.join().unwrap())
        })
    }

    fn answers(&self) -> Vec<u64> {
        let count = |pod: &Pod| {
            let text = pod.sh("curl -sS http://127.0.0.1:15014/metrics");
            let ok = |line: &str| line.starts_with("outrigger_ratelimit_decisions_total{rule=\"default/shared\"");
            text.lines().filter(|l| ok(l)).filter_map(|l| l.rsplit(' ').next()?.parse::<u64>().ok()).sum()
        };
        [self.mesh.control_pod(), &self.replica.0].map(count).into()
    }
}

/// Never more than the limit, nor less. A machine that did not get round to asking is asked again.
fn assert_held(bench: &Bench, buckets: u32) {
    let limit = LIMIT.share(buckets);
    for _ in 0..6 {
        let asked = bench.press();
        let each = if buckets == 1 { vec![asked.concat()] } else { asked.into() };
        let judged = each.iter().map(|asked| limit.judge(asked, TIME)).collect::<Result<Option<Vec<_>>, _>>();
        match judged {
            Ok(Some(figures)) => return println!("{limit:?}: {figures:?}"),
            Ok(None) => {}
            Err(wrong) => panic!("{limit:?}: {wrong}"),
        }
    }
    panic!("{limit:?}: never asked enough");
}

#[test]
fn two_replicas_hold_one_limit_and_proxies_their_share_without_redis() {
    need!("ip", "curl", "redis-server");
    let mut bench = Bench::start();
    assert_held(&bench, 1);
    let answers = bench.answers();
    assert!(answers.iter().all(|count| *count > 0), "both replicas answer: {answers:?}");

    bench.redis = None;
    bench.until_redis(false);
    let before = bench.answers();
    // Each of the servers has its share.
    assert_held(&bench, 2);
    assert_eq!(bench.answers(), before, "nothing is counted while redis is away");
    let status = bench.mesh.status();
    assert_eq!(status["rate_limits"]["available"], false, "{status:#}");

    bench.redis = Some(redis(bench.mesh.control_pod()));
    bench.until_redis(true);
    assert_held(&bench, 1);
    assert!(bench.answers().iter().zip(before).all(|(after, before)| *after > before));
    for workload in bench.clients.iter_mut().chain(&mut bench.servers) {
        workload.assert_sound();
    }
    bench.mesh.assert_no_refusals();
}
