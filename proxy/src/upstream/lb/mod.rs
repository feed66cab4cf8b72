//! Load balancing.
use std::sync::atomic::AtomicU64;

use crate::ir::endpoint::Health;

/// An endpoint as the balancer sees it.
#[derive(Clone, Copy, Debug)]
pub struct Host {
    pub weight: u32,
    pub health: Health,
    pub locality: u32,
}

/// A locality as the balancer sees it.
#[derive(Clone, Copy, Debug)]
pub struct Group {
    pub priority: u32,
    pub weight: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    RoundRobin,
    LeastRequest { choices: u32 },
    Random,
}

#[derive(Clone, Copy, Debug)]
pub struct Options {
    pub policy: Policy,
    pub panic_threshold: u8,
    /// In percent; 0 stands for the default of 140.
    pub overprovisioning: u32,
}

/// What one pick draws on.
pub struct Draw<'a> {
    pub random: u64,
    pub cursor: &'a AtomicU64,
    pub attempts: u32,
    pub active: &'a dyn Fn(usize) -> u32,
    pub excluded: &'a dyn Fn(usize) -> bool,
    pub excludes: bool,
}

pub struct Balancer;

impl Balancer {
    pub fn new(_hosts: &[Host], _groups: &[Group], _options: &Options) -> Self {
        Self
    }

    pub fn pick(&self, _draw: &Draw<'_>) -> Option<usize> {
        todo!()
    }
}
