//! All cases of a group on their ports: plays their scripts and gathers what was observed.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use outrigger_tests::pki::Authority;
use socket2::{Domain, Socket, Type};
use tokio::time::{sleep, timeout};

use super::{
    bootstrap::{Ports, bootstrap},
    case::Case,
    client::{self, Door},
    host::Host,
    observe::{Observation, host_lines},
    request::{Req, Step, get},
};

/// A request that did not arrive by then waits in the proxy.
const OBVIOUSLY_WAITING: Duration = Duration::from_millis(800);

pub(super) struct Part {
    pub(super) case: Case,
    pub(super) ports: Ports,
    pub(super) door: Door,
    pub(super) admin: Door,
    pub(super) hosts: Vec<Arc<Host>>,
}

pub(crate) struct Stage {
    parts: Vec<Part>,
    ready: Door,
    /// The port of the administration interface, where some case asks it.
    admin: Option<u16>,
    dir: std::path::PathBuf,
    /// Bound and not listening: the kernel gives these ports to nobody else, and the proxies share them.
    _reserved: Vec<Socket>,
}

/// Takes a port that a proxy with `SO_REUSEPORT` can listen on while it is held.
fn reserve(held: &mut Vec<Socket>) -> u16 {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.set_reuse_port(true).expect("a socket");
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("port 0 is free");
    let port = socket.local_addr().ok().and_then(|a| a.as_socket()).expect("it is bound").port();
    held.push(socket);
    port
}

impl Stage {
    /// Takes all ports and starts the hosts; must be called inside the runtime.
    pub(crate) fn build(cases: Vec<Case>, dir: &Path) -> Self {
        let asks = cases.iter().flat_map(|c| &c.steps).any(|step| matches!(step, Step::Stats(_)));
        Self::administrated(cases, dir, asks)
    }

