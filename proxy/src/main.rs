//! `outrigger-proxy`: see `--help`. Exit codes: 0 after an orderly end, 1 for a failure at run time, 2 for a usage
//! error, 64 for a configuration that cannot be used.

use std::process::ExitCode;

use clap::Parser;

#[global_allocator]
static ALLOCATOR: outrigger_proxy::app::Allocator = outrigger_proxy::app::Allocator;

fn main() -> ExitCode {
    outrigger_proxy::app::main(outrigger_proxy::settings::Settings::parse())
}
