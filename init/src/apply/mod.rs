//! Making the kernel's rules what the plan wants, and taking them away again.
//!
//! Owns idempotence (compare, then change), atomicity (all of it or nothing) and reversal. It asks `backend` where and
//! `plan` what. Invariant: foreign rules, chains and policies are never named in anything it feeds to the kernel.

mod guard;
mod lock;
mod nft;
mod owned;
mod xtables;

#[cfg(test)]
mod tests;

use std::path::Path;

pub(crate) use lock::Lock;
pub use owned::Owned;

use crate::backend::{Backend, Choice, Survey, Xtables};
use crate::error::Error;
use crate::host;
use crate::options::{Ipv6Mode, Options};
use crate::plan::{Family, RuleSet};

/// What it means where the kernel lacks a part that only the port guard uses.
pub const NO_PORT_GUARD: &str = "without the port guard (connmark, filter table, REJECT): where the proxy's dial to a \
    destination got no answer, a connection of the application from the same source port can leave uncaptured";

/// What `install` did.
#[derive(Clone, Debug)]
pub struct Installed {
    pub choice: Choice,
    /// Whether anything had to be changed.
    pub changed: bool,
    /// Whether IPv6 is intercepted.
    pub v6: bool,
    /// What the operator should know.
    pub notices: Vec<String>,
}

/// What `uninstall` did.
#[derive(Clone, Debug, Default)]
pub struct Removed {
    pub backends: Vec<Backend>,
    pub guard_address: bool,
}

/// Whether IPv6 will be intercepted, and what is to be said about it. Refuses to leave it open silently.
pub fn decide_ipv6(mode: Ipv6Mode) -> Result<(bool, Option<String>), Error> {
    match (mode, host::has_ipv6()) {
        (Ipv6Mode::Off, true) => Ok((
            false,
            Some("WARNING: --ipv6 off: IPv6 TCP is NOT intercepted, it enters and leaves this Pod unmeshed".into()),
        )),
        (Ipv6Mode::Off, false) => Ok((false, None)),
        (Ipv6Mode::Auto | Ipv6Mode::On, true) => Ok((true, None)),
        (Ipv6Mode::Auto, false) => Ok((false, Some("the kernel has no IPv6: only IPv4 is intercepted".into()))),
        (Ipv6Mode::On, false) => Err(Error::Ipv6Absent { reason: "the kernel has no IPv6 in this namespace".into() }),
    }
}

/// Installs what the options ask for, in the current network namespace. Twice is the same as once.
pub fn install(options: &Options) -> Result<Installed, Error> {
    options.validate()?;
    host::require_net_admin("installing rules")?;
    let _lock = Lock::take()?;
    let mut notices = options.notices();
    let (v6, notice) = decide_ipv6(options.ipv6)?;
    notices.extend(notice);
    let survey = Survey::take()?;
    let choice = survey.choose(options.backend)?;
    notices.extend(survey.unusable().iter().map(|reason| format!("not usable here: {reason}")));
    let put = |rules: &RuleSet| match choice.backend {
        Backend::Nft => install_nft(&survey, rules),
        Backend::IptablesNft | Backend::IptablesLegacy => install_xtables(&survey, choice.backend, rules),
    };
    let mut rules = RuleSet::build(options, v6);
    let (mut changed, undo) = match put(&rules) {
        Err(error) if error.lacks_kernel_support() => {
            rules = rules.without_port_guard();
            let done = put(&rules)?;
            notices.push(format!("WARNING: {}. The kernel's answer: {error}", NO_PORT_GUARD));
            done
        }
        result => result?,
    };
    let guarded = if v6 { guard::ensure() } else { guard::remove(false).map(|removed| (removed, None)) };
    match guarded {
        Ok((added, notice)) => {
            changed |= added;
            notices.extend(notice);
        }
        Err(error) => return Err(undo(error)),
    }
    let left = differences(&survey, choice.backend, &rules)?;
    if let Some((_, first)) = left.first() {
        notices.push(format!("installed, but the kernel shows it differently ({} times; {first})", left.len()));
    }
    Ok(Installed { choice, changed, v6, notices })
}

type Undo<'a> = Box<dyn FnOnce(Error) -> Error + 'a>;

fn install_nft<'a>(survey: &'a Survey, rules: &RuleSet) -> Result<(bool, Undo<'a>), Error> {
    let nft = nft_program(survey)?;
    let listing = survey.nft_listing()?;
    let changed = nft::install(nft, listing.as_deref(), rules)?;
    let undo = move |error| if changed { nft::undo_after(nft, listing.as_deref(), error) } else { error };
    Ok((changed, Box::new(undo)))
}

fn install_xtables<'a>(survey: &'a Survey, backend: Backend, rules: &RuleSet) -> Result<(bool, Undo<'a>), Error> {
    let tool = xtables_programs(survey, backend)?;
    if rules.covers(Family::V6) && !tool.has(Family::V6) {
        let mut reason = format!("{} not found or not usable", tool.missing(Family::V6));
        for unusable in survey.unusable() {
            reason.push_str("; ");
            reason.push_str(unusable);
        }
        return Err(Error::Ipv6Open { reason });
    }
    let (changed, before) = xtables::install(survey, tool, rules)?;
    Ok((changed, Box::new(move |error| before.undo_after(survey, tool, error))))
}

/// Removes everything of ours in the current network namespace, in whatever packet filter it is.
pub fn uninstall() -> Result<Removed, Error> {
    host::require_net_admin("removing rules")?;
    let _lock = Lock::take()?;
    let survey = Survey::take()?;
    let mut removed = Removed::default();
    for tool in survey.variants() {
        if xtables::uninstall(&survey, tool)? {
            removed.backends.push(tool.backend);
        }
    }
    if survey.ours().contains(&Backend::Nft) {
        nft::uninstall(nft_program(&survey)?)?;
        removed.backends.push(Backend::Nft);
    }
    removed.guard_address = guard::remove(!removed.backends.is_empty())?;
    Ok(removed)
}

/// How the installed rules differ from the plan, in words; empty if they do not.
pub fn differences(survey: &Survey, backend: Backend, rules: &RuleSet) -> Result<Vec<(Family, String)>, Error> {
    match backend {
        Backend::Nft => Ok(match survey.nft_listing()? {
            None => vec![(Family::V4, "table inet outrigger: missing".to_owned())],
            Some(listing) => {
                let found = nft::differences(&listing, rules);
                found.into_iter().map(|text| (Family::V4, format!("table inet outrigger: {text}"))).collect()
            }
        }),
        Backend::IptablesNft | Backend::IptablesLegacy => {
            xtables::differences(xtables_programs(survey, backend)?, rules)
        }
    }
}

fn nft_program(survey: &Survey) -> Result<&Path, Error> {
    survey
        .nft()
        .map(std::path::PathBuf::as_path)
        .ok_or_else(|| Error::ProgramMissing { wanted: "nft".into(), path: crate::backend::programs::search_path() })
}

fn xtables_programs(survey: &Survey, backend: Backend) -> Result<&Xtables, Error> {
    survey.variant(backend).ok_or_else(|| Error::ProgramMissing {
        wanted: format!("iptables-save and iptables-restore for {}", backend.as_str()),
        path: crate::backend::programs::search_path(),
    })
}
