//! What the proxies used: CPU, context switches, memory, system calls, all from the kernel's own books.
//!
//! CPU time is the scheduler's run time of each thread in nanoseconds, split into user and system by the clock ticks of
//! the process. Interrupt work done on a thread's time is in it, for every contender alike.

mod memory;
mod syscalls;
mod usage;

pub(crate) use self::{memory::Memory, syscalls::count as count_syscalls, usage::Usage};

/// Which proxy of the pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Out,
    In,
}

impl Side {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Out => "out",
            Self::In => "in",
        }
    }
}

/// The processes of both sides; empty without proxies.
#[derive(Clone, Debug, Default)]
pub(crate) struct Proxies {
    pub(crate) out: Vec<u32>,
    pub(crate) into: Vec<u32>,
}

impl Proxies {
    pub(crate) fn is_empty(&self) -> bool {
        self.out.is_empty() && self.into.is_empty()
    }

    pub(crate) fn usage(&self) -> Pair<Usage> {
        Pair { out: Usage::of(&self.out), into: Usage::of(&self.into) }
    }

    pub(crate) fn memory(&self) -> Memory {
        Memory::of(&self.out, &self.into)
    }
}

/// Something of both sides.
#[derive(Clone, Debug)]
pub(crate) struct Pair<T> {
    pub(crate) out: T,
    pub(crate) into: T,
}

impl Pair<Usage> {
    /// What was used since `earlier`.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        Self { out: self.out.since(&earlier.out), into: self.into.since(&earlier.into) }
    }

    /// CPU seconds of both together.
    pub(crate) fn cpu(&self) -> f64 {
        self.out.cpu() + self.into.cpu()
    }
}
