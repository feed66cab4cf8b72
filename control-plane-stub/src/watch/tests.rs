use std::{fs, io, os::unix::fs::symlink};

use tokio::time::timeout;

use super::*;
use crate::server::source::Worlds;

const DEADLINE: Duration = Duration::from_secs(20);

struct Bench {
    root: tempfile::TempDir,
    worlds: Worlds,
    status: Arc<Status>,
    rescan: mpsc::Sender<oneshot::Sender<()>>,
    events: Events,
    shutdown: CancellationToken,
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// A loader that refuses the text `bad` and whose only route is what the files hold.
fn load(dir: &Path) -> Result<Loaded, Vec<Problem>> {
    let problem = |file: &Path, reason: &str| Problem {
        file: file.to_owned(),
        document: 1,
        path: "spec".into(),
        reason: reason.into(),
    };
    if !dir.exists() {
        return Err(vec![problem(dir, "is missing")]);
    }
    let scan = Scan::of(dir);
    let mut text = String::new();
    for file in &scan.files {
        text += &fs::read_to_string(file).unwrap_or_default();
    }
    if text.contains("bad") {
        return Err(vec![problem(&scan.files[0], "is bad")]);
    }
    let generate: Generate = Box::new(move |_| {
        let any = outrigger_wire::pb::google::protobuf::Any { type_url: "x".into(), value: text.clone().into() };
        Resources { routes: [(text.clone(), any)].into(), ..Resources::default() }
    });
    Ok(generate.into())
}

impl Bench {
    fn start(prepare: impl FnOnce(&Path)) -> Self {
        Self::start_with(prepare, Arc::new(load))
    }

    fn start_with(prepare: impl FnOnce(&Path), load: Arc<Load>) -> Self {
        let root = tempfile::tempdir().unwrap();
        prepare(root.path());
        let (publisher, worlds) = tokio::sync::watch::channel(None);
        let (rescan, asked) = mpsc::channel(4);
        let (status, shutdown) = (Arc::new(Status::default()), CancellationToken::new());
        let dir = root.path().join("config");
        let watch = DirectoryWatch::new(&dir, load, publisher, Arc::clone(&status)).unwrap();
        let events = watch.events.clone();
        tokio::spawn(watch.run(asked, shutdown.clone()));
        Self { root, worlds, status, rescan, events, shutdown }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.root.path().join("config").join(name)
    }

    async fn text(&mut self, wanted: &str) -> u64 {
        let is = |world: &Option<Arc<Generation>>| world.as_ref().is_some_and(|g| text_of(g) == wanted);
        let world = timeout(DEADLINE, self.worlds.wait_for(is)).await.expect("in time").unwrap();
        world.as_ref().unwrap().version
    }

    /// At once: a file that is written in place is empty for a moment, and that is a world of its own.
    fn replace(&self, name: &str, text: &str) {
        fs::write(self.file(".replaced"), text).unwrap();
        fs::rename(self.file(".replaced"), self.file(name)).unwrap();
    }

