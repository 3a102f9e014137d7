//! A map from whole numbers to small values, which is built once.
//!
//! It is a hash table of open addressing, whose places are as large as a cache line and hold
//! several keys: nearly each look-up touches one line, or two that are beside each other. The hash
//! has a random key, so that no one can write a list whose look-ups are slow.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hash};
use std::hint::black_box;

use crate::sys::vec_in_huge_pages;

/// A map of keys, with up to `N` of them in a line.
#[derive(Debug)]
pub(super) struct Index<K, V, const N: usize> {
    /// The secret of a SipHash.
    secret: RandomState,
    lines: Box<[Line<K, V, N>]>,
}

/// A cache line, where `N` keys and values leave room for a byte.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Line<K, V, const N: usize> {
    keys: [K; N],
    values: [V; N],
    /// How many of them are in use. Keys for which a full line has no room are in the lines behind
    /// it, up to the first that is not full.
    used: u8,
}

/// A look-up that has begun.
#[derive(Clone, Copy, Debug)]
pub(super) struct Start<K> {
    key: K,
    line: usize,
}

impl<K, V, const N: usize> Default for Index<K, V, N> {
    fn default() -> Self {
        Self {
            secret: RandomState::new(),
            lines: Box::default(),
        }
    }
}

impl<K: Copy + Eq + Hash, V: Copy, const N: usize> Index<K, V, N> {
    /// A map of these. Each key is there once.
    pub(super) fn new(all: &[(K, V)]) -> Self {
        let Some(&(key, value)) = all.first() else {
            return Self::default();
        };
        let empty = Line {
            keys: [key; N],
            values: [value; N],
            used: 0,
        };
        // Half full, and one line that is not.
        let count = (2 * all.len()).div_ceil(N) + 1;
        let mut lines = vec_in_huge_pages(count);
        lines.resize(count, empty);
        let mut lines = lines.into_boxed_slice();
        let secret = RandomState::new();
        for (key, value) in all {
            let mut at = place(&secret, key, lines.len());
            while usize::from(lines[at].used) == N {
                at = behind(at, lines.len());
            }
            let line = &mut lines[at];
            let used = usize::from(line.used);
            (line.keys[used], line.values[used]) = (*key, *value);
            line.used += 1;
        }
        Self { secret, lines }
    }

    /// Where the value of a key is looked for first. Memory begins to load it: what else is looked
    /// for before [`Self::get`] waits at the same time.
    pub(super) fn begin(&self, key: K) -> Start<K> {
        if self.lines.is_empty() {
            return Start { key, line: 0 };
        }
        let line = place(&self.secret, &key, self.lines.len());
        // A load that nothing waits for.
        black_box(self.lines[line].used);
        Start { key, line }
    }

    /// The value of the key that a look-up of this map began with.
    pub(super) fn get(&self, start: Start<K>) -> Option<V> {
        let Start { key, mut line } = start;
        loop {
            let its = self.lines.get(line)?;
            if let Some(slot) = its.find(key) {
                return Some(its.values[slot]);
            }
            if usize::from(its.used) < N {
                return None;
            }
            line = behind(line, self.lines.len());
        }
    }

    /// The bytes that it takes.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.lines)
    }
}

impl<K: Copy + Eq, V, const N: usize> Line<K, V, N> {
    /// The slot of a key. Without branches, as the processor could not predict them.
    fn find(&self, key: K) -> Option<usize> {
        let keys = self.keys.iter().enumerate();
        let equal = keys.map(|(slot, its)| u32::from(*its == key) << slot);
        let in_use = (1 << self.used) - 1;
        let found = equal.sum::<u32>() & in_use;
        (found != 0).then_some(found.trailing_zeros() as usize)
    }
}

/// The line of so many where a key is looked for first.
fn place<K: Hash>(secret: &RandomState, key: &K, lines: usize) -> usize {
    let product = u128::from(secret.hash_one(key)) * lines as u128;
    usize::try_from(product >> 64).unwrap_or(0)
}

fn behind(at: usize, lines: usize) -> usize {
    if at + 1 == lines { 0 } else { at + 1 }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::guard::Access;

    #[test]
    fn lines_are_cache_lines() {
        assert_eq!(size_of::<Line<u32, Access, 12>>(), 64);
        assert_eq!(size_of::<Line<u128, Access, 3>>(), 64);
        assert_eq!(size_of::<Line<u64, [u8; 9], 3>>(), 64);
    }

    #[test]
    fn each_key_has_its_value_and_no_other_has_one() {
        let mut rng = fastrand::Rng::with_seed(3);
        for count in [0, 1, 2, 3, 4, 100, 5_000] {
            // Also the key of slots that are not in use, and 0.
            let any = |_| (u128::from(rng.u32(..20_000)), rng.u8(..));
            let model: HashMap<u128, u8> = (0..count).map(any).collect();
            let all: Vec<_> = model.iter().map(|(key, value)| (*key, *value)).collect();
            let index: Index<_, _, 3> = Index::new(&all);
            for key in 0..20_000 {
                assert_eq!(
                    index.get(index.begin(key)),
                    model.get(&key).copied(),
                    "{key} of {count}"
                );
            }
            let lines = index.bytes() / 64;
            assert!(lines * 3 >= 2 * model.len() && lines <= model.len() + 1);
        }
    }

    #[test]
    fn keys_for_which_a_line_has_no_room_are_found_behind_it() {
        let all: Vec<_> = (0u64..30_000).map(|key| (key, !key)).collect();
        let index: Index<_, _, 3> = Index::new(&all);
        let full = index.lines.iter().filter(|line| line.used == 3).count();
        assert!(full > 1_000, "{full}");
        assert!((0..30_000).all(|key| index.get(index.begin(key)) == Some(!key)));
        assert!((30_000..60_000).all(|key| index.get(index.begin(key)).is_none()));
    }
}
