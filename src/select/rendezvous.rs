//! Rendezvous hashing, also known as highest random weight: a key's order of preference over
//! candidates, of which each key keeps the ones it prefers when others come or go.
//!
//! Thaler and Ravishankar, "Using name-based mappings to increase hit rates", IEEE/ACM
//! Transactions on Networking, 1998. Weights by Jason Resch's method ("New Hashing Algorithms for
//! Data Storage", SNIA SDC 2015): the highest of -w / ln(u), u being the key's random number for
//! the candidate. Here it is the lowest of -ln(u) / w, which is the same order.
//!
//! Invariant: what is preferred is a function of names, weights and key alone.

use std::f64::consts::{LN_2, SQRT_2};

use crate::hash;

/// The candidates that keys choose among, up to 65,536.
#[derive(Debug)]
pub struct Rendezvous {
    /// Those with a weight, by the hash of their names: candidates that tie for a key go by it,
    /// wherever they stand in the configuration.
    candidates: Vec<Candidate>,
    /// Whether all weights are the same: then random numbers are compared as they are. The order
    /// is the one that logarithms would give.
    even: bool,
}

#[derive(Clone, Copy, Debug)]
struct Candidate {
    name: u64,
    /// 1 / weight, or 1 when all are even.
    inverse: f64,
    index: u16,
}

impl Rendezvous {
    /// Of (name, weight), names being unique. A candidate with weight 0 is never chosen; those
    /// after the 65,536th are left out.
    #[must_use]
    pub fn new<'a>(candidates: impl IntoIterator<Item = (&'a str, u32)>) -> Self {
        let candidates = (0..=u16::MAX).zip(candidates);
        let mut candidates: Vec<_> = candidates
            .filter(|&(_, (_, weight))| weight > 0)
            .map(|(index, (name, weight))| Candidate {
                name: hash::of(name.as_bytes()),
                inverse: 1.0 / f64::from(weight),
                index,
            })
            .collect();
        candidates.sort_unstable_by_key(|candidate| (candidate.name, candidate.index));
        let even = candidates
            .windows(2)
            .all(|pair| pair[0].inverse.to_bits() == pair[1].inverse.to_bits());
        if even {
            for candidate in &mut candidates {
                candidate.inverse = 1.0;
            }
        }
        Self { candidates, even }
    }

    /// The most that [`Self::best`] finds.
    pub const BEST_MAX: usize = 32;

    /// Fills `into`, up to [`Self::BEST_MAX`], with the candidates that `key` prefers, the best
    /// first, as indices in the order they were given to [`Self::new`]. Answers how many there are:
    /// fewer than asked for when there are no more candidates.
    ///
    /// O(n) for a few of n, allocates nothing. 2 of 100 candidates take about 0.4 µs, 0.7 µs when
    /// weights differ; 2 of 10,000 take 16 µs.
    pub fn best(&self, key: u64, into: &mut [u16]) -> usize {
        let into_len = into.len().min(Self::BEST_MAX);
        let into = &mut into[..into_len];
        if into.is_empty() {
            return 0;
        }
        // Until the end, `into` holds places in `candidates`.
        let mut count = 0;
        // The scores of those in `into`.
        let mut scores = [f64::INFINITY; Self::BEST_MAX];
        // No candidate above this can be among the best.
        let mut bar = f64::INFINITY;
        for (place, candidate) in (0..=u16::MAX).zip(&self.candidates) {
            let random = candidate.random(key);
            // -ln(1 - v) >= v: few candidates are worth a logarithm.
            if random * candidate.inverse > bar {
                continue;
            }
            let score = self.score(random, candidate);
            let rank = scores[..count].partition_point(|&better| better <= score);
            if rank == into.len() {
                continue;
            }
            count = into.len().min(count + 1);
            insert(&mut into[rank..count], place);
            insert(&mut scores[rank..count], score);
            if count == into.len() {
                bar = scores[count - 1] * ROUNDING;
            }
        }
        for place in &mut into[..count] {
            *place = self.candidates[usize::from(*place)].index;
        }
        count
    }

    /// The lower, the better.
    fn score(&self, random: f64, candidate: &Candidate) -> f64 {
        if self.even {
            random
        } else {
            exponential(random) * candidate.inverse
        }
    }
}

impl Candidate {
    /// The key's random number for this candidate, in [0, 1): 53 bits, all that a float holds.
    fn random(&self, key: u64) -> f64 {
        let bits = hash::mix(key ^ self.name) >> 11;
        bits.cast_signed() as f64 * (1.0 / (1u64 << 53) as f64)
    }
}

/// Makes `item` the first of the slice, whose last is lost.
fn insert<T: Copy>(slice: &mut [T], item: T) {
    slice.copy_within(..slice.len() - 1, 1);
    slice[0] = item;
}

/// -ln(1 - `random`): turns a uniform number into an exponentially distributed one.
///
/// Not [`f64::ln`], whose last bits differ between platforms, and with them what balancers select:
/// only operations that IEEE 754 defines to the bit. Correct to 14 digits.
fn exponential(random: f64) -> f64 {
    // Exact, as both are multiples of 2^-53.
    let bits = (1.0 - random).to_bits();
    let mut halvings = ONE_EXPONENT - (bits >> MANTISSA_BITS);
    let mut mantissa =
        f64::from_bits(bits & ((1 << MANTISSA_BITS) - 1) | ONE_EXPONENT << MANTISSA_BITS);
    if mantissa > SQRT_2 {
        mantissa /= 2.0;
        halvings -= 1;
    }
    // ln(m) = 2 atanh(s), whose series converges fast as |s| < 0.172.
    let s = (mantissa - 1.0) / (mantissa + 1.0);
    let square = s * s;
    let series = ATANH
        .iter()
        .rev()
        .fold(0.0, |sum, term| sum * square + term);
    halvings as f64 * LN_2 - 2.0 * s * series
}

/// A little above 1: more than the rounding of [`exponential`] may take away.
const ROUNDING: f64 = 1.0 + 1e-9;
/// atanh(s) / s in powers of s squared.
const ATANH: [f64; 9] = [
    1.0,
    1.0 / 3.0,
    1.0 / 5.0,
    1.0 / 7.0,
    1.0 / 9.0,
    1.0 / 11.0,
    1.0 / 13.0,
    1.0 / 15.0,
    1.0 / 17.0,
];
const MANTISSA_BITS: u32 = 52;
/// The exponent that IEEE 754 writes for 1.0 to 1.99..
const ONE_EXPONENT: u64 = 1_023;

#[cfg(test)]
mod tests;
