//! What a figure is: its name, kind, unit and meaning, from which all that shows it is made.

/// A figure that the balancer keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// Its name within its subject, such as `sessions` of a worker.
    pub name: &'static str,
    /// How it changes.
    pub kind: Kind,
    /// What it is in; `None`: it is a count, or a share.
    pub unit: Option<Unit>,
    /// What it counts or measures: a sentence or more.
    pub help: &'static str,
}

/// How a figure changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// It goes up and down.
    Gauge,
    /// It only goes up until the process or its subject ends.
    Counter,
    /// How often values were within bounds, since the start.
    Histogram,
}

/// What a figure is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// Seconds.
    Seconds,
}

/// The upper bounds of a histogram's buckets: these powers of two of µs, in their order. Each takes
/// a series of each subject that has the histogram, so they are few where subjects may be many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BucketBounds(&'static Bounds);

#[derive(Debug, PartialEq, Eq)]
struct Bounds {
    powers: &'static [u32],
    /// By the number of bits of a time in µs: the place of the first bound that it is below.
    places: [usize; 65],
}

impl BucketBounds {
    /// The most that a listener, a pool or a backend has.
    pub const MAX: usize = 12;
    /// How long clients of those wait: 256 µs to 4 s, by the double from 4 ms to 1 s.
    pub const WAITS: Self = Self(&Bounds::of(&[
        8, 10, 12, 13, 14, 15, 16, 17, 18, 19, 20, 22,
    ]));
    /// How long their sessions take: 1 ms to 71 min, by the fourfold.
    pub const SESSIONS: Self = Self(&Bounds::of(&powers::<{ Self::MAX }>(10, 2)));
    /// The times of a worker's clients: 64 µs to 67 s, by the double.
    pub const OF_WORKERS: Self = Self(&Bounds::of(&powers::<21>(6, 1)));
    /// The turns of a worker: 4 µs to 1 s, by the double.
    pub const TURNS: Self = Self(&Bounds::of(&powers::<19>(2, 1)));

    /// The bounds in µs.
    pub fn micros(self) -> impl Iterator<Item = u64> {
        self.0.powers.iter().map(|power| 1 << power)
    }

    /// The place of the first bound that a time in µs is below; that after the last one, where it
    /// is below none.
    #[must_use]
    pub fn bucket(self, us: u64) -> usize {
        self.0.places[(u64::BITS - us.leading_zeros()) as usize]
    }
}

impl Bounds {
    const fn of(powers: &'static [u32]) -> Self {
        let mut places = [0; 65];
        let mut bits = 1;
        while bits < places.len() {
            let place = places[bits - 1];
            let reached = place < powers.len() && (powers[place] as usize) < bits;
            places[bits] = if reached { place + 1 } else { place };
            bits += 1;
        }
        Self { powers, places }
    }
}

/// From this one on, in such steps.
const fn powers<const N: usize>(first: u32, step: u32) -> [u32; N] {
    let mut powers = [first; N];
    let mut place = 1;
    while place < N {
        powers[place] = powers[place - 1] + step;
        place += 1;
    }
    powers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_in_the_bucket_of_the_next_bound() {
        for bounds in [BucketBounds::WAITS, BucketBounds::SESSIONS] {
            assert!(bounds.micros().count() <= BucketBounds::MAX);
        }
        for bounds in [
            BucketBounds::WAITS,
            BucketBounds::SESSIONS,
            BucketBounds::OF_WORKERS,
            BucketBounds::TURNS,
        ] {
            assert!(bounds.micros().is_sorted());
            for (place, bound) in bounds.micros().enumerate() {
                assert_eq!(bounds.bucket(bound - 1), place);
                assert_eq!(bounds.bucket(bound), place + 1);
            }
        }
    }
}
