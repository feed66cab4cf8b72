//! What is told of the called side.

use std::{
    fmt::{self, Write},
    net::SocketAddr,
};

use serde::Serialize;

use crate::{
    explain::report::line,
    model::{Mode, Object, Workload, World},
};

/// How one workload, at one port, receives the call.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Access {
    /// Namespace and name.
    pub workload: Option<String>,
    /// Endpoints of which all this is true.
    pub addresses: Vec<String>,
    pub mutual_tls: MutualTls,
    /// The identity it sees.
    pub caller: Option<String>,
    pub verdict: Verdict,
    pub reason: String,
    /// The policy and rule that decide.
    pub decided_by: Option<String>,
    /// Providers that are asked, and for which rule.
    pub asked: Vec<String>,
    pub audited: Vec<String>,
    pub dry_run: Vec<String>,
    /// Rules that hold there and do not match, with what the call lacks.
    pub unmet: Vec<RuleReport>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Allowed,
    /// If the providers that are asked agree.
    Asked,
    Denied,
    /// Before any request: no filter chain takes the connection.
    Closed,
    /// Nobody is there to decide.
    Unguarded,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MutualTls {
    #[serde(serialize_with = "mode")]
    pub mode: Mode,
    /// The PeerAuthentication that says so.
    pub decided_by: Option<String>,
    pub used: bool,
    /// What a policy that is only tried would make of the mode.
    #[serde(serialize_with = "some_mode")]
    pub tried: Option<Mode>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RuleReport {
    pub policy: String,
    pub action: String,
    pub lacks: Vec<String>,
}

fn mode_name(mode: Mode) -> &'static str {
    match mode {
        Mode::Unset | Mode::Permissive => "PERMISSIVE",
        Mode::Disable => "DISABLE",
        Mode::Strict => "STRICT",
    }
}

fn mode<S: serde::Serializer>(mode: &Mode, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(mode_name(*mode))
}

fn some_mode<S: serde::Serializer>(mode: &Option<Mode>, to: S) -> Result<S::Ok, S::Error> {
    mode.map(mode_name).serialize(to)
}

/// Namespace, name and document.
pub(super) fn place<T>(object: &Object<T>) -> String {
    let Object { meta, source, .. } = object;
    let file = source.file.file_name().unwrap_or_default().to_string_lossy();
    format!("{}/{} ({file} document {})", meta.namespace, meta.name, source.document)
}

/// A rule's name on the wire, told as the document it comes from.
pub(super) fn name(world: &World, wire: &str) -> String {
    let part = |key: &str| wire.split_once(&format!("{key}["))?.1.split_once(']').map(|(value, _)| value);
    let found = (|| {
        let (namespace, policy, rule) = (part("ns")?, part("policy")?, part("rule")?);
        let mut all = world.authorization_policies.iter();
        let object = all.find(|object| object.meta.namespace == namespace && object.meta.name == policy)?;
        Some(format!("{} rule {rule}", place(object)))
    })();
    found.unwrap_or_else(|| wire.to_owned())
}

impl Access {
    pub(super) fn new(at: SocketAddr, workload: &Workload, mutual_tls: MutualTls) -> Self {
        Self {
            workload: Some(format!("{}/{}", workload.namespace, workload.name)),
            addresses: vec![at.to_string()],
            mutual_tls,
            caller: None,
            verdict: Verdict::Allowed,
            reason: "no policy that allows or denies holds there".to_owned(),
            decided_by: None,
            asked: Vec::new(),
            audited: Vec::new(),
            dry_run: Vec::new(),
            unmet: Vec::new(),
        }
    }

    pub(super) fn unguarded(at: SocketAddr, workload: Option<&Workload>, reason: &str) -> Self {
        let mutual_tls = MutualTls { mode: Mode::Disable, decided_by: None, used: false, tried: None };
        let name = |w: &Workload| format!("{}/{}", w.namespace, w.name);
        Self {
            workload: workload.map(name),
            addresses: vec![at.to_string()],
            mutual_tls,
            caller: None,
            verdict: Verdict::Unguarded,
            reason: reason.to_owned(),
            decided_by: None,
            asked: Vec::new(),
            audited: Vec::new(),
            dry_run: Vec::new(),
            unmet: Vec::new(),
        }
    }

    pub(super) fn close(&mut self, reason: String) {
        (self.verdict, self.reason) = (Verdict::Closed, reason);
    }

    pub(super) fn deny(&mut self, reason: String, by: Option<String>) {
        (self.verdict, self.reason, self.decided_by) = (Verdict::Denied, reason, by);
    }

    pub(super) fn allow(&mut self, reason: String, by: String) {
        (self.reason, self.decided_by) = (reason, Some(by));
    }

    /// Whether all but the addresses is the same.
    pub(in crate::explain) fn is_like(&self, other: &Self) -> bool {
        Self { addresses: other.addresses.clone(), ..self.clone() } == *other
    }

    pub(in crate::explain) fn write(&self, f: &mut impl Write) -> fmt::Result {
        let who = self.workload.as_deref().unwrap_or("(unknown)");
        line(f, "received by", format_args!("{who} at {}", self.addresses.join(", ")))?;
        if self.verdict != Verdict::Unguarded {
            let by = self.mutual_tls.decided_by.as_deref();
            let by = by.map_or("by default".to_owned(), |by| format!("by PeerAuthentication {by}"));
            let used = if self.mutual_tls.used { "used" } else { "not used" };
            line(f, "mutual TLS", format_args!("{} {by}; {used}", mode_name(self.mutual_tls.mode)))?;
            line(f, "caller", self.caller.as_deref().unwrap_or("(no identity)"))?;
        }
        let verdict = match self.verdict {
            Verdict::Allowed => "allowed",
            Verdict::Asked => "allowed if the provider agrees",
            Verdict::Denied => "denied",
            Verdict::Closed => "connection closed",
            Verdict::Unguarded => "not checked",
        };
        line(f, "access", format_args!("{verdict}: {}", self.reason))?;
        for asked in &self.asked {
            line(f, "asked", asked)?;
        }
        for audited in &self.audited {
            line(f, "audited", audited)?;
        }
        for rule in &self.unmet {
            line(f, "no match", format_args!("{} {}: not {}", rule.action, rule.policy, rule.lacks.join("; not ")))?;
        }
        for text in &self.dry_run {
            line(f, "dry run", text)?;
        }
        Ok(())
    }
}
