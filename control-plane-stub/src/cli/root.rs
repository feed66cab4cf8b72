//! `outriggerctl root`: the roots in the state directory, and the three steps from one to the next.

use std::{path::PathBuf, process::ExitCode, time::SystemTime};

use anyhow::Context;
use clap::{Args, Subcommand};
use serde_json::json;

use super::output::{Output, emit};
use crate::{
    auth::Identity,
    ca::roots::{Rotation, Stage},
    state::StateDir,
};

#[derive(Debug, Args)]
pub struct Arguments {
    /// The control plane's state directory.
    #[arg(long, env = "OUTRIGGER_STATE", value_name = "DIR", global = true, default_value = "state")]
    state: PathBuf,
    #[arg(long, short, value_enum, default_value_t, global = true)]
    output: Output,
    #[command(subcommand)]
    step: Step,
}

/// After each step the control plane is to be restarted, and `root-cert.pem` to be given to the proxies again.
#[derive(Debug, Subcommand)]
enum Step {
    /// List the trusted roots and say what comes next.
    Show,
    /// Make the next root and have it trusted; the present one goes on signing.
    Prepare {
        /// Shown as the root's organisation.
        #[arg(long, env = "OUTRIGGER_TRUST_DOMAIN", default_value = "cluster.local")]
        trust_domain: String,
    },
    /// Let the next root sign, once every proxy trusts it; the former one goes on being trusted.
    Switch,
    /// End the trust in the former root, once every certificate of it was replaced (--cert-ttl later at the latest).
    Finish,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let state = StateDir::open(&arguments.state).context("state directory")?;
    let rotation = Rotation::open(&state).context("roots of trust")?;
    match &arguments.step {
        Step::Show => {}
        Step::Prepare { trust_domain } => {
            Identity::new(trust_domain, "default", "default")?;
            rotation.prepare(trust_domain)?;
        }
        Step::Switch => rotation.switch()?,
        Step::Finish => rotation.finish()?,
    }
    let now = Rotation::open(&state).context("roots of trust")?;
    let mut text = String::new();
    let mut roots = Vec::new();
    for root in now.roots() {
        let days = root.not_after.duration_since(SystemTime::now()).unwrap_or_default().as_secs() / 86_400;
        let role = if root.signs { "signs" } else { "trusted" };
        roots.push(json!({"role": role, "expires_in_days": days, "serial": root.serial}));
        text += &format!("{role:8} expires in {days} days  serial {}\n", root.serial);
    }
    let stage = now.stage()?;
    let name = match stage {
        Stage::Steady => "steady",
        Stage::Prepared => "prepared",
        Stage::Switched => "switched",
    };
    text += match stage {
        Stage::Steady => "no rotation under way\n",
        Stage::Prepared => "next: restart the control plane, distribute root-cert.pem, then `root switch`\n",
        Stage::Switched => {
            "next: restart the control plane, wait until every certificate of the former root was replaced, then \
             `root finish`\n"
        }
    };
    emit(&json!({"roots": roots, "stage": name}), arguments.output, || text)?;
    Ok(ExitCode::SUCCESS)
}
