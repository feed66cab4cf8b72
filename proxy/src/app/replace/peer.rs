//! Who may take listening sockets, and from whom they are taken.

use std::path::{Path, PathBuf};

use tokio::net::{UnixStream, unix::UCred};

/// Those who may: the same user, running one of these programs.
#[derive(Clone, Debug)]
pub(in crate::app) struct Peers {
    uid: u32,
    programs: Vec<PathBuf>,
}

impl Peers {
    /// This process's own program, as it was started, and those of `more`.
    pub(in crate::app) fn new(more: &[PathBuf]) -> Self {
        let own = std::fs::read_link("/proc/self/exe").ok();
        Self { uid: nix::unistd::geteuid().as_raw(), programs: own.into_iter().chain(more.iter().cloned()).collect() }
    }

    /// Nobody.
    #[cfg(test)]
    pub(super) fn none() -> Self {
        Self { programs: Vec::new(), ..Self::new(&[]) }
    }

    /// Looks who is at the other end of a connection. What cannot be found out is a reason to refuse.
    pub(super) fn check(&self, stream: &UnixStream) -> Result<u32, String> {
        let peer = stream.peer_cred().map_err(|e| format!("its credentials cannot be read: {e}"))?;
        let pid = self.same_user(&peer)?;
        let program = std::fs::read_link(format!("/proc/{pid}/exe"))
            .map_err(|e| format!("the program of process {pid} cannot be read: {e}"))?;
        self.may_run(&program)?;
        Ok(pid)
    }

    /// Whether the other end is this process's own user; its process id.
    pub(super) fn same_user(&self, peer: &UCred) -> Result<u32, String> {
        if peer.uid() != self.uid {
            return Err(format!("its user is {}, not {}", peer.uid(), self.uid));
        }
        let pid = peer.pid().and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid > 0);
        pid.ok_or_else(|| "its process cannot be seen from here".to_owned())
    }

    fn may_run(&self, program: &Path) -> Result<(), String> {
        if self.programs.iter().any(|allowed| allowed == program) {
            return Ok(());
        }
        Err(format!("its program is {}, see --replace-allow-exe", program.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_same_user_with_an_allowed_program_may() {
        let (one, other) = UnixStream::pair().unwrap();
        let own = Peers::new(&[]);
        assert_eq!(own.check(&one), Ok(std::process::id()));
        let stranger = Peers { uid: own.uid + 1, ..own.clone() };
        assert!(stranger.check(&other).unwrap_err().contains("user"));
        let strict = Peers { programs: vec!["/usr/bin/other".into()], ..own.clone() };
        assert!(strict.check(&other).unwrap_err().contains("--replace-allow-exe"));
        let none = Peers { programs: Vec::new(), ..own };
        assert!(none.check(&other).is_err());
        let more = Peers::new(&["/opt/v2/proxy".into()]);
        assert!(more.may_run(Path::new("/opt/v2/proxy")).is_ok());
        assert!(more.may_run(Path::new("/opt/v2/proxy (deleted)")).is_err());
    }
}
