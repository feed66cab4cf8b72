//! What moved between two results.
//!
//! Absolute figures drift with the machine, so ratios to a reference contender are compared when both results have
//! one. A figure moved when its medians differ by more than a threshold and by more than chance makes of so few rounds;
//! where only the ranges are apart it may have moved, and is listed below.

use std::fmt::Write as _;

use super::{
    Case, Run,
    figures::{self, Better, FIGURES, number},
    stats::Summary,
};

/// Fewer rounds than this show no noise, and everything would seem to have moved.
const ROUNDS: usize = 3;

/// One line for each figure that moved.
pub(crate) fn text(before: &Run, after: &Run, reference: &str, threshold: f64) -> String {
    let (mut lines, mut maybe) = (Vec::new(), Vec::new());
    let (mut compared, mut absolute, mut too_few) = (0, false, 0);
    for new in &after.cases {
        let Some(old) = before.cases.iter().find(|c| c.name() == new.name()) else { continue };
        for entry in new.entries.iter().filter(|e| e.contender != reference) {
            for figure in FIGURES.iter().filter(|f| f.better != Better::Neither) {
                let key = figure.key;
                let sides = [old, new].map(|case| values(case, &entry.contender, reference, key));
                let [Some((was, was_ratio)), Some((is, is_ratio))] = sides else { continue };
                let rounds = [old, new].map(|c| c.entry(&entry.contender).map_or(0, |e| e.values(key).len()));
                let exact = figures::is_exact(key);
                if !exact && rounds.into_iter().any(|n| n < ROUNDS) {
                    too_few += 1;
                    continue;
                }
                if was_ratio != is_ratio {
                    continue;
                }
                compared += 1;
                absolute |= !is_ratio;
                let Some(line) = moved(&was, &is, figure.better, threshold) else { continue };
                let what = if is_ratio { format!("ratio to {reference}") } else { figure.unit.to_owned() };
                let line = format!("{:30} {:10} {:24} {line} ({what})", new.name(), entry.contender, figure.label);
                if exact || certain(&was, &is, rounds[0].min(rounds[1])) { lines.push(line) } else { maybe.push(line) }
            }
        }
    }
    let mut text = format!("{compared} figures in both results, {} moved beyond the noise\n", lines.len());
    if too_few > 0 {
        let _ = writeln!(text, "{too_few} figures not judged: less than {ROUNDS} rounds");
    }
    if absolute {
        let _ = writeln!(
            text,
            "figures without a ratio to {reference} were compared as they are: they drift with the machine"
        );
    }
    lines.iter().for_each(|line| {
        let _ = writeln!(text, "{line}");
    });
    if !maybe.is_empty() {
        let _ = writeln!(text, "\n{} perhaps, which more rounds would tell:", maybe.len());
    }
    maybe.iter().for_each(|line| {
        let _ = writeln!(text, "{line}");
    });
    text
}

/// Ratios to the reference, or absolute values where it has none.
fn values(case: &Case, contender: &str, reference: &str, key: &str) -> Option<(Summary, bool)> {
    let entry = case.entry(contender)?;
    let ratios = case.entry(reference).map(|r| entry.ratios(r, key)).unwrap_or_default();
    match Summary::of(&ratios) {
        Some(summary) => Some((summary, true)),
        None => Summary::of(&entry.values(key)).map(|summary| (summary, false)),
    }
}

/// Whether the medians are further apart than chance puts them once in a thousand times, judged by the ranges. The
/// median of few rounds is inexact, and so is their range.
fn certain(was: &Summary, is: &Summary, rounds: usize) -> bool {
    let ranges = match rounds {
        0..=3 => 2.0,
        4 => 1.4,
        5 => 1.1,
        6 => 0.9,
        _ => 0.75,
    };
    (is.median - was.median).abs() > ranges * ((was.high - was.low) + (is.high - is.low)) / 2.0
}

fn moved(was: &Summary, is: &Summary, better: Better, threshold: f64) -> Option<String> {
    if was.median == 0.0 || was.overlaps(is) {
        return None;
    }
    let change = is.median / was.median - 1.0;
    if change.abs() < threshold {
        return None;
    }
    let good = (change < 0.0) == (better == Better::Lower);
    let verdict = if good { "better" } else { "WORSE" };
    Some(format!("{} -> {} {:+.0}% {verdict}", number(was.median), number(is.median), change * 100.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::{Entry, Sample};

    fn run(cpu: &[(f64, f64)]) -> Run {
        let entry = |contender: &str, values: Vec<f64>| {
            let sample = |v: f64| {
                let mut sample = Sample::default();
                sample.set("cpu", v);
                Some(sample)
            };
            Entry { contender: contender.into(), rounds: values.into_iter().map(sample).collect(), problem: None }
        };
        let entries = vec![
            entry("envoy", cpu.iter().map(|p| p.0).collect()),
            entry("outrigger", cpu.iter().map(|p| p.1).collect()),
        ];
        let case = Case { scenario: "s".into(), case: "c".into(), title: "t".into(), entries };
        Run { cases: vec![case], ..Run::default() }
    }

    #[test]
    fn a_slower_machine_is_no_change() {
        let (before, after) =
            (run(&[(20.0, 10.0), (22.0, 11.1), (21.0, 10.5)]), run(&[(40.0, 20.1), (44.0, 22.0), (42.0, 21.2)]));
        assert!(text(&before, &after, "envoy", 0.05).contains(" 0 moved"));
    }

    #[test]
    fn a_change_beyond_the_noise_is_named_with_its_direction() {
        let (before, after) =
            (run(&[(20.0, 10.0), (22.0, 11.1), (21.0, 10.5)]), run(&[(20.0, 14.0), (22.0, 15.6), (21.0, 14.7)]));
        let said = text(&before, &after, "envoy", 0.05);
        assert!(said.contains(" 1 moved") && said.contains("WORSE") && said.contains("0.500 -> 0.700 +40%"), "{said}");
        assert!(text(&after, &before, "envoy", 0.05).contains("better"));
        // Absolute figures moved, too, but less than their noise.
        assert!(text(&before, &run(&[(20.0, 9.0), (22.0, 12.1), (21.0, 13.0)]), "envoy", 0.05).contains(" 0 moved"));
    }

    #[test]
    fn ranges_that_are_barely_apart_prove_little() {
        let (before, after) =
            (run(&[(20.0, 10.0), (20.0, 11.0), (20.0, 10.5)]), run(&[(20.0, 11.2), (20.0, 12.2), (20.0, 11.6)]));
        let said = text(&before, &after, "envoy", 0.05);
        assert!(said.contains(" 0 moved") && said.contains("1 perhaps") && said.contains("+10% WORSE"), "{said}");
        // The same medians in calmer rounds.
        let (before, after) =
            (run(&[(20.0, 10.4), (20.0, 10.6), (20.0, 10.5)]), run(&[(20.0, 11.5), (20.0, 11.7), (20.0, 11.6)]));
        let said = text(&before, &after, "envoy", 0.05);
        assert!(said.contains(" 1 moved") && !said.contains("perhaps"), "{said}");
    }

    #[test]
    fn a_single_round_proves_nothing() {
        let said = text(&run(&[(20.0, 10.0)]), &run(&[(20.0, 19.0)]), "envoy", 0.05);
        assert!(said.contains(" 0 moved") && said.contains("1 figures not judged"), "{said}");
    }
}
