//! The program: parses the command line and hands everything to the library.

use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use outrigger_init::cli::{Cli, run};

fn main() -> ExitCode {
    ExitCode::from(run(Cli::parse(), Path::new("/proc/self/exe")))
}