    async fn sync(&self) {
        let (done, wait) = oneshot::channel();
        self.rescan.send(done).await.unwrap();
        timeout(DEADLINE, wait).await.unwrap().unwrap();
    }
}

fn text_of(generation: &Generation) -> String {
    let node = Node {
        id: "n".into(),
        kind: crate::resources::ClientKind::Envoy,
        namespace: "n".into(),
        service_account: "s".into(),
        ips: Vec::new(),
        labels: Default::default(),
        locality: Default::default(),
    };
    let metrics = crate::status::metrics::Metrics::default();
    let snapshot = generation.snapshot(&node, &metrics);
    snapshot.set(&crate::server::types::TypeUrl::Route).keys().next().cloned().unwrap_or_default()
}

fn plain(root: &Path) {
    fs::create_dir(root.join("config")).unwrap();
    fs::write(root.join("config/a.yaml"), "one").unwrap();
}

#[tokio::test]
async fn an_edit_and_an_atomic_rename_arrive() {
    let mut bench = Bench::start(plain);
    assert_eq!(bench.text("one").await, 1);
    fs::write(bench.file("a.yaml"), "two").unwrap();
    bench.text("two").await;
    fs::write(bench.file(".a.tmp"), "three").unwrap();
    fs::rename(bench.file(".a.tmp"), bench.file("a.yaml")).unwrap();
    bench.text("three").await;
    fs::create_dir(bench.file("sub")).unwrap();
    fs::write(bench.file("sub/b.yml"), "+four").unwrap();
    bench.text("three+four").await;
    fs::remove_file(bench.file("a.yaml")).unwrap();
    bench.text("+four").await;
}

#[tokio::test]
async fn a_configmap_swap_arrives() {
    let mut bench = Bench::start(|root| {
        let dir = root.join("config");
        fs::create_dir_all(dir.join("..1")).unwrap();
        fs::write(dir.join("..1/a.yaml"), "one").unwrap();
        symlink("..1", dir.join("..data")).unwrap();
        symlink("..data/a.yaml", dir.join("a.yaml")).unwrap();
    });
    assert_eq!(bench.text("one").await, 1);
    for (number, text) in [(2, "two"), (3, "three")] {
        fs::create_dir(bench.file(&format!("..{number}"))).unwrap();
        fs::write(bench.file(&format!("..{number}/a.yaml")), text).unwrap();
        symlink(format!("..{number}"), bench.file("..data_tmp")).unwrap();
        fs::rename(bench.file("..data_tmp"), bench.file("..data")).unwrap();
        fs::remove_dir_all(bench.file(&format!("..{}", number - 1))).unwrap();
        bench.text(text).await;
    }
}

#[tokio::test]
async fn the_directory_itself_may_be_a_link_that_is_swapped() {
    let mut bench = Bench::start(|root| {
        for (name, text) in [("v1", "one"), ("v2", "two")] {
            fs::create_dir(root.join(name)).unwrap();
            fs::write(root.join(name).join("a.yaml"), text).unwrap();
        }
        symlink("v1", root.join("config")).unwrap();
    });
    bench.text("one").await;
    symlink("v2", bench.root.path().join("new")).unwrap();
    fs::rename(bench.root.path().join("new"), bench.root.path().join("config")).unwrap();
    bench.text("two").await;
    fs::write(bench.root.path().join("v2/a.yaml"), "three").unwrap();
    bench.text("three").await;
}

#[tokio::test]
async fn a_bad_edit_keeps_the_last_good_world_and_is_reported() {
    let mut bench = Bench::start(plain);
    assert_eq!(bench.text("one").await, 1);
    bench.replace("a.yaml", "bad");
    bench.sync().await;
    let config = bench.status.config();
    assert_eq!((config.version, config.problems.len()), (1, 1));
    assert_ne!(config.served, config.observed);
    assert_eq!(bench.text("one").await, 1);

    bench.replace("a.yaml", "one");
    bench.sync().await;
    let config = bench.status.config();
    assert_eq!((config.version, config.problems.len()), (1, 0), "back at what is served: nothing to push");
    assert_eq!(config.served, config.observed);
    assert_eq!(config.served, content_hash(&bench.root.path().join("config")));

    bench.replace("a.yaml", "two");
    bench.sync().await;
    assert_eq!(bench.text("two").await, 2);
}

/// What a loader of real documents serves to one sidecar: the routes of port 80.
fn routes_of(generation: &Generation) -> String {
    let node = Node {
        id: "n".into(),
        kind: crate::resources::ClientKind::Outrigger,
        namespace: "default".into(),
        service_account: "s".into(),
        ips: Vec::new(),
        labels: Default::default(),
        locality: Default::default(),
    };
    let snapshot = generation.snapshot(&node, &crate::status::metrics::Metrics::default());
    let any = &snapshot.set(&crate::server::types::TypeUrl::Route)["80"].body;
    outrigger_wire::json::bytes_to_value("envoy.config.route.v3.RouteConfiguration", &any.value).unwrap().to_string()
}

#[tokio::test]
async fn contradictions_in_traffic_policy_keep_the_last_good_world_and_are_named() {
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {clusterIP: 10.0.0.1, ports: [{name: http, port: 80}]}\n";
    let route = |more: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name}\nspec: {{hosts: [a], http: [{{route: [{{destination: {{host: a}}}}]{more}}}]}}\n",
            name = "{name: a}"
        )
    };
    let load = |dir: &Path| {
        let world = crate::model::load(dir)?;
        Ok(Loaded::from(Box::new(move |node: &Node| crate::translate::translate(&world, node)) as Generate))
    };
    let prepare = |root: &Path| {
        fs::create_dir(root.join("config")).unwrap();
        fs::write(root.join("config/service.yaml"), service).unwrap();
        fs::write(root.join("config/route.yaml"), route(", timeout: 5s")).unwrap();
    };
    let bench = Bench::start_with(prepare, Arc::new(load));
    bench.sync().await;
    let served = || routes_of(bench.worlds.borrow().as_ref().unwrap());
    let good = served();
    assert!(good.contains("\"timeout\":\"5s\""), "{good}");
    for (more, path, reason) in [
        (", timeout: 1s, retires: {}", "spec.http[0].retires", "is not a field known here"),
        (", timeout: 1s, redirect: {uri: /x}", "spec.http[0]", "needs exactly one of route, redirect"),
        (", fault: {delay: {fixedDelay: 1s}}", "spec.http[0].fault.delay.percentage", "no request is delayed"),
        (", mirror: {host: gone}", "spec.http[0].mirror.host", "no Service or ServiceEntry declares gone"),
        (", corsPolicy: {maxAge: soon}", "spec.http[0].corsPolicy.maxAge", "is not a duration"),
    ] {
        bench.replace("route.yaml", &route(more));
        bench.sync().await;
        let problems = bench.status.config().problems;
        let told =
            problems.iter().any(|p| p.path == path && p.reason.contains(reason) && p.file.ends_with("route.yaml"));
        assert!(told, "{more}: {problems:?}");
        assert_eq!(served(), good, "{more}");
    }
    bench.replace("route.yaml", &route(", timeout: 6s"));
    bench.sync().await;
    assert!(bench.status.config().problems.is_empty());
    assert!(served().contains("\"timeout\":\"6s\""));
}

