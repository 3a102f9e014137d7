//! Bandwidth: bytes per second, as token buckets that sessions and workers share.

use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam::utils::CachePadded;

use crate::time::SECOND;

/// Bytes in a second, and how many of them at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteRate(NonZeroU64);

impl ByteRate {
    /// So many bytes in a second. An eighth of them, 512 at least, may pass at once.
    #[must_use]
    pub const fn new(per_second: NonZeroU64) -> Self {
        Self(per_second)
    }

    /// Bytes in a second.
    #[must_use]
    pub const fn per_second(self) -> u64 {
        self.0.get()
    }

    /// How many bytes may pass at once after a pause.
    #[must_use]
    pub fn burst(self) -> u64 {
        (self.per_second() / BURST_PART).max(BURST_MIN)
    }

    /// How many bytes a stream takes at a time: what flows in 10 ms, so that streams take turns,
    /// and not so many that small messages come in lumps.
    #[must_use]
    pub fn quantum(self) -> u32 {
        let bytes = (self.per_second() / QUANTUM_PART).clamp(QUANTUM_MIN, QUANTUM_MAX);
        u32::try_from(bytes.min(self.burst())).unwrap_or(u32::MAX)
    }

    /// The time of so many bytes, in ns, rounded up.
    pub(super) fn time(self, bytes: u64) -> u64 {
        bytes.saturating_mul(SECOND).div_ceil(self.per_second())
    }

    /// The time of a burst, in ns.
    pub(super) fn ahead(self) -> u64 {
        self.time(self.burst())
    }
}

/// The limit of one direction, which can be changed while sessions go on, and what all workers
/// have taken of it. A new rate begins with a full bucket.
#[derive(Debug, Default)]
pub struct Meter {
    /// Bytes per second; 0: no limit. Apart from what is written all the time: sessions without a
    /// limit read it.
    rate: AtomicU64,
    used: CachePadded<Used>,
}

/// What was taken of a limit of one direction. As in a bucket of [`super::Rate`], each time says
/// when a bucket is full again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Taken {
    full_at: u64,
    /// The bucket of bytes that passed before they were paid for, at half the rate.
    owed_until: u64,
}

impl Taken {
    /// Takes bytes, which are to move when the answer is due, in ns.
    pub(super) fn take(&mut self, rate: ByteRate, bytes: u32, now: u64) -> u64 {
        self.full_at = sum(self.full_at, rate.time(bytes.into()), now);
        self.full_at.saturating_sub(rate.ahead())
    }

    /// Takes bytes that have moved already.
    pub(super) fn owe(&mut self, rate: ByteRate, bytes: u32, now: u64) {
        let time = rate.time(bytes.into());
        self.full_at = sum(self.full_at, time, now);
        self.owed_until = sum(self.owed_until, 2 * time, now);
    }

    /// Gives back bytes that were taken and did not move.
    pub(super) fn put_back(&mut self, rate: ByteRate, bytes: u32) {
        self.full_at = self.full_at.saturating_sub(rate.time(bytes.into()));
    }

    /// Whether so many bytes could be taken and moved now.
    pub(super) fn has(&self, rate: ByteRate, bytes: u32, now: u64) -> bool {
        sum(self.full_at, rate.time(bytes.into()), now) - now <= rate.ahead()
    }

    /// Whether bytes may move before they are paid for.
    pub(super) fn may_owe(&self, rate: ByteRate, now: u64) -> bool {
        self.owed_until.saturating_sub(now) <= rate.ahead()
    }

    pub(super) fn is_full(&self, now: u64) -> bool {
        self.full_at.max(self.owed_until) <= now
    }
}

/// The same for all workers at once.
#[derive(Debug, Default)]
struct Used {
    full_at: AtomicU64,
    owed_until: AtomicU64,
    rests: AtomicU64,
    rested: AtomicU64,
}

impl Meter {
    /// The limit that is in force.
    #[must_use]
    pub fn rate(&self) -> Option<ByteRate> {
        NonZeroU64::new(self.rate.load(Ordering::Relaxed)).map(ByteRate)
    }

