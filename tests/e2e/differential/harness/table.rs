//! The table of the differences that stay: made from the cases, so that it cannot say anything else.

use std::fmt::Write;

use super::case::Group;

pub(crate) fn table(groups: &[Group]) -> String {
    let mut text = String::from(
        "# Differences to Envoy\n\n\
         Generated from `cases/`; rewritten with `OUTRIGGER_UPDATE_DIFFERENCES=1 cargo test -p outrigger-tests --test differential table`.\n\
         Everything else that the cases observe is equal. \"Lines\" is what a differing line of the observation contains.\n\n",
    );
    let cases = || groups.iter().flat_map(|g| &g.cases);
    let waiting = cases().filter(|c| c.pending.is_some()).count();
    let _ = writeln!(text, "{} cases run, {waiting} wait for a capability.\n", cases().count() - waiting);
    text.push_str("| group | case | lines | why |\n|---|---|---|---|\n");
    for group in groups {
        for case in &group.cases {
            for d in case.differences.iter().filter(|d| d.always) {
                let _ = writeln!(
                    text,
                    "| {} | {} | `{}` | {} |",
                    group.name,
                    case.name,
                    d.lines.replace(" | ", "` or `"),
                    d.reason
                );
            }
        }
    }
    let mut waiting = cases().filter_map(|c| Some((c.name, c.pending?))).peekable();
    if waiting.peek().is_some() {
        text.push_str("\n## Cases that wait\n\n| case | for |\n|---|---|\n");
    }
    for (name, capability) in waiting {
        let _ = writeln!(text, "| {name} | {capability} |");
    }
    text
}
