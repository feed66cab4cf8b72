//! The load bench: contenders side by side on the same work, ratios inside one run, losing cases included.
//!
//! `mesh` measures, `soak` runs for an hour and judges, `report` prints and plots a result again, `compare` says what moved
//! between two results. This file owns the command line and nothing else.

mod account;
mod drive;
mod host;
mod html;
mod interrupt;
mod load;
mod options;
mod progress;
mod result;
mod rig;
mod scenario;
mod soak;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

use crate::result::Run;

/// Measures Outrigger and its peers as sidecars of a mesh.
#[derive(Debug, Parser)]
#[command(name = "outrigger-benches", version, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run scenarios in network namespaces (root)
    Mesh(options::MeshOptions),
    /// Mixed load through a mesh that changes all the time, for an hour: memory and descriptors flat, nothing lost (root)
    Soak(soak::SoakOptions),
    /// What moved between two results beyond the noise, by the ratios to a contender both have
    Compare {
        before: PathBuf,
        after: PathBuf,
        /// Contender whose figures divide the others'; absolute figures drift with the machine
        #[arg(long, default_value = "envoy")]
        reference: String,
        /// Smallest change worth a line, in per cent
        #[arg(long, default_value_t = 5.0)]
        threshold: f64,
    },
    /// Print a result's table again and write its HTML page beside it
    Report {
        result: PathBuf,
        #[arg(long, default_value = "envoy")]
        reference: String,
    },
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Mesh(options) => scenario::run(&options),
        Command::Soak(options) => soak::run(&options),
        Command::Compare { before, after, reference, threshold } => Run::load(&before)
            .and_then(|a| Ok((a, Run::load(&after)?)))
            .map(|(a, b)| print!("{}", result::compare::text(&a, &b, &reference, threshold / 100.0))),
        Command::Report { result, reference } => Run::load(&result).and_then(|run| {
            print!("{}", result::table::text(&run, &reference));
            let page = result.with_extension("html");
            std::fs::write(&page, html::page(&run, &reference))?;
            println!("{}", page.display());
            Ok(())
        }),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("outrigger-benches: {error:#}");
            ExitCode::FAILURE
        }
    }
}
