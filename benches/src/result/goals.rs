//! What the product is measured against: bounds on ratios to Envoy in the same run, a few absolute ones.

use super::{Case, Run, figures, stats::Summary};

/// What a goal bounds.
#[derive(Clone, Copy, Debug)]
enum Bound {
    /// The figure divided by this contender's in the same round.
    Ratio(&'static str),
    /// What the proxies add to no proxy, divided by what this contender's add.
    Added(&'static str),
    /// The figure itself.
    Absolute,
}

struct Goal {
    case: &'static str,
    key: &'static str,
    what: &'static str,
    bound: Bound,
    most: f64,
}

const fn goal(case: &'static str, key: &'static str, what: &'static str, bound: Bound, most: f64) -> Goal {
    Goal { case, key, what, bound, most }
}

const ENVOY: Bound = Bound::Ratio("envoy");

const HAPROXY: Bound = Bound::Ratio("haproxy");

const GOALS: &[Goal] = &[
    goal("http-h2 c1", "cpu", "CPU per request, 1 connection", ENVOY, 0.45),
    goal("http-h2 c64", "cpu", "CPU per request, 64 connections", ENVOY, 0.45),
    goal("http-h2 c256", "cpu", "CPU per request, 256 connections", ENVOY, 0.45),
    goal("http-h2 c1", "cpu", "CPU per request, 1 connection", HAPROXY, 1.0),
    goal("http-h2 c64", "cpu", "CPU per request, 64 connections", HAPROXY, 1.0),
    goal("http-h2 c256", "cpu", "CPU per request, 256 connections", HAPROXY, 1.0),
    goal("http-h2 c1", "p50", "p50 added, 1 connection", Bound::Added("envoy"), 0.40),
    goal("http-h2 c64", "p99", "p99, 64 connections", ENVOY, 0.50),
    goal("http-h2 c256", "p99", "p99, 256 connections", ENVOY, 0.50),
    goal("new-conn plain", "cpu", "CPU per new connection", ENVOY, 0.50),
    goal("new-conn resumed", "cpu", "CPU per new connection, mTLS resumed", ENVOY, 0.50),
    goal("new-conn full", "cpu", "CPU per new connection, mTLS full", ENVOY, 0.50),
    goal("bulk h2-down", "cpu_gb", "CPU per GB down, HTTP/2 in mTLS", ENVOY, 0.75),
    goal("bulk h2-up", "cpu_gb", "CPU per GB up, HTTP/2 in mTLS", ENVOY, 0.75),
    goal("bulk tcp-down", "cpu_gb", "CPU per GB down, TCP in mTLS", ENVOY, 0.75),
    goal("bulk tcp-up", "cpu_gb", "CPU per GB up, TCP in mTLS", ENVOY, 0.75),
    goal("tcp-plain tcp-down", "cpu_gb", "CPU per GB down, plaintext TCP", ENVOY, 0.30),
    goal("tcp-plain tcp-up", "cpu_gb", "CPU per GB up, plaintext TCP", ENVOY, 0.30),
    goal("idle 0", "rss_out", "RSS idle, outbound", ENVOY, 0.15),
    goal("idle 0", "rss_in", "RSS idle, inbound", ENVOY, 0.15),
    goal("idle 0", "rss_out", "RSS idle, outbound", Bound::Absolute, 10.0),
    goal("idle 0", "rss_in", "RSS idle, inbound", Bound::Absolute, 10.0),
    goal("idle 8000", "kb_conn_out", "memory per idle connection, outbound", ENVOY, 0.50),
    goal("idle 8000", "kb_conn_out", "memory per idle connection, outbound", Bound::Absolute, 8.0),
    goal("scale 5000", "kb_service", "memory per service", ENVOY, 0.10),
    goal("scale 5000", "kb_service", "memory per service", Bound::Absolute, 6.5),
    goal("scale 5000", "ready_ms", "time to ready", ENVOY, 0.15),
    goal("churn updates", "use_p99", "update in use, p99", Bound::Absolute, 5.0),
    goal("churn updates", "p99_factor", "p99 under updates / without", Bound::Absolute, 1.1),
    goal("failures killed", "lost", "lost by a killed replica, with retries", Bound::Absolute, 0.0),
    goal("failures app-killed", "lost", "lost by a killed application, with retries", Bound::Absolute, 0.0),
    goal("hops failing", "multiplier", "calls at the bottom of three hops", Bound::Absolute, 1.2),
    goal("observability all", "cpu_percent", "CPU of metrics, JSON logs and 1 % traces", Bound::Absolute, 15.0),
    goal("binary size", "binary_mb", "program, stripped", Bound::Absolute, 15.0),
];

/// A goal beside what was measured.
#[derive(Clone, Debug)]
pub(crate) struct Verdict {
    pub(crate) case: &'static str,
    pub(crate) what: &'static str,
    /// What the numbers are: a unit, or whose figure divides them.
    pub(crate) scale: String,
    pub(crate) most: f64,
    pub(crate) measured: Summary,
}

impl Verdict {
    pub(crate) fn met(&self) -> bool {
        self.measured.median <= self.most
    }
}

/// The goals that the run has figures for.
pub(crate) fn verdicts(run: &Run) -> Vec<Verdict> {
    let verdict = |goal: &Goal| {
        let case = run.cases.iter().find(|c| c.name() == goal.case)?;
        let measured = Summary::of(&values(case, goal)?)?;
        Some(Verdict { case: goal.case, what: goal.what, scale: scale(goal), most: goal.most, measured })
    };
    GOALS.iter().filter_map(verdict).collect()
}

/// The goals a run could not judge: its scenario or one of the contenders is not in it.
pub(crate) fn open(run: &Run) -> usize {
    GOALS.len() - verdicts(run).len()
}

fn scale(goal: &Goal) -> String {
    match goal.bound {
        Bound::Ratio(other) => format!("x {other}"),
        Bound::Added(other) => format!("x what {other} adds"),
        Bound::Absolute => figures::find(goal.key).map_or("", |figure| figure.unit).to_owned(),
    }
}

fn values(case: &Case, goal: &Goal) -> Option<Vec<f64>> {
    let own = case.entry("outrigger")?;
    match goal.bound {
        Bound::Absolute => Some(own.values(goal.key)),
        Bound::Ratio(other) => Some(own.ratios(case.entry(other)?, goal.key)),
        Bound::Added(other) => {
            let at = |contender: &str, round: usize| {
                case.entry(contender)?.rounds.get(round)?.as_ref()?.figures.get(goal.key).copied()
            };
            let added = |round| {
                let floor = at("none", round)?;
                let (ours, theirs) = (at("outrigger", round)? - floor, at(other, round)? - floor);
                (theirs > 0.0).then(|| ours / theirs)
            };
            Some((0..own.rounds.len()).filter_map(added).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::{Entry, Sample};

    #[test]
    fn what_is_added_is_compared_without_the_floor() {
        let entry = |contender: &str, p50: f64| {
            let mut sample = Sample::default();
            sample.set("p50", p50);
            Entry { contender: contender.into(), rounds: vec![Some(sample)], problem: None }
        };
        let entries = vec![entry("none", 0.1), entry("outrigger", 0.2), entry("envoy", 0.4)];
        let case = Case { scenario: "http-h2".into(), case: "c1".into(), title: String::new(), entries };
        let run = Run { cases: vec![case], ..Run::default() };
        let found = verdicts(&run);
        assert_eq!((found.len(), open(&run)), (1, GOALS.len() - 1));
        assert!((found[0].measured.median - 1.0 / 3.0).abs() < 1e-9 && found[0].met());
        assert_eq!(found[0].scale, "x what envoy adds");
    }

    #[test]
    fn goals_name_figures_of_the_catalogue() {
        for goal in GOALS {
            assert!(figures::find(goal.key).is_some_and(|f| f.better == figures::Better::Lower), "{}", goal.key);
            assert!(
                matches!(goal.bound, Bound::Ratio(_) | Bound::Added(_))
                    || !scale(goal).is_empty()
                    || goal.key == "p99_factor"
            );
        }
    }
}
