//! What somebody asks of the control loop, and the end it may lead to.

use std::{sync::atomic::Ordering, time::Instant};

use nix::sys::signal::{Signal, kill};

use super::{Control, Ending, report};
use crate::{
    admin::{self, Request},
    drain::{Phase, Source},
    ir::listener::Direction,
    l7::Pressure,
    worker::Command,
};

impl Control {
    /// Does what somebody asked for; true when that is the end, now.
    pub(super) fn asked(&mut self, request: Request) -> bool {
        match request {
            Request::Replace => {
                if let Some(supervisor) = self.beside.supervisor
                    && let Err(error) = kill(supervisor, Signal::SIGUSR2)
                {
                    tracing::error!(%error, "cannot ask the supervisor for a successor");
                }
            }
            Request::ReopenLogs => self.builder.sinks.reopen(),
            Request::Reload => {
                self.builder.sinks.reopen();
                self.beside.reload.notify_one();
            }
            Request::DrainListeners { inbound_only, graceful } => {
                tracing::info!(inbound_only, graceful, "draining listeners");
                self.state.set_drained();
                let drains = &self.shared.drains;
                drains.inbound.advance(Phase::Drain);
                if !inbound_only {
                    drains.unspecified.advance(Phase::Drain);
                    drains.outbound.advance(Phase::Drain);
                }
                if graceful {
                    self.progress.closing = Some((Instant::now() + self.times.end.total, inbound_only));
                } else {
                    self.close(inbound_only);
                }
            }
            Request::Signal => {
                let begun = self.progress.ending.is_some();
                self.end();
                let times = self.times.end;
                let Some(ending) = &mut self.progress.ending else { return false };
                if !ending.first_signal() {
                    self.cut();
                } else if begun {
                    ending.hasten(times);
                } else {
                    ending.linger(times);
                }
            }
            // Who asks for the end this way has nothing left to call.
            Request::Stop => {
                self.end();
                self.progress.ending.iter_mut().for_each(Ending::release);
            }
            Request::Cut => return true,
        }
        false
    }

    /// Begins the end, once.
    pub(super) fn end(&mut self) {
        if self.progress.ending.is_none() {
            self.state.set_draining();
            self.progress.ending = Some(Ending::begin(&self.shared, self.times.end));
        }
    }

    /// Cuts what is left, and says what it was.
    fn cut(&mut self) {
        let Some(ending) = &mut self.progress.ending else { return };
        let all = self.shared.connections.load(Ordering::Relaxed);
        if all > 0 && ending.begins_to_cut() {
            let report::Open { lines, more } = report::open(&self.builder.registry);
            tracing::warn!(connections = all, more, open = lines.join("; "), "cutting what is left");
        }
        ending.cut(&self.shared);
    }

    pub(super) fn close(&mut self, inbound_only: bool) {
        self.progress.closing = None;
        self.sockets.close_direction(Direction::Inbound);
        if !inbound_only {
            self.sockets.close_direction(Direction::Unspecified);
            self.sockets.close_direction(Direction::Outbound);
        }
        self.bind();
    }

    /// Has the workers shed what there is no memory or no descriptor for.
    pub(super) fn watch_limits(&mut self) {
        let changed = self.beside.overload.look();
        let picture = self.beside.overload.picture();
        self.state.set_overload(admin::Overload {
            memory: picture.memory,
            descriptors: picture.descriptors,
            sheds: picture.pressure >= Pressure::Shed,
            closes_idle: picture.pressure >= Pressure::Tight,
            rises: picture.rises,
        });
        let Some(pressure) = changed else { return };
        tracing::warn!(?pressure, memory = picture.memory, descriptors = picture.descriptors, "overload");
        self.sockets.tell(|| Command::Pressure(pressure));
        if pressure == Pressure::Tight {
            // Those that idle look at their clocks again.
            let drains = &self.shared.drains;
            [&drains.inbound, &drains.unspecified, &drains.outbound].into_iter().for_each(Source::wake);
        }
    }

    /// Moves an end that is under way on; true when it is over.
    pub(super) fn ended(&mut self) -> bool {
        if self.progress.ending.as_ref().is_some_and(Ending::overdue) {
            self.cut();
        }
        let Some(ending) = &mut self.progress.ending else { return false };
        if ending.closes_inbound() {
            self.sockets.close_direction(Direction::Inbound);
            self.sockets.close_direction(Direction::Unspecified);
            self.state.set_sockets(self.sockets.bound(), Vec::new());
        }
        ending.over(&self.shared, self.beside.application.may_call(), self.sockets.emptied())
    }
}
