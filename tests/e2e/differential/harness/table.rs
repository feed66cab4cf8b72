//! The table of the differences that stay: made from the cases, so that it cannot say anything else.

use std::fmt::Write;

use super::case::Group;

pub(crate) fn table(groups: &[Group]) -> String {
    let mut text = String::from(
        "# Differences to Envoy\n\n\
         Generated from `cases/`; rewritten with `OUTRIGGER_UPDATE_DIFFERENCES=1 cargo test -p outrigger-tests --test differential table`.\n\
         Everything else that the cases observe is equal. \"Lines\" is what a differing line of the observation contains.\n\n",
    );
    let count: usize = groups.iter().map(|g| g.cases.len()).sum();
    let _ = writeln!(text, "{count} cases run.\n");
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
    text
}
