//! A table of a fixed size that all workers share and that forgets the least recently used entry.
//!
//! Invariant: never more than `entries_max` entries. A full shard replaces its least recently used
//! entry that is not pinned; where all are pinned, it takes no other. It has no clock.

#![forbid(unsafe_code)]

mod shard;

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::{BuildHasher, Hash};

use crossbeam::utils::CachePadded;
use parking_lot::Mutex;

pub use shard::{Hashed, Shard};

/// A table from `K` to `V`.
///
/// A large table has several shards, each behind its own lock, which is held for a few memory
/// accesses. A shard allocates all its entries with its first one. The kernel backs the memory of
/// entries only once they are written.
pub struct Lru<K, V> {
    shards: Box<[Locked<K, V>]>,
    /// The secret of a SipHash over the keys, so that no client can aim at a shard or a bucket.
    secret: RandomState,
    entries_max: u32,
}

/// A shard behind its lock, with no other in its cache line.
type Locked<K, V> = CachePadded<Mutex<Shard<K, V>>>;

impl<K: Copy + Eq + Hash, V> Lru<K, V> {
    /// An empty table of at most `entries_max` entries.
    ///
    /// Below 2,048 entries it is one shard, which forgets in the exact order of use. Above that it
    /// has 2 to 64 shards of at least 1,024 entries. Shards fill unevenly, so a large table forgets
    /// its first entry a few percent before it is full.
    #[must_use]
    pub fn new(entries_max: u32) -> Self {
        let count = 1
            << (entries_max / SHARD_ENTRIES_MIN)
                .clamp(1, SHARDS_MAX)
                .ilog2();
        // The shards' sizes differ by one at most and sum up to `entries_max`.
        let size = |shard| entries_max / count + u32::from(shard < entries_max % count);
        let shards = (0..count).map(|shard| CachePadded::new(Mutex::new(Shard::new(size(shard)))));
        Self {
            shards: shards.collect(),
            secret: RandomState::new(),
            entries_max,
        }
    }

    /// How many entries a table of so many bytes has.
    #[must_use]
    pub fn entries_in(bytes: u64) -> u32 {
        // The highest numbers mark the absence of an entry.
        u32::try_from(bytes / Shard::<K, V>::ENTRY_BYTES).unwrap_or(u32::MAX / 2)
    }

    /// The shard of a key, and the key with its hash. The upper half of the hash chooses the shard,
    /// the lower half the bucket.
    pub fn locate(&self, key: K) -> (&Mutex<Shard<K, V>>, Hashed<K>) {
        let hash = self.secret.hash_one(key);
        let number = ((hash >> 32) * self.shards.len() as u64) >> 32;
        let number = u32::try_from(number).expect("below the number of shards");
        let hash = u32::try_from(hash & u64::from(u32::MAX)).expect("32 bits");
        let key = Hashed {
            key,
            hash,
            shard: number,
        };
        (self.shard(number), key)
    }

    /// The shard of this number, see [`Hashed::shard`].
    pub fn shard(&self, number: u32) -> &Mutex<Shard<K, V>> {
        &self.shards[number as usize]
    }

    /// The number of shards.
    pub fn shards(&self) -> u32 {
        u32::try_from(self.shards.len()).unwrap_or(SHARDS_MAX)
    }

    /// The number of entries. Takes every shard's lock in turn: not for the data path.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }

    /// Whether it has no entry. As slow as [`Self::len`].
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The sum of a number of each value. As slow as [`Self::len`], and slower.
    pub fn sum(&self, of: impl Fn(&V) -> u64) -> u64 {
        let of_shard = |shard: &Locked<K, V>| shard.lock().values().map(&of).sum::<u64>();
        self.shards.iter().map(of_shard).sum()
    }

    /// The most entries that it holds.
    #[must_use]
    pub fn capacity(&self) -> u32 {
        self.entries_max
    }
}

/// Leaves the entries out: there may be millions, behind locks.
impl<K, V> fmt::Debug for Lru<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lru")
            .field("entries_max", &self.entries_max)
            .finish_non_exhaustive()
    }
}

/// Enough shards that two workers rarely need the same one.
const SHARDS_MAX: u32 = 64;
/// Smaller shards would fill too unevenly; these differ by 3%.
const SHARD_ENTRIES_MIN: u32 = 1_024;

#[cfg(test)]
impl<K: Copy + Eq + Hash, V> Lru<K, V> {
    /// The keys that are not pinned, each shard's least recently used first, after
    /// [`Shard::check`].
    pub(crate) fn keys(&self) -> Vec<K> {
        let shards = self.shards.iter();
        shards.flat_map(|shard| shard.lock().check()).collect()
    }
}

#[cfg(test)]
mod tests;
