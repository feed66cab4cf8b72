//! The allocator, and giving memory back when a thread comes to rest.
//!
//! Reading a bootstrap or a large update takes many times the memory that its result needs. The allocator returns freed
//! pages only while it is being called, so a proxy that then idles would hold them for ever. The same goes for the
//! program: what start-up and configuration ran stays mapped, several times what requests run. The third place with
//! `unsafe` code beside sockets and splice: neither has a safe name.
#![allow(unsafe_code)]

use std::{
    alloc::{GlobalAlloc, Layout},
    path::Path,
    time::{Duration, Instant},
};

/// Time without a change before memory is given back.
const QUIET: Duration = Duration::from_millis(300);

/// Time from one giving back to the next: single updates now and then are not worth one each.
const APART: Duration = Duration::from_secs(10);

/// mimalloc: returns what bursts freed, which the system's allocator keeps, and is faster on small objects.
///
/// Its function for any alignment has a slow path that most layouts do not need: a block of `mi_malloc` has the
/// alignment of its size's largest power of two, up to 16.
#[derive(Debug)]
pub struct Allocator;

/// Whether every block of this layout's size is aligned well enough.
const fn is_ordinary(layout: Layout) -> bool {
    layout.align() <= 8 || layout.align() == 16 && layout.size() >= 16
}

// SAFETY: all functions hand the layout on to mimalloc, whose blocks are aligned as the branch says, live until they
// are freed, and may be freed and resized by any of its functions whichever made them. Sizes never are zero here.
unsafe impl GlobalAlloc for Allocator {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        unsafe {
            if is_ordinary(layout) {
                libmimalloc_sys::mi_malloc(layout.size()).cast()
            } else {
                libmimalloc_sys::mi_malloc_aligned(layout.size(), layout.align()).cast()
            }
        }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        unsafe {
            if is_ordinary(layout) {
                libmimalloc_sys::mi_zalloc(layout.size()).cast()
            } else {
                libmimalloc_sys::mi_zalloc_aligned(layout.size(), layout.align()).cast()
            }
        }
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, _: Layout) {
        // SAFETY: as above.
        unsafe { libmimalloc_sys::mi_free(block.cast()) }
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as above.
        unsafe {
            if layout.align() <= 8 {
                libmimalloc_sys::mi_realloc(block.cast(), size).cast()
            } else {
                libmimalloc_sys::mi_realloc_aligned(block.cast(), size, layout.align()).cast()
            }
        }
    }
}

/// Gives memory that this thread freed back to the kernel.
pub(super) fn give_back() {
    // SAFETY: the function has no preconditions and synchronises with other threads by itself.
    unsafe { libmimalloc_sys::mi_collect(true) };
}

/// Unmaps the program's own code and constants; what is run again comes back from the page cache, a fault for every
/// 64 kB. Nothing is lost: these pages were never written.
fn give_back_program() {
    let Ok(program) = std::fs::read_link("/proc/self/exe") else { return };
    let Ok(maps) = std::fs::read_to_string("/proc/self/maps") else { return };
    for (start, length) in maps.lines().filter_map(|line| unwritten(line, &program)) {
        // SAFETY: a range of whole pages as the kernel lists them, of a private mapping of a file that never was
        // writable: discarded pages are read from the file again, which cannot change while it is being run.
        unsafe { libc::madvise(std::ptr::without_provenance_mut(start), length, libc::MADV_DONTNEED) };
    }
}

/// The range of a line of `/proc/self/maps` (proc_pid_maps(5)) that maps code or constants of `program`. Other read-only
/// parts were written by the dynamic linker before it protected them.
fn unwritten(line: &str, program: &Path) -> Option<(usize, usize)> {
    let mut fields = line.split_ascii_whitespace();
    let (range, permissions, offset) = (fields.next()?, fields.next()?, fields.next()?);
    let path = fields.nth(2)?;
    let constant = permissions == "r--p" && offset.bytes().all(|b| b == b'0');
    if Path::new(path) != program || !(permissions == "r-xp" || constant) {
        return None;
    }
    let (start, end) = range.split_once('-')?;
    let (start, end) = (usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?);
    Some((start, end.checked_sub(start)?))
}

