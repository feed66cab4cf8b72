//! The settings of the rate limit service, and the rules files it watches.

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context;
use clap::Args;
use tokio_util::sync::CancellationToken;

use super::parse::duration;
use crate::{
    model::LimitEndpoint,
    ratelimit::{
        file,
        memory::Memory,
        redis::Redis,
        rules::Domains,
        service::{RateLimits, Store},
    },
};

const MAX_FILE: u64 = 16 << 20;
/// How often the files are looked at.
const POLL: Duration = Duration::from_secs(2);

#[derive(Clone, Debug, Args)]
pub(super) struct LimitArguments {
    /// Counters of rate limits in Redis, shared by all replicas: redis://[USER:PASSWORD@]HOST[:PORT][/DB], or rediss://
    /// for TLS. Without it they are in memory, each replica's own.
    #[arg(long, env = "OUTRIGGER_REDIS", value_name = "URL", hide_env_values = true)]
    redis: Option<String>,
    /// Roots that a rediss:// server must chain to; without it the system's.
    #[arg(long, env = "OUTRIGGER_REDIS_CA", value_name = "FILE", requires = "redis")]
    redis_ca: Option<PathBuf>,
    /// How long Redis may take for a decision before proxies are told that there is none.
    #[arg(long, env = "OUTRIGGER_REDIS_TIMEOUT", default_value = "250ms", value_parser = duration, value_name = "TIME")]
    redis_timeout: Duration,
    /// Rate limits for other domains than RateLimit objects', in lyft/ratelimit's YAML; may be repeated, is watched.
    #[arg(long, env = "OUTRIGGER_RATELIMIT_RULES", value_delimiter = ',', value_name = "FILE")]
    ratelimit_rules: Vec<PathBuf>,
    /// Counters held in memory; beyond it those that would expire first are given up.
    #[arg(long, env = "OUTRIGGER_RATELIMIT_MAX_KEYS", default_value_t = 500_000, value_name = "NUMBER")]
    ratelimit_max_keys: usize,
    /// Where proxies find the rate limit service, if not at outrigger-control.outrigger-system.svc:15012; one per replica.
    #[arg(long, env = "OUTRIGGER_RATELIMIT_SERVICE", value_delimiter = ',', value_name = "HOST:PORT")]
    ratelimit_service: Vec<LimitEndpoint>,
}

impl LimitArguments {
    /// Where proxies are told to ask.
    pub(super) fn endpoints(&self) -> Vec<LimitEndpoint> {
        self.ratelimit_service.clone()
    }

    /// The service, with its rules files read.
    pub(super) fn service(&self) -> anyhow::Result<Arc<RateLimits>> {
        anyhow::ensure!(!self.redis_timeout.is_zero(), "--redis-timeout must be at least 1ms");
        let store = match &self.redis {
            Some(url) => Store::Redis(Box::new(Redis::new(url, self.redis_ca.as_deref(), self.redis_timeout)?)),
            None => Store::Memory(Memory::new(self.ratelimit_max_keys)),
        };
        let domains = read(&self.ratelimit_rules)?;
        Ok(Arc::new(RateLimits::new(store, domains)))
    }

    /// Puts changed rules files into force until shutdown. What cannot be read leaves the last good rules there.
    pub(super) async fn watch(self, limits: Arc<RateLimits>, shutdown: CancellationToken) {
        let mut failed = String::new();
        // What was read last time: a file that is being written differs from one look to the next.
        let mut before = None;
        while !self.ratelimit_rules.is_empty() {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(POLL) => {}
            }
            let files = self.ratelimit_rules.clone();
            let Ok(domains) = tokio::task::spawn_blocking(move || read(&files)).await else { continue };
            match domains {
                Ok(domains) if **limits.files.load() != domains => {
                    if before.as_ref() == Some(&domains) {
                        tracing::info!(domains = domains.len(), "rate limit rules were read again");
                        limits.files.store(Arc::new(domains));
                        failed.clear();
                    } else {
                        before = Some(domains);
                    }
                }
                Ok(_) => failed.clear(),
                Err(error) => {
                    let error = format!("{error:#}");
                    if error != failed {
                        tracing::error!(error, "rate limit rules refused; the last good ones stay");
                    }
                    failed = error;
                }
            }
        }
    }
}

fn read(files: &[PathBuf]) -> anyhow::Result<Domains> {
    let mut all = Domains::new();
    for path in files {
        let shown = || format!("--ratelimit-rules {}", path.display());
        let size = std::fs::metadata(path).with_context(shown)?.len();
        anyhow::ensure!(size <= MAX_FILE, "{}: larger than {MAX_FILE} bytes", shown());
        let text = std::fs::read_to_string(path).with_context(shown)?;
        anyhow::ensure!(!text.is_empty(), "{}: is empty, which would lift all its limits", shown());
        let domains = file::parse(&text).map_err(|reason| anyhow::anyhow!(reason)).with_context(shown)?;
        for (domain, rules) in domains {
            anyhow::ensure!(!all.contains_key(&domain), "{}: domain `{domain}` is in another file too", shown());
            all.insert(domain, rules);
        }
    }
    Ok(all)
}
