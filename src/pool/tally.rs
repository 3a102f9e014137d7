//! What all workers count about one backend.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crossbeam::utils::CachePadded;

use crate::guard::Limit;

use super::Latency;

/// Counts of one backend, over all workers and all snapshots that it is part of.
///
/// Touched when a connection is made, first answered and closed, never per byte.
#[derive(Debug)]
pub struct Tally {
    /// Connections being made or established: exact.
    pub connections: Limit,
    experience: CachePadded<Experience>,
}

#[derive(Debug, Default)]
struct Experience {
    latency: Latency,
    failures: AtomicU32,
    opened: AtomicU64,
    closed: AtomicU64,
    in_use: AtomicU64,
    lifetime: AtomicU64,
    bytes: AtomicU64,
}

/// A session with a backend, at its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Visit {
    /// How long the backend was at work for it, in ns.
    pub in_use: u64,
    /// How long it was open, in ns.
    pub lifetime: u64,
    /// Bytes in both directions.
    pub bytes: u64,
}

/// Sums over all sessions so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Connections that were begun.
    pub opened: u64,
    /// Sessions that came to their end.
    pub closed: u64,
    /// Of those, all together.
    pub ended: Visit,
}

impl Tally {
    /// How soon it answers.
    #[must_use]
    pub fn latency(&self) -> &Latency {
        &self.experience.latency
    }

    /// Failures since its last answer: connects that failed, sessions that it reset unanswered.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.experience.failures.load(Ordering::Relaxed)
    }

    /// What all sessions came to.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let read = |number: &AtomicU64| number.load(Ordering::Relaxed);
        let experience = &self.experience;
        Totals {
            opened: read(&experience.opened),
            closed: read(&experience.closed),
            ended: Visit {
                in_use: read(&experience.in_use),
                lifetime: read(&experience.lifetime),
                bytes: read(&experience.bytes),
            },
        }
    }

    /// It answered a client for the first time, `latency` ns after it was asked.
    pub fn on_answered(&self, latency: u64, now: u64, decay: u64) {
        self.experience.latency.observe(latency, now, decay);
        // Nearly always it is 0 already: a read leaves the cache line with the others.
        if self.failures() > 0 {
            self.experience.failures.store(0, Ordering::Relaxed);
        }
    }

    /// A connect failed, or it reset a session that it had not answered.
    pub fn on_failed(&self) {
        // The count may wrap after 2^32 failures without an answer; then it begins anew.
        self.experience.failures.fetch_add(1, Ordering::Relaxed);
    }

    /// A session ended.
    pub fn on_closed(&self, visit: Visit) {
        let add = |number: &AtomicU64, value| number.fetch_add(value, Ordering::Relaxed);
        let experience = &self.experience;
        add(&experience.closed, 1);
        add(&experience.in_use, visit.in_use);
        add(&experience.lifetime, visit.lifetime);
        add(&experience.bytes, visit.bytes);
    }

    pub(super) fn on_opened(&self) {
        self.experience.opened.fetch_add(1, Ordering::Relaxed);
    }
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            connections: Limit::unbounded(),
            experience: CachePadded::default(),
        }
    }
}
