//! How long a run will take, from its options: said at the start, and the base of the remaining time.
//!
//! The constants are what the steps around a measurement took on two quiet cores.

use std::time::Duration;

use crate::options::MeshOptions;

/// One contender's namespaces, origin and proxies, until the first answer.
const START: f64 = 0.8;
/// Around one measurement: the generator's start, the kernel's books.
const AROUND: f64 = 0.4;
/// A trace of both sides, one second each.
const TRACE: f64 = 3.5;

/// The size of a run in seconds and contenders.
#[derive(Clone, Copy, Debug)]
pub(super) struct Work {
    rounds: f64,
    window: f64,
    warm_up: f64,
    soak: f64,
    pub(super) contenders: f64,
    pub(super) proxies: f64,
    /// Connections and services in thousands, as parts of the full size.
    size: f64,
}

impl Work {
    pub(super) fn of(options: &MeshOptions, contenders: usize, proxies: usize) -> Self {
        Self {
            rounds: options.rounds().into(),
            window: options.window().as_secs_f64(),
            warm_up: options.warm_up().as_secs_f64(),
            soak: options.soak().as_secs_f64(),
            contenders: contenders as f64,
            proxies: proxies as f64,
            size: options.size(1000, 100) as f64 / 1000.0,
        }
    }

    /// Sets of rigs for everybody, with this many warm-ups altogether.
    pub(super) fn rigs(&self, sets: f64, warm_ups: f64) -> f64 {
        self.contenders * (sets * START + warm_ups * (self.warm_up + AROUND))
    }

    /// Cases on living rigs, of one window each.
    pub(super) fn cases(&self, cases: f64) -> f64 {
        cases * self.rounds * self.contenders * (self.window + AROUND)
    }

    /// Everybody's capacity, then three rates in fewer and longer rounds.
    pub(super) fn open_loop(&self) -> f64 {
        let rates = 3.0 * self.rounds.min(super::open_loop::ROUNDS.into());
        let window = f64::from(super::open_loop::LONGER) * self.window;
        self.contenders * (self.window + AROUND + rates * (window + AROUND))
    }

    pub(super) fn traces(&self, cases: f64) -> f64 {
        cases * self.proxies * TRACE
    }

    /// Three counts of connections, with rests of two seconds.
    pub(super) fn idle(&self) -> f64 {
        self.rounds.min(3.0) * self.proxies * (3.0 * START + 14.0 + 8.0 * self.size)
    }

    /// Three numbers of services.
    pub(super) fn scale(&self) -> f64 {
        self.rounds.min(3.0) * self.proxies * (3.0 * (START + 1.0) + 10.0 * self.size)
    }

    /// Requests thrown away, calm and busy; then the updates one by one. Only those that take xDS do it.
    pub(super) fn churn(&self) -> f64 {
        self.rounds * (self.proxies - 1.0).max(1.0) * (START + 3.0 * self.window + 6.0 * self.size)
    }

    /// Four balancers; two of them are only ours.
    pub(super) fn slow_replica(&self) -> f64 {
        let rounds = self.rounds.min(super::slow_replica::ROUNDS.into());
        let windows = f64::from(super::slow_replica::WINDOWS);
        super::slow_replica::CASES * 1.5 * (2.5 * START + rounds * (windows * self.window + AROUND))
    }

    /// A mesh of three replicas for every measurement.
    pub(super) fn failures(&self) -> f64 {
        let windows = f64::from(super::failures::WINDOWS) * self.window;
        super::failures::CASES
            * self.rounds.min(super::failures::ROUNDS.into())
            * 2.0
            * (2.0 * START + windows + AROUND)
    }

    pub(super) fn hops(&self) -> f64 {
        let windows = f64::from(super::hops::WINDOWS) * self.window;
        super::hops::COUNT * self.rounds.min(super::failures::ROUNDS.into()) * 2.0 * (2.0 * START + windows + AROUND)
    }

    /// Everything without and with it, with many connections and with one.
    pub(super) fn policy(&self) -> f64 {
        let rigs = 2.0 * (START + self.warm_up + AROUND);
        rigs + super::policy::CASES * (rigs + 2.0 * self.rounds * 4.0 * (self.window + AROUND))
    }

    /// Everything without and with it in turn.
    pub(super) fn observability(&self) -> f64 {
        let rigs = 2.0 * (START + self.warm_up + AROUND);
        let windows = super::observability::WINDOWS * (self.window + AROUND);
        rigs + super::observability::CASES * (rigs + 2.0 * self.rounds * windows)
    }

    pub(super) fn soak(&self) -> f64 {
        self.proxies * (START + self.soak)
    }
}

/// As people say it.
pub(super) fn spoken(seconds: f64) -> String {
    let length = Duration::from_secs_f64(seconds.max(0.0));
    match length.as_secs() {
        0..90 => format!("{} s", length.as_secs()),
        more => format!("{} min", (more + 30) / 60),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: MeshOptions,
    }

    fn whole(arguments: &[&str]) -> f64 {
        let line = Line::parse_from([&["x"], arguments].concat());
        let work = Work::of(&line.options, 4, 3);
        super::super::SCENARIOS.iter().filter(|scenario| !scenario.by_name).map(|scenario| (scenario.cost)(&work)).sum()
    }

    #[test]
    fn the_whole_run_fits_into_a_break() {
        let minutes = whole(&[]) / 60.0;
        assert!((30.0..50.0).contains(&minutes), "{minutes}");
        assert!(whole(&["--rounds", "10"]) > 1.5 * whole(&[]) && whole(&["--quick"]) < 0.3 * whole(&[]));
    }

    #[test]
    fn minutes_are_rounded() {
        assert_eq!([10.0, 89.0, 90.0, 2700.0].map(spoken), ["10 s", "89 s", "2 min", "45 min"]);
    }
}
