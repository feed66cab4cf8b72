//! The rules in the language of iptables-save and iptables-restore.
//!
//! Owns the spelling and the comparison form of one rule. It runs nothing and reads nothing.
//! Invariant: the spelling is what iptables-save prints back, so that installed and planned rules compare as text.

use std::fmt::Write;

use super::{ChainName, Entry, Family, Net, Owner, PROXY_MARK, Ports, Rule, RuleSet, Table, Verdict};

/// A rule of ours in a built-in chain: the way into one of our chains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuiltinRule {
    pub chain: &'static str,
    pub spec: String,
}

impl RuleSet {
    /// Our chains of one table with their rule specifications (what follows `-A CHAIN`).
    pub fn iptables_chains(&self, family: Family, table: Table) -> Vec<(ChainName, Vec<String>)> {
        let chains = self.chains().iter().filter(|chain| chain.name.table() == table && self.covers(family));
        chains
            .map(|chain| {
                let rules = chain.rules.iter().filter(|rule| rule.applies_to(family));
                (chain.name, rules.map(specification).collect())
            })
            .collect()
    }

    /// Our rules in the built-in chains of one table.
    pub fn iptables_hooks(&self, family: Family, table: Table) -> Vec<BuiltinRule> {
        let chains = self.chains().iter().filter(|chain| chain.name.table() == table && self.covers(family));
        chains
            .filter_map(|chain| {
                let condition = match chain.name.entry() {
                    Entry::Tcp => String::new(),
                    Entry::SynOfProxyEntry => {
                        format!("-m tcp --tcp-flags SYN,ACK SYN -m connmark --mark {PROXY_MARK:#x}/{PROXY_MARK:#x} ")
                    }
                };
                let spec = format!("-p tcp {condition}-j {}", chain.name.as_str());
                chain.name.entered_from().map(|builtin| BuiltinRule { chain: builtin, spec })
            })
            .collect()
    }

    /// Input for `iptables-restore --noflush` (or ip6tables-restore) in a namespace where none of it exists yet.
    pub fn iptables_text(&self, family: Family) -> String {
        let mut text = String::new();
        for table in Table::ALL {
            let chains = self.iptables_chains(family, table);
            if chains.is_empty() {
                continue;
            }
            let _ = writeln!(text, "*{}", table.as_str());
            for (name, _) in &chains {
                let _ = writeln!(text, ":{} - [0:0]", name.as_str());
            }
            for (name, rules) in &chains {
                for rule in rules {
                    let _ = writeln!(text, "-A {} {rule}", name.as_str());
                }
            }
            for hook in self.iptables_hooks(family, table) {
                let _ = writeln!(text, "-A {} {}", hook.chain, hook.spec);
            }
            text.push_str("COMMIT\n");
        }
        text
    }
}

fn specification(rule: &Rule) -> String {
    let mut parts: Vec<String> = Vec::new();
    let net = |flag: &str, net: &Net| format!("{}{flag} {}", if net.negated { "! " } else { "" }, net.cidr);
    parts.extend(rule.source.as_ref().map(|source| net("-s", source)));
    parts.extend(rule.destination.as_ref().map(|destination| net("-d", destination)));
    parts.extend(rule.input.as_ref().map(|name| format!("-i {name}")));
    parts.extend(rule.output.as_ref().map(|name| format!("-o {name}")));
    // The port matches, REDIRECT and REJECT insist on the protocol, though only TCP gets here.
    if rule.ports.is_some() || matches!(rule.verdict, Verdict::Redirect(_) | Verdict::Reset) {
        parts.push("-p tcp".into());
    }
    parts.extend(rule.ports.as_ref().map(port_match));
    parts.extend(rule.owner.map(|owner| match owner {
        Owner::Uid(id) => format!("-m owner --uid-owner {id}"),
        Owner::Gid(id) => format!("-m owner --gid-owner {id}"),
    }));
    if rule.invalid_state {
        parts.push("-m conntrack --ctstate INVALID".into());
    }
    parts.push(match rule.verdict {
        Verdict::Return => "-j RETURN".into(),
        Verdict::Drop => "-j DROP".into(),
        Verdict::Jump(chain) => format!("-j {}", chain.as_str()),
        Verdict::Redirect(port) => format!("-j REDIRECT --to-ports {port}"),
        Verdict::Reset => "-j REJECT --reject-with tcp-reset".into(),
        Verdict::MarkProxy => format!("-j CONNMARK --set-xmark {PROXY_MARK:#x}/{PROXY_MARK:#x}"),
    });
    parts.join(" ")
}

fn port_match(ports: &Ports) -> String {
    let list: Vec<String> = ports.ranges.iter().map(|range| range.render(':')).collect();
    let not = if ports.negated { "! " } else { "" };
    match list.as_slice() {
        [only] => format!("-m tcp {not}--dport {only}"),
        _ => format!("-m multiport {not}--dports {}", list.join(",")),
    }
}

/// A rule's conditions in a form that is equal for equal rules, whatever the version that printed them: versions
/// differ in the order of matches, in naming the match module, and in the suffix of host addresses.
pub fn canonical(specification: &str) -> String {
    let mut groups: Vec<String> = Vec::new();
    let mut negated = false;
    for word in specification.split_whitespace() {
        match word {
            "!" => negated = true,
            flag if flag.starts_with('-') && flag.len() > 1 => {
                groups.push(format!("{}{flag}", if std::mem::take(&mut negated) { "! " } else { "" }));
            }
            value => {
                let value = value.strip_suffix("/32").or_else(|| value.strip_suffix("/128")).unwrap_or(value);
                if let Some(group) = groups.last_mut() {
                    let _ = write!(group, " {value}");
                }
            }
        }
    }
    // `-m x` says nothing that x's own flags do not say.
    groups.retain(|group| !group.starts_with("-m "));
    groups.sort_unstable();
    groups.join(" ")
}
