//! The application's server: nginx where it suffices, the bench's own for bulk and gRPC.

use std::{
    path::Path,
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use outrigger_tests::{Pod, Process};

use super::{APP_PORT, OTHER_PORT, contender::tool};
use crate::drive::{self, Service, faulty::Controls};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// 103 bytes for every request.
    Nginx,
    /// HTTP/1.1 that sends and takes as much as asked.
    Bulk,
    /// Unary and streaming echo.
    Grpc,
    /// HTTP/1.1 that misbehaves when told to: milliseconds for an answer, and for a slow one.
    Faulty(u16, u16),
}

/// A running server; ended by drop.
pub(crate) enum OriginServer {
    Nginx { _process: Process },
    Own { _service: Service },
    Faulty { _service: Service, controls: Arc<Controls> },
}

impl OriginServer {
    pub(super) fn start(pod: &Pod, origin: Origin, dir: &Path) -> anyhow::Result<Self> {
        match origin {
            Origin::Nginx => nginx(pod, dir),
            Origin::Bulk => Ok(Self::Own { _service: Service::start(pod.listen(APP_PORT), drive::bulk::serve)? }),
            Origin::Faulty(takes, slow) => {
                let [takes, slow] = [takes, slow].map(|ms| Duration::from_millis(ms.into()));
                let controls = Controls::new(takes, slow);
                let own = controls.clone();
                let service = Service::start(pod.listen(APP_PORT), move |on| drive::faulty::serve(on, own))?;
                Ok(Self::Faulty { _service: service, controls })
            }
            Origin::Grpc => Ok(Self::Own { _service: Service::start(pod.listen(APP_PORT), drive::grpc::serve)? }),
        }
    }
}

impl OriginServer {
    /// What tells it to misbehave.
    pub(crate) fn controls(&self) -> Option<&Arc<Controls>> {
        if let Self::Faulty { controls, .. } = self { Some(controls) } else { None }
    }
}

fn nginx(pod: &Pod, dir: &Path) -> anyhow::Result<OriginServer> {
    let program = tool("nginx").context("nginx is not installed (`deploy/prepare benches` does)")?;
    let here = dir.display();
    let server = |port: u16, letter: char| {
        let body = letter.to_string().repeat(102);
        format!(
            "server {{ listen {port} backlog=8192; location / {{ default_type text/plain; return 200 \"{body}\\n\"; }} }}"
        )
    };
    let config = format!(
        "daemon off; master_process off; pid {here}/nginx.pid; error_log {here}/nginx.err warn;\n\
         events {{ worker_connections 9900; }}\n\
         http {{ access_log off; keepalive_timeout 1h; keepalive_requests 1000000000; client_max_body_size 0;\n\
         client_body_temp_path {here}/b; proxy_temp_path {here}/p; fastcgi_temp_path {here}/f; uwsgi_temp_path {here}/u;\n\
         scgi_temp_path {here}/s;\n{}\n{} }}\n",
        server(APP_PORT, 'a'),
        server(OTHER_PORT, 'b'),
    );
    let file = dir.join("nginx.conf");
    std::fs::write(&file, config)?;
    // One process: workers would outlive a master that is killed, and keep its namespace. The limit of open files is then
    // the shell's to set.
    let mut command: Command = pod.command("/bin/sh");
    command.args(["-c", "ulimit -n 20000 && exec \"$0\" \"$@\""]).arg(program);
    command.arg("-p").arg(dir).arg("-c").arg(&file);
    let mut process = Process::spawn("nginx", command, dir);
    let deadline = Instant::now() + Duration::from_secs(20);
    while !pod.within(|| std::net::TcpStream::connect(("127.0.0.1", OTHER_PORT)).is_ok()) {
        if !process.is_running() || Instant::now() > deadline {
            bail!("nginx does not listen: {}", process.output());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(OriginServer::Nginx { _process: process })
}
