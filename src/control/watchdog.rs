//! Feeds the watchdog of the service manager while every worker's loop turns.

use std::future::pending;
use std::sync::Arc;

use tokio::time::{Interval, MissedTickBehavior};

use crate::worker::{Command, Stats};

use super::systemd;
use super::workers::Workers;

/// When it is to be fed, and what the workers were asked.
pub(super) struct Watchdog {
    period: Interval,
    /// The number that the workers were last asked to show.
    beat: u64,
}

impl Watchdog {
    /// `None`: the service manager has no watchdog for this service.
    pub(super) fn new() -> Option<Self> {
        let mut period = tokio::time::interval(systemd::watchdog_period()?);
        period.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Some(Self { period, beat: 0 })
    }

    pub(super) async fn due(watchdog: Option<&mut Self>) {
        match watchdog {
            Some(watchdog) => drop(watchdog.period.tick().await),
            None => pending().await,
        }
    }

    /// A worker that has not shown the last number is stuck. While stopping, workers may have
    /// ended.
    pub(super) fn feed(&mut self, workers: &Workers, stopping: bool) {
        let shown = |stats: &Arc<Stats>| stats.progress.beat() == self.beat;
        if stopping || workers.stats.iter().all(shown) {
            systemd::alive();
        } else {
            log::error!("a worker is stuck: not feeding the watchdog of the service manager");
        }
        self.beat += 1;
        let beat = self.beat;
        workers.tell_all(|| Command::Beat(beat));
    }
}
