//! The answer times of a backend, over all workers, in a few atomics.

use std::sync::atomic::{AtomicU64, Ordering};

/// A peak-sensitive moving average of answer times (the "Peak EWMA" of Twitter's Finagle): a slower
/// answer counts at once and in full, a faster one by the time since the last. Also the range in
/// which the usual answer time lies, so that noise is not taken for a difference.
///
/// One late answer may be noise: a machine stalls, a cache is cold. So each answer counts as the
/// faster of itself and the one before. Answers that were waited for at the same time count as one,
/// because one stall delays them all.
///
/// Each word is packed, so that a reader never sees half of an update. Words of two concurrent
/// updates may mix, which is one more kind of noise.
#[derive(Debug, Default)]
pub struct Latency {
    /// The average in µs as `f32`, and when it was taken, in units of 2^20 ns (about a
    /// millisecond), modulo 2^32 (52 days).
    average: AtomicU64,
    /// The lower and the upper end of the range, in µs.
    range: AtomicU64,
    /// The mean in µs, and the variance.
    spread: AtomicU64,
    /// The last answer in µs, and the number of answers, of which old ones count less.
    last: AtomicU64,
}

/// A [`Latency`] at one moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LatencyNow {
    /// The average in µs, as of its last answer.
    pub average: f32,
    /// The lower end of the range of the usual answer time, in µs.
    pub low: f32,
    /// The upper end of that range, in µs.
    pub high: f32,
    /// When the average was taken.
    stamp: u32,
}

impl Latency {
    /// Records an answer that took `sample` ns and came at `now`, in ns. `decay` is the time
    /// constant of the average, in ns.
    pub fn observe(&self, sample: u64, now: u64, decay: u64) {
        let asked_at = stamp(now.saturating_sub(sample));
        let sample = micros(sample);
        let Some(old) = Average::unpack(self.average.load(Ordering::Relaxed)) else {
            // A first answer may be late but is hardly too early: the range has no lower end.
            store(&self.range, 0.0, sample + FEW_PART * sample + FEW + ALWAYS);
            store(&self.last, sample, 0.0);
            return self.store_average(sample, stamp(now));
        };
        let (last, count) = load(&self.last);
        if is_before(asked_at, old.stamp) {
            // It was waited for at the same time as the last one.
            return store(&self.last, last.max(sample), count);
        }
        let kept = fade(old.age(now), decay);
        let sure = sample.min(last);
        let next = if sure < old.micros && count > 0.0 {
            old.micros * kept + sure * (1.0 - kept)
        } else {
            sure
        };
        self.store_average(next, stamp(now));
        let remembered = fade(old.age(now) / MEMORY, decay);
        let count = (count * remembered + 1.0).min(COUNT_MAX);
        store(&self.last, sample, count);
        self.learn(sure, count);
    }

    /// Updates mean, variance and range with one more time, in µs, the last of `count`.
    fn learn(&self, sample: f32, count: f32) {
        let (mean, variance) = load(&self.spread);
        let off = sample - mean;
        let mean = mean + off / count;
        let variance = if count > 1.0 {
            variance + (off * (sample - mean) - variance) / count
        } else {
            0.0
        };
        store(&self.spread, mean, variance);
        // A few answers can agree by chance, so their range is wider.
        let few = (FEW_PART * mean + FEW) / (count * count.sqrt());
        let noise = ERRORS * (variance / count).sqrt() + few + ALWAYS;
        store(&self.range, (mean - noise).max(0.0), mean + noise);
    }

    fn store_average(&self, micros: f32, stamp: u32) {
        let packed = u64::from(micros.to_bits()) << 32 | u64::from(stamp);
        self.average.store(packed, Ordering::Relaxed);
    }

    /// The average in µs at the last answer; `None` before the first.
    #[must_use]
    pub fn last(&self) -> Option<f32> {
        self.known().map(|known| known.average)
    }

    /// The lower end of the range, in µs; 0 before the second answer. A selection reads it of every
    /// backend.
    #[must_use]
    #[inline(always)]
    pub fn low(&self) -> f32 {
        load(&self.range).0
    }

