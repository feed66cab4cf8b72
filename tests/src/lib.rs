//! A mesh on one machine: Pods are network namespaces on a bridge, everything else is the real thing.
//!
//! Owns what it creates and removes it on drop, failed tests included. Nothing touches the machine's own namespace.

pub mod fabric;
pub mod mesh;
pub mod process;
pub mod wait;

pub use fabric::{Fabric, Pod};
pub use mesh::{Mesh, Workload};
pub use process::Process;
pub use wait::{eventually, until};

/// Why a test cannot run here, if it cannot: printed, so that a skipped test is seen.
pub fn missing(programs: &[&str]) -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("needs root".to_owned());
    }
    programs.iter().find(|p| find(p).is_none()).map(|p| format!("`{p}` is not installed"))
}

/// Looks a program up in `PATH`.
pub fn find(program: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(program)).find(|file| file.is_file())
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
