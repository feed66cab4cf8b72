//! Memory of the two proxies.

use std::fs;

use super::usage::tree;

/// Bytes. `pss` shares common pages between the processes that map them: the same program twice counts once.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Memory {
    pub(crate) rss_out: u64,
    pub(crate) rss_in: u64,
    pub(crate) pss_out: u64,
    pub(crate) pss_in: u64,
}

impl Memory {
    pub(super) fn of(out: &[u32], into: &[u32]) -> Self {
        let ((rss_out, pss_out), (rss_in, pss_in)) = (of(out), of(into));
        Self { rss_out, rss_in, pss_out, pss_in }
    }
}

fn of(roots: &[u32]) -> (u64, u64) {
    let mut sum = (0, 0);
    for pid in tree(roots) {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
        sum.0 += kilobytes(&text, "Rss:") * 1024;
        sum.1 += kilobytes(&text, "Pss:") * 1024;
    }
    sum
}

fn kilobytes(text: &str, field: &str) -> u64 {
    let line = text.lines().find_map(|l| l.strip_prefix(field)).unwrap_or_default();
    line.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_memory_is_seen() {
        let (rss, pss) = of(&[std::process::id()]);
        assert!(rss > 100_000 && pss > 0 && pss <= rss, "{rss} {pss}");
        assert_eq!(kilobytes("Rss:     12 kB\nPss_Dirty: 5 kB\nPss:  7 kB\n", "Pss:"), 7);
    }
}
