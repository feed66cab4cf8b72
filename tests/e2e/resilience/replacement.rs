//! A proxy is replaced in place, again and again, under all kinds of load: nobody notices.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpStream},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use outrigger_tests::{
    Exchange, Fabric, Mesh, Pod, Process, Workload, eventually,
    exchange::{Server, accept},
    mesh::{PROXY_UID, bin},
    need,
    pair::{SERVICE4, STRICT, by4, service},
    proxies::write_bootstrap,
    until,
};

use super::{
    FRESH,
    lifecycle::{STATIC, demo, state_dir},
    thousand::Calls,
};

const PORTS: &[(&str, u16, u16)] =
    &[("http", 80, 9080), ("http-chat", 8080, 9081), ("grpc", 9090, 9090), ("tcp-bulk", 7000, 7000)];
const NAMES: [&str; 2] = ["client", "server"];

/// Requests until it is told to end.
struct Asking {
    process: Process,
    stop: PathBuf,
}

impl Asking {
    fn start(pod: &Pod, name: &str, url: &str, options: &str) -> Self {
        let stop = pod.dir().join(format!("{name}.stop"));
        let mut command = pod.command(bin("outrigger-demo-app"));
        command.args(["load", url, "--connections", "4", "--timeout-s", "30", "--until"]).arg(&stop);
        command.args(options.split_whitespace());
        Self { process: Process::spawn(name, command, pod.dir()), stop }
    }

    /// Not one failed.
    fn end(mut self) {
        std::fs::write(&self.stop, "").unwrap();
        let status = self.process.wait();
        let report = self.process.output();
        assert!(status.success() && report.contains(", 0 failed,"), "{report}");
        println!("{}: {}", self.process.name(), report.trim());
    }
}

/// A transfer of bytes that say where they belong, for as long as the test takes.
struct Transfer {
    stop: Arc<AtomicBool>,
    ends: [JoinHandle<u64>; 2],
}

/// The byte at a place of the stream; no period that a buffer's size could hide.
fn byte_at(place: u64) -> u8 {
    (place % 251) as u8
}

impl Transfer {
    fn start(mut from: TcpStream, mut to: TcpStream) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let told = stop.clone();
        let writing = std::thread::spawn(move || {
            let mut sent = 0;
            while !told.load(Ordering::Relaxed) {
                let piece: Vec<u8> = (sent..sent + 16_384).map(byte_at).collect();
                from.write_all(&piece).unwrap_or_else(|e| panic!("after {sent} bytes: {e}"));
                sent += piece.len() as u64;
                // The machine has other things to do.
                std::thread::park_timeout(std::time::Duration::from_millis(1));
            }
            from.shutdown(Shutdown::Write).unwrap();
            assert_eq!(from.read(&mut [0]).unwrap(), 0);
            sent
        });
        let reading = std::thread::spawn(move || {
            let (mut heard, mut buffer) = (0, vec![0; 65_536]);
            loop {
                let count = to.read(&mut buffer).unwrap_or_else(|e| panic!("after {heard} bytes: {e}"));
                if count == 0 {
                    return heard;
                }
                for byte in &buffer[..count] {
                    assert_eq!(*byte, byte_at(heard), "at {heard}");
                    heard += 1;
                }
            }
        });
        Self { stop, ends: [writing, reading] }
    }

    fn end(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        let [sent, heard] = self.ends.map(|end| end.join().unwrap());
        assert_eq!(sent, heard);
        sent
    }
}

/// A workload whose proxy is replaced.
struct Place {
    workload: Workload,
    name: &'static str,
    socket: String,
    /// Those that were replaced and may still have connections.
    former: Vec<Process>,
}

impl Place {
    fn flags(socket: &str, workers: &str) -> [String; 4] {
        ["--replace-socket", socket, "--concurrency", workers].map(str::to_owned)
    }

    fn start(mesh: &mut Mesh, name: &'static str) -> Self {
        let socket = format!("{}/replace.sock", state_dir(mesh, name));
        let flags = Self::flags(&socket, "2");
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let workload = mesh.workload_with(name, &[("app", name)], &flags);
        Self { workload, name, socket, former: Vec::new() }
    }

    fn successor(&self, mesh: &Mesh, workers: &str) -> Process {
        let flags = Self::flags(&self.socket, workers);
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        mesh.start_proxy(&self.workload.pod, self.name, &[("app", self.name)], &flags)
    }

    fn epoch(&self) -> u64 {
        self.workload.stat("server.hot_restart_epoch")
    }

