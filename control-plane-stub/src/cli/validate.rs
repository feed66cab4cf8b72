//! `outriggerctl validate DIR`: every problem on its own line, exit code 1 if there is one. What an operator
//! should know although it is no error goes to standard error.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;
use serde::Serialize;

use super::output::{Output, emit};
use crate::model;

#[derive(Debug, Args)]
pub struct Arguments {
    /// Directory of YAML and JSON documents.
    dir: PathBuf,
    /// The trust domain of the control plane that is to serve them.
    #[arg(long, env = "OUTRIGGER_TRUST_DOMAIN", default_value = "cluster.local")]
    trust_domain: String,
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
}

/// What a directory is.
#[derive(Debug, Serialize)]
struct Verdict {
    valid: bool,
    problems: Vec<String>,
    notes: Vec<String>,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let settings = model::Settings { trust_domain: arguments.trust_domain.clone(), ..model::Settings::default() };
    match model::load_with(&arguments.dir, settings) {
        Ok(world) => {
            let notes: Vec<String> = world.notes.iter().map(ToString::to_string).collect();
            if arguments.output == Output::Table {
                notes.iter().for_each(|note| eprintln!("note: {note}"));
            }
            let verdict = Verdict { valid: true, problems: Vec::new(), notes };
            emit(&verdict, arguments.output, || format!("{}: valid\n", arguments.dir.display()))?;
            Ok(ExitCode::SUCCESS)
        }
        Err(problems) => {
            let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
            let verdict = Verdict { valid: false, problems, notes: Vec::new() };
            emit(&verdict, arguments.output, || verdict.problems.iter().map(|p| format!("{p}\n")).collect())?;
            Ok(ExitCode::FAILURE)
        }
    }
}
