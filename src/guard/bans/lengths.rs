//! The lengths that the prefixes of a table have.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::prefix::Prefix;

/// Which lengths occur, of IPv4 and of IPv6.
#[derive(Debug)]
pub(super) struct Lengths {
    /// A bit for each length: IPv4, then three words of IPv6.
    words: [AtomicU64; 4],
    /// How many prefixes have it, in the same order.
    counts: Mutex<[u32; 4 * 64]>,
}

impl Default for Lengths {
    fn default() -> Self {
        Self {
            words: Default::default(),
            counts: Mutex::new([0; 4 * 64]),
        }
    }
}

impl Lengths {
    pub(super) fn add(&self, prefix: Prefix) {
        let bit = bit(prefix);
        let mut counts = self.counts.lock();
        counts[bit] += 1;
        self.words[bit / 64].fetch_or(1 << (bit % 64), Ordering::Relaxed);
    }

    pub(super) fn remove(&self, prefix: Prefix) {
        let bit = bit(prefix);
        let mut counts = self.counts.lock();
        counts[bit] -= 1;
        if counts[bit] == 0 {
            self.words[bit / 64].fetch_and(!(1 << (bit % 64)), Ordering::Relaxed);
        }
    }

    /// Those of this address's kind, the longest first.
    pub(super) fn of(&self, ip: IpAddr) -> impl Iterator<Item = u8> {
        let words = match ip {
            IpAddr::V4(_) => &self.words[..1],
            IpAddr::V6(_) => &self.words[1..],
        };
        let firsts = [0u32, 64, 128].into_iter();
        let words = firsts.zip(words).rev();
        words.flat_map(|(first, word)| {
            let mut left = word.load(Ordering::Relaxed);
            std::iter::from_fn(move || {
                let highest = left.checked_ilog2()?;
                left &= !(1 << highest);
                u8::try_from(first + highest).ok()
            })
        })
    }
}

/// The bit of a prefix's length.
fn bit(prefix: Prefix) -> usize {
    let length = usize::from(prefix.length());
    match prefix.ip() {
        IpAddr::V4(_) => length,
        IpAddr::V6(_) => 64 + length,
    }
}