    fn replace(&mut self, mesh: &Mesh, workers: &str) {
        let before = self.epoch();
        let mut next = self.successor(mesh, workers);
        eventually(&format!("successor {} of {}", before + 1, self.name), || match self.epoch() {
            now if now == before + 1 => Ok(()),
            now if !next.is_running() => panic!("epoch {now}:\n{}", next.output()),
            now => Err(format!("epoch {now}")),
        });
        self.workload.wait_ready();
        self.former.push(std::mem::replace(&mut self.workload.proxy, next));
    }

    /// Somebody who wants the place and dies before having it, or does not get it.
    fn outlive(&mut self) {
        let before = self.epoch();
        let pod = &self.workload.pod;
        let program = bin("outrigger-proxy");
        // Without a control plane it will never be ready.
        let arguments = ["--xds-address", "127.0.0.1:1", "--pod-ip", "127.0.0.1", "--replace-socket", &self.socket];
        let start = |what: &str, seconds: &str| {
            let mut command = pod.command_as(PROXY_UID, &program);
            command.args(arguments).args(["--status-address", "[::]:15021", "--replace-timeout-s", seconds]);
            let mut process = Process::spawn(&format!("{what}-{}-{before}", self.name), command, pod.dir());
            process.wait_for("inherited address=0.0.0.0:15006");
            process
        };
        let mut dying = start("dying", "600");
        dying.signal(Signal::SIGKILL);
        dying.wait();
        let mut late = start("late", "1");
        assert_eq!(late.wait().code(), Some(1));
        assert!(late.output().contains("cannot take over: not ready for 1s"), "{}", late.output());
        // Another user: that one is not to be trusted, whoever it is.
        let (ok, text) = pod.try_sh(&format!("{} {}", program.display(), arguments.join(" ")));
        assert!(!ok && text.contains("is not to be trusted"), "{text}");
        assert_eq!(self.epoch(), before);
    }
}

#[test]
fn proxies_are_replaced_in_place_under_load() {
    need!("ip", "curl");
    let mut mesh = Mesh::start(&[(&SERVICE4.to_string(), "app")]);
    mesh.apply("services.yaml", &service("app", "server", PORTS));
    mesh.apply("strict.yaml", STRICT);
    let mut places = NAMES.map(|name| Place::start(&mut mesh, name));
    let application = demo(&places[1].workload, "v1");
    mesh.settle();
    let (client, server) = (&places[0].workload.pod, &places[1].workload.pod);
    let kept = Asking::start(client, "kept", "http://app/", "");
    let fresh = Asking::start(client, "fresh", "http://app/", FRESH);
    // A WebSocket, calls and bytes that go on throughout.
    let chat = Server::new(server.listen(9081));
    let mut ours = client.connect(by4(8080));
    ours.say("GET /chat HTTP/1.1\r\nHost: app:8080\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    let (mut theirs, _) = chat.request();
    theirs.say("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    assert!(ours.head().starts_with("HTTP/1.1 101 "));
    let mut calls = Calls::open(&places[0].workload, &places[1].workload);
    let bulk = server.listen(7000);
    let mut from = client.connect(by4(7000));
    from.say([byte_at(0)]);
    let mut to = accept(&bulk);
    assert_eq!(to.hear(1), [byte_at(0)]);
    let transfer = Transfer::start(from, to);
    let mut alive = |after: &str| {
        ours.say("there");
        assert_eq!(theirs.hear(5), b"there", "{after}");
        theirs.say("back");
        assert_eq!(ours.hear(4), b"back", "{after}");
        calls.alive(after);
    };
    alive("the start");
    // More workers than before, fewer, and as many.
    for workers in ["3", "1", "2"] {
        for place in &mut places {
            place.outlive();
            place.replace(&mesh, workers);
            alive(&format!("{} with {workers} workers", place.name));
        }
    }
    for place in &mut places {
        assert!(place.former[0].is_running(), "the first one has the streams");
    }
    kept.end();
    fresh.end();
    println!("{} bytes", transfer.end());
    drop((calls, ours, theirs, chat));
    mesh.assert_no_refusals();
    for place in &mut places {
        for former in &mut place.former {
            let status = former.wait();
            assert_eq!(status.code(), Some(0), "{}", former.output());
        }
        until("no parent", || place.workload.stat("server.parent_connections") == 0);
        place.workload.assert_sound();
    }
    drop(application);
}

/// Process 1 of a container of its own.
struct Container {
    process: Process,
    program: PathBuf,
}

fn children(pid: u32) -> Vec<i32> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

impl Container {
    fn start(pod: &Pod, dir: &str, config: &Path) -> Self {
        let program = Path::new(dir).join("outrigger-proxy");
        std::fs::copy(bin("outrigger-proxy"), &program).unwrap();
        let mut command = pod.command("unshare");
        command.args(["--pid", "--fork", "--kill-child", "--mount-proc", "setpriv"]);
        command.args([&format!("--reuid={PROXY_UID}"), &format!("--regid={PROXY_UID}"), "--clear-groups", "--"]);
        command.arg(&program).arg("-c").arg(config);
        command.args(["--supervise", "--concurrency", "2", "--drain-time-s", "5", "--replace-socket"]);
        command.arg(Path::new(dir).join("replace.sock"));
        Self { process: Process::spawn("container", command, pod.dir()), program }
    }

    fn init(&self) -> i32 {
        eventually("process 1", || children(self.process.pid()).first().copied().ok_or_else(|| "none".to_owned()))
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.init()), signal).unwrap();
    }

    /// Another file under the same name, as an upgrade does it.
    fn upgrade(&self) {
        let beside = self.program.with_extension("new");
        std::fs::copy(bin("outrigger-proxy"), &beside).unwrap();
        std::fs::rename(beside, &self.program).unwrap();
    }
}

