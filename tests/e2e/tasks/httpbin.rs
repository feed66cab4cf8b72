//! httpbin and a caller, as several pages deploy them.

use std::{net::Ipv4Addr, sync::Arc};

use outrigger_tests::{Mesh, Workload};

use super::{
    apps::{App, Message, get},
    kubectl::{published, stage},
};

pub(crate) const ADDRESS: (Ipv4Addr, u16) = (Ipv4Addr::new(10, 96, 0, 20), 8000);

pub(crate) struct Httpbin {
    // The Pods go before the mesh, in whose folder their logs are.
    pub(crate) sleep: Workload,
    /// The versions, each with its application.
    pub(crate) servers: Vec<(Workload, App)>,
    pub(crate) mesh: Mesh,
}

impl Httpbin {
    /// One or both versions; `answer` is what a version says to a request.
    pub(crate) fn start(
        versions: &[&'static str],
        answer: impl Fn(&str, &Message) -> Message + Send + Sync + 'static,
    ) -> Self {
        let mut mesh = Mesh::start(&[]);
        stage(&mesh, "default", &published("httpbin.yaml"));
        // One worker: each may open a connection whatever the limit is, lest its requests wait for ever.
        let sleep = mesh.workload_with("sleep", &[("app", "sleep")], &["--concurrency", "1"]);
        let answer = Arc::new(answer);
        let serve = |version: &&'static str| {
            let workload = mesh.workload(&format!("httpbin-{version}"), &[("app", "httpbin"), ("version", version)]);
            let (answer, version) = (answer.clone(), *version);
            let app = App::http(&workload.pod, 80, move |request| answer(version, request));
            (workload, app)
        };
        let servers = versions.iter().map(serve).collect();
        mesh.settle();
        Self { sleep, servers, mesh }
    }

    /// `kubectl exec sleep -- curl http://httpbin:8000/PATH`.
    pub(crate) fn get(&self, path: &str) -> Message {
        get(&self.sleep.pod, ADDRESS, "httpbin:8000", path, &[])
    }

    pub(crate) fn assert_sound(&mut self) {
        self.sleep.assert_sound();
        self.servers.iter_mut().for_each(|(workload, _)| workload.assert_sound());
        self.mesh.assert_no_refusals();
    }
}