    /// Average and range; `None` before the first answer.
    #[must_use]
    pub fn known(&self) -> Option<LatencyNow> {
        let average = Average::unpack(self.average.load(Ordering::Relaxed))?;
        let (low, high) = load(&self.range);
        Some(LatencyNow {
            average: average.micros,
            low,
            high,
            stamp: average.stamp,
        })
    }
}

impl LatencyNow {
    /// The average in µs at `now`: it decays while no answer comes.
    #[must_use]
    pub fn faded(&self, now: u64, decay: u64) -> f32 {
        self.average * fade(age(self.stamp, now), decay)
    }
}

/// How many times as much one value surely is as another one, where their means are `times` apart.
/// The first one's range begins at `low`, the other's ends at `high`. It is 1 if the ranges meet.
/// The smaller the gap between them the more likely it is noise, so it bounds the result.
#[must_use]
#[inline(always)]
pub fn surely_times(times: f32, low: f32, high: f32) -> f32 {
    let gap = low / high;
    if gap > 1.0 {
        times.clamp(1.0, gap * gap * gap)
    } else {
        1.0
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

    fn age(&self, now: u64) -> u64 {
        age(self.stamp, now)
    }
}

#[inline(always)]
fn load(word: &AtomicU64) -> (f32, f32) {
    let packed = word.load(Ordering::Relaxed);
    let half = |bits: u64| f32::from_bits(u32::try_from(bits).unwrap_or(0));
    (half(packed >> 32), half(packed & u64::from(u32::MAX)))
}

fn store(word: &AtomicU64, high: f32, low: f32) {
    let packed = u64::from(high.to_bits()) << 32 | u64::from(low.to_bits());
    word.store(packed, Ordering::Relaxed);
}

/// Nanoseconds since a stamp; 0 for a stamp up to a minute ahead. Workers read their clocks once
/// per batch, so another worker's stamp may be a little ahead.
fn age(stamp: u32, now: u64) -> u64 {
    let now = self::stamp(now);
    if stamp.wrapping_sub(now) < LEAD_MAX {
        return 0;
    }
    u64::from(now.wrapping_sub(stamp)) << STAMP_SHIFT
}

fn is_before(one: u32, other: u32) -> bool {
    one != other && other.wrapping_sub(one) < u32::MAX / 2
}

/// An approximation of `exp(-age / decay)`, within 0.04. It takes a tenth of the time, and a
/// selection may need it for every backend.
fn fade(age: u64, decay: u64) -> f32 {
    #[expect(
        clippy::cast_precision_loss,
        reason = "a ratio of times needs no more than the 24 bits of an f32"
    )]
    let x = age as f32 / decay.max(1) as f32;
    1.0 / (1.0 + x + x * x * (0.5 + x / 6.0))
}

/// Microseconds, above 0: a packed average of 0 would look like none.
fn micros(ns: u64) -> f32 {
    #[expect(clippy::cast_precision_loss, reason = "an average needs no more")]
    let micros = ns as f32 / 1_000.0;
    micros.max(0.001)
}

fn stamp(now: u64) -> u32 {
    u32::try_from((now >> STAMP_SHIFT) & u64::from(u32::MAX)).unwrap_or(0)
}

