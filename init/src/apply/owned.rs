//! What is ours in one iptables table, and the restore input that leads from one state to another.
//!
//! Owns the difference between found and wanted. Pure: runs nothing. One function serves install, uninstall and
//! rollback. Invariant: the text it makes names only our chains and the rules that jump into them.

use std::fmt::Write;

use crate::backend::{TABLE_MARKER, TableDump};
use crate::plan::{Family, RuleSet, Table, canonical};

/// Our part of one table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owned {
    chains: Vec<(String, Vec<String>)>,
    hooks: Vec<Hook>,
    /// Whether the marker chain is there, which says that the table came with us.
    marked: bool,
}

/// A rule of a foreign chain that jumps into ours.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Hook {
    chain: String,
    /// Its place from 1; at the end if absent.
    position: Option<usize>,
    spec: String,
}

impl Owned {
    /// What the plan wants in this table.
    pub fn planned(rules: &RuleSet, family: Family, table: Table, marked: bool) -> Self {
        let chains: Vec<_> = rules
            .iptables_chains(family, table)
            .into_iter()
            .map(|(name, specs)| (name.as_str().to_owned(), specs))
            .collect();
        let hook =
            |hook: crate::plan::BuiltinRule| Hook { chain: hook.chain.to_owned(), position: None, spec: hook.spec };
        let hooks = rules.iptables_hooks(family, table).into_iter().map(hook).collect();
        // A table in which the plan has nothing is none of our business, and neither is its mark.
        let marked = marked && !chains.is_empty();
        Self { chains, hooks, marked }
    }

    /// What is there.
    pub fn found(table: Option<&TableDump>) -> Self {
        let Some(table) = table else { return Self::default() };
        let chains = table
            .our_chains()
            .map(|name| (name.to_owned(), table.rules_of(name).map(str::to_owned).collect()))
            .collect();
        let hooks = table
            .our_hooks()
            .into_iter()
            .map(|(chain, position, spec)| Hook {
                chain: chain.to_owned(),
                position: Some(position),
                spec: spec.to_owned(),
            })
            .collect();
        Self { chains, hooks, marked: table.is_marked() }
    }

    /// Restore input that makes this state the wanted one; `None` if it is already.
    pub fn transition(&self, wanted: &Self, table: Table) -> Option<String> {
        let same_hooks = comparable(&self.hooks) == comparable(&wanted.hooks);
        if self.marked == wanted.marked && same_hooks && self.differences(wanted).is_empty() {
            return None;
        }
        let mut text = format!("*{}\n", table.as_str());
        if wanted.marked && !self.marked {
            let _ = writeln!(text, ":{TABLE_MARKER} - [0:0]");
        }
        // Declaring a chain creates or, with --noflush, empties it: nothing else is touched.
        for (name, _) in &wanted.chains {
            let _ = writeln!(text, ":{name} - [0:0]");
        }
        if !same_hooks {
            for hook in &self.hooks {
                let _ = writeln!(text, "-D {} {}", hook.chain, hook.spec);
            }
        }
        let stale: Vec<&String> = self.chains.iter().map(|(name, _)| name).filter(|name| !wanted.has(name)).collect();
        for name in &stale {
            let _ = writeln!(text, "-F {name}");
        }
        for (name, rules) in &wanted.chains {
            for rule in rules {
                let _ = writeln!(text, "-A {name} {rule}");
            }
        }
        if !same_hooks {
            for hook in &wanted.hooks {
                let _ = match hook.position {
                    Some(position) => writeln!(text, "-I {} {position} {}", hook.chain, hook.spec),
                    None => writeln!(text, "-A {} {}", hook.chain, hook.spec),
                };
            }
        }
        for name in &stale {
            let _ = writeln!(text, "-X {name}");
        }
        if self.marked && !wanted.marked {
            let _ = writeln!(text, "-X {TABLE_MARKER}");
        }
        text.push_str("COMMIT\n");
        Some(text)
    }

    /// How this state differs from the wanted one, in words; empty if it does not (marks aside).
    pub fn differences(&self, wanted: &Self) -> Vec<String> {
        let mut found = Vec::new();
        for hook in &wanted.hooks {
            let present = self.hooks.iter().filter(|own| same(own, hook)).count();
            match present {
                0 => found.push(format!("missing: -A {} {}", hook.chain, hook.spec)),
                1 => {}
                more => found.push(format!("{more} times instead of once: -A {} {}", hook.chain, hook.spec)),
            }
        }
        for hook in self.hooks.iter().filter(|own| !wanted.hooks.iter().any(|hook| same(own, hook))) {
            found.push(format!("unexpected: -A {} {}", hook.chain, hook.spec));
        }
        for (name, rules) in &wanted.chains {
            match self.chains.iter().find(|(own, _)| own == name) {
                None => found.push(format!("missing: chain {name}")),
                Some((_, own)) => found.extend(sequence_differences(name, own, rules)),
            }
        }
        for (name, _) in self.chains.iter().filter(|(name, _)| !wanted.has(name)) {
            found.push(format!("unexpected: chain {name}"));
        }
        found
    }

    fn has(&self, name: &str) -> bool {
        self.chains.iter().any(|(own, _)| own == name)
    }
}

fn same(one: &Hook, other: &Hook) -> bool {
    one.chain == other.chain && canonical(&one.spec) == canonical(&other.spec)
}

fn comparable(hooks: &[Hook]) -> Vec<(&str, String)> {
    let mut all: Vec<_> = hooks.iter().map(|hook| (hook.chain.as_str(), canonical(&hook.spec))).collect();
    all.sort_unstable();
    all
}

fn sequence_differences(chain: &str, own: &[String], wanted: &[String]) -> Vec<String> {
    let own_forms: Vec<String> = own.iter().map(|rule| canonical(rule)).collect();
    let wanted_forms: Vec<String> = wanted.iter().map(|rule| canonical(rule)).collect();
    if own_forms == wanted_forms {
        return Vec::new();
    }
    let mut found = Vec::new();
    for (form, rule) in wanted_forms.iter().zip(wanted).filter(|(form, _)| !own_forms.contains(form)) {
        debug_assert!(!form.is_empty());
        found.push(format!("missing: -A {chain} {rule}"));
    }
    for (_, rule) in own_forms.iter().zip(own).filter(|(form, _)| !wanted_forms.contains(form)) {
        found.push(format!("unexpected: -A {chain} {rule}"));
    }
    if found.is_empty() {
        found.push(format!("the rules of {chain} are in another order or repeated"));
    }
    found
}
