//! What a successor asks of the control loop, and when this process is ready to be one.

use std::time::{Duration, Instant};

use super::{Control, Ending};
use crate::app::replace::{Ask, Estate};

/// How long clusters may still wait for something once all else is ready.
const WARMING: Duration = Duration::from_secs(15);

/// Turns of housekeeping for which a process has to be ready: the last listener may have left the warming while its
/// snapshot is still on the way.
const STEADY: u32 = 2;

/// How far this process has come.
#[derive(Debug, Default)]
pub(super) struct Readiness {
    since: Option<Instant>,
    steady: u32,
    told: bool,
}

impl Readiness {
    /// Notes another look; true once, when it is time to take over.
    fn look(&mut self, ready: bool, warm: bool, now: Instant) -> bool {
        if self.told {
            return false;
        }
        if !ready {
            *self = Self::default();
            return false;
        }
        let since = *self.since.get_or_insert(now);
        self.steady = if warm || now >= since + WARMING { self.steady + 1 } else { 0 };
        self.told = self.steady >= STEADY;
        self.told
    }
}

impl Control {
    /// Does what a successor asks for.
    pub(super) fn handover(&mut self, ask: Ask) {
        match ask {
            Ask::Offer(reply) => {
                let _ = reply.send(self.estate());
            }
            Ask::Withdrawn => self.sockets.withdraw(),
            Ask::TakeOver { drain, done } => {
                self.sockets.leave();
                self.state.set_draining();
                self.state.set_sockets(self.sockets.bound(), Vec::new());
                if let Some(handover) = &self.beside.handover {
                    handover.admin.stop_accepting();
                }
                let ending = self.progress.ending.get_or_insert_with(|| Ending::begin(&self.shared, self.times.end));
                ending.hand_over(&self.shared, drain);
                let _ = done.send(());
            }
        }
    }

    fn estate(&mut self) -> Result<Estate, String> {
        let Some(handover) = &self.beside.handover else { return Err("nothing is handed over here".to_owned()) };
        if self.progress.ending.is_some() {
            return Err("it is about to end".to_owned());
        }
        if !self.progress.open {
            return Err("it does not serve yet".to_owned());
        }
        let servers = handover.admin.sockets().map_err(|e| format!("cannot share the admin sockets: {e}"))?;
        let listeners = self.sockets.offer().map_err(|e| format!("cannot share the listening sockets: {e}"))?;
        Ok(Estate { epoch: handover.epoch, listeners, servers })
    }

    /// Tells the successor in this process when it is ready.
    pub(super) fn look_ready(&mut self) {
        let Some(handover) = &self.beside.handover else { return };
        let status = self.subscription.status();
        let status = status.borrow();
        let ready = self.progress.open && self.progress.ending.is_none() && self.state.is_ready(&status);
        if self.progress.readiness.look(ready, status.warming.is_empty(), Instant::now()) {
            handover.ready.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_is_what_stays_ready() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut readiness = Readiness::default();
        assert!(!readiness.look(true, true, at(0)));
        assert!(!readiness.look(false, true, at(1)), "it was not");
        assert!(!readiness.look(true, true, at(2)) && readiness.look(true, true, at(3)));
        assert!(!readiness.look(true, true, at(4)), "told once");
        let mut cold = Readiness::default();
        assert!(!cold.look(true, false, at(0)) && !cold.look(true, false, at(14)));
        assert!(!cold.look(true, false, at(15)) && cold.look(true, false, at(16)), "not for ever");
    }
}
