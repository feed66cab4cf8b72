//! What changes all the time: services, routes, endpoints and policies of the mesh, and how the second replica behaves.

use std::{
    net::Ipv4Addr,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use super::{
    stage::{Stage, service},
    wait,
};
use crate::drive::faulty::Mood;

/// Between two changes.
const EVERY: Duration = Duration::from_secs(3);
/// How long after it an answer may still show what the application was told before.
const GRACE: Duration = Duration::from_secs(3);
/// The most services that come and go.
const SERVICES: usize = 20;

const MOODS: [Mood; 6] = [Mood::Well, Mood::Unavailable, Mood::Well, Mood::Slow, Mood::Moody, Mood::Breaks];

/// What was told last: explains failures.
#[derive(Debug)]
pub(super) struct Told {
    /// The mood, since when, and when it last was to break answers.
    mood: Mutex<(Mood, Option<Instant>)>,
    pub(super) pushes: AtomicU64,
}

impl Default for Told {
    fn default() -> Self {
        Self { mood: Mutex::new((Mood::Well, None)), pushes: AtomicU64::new(0) }
    }
}

impl Told {
    fn set(&self, mood: Mood) {
        let mut told = self.mood.lock().unwrap_or_else(PoisonError::into_inner);
        if told.0 == Mood::Breaks || mood == Mood::Breaks {
            told.1 = Some(Instant::now());
        }
        told.0 = mood;
    }

    /// Whether answers may break off because the application breaks them off.
    pub(super) fn breaks(&self) -> bool {
        let told = self.mood.lock().unwrap_or_else(PoisonError::into_inner);
        told.0 == Mood::Breaks || told.1.is_some_and(|at| at.elapsed() < GRACE)
    }

    pub(super) fn mood(&self) -> String {
        format!("the other replica is {:?}", self.mood.lock().unwrap_or_else(PoisonError::into_inner).0)
    }
}

/// Changes one thing after the other until it is told to stop; leaves the mesh as it was at the start.
pub(super) fn run(stage: &Stage, told: &Told, over: &dyn Fn() -> bool) {
    for turn in 0.. {
        wait(EVERY, over);
        if over() {
            break;
        }
        match turn % 5 {
            0 => stage.mesh.apply("others.yaml", &others(turn / 5)),
            1 => stage.mesh.apply("policy.yaml", &policy((turn / 5).is_multiple_of(2), turn)),
            2 => stage.mesh.apply("routes.yaml", &routes(turn)),
            3 => stage.join_flaky((turn / 5).is_multiple_of(2)),
            _ => {
                let mood = MOODS[(turn / 5) % MOODS.len()];
                // Known before it happens.
                told.set(mood);
                stage.controls.set(mood);
                continue;
            }
        }
        told.pushes.fetch_add(1, Relaxed);
    }
    told.set(Mood::Well);
    stage.controls.set(Mood::Well);
    stage.join_flaky(true);
}

/// What has to be there from the beginning.
pub(super) fn first(stage: &Stage) {
    stage.mesh.apply("routes.yaml", &routes(0));
}

/// Services that nobody calls, with rules and ports of their own: more of them, then fewer.
fn others(turn: usize) -> String {
    let phase = turn % (2 * SERVICES);
    let count = 1 + phase.min(2 * SERVICES - phase);
    let one = |n: usize| {
        let address = Ipv4Addr::new(10, 96, 1, n as u8 + 1);
        let ports = [("http", 80, 1), ("tcp-other", 7000 + n as u16, 2)];
        format!(
            "{}---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: other-{n}, namespace: \
             default}}\nspec: {{host: other-{n}, trafficPolicy: {{connectionPool: {{http: {{http1MaxPendingRequests: \
             {}}}}}}}}}\n---\n",
            service(&format!("other-{n}"), address, "app: nobody", &ports),
            turn + 1,
        )
    };
    (0..count).map(one).collect()
}

/// Denies a path of HTTP, and something of somebody else.
fn policy(deny: bool, turn: usize) -> String {
    let path = if deny { "/denied" } else { "/nobody" };
    let policy = |name: &str, app: &str, path: &str| {
        format!(
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: {name}, namespace: default}}\n\
             spec:\n  selector: {{matchLabels: {{app: {app}}}}}\n  action: DENY\n  rules:\n  - to: [{{operation: {{paths: \
             [\"{path}\"], ports: [\"8080\"]}}}}]\n"
        )
    };
    format!("{}---\n{}", policy("paths", "server", path), policy("others", "nobody", &format!("/{turn}")))
}

/// The routes of the service everybody calls: a header and a rule that change, and what has to be there always.
fn routes(turn: usize) -> String {
    let to = "route: [{destination: {host: app}}]";
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: app, namespace: default}}\nspec:\n  \
         hosts: [app]\n  http:\n  - match: [{{port: 80, uri: {{exact: /slow}}}}]\n    {to}\n    timeout: 300ms\n  \
         - match: [{{port: 80, uri: {{exact: /fault}}}}]\n    {to}\n    \
         fault: {{abort: {{percentage: {{value: 100}}, httpStatus: 418}}}}\n  \
         - match: [{{port: 80, uri: {{prefix: /nobody-{turn}}}}}]\n    {to}\n    timeout: {}s\n  \
         - {to}\n    headers: {{request: {{set: {{x-turn: \"{turn}\"}}}}}}\n",
        turn % 7 + 1,
    )
}

#[cfg(test)]
mod tests {
    use super::{super::stage::APP, *};

    #[test]
    fn broken_answers_are_explained_for_a_while() {
        let told = Told::default();
        assert!(!told.breaks());
        told.set(Mood::Breaks);
        assert!(told.breaks() && told.mood().contains("Breaks"));
        told.set(Mood::Well);
        assert!(told.breaks(), "what was under way");
    }

    #[test]
    fn services_come_and_go() {
        let count = |turn: usize| others(turn).matches("kind: Service").count();
        assert_eq!([0, 1, SERVICES, 2 * SERVICES - 1, 2 * SERVICES].map(count), [1, 2, SERVICES + 1, 2, 1]);
        assert!(service("a", APP, "app: x", &[("http", 80, 1)]).ends_with("targetPort: 1}\n"));
    }
}
