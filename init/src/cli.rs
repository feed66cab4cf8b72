//! The command line: subcommands, output forms, exit codes.
//!
//! Owns the mapping of commands to the library and what is printed where: results on standard output, notices and
//! errors on standard error. Invariant: every way out of the program has a documented exit code.

use std::net::SocketAddr;
use std::path::Path;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::apply;
use crate::backend::{Backend, Survey};
use crate::error::{EXIT_BROKEN, EXIT_ENVIRONMENT, EXIT_OK, Error};
use crate::host;
use crate::options::{BackendChoice, Ipv6Mode, Options};
use crate::plan::{Family, LOOP_GUARD_V6, RuleSet};
use crate::verify;

const EXIT_CODES: &str = "\
Exit codes:
  0  done; check: the capture is proven
  1  check: the capture is broken; other commands: failed, nothing was left half done
  2  wrong flags or variables
  3  the environment lacks a program, a capability or a kernel feature

Every command acts on the network namespace it runs in.";

/// Redirects a Pod's TCP connections to its proxy, and proves it.
#[derive(Debug, Parser)]
#[command(name = "outrigger-init", version, about, after_help = EXIT_CODES)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Install the rules; twice is the same as once
    Install(Options),
    /// Remove everything install added, from whatever packet filter it is in
    Uninstall,
    /// Print the exact rules; needs no privilege
    Print(Options),
    /// Prove by traffic that capture works; give it the same settings as install
    Check(Check),
    #[command(hide = true)]
    Probe(Probe),
    #[command(hide = true)]
    Peer,
}

#[derive(Debug, Args)]
struct Check {
    #[command(flatten)]
    options: Options,

    /// Form of the report
    #[arg(long, env = "OUTRIGGER_OUTPUT", default_value = "table", value_enum)]
    output: OutputForm,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum OutputForm {
    Table,
    Json,
}

#[derive(Debug, Args)]
struct Probe {
    #[arg(long)]
    to: SocketAddr,
    #[arg(long)]
    from: Option<SocketAddr>,
    #[arg(long)]
    abandon: bool,
}

/// Runs the program and returns its exit code. `helper` is the program itself, to be run as another user.
pub fn run(cli: Cli, helper: &Path) -> u8 {
    let result = match cli.command {
        Command::Install(options) => install(&options),
        Command::Uninstall => uninstall(),
        Command::Print(options) => print(&options),
        Command::Check(check) => self::check(&check, helper),
        Command::Probe(probe) => {
            let Probe { to, from, abandon } = probe;
            println!("{}", verify::probe::attempt(verify::probe::Attempt { to, from, abandon }).line());
            Ok(EXIT_OK)
        }
        Command::Peer => Ok(verify::peer::run().map_or(EXIT_ENVIRONMENT, |()| EXIT_OK)),
    };
    result.unwrap_or_else(|error| {
        eprintln!("outrigger-init: {error}");
        error.exit_code()
    })
}

fn install(options: &Options) -> Result<u8, Error> {
    let installed = apply::install(options)?;
    for notice in &installed.notices {
        eprintln!("outrigger-init: {notice}");
    }
    let families = if installed.v6 { "IPv4 and IPv6" } else { "IPv4" };
    let choice = &installed.choice;
    let (backend, why) = (choice.backend.as_str(), &choice.why);
    if installed.changed {
        println!("installed for {families} with {backend} ({why})");
    } else {
        println!("already installed for {families} with {backend} ({why}); nothing changed");
    }
    Ok(EXIT_OK)
}

fn uninstall() -> Result<u8, Error> {
    let removed = apply::uninstall()?;
    if removed.backends.is_empty() && !removed.guard_address {
        println!("nothing of outrigger is installed; nothing changed");
        return Ok(EXIT_OK);
    }
    let mut parts: Vec<String> =
        removed.backends.iter().map(|backend| format!("rules from {}", backend.as_str())).collect();
    if removed.guard_address {
        parts.push(format!("address {LOOP_GUARD_V6} from loopback"));
    }
    println!("removed {}", parts.join(", "));
    Ok(EXIT_OK)
}

fn print(options: &Options) -> Result<u8, Error> {
    options.validate()?;
    for notice in options.notices() {
        eprintln!("outrigger-init: {notice}");
    }
    let v6 = match options.ipv6 {
        Ipv6Mode::On => true,
        Ipv6Mode::Off => false,
        Ipv6Mode::Auto => host::has_ipv6(),
    };
    let rules = RuleSet::build(options, v6);
    let chosen = match options.backend {
        BackendChoice::Nft => Some(Backend::Nft),
        BackendChoice::Iptables => Some(Backend::IptablesNft),
        BackendChoice::IptablesLegacy => Some(Backend::IptablesLegacy),
        BackendChoice::Auto if host::has_net_admin() => Some(Survey::take()?.choose(BackendChoice::Auto)?.backend),
        BackendChoice::Auto => {
            println!("# Without CAP_NET_ADMIN the tables in use cannot be seen: both forms follow, install uses one.");
            None
        }
    };
    if chosen != Some(Backend::Nft) {
        print_iptables(&rules);
    }
    if matches!(chosen, None | Some(Backend::Nft)) {
        println!("# nft -f - (one transaction)");
        print!("{}", rules.nft_script());
    }
    if v6 {
        println!("# address {LOOP_GUARD_V6}/128 on the loopback interface");
    }
    Ok(EXIT_OK)
}

fn print_iptables(rules: &RuleSet) {
    for (family, program) in [(Family::V4, "iptables-restore"), (Family::V6, "ip6tables-restore")] {
        if rules.covers(family) {
            println!("# {program} --noflush ({})", family.as_str());
            print!("{}", rules.iptables_text(family));
        }
    }
}

fn check(check: &Check, helper: &Path) -> Result<u8, Error> {
    let report = verify::check(&check.options, helper)?;
    match check.output {
        OutputForm::Table => print!("{}", report.table()),
        OutputForm::Json => println!("{}", report.json()),
    }
    Ok(if report.passed { EXIT_OK } else { EXIT_BROKEN })
}
