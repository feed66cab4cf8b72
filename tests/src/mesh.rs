//! A control plane and meshed workloads on a [`Fabric`], started the way an operator would start them.

use std::{
    fmt::Write as _,
    net::IpAddr,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    fabric::{Fabric, Pod},
    process::{Process, run},
    proxies::{Kind, write_bootstrap},
    wait::eventually,
};

/// Address of the control plane: its Pod is the first of every fabric.
pub const CONTROL: &str = "10.88.0.1";

/// User of the proxy in every Pod.
pub const PROXY_UID: u32 = 1337;

/// The folder with our binaries: `OUTRIGGER_BIN_DIR`, else where this test was built.
pub fn bin(name: &str) -> PathBuf {
    let dir = std::env::var_os("OUTRIGGER_BIN_DIR").map(PathBuf::from).unwrap_or_else(|| {
        let exe = std::env::current_exe().expect("a running test has a path");
        // target/PROFILE/deps/TEST, or target/PROFILE/PROGRAM
        let dir = exe.parent().expect("a program is in a folder");
        let beside = dir.join(name).exists();
        if beside { dir } else { dir.parent().expect("tests are built below target") }.to_path_buf()
    });
    let path = dir.join(name);
    assert!(path.exists(), "{} is not built: run `cargo build --workspace` first", path.display());
    path
}

/// A mesh: control plane, its configuration folder, and Pods.
pub struct Mesh {
    // Before the fabric, whose folder holds its log.
    control: Option<Process>,
    pub fabric: Fabric,
    control_pod: Pod,
    hosts: Vec<(String, String)>,
    /// Further flags of the control plane.
    flags: Vec<String>,
}

/// Who a Pod of the mesh is.
#[derive(Clone, Copy)]
pub struct Member<'a> {
    pub name: &'a str,
    pub namespace: &'a str,
    pub service_account: &'a str,
    /// `key: value` pairs of the Pod.
    pub labels: &'a [(&'a str, &'a str)],
    /// Further flags for the proxy.
    pub flags: &'a [&'a str],
}

impl<'a> Member<'a> {
    /// Of the namespace `default`, with a service account of its own name.
    pub fn new(name: &'a str, labels: &'a [(&'a str, &'a str)]) -> Self {
        Self { name, namespace: "default", service_account: name, labels, flags: &[] }
    }
}

/// A Pod with its proxy.
pub struct Workload {
    pub pod: Pod,
    pub proxy: Process,
    pub service_account: String,
}

impl Mesh {
    /// Starts a control plane. `hosts` (address, name) are what every Pod can resolve: its stand-in for cluster DNS.
    pub fn start(hosts: &[(&str, &str)]) -> Self {
        Self::start_with(hosts, &[])
    }

    /// As [`Mesh::start`], with further flags for the control plane, which is at [`CONTROL`].
    pub fn start_with(hosts: &[(&str, &str)], flags: &[&str]) -> Self {
        let mut fabric = Fabric::new();
        let control_pod = fabric.pod("control", &[]);
        let dir = fabric.dir();
        std::fs::create_dir(dir.join("config")).expect("own folder");
        let hosts = hosts.iter().map(|(a, n)| ((*a).to_owned(), (*n).to_owned())).collect();
        let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        let mut mesh = Self { fabric, control_pod, control: None, hosts, flags };
        mesh.start_control();
        mesh
    }

    /// A fabric with names but no control plane and no proxies.
    fn without_control(hosts: &[(&str, &str)]) -> Self {
        let mut fabric = Fabric::new();
        let control_pod = fabric.pod("control", &[]);
        let hosts = hosts.iter().map(|(a, n)| ((*a).to_owned(), (*n).to_owned())).collect();
        Self { fabric, control_pod, control: None, hosts, flags: Vec::new() }
    }

