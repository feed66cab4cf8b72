//! What the security pages deploy: httpbin and sleep in namespaces of their own, with sidecars or without.

use std::net::{IpAddr, Ipv4Addr};

use outrigger_tests::{Member, Mesh, Pod, Workload, wait::PATIENCE};

use super::{
    apps::{App, Message, ask_within},
    join,
    kubectl::{apply_text, published, stage},
};

/// The pages' namespaces, and the addresses of their httpbin.
pub(crate) const NAMESPACES: [(&str, Ipv4Addr); 3] = [
    ("foo", Ipv4Addr::new(10, 96, 0, 20)),
    ("bar", Ipv4Addr::new(10, 96, 0, 21)),
    ("legacy", Ipv4Addr::new(10, 96, 0, 22)),
];

const PORT: u16 = 8000;

/// The `step`th object of a published file.
pub(crate) fn step(file: &str, step: usize) -> String {
    published(file).split("---\n").nth(step).unwrap_or_else(|| panic!("{file} has no step {step}")).to_owned()
}

/// `curl -X METHOD http://httpbin.NAMESPACE:8000/PATH`.
pub(crate) fn curl(from: &Pod, method: &str, namespace: &str, path: &str, headers: &[(&str, &str)]) -> Message {
    let (_, address) = NAMESPACES.iter().find(|(name, _)| *name == namespace).unwrap();
    let to = ((IpAddr::from(*address), PORT).into(), &*format!("httpbin.{namespace}:{PORT}"));
    ask_within(from, to, (method, path), headers, PATIENCE)
}

/// Says which headers came, one per line.
fn httpbin(pod: &Pod) -> App {
    App::http(pod, 80, |request| Message::answer(200, request.head.clone()))
}

fn service(mesh: &Mesh, (namespace, address): (&str, Ipv4Addr)) {
    stage(mesh, namespace, &published("httpbin.yaml").replace("10.96.0.20", &address.to_string()));
}

fn member<'a>(name: &'a str, namespace: &'a str, app: &'a str, labels: &'a [(&'a str, &'a str)]) -> Member<'a> {
    Member { namespace, service_account: app, ..Member::new(name, labels) }
}

/// httpbin and sleep in `foo`.
pub(crate) struct Foo {
    // The Pods go before the mesh, in whose folder their logs are.
    _app: App,
    pub(crate) sleep: Workload,
    pub(crate) httpbin: Workload,
    pub(crate) mesh: Mesh,
}

impl Foo {
    pub(crate) fn start() -> Self {
        let mut mesh = Mesh::start(&[]);
        service(&mesh, NAMESPACES[0]);
        let members = [
            member("sleep-foo", "foo", "sleep", &[("app", "sleep")]),
            member("httpbin-foo", "foo", "httpbin", &[("app", "httpbin")]),
        ];
        let [sleep, workload] = join(&mut mesh, members);
        let _app = httpbin(&workload.pod);
        mesh.settle();
        Self { _app, sleep, httpbin: workload, mesh }
    }

    pub(crate) fn apply(&self, text: &str) {
        apply_text(&self.mesh, "foo", text);
    }

    /// The status of a request of sleep.
    pub(crate) fn status(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> u16 {
        curl(&self.sleep.pod, method, "foo", path, headers).status()
    }

    pub(crate) fn assert_sound(&mut self) {
        self.sleep.assert_sound();
        self.httpbin.assert_sound();
        self.mesh.assert_no_refusals();
    }
}

/// httpbin and sleep in `foo` and `bar`, with sidecars, and in `legacy` without.
pub(crate) struct Three {
    _apps: Vec<App>,
    /// sleep and httpbin of `foo`, of `bar`.
    workloads: [Workload; 4],
    legacy: Pod,
    pub(crate) mesh: Mesh,
}

impl Three {
    pub(crate) fn start() -> Self {
        let mut mesh = Mesh::start(&[]);
        NAMESPACES.iter().for_each(|namespace| service(&mesh, *namespace));
        let workloads = join(
            &mut mesh,
            [
                member("sleep-foo", "foo", "sleep", &[("app", "sleep")]),
                member("httpbin-foo", "foo", "httpbin", &[("app", "httpbin")]),
                member("sleep-bar", "bar", "sleep", &[("app", "sleep")]),
                member("httpbin-bar", "bar", "httpbin", &[("app", "httpbin")]),
            ],
        );
        let (legacy, server) = (mesh.outsider("sleep-legacy"), mesh.outsider("httpbin-legacy"));
        mesh.apply(
            "pod-httpbin-legacy.yaml",
            &format!(
                "apiVersion: v1\nkind: Pod\nmetadata:\n  name: httpbin-legacy\n  namespace: legacy\n  labels: {{app: \
                 httpbin}}\nspec: {{}}\nstatus: {{podIP: {}}}\n",
                server.ip4
            ),
        );
        // Without a sidecar, a service is what the node's address translation makes of it.
        let servers = [workloads[1].pod.ip4, workloads[3].pod.ip4, server.ip4];
        for ((_, address), to) in NAMESPACES.iter().zip(servers) {
            legacy.sh(&format!(
                "iptables -w -t nat -A OUTPUT -p tcp -d {address} --dport {PORT} -j DNAT --to-destination {to}:80"
            ));
        }
        let _apps = [&workloads[1].pod, &workloads[3].pod, &server].map(httpbin).into();
        mesh.settle();
        Self { _apps, workloads, legacy, mesh }
    }

    pub(crate) fn sleep(&self, namespace: &str) -> &Pod {
        match namespace {
            "foo" => &self.workloads[0].pod,
            "bar" => &self.workloads[2].pod,
            _ => &self.legacy,
        }
    }

    /// What the page's loop over all namespaces shows, where it is not 200.
    pub(crate) fn failing(&self) -> Vec<String> {
        let mut failing = Vec::new();
        for (from, _) in NAMESPACES {
            for (to, _) in NAMESPACES {
                let status = curl(self.sleep(from), "GET", to, "/ip", &[]).status();
                if status != 200 {
                    failing.push(format!("sleep.{from} to httpbin.{to}: {status:03}"));
                }
            }
        }
        failing
    }

    pub(crate) fn assert_sound(&mut self) {
        self.workloads.iter_mut().for_each(Workload::assert_sound);
        self.mesh.assert_no_refusals();
    }
}
