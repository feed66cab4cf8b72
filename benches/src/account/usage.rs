//! CPU time and context switches of processes and everything they started.

use std::{collections::BTreeMap, fs, path::Path};

/// Counters of a process tree; meaningful as a difference.
#[derive(Clone, Debug, Default)]
pub(crate) struct Usage {
    threads: BTreeMap<u32, Thread>,
    ticks_user: u64,
    ticks_system: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Thread {
    nanos: u64,
    voluntary: u64,
    involuntary: u64,
}

impl Usage {
    pub(crate) fn of(roots: &[u32]) -> Self {
        let mut usage = Self::default();
        for pid in tree(roots) {
            let proc = Path::new("/proc").join(pid.to_string());
            let (user, system) = ticks(&proc).unwrap_or_default();
            usage.ticks_user += user;
            usage.ticks_system += system;
            for entry in fs::read_dir(proc.join("task")).into_iter().flatten().flatten() {
                if let Some((id, thread)) = thread(&entry.path()) {
                    usage.threads.insert(id, thread);
                }
            }
        }
        usage
    }

    /// Threads that ended in between are left out; the ones that began are in.
    pub(super) fn since(&self, earlier: &Self) -> Self {
        let threads = self.threads.iter().map(|(id, now)| {
            let then = earlier.threads.get(id).copied().unwrap_or_default();
            let thread = Thread {
                nanos: now.nanos.saturating_sub(then.nanos),
                voluntary: now.voluntary.saturating_sub(then.voluntary),
                involuntary: now.involuntary.saturating_sub(then.involuntary),
            };
            (*id, thread)
        });
        Self {
            threads: threads.collect(),
            ticks_user: self.ticks_user.saturating_sub(earlier.ticks_user),
            ticks_system: self.ticks_system.saturating_sub(earlier.ticks_system),
        }
    }

    /// CPU seconds.
    pub(crate) fn cpu(&self) -> f64 {
        self.threads.values().map(|t| t.nanos as f64 / 1e9).sum()
    }

    /// The user part of [`Usage::cpu`].
    pub(crate) fn user(&self) -> f64 {
        let ticks = self.ticks_user + self.ticks_system;
        // The quotient first: it is never above one, so the user part is never above the whole.
        if ticks == 0 { 0.0 } else { self.cpu() * (self.ticks_user as f64 / ticks as f64) }
    }

    /// Context switches: given up, and taken away.
    pub(crate) fn switches(&self) -> (u64, u64) {
        self.threads.values().fold((0, 0), |(v, i), t| (v + t.voluntary, i + t.involuntary))
    }

    /// Part of the CPU time that the busiest thread used: 1 divided by the workers is even.
    pub(crate) fn busiest_share(&self) -> f64 {
        let total: u64 = self.threads.values().map(|t| t.nanos).sum();
        let busiest = self.threads.values().map(|t| t.nanos).max().unwrap_or(0);
        if total == 0 { 0.0 } else { busiest as f64 / total as f64 }
    }
}

/// The roots and all their descendants.
pub(super) fn tree(roots: &[u32]) -> Vec<u32> {
    let mut found = roots.to_vec();
    let mut next = 0;
    while let Some(pid) = found.get(next).copied() {
        next += 1;
        for entry in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
            let children = fs::read_to_string(entry.path().join("children")).unwrap_or_default();
            found.extend(children.split_whitespace().filter_map(|c| c.parse::<u32>().ok()));
        }
    }
    found
}

/// Fields of a `stat` file after the name, which may contain anything.
fn ticks(proc: &Path) -> Option<(u64, u64)> {
    let stat = fs::read_to_string(proc.join("stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    Some((fields.get(11)?.parse().ok()?, fields.get(12)?.parse().ok()?))
}

fn thread(task: &Path) -> Option<(u32, Thread)> {
    let id = task.file_name()?.to_str()?.parse().ok()?;
    let schedstat = fs::read_to_string(task.join("schedstat")).ok()?;
    let nanos = schedstat.split_whitespace().next()?.parse().ok()?;
    let status = fs::read_to_string(task.join("status")).ok()?;
    let field =
        |name: &str| status.lines().find_map(|l| l.strip_prefix(name)).and_then(|v| v.trim().parse().ok()).unwrap_or(0);
    let (voluntary, involuntary) = (field("voluntary_ctxt_switches:"), field("nonvoluntary_ctxt_switches:"));
    Some((id, Thread { nanos, voluntary, involuntary }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_cpu_is_counted_once_and_fully() {
        let own = [std::process::id()];
        let before = Usage::of(&own);
        let start = std::time::Instant::now();
        let (mut sum, mut used) = (0u64, Usage::default());
        while used.cpu() < 0.05 {
            assert!(start.elapsed().as_secs() < 60, "this thread got no CPU, or none was counted");
            (0..1_000_000u64).for_each(|n| sum = std::hint::black_box(sum.wrapping_add(n)));
            used = Usage::of(&own).since(&before);
        }
        assert!(used.user() <= used.cpu());
        assert!(used.busiest_share() > 0.0 && used.busiest_share() <= 1.0);
        // Other tests of this process may run beside it, on no more threads than there are.
        let threads = fs::read_dir("/proc/self/task").unwrap().count() as f64;
        assert!(used.cpu() <= start.elapsed().as_secs_f64() * threads + 0.1);
    }

    #[test]
    fn children_belong_to_the_tree() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let found = tree(&[std::process::id()]);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(found.contains(&child.id()) && found.contains(&std::process::id()));
    }
}
