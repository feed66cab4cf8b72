//! One limit for two servers and two replicas of the control plane, in one Redis; and what holds while it is away.

use std::time::Duration;

use outrigger_tests::{
    Mesh, Pod, Process, Workload, eventually,
    mesh::{CONTROL, bin},
    need,
    pair::STRICT,
};

use crate::load::{Tally, Until, ask};

const SERVICE: &str = "10.96.0.10";
/// The second replica is the second Pod.
const REPLICA: &str = "10.88.0.2";
const RATE: f64 = 10.0;
/// What comes in two seconds: a machine that stalls for less loses nothing of the limit.
const BURST: f64 = 20.0;
/// Measured from the first refusal, when nothing is left of the burst.
const TIME: Duration = Duration::from_secs(10);

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
        let mut mesh = Mesh::start_with(&[(SERVICE, "app")], &flags);
        let redis = Some(redis(mesh.control_pod()));
        let replica = mesh.replica("replica");
        assert_eq!(replica.0.ip4.to_string(), REPLICA);
        mesh.apply("strict.yaml", STRICT);
        mesh.apply(
            "service.yaml",
            &format!(
                "apiVersion: v1\nkind: Service\nmetadata: {{name: app, namespace: default}}\nspec:\n  clusterIP: {SERVICE}\n  \
                 selector: {{app: app}}\n  ports: [{{name: http, port: 80, targetPort: 9080}}]\n"
            ),
        );
        mesh.apply(
            "limit.yaml",
            &format!(
                "apiVersion: outrigger.dev/v1alpha1\nkind: RateLimit\nmetadata: {{name: shared, namespace: default}}\n\
                 spec:\n  selector: {{matchLabels: {{app: app}}}}\n  scope: global\n  \
                 rate: {{requests: {RATE}, per: second}}\n  burst: {BURST}\n  global: {{timeout: 10s}}\n"
            ),
        );
        let two = ["--concurrency", "2"];
        let clients = ["one", "two"].map(|name| mesh.workload_with(name, &[("app", name)], &two));
        let servers = ["a", "b"].map(|name| mesh.workload_with(&format!("server-{name}"), &[("app", "app")], &two));
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

    /// Both clients at once ask for more than there is.
    fn press(&self) -> Tally {
        let to = format!("{SERVICE}:80").parse().unwrap();
        let tally: Tally = std::thread::scope(|scope| {
            let asking = self
                .clients
                .each_ref()
                .map(|client| scope.spawn(move || ask(&client.pod, ("app", to), 4, Until::Refused(TIME))));
            asking.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        println!("{:.2}/s admitted of {RATE}: {tally:?}", tally.rate());
        tally
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

/// Never more than the limit, nor less: but for what a stall at the very end has left in the buckets.
fn assert_held(tally: &Tally) {
    let allowed = RATE * tally.elapsed.as_secs_f64();
    assert!(tally.admitted as f64 <= allowed * 1.01 + 1.0, "{tally:?}");
    assert!(tally.admitted as f64 >= allowed * 0.99 - BURST, "{tally:?}");
    assert_eq!(tally.other, 0, "{tally:?}");
}

#[test]
fn two_replicas_hold_one_limit_and_proxies_their_share_without_redis() {
    need!("ip", "curl", "redis-server");
    let mut bench = Bench::start();
    assert_held(&bench.press());
    let answers = bench.answers();
    assert!(answers.iter().all(|count| *count > 0), "both replicas answer: {answers:?}");

    bench.redis = None;
    bench.until_redis(false);
    let before = bench.answers();
    let away = bench.press();
    assert_held(&away);
    assert_eq!(bench.answers(), before, "nothing is counted while redis is away");
    let status = bench.mesh.status();
    assert_eq!(status["rate_limits"]["available"], false, "{status:#}");

    bench.redis = Some(redis(bench.mesh.control_pod()));
    bench.until_redis(true);
    assert_held(&bench.press());
    assert!(bench.answers().iter().zip(before).all(|(after, before)| *after > before));
    for workload in bench.clients.iter_mut().chain(&mut bench.servers) {
        workload.assert_sound();
    }
    bench.mesh.assert_no_refusals();
}
