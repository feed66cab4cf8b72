//! The table on the terminal: per case one row a contender, `median ±spread x ratio`.

use std::fmt::Write as _;

use super::{
    Case, Run,
    figures::{FIGURES, Figure, number},
    stats::{Summary, median},
};

/// The whole result.
pub(crate) fn text(run: &Run, reference: &str) -> String {
    let cases: String = run.cases.iter().map(|case| self::case(case, reference)).collect();
    format!("{cases}\n{}", summary(run))
}

/// What was run on what, and the goals.
pub(crate) fn summary(run: &Run) -> String {
    let mut text = String::new();
    for (key, value) in &run.facts {
        let _ = writeln!(text, "{key}: {value}");
    }
    for (label, description) in &run.contenders {
        let _ = writeln!(text, "{label}: {description}");
    }
    text.push_str(&goals(run));
    text
}

/// Goals beside what was measured.
fn goals(run: &Run) -> String {
    let verdicts = super::goals::verdicts(run);
    if verdicts.is_empty() {
        return String::new();
    }
    let mut text = "\ngoals\n".to_owned();
    for verdict in verdicts {
        let (low, median, high) = (verdict.measured.low, verdict.measured.median, verdict.measured.high);
        let word = if verdict.met() { "met" } else { "MISSED" };
        let _ = writeln!(
            text,
            "  {word:6}  {:38} {:>6} of at most {:<5} {:18} ({} to {})",
            verdict.what,
            number(median),
            number(verdict.most),
            verdict.scale,
            number(low),
            number(high)
        );
    }
    let open = super::goals::open(run);
    if open > 0 {
        let _ = writeln!(text, "  {open} goals not judged: no figures in this run");
    }
    text
}

/// One case.
pub(crate) fn case(case: &Case, reference: &str) -> String {
    let rounds = case.entries.iter().map(|e| e.samples().count()).max().unwrap_or(0);
    let plural = if rounds == 1 { "" } else { "s" };
    let mut text = format!("\n{}: {} ({rounds} round{plural})\n", case.name(), case.title);
    let shown: Vec<&Figure> = FIGURES
        .iter()
        .filter(|f| f.headline || f.key == "failed")
        .filter(|f| case.entries.iter().any(|e| e.values(f.key).iter().any(|v| f.key != "failed" || *v > 0.0)))
        .collect();
    let mut rows = vec![std::iter::once(String::new()).chain(shown.iter().map(|f| heading(f))).collect::<Vec<_>>()];
    for entry in &case.entries {
        let mut row = vec![entry.contender.clone()];
        row.extend(shown.iter().map(|figure| cell(case, &entry.contender, figure, reference)));
        rows.push(row);
    }
    let widths: Vec<usize> =
        (0..=shown.len()).map(|c| rows.iter().map(|r| r[c].chars().count()).max().unwrap_or(0)).collect();
    for row in rows {
        let mut line = format!("  {:width$}", row[0], width = widths[0]);
        for (cell, width) in row.iter().zip(&widths).skip(1) {
            let pad = width - cell.chars().count();
            let _ = write!(line, "  {}{cell}", " ".repeat(pad));
        }
        let _ = writeln!(text, "{}", line.trim_end());
    }
    for entry in &case.entries {
        if let Some(problem) = &entry.problem {
            let _ = writeln!(text, "  {}: {problem}", entry.contender);
        }
    }
    text
}

fn heading(figure: &Figure) -> String {
    if figure.unit.is_empty() { figure.label.to_owned() } else { format!("{} {}", figure.label, figure.unit) }
}

fn cell(case: &Case, contender: &str, figure: &Figure, reference: &str) -> String {
    let Some(entry) = case.entry(contender) else { return String::new() };
    let values = entry.values(figure.key);
    let Some(summary) = Summary::of(&values) else { return "-".to_owned() };
    let mut text = number(summary.median);
    if values.len() > 1 {
        let _ = write!(text, " ±{:.0}%", summary.spread() * 100.0);
    }
    if contender != reference
        && let Some(ratio) = case.entry(reference).and_then(|r| median(&entry.ratios(r, figure.key)))
    {
        let _ = write!(text, " x{ratio:.2}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::{Entry, Sample};

    fn entry(contender: &str, cpu: &[f64]) -> Entry {
        let sample = |v: &f64| {
            let mut sample = Sample::default();
            sample.set("cpu", *v);
            Some(sample)
        };
        Entry { contender: contender.into(), rounds: cpu.iter().map(sample).collect(), problem: None }
    }

    #[test]
    fn ratios_are_taken_round_by_round() {
        // The machine slowed down in the second round for both.
        let entries = vec![entry("envoy", &[20.0, 40.0, 20.0]), entry("outrigger", &[8.0, 16.0, 8.2])];
        let case = Case { scenario: "s".into(), case: "c".into(), title: "t".into(), entries };
        let text = super::case(&case, "envoy");
        let rows: Vec<String> = text.lines().map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        assert!(rows.iter().any(|r| r == "outrigger 8.20 ±49% x0.40"), "{text}");
        assert!(rows.iter().any(|r| r == "envoy 20.0 ±50%"), "{text}");
    }
}
