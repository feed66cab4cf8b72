//! Resolution as the machine is configured: `/etc/resolv.conf` (search domains, several servers, TCP for truncated
//! answers) and `/etc/hosts`. Both are read again when they change.

use std::{
    net::Ipv4Addr,
    sync::{Arc, Mutex, PoisonError},
    time::{Instant, SystemTime},
};

use hickory_resolver::{
    TokioResolver,
    config::{LookupIpStrategy, NameServerConfig, ResolverConfig},
    net::runtime::TokioRuntimeProvider,
};

use super::{Answer, Lookup, Resolve};
use crate::ir::cluster::LookupFamily;

/// Files whose change makes new resolvers.
const FILES: [&str; 2] = ["/etc/resolv.conf", "/etc/hosts"];

type Stamp = [Option<SystemTime>; 2];

/// The resolver of the system's configuration.
#[derive(Default)]
pub struct SystemResolver {
    // Only the control thread comes here.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    stamp: Stamp,
    /// For IPv4 and for IPv6.
    resolvers: [Option<Arc<TokioResolver>>; 2],
}

impl SystemResolver {
    pub fn new() -> Self {
        Self::default()
    }

    fn resolver(&self, v6: bool) -> Result<Arc<TokioResolver>, String> {
        let strategy = if v6 { LookupIpStrategy::Ipv6Only } else { LookupIpStrategy::Ipv4Only };
        let stamp = FILES.map(|f| std::fs::metadata(f).and_then(|m| m.modified()).ok());
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.stamp != stamp {
            *state = State { stamp, resolvers: [None, None] };
        }
        if let Some(resolver) = &state.resolvers[usize::from(v6)] {
            return Ok(resolver.clone());
        }
        let mut builder = match TokioResolver::builder_tokio() {
            Ok(builder) => builder,
            // As everywhere else: who names no server has one of its own, or all it needs in `/etc/hosts`.
            Err(_) if !names_servers(&std::fs::read_to_string(FILES[0]).unwrap_or_default()) => {
                let own = NameServerConfig::udp_and_tcp(Ipv4Addr::LOCALHOST.into());
                let config = ResolverConfig::from_parts(None, Vec::new(), vec![own]);
                TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
            }
            Err(e) => return Err(format!("{}: {e}", FILES[0])),
        };
        let options = builder.options_mut();
        options.ip_strategy = strategy;
        // We decide when to ask again.
        options.cache_size = 0;
        let resolver = Arc::new(builder.build().map_err(|e| e.to_string())?);
        state.resolvers[usize::from(v6)] = Some(resolver.clone());
        Ok(resolver)
    }
}

/// Whether the text of a `resolv.conf` has a line for a server, be it right or wrong.
fn names_servers(text: &str) -> bool {
    text.lines().any(|line| line.split_whitespace().next() == Some("nameserver"))
}

impl SystemResolver {
    async fn family(&self, host: &str, v6: bool) -> Result<Answer, String> {
        match self.resolver(v6)?.lookup_ip(host).await {
            Ok(found) => {
                let ttl = found.valid_until().saturating_duration_since(Instant::now());
                Ok(Answer { addresses: found.iter().collect(), ttl: Some(ttl) })
            }
            // The name does not exist or has no such records: an answer, unlike a server that cannot say.
            Err(e) if e.is_no_records_found() => Ok(Answer::default()),
            Err(e) => Err(e.to_string()),
        }
    }

    /// The second family only when the first has nothing. Nothing of one and a failure of the other is a failure.
    async fn first_of(&self, host: &str, v6: [bool; 2]) -> Result<Answer, String> {
        let first = self.family(host, v6[0]).await;
        match first {
            Ok(answer) if !answer.addresses.is_empty() => Ok(answer),
            first => {
                let second = self.family(host, v6[1]).await?;
                if second.addresses.is_empty() { first.and(Ok(second)) } else { Ok(second) }
            }
        }
    }

    async fn both(&self, host: &str) -> Result<Answer, String> {
        let (v6, v4) = futures_util::future::join(self.family(host, true), self.family(host, false)).await;
        match (v6, v4) {
            (Ok(mut v6), Ok(v4)) => {
                v6.ttl = v6.ttl.into_iter().chain(v4.ttl).min();
                v6.addresses.extend(v4.addresses);
                Ok(v6)
            }
            (Ok(one), Err(_)) | (Err(_), Ok(one)) if !one.addresses.is_empty() => Ok(one),
            (Err(error), _) | (_, Err(error)) => Err(error),
        }
    }
}

impl Resolve for SystemResolver {
    fn resolve<'a>(&'a self, host: &'a str, family: LookupFamily) -> Lookup<'a> {
        Box::pin(async move {
            match family {
                LookupFamily::Auto => self.first_of(host, [true, false]).await,
                LookupFamily::V4Preferred => self.first_of(host, [false, true]).await,
                LookupFamily::V4Only => self.family(host, false).await,
                LookupFamily::V6Only => self.family(host, true).await,
                LookupFamily::All => self.both(host).await,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::names_servers;

    #[test]
    fn a_server_is_named_by_a_line_of_its_own() {
        assert!(names_servers("search a.b\n  nameserver 10.0.0.10\noptions ndots:5\n"));
        for text in ["", "# nameserver 1.2.3.4\n;nameserver 1.2.3.4\n", "search nameserver\n", "nameservers 1.2.3.4\n"]
        {
            assert!(!names_servers(text), "{text:?}");
        }
    }
}