#[test]
fn process_1_of_a_container_is_replaced_and_does_not_end() {
    need!("ip", "curl", "unshare");
    let mut fabric = Fabric::new();
    let pod = fabric.pod("container", &[]);
    let dir = pod.dir().join("run");
    std::fs::create_dir(&dir).unwrap();
    std::fs::set_permissions(&dir, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let write = |version: &str| {
        let text = format!("{{\\\"version\\\": \\\"{version}\\\"}}");
        write_bootstrap(&pod, STATIC, &[("NAME", "front"), ("PORT", "8080"), ("TEXT", &text)])
    };
    let mut container = Container::start(&pod, &dir.display().to_string(), &write("0"));
    let ask = || pod.try_sh("curl -sSf http://127.0.0.1:8080/");
    until("the first answer", || ask().0);
    let init = container.init();
    let fresh = Asking::start(&pod, "fresh", "http://127.0.0.1:8080/", FRESH);
    let kept = Asking::start(&pod, "kept", "http://127.0.0.1:8080/", "");
    for version in ["1", "2", "3"] {
        write(version);
        container.upgrade();
        if version == "2" {
            pod.sh("curl -sSf -X POST http://127.0.0.1:15000/replace");
        } else {
            container.signal(Signal::SIGUSR2);
        }
        // All of it from the newest: nobody else accepts any more.
        eventually(&format!("version {version}"), || match pod.sh("curl -sSf http://127.0.0.1:15000/stats") {
            stats if stats.contains(&format!("server.hot_restart_epoch: {version}\n")) => Ok(()),
            _ => Err("not yet".to_owned()),
        });
        let (ok, text) = ask();
        assert!(ok && text.contains(&format!("\"{version}\"")), "{text}");
        until("the end of the former", || children(init.unsigned_abs()).len() == 1);
    }
    // A configuration that cannot be used changes nothing.
    let good = std::fs::read_to_string(write("4")).unwrap();
    let file = write("4");
    std::fs::write(&file, good.replace("stat_prefix", "no_such_field")).unwrap();
    container.signal(Signal::SIGUSR2);
    container.process.wait_for("code=64");
    assert!(ask().1.contains("\"3\""));
    fresh.end();
    kept.end();
    assert_eq!((container.init(), children(init.unsigned_abs()).len()), (init, 1));
    container.signal(Signal::SIGTERM);
    assert_eq!(container.process.wait().code(), Some(0), "{}", container.process.output());
    assert!(!container.process.output().contains("panicked"), "{}", container.process.output());
}

#[test]
fn a_supervisor_ends_with_the_one_that_serves() {
    need!("ip", "curl", "unshare");
    let mut fabric = Fabric::new();
    let pod = fabric.pod("container", &[]);
    let dir = pod.dir().join("run");
    std::fs::create_dir(&dir).unwrap();
    std::fs::set_permissions(&dir, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let file = write_bootstrap(&pod, STATIC, &[("NAME", "front"), ("PORT", "8080"), ("TEXT", "one")]);
    let mut container = Container::start(&pod, &dir.display().to_string(), &file);
    until("the first answer", || pod.try_sh("curl -sSf http://127.0.0.1:8080/").0);
    let serving = children(container.init().unsigned_abs());
    kill(Pid::from_raw(serving[0]), Signal::SIGKILL).unwrap();
    assert_eq!(container.process.wait().code(), Some(137), "{}", container.process.output());
}
