//! One TCP connection attempt, made by a helper process as a chosen user.
//!
//! The helper is this program again with a hidden subcommand: the kernel's owner match looks at a socket's user, and a
//! process of its own is the only way to have that user without touching the caller. Owns the attempt, its time limit
//! and the one-line answer. Invariant: an attempt ends within its limit and tells how.

use std::io::{ErrorKind, Read};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

/// How long an attempt may take; an answer on the same machine takes microseconds.
pub const ATTEMPT: Duration = Duration::from_millis(1500);

/// What the helper shall do.
#[derive(Clone, Copy, Debug)]
pub struct Attempt {
    pub to: SocketAddr,
    /// Port 0 leaves the port to the kernel.
    pub from: Option<SocketAddr>,
    /// Leaves without waiting for an answer.
    pub abandon: bool,
}

impl Attempt {
    /// From wherever the kernel chooses.
    pub fn to(to: SocketAddr) -> Self {
        Self { to, from: None, abandon: false }
    }
}

/// As whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    pub uid: u32,
    pub gid: u32,
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Connected, from this address.
    Connected(SocketAddr),
    /// Left as asked, with the connection under way from this address.
    Abandoned(SocketAddr),
    /// Refused by a reset.
    Refused,
    /// No answer in time.
    Silence,
    /// Something else, in the system's words.
    Failed(String),
    /// The helper itself could not be run.
    NotRun(String),
}

impl Ended {
    /// For a report.
    pub fn describe(&self) -> String {
        match self {
            Self::Connected(from) => format!("connected from {from}"),
            Self::Abandoned(from) => format!("called from {from} without waiting"),
            Self::Refused => "refused".into(),
            Self::Silence => format!("no answer within {} ms", ATTEMPT.as_millis()),
            Self::Failed(why) => why.clone(),
            Self::NotRun(why) => format!("not tried: {why}"),
        }
    }

    /// The helper's answer line.
    pub fn line(&self) -> String {
        match self {
            Self::Connected(from) => format!("connected {from}"),
            Self::Abandoned(from) => format!("abandoned {from}"),
            Self::Refused => "refused".into(),
            Self::Silence => "silence".into(),
            Self::Failed(why) | Self::NotRun(why) => format!("failed {}", why.replace('\n', " ")),
        }
    }

    /// Reads an answer line.
    pub fn parse(line: &str) -> Self {
        match line.trim().split_once(' ') {
            Some((how @ ("connected" | "abandoned"), from)) => match from.parse() {
                Ok(from) if how == "connected" => Self::Connected(from),
                Ok(from) => Self::Abandoned(from),
                Err(_) => Self::NotRun(format!("the helper answered {line:?}")),
            },
            Some(("failed", why)) => Self::Failed(why.to_owned()),
            None if line.trim() == "refused" => Self::Refused,
            None if line.trim() == "silence" => Self::Silence,
            _ => Self::NotRun(format!("the helper answered {line:?}")),
        }
    }
}

/// Makes the attempt in this process.
pub fn attempt(attempt: Attempt) -> Ended {
    match connect(attempt) {
        Ok(stream) => match stream.local_addr() {
            Ok(local) if attempt.abandon => Ended::Abandoned(local),
            Ok(local) => Ended::Connected(local),
            Err(error) => Ended::Failed(error.to_string()),
        },
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ended::Refused,
        Err(error) if matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock) => Ended::Silence,
        Err(error) => Ended::Failed(error.to_string()),
    }
}

fn connect(attempt: Attempt) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(attempt.to), Type::STREAM, Some(Protocol::TCP))?;
    if let Some(from) = attempt.from {
        socket.bind(&from.into())?;
    }
    if attempt.abandon {
        socket.set_nonblocking(true)?;
        return match socket.connect(&attempt.to.into()) {
            Err(error) if error.raw_os_error() != Some(nix::errno::Errno::EINPROGRESS as i32) => Err(error),
            _ => Ok(socket.into()),
        };
    }
    socket.connect_timeout(&attempt.to.into(), ATTEMPT)?;
    Ok(socket.into())
}

/// Lets a helper process make the attempt; as the caller if no identity is given.
pub fn attempt_as(helper: &Path, identity: Option<Identity>, attempt: Attempt) -> Ended {
    let mut command = Command::new(helper);
    command.arg("probe").arg("--to").arg(attempt.to.to_string());
    if let Some(from) = attempt.from {
        command.arg("--from").arg(from.to_string());
    }
    if attempt.abandon {
        command.arg("--abandon");
    }
    if let Some(identity) = identity {
        command.uid(identity.uid).gid(identity.gid);
    }
    // The settings come by the environment and might be refused there; the helper needs none of them.
    command.env_clear().current_dir("/").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = match command.spawn().and_then(|child| child.wait_with_output()) {
        Ok(output) => output,
        Err(error) => return Ended::NotRun(format!("cannot start the helper: {error}")),
    };
    let answer = String::from_utf8_lossy(&output.stdout);
    if output.status.success() {
        return Ended::parse(&answer);
    }
    let mut why = String::new();
    let _ = output.stderr.as_slice().take(400).read_to_string(&mut why);
    Ended::NotRun(format!("the helper ended with {}: {}", output.status, why.trim()))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn answers_survive_the_pipe() {
        let all = [
            Ended::Connected("[2001:db8::2]:4000".parse().unwrap()),
            Ended::Abandoned("192.0.2.2:4000".parse().unwrap()),
            Ended::Refused,
            Ended::Silence,
            Ended::Failed("Network is unreachable (os error 101)".into()),
        ];
        for ended in all {
            assert_eq!(Ended::parse(&ended.line()), ended);
        }
        for garbage in ["", "connected x", "panicked at", "refused by x"] {
            assert!(matches!(Ended::parse(garbage), Ended::NotRun(_)), "{garbage}");
        }
    }

    #[test]
    fn an_attempt_tells_how_it_ended() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = listener.local_addr().unwrap();
        let from: SocketAddr = "127.0.0.6:0".parse().unwrap();
        let Ended::Connected(local) = attempt(Attempt { from: Some(from), ..Attempt::to(to) }) else {
            panic!("a listener is there")
        };
        assert_eq!(listener.accept().unwrap().1, local);
        assert_eq!(local.ip(), from.ip());
        assert!(matches!(attempt(Attempt { abandon: true, ..Attempt::to(to) }), Ended::Abandoned(_)));
        drop(listener);
        assert_eq!(attempt(Attempt::to(to)), Ended::Refused);
        let from = Some("203.0.113.77:0".parse().unwrap());
        assert!(matches!(attempt(Attempt { from, ..Attempt::to(to) }), Ended::Failed(_)));
    }
}