#[tokio::test]
async fn a_bad_start_serves_nothing_until_it_is_mended() {
    let mut bench = Bench::start(|root| {
        fs::create_dir(root.join("config")).unwrap();
        fs::write(root.join("config/a.yaml"), "bad").unwrap();
    });
    bench.sync().await;
    assert!(bench.worlds.borrow().is_none());
    assert_eq!(bench.status.config().problems[0].reason, "is bad");
    fs::write(bench.file("a.yaml"), "good").unwrap();
    assert_eq!(bench.text("good").await, 1);
}

#[tokio::test]
async fn a_directory_that_comes_late_or_again_is_watched() {
    let mut bench = Bench::start(|_| {});
    bench.sync().await;
    assert!(bench.worlds.borrow().is_none());
    for (version, text) in [(1, "one"), (2, "two")] {
        plain(bench.root.path());
        fs::write(bench.file("a.yaml"), text).unwrap();
        bench.text(text).await;
        fs::remove_dir_all(bench.root.path().join("config")).unwrap();
        bench.sync().await;
        assert!(bench.status.config().version >= version);
    }
}

/// A watch whose looks are taken by the test.
fn still(load: Arc<Load>) -> (tempfile::TempDir, DirectoryWatch, Worlds) {
    let root = tempfile::tempdir().unwrap();
    plain(root.path());
    let (publisher, worlds) = tokio::sync::watch::channel(None);
    let watch = DirectoryWatch::new(&root.path().join("config"), load, publisher, Arc::default()).unwrap();
    (root, watch, worlds)
}

#[tokio::test]
async fn a_file_that_was_cut_and_not_yet_written_is_no_world() {
    let (root, mut watch, worlds) = still(Arc::new(load));
    let file = root.path().join("config/a.yaml");
    assert!(!watch.look().await);
    let version = || worlds.borrow().as_ref().map(|generation| generation.version);
    fs::write(&file, "").unwrap();
    assert!(watch.look().await, "is looked at again soon");
    assert_eq!(version(), Some(1));
    fs::write(&file, "two").unwrap();
    assert!(!watch.look().await);
    assert_eq!((version(), watch.hollow_since), (Some(2), None));
    // Who never writes is not waited for for ever: the loader decides.
    fs::write(&file, "").unwrap();
    watch.hollow_since = Some(Instant::now().checked_sub(PATIENCE).unwrap());
    assert!(!watch.look().await);
    assert_eq!(version(), Some(3));
}