/// Notices the moment when configuration stops changing.
#[derive(Debug, Default)]
pub(super) struct Trim {
    /// When to give back; `None` when there is nothing.
    due: Option<Instant>,
    last: Option<Instant>,
}

impl Trim {
    /// Configuration changed: memory was used and freed.
    pub(super) fn changed(&mut self, now: Instant) {
        self.due = Some(self.last.map_or(now, |last| last + APART).max(now + QUIET));
    }

    /// When [`Self::give_back`] is to be called.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Gives memory back, once per period of change.
    pub(super) fn give_back(&mut self, now: Instant) {
        if self.take(now) {
            give_back();
            give_back_program();
        }
    }

    fn take(&mut self, now: Instant) -> bool {
        let taken = self.due.take_if(|due| *due <= now).is_some();
        if taken {
            self.last = Some(now);
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_aligned_as_asked() {
        for align in [1, 2, 4, 8, 16, 32, 64, 128, 4096] {
            for size in [1, 7, 8, 9, 15, 16, 17, 24, 33, 40, 100, 1000, 1025, 3000, 70_000, 2_000_000] {
                let layout = Layout::from_size_align(size, align).unwrap();
                // SAFETY: the blocks are used within their sizes and freed once.
                unsafe {
                    for _ in 0..3 {
                        let block = Allocator.alloc(layout);
                        assert!(!block.is_null() && block.addr().is_multiple_of(align), "{layout:?} {block:?}");
                        block.write_bytes(0xff, size);
                        let grown = Allocator.realloc(block, layout, size + 9);
                        assert_eq!(grown.addr() % align, 0, "{layout:?} {grown:?}");
                        assert_eq!(*grown.add(size - 1), 0xff);
                        Allocator.dealloc(grown, Layout::from_size_align(size + 9, align).unwrap());
                        let zeroed = Allocator.alloc_zeroed(layout);
                        assert!(zeroed.addr().is_multiple_of(align) && *zeroed == 0 && *zeroed.add(size - 1) == 0);
                        Allocator.dealloc(zeroed, layout);
                    }
                }
            }
        }
    }

    #[test]
    fn only_what_was_never_written_is_unmapped() {
        let program = Path::new("/bin/p");
        let of = |line| unwritten(line, program);
        assert_eq!(of("1000-3000 r-xp 00002000 fe:00 12   /bin/p"), Some((0x1000, 0x2000)));
        assert_eq!(of("1000-2000 r--p 00000000 fe:00 12   /bin/p"), Some((0x1000, 0x1000)));
        for other in [
            "1000-3000 r--p 00002000 fe:00 12   /bin/p",
            "1000-3000 rw-p 00000000 fe:00 12   /bin/p",
            "1000-3000 r-xp 00002000 fe:00 12   /lib/libc.so.6",
            "1000-3000 r-xp 00000000 00:00 0",
            "1000-3000 r-xp 00000000 00:00 0    [vdso]",
            "",
        ] {
            assert_eq!(of(other), None, "{other}");
        }
    }

    #[test]
    fn the_program_runs_on_without_its_pages() {
        give_back_program();
        assert_eq!("the constants of this test".len(), 26);
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let program = std::fs::read_link("/proc/self/exe").unwrap();
        assert!(maps.lines().any(|line| line.contains("r-xp") && unwritten(line, &program).is_some()), "{maps}");
    }

    #[test]
    fn memory_is_given_back_once_after_every_period_of_change() {
        let mut trim = Trim::default();
        let start = Instant::now();
        assert!(trim.due().is_none() && !trim.take(start));
        trim.changed(start);
        trim.changed(start + QUIET / 2);
        assert!(!trim.take(start + QUIET), "it changed in between");
        assert_eq!(trim.due(), Some(start + QUIET * 3 / 2));
        assert!(trim.take(start + QUIET * 3 / 2));
        assert!(trim.due().is_none() && !trim.take(start + QUIET * 9));
        trim.changed(start + QUIET * 2);
        assert!(!trim.take(start + QUIET * 3), "not again so soon");
        assert!(trim.take(start + QUIET * 3 / 2 + APART));
    }
}
