//! A run in progress: rigs side by side, rounds, and the entries they fill.

use outrigger_tests::Fabric;

pub(super) use crate::interrupt::go_on;
use crate::{
    options::MeshOptions,
    progress::Progress,
    result::{Case, Entry, Run, Sample, table},
    rig::{self, Contender, Kind, Plan, Rig},
};

pub(super) struct Bench<'a> {
    pub(super) options: &'a MeshOptions,
    progress: Progress,
    run: &'a mut Run,
    contenders: Vec<Contender>,
    /// Rigs that the next scenario may want as well.
    kept: Option<(Plan, Rigs)>,
}

/// One contender's place in a set of rigs.
pub(super) struct Slot {
    pub(super) contender: Contender,
    pub(super) rig: Result<Rig, String>,
}

/// Rigs of all contenders for one plan, all alive.
pub(super) struct Rigs {
    pub(super) slots: Vec<Slot>,
    /// Whether they have worked already.
    pub(super) warm: bool,
    // Last: namespaces go after the processes in them.
    _fabric: Fabric,
}

/// Starts single rigs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Starter {
    workers: u32,
}

impl Starter {
    /// A rig in a fabric of its own, which has to outlive it.
    pub(super) fn one(self, plan: &Plan, contender: &Contender) -> anyhow::Result<(Fabric, Rig)> {
        let mut fabric = Fabric::new();
        let rig = rig::start(&mut fabric, contender, plan, self.workers)?;
        Ok((fabric, rig))
    }
}

/// What a case is called.
#[derive(Clone, Debug)]
pub(super) struct Title {
    pub(super) scenario: &'static str,
    pub(super) case: String,
    pub(super) title: String,
}

impl Title {
    pub(super) fn new(scenario: &'static str, case: impl Into<String>, title: impl Into<String>) -> Self {
        Self { scenario, case: case.into(), title: title.into() }
    }
}

impl<'a> Bench<'a> {
    /// Looks for the contenders; one that is missing is named, and left out.
    pub(super) fn new(options: &'a MeshOptions, progress: Progress, run: &'a mut Run) -> Self {
        let mut contenders = Vec::new();
        for contender in &options.contender {
            match contender.describe() {
                Ok(description) => {
                    run.contenders.push((contender.to_string(), description));
                    contenders.push(contender.clone());
                }
                Err(error) => {
                    let reason = format!("LEFT OUT: {error:#}");
                    progress.note(&format!("{contender}: {reason}"));
                    run.contenders.push((contender.to_string(), reason));
                }
            }
        }
        Self { options, progress, run, contenders, kept: None }
    }

    pub(super) fn contenders(&self) -> Vec<Contender> {
        self.contenders.clone()
    }

    /// Without the one that has no proxy: where only the proxies are of interest.
    pub(super) fn proxies(&self) -> Vec<Contender> {
        self.contenders.iter().filter(|c| c.kind() != Kind::Direct).cloned().collect()
    }

    pub(super) fn step(&self, what: &str) {
        self.progress.step(what);
    }

    pub(super) fn note(&self, what: &str) {
        self.progress.note(what);
    }

    /// A rig for each of the contenders: the ones kept if they are for this plan.
    pub(super) fn rigs(&mut self, plan: &Plan, contenders: &[Contender]) -> anyhow::Result<Rigs> {
        let kept = self
            .kept
            .take()
            .filter(|(own, rigs)| own == plan && rigs.slots.iter().map(|slot| &slot.contender).eq(contenders.iter()));
        if let Some((_, rigs)) = kept {
            return Ok(rigs);
        }
        let mut fabric = Fabric::new();
        let mut slots = Vec::new();
        for contender in contenders {
            go_on()?;
            self.progress.step(&format!("starting {contender}"));
            let rig = rig::start(&mut fabric, contender, plan, self.options.concurrency);
            slots.push(Slot { contender: contender.clone(), rig: rig.map_err(|e| format!("{e:#}")) });
        }
        Ok(Rigs { slots, warm: false, _fabric: fabric })
    }

    /// Leaves rigs for the next scenario, if all of them are well.
    pub(super) fn keep(&mut self, plan: Plan, mut rigs: Rigs) {
        let well = |slot: &mut Slot| slot.rig.as_mut().is_ok_and(|rig| rig.check().is_ok());
        if rigs.slots.iter_mut().all(well) {
            rigs.warm = true;
            self.kept = Some((plan, rigs));
        }
    }

    /// For measurements that need a rig of their own.
    pub(super) fn starter(&mut self) -> Starter {
        self.kept = None;
        Starter { workers: self.options.concurrency }
    }

    /// Runs the rounds of a case on rigs that are alive.
    pub(super) fn case(
        &mut self,
        title: &Title,
        rigs: &mut Rigs,
        measure: impl FnMut(&mut Rig) -> anyhow::Result<Sample>,
    ) -> anyhow::Result<()> {
        self.case_of(title, rigs, self.options.rounds(), measure)
    }

    /// As `case`, with a number of rounds of its own.
    pub(super) fn case_of(
        &mut self,
        title: &Title,
        rigs: &mut Rigs,
        rounds: u32,
        mut measure: impl FnMut(&mut Rig) -> anyhow::Result<Sample>,
    ) -> anyhow::Result<()> {
        let contenders: Vec<Contender> = rigs.slots.iter().map(|s| s.contender.clone()).collect();
        self.rounds(title, &contenders, rounds, |index, _| {
            let slot = &mut rigs.slots[index];
            let rig = slot.rig.as_mut().map_err(|e| anyhow::anyhow!("{e}"))?;
            let sample = measure(rig)?;
            rig.check()?;
            Ok(sample)
        })
    }

    /// Runs the rounds of a case; `measure` gets the contender's index and its name.
    pub(super) fn rounds(
        &mut self,
        title: &Title,
        contenders: &[Contender],
        rounds: u32,
        mut measure: impl FnMut(usize, &Contender) -> anyhow::Result<Sample>,
    ) -> anyhow::Result<()> {
        let entry = |c: &Contender| Entry { contender: c.to_string(), rounds: Vec::new(), problem: None };
        let mut case = Case {
            scenario: title.scenario.to_owned(),
            case: title.case.clone(),
            title: title.title.clone(),
            entries: contenders.iter().map(entry).collect(),
        };
        for round in 1..=rounds {
            // Nobody always follows the same neighbour or starts the round.
            for turn in 0..contenders.len() {
                let index = (turn + round as usize - 1) % contenders.len();
                if let Err(interrupted) = go_on() {
                    self.run.cases.push(case);
                    return Err(interrupted);
                }
                let (contender, entry) = (&contenders[index], &mut case.entries[index]);
                self.progress.step(&format!("{} {}: round {round}/{rounds}, {contender}", title.scenario, title.case));
                let sample = measure(index, contender).map_err(|error| {
                    entry.problem.get_or_insert_with(|| format!("round {round}: {error:#}"));
                });
                entry.rounds.push(sample.ok());
            }
        }
        self.progress.print(&table::case(&case, &self.options.reference));
        self.run.cases.push(case);
        Ok(())
    }

    /// Writes what there is.
    pub(super) fn save(&self) -> anyhow::Result<()> {
        self.run.save(&self.options.output)
    }

    /// Expected seconds of the scenarios to come.
    pub(super) fn expect(&mut self, parts: Vec<f64>) {
        self.progress.expect(parts);
    }

    /// The next scenario begins.
    pub(super) fn begin(&mut self) {
        self.progress.next();
    }

    pub(super) fn finish(self) -> Progress {
        self.progress
    }
}
