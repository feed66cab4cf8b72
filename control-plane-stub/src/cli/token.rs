//! `outriggerctl token`: mints a bearer token with the key in the state directory.

use std::{
    path::PathBuf,
    process::ExitCode,
    time::{Duration, SystemTime},
};

use anyhow::{Context, ensure};
use clap::Args;
use serde_json::json;

use super::{
    output::{Output, emit},
    parse::duration,
};
use crate::{
    auth::{
        Identity,
        token::{MAX_TTL, Tokens},
    },
    state::StateDir,
};

#[derive(Debug, Args)]
pub struct Arguments {
    /// The control plane's state directory.
    #[arg(long, env = "OUTRIGGER_STATE", value_name = "DIR")]
    state: PathBuf,
    #[arg(long, env = "OUTRIGGER_NAMESPACE")]
    namespace: String,
    #[arg(long, env = "OUTRIGGER_SERVICE_ACCOUNT")]
    service_account: String,
    /// How long the token is good for.
    #[arg(long, env = "OUTRIGGER_TOKEN_TTL", default_value = "24h", value_parser = duration)]
    ttl: Duration,
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    ensure!(!arguments.ttl.is_zero() && arguments.ttl <= MAX_TTL, "--ttl must be more than 0 and at most 366d");
    // The token carries no trust domain: the control plane adds its own.
    let identity = Identity::new("cluster.local", &arguments.namespace, &arguments.service_account)?;
    let state = StateDir::open(&arguments.state).context("state directory")?;
    let tokens = Tokens::open(&state, identity.trust_domain()).context("token key")?;
    let token = tokens.mint(&identity, arguments.ttl, SystemTime::now());
    emit(&json!({"token": token}), arguments.output, || format!("{token}\n"))?;
    Ok(ExitCode::SUCCESS)
}
