//! Randomness that a seed repeats: splitmix64.

use mahoraga::time::{MS, US};

/// A sequence of numbers decided by its seed alone.
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(mix(seed ^ 0x6d61_686f_7261_6761))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GAMMA);
        mix(self.0)
    }

    /// 0 to `end` - 1.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    /// Both ends included.
    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    /// True in this many of a thousand cases.
    pub(crate) fn permille(&mut self, of_thousand: u64) -> bool {
        self.below(1_000) < of_thousand
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        let index = usize::try_from(self.below(from.len() as u64)).expect("an index");
        from[index]
    }

    /// A time in nanoseconds before the kernel or a network acts: mostly none, sometimes long
    /// enough for everything else to happen first.
    pub(crate) fn lag(&mut self) -> u64 {
        match self.below(100) {
            0..=49 => self.below(5 * US),
            50..=89 => self.below(100 * US),
            90..=98 => self.below(2 * MS),
            _ => self.below(20 * MS),
        }
    }
}

/// Mixes the bits of a number.
pub(crate) fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;
