//! Measurements of the control thread: once per second, and on request.

use std::rc::Rc;
use std::time::{Duration, SystemTime};

use crate::snapshot::Snapshot;
use crate::sys::{self, TcpSegments};

use super::events::Events;
use super::histograms::Measurements;
use super::overloads::Overloads;
use super::recent::Recent;
use super::refusals::Refusals;
use super::roster::Roster;
use super::shortages::Shortages;
use super::status;
use super::tcp_pressure::TcpPressure;
use super::workers::Workers;

/// What the control thread measures, beside the counts of workers.
pub(super) struct Metrics {
    /// Shared with tasks that gather the workers' histograms.
    pub(super) measurements: Rc<Measurements>,
    shortages: Shortages,
    refusals: Refusals,
    overloads: Overloads,
    tcp: TcpPressure,
    /// As they were a second ago at most.
    pub(super) segments: Option<TcpSegments>,
    pub(super) recent: Recent,
    pub(super) started_at: SystemTime,
    /// When rates were last updated, in ns of the workers' clock.
    ticked_at: u64,
}

impl Metrics {
    /// Nothing is measured yet, except by `measurements`.
    pub(super) fn new(measurements: &Rc<Measurements>) -> Self {
        Self {
            measurements: Rc::clone(measurements),
            shortages: Shortages::default(),
            refusals: Refusals::default(),
            overloads: Overloads::default(),
            tcp: TcpPressure::default(),
            segments: sys::tcp_segments(),
            recent: Recent::default(),
            started_at: SystemTime::now(),
            ticked_at: sys::monotonic(),
        }
    }

    /// How long the process has run.
    pub(super) fn uptime(&self) -> Duration {
        self.started_at.elapsed().unwrap_or_default()
    }

    /// What is lacking now, a sentence each.
    pub(super) fn lacks(&self) -> Vec<String> {
        let shortages = self.shortages.now().iter();
        let others = self.overloads.now().into_iter().chain(self.tcp.now());
        shortages.chain(others).cloned().collect()
    }

    /// Updates rates and samples for the last second, and reports its shortages.
    pub(super) fn tick(
        &mut self,
        workers: &Workers,
        snapshot: &Snapshot,
        roster: &mut Roster,
        events: &Events,
    ) {
        self.shortages
            .report(&workers.stats, snapshot, roster, events);
        self.refusals.tick(&workers.stats, snapshot, events);
        self.overloads.tick(&workers.stats, events);
        self.tcp.tick(sys::tcp_memory(), workers);
        self.segments = sys::tcp_segments();
        let now = sys::monotonic();
        let since = now - std::mem::replace(&mut self.ticked_at, now);
        status::tick(snapshot, &workers.stats, since);
        self.recent.tick(&workers.stats);
    }
}
