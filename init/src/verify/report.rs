//! The outcome of a check, as data, as a table and as JSON.
//!
//! Owns the vocabulary of results and their printing. It proves nothing itself.
//! Invariant: the check as a whole passes only if nothing failed.

use std::fmt::Write;

use serde::Serialize;

use crate::plan::Family;

/// The result of one proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Proven.
    Pass,
    /// Disproven: the capture is broken.
    Fail,
    /// Works, but the operator should know.
    Warn,
    /// Could not be tried here; the detail says why.
    Skip,
}

impl Status {
    fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "ok",
            Self::Fail => "FAIL",
            Self::Warn => "warn",
            Self::Skip => "skip",
        }
    }
}

/// One line of the report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub name: &'static str,
    /// `IPv4`, `IPv6`, or absent where it concerns both.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub family: Option<&'static str>,
    pub status: Status,
    pub detail: String,
}

/// Everything a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    pub passed: bool,
    pub backend: String,
    pub findings: Vec<Finding>,
}

impl Report {
    /// Adds a finding.
    pub fn add(&mut self, name: &'static str, family: Option<Family>, status: Status, detail: impl Into<String>) {
        let family = family.map(Family::as_str);
        self.findings.push(Finding { name, family, status, detail: detail.into() });
        self.passed = !self.findings.iter().any(|finding| finding.status == Status::Fail);
    }

    /// The findings with this status.
    pub fn with(&self, status: Status) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(move |finding| finding.status == status)
    }

    /// For people.
    pub fn table(&self) -> String {
        let width = self.findings.iter().map(|finding| finding.name.len()).max().unwrap_or(0);
        let mut text = format!("backend: {}\n", self.backend);
        for finding in &self.findings {
            let family = finding.family.unwrap_or("");
            let detail = finding.detail.replace('\n', "\n                ");
            let _ = writeln!(text, "{:<4}  {:<width$}  {family:<4}  {detail}", finding.status.as_str(), finding.name);
        }
        let failed = self.with(Status::Fail).count();
        let skipped = self.with(Status::Skip).count();
        let verdict = match (failed, skipped) {
            (0, 0) => "capture works",
            (0, _) => "capture works, as far as it could be tried",
            _ => "CAPTURE IS BROKEN",
        };
        let _ = writeln!(text, "{verdict}: {} findings, {failed} failed, {skipped} skipped", self.findings.len());
        text
    }

    /// For programs.
    pub fn json(&self) -> String {
        serde_json::to_string_pretty(self).expect("strings and enums always serialize")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_failure_fails_the_whole() {
        let mut report = Report { backend: "nft".into(), ..Report::default() };
        report.add("rules", None, Status::Pass, "as planned");
        assert!(report.passed);
        report.add("outbound", Some(Family::V6), Status::Fail, "did not arrive");
        report.add("inbound", None, Status::Skip, "no veth");
        assert!(!report.passed);
        let table = report.table();
        assert!(table.contains("FAIL  outbound  IPv6  did not arrive"), "{table}");
        assert!(table.contains("CAPTURE IS BROKEN: 3 findings, 1 failed, 1 skipped"));
        let json: serde_json::Value = serde_json::from_str(&report.json()).unwrap();
        assert_eq!(json["passed"], false);
        assert_eq!(json["findings"][1]["status"], "fail");
        assert_eq!(json["findings"][1]["family"], "IPv6");
        assert!(json["findings"][0].get("family").is_none());
    }
}
