//! A soak: mixed load at a fixed, moderate rate through a mesh that changes all the time, and a verdict at its end.
//!
//! Owns the run from the first namespace to the verdict. What must be flat is flat, nothing panics, and every request
//! that was not good has a known reason.

mod load;
mod origin;
mod pushes;
mod stage;
mod tally;
mod verdict;
mod watch;

use std::{
    fmt::Write as _,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use clap::Args;

use self::{
    load::Clients,
    pushes::Told,
    stage::Stage,
    tally::Tally,
    verdict::Judged,
    watch::{Seen, Subject},
};
use crate::{drive, host, interrupt};

/// One connection of so many pieces of work may be refused at first.
const REFUSED_PART: u64 = 20_000;

/// How long a soak takes, and where its figures go.
#[derive(Clone, Debug, Args)]
pub(crate) struct SoakOptions {
    /// Length of the load, in minutes
    #[arg(long, default_value_t = 60.0, value_name = "N")]
    minutes: f64,
    /// All rates are multiplied by it: less for slow machines and builds
    #[arg(long, default_value_t = 1.0, value_name = "FACTOR")]
    rate: f64,
    /// Folder for soak.csv and soak.txt
    #[arg(long, default_value = "target/soak", value_name = "DIR")]
    output: PathBuf,
}

/// Whether it was good.
pub(crate) fn run(options: &SoakOptions) -> anyhow::Result<()> {
    ensure!(nix::unistd::geteuid().is_root(), "root is needed for network namespaces");
    ensure!(options.minutes >= 0.5, "half a minute is the least");
    ensure!(options.rate > 0.0, "--rate must be more than nothing");
    interrupt::end_orderly()?;
    std::fs::create_dir_all(&options.output)?;
    drive::idle::raise_open_files()?;
    eprintln!("starting the mesh");
    let mut stage = Stage::start()?;
    pushes::first(&stage);
    stage.mesh.settle();
    let subjects = watch::subjects(&mut stage);
    let (clients, seen, took) = soak(&stage, &subjects, options)?;
    let judged = judge(&mut stage, &clients, &seen);
    let good = judged.iter().all(|judged| judged.good);
    let text = report(&clients, &seen, &judged, took);
    println!("{text}");
    std::fs::write(options.output.join("soak.txt"), &text)?;
    if !good {
        let logs = keep_logs(&stage, &options.output);
        eprintln!("what the processes said: {logs:?}");
    }
    interrupt::go_on()?;
    ensure!(good, "the soak failed");
    Ok(())
}

/// Waits, unless it is over before.
fn wait(length: Duration, over: &dyn Fn() -> bool) {
    let end = Instant::now() + length;
    while !over() && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(100).min(end.saturating_duration_since(Instant::now())));
    }
}

fn soak(stage: &Stage, subjects: &[Subject], options: &SoakOptions) -> anyhow::Result<(Clients, Seen, Duration)> {
    let clients = Clients {
        tally: Arc::new(Tally::default()),
        stop: Arc::new(AtomicBool::new(false)),
        told: Arc::new(Told::default()),
        rate: options.rate,
    };
    let (started, length) = (Instant::now(), Duration::from_secs_f64(options.minutes * 60.0));
    let busy = host::Busy::now();
    let stop = clients.stop.clone();
    let over = move || stop.load(Relaxed) || interrupt::came() || started.elapsed() >= length;
    let mut report = |seen: &Seen| {
        let (good, explained, unexplained) = clients.tally.sums();
        let rss: Vec<String> =
            seen.looks.iter().filter_map(|(name, l)| Some(format!("{name} {}", l.last()?.rss_kb / 1024))).collect();
        eprintln!(
            "{:5.0} s: {good} good, {explained} as expected, {unexplained} unexplained; RSS MB: {}; machine {:.0} % busy",
            started.elapsed().as_secs_f64(),
            rss.join(", "),
            busy.share() * 100.0,
        );
    };
    let csv = options.output.join("soak.csv");
    let log = stage.access_log();
    let seen = std::thread::scope(|scope| {
        // Whoever ends early, by an error or a panic, ends it for all.
        let guard = Ending(clients.stop.clone());
        let own = clients.clone();
        let pod = stage.client.pod.clone();
        let load = scope.spawn(move || {
            let _ending = Ending(own.stop.clone());
            pod.within(|| drive::block_on(load::run(own)))
        });
        let (told, stop, over_too) = (clients.told.clone(), clients.stop.clone(), over.clone());
        let pushes = scope.spawn(move || {
            let _ending = Ending(stop);
            pushes::run(stage, &told, &over_too);
        });
        let seen = watch::run(subjects, (&log, &csv), &mut report, &over);
        drop(guard);
        let ended = |what: &str| format!("{what} panicked");
        load.join().map_err(|_| anyhow::anyhow!(ended("the load")))?.context("the load")?;
        pushes.join().map_err(|_| anyhow::anyhow!(ended("who changes the mesh")))?;
        seen
    })?;
    Ok((clients, seen, started.elapsed()))
}

