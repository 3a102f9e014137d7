//! What all workers count about one backend.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crossbeam::utils::CachePadded;

use crate::buckets::{LastMinute, SessionTimes};
use crate::guard::{Limit, Meters};
use crate::hash;

use super::backlog::Backlog;
use super::ejection::{Cause, Ejection};
use super::{History, Latency, Traffic};

/// Counts of one backend, over all workers and all snapshots that it is part of.
///
/// Written when a connection is made, first answered and closed; where the strategy looks at load,
/// also with each request and each answer of a session. Never per byte: workers add traffic a few
/// times a second.
#[derive(Debug)]
pub struct Tally {
    /// Connections being made or established: exact over all workers.
    pub connections: Limit,
    /// Bytes to and from it.
    pub traffic: Traffic,
    /// How many bytes may move to and from it.
    pub bandwidth: Meters,
    /// Its history since it joined the pool.
    pub history: CachePadded<History>,
    /// How long its connects took, its first bytes from the connect on, and its sessions.
    pub times: SessionTimes,
    /// Its first bytes lately.
    pub last_minute: LastMinute,
    pub(super) ejection: Ejection,
    pub(super) backlog: Backlog,
    experience: CachePadded<Experience>,
}

/// The fields that a selection reads come first, in one cache line.
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
    /// 1 if the first of `failures` is one that the client may have caused.
    unclear: AtomicU32,
    /// A hash of the client at whose address the last connect began that failed so.
    unreached: AtomicU32,
}

/// What a session adds to its backend's counts at its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ended {
    /// It was waiting for an answer.
    pub waiting: bool,
    /// How long the backend streamed to it, in ns, beyond what [`Tally::on_used`] added.
    pub in_use: u64,
    /// Bytes in both directions.
    pub bytes: u64,
}

/// Sums over all sessions so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Connections that it answered.
    pub answered: u64,
    /// The time that those waited for their first answer, in ns.
    pub answer: u64,
    /// The time that it streamed to sessions after that, in ns.
    pub in_use: u64,
    /// Sessions that have ended, answered or not.
    pub ended: u64,
    /// The bytes of ended sessions, in both directions.
    pub bytes: u64,
}

/// The forecast that selection uses, where the strategy
/// [looks ahead](crate::config::Strategy::looks_ahead).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outlook {
    /// The sessions that it streams to, plus the forecast change of its load; may be negative.
    pub load: f32,
    /// The cost of a connection relative to the mean of its pool: 1/16 to 16, usually 1.
    pub cost: f32,
}

impl Ended {
    /// A session without an answer and without a byte.
    #[must_use]
    pub fn unanswered() -> Self {
        Self {
            waiting: true,
            ..Self::default()
        }
    }
}

impl Tally {
    /// Its answer times.
    #[must_use]
    pub fn latency(&self) -> &Latency {
        &self.experience.latency
    }

