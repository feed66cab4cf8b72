//! Namespaces, a bridge between them, and addresses in both families.

use std::{
    ffi::OsStr,
    fs::File,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

use nix::sched::{CloneFlags, setns};

use crate::{process::run, wait::PATIENCE};

/// A bridge in a namespace of its own; Pods hang on it.
pub struct Fabric {
    tag: String,
    pods: u8,
    dir: tempfile::TempDir,
}

/// A network namespace with one interface, `eth0`.
#[derive(Clone)]
pub struct Pod {
    pub name: String,
    /// The namespace's name.
    pub netns: String,
    pub ip4: Ipv4Addr,
    pub ip6: Ipv6Addr,
    dir: PathBuf,
}

fn ip(arguments: &str) {
    run(Command::new("ip").args(arguments.split_whitespace()));
}

impl Fabric {
    /// A fresh fabric; several can exist at once, also over several test processes.
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let tag = format!("or{}x{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let dir = tempfile::Builder::new().prefix("outrigger-").tempdir().expect("a temporary folder can be made");
        open_to_all(dir.path());
        let fabric = Self { tag, pods: 0, dir };
        let hub = fabric.hub();
        ip(&format!("netns add {hub}"));
        ip(&format!("-n {hub} link add br0 type bridge"));
        ip(&format!("-n {hub} link set br0 up"));
        fabric
    }

    fn hub(&self) -> String {
        format!("{}-hub", self.tag)
    }

    /// Where logs and files of this fabric go; removed with it.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Adds a Pod with the next free addresses. `hosts` become its `/etc/hosts`.
    pub fn pod(&mut self, name: &str, hosts: &[(String, String)]) -> Pod {
        self.pods += 1;
        let number = self.pods;
        let (hub, netns) = (self.hub(), format!("{}-{name}", self.tag));
        let pod = Pod {
            name: name.to_owned(),
            ip4: Ipv4Addr::new(10, 88, 0, number),
            ip6: Ipv6Addr::new(0xfd88, 0, 0, 0, 0, 0, 0, number.into()),
            dir: self.dir.path().to_path_buf(),
            netns,
        };
        let (netns, port) = (&pod.netns, format!("p{number}"));
        // `ip netns exec` mounts these over /etc: the Pod has its own idea of names.
        let etc = Path::new("/etc/netns").join(netns);
        std::fs::create_dir_all(&etc).expect("/etc/netns is writable");
        let mut lines = format!("127.0.0.1 localhost\n::1 localhost\n{} {name}\n", pod.ip4);
        hosts.iter().for_each(|(address, host)| lines.push_str(&format!("{address} {host}\n")));
        std::fs::write(etc.join("hosts"), lines).expect("/etc/netns is writable");
        std::fs::write(etc.join("resolv.conf"), "").expect("/etc/netns is writable");
        ip(&format!("netns add {netns}"));
        ip(&format!("link add {port} netns {hub} type veth peer name eth0 netns {netns}"));
        ip(&format!("-n {hub} link set {port} master br0 up"));
        ip(&format!("-n {netns} link set lo up"));
        ip(&format!("-n {netns} link set eth0 up"));
        ip(&format!("-n {netns} addr add {}/24 dev eth0", pod.ip4));
        ip(&format!("-n {netns} addr add {}/64 dev eth0 nodad", pod.ip6));
        // Service addresses are nobody's: redirection catches connections to them, the route only has to exist.
        ip(&format!("-n {netns} route add default dev eth0"));
        ip(&format!("-n {netns} -6 route add default dev eth0"));
        pod
    }
}

impl Default for Fabric {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Fabric {
    fn drop(&mut self) {
        let namespaces = Command::new("ip").args(["netns", "list"]).output().map(|o| o.stdout).unwrap_or_default();
        for line in String::from_utf8_lossy(&namespaces).lines() {
            let name = line.split_whitespace().next().unwrap_or_default();
            if name.starts_with(&format!("{}-", self.tag)) {
                let _ = Command::new("ip").args(["netns", "del", name]).status();
                let _ = std::fs::remove_dir_all(Path::new("/etc/netns").join(name));
            }
        }
        let _ = std::fs::remove_dir("/etc/netns");
    }
}

impl Pod {
    /// A command that runs inside the Pod as root.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.netns]).arg(program).current_dir(&self.dir);
        command
    }

    /// A command that runs inside the Pod as `uid`, groups dropped.
    pub fn command_as(&self, uid: u32, program: impl AsRef<OsStr>) -> Command {
        let mut command = self.command("setpriv");
        command.args([&format!("--reuid={uid}"), &format!("--regid={uid}"), "--clear-groups", "--"]).arg(program);
        command
    }

    /// Runs a shell line inside the Pod and returns its output.
    pub fn sh(&self, line: &str) -> String {
        run(self.command("sh").args(["-c", line]))
    }

    /// As [`Pod::sh`], for lines that may fail: (exit code 0?, stdout and stderr).
    pub fn try_sh(&self, line: &str) -> (bool, String) {
        let output = self.command("sh").args(["-c", line]).output().expect("sh exists");
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&text).into_owned())
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Runs `work` with the Pod's network: sockets it makes stay the Pod's, whoever uses them later. To the Pod's
    /// redirection they are an application's, since this process is not the proxy's user.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let namespace = File::open(Path::new("/run/netns").join(&self.netns)).expect("the Pod exists");
        std::thread::scope(|scope| {
            let entered = scope.spawn(move || {
                setns(&namespace, CloneFlags::CLONE_NEWNET).expect("root may enter a namespace");
                work()
            });
            entered.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// A server socket of the Pod on all its addresses, both families.
    pub fn listen(&self, port: u16) -> TcpListener {
        self.within(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))).expect("the port is free")
    }

    /// A connection of an application in the Pod.
    pub fn try_connect(&self, to: impl Into<SocketAddr>) -> std::io::Result<TcpStream> {
        let to = to.into();
        let stream = self.within(|| TcpStream::connect_timeout(&to, PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// As [`Pod::try_connect`], where it has to succeed; reads and writes give up after [`PATIENCE`].
    pub fn connect(&self, to: impl Into<SocketAddr>) -> TcpStream {
        let to = to.into();
        let stream = self.try_connect(to).unwrap_or_else(|e| panic!("{} cannot connect to {to}: {e}", self.name));
        crate::exchange::patient(stream)
    }
}

/// The proxy runs as another user and reads its files from here.
fn open_to_all(dir: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755)).expect("own folder");
}