    /// As [`Self::build`], with an administration interface if `asks`.
    pub(crate) fn administrated(cases: Vec<Case>, dir: &Path, asks: bool) -> Self {
        let authority = Authority::new("differential");
        authority.write_root(dir, "root");
        for name in ["one", "two", "three"] {
            authority.issue(dir, name, &format!("spiffe://differential/{name}"));
        }
        // A name that differs in its end only, in case, or that is of another kind.
        let clients: [(&str, &[&str]); 7] = [
            ("client", &["spiffe://differential/ns/good/sa/client"]),
            ("slash", &["spiffe://differential/ns/good/sa/client/"]),
            ("upper", &["spiffe://differential/ns/GOOD/sa/client"]),
            ("dns", &["client.good.test"]),
            ("both", &["spiffe://differential/ns/other/sa/client", "client.good.test"]),
            ("two-uris", &["spiffe://differential/ns/other/sa/x", "spiffe://differential/ns/good/sa/client"]),
            ("subject", &[]),
        ];
        for (name, names) in clients {
            authority.issue_named(dir, name, &format!("{name} of differential"), names);
        }
        // Of somebody nobody trusts.
        Authority::new("stranger").issue(dir, "stranger", "spiffe://differential/ns/good/sa/client");
        let admin = asks.then(|| {
            let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr());
            free.expect("port 0 is free").port()
        });
        let door = |port| Door { port, dir: dir.to_path_buf() };
        let mut held = Vec::new();
        let parts = cases
            .into_iter()
            .map(|case| {
                let mut hosts = Vec::new();
                for (name, serve) in &case.hosts {
                    let (host, listener) = Host::bind(name, serve.clone());
                    listener.into_iter().for_each(|l| host.start(l));
                    hosts.push(host);
                }
                let ports = hosts.iter().map(|h| (h.name, h.port)).collect();
                let listener = reserve(&mut held);
                let (door, admin) = (door(listener), door(admin.unwrap_or_default()));
                Part { case, ports: Ports { listener, hosts: ports }, hosts, door, admin }
            })
            .collect();
        let ready = door(reserve(&mut held));
        Self { parts, ready, admin, dir: dir.to_path_buf(), _reserved: held }
    }

    pub(crate) fn ready_port(&self) -> u16 {
        self.ready.port
    }

    pub(crate) fn admin(&self) -> Option<u16> {
        self.admin
    }

    pub(crate) fn cases(&self) -> impl Iterator<Item = &Case> {
        self.parts.iter().map(|p| &p.case)
    }

    pub(super) fn whole_parts(&self) -> impl Iterator<Item = &Part> {
        self.parts.iter()
    }

    pub(crate) fn parts(&self) -> impl Iterator<Item = (&Case, &Ports)> {
        self.parts.iter().map(|p| (&p.case, &p.ports))
    }

    /// Takes the cases out that a proxy refuses, so that the others can run; `why` says what is wrong with a file.
    pub(crate) fn refused(&mut self, why: impl Fn(&str) -> Option<String>) -> Vec<String> {
        let (ready, admin, dir) = (self.ready.port, self.admin, self.dir.clone());
        if why(&bootstrap(&self.parts().collect::<Vec<_>>(), ready, admin, &dir)).is_none() {
            return Vec::new();
        }
        let mut said = Vec::new();
        self.parts.retain(|part| match why(&bootstrap(&[(&part.case, &part.ports)], ready, admin, &dir)) {
            Some(reason) => {
                said.push(format!("=== {} is refused: {reason}", part.case.name));
                false
            }
            None => true,
        });
        assert!(!said.is_empty(), "the file is refused, but no case of it");
        said
    }

    pub(crate) async fn ready(&self) -> bool {
        let answer = timeout(Duration::from_secs(5), client::send(&self.ready, &[get("/")])).await;
        answer.is_ok_and(|lines| lines.iter().any(|l| l.ends_with(" 204")))
    }

    /// Plays all scripts at once.
    pub(crate) async fn play(&self) -> Vec<Observation> {
        futures_util::future::join_all(self.parts.iter().map(Part::play)).await
    }

    /// Gives every case its lines of the access log. Their order is no proxy's promise.
    pub(crate) fn add_logs(&self, log: &str, observations: &mut [Observation]) {
        for (part, observation) in self.parts.iter().zip(observations) {
            if part.case.client_only {
                continue;
            }
            let prefix = format!("{}| ", part.case.name);
            let mut entries: Vec<&str> = log.lines().filter_map(|l| l.strip_prefix(&prefix)).collect();
            entries.sort_unstable();
            let mut lines: Vec<String> = entries.into_iter().flat_map(|entry| part.log_lines(entry)).collect();
            observation.lines.append(&mut lines);
        }
    }

    /// Waits until no host is busy any more and lets them begin anew.
    pub(crate) async fn settle_and_restart(&self) {
        for part in &self.parts {
            part.settle(Duration::from_secs(5)).await;
            part.hosts.iter().for_each(|h| h.restart());
        }
    }
}

impl Part {
    /// Puts names in the place of addresses.
    fn named(&self, line: &str) -> String {
        let mut line = line.replace(&format!("127.0.0.1:{}", self.ports.listener), "$listener");
        for host in &self.hosts {
            let name = if self.case.alike { "any" } else { host.name };
            line = line.replace(&format!("127.0.0.1:{}", host.port), &format!("${name}"));
        }
        line
    }

    /// A line for each field, so that one that differs does not hide the others.
    fn log_lines(&self, entry: &str) -> Vec<String> {
        let (request, fields) = entry.split_at(entry.find(" code=").unwrap_or(0));
        let upstream = if self.case.alike { "upstream=" } else { "\0" };
        let fields = fields.split(' ').filter(|f| !f.is_empty() && !f.starts_with(upstream));
        fields.map(|field| self.named(&format!("log {request} {field}"))).collect()
    }

    pub(super) async fn settle(&self, patience: Duration) {
        let deadline = Instant::now() + patience;
        while self.hosts.iter().any(|h| h.active() > 0) && Instant::now() < deadline {
            sleep(Duration::from_millis(5)).await;
        }
    }

