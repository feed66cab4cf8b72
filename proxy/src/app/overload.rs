//! How short the process is of memory and descriptors, and what follows from it: Envoy's overload manager in small.
//!
//! Looks once a second. New work is refused first, then what idles is closed: established work goes on.

use std::fs;

use crate::l7::Pressure;

mod sources;

pub(super) use self::sources::Sources;

/// How far below a threshold the pressure has to fall before its action ends.
const RELIEF: f64 = 0.05;

/// How often is looked before the limits are read again.
const LOOKS_PER_REFRESH: u32 = 30;

/// What was seen and is done about it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Picture {
    /// Parts of what there is, each from 0; `None` where there is no limit.
    pub(super) memory: Option<f64>,
    pub(super) descriptors: Option<f64>,
    pub(super) pressure: Pressure,
    /// Times that the pressure rose.
    pub(super) rises: u64,
}

/// Judges what the sources say.
#[derive(Debug)]
pub(super) struct Overload {
    sources: Sources,
    /// `None`: nothing is ever given up.
    shed_at: Option<f64>,
    picture: Picture,
    looks: u32,
}

impl Overload {
    /// `percent` of what there is, from which on new work is refused; 0: never.
    pub(super) fn new(percent: u8, sources: Sources) -> Self {
        let shed_at = (percent > 0).then(|| f64::from(percent) / 100.0);
        Self { sources, shed_at, picture: Picture::default(), looks: 0 }
    }

    /// Looks. Gives back the pressure if it changed.
    pub(super) fn look(&mut self) -> Option<Pressure> {
        let shed_at = self.shed_at?;
        self.looks = self.looks.wrapping_add(1);
        if self.looks.is_multiple_of(LOOKS_PER_REFRESH) {
            self.sources.refresh();
        }
        self.picture.memory = self.sources.memory(|file| fs::read_to_string(file).ok());
        self.picture.descriptors = self.sources.descriptors();
        let worst = self.picture.memory.into_iter().chain(self.picture.descriptors).fold(0.0, f64::max);
        let before = self.picture.pressure;
        let now = judge(before, worst, shed_at);
        self.picture.pressure = now;
        if now > before {
            self.picture.rises += 1;
        }
        (now != before).then_some(now)
    }

    pub(super) fn picture(&self) -> Picture {
        self.picture
    }
}

/// What `part` of all calls for, given what is done so far.
fn judge(current: Pressure, part: f64, shed_at: f64) -> Pressure {
    let reached = |level: Pressure, at: f64| part >= if current >= level { at - RELIEF } else { at };
    let tight_at = f64::midpoint(shed_at, 1.0);
    if reached(Pressure::Tight, tight_at) {
        Pressure::Tight
    } else if reached(Pressure::Shed, shed_at) {
        Pressure::Shed
    } else {
        Pressure::None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_work_goes_first_then_what_idles_and_relief_has_to_be_real() {
        let mut level = Pressure::None;
        for (part, expected) in [
            (0.5, Pressure::None),
            (0.899, Pressure::None),
            (0.9, Pressure::Shed),
            (0.94, Pressure::Shed),
            (0.95, Pressure::Tight),
            (0.91, Pressure::Tight),
            (0.89, Pressure::Shed),
            (0.86, Pressure::Shed),
            (0.84, Pressure::None),
            (2.0, Pressure::Tight),
            (0.0, Pressure::None),
        ] {
            level = judge(level, part, 0.9);
            assert_eq!(level, expected, "{part}");
        }
    }

    #[test]
    fn switched_off_it_never_looks() {
        let mut overload = Overload::new(0, Sources::default());
        assert_eq!(overload.look(), None);
        assert_eq!(overload.picture(), Picture::default());
        let mut without_limits = Overload::new(90, Sources::default());
        assert_eq!(without_limits.look(), None);
    }
}
