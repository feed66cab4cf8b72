//! The last good configuration on disk.

use std::{path::PathBuf, time::Duration};

use clap::Parser;

/// Where and how long the last good configuration is kept.
#[derive(Clone, Debug, Default, Parser)]
pub struct StateSettings {
    /// Keep the last good configuration in this folder (without keys), and start with it when the control plane does not
    /// deliver. Nothing is kept without it.
    #[arg(long, env = "OUTRIGGER_STATE_DIR", value_name = "DIR", help_heading = "Last good configuration")]
    pub state_dir: Option<PathBuf>,
    /// A kept configuration that no control plane confirmed for so long is not used, in seconds.
    #[arg(
        long,
        env = "OUTRIGGER_STATE_MAX_AGE_S",
        default_value_t = 86_400,
        value_name = "SECONDS",
        help_heading = "Last good configuration"
    )]
    pub state_max_age_s: u64,
    /// How long the control plane has to deliver before the kept configuration is used, in seconds; at once when its
    /// stream fails.
    #[arg(
        long,
        env = "OUTRIGGER_STATE_PATIENCE_S",
        default_value_t = 5,
        value_name = "SECONDS",
        help_heading = "Last good configuration"
    )]
    pub state_patience_s: u64,
}

impl StateSettings {
    pub fn max_age(&self) -> Duration {
        Duration::from_secs(self.state_max_age_s)
    }

    pub fn patience(&self) -> Duration {
        Duration::from_secs(self.state_patience_s)
    }
}
