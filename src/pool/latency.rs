//! How soon a backend answers: one number for all workers, in one atomic.

use std::sync::atomic::{AtomicU64, Ordering};

/// A peak-sensitive moving average of answer times, as in Twitter's Finagle ("Peak EWMA"): a slower
/// answer counts at once and in full, a faster one by the time since the last.
///
/// Packed into 64 bits, so that a reader never sees half of an update: the average in µs as `f32`,
/// and when it was taken, in units of 2^20 ns (about a millisecond), modulo 2^32 (52 days).
#[derive(Debug, Default)]
pub struct Latency(AtomicU64);

impl Latency {
    /// Takes note of an answer that took `sample` ns, at `now` in ns; `decay` is the average's time
    /// constant in ns.
    pub fn observe(&self, sample: u64, now: u64, decay: u64) {
        let update = |packed| {
            let sample = micros(sample);
            let Some(old) = Average::unpack(packed) else {
                return Some(Average::pack(sample, stamp(now)));
            };
            let age = old.age(now);
            let kept = fade(age, decay);
            let next = if sample < old.micros {
                old.micros * kept + sample * (1.0 - kept)
            } else {
                sample
            };
            let stamp = if age == 0 { old.stamp } else { stamp(now) };
            Some(Average::pack(next, stamp))
        };
        // The closure always answers, so it cannot fail.
        let _ = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, update);
    }

    /// The average in µs, as of its last answer; `None` before the first.
    #[must_use]
    pub fn last(&self) -> Option<f32> {
        Average::unpack(self.0.load(Ordering::Relaxed)).map(|average| average.micros)
    }

    /// The average in µs, fading away while no answer comes.
    #[must_use]
    pub fn faded(&self, now: u64, decay: u64) -> Option<f32> {
        let average = Average::unpack(self.0.load(Ordering::Relaxed))?;
        Some(average.micros * fade(average.age(now), decay))
    }
}

struct Average {
    micros: f32,
    stamp: u32,
}

impl Average {
    fn unpack(packed: u64) -> Option<Self> {
        let [high, low] = [packed >> 32, packed & u64::from(u32::MAX)]
            .map(|half| u32::try_from(half).unwrap_or(u32::MAX));
        (packed != 0).then(|| Self {
            micros: f32::from_bits(high),
            stamp: low,
        })
    }

    fn pack(micros: f32, stamp: u32) -> u64 {
        u64::from(micros.to_bits()) << 32 | u64::from(stamp)
    }

    /// Nanoseconds since it was taken. Workers read their clocks once per batch: another one's may
    /// be a little ahead, by a minute at most.
    fn age(&self, now: u64) -> u64 {
        let now = stamp(now);
        if self.stamp.wrapping_sub(now) < LEAD_MAX {
            return 0;
        }
        u64::from(now.wrapping_sub(self.stamp)) << STAMP_SHIFT
    }
}

/// `exp(-age / decay)`, near enough and a tenth of the cost: it is taken for every backend.
fn fade(age: u64, decay: u64) -> f32 {
    #[expect(
        clippy::cast_precision_loss,
        reason = "a ratio of times needs no more than the 24 bits of an f32"
    )]
    let x = age as f32 / decay.max(1) as f32;
    1.0 / (1.0 + x + x * x * (0.5 + x / 6.0))
}

/// Above 0, so that a packed average never looks like none.
fn micros(ns: u64) -> f32 {
    #[expect(clippy::cast_precision_loss, reason = "an average needs no more")]
    let micros = ns as f32 / 1_000.0;
    micros.max(0.001)
}

fn stamp(now: u64) -> u32 {
    u32::try_from((now >> STAMP_SHIFT) & u64::from(u32::MAX)).unwrap_or(0)
}

const STAMP_SHIFT: u32 = 20;
/// About a minute.
const LEAD_MAX: u32 = 60_000;

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;
    const SECOND: u64 = 1_000 * MS;
    const DECAY: u64 = 10 * SECOND;

    #[test]
    fn a_peak_counts_at_once_and_is_forgotten_by_time() {
        let latency = Latency::default();
        assert_eq!(latency.last(), None);
        latency.observe(10 * MS, 0, DECAY);
        assert_eq!(latency.last(), Some(10_000.0));
        latency.observe(500 * MS, SECOND, DECAY);
        assert_eq!(latency.last(), Some(500_000.0));
        // Many fast answers at once say no more than one.
        for _ in 0..100 {
            latency.observe(10 * MS, SECOND, DECAY);
        }
        assert_eq!(latency.last(), Some(500_000.0));
        latency.observe(10 * MS, SECOND + DECAY, DECAY);
        let after = latency.last().unwrap();
        assert!((150_000.0..250_000.0).contains(&after), "{after}");
    }

    #[test]
    fn it_fades_while_nobody_answers() {
        let latency = Latency::default();
        latency.observe(100 * MS, 5 * SECOND, DECAY);
        let at = |now| latency.faded(now, DECAY).unwrap();
        assert!((99_000.0..=100_000.0).contains(&at(5 * SECOND)));
        assert!((30_000.0..45_000.0).contains(&at(15 * SECOND)));
        assert!(at(300 * SECOND) < 100.0);
    }

    #[test]
    fn a_worker_whose_clock_is_behind_changes_nothing() {
        let latency = Latency::default();
        let at = 7 << STAMP_SHIFT;
        latency.observe(300 * MS, at, DECAY);
        assert_eq!(latency.faded(at - 1_000, DECAY), Some(300_000.0));
        latency.observe(10 * MS, at - 1_000, DECAY);
        assert_eq!(latency.last(), Some(300_000.0));
        // Nor does it make what follows look older.
        assert_eq!(latency.faded(at, DECAY), Some(300_000.0));
    }

    #[test]
    fn fading_is_near_the_exponential() {
        for tenths in 0..30_u16 {
            let x = f32::from(tenths) / 10.0;
            let near = fade(u64::from(tenths) * SECOND, DECAY);
            assert!((near - (-x).exp()).abs() < 0.04, "{x}: {near}");
        }
    }
}
