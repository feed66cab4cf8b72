//! `outriggerctl validate DIR`: every problem on its own line, exit code 1 if there is one. What an operator
//! should know although it is no error goes to standard error.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;

use super::table::print;
use crate::model;

#[derive(Debug, Args)]
pub struct Arguments {
    /// Directory of YAML and JSON documents.
    dir: PathBuf,
    /// The trust domain of the control plane that is to serve them.
    #[arg(long, env = "OUTRIGGER_TRUST_DOMAIN", default_value = "cluster.local")]
    trust_domain: String,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let settings = model::Settings { trust_domain: arguments.trust_domain.clone(), ..model::Settings::default() };
    match model::load_with(&arguments.dir, settings) {
        Ok(world) => {
            for note in &world.notes {
                eprintln!("note: {note}");
            }
            print(&format!("{}: valid\n", arguments.dir.display()))?;
            Ok(ExitCode::SUCCESS)
        }
        Err(problems) => {
            print(&problems.iter().map(|problem| format!("{problem}\n")).collect::<String>())?;
            Ok(ExitCode::FAILURE)
        }
    }
}