    async fn play(&self) -> Observation {
        let mut observation = Observation::default();
        for (n, step) in self.case.steps.iter().enumerate() {
            let lines = self.step(step, &mut observation).await;
            observation.lines.extend(lines.iter().map(|l| self.named(&format!("{} {l}", n + 1))));
        }
        if !self.case.client_only {
            self.settle(Duration::from_secs(4)).await;
            let hosts = host_lines(&self.hosts, self.case.alike, self.case.connections);
            observation.lines.extend(hosts.iter().map(|l| self.named(l)));
        }
        observation
    }

    async fn step(&self, step: &Step, observation: &mut Observation) -> Vec<String> {
        let door = &self.door;
        match step {
            Step::Requests(requests) => client::send(door, requests).await,
            Step::Overlapping(requests) => self.overlapping(requests).await,
            Step::Spread(times, requests) => {
                let mut shares: BTreeMap<String, usize> = BTreeMap::new();
                let all: Vec<Req> = std::iter::repeat_n(requests, *times).flatten().cloned().collect();
                let mut status = String::new();
                for line in client::send(door, &all).await {
                    if line.starts_with("< HTTP/") {
                        status = line;
                    } else if line.starts_with("< body") {
                        *shares.entry(format!("{status} {line}")).or_default() += 1;
                    }
                }
                observation.shares.push(shares);
                Vec::new()
            }
            Step::Warm(times, request) => {
                client::send(door, &vec![request.clone(); *times]).await;
                Vec::new()
            }
            Step::Until(request, status) => vec![self.until(request, *status).await],
            Step::Follow(name, plan) => {
                self.hosts.iter().filter(|h| h.name == *name).for_each(|h| h.follow(plan.clone()));
                Vec::new()
            }
            Step::Talk(talk) => client::talk(door, talk).await,
            Step::Talks(times, talk) => {
                let mut shares: BTreeMap<String, usize> = BTreeMap::new();
                for _ in 0..*times {
                    let heard = client::talk(door, talk).await.swap_remove(1);
                    *shares.entry(heard).or_default() += 1;
                }
                observation.shares.push(shares);
                Vec::new()
            }
            Step::Stats(part) => self.stats(part).await,
            Step::Pause(time) => {
                sleep(*time).await;
                Vec::new()
            }
        }
    }

    /// Statistics that are not zero. A connection is counted some time after its client noticed.
    async fn stats(&self, part: &str) -> Vec<String> {
        let target = format!("/stats?usedonly&filter={}.{part}", self.case.name);
        let body = client::fetch(&self.admin, &get(&target)).await.unwrap_or_else(|| "nothing".to_owned());
        let mut lines: Vec<String> = body.lines().map(|l| format!("counted {l}")).collect();
        lines.sort();
        lines
    }

    fn arrived(&self) -> usize {
        self.hosts.iter().map(|h| h.requests()).sum()
    }

    /// Each request begins once the one before has arrived upstream, was answered, or obviously waits.
    async fn overlapping(&self, requests: &[Req]) -> Vec<String> {
        let door = &self.door;
        let mut tasks = Vec::new();
        for request in requests {
            let before = self.arrived();
            let (door, request) = (door.clone(), request.clone());
            let task = tokio::spawn(async move { client::send(&door, &[request]).await });
            let deadline = Instant::now() + OBVIOUSLY_WAITING;
            while self.arrived() == before && !task.is_finished() && Instant::now() < deadline {
                sleep(Duration::from_millis(5)).await;
            }
            tasks.push(task);
        }
        let mut lines = Vec::new();
        for task in tasks {
            lines.extend(task.await.expect("a client does not panic"));
        }
        lines
    }

    pub(super) async fn until(&self, request: &Req, status: u16) -> String {
        let deadline = Instant::now() + client::PATIENCE;
        let end = format!(" {status}");
        while Instant::now() < deadline {
            let lines = client::send(&self.door, std::slice::from_ref(request)).await;
            if lines.iter().any(|l| l.starts_with("< HTTP/") && l.ends_with(&end)) {
                return format!("reached {status}");
            }
            sleep(Duration::from_millis(50)).await;
        }
        format!("never reached {status}")
    }
}