/// The range reaches so many standard errors from the mean.
const ERRORS: f32 = 2.0;
/// The time constant of the range, relative to that of the average.
const MEMORY: u64 = 6;
/// The number of answers at most: after that, each new answer counts a 64th.
const COUNT_MAX: f32 = 64.0;
/// A single answer widens the range by this part of itself.
const FEW_PART: f32 = 0.5;
/// A single answer widens the range by this, in µs.
const FEW: f32 = 20_000.0;
/// The half width of the range at least, in µs: noise of a machine, however many answers there are.
const ALWAYS: f32 = 200.0;
/// From ns to the unit of stamps.
const STAMP_SHIFT: u32 = 20;
/// About a minute, in units of stamps.
const LEAD_MAX: u32 = 60_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::{MS, SECOND};

    const DECAY: u64 = 10 * SECOND;

    /// So many answers, each asked for after the one before; when the last one came.
    fn observe_each(latency: &Latency, sample: u64, mut now: u64, answers: u32) -> u64 {
        for _ in 0..answers {
            now += sample + 2 * MS;
            latency.observe(sample, now, DECAY);
        }
        now
    }

    #[test]
    fn a_second_late_answer_counts_at_once_and_is_forgotten_by_time() {
        let latency = Latency::default();
        assert_eq!(latency.last(), None);
        let now = observe_each(&latency, 10 * MS, 0, 2);
        assert_eq!(latency.last(), Some(10_000.0));
        let now = observe_each(&latency, 500 * MS, now, 1);
        assert!(latency.last().unwrap() <= 10_000.0, "one says nothing");
        let now = observe_each(&latency, 500 * MS, now, 1);
        assert_eq!(latency.last(), Some(500_000.0));
        // Many fast answers say no more than one.
        let now = observe_each(&latency, 10 * MS, now, 10);
        assert!(latency.last().unwrap() > 490_000.0);
        latency.observe(10 * MS, now + DECAY, DECAY);
        let after = latency.last().unwrap();
        assert!((150_000.0..250_000.0).contains(&after), "{after}");
    }

    /// One stall delays all that wait.
    #[test]
    fn answers_that_were_waited_for_at_the_same_time_are_one() {
        let latency = Latency::default();
        let now = observe_each(&latency, 10 * MS, 0, 5);
        for later in 0..20 {
            latency.observe((500 + later) * MS, now + (510 + later) * MS, DECAY);
        }
        assert!(latency.last().unwrap() <= 10_000.0);
        observe_each(&latency, 400 * MS, now + SECOND, 1);
        assert_eq!(latency.last(), Some(400_000.0), "the better of two");
    }

    #[test]
    fn noise_is_within_the_range_and_a_slower_backend_is_not() {
        let mut rng = fastrand::Rng::with_seed(5);
        let mut answers = |usual: u64, answers: u32| {
            let (latency, mut now) = (Latency::default(), SECOND);
            for _ in 0..answers {
                let noise = usual / 2 + rng.u64(0..usual);
                now = observe_each(&latency, noise, now, 1);
            }
            latency.known().unwrap()
        };
        for count in [1, 2, 3, 5, 10, 30, 100] {
            let times = (0..500).map(|_| {
                let [one, other] = [0; 2].map(|_| answers(20 * MS, count));
                surely_times(f32::INFINITY, one.low, other.high)
            });
            let times: Vec<_> = times.collect();
            let alike = times.iter().filter(|times| **times <= 1.0).count();
            assert!(alike >= 450, "{count}: {alike} of 500");
            let most = times.iter().copied().fold(0.0, f32::max);
            assert!(most < 4.0, "{count}: {most}");
        }
        for count in [4, 10, 100] {
            let [one, slow] = [20, 60].map(|ms| answers(ms * MS, count));
            assert!(slow.low > one.high, "{count}: {one:?} {slow:?}");
        }
        let [one, slow] = [1, 200].map(|ms| answers(ms * MS, 2));
        assert!(slow.low > one.high, "two are enough: {one:?} {slow:?}");
    }

    #[test]
    fn the_average_fades_without_answers() {
        let latency = Latency::default();
        latency.observe(100 * MS, 5 * SECOND, DECAY);
        let at = |now| latency.known().unwrap().faded(now, DECAY);
        assert!((99_000.0..=100_000.0).contains(&at(5 * SECOND)));
        assert!((30_000.0..45_000.0).contains(&at(15 * SECOND)));
        assert!(at(300 * SECOND) < 100.0);
    }

    #[test]
    fn a_worker_whose_clock_is_behind_changes_nothing() {
        let latency = Latency::default();
        let at = 700 << STAMP_SHIFT;
        latency.observe(300 * MS, at, DECAY);
        let faded = |now| latency.known().unwrap().faded(now, DECAY);
        assert!((faded(at - 1_000) - 300_000.0).abs() < 1.0);
        latency.observe(10 * MS, at - 1_000, DECAY);
        assert_eq!(latency.last(), Some(300_000.0));
        // Nor does it make what follows look older.
        assert!((faded(at) - 300_000.0).abs() < 1.0);
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
