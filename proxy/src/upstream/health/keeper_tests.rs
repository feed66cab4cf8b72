//! The keeper over clusters whose hosts come, fail and go.

use std::net::SocketAddr;

use tokio::net::TcpListener;

use super::*;
use crate::{
    ir::{
        ConfigSource,
        cluster::{Cluster as Config, Discovery, HealthPolicy},
        endpoint::{Address, Endpoint},
        health_check::{Pace, Probe, TcpProbe},
        outlier::OutlierDetection,
    },
    upstream::{Deps, Endpoint as Host, PickContext, health::state::tests::check, outlier::Outcome, testing},
};

fn config(policy: HealthPolicy) -> Arc<Config> {
    let discovery = Discovery::Eds { service_name: "c".into(), source: ConfigSource::Ads };
    Arc::new(Config { health: Some(Arc::new(policy)), panic_threshold: 0, ..testing::config("c", discovery) })
}

fn at(port: u16) -> Endpoint {
    testing::endpoint(Address::Ip(SocketAddr::from(([127, 0, 0, 1], port))))
}

fn view(config: &Arc<Config>, hosts: Vec<Endpoint>, before: Option<&Arc<Cluster>>) -> Arc<Cluster> {
    let deps = Deps::default();
    Cluster::build(config.clone(), Some(testing::assignment(hosts)), &deps, before).unwrap()
}

/// A keeper, and what it wants published.
fn keeper() -> (Keeper, mpsc::UnboundedReceiver<Vec<Name>>) {
    let (publish, published) = mpsc::unbounded_channel();
    let keeper = Keeper::start(move |names| {
        let _ = publish.send(names);
    });
    (keeper, published)
}

fn out(host: &Arc<Host>) -> bool {
    host.has_flag(HealthFlag::FailedOutlierCheck)
}

#[tokio::test]
async fn an_ejection_runs_its_course() {
    let outlier = OutlierDetection {
        interval: Duration::from_millis(10),
        base_ejection_time: Duration::from_secs(1),
        max_ejection_percent: 50,
        ..OutlierDetection::default()
    };
    let policy = config(HealthPolicy { outlier: Some(outlier), ..HealthPolicy::default() });
    let cluster = view(&policy, vec![at(1), at(2)], None);
    let host = cluster.members()[0].endpoint.clone();
    let (keeper, mut published) = keeper();
    keeper.set([&cluster].into_iter());
    until("the keeper has taken it", || cluster.is_watched()).await;
    for _ in 0..5 {
        cluster.report(&host, None, Outcome::Failed);
    }
    assert_eq!(published.recv().await.unwrap(), ["c".into()]);
    assert!(out(&host));
    let cluster = view(&policy, vec![at(1), at(2)], Some(&cluster));
    let pick = || cluster.pick_for_try(&PickContext { random: fastrand::u64(..), ..PickContext::default() }).unwrap();
    until("it may prove itself", || pick().probe.is_some()).await;
    for _ in 0..3 {
        let picked = pick();
        assert!(picked.probe.is_some() && Arc::ptr_eq(&picked.endpoint, &host));
        cluster.report(&picked.endpoint, picked.probe, Outcome::Response(200));
    }
    assert_eq!(published.recv().await.unwrap(), ["c".into()]);
    assert!(!out(&host) && pick().probe.is_none());
}

#[tokio::test]
async fn a_streak_before_anybody_listened_is_heard_later() {
    let outlier = OutlierDetection {
        interval: Duration::from_millis(10),
        max_ejection_percent: 50,
        ..OutlierDetection::default()
    };
    let policy = config(HealthPolicy { outlier: Some(outlier), ..HealthPolicy::default() });
    let cluster = view(&policy, vec![at(1), at(2)], None);
    let host = cluster.members()[0].endpoint.clone();
    // Workers use a cluster before the keeper has heard of it.
    (0..5).for_each(|_| cluster.report(&host, None, Outcome::Failed));
    let (keeper, mut published) = keeper();
    keeper.set([&cluster].into_iter());
    assert_eq!(published.recv().await.unwrap(), ["c".into()]);
    assert!(out(&host));
}

#[tokio::test]
async fn without_outlier_detection_everyone_is_back() {
    let outlier = OutlierDetection { max_ejection_percent: 50, ..OutlierDetection::default() };
    let cluster =
        view(&config(HealthPolicy { outlier: Some(outlier), ..HealthPolicy::default() }), vec![at(1), at(2)], None);
    let host = cluster.members()[0].endpoint.clone();
    let (keeper, mut published) = keeper();
    keeper.set([&cluster].into_iter());
    until("the keeper has taken it", || cluster.is_watched()).await;
    (0..5).for_each(|_| cluster.report(&host, None, Outcome::TimedOut));
    published.recv().await.unwrap();
    assert!(out(&host));
    keeper.set(std::iter::empty());
    published.recv().await.unwrap();
    assert!(!out(&host));
}

/// Takes connections until it is dropped.
async fn listening() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < deadline, "{what}");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn hosts_are_checked_as_they_come_and_as_long_as_they_are_there() {
    let soon = Duration::from_millis(5);
    let mut tcp = check(Probe::Tcp(TcpProbe::default()));
    tcp.pace = Pace { no_traffic_interval: soon, no_traffic_healthy_interval: soon, ..tcp.pace };
    tcp.unhealthy_threshold = 1;
    let policy = config(HealthPolicy { check: Some(tcp), ..HealthPolicy::default() });
    let ((first, port), (_second, other)) = (listening().await, listening().await);
    let cluster = view(&policy, vec![at(port)], None);
    let pending = |host: &Arc<Host>| host.has_flag(HealthFlag::PendingActiveCheck);
    let failed = |host: &Arc<Host>| host.has_flag(HealthFlag::FailedActiveCheck);
    let host = cluster.members()[0].endpoint.clone();
    assert!(pending(&host) && failed(&host) && cluster.awaits_checks());
    assert!(cluster.pick(&PickContext::default()).is_err(), "nothing is known of it");
    let (keeper, mut published) = keeper();
    keeper.set([&cluster].into_iter());
    assert_eq!(published.recv().await.unwrap(), ["c".into()]);
    assert!(!pending(&host) && !failed(&host) && !cluster.awaits_checks());
    let cluster = view(&policy, vec![at(port), at(other)], Some(&cluster));
    assert!(cluster.pick(&PickContext::default()).is_ok());
    let new = cluster.members()[1].endpoint.clone();
    assert!(pending(&new) && !pending(&host));
    keeper.refresh();
    until("the new host is checked", || !pending(&new) && !failed(&new)).await;
    drop(first);
    until("a host that is gone fails", || failed(&host)).await;
    // Not checked any more: what was found means nothing.
    let held = Arc::strong_count(&new);
    let plain = Arc::new(Config { health: None, ..(*policy).clone() });
    let cluster = view(&plain, vec![at(port)], Some(&cluster));
    keeper.set([&cluster].into_iter());
    assert!(!failed(&host) && cluster.pick(&PickContext::default()).is_ok());
    until("checks end", || Arc::strong_count(&new) + 3 <= held).await;
}