    /// Failures since its last answer, or since the last session that ended in order. A failure is
    /// a failed connect, or a session that it reset or closed by its own act alone. If clients may
    /// be the cause of all sessions that it left unanswered, those count as one.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.experience.failures.load(Ordering::Relaxed)
    }

    /// Whether it gets no connections for a while, because it failed too often or is slow.
    #[must_use]
    pub fn is_ejected(&self) -> bool {
        self.ejection.is_ejected()
    }

    /// Why it is ejected; `None`: it is not ejected.
    #[must_use]
    pub fn ejected_for(&self) -> Option<Cause> {
        self.ejection.cause()
    }

    /// How many times it was ejected.
    #[must_use]
    pub fn times_ejected(&self) -> u32 {
        self.ejection.times()
    }

    /// A connect to it failed. If it is ejected for failed sessions, a connect that succeeds now
    /// ends the ejection.
    pub fn on_unreached(&self) {
        self.ejection.on_unreached();
    }

    /// Connections that wait for an answer, over all workers: from the connect to the first byte,
    /// and, where the strategy looks at load, from each later request to the next byte.
    #[must_use]
    pub fn waiting(&self) -> u32 {
        self.experience.waiting.load(Ordering::Relaxed)
    }

    /// The forecast of the control thread.
    #[must_use]
    pub fn outlook(&self) -> Outlook {
        Outlook::unpack(self.experience.outlook.load(Ordering::Relaxed))
    }

    /// Publishes a forecast.
    pub fn set_outlook(&self, outlook: Outlook) {
        let packed = outlook.pack();
        self.experience.outlook.store(packed, Ordering::Relaxed);
    }

    /// Connections opened so far, without those that never left this machine.
    #[must_use]
    pub fn opened(&self) -> u64 {
        self.experience.opened.load(Ordering::Relaxed)
    }

    /// How many connects to it found no free local port.
    #[must_use]
    pub fn portless(&self) -> u64 {
        self.experience.portless.load(Ordering::Relaxed)
    }

    /// A connect to it found no free local port.
    pub fn on_portless(&self) {
        self.experience.portless.fetch_add(1, Ordering::Relaxed);
    }

    /// A connection that was counted as opened was never sent, for want of a resource on this
    /// machine.
    pub fn on_unsent(&self) {
        self.experience.opened.fetch_sub(1, Ordering::Relaxed);
    }

    /// The sums over all sessions.
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

    /// It answered a client for the first time, `latency` ns after the connect began. `now` is in
    /// ns of the workers' clock; `decay` is the time constant of the average, in ns.
    pub fn on_answered(&self, latency: u64, now: u64, decay: u64) {
        let experience = &self.experience;
        experience.latency.observe(latency, now, decay);
        experience.answer.fetch_add(latency, Ordering::Relaxed);
        experience.answered.fetch_add(1, Ordering::Relaxed);
        experience.waiting.fetch_sub(1, Ordering::Relaxed);
        self.on_sound();
    }

    /// It answered a client for the first time, and how late is not known, because this process did
    /// not run meanwhile. That counts as an answer like the others so far.
    pub fn on_answered_during_stall(&self) {
        let experience = &self.experience;
        let answered = experience.answered.fetch_add(1, Ordering::Relaxed);
        let mean = experience.answer.load(Ordering::Relaxed) / answered.max(1);
        experience.answer.fetch_add(mean, Ordering::Relaxed);
        experience.waiting.fetch_sub(1, Ordering::Relaxed);
        self.on_sound();
    }

    /// A session was answered or ended in order: the failures in a row are 0. An ejection goes on,
    /// because the session may be from before it.
    pub fn on_sound(&self) {
        // Nearly always 0 already. Reading first leaves the cache line shared.
        if self.failures() > 0 {
            self.experience.failures.store(0, Ordering::Relaxed);
            self.experience.unclear.store(0, Ordering::Relaxed);
        }
    }

    /// Whether the last connect that failed at a client's own address was of another client than
    /// this one, whose connect has failed now. Clients of one /64 of IPv6 are one.
    pub(super) fn is_another_unreached(&self, client: IpAddr) -> bool {
        let hash = match client {
            IpAddr::V4(client) => hash::of(&client.octets()),
            IpAddr::V6(client) => hash::of(&client.octets()[..8]),
        };
        // 0 is none.
        let hash = u32::try_from(hash >> 32).unwrap_or(0).max(1);
        self.experience.unreached.swap(hash, Ordering::Relaxed) != hash
    }

    /// A connect failed, or it reset or closed a session by its own act alone. Returns how many
    /// failures in a row eject it: those that no client can bring about.
    pub(super) fn on_failed(&self) -> u32 {
        // Wraps to 0 after 2^32 failures without an answer, which does no harm.
        let before = self.experience.failures.fetch_add(1, Ordering::Relaxed);
        let unclear = self.experience.unclear.load(Ordering::Relaxed);
        before.wrapping_add(1).saturating_sub(unclear)
    }

    /// It reset or closed a session without an answer, and the client may be the cause. Whatever
    /// the number of such sessions, it counts as failing, and ejects it neither alone nor with
    /// others.
    pub fn on_unanswered(&self) {
        let failures = &self.experience.failures;
        let relaxed = Ordering::Relaxed;
        if failures.compare_exchange(0, 1, relaxed, relaxed).is_ok() {
            self.experience.unclear.store(1, relaxed);
        }
    }

    /// An established session sent it a request.
    pub fn on_asked(&self) {
        self.experience.waiting.fetch_add(1, Ordering::Relaxed);
    }

    /// It answered a request of an established session.
    pub fn on_replied(&self) {
        self.experience.waiting.fetch_sub(1, Ordering::Relaxed);
    }

    /// It streamed to an established session for another `in_use` ns.
    pub fn on_used(&self, in_use: u64) {
        self.experience.in_use.fetch_add(in_use, Ordering::Relaxed);
    }

    /// A connection is being made.
    pub(super) fn on_opened(&self) {
        self.experience.opened.fetch_add(1, Ordering::Relaxed);
        self.experience.waiting.fetch_add(1, Ordering::Relaxed);
    }

    /// A connection was closed, or was never made.
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
    /// Without a forecast: a backend like any other.
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
            bandwidth: Meters::default(),
            history: CachePadded::default(),
            times: SessionTimes::default(),
            last_minute: LastMinute::default(),
            ejection: Ejection::default(),
            backlog: Backlog::default(),
            experience: CachePadded::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_clients_may_have_caused_counts_as_failing_and_never_towards_an_ejection() {
        let tally = Tally::default();
        for _ in 0..3 {
            tally.on_unanswered();
            assert_eq!(tally.failures(), 1);
        }
        assert_eq!([tally.on_failed(), tally.on_failed()], [1, 2]);
        tally.on_unanswered();
        assert_eq!(tally.on_failed(), 3);
        tally.on_sound();
        assert_eq!(tally.failures(), 0);
        assert_eq!(tally.on_failed(), 1);
        tally.on_unanswered();
        assert_eq!(tally.on_failed(), 2);
    }

    #[test]
    fn a_client_that_fails_again_is_no_other() {
        let tally = Tally::default();
        let is_another = |client: &str| tally.is_another_unreached(client.parse().unwrap());
        assert!(is_another("192.0.2.1") && !is_another("192.0.2.1"));
        assert!(is_another("192.0.2.2") && is_another("192.0.2.1"));
        assert!(is_another("2001:db8::1") && !is_another("2001:db8::2"));
        assert!(is_another("2001:db8:0:1::1"));
    }
}
