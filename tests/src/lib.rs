//! A mesh on one machine: Pods are network namespaces on a bridge, everything else is the real thing.
//!
//! Owns what it creates and removes it on drop, failed tests included. Nothing touches the machine's own namespace.

pub mod agent;
pub mod collector;
pub mod exchange;
pub mod fabric;
pub mod mesh;
pub mod pair;
pub mod peers;
pub mod pki;
pub mod process;
pub mod proxies;
pub mod wait;

pub use exchange::Exchange;
pub use fabric::{Fabric, Pod};
pub use mesh::{Member, Mesh, Workload};
pub use pair::Pair;
pub use process::Process;
pub use proxies::Kind;
pub use wait::{eventually, until};

/// Why a test cannot run here, if it cannot: printed, so that a skipped test is seen.
pub fn missing(programs: &[&str]) -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("needs root".to_owned());
    }
    programs.iter().find(|p| find(p).is_none()).map(|p| format!("`{p}` is not installed"))
}

/// Looks a program up: in the Python environment that `deploy/prepare` makes, then in `PATH`, then where Debian keeps
/// servers. `python:NAME` is a module of that environment.
pub fn find(program: &str) -> Option<std::path::PathBuf> {
    if let Some(module) = program.strip_prefix("python:") {
        let file = peers::site_packages()?.join(module);
        return file.exists().then_some(file);
    }
    let path = std::env::var_os("PATH")?;
    std::iter::once(peers::venv().join("bin"))
        .chain(std::env::split_paths(&path))
        .chain(["/usr/sbin".into()])
        .chain(peers::postgresql_dir())
        .map(|dir| dir.join(program))
        .find(|file| file.is_file())
}

/// Returns early from a test whose needs are not met, and says so. With `OUTRIGGER_REQUIRE_PEERS` set (as `tests/run`
/// does on a machine it prepared) a missing need is a failure instead.
#[macro_export]
macro_rules! need {
    ($($program:expr),* $(,)?) => {
        if let Some(reason) = $crate::missing(&[$($program),*]) {
            assert!(std::env::var_os("OUTRIGGER_REQUIRE_PEERS").is_none(), "cannot run: {reason}");
            eprintln!("SKIPPED: {reason}");
            return;
        }
    };
}
