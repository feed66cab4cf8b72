//! Proving by traffic that capture works, in both directions and both families.
//!
//! Owns the list of proofs and their order. What a proof expects comes from `plan`'s own evaluation of the rules, so a
//! deliberate exclusion is not reported as a defect. Invariant: what could not be tried is reported as skipped with
//! the reason, never as passed; and the network namespace is left as it was found.

mod hazards;
pub mod peer;
pub mod probe;
mod proofs;
mod report;
mod targets;
mod trap;

use std::path::Path;

pub use report::{Finding, Report, Status};

use crate::apply::{Lock, NO_PORT_GUARD, decide_ipv6, differences};
use crate::backend::{Backend, Survey};
use crate::error::Error;
use crate::host;
use crate::links::Links;
use crate::options::{Ipv6Mode, Options};
use crate::plan::{Family, LOOP_GUARD_V6, RuleSet};
use peer::Peer;
use proofs::Proofs;
use targets::Targets;

/// Checks the current network namespace against the options.
///
/// `helper` is the outrigger-init program: it is run with hidden subcommands to connect as other users.
pub fn check(options: &Options, helper: &Path) -> Result<Report, Error> {
    options.validate()?;
    host::require_net_admin("reading the installed rules")?;
    let _lock = Lock::take()?;
    let (v6, _) = decide_ipv6(options.ipv6)?;
    let survey = Survey::take()?;
    let choice = survey.choose(options.backend)?;
    let rules = RuleSet::build(options, v6);
    let mut report = Report { passed: true, backend: choice.backend.as_str().to_owned(), findings: Vec::new() };
    let guarded = check_rules(&mut report, &survey, choice.backend, &rules)?;
    let links = Links::open()?;
    let loopback_up = check_loopback(&mut report, &links)?;
    check_ipv6(&mut report, options, &links, v6)?;
    if loopback_up {
        let mut peer = Peer::start(helper, &links, v6);
        let targets = Targets { options, rules: &rules, links: &links, guarded };
        for family in Family::BOTH.into_iter().filter(|&family| rules.covers(family)) {
            Proofs::new(helper, &targets, family, &mut peer).run(&mut report)?;
        }
    }
    if !report.passed {
        name_foreign_rules(&mut report, &survey, choice.backend)?;
    }
    hazards::add(&mut report, options);
    Ok(report)
}

/// Whether the port guard is, or should be, among the installed rules.
fn check_rules(report: &mut Report, survey: &Survey, backend: Backend, rules: &RuleSet) -> Result<bool, Error> {
    if survey.ours().is_empty() {
        report.add("rules", None, Status::Fail, "no rules of outrigger are installed in this network namespace");
        return Ok(true);
    }
    let found = differences(survey, backend, rules)?;
    if found.is_empty() {
        report.add("rules", None, Status::Pass, "installed exactly as planned");
    } else if differences(survey, backend, &rules.without_port_guard())?.is_empty() {
        report.add("rules", None, Status::Warn, format!("installed {NO_PORT_GUARD}"));
        return Ok(false);
    }
    for (family, text) in found {
        let family = (backend != Backend::Nft).then_some(family);
        report.add("rules", family, Status::Fail, text);
    }
    Ok(true)
}

fn check_loopback(report: &mut Report, links: &Links) -> Result<bool, Error> {
    let lo = links.loopback()?;
    if lo.up {
        report.add("loopback-interface", None, Status::Pass, format!("{} is up", lo.name));
    } else {
        let detail = format!("{} is down: captured connections have no way to the proxy; bring it up", lo.name);
        report.add("loopback-interface", None, Status::Fail, detail);
    }
    Ok(lo.up)
}

fn check_ipv6(report: &mut Report, options: &Options, links: &Links, v6: bool) -> Result<(), Error> {
    let family = Some(Family::V6);
    if !v6 {
        let (status, detail) = match (options.ipv6, host::has_ipv6()) {
            (Ipv6Mode::Off, true) => (Status::Warn, "IPv6 TCP is left alone, as --ipv6 off says: it is unmeshed"),
            _ => (Status::Skip, "the kernel has no IPv6 in this namespace"),
        };
        report.add("ipv6", family, status, detail);
        return Ok(());
    }
    let lo = links.loopback()?;
    let present = links.addresses()?.iter().any(|address| address.link == lo.index && address.ip == LOOP_GUARD_V6);
    let (status, detail) = if present {
        (Status::Pass, format!("{LOOP_GUARD_V6} is on {}", lo.name))
    } else if host::ipv6_disabled_on(&lo.name) {
        (Status::Warn, format!("IPv6 is switched off by sysctl on {}, {LOOP_GUARD_V6} is not there", lo.name))
    } else {
        let detail = format!(
            "{LOOP_GUARD_V6} is not on {}: the proxy's inbound side cannot call the application over IPv6; run install",
            lo.name
        );
        (Status::Fail, detail)
    };
    report.add("loop-guard-address", family, status, detail);
    Ok(())
}

/// Whoever comes first in a built-in chain may decide before our rules are asked.
fn name_foreign_rules(report: &mut Report, survey: &Survey, backend: Backend) -> Result<(), Error> {
    let Some(tool) = survey.variant(backend) else { return Ok(()) };
    for family in Family::BOTH {
        let dump = tool.dump(family)?;
        let Some(nat) = dump.table("nat") else { continue };
        for chain in ["PREROUTING", "OUTPUT"] {
            let ahead: Vec<&str> = nat.ahead_of_ours(chain).collect();
            if !ahead.is_empty() && !nat.our_hooks().is_empty() {
                let detail = format!("these rules of others in nat {chain} decide before ours: {}", ahead.join("; "));
                report.add("foreign-rules", Some(family), Status::Warn, detail);
            }
        }
    }
    Ok(())
}