#[tokio::test]
async fn a_question_waits_for_a_writer() {
    let mut bench = Bench::start(plain);
    assert_eq!(bench.text("one").await, 1);
    let mut file = fs::File::create(bench.file("a.yaml")).unwrap();
    let told = async {
        while bench.events.busy().is_none() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(DEADLINE, told).await.unwrap();
    let (done, mut answer) = oneshot::channel();
    bench.rescan.send(done).await.unwrap();
    io::Write::write_all(&mut file, b"two").unwrap();
    assert!(timeout(Duration::from_millis(100), &mut answer).await.is_err(), "answered about half a file");
    io::Write::write_all(&mut file, b"three").unwrap();
    drop(file);
    timeout(DEADLINE, answer).await.unwrap().unwrap();
    assert_eq!(bench.text("twothree").await, 2, "neither nothing nor a half was served");
}

#[tokio::test]
async fn a_directory_that_lost_all_documents_keeps_what_is_served() {
    let load = |dir: &Path| {
        let world = crate::model::load(dir)?;
        let empty = world.documents == 0;
        let generate: Generate = Box::new(move |node: &Node| crate::translate::translate(&world, node));
        Ok(Loaded { empty, ..Loaded::from(generate) })
    };
    let namespace = "apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n";
    let bench = Bench::start_with(|root| fs::create_dir(root.join("config")).unwrap(), Arc::new(load));
    bench.sync().await;
    assert_eq!(bench.status.config().version, 1, "one may begin with nothing");
    bench.replace("a.yaml", namespace);
    bench.sync().await;
    for emptied in ["removed", "a comment"] {
        match emptied {
            "removed" => fs::remove_file(bench.file("a.yaml")).unwrap(),
            _ => bench.replace("a.yaml", "# nothing\n"),
        }
        bench.sync().await;
        let config = bench.status.config();
        assert_eq!((config.version, config.problems.len()), (2, 1), "{emptied}");
        assert!(config.problems[0].reason.contains("v1 Namespace will do"), "{:?}", config.problems);
        bench.replace("a.yaml", namespace);
        bench.sync().await;
        assert!(bench.status.config().problems.is_empty());
    }
}

#[tokio::test]
async fn a_loader_that_panics_is_a_problem_and_no_end() {
    let panics = |dir: &Path| match fs::read_to_string(dir.join("a.yaml")).as_deref() {
        Ok("bad") => panic!("on purpose"),
        _ => load(dir),
    };
    let (root, mut watch, _worlds) = still(Arc::new(panics));
    let file = root.path().join("config/a.yaml");
    watch.look().await;
    fs::write(&file, "bad").unwrap();
    watch.look().await;
    let config = watch.status.config();
    assert_eq!(config.problems.len(), 1);
    assert_ne!(config.served, config.observed, "nobody takes this for reached");
    fs::write(&file, "one").unwrap();
    watch.look().await;
    assert!(watch.status.config().problems.is_empty());
    assert_eq!(watch.status.config().served, watch.status.config().observed);
}

#[test]
fn names_and_contents_make_the_hash_and_places_do_not() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for dir in [&one, &two] {
        fs::write(dir.path().join("a.yaml"), "x").unwrap();
    }
    assert_eq!(content_hash(one.path()), content_hash(two.path()));
    fs::write(two.path().join("README"), "ignored").unwrap();
    fs::write(two.path().join(".b.yaml"), "ignored").unwrap();
    assert_eq!(content_hash(one.path()), content_hash(two.path()));
    fs::rename(two.path().join("a.yaml"), two.path().join("b.yaml")).unwrap();
    assert_ne!(content_hash(one.path()), content_hash(two.path()));
}
