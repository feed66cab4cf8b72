//! The socket of a SPIFFE agent, as `SPIFFE_ENDPOINT_SOCKET` gives it.

use std::{net::SocketAddr, path::PathBuf};

/// Where a SPIFFE agent listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AgentSocket {
    Unix(PathBuf),
    Tcp(SocketAddr),
}

/// By the SPIFFE Workload Endpoint specification, section 4: a scheme and what belongs to it, nothing else.
pub(super) fn parse(text: &str) -> Result<AgentSocket, String> {
    let plain = |rest: &str| !rest.contains(['?', '#']);
    if let Some(rest) = text.strip_prefix("unix:") {
        let path = rest.strip_prefix("//").unwrap_or(rest);
        return match path.strip_prefix('/') {
            Some(name) if !name.is_empty() && plain(path) => Ok(AgentSocket::Unix(path.into())),
            _ => Err("a Unix socket is `unix:///PATH` with an absolute path".to_owned()),
        };
    }
    match text.strip_prefix("tcp://").map(str::parse) {
        Some(Ok(address)) => Ok(AgentSocket::Tcp(address)),
        Some(Err(_)) => Err("a TCP socket is `tcp://IP:PORT`, without a name or a path".to_owned()),
        None => Err("neither `unix:///PATH` nor `tcp://IP:PORT`".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agents_socket_is_what_the_specification_says() {
        let unix = |path: &str| Ok(AgentSocket::Unix(path.into()));
        assert_eq!(parse("unix:///run/spire/agent.sock"), unix("/run/spire/agent.sock"));
        assert_eq!(parse("unix:/run/agent.sock"), unix("/run/agent.sock"));
        assert_eq!(parse("tcp://127.0.0.1:8081"), Ok(AgentSocket::Tcp(([127, 0, 0, 1], 8081).into())));
        assert!(parse("tcp://[::1]:8081").is_ok());
        for wrong in [
            "",
            "/run/agent.sock",
            "unix:agent.sock",
            "unix://host/agent.sock",
            "unix:///",
            "unix:///a?x",
            "tcp://localhost:1",
            "tcp://127.0.0.1",
            "tcp://127.0.0.1:1/x",
            "http://127.0.0.1:1",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
