//! What was measured, as data: written as JSON after every scenario, read back by `report` and `compare`.

pub(crate) mod compare;
pub(crate) mod figures;
pub(crate) mod goals;
pub(crate) mod stats;
pub(crate) mod table;

use std::{collections::BTreeMap, path::Path};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

/// One execution of the bench.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Run {
    /// Date, machine, kernel, options, load at the start.
    pub(crate) facts: BTreeMap<String, String>,
    /// Label and version of each contender that took part; the reason for one that could not.
    pub(crate) contenders: Vec<(String, String)>,
    pub(crate) cases: Vec<Case>,
}

/// One load on one configuration.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Case {
    pub(crate) scenario: String,
    pub(crate) case: String,
    /// A sentence for people.
    pub(crate) title: String,
    pub(crate) entries: Vec<Entry>,
}

/// One contender in one case.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) contender: String,
    /// In the order of the rounds; `None` where it failed.
    pub(crate) rounds: Vec<Option<Sample>>,
    /// Why it did not take part or not in every round.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) problem: Option<String>,
}

/// One measurement.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Sample {
    /// By the keys of [`figures::FIGURES`].
    pub(crate) figures: BTreeMap<String, f64>,
    /// Latency: (percentile, milliseconds).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) curve: Vec<(f64, f64)>,
    /// Over time: (seconds, megabytes of both proxies).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) memory: Vec<(f64, f64)>,
    /// System calls by name and number per request, of both proxies.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) calls: Vec<(String, f64)>,
}

impl Run {
    pub(crate) fn load(file: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read(file).with_context(|| file.display().to_string())?;
        serde_json::from_slice(&text).with_context(|| format!("{} is no result of this bench", file.display()))
    }

    /// Writes `result.json` in `dir`, atomically.
    pub(crate) fn save(&self, dir: &Path) -> anyhow::Result<()> {
        std::fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
        let (part, whole) = (dir.join("result.json.part"), dir.join("result.json"));
        std::fs::write(&part, serde_json::to_vec_pretty(self)?)?;
        Ok(std::fs::rename(part, whole)?)
    }
}

impl Case {
    pub(crate) fn name(&self) -> String {
        format!("{} {}", self.scenario, self.case)
    }

    pub(crate) fn entry(&self, contender: &str) -> Option<&Entry> {
        self.entries.iter().find(|e| e.contender == contender)
    }
}

impl Entry {
    pub(crate) fn samples(&self) -> impl Iterator<Item = &Sample> {
        self.rounds.iter().flatten()
    }

    /// The values of a figure over the rounds.
    pub(crate) fn values(&self, key: &str) -> Vec<f64> {
        self.samples().filter_map(|s| s.figures.get(key).copied()).collect()
    }

    /// This contender's figure divided by the other's, round by round.
    pub(crate) fn ratios(&self, other: &Self, key: &str) -> Vec<f64> {
        let pairs = self.rounds.iter().zip(&other.rounds);
        pairs
            .filter_map(|(a, b)| {
                let (a, b) = (a.as_ref()?.figures.get(key)?, b.as_ref()?.figures.get(key)?);
                (*b != 0.0).then(|| a / b)
            })
            .collect()
    }

    /// The latency curve, as medians over the rounds at each percentile that all rounds have.
    pub(crate) fn curve(&self) -> Vec<(f64, f64)> {
        let Some(first) = self.samples().next() else { return Vec::new() };
        let at = |p: f64| {
            let values: Vec<f64> =
                self.samples().filter_map(|s| s.curve.iter().find(|(q, _)| *q == p).map(|(_, v)| *v)).collect();
            (values.len() == self.samples().count()).then(|| stats::median(&values)).flatten().map(|v| (p, v))
        };
        first.curve.iter().filter_map(|(p, _)| at(*p)).collect()
    }
}

impl Sample {
    pub(crate) fn set(&mut self, key: &'static str, value: f64) {
        debug_assert!(figures::find(key).is_some(), "{key} is in the catalogue");
        self.figures.insert(key.to_owned(), value);
    }
}
