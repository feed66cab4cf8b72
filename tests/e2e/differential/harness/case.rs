//! A case: a fragment of configuration, scripted hosts, a script of requests. Compact data, built by chaining.
//!
//! Each case has a listener, clusters and hosts of its own, so that all cases of a group share one bootstrap file and
//! run at once. In its YAML `$NAME` is the cluster of that name, `$socket_NAME` the address of a host as a
//! `socket_address`, `$port_NAME` its port, `$port` the case's own port, `$case` its name and `$dir` a folder with certificates.

use std::time::Duration;

use super::{
    reply::{Plan, Serve},
    request::{Req, Step, Talk},
};

#[derive(Clone, Debug)]
pub(crate) struct Cluster {
    pub(crate) name: &'static str,
    pub(crate) hosts: Vec<&'static str>,
    pub(crate) extra: &'static str,
}

/// A difference that stays, and why.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Difference {
    /// Only lines that contain one of these, separated by ` | `, may differ.
    pub(crate) lines: &'static str,
    pub(crate) reason: &'static str,
    /// Whether they must differ: else the explanation is stale.
    pub(crate) always: bool,
}

impl Difference {
    pub(crate) fn covers(&self, line: &str) -> bool {
        self.lines.split(" | ").any(|part| line.contains(part))
    }
}

/// What a case adds to the file, by place. All YAML.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fragments {
    pub(crate) routes: Option<&'static str>,
    /// Fields of the only virtual host beside `name`, `domains` and `routes`.
    pub(crate) virtual_host: &'static str,
    /// Instead of the only virtual host.
    pub(crate) virtual_hosts: Option<&'static str>,
    pub(crate) route_config: &'static str,
    /// Fields of the connection manager.
    pub(crate) manager: &'static str,
    /// HTTP filters before the router.
    pub(crate) filters: &'static str,
    /// Fields of the router filter.
    pub(crate) router: &'static str,
    /// Fields of the listener.
    pub(crate) listener: &'static str,
    /// Instead of the filter chain with the connection manager; `$log` stands for the field `access_log`.
    pub(crate) filter_chains: Option<&'static str>,
}

#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) hosts: Vec<(&'static str, Serve)>,
    pub(crate) clusters: Vec<Cluster>,
    pub(crate) fragments: Fragments,
    pub(crate) steps: Vec<Step>,
    pub(crate) differences: Vec<Difference>,
    /// Which host a request reaches is chance: they are compared as one.
    pub(crate) alike: bool,
    /// The number of upstream connections is compared too.
    pub(crate) connections: bool,
    /// What hosts saw and what was logged depends on chance (health checks, repetitions): only the client is compared.
    pub(crate) client_only: bool,
}

pub(crate) fn case(name: &'static str) -> Case {
    Case {
        name,
        hosts: Vec::new(),
        clusters: Vec::new(),
        fragments: Fragments::default(),
        steps: Vec::new(),
        differences: Vec::new(),
        alike: false,
        connections: false,
        client_only: false,
    }
}

impl Case {
    pub(crate) fn host(mut self, name: &'static str, serve: Serve) -> Self {
        self.hosts.push((name, serve));
        self
    }

    /// A host with HTTP/1 and this plan.
    pub(crate) fn http1(self, name: &'static str, plan: Plan) -> Self {
        self.host(name, Serve::Http1(plan))
    }

    pub(crate) fn http2(self, name: &'static str, plan: Plan) -> Self {
        self.host(name, Serve::Http2(plan))
    }

    /// Hosts that answer every request with `200` and their name.
    pub(crate) fn echoes(mut self, names: &[&'static str]) -> Self {
        names.iter().for_each(|name| self.hosts.push((name, Serve::Http1(Plan::default()))));
        self
    }

    /// A cluster of some hosts with further fields. A host that no cluster names has one of its own name.
    pub(crate) fn cluster(mut self, name: &'static str, hosts: &[&'static str], extra: &'static str) -> Self {
        self.clusters.push(Cluster { name, hosts: hosts.to_vec(), extra });
        self
    }

