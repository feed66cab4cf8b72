//! What can go wrong, in the words an operator needs: what, where, what to do.
//!
//! Owns the mapping of every failure to an exit code. It does not print.

use std::io;

/// Everything went well, or the capture was proven.
pub const EXIT_OK: u8 = 0;
/// The capture is broken or could not be changed; nothing was left half done.
pub const EXIT_BROKEN: u8 = 1;
/// The flags or variables are wrong.
pub const EXIT_USAGE: u8 = 2;
/// The environment lacks something: a program, a capability, a kernel feature.
pub const EXIT_ENVIRONMENT: u8 = 3;

/// A failure of any command.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0}")]
    Usage(String),

    #[error(
        "{needed_for} needs the capability {capability}; give it to this container (securityContext.capabilities.add) or run as root"
    )]
    Capability { capability: &'static str, needed_for: &'static str },

    #[error(
        "none of the programs {wanted} is in PATH ({path}); install the package iptables or nftables, or choose another --backend"
    )]
    ProgramMissing { wanted: String, path: String },

    #[error("no usable packet filter:\n  {reasons}")]
    Unusable { reasons: String },

    #[error("`{command}` failed ({status}): {stderr}{}", hint.map(|hint| format!("\n  hint: {hint}")).unwrap_or_default())]
    Program { command: String, status: String, stderr: String, hint: Option<&'static str> },

    #[error(
        "outrigger's rules are in more than one packet filter: {places}; run `outrigger-init uninstall`, then install again"
    )]
    Conflict { places: String },

    #[error(
        "outrigger's rules are installed with the backend {installed}, but {asked} was asked for; run `outrigger-init uninstall` first"
    )]
    OtherBackend { installed: &'static str, asked: &'static str },

    #[error(
        "IPv6 is present but cannot be intercepted: {reason}. It is not left open silently; repair that, or pass --ipv6 off to leave IPv6 TCP unmeshed knowingly"
    )]
    Ipv6Open { reason: String },

    #[error("--ipv6 on, but {reason}")]
    Ipv6Absent { reason: String },

    #[error("{0}, and the rollback failed as well: {1}; run `outrigger-init uninstall`")]
    Rollback(Box<Error>, Box<Error>),

    #[error("netlink: {what}: {reason}")]
    Netlink { what: String, reason: String },

    #[error("another outrigger-init is at work in this network namespace and did not finish within {0} s")]
    Locked(u64),

    #[error("{what}: {source}")]
    Io { what: String, source: io::Error },
}

impl Error {
    /// An input or output error with its place.
    pub fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }

    /// Whether a packet filter's program says that the kernel lacks something the rules use. iptables-legacy-restore
    /// names the line and no reason.
    pub fn lacks_kernel_support(&self) -> bool {
        let text = match self {
            Self::Program { stderr, .. } => stderr,
            Self::Ipv6Open { reason } => reason,
            _ => return false,
        };
        let unreasoned = text.split("line ").skip(1).any(|rest| {
            rest.trim_start_matches(|digit: char| digit.is_ascii_digit()).trim_start_matches(' ').starts_with("failed")
        });
        let reasons = [
            "No such file or directory",
            "not supported",
            "No chain/target/match by that name",
            "Table does not exist",
            "missing kernel module",
            "Couldn't load",
        ];
        unreasoned || reasons.iter().any(|reason| text.contains(reason))
    }

    /// The process's exit code.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => EXIT_USAGE,
            Self::Capability { .. }
            | Self::ProgramMissing { .. }
            | Self::Unusable { .. }
            | Self::Ipv6Open { .. }
            | Self::Ipv6Absent { .. } => EXIT_ENVIRONMENT,
            Self::Program { .. }
            | Self::Conflict { .. }
            | Self::OtherBackend { .. }
            | Self::Rollback(..)
            | Self::Netlink { .. }
            | Self::Locked(_)
            | Self::Io { .. } => EXIT_BROKEN,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_lacks_is_told_from_other_failures() {
        let program = |stderr: &str| Error::Program {
            command: "x".into(),
            status: "exit status: 1".into(),
            stderr: stderr.into(),
            hint: None,
        };
        for lacking in [
            "iptables-restore: line 31 failed",
            "iptables-restore v1.8.9 (nf_tables): line 9: RULE_APPEND failed (No such file or directory): rule in chain X",
            "/dev/stdin:9:2-9: Error: Could not process rule: No such file or directory",
            "Warning: Extension CONNMARK revision 0 not supported, missing kernel module?",
            "iptables-restore v1.8.9 (legacy): Couldn't load match `connmark':No such file or directory",
        ] {
            assert!(program(lacking).lacks_kernel_support(), "{lacking}");
            assert!(Error::Ipv6Open { reason: lacking.into() }.lacks_kernel_support(), "{lacking}");
        }
        for other in ["Permission denied (you must be root)", "line 3: half way", "it said nothing", ""] {
            assert!(!program(other).lacks_kernel_support(), "{other}");
        }
        assert!(!Error::Locked(30).lacks_kernel_support());
    }
}
