//! The command lines of `outrigger-control` and `outriggerctl`. Every setting has a flag and an `OUTRIGGER_*`
//! variable; the flag wins. Knows how to talk to people; decides nothing.

mod asking;
mod client;
pub mod completions;
pub mod debug_header;
pub mod explain;
mod limits;
pub mod logs;
mod output;
mod parse;
pub mod proxies;
pub mod root;
pub mod serve;
pub mod status;
mod table;
pub mod tap;
pub mod token;
pub mod top;
pub mod translate;
pub mod validate;
pub mod wait;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Outrigger's control plane: xDS, identities, status.
#[derive(Debug, Parser)]
#[command(name = "outrigger-control", version, propagate_version = true)]
pub struct Control {
    #[command(subcommand)]
    command: ControlCommand,
}

#[derive(Debug, Subcommand)]
enum ControlCommand {
    /// Serve the configuration directory to proxies.
    Serve(serve::Arguments),
}

/// The operator's tool.
#[derive(Debug, Parser)]
#[command(name = "outriggerctl", version, propagate_version = true)]
pub struct Ctl {
    #[command(subcommand)]
    command: CtlCommand,
}

#[derive(Debug, Subcommand)]
enum CtlCommand {
    /// Check a configuration directory; every problem is printed.
    Validate(validate::Arguments),
    /// Print the xDS of one workload.
    Translate(translate::Arguments),
    /// Tell which way a described request would take, and why.
    Explain(Box<explain::Arguments>),
    /// Show what the control plane serves and how far each proxy is.
    Status(status::Arguments),
    /// List who is connected to the control plane, and how far each is.
    Proxies(proxies::Arguments),
    /// Show the requests of a proxy as they end.
    Tap(Box<tap::Arguments>),
    /// Look at, or set, the log levels of a proxy.
    Logs(logs::Arguments),
    /// Show where a proxy sends how much, what fails, and how long it takes.
    Top(top::Arguments),
    /// Make a header that tells a request what was decided on it.
    DebugHeader(debug_header::Arguments),
    /// Print what a shell needs to complete command lines.
    Completions(completions::Arguments),
    /// Wait until every connected proxy has applied what the directory holds.
    Wait(wait::Arguments),
    /// Mint a bearer token bound to a workload's identity.
    Token(token::Arguments),
    /// Show the roots of trust, or move the mesh to a new one without an outage.
    Root(root::Arguments),
}

/// Runs `outrigger-control`.
pub fn control() -> ExitCode {
    report(match Control::parse().command {
        ControlCommand::Serve(arguments) => serve::run(arguments),
    })
}

/// Runs `outriggerctl`.
pub fn ctl() -> ExitCode {
    report(match Ctl::parse().command {
        CtlCommand::Validate(arguments) => validate::run(&arguments),
        CtlCommand::Translate(arguments) => translate::run(arguments),
        CtlCommand::Explain(arguments) => explain::run(*arguments),
        CtlCommand::Status(arguments) => status::run(&arguments),
        CtlCommand::Proxies(arguments) => proxies::run(&arguments),
        CtlCommand::Tap(arguments) => tap::run(&arguments),
        CtlCommand::Logs(arguments) => logs::run(&arguments),
        CtlCommand::Top(arguments) => top::run(&arguments),
        CtlCommand::DebugHeader(arguments) => debug_header::run(&arguments),
        CtlCommand::Completions(arguments) => completions::run(&arguments),
        CtlCommand::Wait(arguments) => wait::run(&arguments),
        CtlCommand::Token(arguments) => token::run(&arguments),
        CtlCommand::Root(arguments) => root::run(&arguments),
    })
}

fn report(outcome: anyhow::Result<ExitCode>) -> ExitCode {
    outcome.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn command_lines_are_sound_and_every_serve_setting_has_a_variable() {
        super::Control::command().debug_assert();
        super::Ctl::command().debug_assert();
        let command = super::Control::command();
        let serve = command.find_subcommand("serve").unwrap();
        for argument in serve.get_arguments().filter(|a| !matches!(a.get_id().as_str(), "help" | "version")) {
            let variable = argument.get_env().unwrap_or_else(|| panic!("{} has no variable", argument.get_id()));
            assert!(variable.to_str().unwrap().starts_with("OUTRIGGER_"), "{variable:?}");
        }
    }
}