    /// Changes the limit.
    pub fn set(&self, rate: Option<ByteRate>) {
        let rate = rate.map_or(0, ByteRate::per_second);
        if self.rate.swap(rate, Ordering::Relaxed) != rate {
            self.used.full_at.store(0, Ordering::Relaxed);
            self.used.owed_until.store(0, Ordering::Relaxed);
        }
    }

    /// How often a direction rested as these bytes were used up.
    #[must_use]
    pub fn rests(&self) -> u64 {
        self.used.rests.load(Ordering::Relaxed)
    }

    /// Bytes that had to wait.
    #[must_use]
    pub fn rested(&self) -> u64 {
        self.used.rested.load(Ordering::Relaxed)
    }

    /// Takes bytes, which are to move when the answer is due, in ns. So those that take first move
    /// first, and each takes its turn, over all workers.
    pub(super) fn take(&self, rate: ByteRate, bytes: u32, now: u64) -> u64 {
        add(&self.used.full_at, rate.time(bytes.into()), now).saturating_sub(rate.ahead())
    }

    /// Takes bytes that have moved already.
    pub(super) fn owe(&self, rate: ByteRate, bytes: u32, now: u64) {
        let time = rate.time(bytes.into());
        add(&self.used.full_at, time, now);
        add(&self.used.owed_until, 2 * time, now);
    }

    /// Gives back bytes that were taken and did not move.
    pub(super) fn put_back(&self, rate: ByteRate, bytes: u32) {
        let time = rate.time(bytes.into());
        let less = |full_at: u64| Some(full_at.saturating_sub(time));
        let _ = self
            .used
            .full_at
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }

    /// What was taken so far. The two times are not of the same moment, which matters to no
    /// question about either.
    pub(super) fn taken(&self) -> Taken {
        Taken {
            full_at: self.used.full_at.load(Ordering::Relaxed),
            owed_until: self.used.owed_until.load(Ordering::Relaxed),
        }
    }

    pub(super) fn on_rest(&self, bytes: u32) {
        self.used.rests.fetch_add(1, Ordering::Relaxed);
        self.used.rested.fetch_add(bytes.into(), Ordering::Relaxed);
    }
}

/// Adds to a time that is not before `now`, and returns the sum.
fn add(until: &AtomicU64, time: u64, now: u64) -> u64 {
    let added = |until| sum(until, time, now);
    let before = until.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |it| Some(added(it)));
    before.map_or(now, added)
}

fn sum(until: u64, time: u64, now: u64) -> u64 {
    until.max(now).saturating_add(time)
}

/// The limits of both directions: [from clients, from backends].
#[derive(Debug, Default)]
pub struct Meters([Meter; 2]);

impl Meters {
    /// The limit of bytes from clients (0), or from backends (1).
    #[must_use]
    pub fn way(&self, way: usize) -> &Meter {
        &self.0[way]
    }

    /// Changes the limits.
    pub fn set(&self, rates: [Option<ByteRate>; 2]) {
        for (meter, rate) in self.0.iter().zip(rates) {
            meter.set(rate);
        }
    }

    /// Whether a direction is limited.
    #[must_use]
    pub fn is_limited(&self) -> bool {
        self.0.iter().any(|meter| meter.rate().is_some())
    }
}

/// The limits of a listener. It outlives snapshots.
#[derive(Debug, Default)]
pub struct ListenerBandwidth {
    /// Of each of its sessions: only the rates count.
    pub session: Meters,
    /// Of all sessions of a source: only the rates count.
    pub source: Meters,
    /// Of all of them together.
    pub all: Meters,
}

/// A burst is an eighth of a second's bytes: little of the bytes of 10 s.
const BURST_PART: u64 = 8;
/// A small message.
const BURST_MIN: u64 = 512;
/// A quantum is a hundredth of a second's bytes.
const QUANTUM_PART: u64 = 100;
const QUANTUM_MIN: u64 = 1 << 10;
/// Enough for a splice to be worth its call.
const QUANTUM_MAX: u64 = 256 << 10;