struct Ending(Arc<AtomicBool>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

fn judge(stage: &mut Stage, clients: &Clients, seen: &Seen) -> Vec<Judged> {
    let mut judged = verdict::flatness(seen);
    let mut add = |good: bool, text: String| judged.push(Judged { text, good });
    let (good, _, unexplained) = clients.tally.sums();
    add(good > 0 && unexplained == 0, format!("{unexplained} unexplained failures, {good} good"));
    let refused = load::refused();
    add(refused * REFUSED_PART <= good, format!("{refused} connections refused at first, good when asked again"));
    for (kind, ends) in clients.tally.all() {
        let any = ends.good + ends.explained.values().sum::<u64>();
        if any == 0 {
            add(false, format!("{kind}: nothing went well"));
        }
    }
    let panics: u64 = seen.looks.iter().filter_map(|(_, looks)| looks.last()).map(|look| look.panics).sum();
    add(panics == 0, format!("{panics} panics counted"));
    let all = [&mut stage.client, &mut stage.server, &mut stage.other];
    let said = all.into_iter().map(|w| (w.proxy.is_running(), w.proxy.output(), w.pod.name.clone()));
    let mut said: Vec<_> = said.collect();
    let control = stage.mesh.control();
    said.push((control.is_running(), control.output(), "control".into()));
    for (running, output, name) in said {
        let panic = output.lines().find(|line| line.contains("panicked at") || line.contains("panic:"));
        add(running && panic.is_none(), format!("{name}: running {running}, panic {panic:?}"));
    }
    let refusals = stage.mesh.status();
    let nacks: u64 = refusals["proxies"]
        .as_array()
        .into_iter()
        .flatten()
        .flat_map(|proxy| {
            let types = proxy["types"].as_object().into_iter().flatten();
            types.map(|(_, report)| report["nacks"].as_u64().unwrap_or(0)).collect::<Vec<_>>()
        })
        .sum();
    add(nacks == 0, format!("{nacks} updates refused of {} pushed", clients.told.pushes.load(Relaxed)));
    let spans = stage.spans.load(Relaxed);
    add(spans > 0, format!("{spans} spans received"));
    add(
        seen.log_lines > 0 && seen.broken_lines == 0,
        format!("{} lines logged, {} broken", seen.log_lines, seen.broken_lines),
    );
    add(seen.failed_scrapes == 0, format!("{} scrapes, {} failed", seen.scrapes, seen.failed_scrapes));
    for (name, looks) in seen.looks.iter().filter(|(name, _)| name != "control") {
        let (first, last) = (looks.first(), looks.last());
        let renewals = last.zip(first).map_or(0, |(last, first)| last.renewals.saturating_sub(first.renewals));
        let minutes = last.map_or(0.0, |last| last.seconds) / 60.0;
        // Renewed half way through two minutes, spread.
        add(renewals as f64 >= (minutes / 2.0 - 0.5).floor(), format!("{name}: {renewals} certificates renewed"));
    }
    judged
}

fn report(clients: &Clients, seen: &Seen, judged: &[Judged], took: Duration) -> String {
    let mut text = format!("{:.1} minutes; {}\n\n{}\n", took.as_secs_f64() / 60.0, facts(), clients.tally.text());
    for (name, looks) in &seen.looks {
        let Some((first, last)) = looks.first().zip(looks.last()) else { continue };
        let cpu = (last.cpu - first.cpu) / (last.seconds - first.seconds).max(1.0);
        let _ = writeln!(
            text,
            "{name:8} RSS {} kB, PSS {} kB, allocated {} kB, {} descriptors, {} threads, {} + {} connections, {} series, {:.1} % of a CPU",
            last.rss_kb,
            last.pss_kb,
            last.allocated_kb,
            last.fds,
            last.threads,
            last.connections,
            last.upstream,
            last.series,
            cpu * 100.0
        );
    }
    text.push('\n');
    for judged in judged {
        let _ = writeln!(text, "{} {}", if judged.good { "ok  " } else { "FAIL" }, judged.text);
    }
    let failed = judged.iter().filter(|judged| !judged.good).count();
    let _ = writeln!(text, "\n{}", if failed == 0 { "GOOD".to_owned() } else { format!("FAILED: {failed} criteria") });
    text
}

fn facts() -> String {
    let facts = host::facts();
    let of = |key: &str| facts.get(key).cloned().unwrap_or_default();
    format!("{}, {}, kernel {}, commit {}", of("date"), of("cpu"), of("kernel"), of("commit"))
}

/// The logs of the processes go with their namespaces: kept where somebody will look.
fn keep_logs(stage: &Stage, to: &std::path::Path) -> anyhow::Result<Vec<String>> {
    let mut kept = Vec::new();
    for entry in std::fs::read_dir(stage.mesh.dir())? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "log") {
            let Some(name) = path.file_name() else { bail!("a file without a name") };
            std::fs::copy(&path, to.join(name))?;
            kept.push(name.to_string_lossy().into_owned());
        }
    }
    Ok(kept)
}
