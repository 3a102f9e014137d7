//! What all workers count about one backend.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crossbeam::utils::CachePadded;

use crate::guard::Limit;

use super::crowd::Crowd;
use super::ejection::{Cause, Ejection};
use super::{History, Latency, Traffic};

/// Counts of one backend, over all workers and all snapshots that it is part of.
///
/// Touched when a connection is made, first answered and closed; where the strategy watches work,
/// also once when a session asks and once when it is answered. Never per byte: workers add traffic
/// some times a second.
#[derive(Debug)]
pub struct Tally {
    /// Connections being made or established: exact.
    pub connections: Limit,
    /// Bytes to and from it.
    pub traffic: Traffic,
    /// What happened to it.
    pub history: CachePadded<History>,
    pub(super) ejection: Ejection,
    pub(super) crowd: Crowd,
    experience: CachePadded<Experience>,
}

/// What a selection reads of each backend comes first, in one cache line.
#[derive(Debug, Default)]
#[repr(C)]
struct Experience {
    latency: Latency,
    failures: AtomicU32,
    waiting: AtomicU32,
    outlook: AtomicU64,
    opened: AtomicU64,
    portless: AtomicU64,
    answered: AtomicU64,
    ended: AtomicU64,
    answer: AtomicU64,
    in_use: AtomicU64,
    bytes: AtomicU64,
}

/// A session with a backend, at its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ended {
    /// It was waiting for an answer.
    pub waiting: bool,
    /// How long the backend was streaming to it, in ns, as far as [`Tally::on_used`] was not told.
    pub in_use: u64,
    /// Bytes in both directions.
    pub bytes: u64,
}

/// Sums over all sessions so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Connections that it answered.
    pub answered: u64,
    /// How long those waited for their first answer, in ns.
    pub answer: u64,
    /// How long it was streaming to sessions after that, in ns.
    pub in_use: u64,
    /// Sessions that have ended, answered or not.
    pub ended: u64,
    /// Their bytes in both directions.
    pub bytes: u64,
}

/// What is foreseen of a backend, where the strategy
/// [looks ahead](crate::config::Strategy::looks_ahead).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outlook {
    /// Sessions that it streams to, and how many more it will be at work for than now, or fewer.
    pub load: f32,
    /// What a connection costs it, relative to the others of its pool: 1 is usual.
    pub cost: f32,
}

impl Ended {
    /// A session that got no answer, and no byte.
    #[must_use]
    pub fn unanswered() -> Self {
        Self {
            waiting: true,
            ..Self::default()
        }
    }
}

impl Tally {
    /// How soon it answers.
    #[must_use]
    pub fn latency(&self) -> &Latency {
        &self.experience.latency
    }