    pub(crate) fn routes(mut self, yaml: &'static str) -> Self {
        self.fragments.routes = Some(yaml);
        self
    }

    pub(crate) fn virtual_host(mut self, yaml: &'static str) -> Self {
        self.fragments.virtual_host = yaml;
        self
    }

    pub(crate) fn virtual_hosts(mut self, yaml: &'static str) -> Self {
        self.fragments.virtual_hosts = Some(yaml);
        self
    }

    pub(crate) fn route_config(mut self, yaml: &'static str) -> Self {
        self.fragments.route_config = yaml;
        self
    }

    pub(crate) fn manager(mut self, yaml: &'static str) -> Self {
        self.fragments.manager = yaml;
        self
    }

    pub(crate) fn filters(mut self, yaml: &'static str) -> Self {
        self.fragments.filters = yaml;
        self
    }

    pub(crate) fn router(mut self, yaml: &'static str) -> Self {
        self.fragments.router = yaml;
        self
    }

    pub(crate) fn listener(mut self, yaml: &'static str) -> Self {
        self.fragments.listener = yaml;
        self
    }

    pub(crate) fn filter_chains(mut self, yaml: &'static str) -> Self {
        self.fragments.filter_chains = Some(yaml);
        self
    }

    pub(crate) fn step(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }

    /// Each on a connection of its own.
    pub(crate) fn requests(mut self, requests: impl IntoIterator<Item = Req>) -> Self {
        self.steps.extend(requests.into_iter().map(|r| Step::Requests(vec![r])));
        self
    }

    /// All on one connection.
    pub(crate) fn on_one_connection(self, requests: impl IntoIterator<Item = Req>) -> Self {
        self.step(Step::Requests(requests.into_iter().collect()))
    }

    pub(crate) fn overlapping(self, requests: impl IntoIterator<Item = Req>) -> Self {
        self.step(Step::Overlapping(requests.into_iter().collect()))
    }

    pub(crate) fn spread(self, times: usize, request: Req) -> Self {
        self.step(Step::Spread(times, vec![request]))
    }

    pub(crate) fn until(self, request: Req, status: u16) -> Self {
        self.step(Step::Until(request, status))
    }

    pub(crate) fn talk(self, talk: Talk) -> Self {
        self.step(Step::Talk(talk))
    }

    /// Talks so many times; only how often what was heard is compared, as shares.
    pub(crate) fn talks(self, times: usize, talk: Talk) -> Self {
        self.step(Step::Talks(times, talk))
    }

    pub(crate) fn pause(self, ms: u64) -> Self {
        self.step(Step::Pause(Duration::from_millis(ms)))
    }

    /// Compares what was counted under names in which this follows the case's.
    pub(crate) fn stats(self, part: &'static str) -> Self {
        self.step(Step::Stats(part))
    }

    pub(crate) fn alike(mut self) -> Self {
        self.alike = true;
        self
    }

    pub(crate) fn count_connections(mut self) -> Self {
        self.connections = true;
        self
    }

    pub(crate) fn client_only(mut self) -> Self {
        self.client_only = true;
        self
    }

    /// Only lines that contain one of `lines`, separated by ` | `, may differ, for this reason; and they must.
    pub(crate) fn explained(mut self, lines: &'static str, reason: &'static str) -> Self {
        self.differences.push(Difference { lines, reason, always: true });
        self
    }

    /// As [`Case::explained`], for lines that chance makes, which may be the same.
    pub(crate) fn by_chance(mut self, lines: &'static str, reason: &'static str) -> Self {
        self.differences.push(Difference { lines, reason, always: false });
        self
    }
}

/// Cases of one subject that share a bootstrap file.
pub(crate) struct Group {
    pub(crate) name: &'static str,
    pub(crate) cases: Vec<Case>,
}

pub(crate) fn group(name: &'static str, cases: Vec<Case>) -> Group {
    Group { name, cases }
}
