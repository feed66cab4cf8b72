//! Whether two observations are the same, the explained lines apart.

use std::collections::BTreeMap;

use super::{case::Case, observe::Observation};

/// What is wrong with a case: nothing, or text for people. An explanation that explains nothing is wrong too.
pub(crate) fn compare(case: &Case, envoy: &Observation, ours: &Observation) -> Result<(), String> {
    let mut wrong = differing(case, envoy, ours);
    for difference in case.differences.iter().filter(|d| d.always) {
        let only = |all: &[String]| all.iter().filter(|l| difference.covers(l)).cloned().collect::<Vec<_>>();
        let shares = || envoy.shares.iter().zip(&ours.shares).flat_map(|(theirs, ours)| shares_apart(theirs, ours));
        if only(&envoy.lines) == only(&ours.lines) && !shares().any(|line| difference.covers(&line)) {
            wrong.push(format!("the lines with {:?} no longer differ: remove the explanation", difference.lines));
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
}

/// What differs and is not explained.
pub(crate) fn differing(case: &Case, envoy: &Observation, ours: &Observation) -> Vec<String> {
    let mut wrong = Vec::new();
    let kept = |all: &[String]| -> Vec<String> {
        let explained = |line: &String| case.differences.iter().any(|d| d.covers(line));
        all.iter().filter(|l| !explained(l)).cloned().collect()
    };
    for line in lines_apart(&kept(&envoy.lines), &kept(&ours.lines)) {
        wrong.push(line);
    }
    if envoy.shares.len() != ours.shares.len() {
        wrong.push("one of them has more steps".to_owned());
    }
    for (theirs, ours) in envoy.shares.iter().zip(&ours.shares) {
        let unexplained = |line: &String| !case.differences.iter().any(|d| d.covers(line));
        wrong.extend(shares_apart(theirs, ours).into_iter().filter(unexplained));
    }
    wrong
}

/// The lines only one of them has: `-` Envoy's, `+` ours, in order (longest common subsequence).
fn lines_apart(envoy: &[String], ours: &[String]) -> Vec<String> {
    let mut longest = vec![vec![0_usize; ours.len() + 1]; envoy.len() + 1];
    for i in (0..envoy.len()).rev() {
        for j in (0..ours.len()).rev() {
            longest[i][j] =
                if envoy[i] == ours[j] { longest[i + 1][j + 1] + 1 } else { longest[i + 1][j].max(longest[i][j + 1]) };
        }
    }
    let (mut i, mut j, mut apart) = (0, 0, Vec::new());
    while i < envoy.len() || j < ours.len() {
        if i < envoy.len() && j < ours.len() && envoy[i] == ours[j] {
            (i, j) = (i + 1, j + 1);
        } else if j == ours.len() || (i < envoy.len() && longest[i + 1][j] >= longest[i][j + 1]) {
            apart.push(format!("- {}", envoy[i]));
            i += 1;
        } else {
            apart.push(format!("+ {}", ours[j]));
            j += 1;
        }
    }
    apart
}

/// Two samples of the same distribution differ in each share by a few standard deviations at most; what one of them
/// never does must be rare in the other.
fn shares_apart(envoy: &BTreeMap<String, usize>, ours: &BTreeMap<String, usize>) -> Vec<String> {
    let total = |m: &BTreeMap<String, usize>| m.values().sum::<usize>().max(1) as f64;
    let (n, m) = (total(envoy), total(ours));
    let keys: std::collections::BTreeSet<&String> = envoy.keys().chain(ours.keys()).collect();
    let mut wrong = Vec::new();
    for key in keys {
        let (a, b) = (envoy.get(key).copied().unwrap_or(0) as f64, ours.get(key).copied().unwrap_or(0) as f64);
        let together = (a + b) / (n + m);
        let deviation = (together * (1.0 - together) * (1.0 / n + 1.0 / m)).sqrt();
        if (a / n - b / m).abs() > 4.5 * deviation {
            wrong.push(format!("{key}: Envoy {a} of {n}, ours {b} of {m}"));
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::harness::case::case;

    fn observation(lines: &[&str]) -> Observation {
        Observation { lines: lines.iter().map(|l| (*l).to_owned()).collect(), shares: Vec::new() }
    }

    #[test]
    fn what_differs_is_named() {
        let said = compare(&case("x"), &observation(&["a", "b", "c"]), &observation(&["a", "d", "c", "e"]));
        assert_eq!(said.unwrap_err(), "- b\n+ d\n+ e");
        assert_eq!(compare(&case("x"), &observation(&["a"]), &observation(&["a"])), Ok(()));
    }

    #[test]
    fn an_explanation_hides_its_lines_only_and_must_be_needed() {
        let explained = case("x").explained("server:", "reason");
        let (envoy, ours) = (observation(&["server: e", "b"]), observation(&["server: o", "b"]));
        assert_eq!(compare(&explained, &envoy, &ours), Ok(()));
        let said = compare(&explained, &envoy, &observation(&["server: o", "c"]));
        assert_eq!(said.unwrap_err(), "- b\n+ c");
        assert!(compare(&explained, &envoy, &envoy).unwrap_err().contains("no longer differ"));
    }

    #[test]
    fn shares_may_differ_by_chance_only() {
        let shares = |a: usize, b: usize| BTreeMap::from([("a".to_owned(), a), ("b".to_owned(), b)]);
        assert!(shares_apart(&shares(500, 500), &shares(530, 470)).is_empty());
        assert_eq!(shares_apart(&shares(500, 500), &shares(700, 300)).len(), 2);
        assert_eq!(shares_apart(&shares(0, 100), &shares(100, 0)).len(), 2);
        assert_eq!(shares_apart(&shares(0, 1000), &shares(60, 940)).len(), 2);
    }
}