    /// Failures since its last answer, or session that ended in order: connects that failed,
    /// sessions that it reset or hung up on unanswered.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.experience.failures.load(Ordering::Relaxed)
    }

    /// Whether it gets nothing more for a while, as it failed too often or answers too late.
    #[must_use]
    pub fn is_ejected(&self) -> bool {
        self.ejection.is_ejected()
    }

    /// Why it is ejected; `None`: it is not.
    #[must_use]
    pub fn ejected_for(&self) -> Option<Cause> {
        self.ejection.cause()
    }

    /// How many times it was ejected.
    #[must_use]
    pub fn times_ejected(&self) -> u32 {
        self.ejection.times()
    }

    /// It is found to be away. An ejection for failed sessions is over once it is back.
    pub fn on_unreached(&self) {
        self.ejection.on_unreached();
    }

    /// Connections that wait for an answer, over all workers: from their connect to the first byte,
    /// and where the strategy watches work, from each later request to the next byte.
    #[must_use]
    pub fn waiting(&self) -> u32 {
        self.experience.waiting.load(Ordering::Relaxed)
    }

    /// What the control thread foresees.
    #[must_use]
    pub fn outlook(&self) -> Outlook {
        Outlook::unpack(self.experience.outlook.load(Ordering::Relaxed))
    }

    /// Says what is foreseen.
    pub fn foresee(&self, outlook: Outlook) {
        let packed = outlook.pack();
        self.experience.outlook.store(packed, Ordering::Relaxed);
    }

    /// Connections that were begun: without those that never left this machine.
    #[must_use]
    pub fn opened(&self) -> u64 {
        self.experience.opened.load(Ordering::Relaxed)
    }

    /// Connects to it that found no free local port.
    #[must_use]
    pub fn portless(&self) -> u64 {
        self.experience.portless.load(Ordering::Relaxed)
    }

    /// A connect to it found no free local port.
    pub fn on_portless(&self) {
        self.experience.portless.fetch_add(1, Ordering::Relaxed);
    }

    /// A connection that counts as begun was never sent: this machine lacked what it takes.
    pub fn on_unsent(&self) {
        self.experience.opened.fetch_sub(1, Ordering::Relaxed);
    }

    /// What all sessions came to.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let read = |number: &AtomicU64| number.load(Ordering::Relaxed);
        let experience = &self.experience;
        Totals {
            answered: read(&experience.answered),
            answer: read(&experience.answer),
            in_use: read(&experience.in_use),
            ended: read(&experience.ended),
            bytes: read(&experience.bytes),
        }
    }

    /// It answered a client for the first time, `latency` ns after it was asked.
    pub fn on_answered(&self, latency: u64, now: u64, decay: u64) {
        let experience = &self.experience;
        experience.latency.observe(latency, now, decay);
        experience.answer.fetch_add(latency, Ordering::Relaxed);
        experience.answered.fetch_add(1, Ordering::Relaxed);
        experience.waiting.fetch_sub(1, Ordering::Relaxed);
        self.on_sound();
    }

    /// A session came to its end in order. An ejection goes on: such a session is from before.
    pub fn on_sound(&self) {
        // Nearly always it is 0 already: a read leaves the cache line with the others.
        if self.failures() > 0 {
            self.experience.failures.store(0, Ordering::Relaxed);
        }
    }

    /// A connect failed, or it reset or hung up on a session that it had not answered. Answers
    /// with the failures in a row.
    pub(super) fn on_failed(&self) -> u32 {
        // The count may wrap after 2^32 failures without an answer; then it begins anew.
        let before = self.experience.failures.fetch_add(1, Ordering::Relaxed);
        before.wrapping_add(1)
    }

    /// An established session asked it for something.
    pub fn on_asked(&self) {
        self.experience.waiting.fetch_add(1, Ordering::Relaxed);
    }

    /// It answered an established session that had asked.
    pub fn on_replied(&self) {
        self.experience.waiting.fetch_sub(1, Ordering::Relaxed);
    }

    /// It was streaming to an established session for so many ns more.
    pub fn on_used(&self, in_use: u64) {
        self.experience.in_use.fetch_add(in_use, Ordering::Relaxed);
    }

    /// A connection is being made.
    pub(super) fn on_opened(&self) {
        self.experience.opened.fetch_add(1, Ordering::Relaxed);
        self.experience.waiting.fetch_add(1, Ordering::Relaxed);
    }

    /// A connection ended, or was never made.
    pub(super) fn on_closed(&self, ended: Ended) {
        let experience = &self.experience;
        if ended.waiting {
            experience.waiting.fetch_sub(1, Ordering::Relaxed);
        }
        experience.ended.fetch_add(1, Ordering::Relaxed);
        experience.in_use.fetch_add(ended.in_use, Ordering::Relaxed);
        experience.bytes.fetch_add(ended.bytes, Ordering::Relaxed);
    }
}

impl Outlook {
    fn pack(self) -> u64 {
        u64::from(self.load.to_bits()) << 32 | u64::from(self.cost.to_bits())
    }

    fn unpack(packed: u64) -> Self {
        if packed == 0 {
            return Self::default();
        }
        let [load, cost] = [packed >> 32, packed & u64::from(u32::MAX)]
            .map(|half| f32::from_bits(u32::try_from(half).unwrap_or(0)));
        Self { load, cost }
    }
}

impl Default for Outlook {
    /// Nothing is foreseen: a backend like any other.
    fn default() -> Self {
        Self {
            load: 0.0,
            cost: 1.0,
        }
    }
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            connections: Limit::unbounded(),
            traffic: Traffic::default(),
            history: CachePadded::default(),
            ejection: Ejection::default(),
            crowd: Crowd::default(),
            experience: CachePadded::default(),
        }
    }
}
