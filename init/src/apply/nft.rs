//! Putting rules into nftables: a table of our own, replaced as a whole in one transaction.
//!
//! Owns the commands to nft and the comparison of listings. Invariant: no other table is named in any input.

use std::path::Path;

use crate::backend::programs;
use crate::error::Error;
use crate::plan::{RuleSet, canonical_line};

/// Makes the table what the plan wants; `false` if it was already.
pub(super) fn install(nft: &Path, listing: Option<&str>, rules: &RuleSet) -> Result<bool, Error> {
    if listing.is_some_and(|listing| differences(listing, rules).is_empty()) {
        return Ok(false);
    }
    feed(nft, &rules.nft_script())?;
    Ok(true)
}

/// Removes the table.
pub(super) fn uninstall(nft: &Path) -> Result<(), Error> {
    feed(nft, &RuleSet::nft_removal())
}

/// Returns to a former listing, or to none, and to the error that made it necessary.
pub(super) fn undo_after(nft: &Path, listing: Option<&str>, error: Error) -> Error {
    match feed(nft, &format!("{}{}", RuleSet::nft_removal(), listing.unwrap_or_default())) {
        Ok(()) => error,
        Err(second) => Error::Rollback(Box::new(error), Box::new(second)),
    }
}

/// How the listing differs from the plan, in words; empty if it does not.
pub(super) fn differences(listing: &str, rules: &RuleSet) -> Vec<String> {
    let (own, wanted) = (chains(listing), chains(&rules.nft_table()));
    let mut found = Vec::new();
    for (name, rules) in &wanted {
        let Some((_, own_rules)) = own.iter().find(|(own_name, _)| own_name == name) else {
            found.push(format!("missing: {name}"));
            continue;
        };
        if own_rules == rules {
            continue;
        }
        let before = found.len();
        found.extend(rules.iter().filter(|rule| !own_rules.contains(rule)).map(|r| format!("missing in {name}: {r}")));
        found.extend(
            own_rules.iter().filter(|rule| !rules.contains(rule)).map(|r| format!("unexpected in {name}: {r}")),
        );
        if found.len() == before {
            found.push(format!("the rules of {name} are in another order or repeated"));
        }
    }
    let extra = own.iter().filter(|(name, _)| !wanted.iter().any(|(wanted_name, _)| wanted_name == name));
    found.extend(extra.map(|(name, _)| format!("unexpected: {name}")));
    found
}

/// Chain headers with their lines, in comparison form. Whatever else a table may hold counts as a header of its own.
fn chains(listing: &str) -> Vec<(String, Vec<String>)> {
    let mut found: Vec<(String, Vec<String>)> = Vec::new();
    for line in listing.lines().skip_while(|line| !line.starts_with("table ")).skip(1) {
        let line = canonical_line(line);
        match line.as_str() {
            "" | "}" => {}
            header if header.ends_with('{') => {
                found.push((header.trim_end_matches([' ', '{']).to_owned(), Vec::new()));
            }
            rule => match found.last_mut() {
                Some((_, rules)) => rules.push(rule.to_owned()),
                None => found.push((rule.to_owned(), Vec::new())),
            },
        }
    }
    found
}

fn feed(nft: &Path, script: &str) -> Result<(), Error> {
    programs::run(nft, &["-f", "-"], script).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::tests::rules;

    #[test]
    fn a_listing_equals_its_plan_and_names_what_is_wrong() {
        let plan = rules(&["--drop-invalid", "--exclude-outbound-ports", "22,3306"]);
        let listing = plan.nft_table();
        assert_eq!(differences(&listing, &plan), Vec::<String>::new());
        let other_version = listing.replace("priority -100", "priority dstnat").replace(" comment \"loop", " # \"loop");
        assert_eq!(differences(&listing.replace("priority -100", "priority dstnat"), &plan), Vec::<String>::new());
        assert!(!differences(&other_version, &plan).is_empty());
        let broken = listing.replacen("meta skuid 1337 return", "meta skuid 1338 return", 1);
        let found = differences(&broken, &plan);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].starts_with("missing in chain OUTRIGGER_OUTPUT: meta skuid 1337 return"));
        assert!(found[1].starts_with("unexpected in chain OUTRIGGER_OUTPUT: meta skuid 1338 return"));
        assert_eq!(differences("table inet outrigger {\n}\n", &plan).len(), 10);
    }
}