    /// Two Pods without proxies whose service is plain address translation: what a test must pass without any mesh, or
    /// it tests itself.
    pub(crate) fn unmeshed(hosts: &[(&str, &str)], service: &[(IpAddr, u16, u16)]) -> (Self, Workload, Workload) {
        let mut mesh = Self::without_control(hosts);
        let [client, server] = ["client", "server"].map(|name| {
            let pod = mesh.outsider(name);
            let mut nothing = pod.command("sleep");
            nothing.arg("infinity");
            let proxy = Process::spawn(&format!("proxy-{name}"), nothing, mesh.dir());
            Workload { pod, proxy, service_account: name.to_owned() }
        });
        for (address, port, target) in service {
            let (program, to) = match address {
                IpAddr::V4(_) => ("iptables", format!("{}:{target}", server.pod.ip4)),
                IpAddr::V6(_) => ("ip6tables", format!("[{}]:{target}", server.pod.ip6)),
            };
            client.pod.sh(&format!(
                "{program} -w -t nat -A OUTPUT -p tcp -d {address} --dport {port} -j DNAT --to-destination {to}"
            ));
        }
        (mesh, client, server)
    }

    /// The mesh's folder: logs, `config`, `state`.
    pub fn dir(&self) -> &Path {
        self.fabric.dir()
    }

    /// Where the control plane runs; its plaintext port is reached from here only.
    pub fn control_pod(&self) -> &Pod {
        &self.control_pod
    }

    /// Starts (or starts again) the control plane and waits until it serves.
    pub fn start_control(&mut self) {
        self.control = Some(self.control_in(&self.control_pod));
    }

    /// Starts another replica of the control plane: the same configuration and keys, a Pod of its own.
    pub fn replica(&mut self, name: &str) -> (Pod, Process) {
        let pod = self.fabric.pod(name, &[]);
        let process = self.control_in(&pod);
        (pod, process)
    }

    fn control_in(&self, pod: &Pod) -> Process {
        let mut command = pod.command(bin("outrigger-control"));
        command
            .arg("serve")
            .arg("--config")
            .arg(self.dir().join("config"))
            .arg("--state")
            .arg(self.dir().join("state"))
            .args(["--xds-address", "127.0.0.1:15010", "--status-address", "127.0.0.1:15014"])
            .args(["--xds-tls-address", &format!("{}:15012", pod.ip4)])
            .args(["--tls-san", &pod.ip4.to_string()])
            .args(&self.flags);
        let control = Process::spawn(&pod.name, command, self.dir());
        eventually("the control plane's readiness", || {
            let (ok, text) = pod.try_sh("curl -sSf -m 2 http://127.0.0.1:15014/ready");
            if ok { Ok(()) } else { Err(text) }
        });
        control
    }

    /// The control plane's process.
    pub fn control(&mut self) -> &mut Process {
        self.control.as_mut().expect("started")
    }

    /// Kills the control plane without a word.
    pub fn kill_control(&mut self) {
        self.control = None;
    }

    /// Runs `outriggerctl` beside the control plane; the outcome and its output.
    pub fn ctl(&self, arguments: &str) -> (bool, String) {
        self.control_pod.try_sh(&format!("{} {arguments}", bin("outriggerctl").display()))
    }

    /// Writes one file of the configuration folder, atomically as `kubectl` mounts and editors do.
    pub fn apply(&self, file: &str, yaml: &str) {
        let config = self.dir().join("config");
        let temporary = self.dir().join(format!("{file}.new"));
        std::fs::write(&temporary, yaml).expect("own folder");
        std::fs::rename(temporary, config.join(file)).expect("own folder");
    }

    /// Removes a file of the configuration folder.
    pub fn remove(&self, file: &str) {
        std::fs::remove_file(self.dir().join("config").join(file)).expect("it was applied before");
    }

    /// Applies and waits until every proxy has the result.
    pub fn apply_and_wait(&self, file: &str, yaml: &str) {
        self.apply(file, yaml);
        self.settle();
    }

    /// Waits until every connected proxy acknowledged the folder as it is now.
    pub fn settle(&self) {
        let (ok, text) = self.ctl(&format!("wait --timeout 20s --config {}", self.dir().join("config").display()));
        assert!(ok, "the mesh did not settle: {text}");
    }

