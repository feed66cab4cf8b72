//! What the kernel says of memory and descriptors: cgroup v2, cgroup v1, and the process's own tables.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use nix::sys::resource::{Resource, getrlimit};

/// Groups in each other that are looked at every second.
const MOST_GROUPS: usize = 16;

/// Where a cgroup says what it uses.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Files {
    usage: PathBuf,
    stat: PathBuf,
    /// Page cache that the kernel takes back without asking.
    reclaimable: &'static str,
}

/// Limits, and where use is read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::app) struct Sources {
    /// The operator's, of what the process itself has resident.
    own: Option<u64>,
    /// Those of its cgroup and of the groups around it: each counts, whoever uses the rest of it.
    groups: Vec<(u64, Files)>,
    descriptors: Option<u64>,
}

impl Sources {
    /// `memory` is the operator's limit, which goes before those of cgroups.
    pub(in crate::app) fn find(memory: Option<u64>) -> Self {
        let mut sources = Self { own: memory.filter(|limit| *limit > 0), ..Self::default() };
        sources.refresh();
        sources
    }

    /// Reads the limits again: those of a container can be changed while it runs.
    pub(in crate::app) fn refresh(&mut self) {
        if self.own.is_none() {
            let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
            self.groups = cgroups(&groups, |file| fs::read_to_string(file).ok());
        }
        self.descriptors = getrlimit(Resource::RLIMIT_NOFILE).ok().map(|(soft, _)| soft).filter(|n| *n < u64::MAX);
    }

    /// Which part of the memory is used, where that is most.
    pub(in crate::app) fn memory(&self, read: impl Fn(&Path) -> Option<String>) -> Option<f64> {
        if let Some(limit) = self.own {
            return Some(part(resident(&read(Path::new("/proc/self/status"))?)?, limit));
        }
        let of = |(limit, files): &(u64, Files)| {
            let usage: u64 = read(&files.usage)?.trim().parse().ok()?;
            let stat = read(&files.stat).unwrap_or_default();
            Some(part(usage.saturating_sub(field(&stat, files.reclaimable).unwrap_or(0)), *limit))
        };
        self.groups.iter().filter_map(of).max_by(f64::total_cmp)
    }

    /// Which part of the descriptors is in use.
    pub(in crate::app) fn descriptors(&self) -> Option<f64> {
        // Since Linux 6.2 the size of the folder is the number of its entries.
        let open = match fs::metadata("/proc/self/fd").ok()?.size() {
            0 => fs::read_dir("/proc/self/fd").ok()?.count() as u64,
            count => count,
        };
        Some(part(open, self.descriptors?))
    }
}

#[allow(clippy::cast_precision_loss, reason = "a part of what there is needs no precision")]
fn part(used: u64, limit: u64) -> f64 {
    used as f64 / limit.max(1) as f64
}

