//! What the kernel says of memory and descriptors: cgroup v2, cgroup v1, and the process's own tables.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use nix::sys::resource::{Resource, getrlimit};

/// Where a cgroup says what it uses.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Files {
    usage: PathBuf,
    stat: PathBuf,
    /// Page cache that the kernel takes back without asking.
    reclaimable: &'static str,
}

/// The limits, as they were at the start, and where use is read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::app) struct Sources {
    memory: Option<(u64, Option<Files>)>,
    descriptors: Option<u64>,
}

impl Sources {
    /// `memory` is the operator's limit, which goes before the cgroup's.
    pub(in crate::app) fn find(memory: Option<u64>) -> Self {
        let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let found = cgroup(&groups, |file| fs::read_to_string(file).ok());
        let memory = match (memory, found) {
            (Some(limit), found) => Some((limit, found.map(|(_, files)| files))),
            (None, found) => found.map(|(limit, files)| (limit, Some(files))),
        };
        let descriptors = getrlimit(Resource::RLIMIT_NOFILE).ok().map(|(soft, _)| soft).filter(|n| *n < u64::MAX);
        Self { memory: memory.filter(|(limit, _)| *limit > 0), descriptors }
    }

    /// Which part of the memory is used.
    pub(in crate::app) fn memory(&self, read: impl Fn(&Path) -> Option<String>) -> Option<f64> {
        let (limit, files) = self.memory.as_ref()?;
        let used = match files {
            Some(files) => {
                let usage: u64 = read(&files.usage)?.trim().parse().ok()?;
                let stat = read(&files.stat).unwrap_or_default();
                usage.saturating_sub(field(&stat, files.reclaimable).unwrap_or(0))
            }
            None => resident(&read(Path::new("/proc/self/status"))?)?,
        };
        Some(part(used, *limit))
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

/// The least limit on the way up from the process's own group, and the files of the group that has it.
fn cgroup(groups: &str, read: impl Fn(&Path) -> Option<String>) -> Option<(u64, Files)> {
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
    let mut least: Option<(u64, Files)> = None;
    for (root, path, limit, usage, reclaimable) in groups.lines().filter_map(of) {
        let own = Path::new(root).join(path.trim_start_matches('/'));
        // In a container the path may be the host's: then only the root is there.
        for group in own.ancestors().take_while(|group| group.starts_with(root)) {
            let Some(bytes) = read(&group.join(limit)).and_then(|text| text.trim().parse::<u64>().ok()) else {
                continue;
            };
            // Version 1 writes "no limit" as a number that no machine has.
            if bytes < 1 << 60 && least.as_ref().is_none_or(|(least, _)| bytes < *least) {
                let stat = group.join("memory.stat");
                least = Some((bytes, Files { usage: group.join(usage), stat, reclaimable }));
            }
        }
    }
    least
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

    #[test]
    fn the_least_limit_of_version_2_counts_without_the_page_cache() {
        let read = files(&[
            ("/sys/fs/cgroup/pods/a/memory.max", "max\n"),
            ("/sys/fs/cgroup/pods/memory.max", "1000\n"),
            ("/sys/fs/cgroup/memory.max", "5000\n"),
            ("/sys/fs/cgroup/pods/memory.current", "900\n"),
            ("/sys/fs/cgroup/pods/memory.stat", "anon 1\ninactive_file 400\nfile 500\n"),
        ]);
        let (limit, found) = cgroup("0::/pods/a\n", &read).unwrap();
        let sources = Sources { memory: Some((limit, Some(found))), descriptors: None };
        assert_eq!(sources.memory(&read), Some(0.5));
        assert_eq!(sources.descriptors(), None);
        assert_eq!(sources.memory(|_| None), None, "what cannot be read is no pressure");
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
        let (limit, found) = cgroup(groups, &read).unwrap();
        assert_eq!(limit, 2000);
        assert_eq!(Sources { memory: Some((limit, Some(found))), descriptors: None }.memory(&read), Some(0.5));
        assert_eq!(cgroup(groups, |_| None), None);
        for odd in ["", "x", "0:", "::::", "0::/../../etc\n"] {
            assert_eq!(cgroup(odd, |_| None), None, "{odd}");
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