    /// A Pod outside the mesh.
    pub fn outsider(&mut self, name: &str) -> Pod {
        self.fabric.pod(name, &self.hosts)
    }

    /// Adds a Pod, registers it, installs redirection and starts its proxy; returns when the proxy is ready.
    /// `labels` are `key: value` pairs of the Pod.
    pub fn workload(&mut self, name: &str, labels: &[(&str, &str)]) -> Workload {
        self.workload_with(name, labels, &[])
    }

    /// As [`Mesh::workload`], with further flags for the proxy.
    pub fn workload_with(&mut self, name: &str, labels: &[(&str, &str)], flags: &[&str]) -> Workload {
        let workload = self.join(&Member { flags, ..Member::new(name, labels) });
        workload.wait_ready();
        workload
    }

    /// Adds a Pod, registers it, installs redirection and starts its proxy, which need not be ready yet.
    pub fn join(&mut self, member: &Member<'_>) -> Workload {
        let pod = self.fabric.pod(member.name, &self.hosts);
        self.register_member(&pod, member);
        run(pod.command(bin("outrigger-init")).arg("install"));
        let proxy = self.start_member(&pod, member);
        Workload { pod, proxy, service_account: member.service_account.to_owned() }
    }

    /// As [`Mesh::workload`], with a real Envoy as the sidecar. `delta`: incremental xDS, else state of the world.
    pub fn envoy_workload(&mut self, name: &str, labels: &[(&str, &str)], delta: bool) -> Workload {
        let pod = self.fabric.pod(name, &self.hosts);
        self.register(&pod, name, labels);
        run(pod.command(bin("outrigger-init")).arg("install"));
        let token = self.token("default", name);
        let file = write_bootstrap(
            &pod,
            include_str!("envoy-sidecar.yaml"),
            &[
                ("ID", &format!("sidecar~{}~{name}.default~default.svc.cluster.local", pod.ip4)),
                ("IPS", &format!("{},{}", pod.ip4, pod.ip6)),
                ("SERVICE_ACCOUNT", name),
                ("CONTROL", &self.control_pod.ip4.to_string()),
                ("ROOT", &self.root_cert().display().to_string()),
                ("TOKEN", &token),
                ("API_TYPE", if delta { "DELTA_GRPC" } else { "GRPC" }),
            ],
        );
        let proxy = Kind::Envoy.start(&pod, &file);
        let mut workload = Workload { pod, proxy, service_account: name.to_owned() };
        workload.wait_ready();
        assert!(workload.proxy.is_running(), "{}", workload.proxy.output());
        workload
    }

    /// What the control plane reports of itself and its clients.
    pub fn status(&self) -> serde_json::Value {
        let (ok, text) = self.ctl("status --output json");
        assert!(ok, "{text}");
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"))
    }

    /// Panics with the reasons when any client has ever refused anything.
    pub fn assert_no_refusals(&self) {
        let status = self.status();
        let proxies = status["proxies"].as_array().expect("a list");
        assert!(!proxies.is_empty(), "no client is connected: {status:#}");
        for proxy in proxies {
            for (kind, report) in proxy["types"].as_object().expect("a map") {
                assert_eq!(report["nacks"], 0, "{} refused {kind}: {report:#}", proxy["id"]);
            }
        }
    }

    /// A token that proves this service account.
    fn token(&self, namespace: &str, service_account: &str) -> String {
        let state = self.dir().join("state").display().to_string();
        let mut command = Command::new(bin("outriggerctl"));
        command.args(["token", "--namespace", namespace, "--service-account", service_account, "--state", &state]);
        run(&mut command).trim().to_owned()
    }

    /// Tells the control plane of a Pod of the namespace `default`, as Kubernetes would.
    pub fn register(&self, pod: &Pod, service_account: &str, labels: &[(&str, &str)]) {
        self.register_member(pod, &Member { service_account, ..Member::new(&pod.name, labels) });
    }