fn field(stat: &str, name: &str) -> Option<u64> {
    stat.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

/// Resident bytes, of `/proc/self/status`.
fn resident(status: &str) -> Option<u64> {
    let kilobytes = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    kilobytes.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
}

/// The limits on the way up from the process's own group, and the files of the groups that have them.
fn cgroups(groups: &str, read: impl Fn(&Path) -> Option<String>) -> Vec<(u64, Files)> {
    let of = |line: &str| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?);
        match controllers.is_empty() {
            true => Some(("/sys/fs/cgroup", path.to_owned(), "memory.max", "memory.current", "inactive_file")),
            false if controllers.split(',').any(|c| c == "memory") => Some((
                "/sys/fs/cgroup/memory",
                path.to_owned(),
                "memory.limit_in_bytes",
                "memory.usage_in_bytes",
                "total_inactive_file",
            )),
            false => None,
        }
    };
    let mut limits = Vec::new();
    for (root, path, limit, usage, reclaimable) in groups.lines().filter_map(of) {
        let own = Path::new(root).join(path.trim_start_matches('/'));
        // In a container the path may be the host's: then only the root is there.
        for group in own.ancestors().take_while(|group| group.starts_with(root)) {
            let Some(bytes) = read(&group.join(limit)).and_then(|text| text.trim().parse::<u64>().ok()) else {
                continue;
            };
            // Version 1 writes "no limit" as a number that no machine has.
            if (1..1 << 60).contains(&bytes) && limits.len() < MOST_GROUPS {
                let stat = group.join("memory.stat");
                limits.push((bytes, Files { usage: group.join(usage), stat, reclaimable }));
            }
        }
    }
    limits
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn files(list: &[(&str, &str)]) -> impl Fn(&Path) -> Option<String> {
        let files: HashMap<PathBuf, String> =
            list.iter().map(|(path, text)| (PathBuf::from(path), (*text).to_owned())).collect();
        move |path| files.get(path).cloned()
    }

    fn found(groups: &str, read: impl Fn(&Path) -> Option<String>) -> Sources {
        Sources { groups: cgroups(groups, read), ..Sources::default() }
    }

    #[test]
    fn the_fullest_group_of_version_2_counts_without_the_page_cache() {
        let mut all = vec![
            ("/sys/fs/cgroup/pods/a/memory.max", "max\n"),
            ("/sys/fs/cgroup/pods/memory.max", "1000\n"),
            ("/sys/fs/cgroup/memory.max", "5000\n"),
            ("/sys/fs/cgroup/pods/memory.current", "900\n"),
            ("/sys/fs/cgroup/pods/memory.stat", "anon 1\ninactive_file 400\nfile 500\n"),
            ("/sys/fs/cgroup/memory.current", "1000\n"),
        ];
        let sources = found("0::/pods/a\n", files(&all));
        assert_eq!(sources.memory(files(&all)), Some(0.5));
        assert_eq!(sources.descriptors(), None);
        assert_eq!(sources.memory(|_| None), None, "what cannot be read is no pressure");
        // The larger limit, but others in that group use most of it.
        all.retain(|(file, _)| *file != "/sys/fs/cgroup/memory.current");
        all.push(("/sys/fs/cgroup/memory.current", "4500\n"));
        assert_eq!(sources.memory(files(&all)), Some(0.9));
    }

    #[test]
    fn an_operators_limit_is_one_of_the_process_alone() {
        let read = files(&[("/proc/self/status", "VmRSS: 3 kB\n"), ("/sys/fs/cgroup/memory.current", "900000\n")]);
        let sources = Sources { own: Some(6 << 10), ..found("0::/\n", files(&[("/sys/fs/cgroup/memory.max", "9")])) };
        assert_eq!(sources.memory(read), Some(0.5));
    }

    #[test]
    fn version_1_and_machines_without_limits() {
        let read = files(&[
            ("/sys/fs/cgroup/memory/kube/memory.limit_in_bytes", "9223372036854771712\n"),
            ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "2000"),
            ("/sys/fs/cgroup/memory/memory.usage_in_bytes", "1500"),
            ("/sys/fs/cgroup/memory/memory.stat", "total_inactive_file 500\ninactive_file 1\n"),
        ]);
        let groups = "5:cpu,cpuacct:/kube\n4:memory:/kube\n";
        assert_eq!(found(groups, &read).memory(&read), Some(0.5));
        assert_eq!(cgroups(groups, |_| None), []);
        for odd in ["", "x", "0:", "::::", "0::/../../etc\n"] {
            assert_eq!(cgroups(odd, |_| None), [], "{odd}");
        }
    }

    #[test]
    fn the_process_knows_its_own_use() {
        let sources = Sources::find(Some(1 << 40));
        let memory = sources.memory(|file| fs::read_to_string(file).ok()).unwrap();
        assert!(memory > 0.0 && memory < 1.0, "{memory}");
        let descriptors = sources.descriptors().unwrap();
        assert!(descriptors > 0.0 && descriptors < 1.0, "{descriptors}");
        assert_eq!(resident("VmPeak:\t 9 kB\nVmRSS:\t     3 kB\n"), Some(3 * 1024));
        assert_eq!(resident("VmRSS: many"), None);
    }
}
