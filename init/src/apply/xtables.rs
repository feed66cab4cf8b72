//! Putting rules into iptables and ip6tables, both families or none.
//!
//! Owns the sequence of transactions and its rollback. It does not know what the rules mean.
//! Invariant: after a failure our part of every table is what it was before.

use std::path::Path;

use super::owned::Owned;
use crate::backend::{Backend, Dump, Survey, Xtables, programs};
use crate::error::Error;
use crate::plan::{Family, RuleSet, Table};

/// Makes our part what the plan wants; `false` if it was already. The snapshot leads back.
pub(super) fn install(survey: &Survey, tool: &Xtables, rules: &RuleSet) -> Result<(bool, Snapshot), Error> {
    let before = Snapshot::take(tool)?;
    let mut changed = false;
    for family in Family::BOTH {
        let dump = before.of(family);
        let text = restore_text(dump, |table| Owned::planned(rules, family, table, marks(tool, dump, table)));
        if text.is_empty() {
            continue;
        }
        changed = true;
        if let Err(error) = tool.restore(family, &text) {
            let error = match family {
                Family::V4 => error,
                Family::V6 => Error::Ipv6Open { reason: error.to_string() },
            };
            return Err(before.undo_after(survey, tool, error));
        }
    }
    Ok((changed, before))
}

/// Removes our part of every table; `false` if there was none.
pub(super) fn uninstall(survey: &Survey, tool: &Xtables) -> Result<bool, Error> {
    let before = Snapshot::take(tool)?;
    let mut changed = false;
    for family in Family::BOTH {
        let text = restore_text(before.of(family), |_| Owned::default());
        if text.is_empty() {
            continue;
        }
        changed = true;
        if let Err(error) = tool.restore(family, &text) {
            return Err(before.undo_after(survey, tool, error));
        }
        for table in Table::ALL {
            if before.of(family).table(table.as_str()).is_some_and(|found| found.is_marked()) {
                drop_if_blank(survey, tool, family, table)?;
            }
        }
    }
    Ok(changed)
}

/// How what is installed differs from the plan, in words; empty if it does not.
pub(super) fn differences(tool: &Xtables, rules: &RuleSet) -> Result<Vec<(Family, String)>, Error> {
    let mut found = Vec::new();
    for family in Family::BOTH {
        let dump = tool.dump(family)?;
        for table in Table::ALL {
            let wanted = Owned::planned(rules, family, table, false);
            let owned = Owned::found(dump.table(table.as_str()));
            let texts = owned.differences(&wanted);
            found.extend(texts.into_iter().map(|text| (family, format!("table {}: {text}", table.as_str()))));
        }
    }
    Ok(found)
}

/// The state to return to.
pub(super) struct Snapshot {
    dumps: [Dump; 2],
}

impl Snapshot {
    fn take(tool: &Xtables) -> Result<Self, Error> {
        Ok(Self { dumps: [tool.dump(Family::V4)?, tool.dump(Family::V6)?] })
    }

    fn of(&self, family: Family) -> &Dump {
        &self.dumps[family as usize]
    }

    /// Returns to this state and to the error that made it necessary.
    pub(super) fn undo_after(&self, survey: &Survey, tool: &Xtables, error: Error) -> Error {
        match self.undo(survey, tool) {
            Ok(()) => error,
            Err(second) => Error::Rollback(Box::new(error), Box::new(second)),
        }
    }

    fn undo(&self, survey: &Survey, tool: &Xtables) -> Result<(), Error> {
        for family in Family::BOTH {
            let now = tool.dump(family)?;
            let before = self.of(family);
            let text = restore_text(&now, |table| Owned::found(before.table(table.as_str())));
            if !text.is_empty() {
                tool.restore(family, &text)?;
            }
            for table in Table::ALL {
                if before.table(table.as_str()).is_none() && now.table(table.as_str()).is_some() {
                    drop_if_blank(survey, tool, family, table)?;
                }
            }
        }
        Ok(())
    }
}

fn restore_text(now: &Dump, wanted: impl Fn(Table) -> Owned) -> String {
    let transition = |table: Table| Owned::found(now.table(table.as_str())).transition(&wanted(table), table);
    Table::ALL.into_iter().filter_map(transition).collect()
}

/// Only nf_tables lets go of a table; a legacy one stays as long as its kernel module.
fn marks(tool: &Xtables, dump: &Dump, table: Table) -> bool {
    tool.backend == Backend::IptablesNft && dump.table(table.as_str()).is_none_or(|found| found.is_marked())
}

/// Removes a table that came with us, unless somebody has put something into it since.
fn drop_if_blank(survey: &Survey, tool: &Xtables, family: Family, table: Table) -> Result<(), Error> {
    let (Backend::IptablesNft, Some(nft)) = (tool.backend, survey.nft()) else { return Ok(()) };
    if !tool.dump(family)?.table(table.as_str()).is_some_and(|found| found.is_blank()) {
        return Ok(());
    }
    remove_table(nft, family, table)
}

fn remove_table(nft: &Path, family: Family, table: Table) -> Result<(), Error> {
    let family = if family == Family::V4 { "ip" } else { "ip6" };
    // An empty chain of the table may be all that is left; a rule in it would make this fail, as it should.
    programs::run(nft, &["delete", "table", family, table.as_str()], "").map(drop)
}