    fn register_member(&self, pod: &Pod, member: &Member<'_>) {
        let mut lines = String::new();
        for (key, value) in member.labels {
            let _ = writeln!(lines, "    {key}: \"{value}\"");
        }
        self.apply(
            &format!("pod-{}.yaml", pod.name),
            &format!(
                "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {}\n  namespace: {}\n  labels:\n    \
                 security.istio.io/tlsMode: istio\n{lines}spec:\n  serviceAccountName: {}\n\
                 status:\n  podIP: {}\n  podIPs:\n  - ip: {}\n  - ip: {}\n",
                pod.name, member.namespace, member.service_account, pod.ip4, pod.ip4, pod.ip6
            ),
        );
    }

    /// Starts the proxy of a Pod of the namespace `default` with a fresh token for its service account.
    pub fn start_proxy(&self, pod: &Pod, service_account: &str, labels: &[(&str, &str)], flags: &[&str]) -> Process {
        self.start_member(pod, &Member { service_account, flags, ..Member::new(&pod.name, labels) })
    }

    fn start_member(&self, pod: &Pod, member: &Member<'_>) -> Process {
        let token = self.token(member.namespace, member.service_account);
        let token_file = self.dir().join(format!("{}.token", pod.name));
        std::fs::write(&token_file, token).expect("own folder");
        let labels: Vec<String> = member.labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
        let mut command = pod.command_as(PROXY_UID, bin("outrigger-proxy"));
        command
            .args(["--xds-address", &format!("{}:15012", self.control_pod.ip4)])
            .arg("--xds-root-cert")
            .arg(self.root_cert())
            .arg("--token-file")
            .arg(token_file)
            .args(["--namespace", member.namespace, "--service-account", member.service_account])
            .args(["--pod-name", &pod.name])
            .args(["--pod-ip", &format!("{},{}", pod.ip4, pod.ip6)])
            .args(["--labels", &labels.join(",")])
            .args(["--status-address", "[::]:15021"])
            .args(member.flags);
        if !member.flags.contains(&"--drain-time-s") {
            command.args(["--drain-time-s", "5"]);
        }
        if let Ok(level) = std::env::var("OUTRIGGER_TESTS_LOG_LEVEL") {
            command.args(["-l", &level]);
        }
        Process::spawn(&format!("proxy-{}", pod.name), command, self.dir())
    }

    /// The mesh's root certificate, readable by everybody.
    pub fn root_cert(&self) -> PathBuf {
        let source = self.dir().join("state/root-cert.pem");
        let copy = self.dir().join("root-cert.pem");
        std::fs::copy(source, &copy).expect("the control plane wrote its root certificate");
        copy
    }
}

impl Workload {
    /// Waits until the proxy says it is ready.
    pub fn wait_ready(&self) {
        eventually(&format!("readiness of {}", self.pod.name), || {
            let (ok, text) = self.pod.try_sh("curl -sS -m 2 http://127.0.0.1:15000/ready");
            if ok && text.starts_with("LIVE") { Ok(()) } else { Err(text) }
        });
    }

    /// One of the proxy's statistics by Envoy's dotted name, 0 when it does not exist.
    pub fn stat(&self, name: &str) -> u64 {
        let text = self.pod.sh("curl -sS http://127.0.0.1:15000/stats");
        let prefix = format!("{name}: ");
        text.lines().find_map(|l| l.strip_prefix(&prefix)).and_then(|v| v.parse().ok()).unwrap_or(0)
    }

    /// The sum of all statistics whose names end so.
    pub fn stats_ending(&self, end: &str) -> u64 {
        let text = self.pod.sh("curl -sS http://127.0.0.1:15000/stats");
        let values = text.lines().filter_map(|line| line.split_once(": ")).filter(|(name, _)| name.ends_with(end));
        values.filter_map(|(_, value)| value.parse::<u64>().ok()).sum()
    }
}
