use std::{
    net::SocketAddr,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use tokio::sync::mpsc;

use super::*;
use crate::{
    ir::endpoint::{Address, Endpoint, Health, Locality},
    upstream::{Deps, testing},
};

/// Answers by script: the first of the list until only one is left.
struct Scripted {
    answers: Mutex<HashMap<String, Vec<Result<Answer, String>>>>,
    asked: AtomicUsize,
}

impl Scripted {
    fn new(answers: Vec<(&str, Vec<Result<Answer, String>>)>) -> Arc<Self> {
        let answers = answers.into_iter().map(|(n, a)| (n.to_owned(), a)).collect();
        Arc::new(Self { answers: Mutex::new(answers), asked: AtomicUsize::new(0) })
    }
}

impl Resolve for Scripted {
    fn resolve<'a>(&'a self, host: &'a str, _: LookupFamily) -> Lookup<'a> {
        self.asked.fetch_add(1, SeqCst);
        let mut answers = self.answers.lock().unwrap();
        let script = answers.get_mut(host).unwrap();
        let answer = if script.len() > 1 { script.remove(0) } else { script[0].clone() };
        Box::pin(async move { answer })
    }
}

fn ips(addresses: &[&str]) -> Result<Answer, String> {
    Ok(Answer { addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(), ttl: None })
}

fn host(name: &str, port: u16, weight: u32) -> Endpoint {
    Endpoint {
        address: Address::Host { host: name.into(), port },
        hostname: "".into(),
        weight,
        health: Health::Healthy,
        metadata: None,
        check: None,
    }
}

fn template(endpoints: Vec<Endpoint>) -> Arc<Assignment> {
    Arc::new(Assignment {
        localities: vec![Locality { region: "r".into(), priority: 1, endpoints, ..Locality::default() }],
        overprovisioning: 140,
    })
}

fn options(refresh: Duration) -> DnsOptions {
    DnsOptions { family: LookupFamily::Auto, refresh_rate: refresh, respect_ttl: false }
}

fn cluster(discovery: Discovery) -> Arc<Cluster> {
    let config = Arc::new(testing::config("dns", discovery));
    Cluster::build(config, None, &Deps::default(), None).unwrap()
}

type Published = mpsc::UnboundedReceiver<(Name, Arc<Assignment>)>;

fn watch(resolver: &Arc<Scripted>, cluster: &Arc<Cluster>) -> (Watcher, Published) {
    let (tx, rx) = mpsc::unbounded_channel();
    let publish: Publish = Arc::new(move |name, assignment| tx.send((name, assignment)).unwrap());
    let mut watcher = Watcher::new(resolver.clone(), publish);
    watcher.set([cluster]);
    (watcher, rx)
}

async fn next(published: &mut Published) -> Arc<Assignment> {
    timeout(Duration::from_secs(20), published.recv()).await.expect("published in time").unwrap().1
}

fn addresses(assignment: &Assignment) -> Vec<String> {
    assignment.localities.iter().flat_map(|l| &l.endpoints).map(|e| e.address.to_string()).collect()
}

#[tokio::test]
async fn strict_has_all_addresses_and_keeps_the_template() {
    let resolver = Scripted::new(vec![("a.example", vec![ips(&["10.0.0.2", "10.0.0.1", "10.0.0.2", "fd00::1"])])]);
    let endpoints = vec![host("a.example", 80, 7), host("192.0.2.1", 81, 1), host("[::1]", 82, 1)];
    let cluster = cluster(Discovery::StrictDns(template(endpoints), options(Duration::from_secs(60))));
    let (_watcher, mut published) = watch(&resolver, &cluster);
    let assignment = next(&mut published).await;
    assert_eq!(addresses(&assignment), ["10.0.0.1:80", "10.0.0.2:80", "[fd00::1]:80", "192.0.2.1:81", "[::1]:82"]);
    let locality = &assignment.localities[0];
    assert_eq!((&*locality.region, locality.priority), ("r", 1));
    assert_eq!((locality.endpoints[0].weight, &*locality.endpoints[0].hostname), (7, "a.example"));
    assert_eq!(resolver.asked.load(SeqCst), 1, "literals need no lookup");

    let built = Cluster::build(cluster.config.clone(), Some(assignment), &Deps::default(), Some(&cluster));
    assert_eq!(built.unwrap().members().len(), 5);
}

#[tokio::test]
async fn failures_keep_addresses_and_answers_replace_them() {
    let resolver = Scripted::new(vec![(
        "a.example",
        vec![ips(&["10.0.0.1"]), Err("SERVFAIL".into()), ips(&["10.0.0.1"]), ips(&["10.0.0.9"]), ips(&[])],
    )]);
    let discovery = Discovery::StrictDns(template(vec![host("a.example", 80, 1)]), options(Duration::from_millis(5)));
    let cluster = cluster(discovery);
    let (_watcher, mut published) = watch(&resolver, &cluster);
    assert_eq!(addresses(&*next(&mut published).await), ["10.0.0.1:80"]);
    assert_eq!(addresses(&*next(&mut published).await), ["10.0.0.9:80"], "neither failure nor equality is an update");
    assert!(addresses(&*next(&mut published).await).is_empty(), "an empty answer is an answer");
    let totals: HashMap<_, _> = cluster.stats.totals().into_iter().map(|(n, _, v)| (n, v)).collect();
    assert_eq!(totals["update_failure"], 1);
    assert!(totals["update_success"] >= 4 && totals["update_empty"] >= 1, "{totals:?}");
}

#[tokio::test]
async fn a_first_failure_ends_the_wait_for_endpoints() {
    let resolver = Scripted::new(vec![("a.example", vec![Err("REFUSED".into()), ips(&["10.0.0.1"])])]);
    let discovery = Discovery::StrictDns(template(vec![host("a.example", 80, 1)]), options(Duration::from_millis(5)));
    let cluster = cluster(discovery);
    let (_watcher, mut published) = watch(&resolver, &cluster);
    assert!(addresses(&*next(&mut published).await).is_empty());
    assert_eq!(addresses(&*next(&mut published).await), ["10.0.0.1:80"]);
}

#[tokio::test]
async fn logical_is_one_endpoint_with_the_answer_in_order() {
    let resolver = Scripted::new(vec![(
        "a.example",
        vec![ips(&["10.0.0.2", "10.0.0.1"]), ips(&[]), ips(&["10.0.0.1", "10.0.0.2"])],
    )]);
    let discovery = Discovery::LogicalDns(template(vec![host("a.example", 80, 1)]), options(Duration::from_millis(5)));
    let cluster = cluster(discovery);
    let (_watcher, mut published) = watch(&resolver, &cluster);
    let deps = Deps::default();
    let first =
        Cluster::build(cluster.config.clone(), Some(next(&mut published).await), &deps, Some(&cluster)).unwrap();
    let [member] = first.members() else { panic!("{:?}", first.members()) };
    let resolved =
        |e: &crate::upstream::Endpoint| e.resolved().unwrap().iter().map(SocketAddr::to_string).collect::<Vec<_>>();
    assert_eq!(&*member.endpoint.label, "a.example:80");
    assert_eq!(resolved(&member.endpoint), ["10.0.0.2:80", "10.0.0.1:80"]);
    let second = Cluster::build(cluster.config.clone(), Some(next(&mut published).await), &deps, Some(&first)).unwrap();
    assert!(Arc::ptr_eq(&second.members()[0].endpoint, &member.endpoint), "the endpoint outlives the answer");
    assert_eq!(resolved(&member.endpoint), ["10.0.0.1:80", "10.0.0.2:80"]);
}

#[tokio::test]
async fn removed_clusters_are_no_longer_resolved() {
    let resolver = Scripted::new(vec![("a.example", vec![ips(&["10.0.0.1"])])]);
    let discovery = Discovery::StrictDns(template(vec![host("a.example", 80, 1)]), options(Duration::from_millis(1)));
    let cluster = cluster(discovery);
    let (mut watcher, mut published) = watch(&resolver, &cluster);
    next(&mut published).await;
    watcher.set([&cluster]);
    assert_eq!(watcher.running.len(), 1);
    watcher.set([]);
    drop(watcher);
    // The publisher lives in the task: the channel ends with it.
    let end = timeout(Duration::from_secs(20), published.recv()).await.expect("the task ends");
    assert!(end.is_none());
}

#[tokio::test]
async fn the_system_resolver_reads_etc_hosts() {
    let resolver = SystemResolver::new();
    let Ok(hosts) = std::fs::read_to_string("/etc/hosts") else { return };
    if hosts
        .lines()
        .any(|l| l.split_whitespace().collect::<Vec<_>>().as_slice().starts_with(&["127.0.0.1", "localhost"]))
    {
        let answer = resolver.resolve("localhost", LookupFamily::V4Only).await.unwrap();
        assert!(answer.addresses.contains(&"127.0.0.1".parse().unwrap()), "{answer:?}");
    }
}
