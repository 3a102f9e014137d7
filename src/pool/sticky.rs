//! Which client went to which backend: one table for all workers of a pool, of fixed size.
//!
//! Invariant: never more than `entries_max` clients, however many come. A full table forgets the
//! one it has not seen for longest. It knows neither clients nor backends, only their hashes, and
//! has no clock.

mod shard;

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam::utils::CachePadded;
use parking_lot::Mutex;

use shard::{Place, Shard};

/// The table client -> backend.
///
/// Of several shards when large, each behind a lock of its own that is held for a few memory
/// accesses. Takes 44 bytes per entry, allocated for a whole shard when its first client comes; of
/// large shards, only pages that entries were written to become memory, and 4 bytes per entry.
///
/// Times are nanoseconds of any one clock that does not go back. Workers' clocks may differ by a
/// batch: an entry's time never goes back.
pub struct StickyTable {
    shards: Box<[CachePadded<Mutex<Shard>>]>,
    /// Keys are hashed again by this table's own SipHash: nobody can aim at a shard or a bucket.
    secret: RandomState,
    ttl_ns: AtomicU64,
    entries_max: u32,
}

impl StickyTable {
    /// An empty table of at most `entries_max` clients, each known for `ttl_ns` after its last
    /// use. With 0 entries it remembers nobody.
    ///
    /// Below 2,048 entries the client forgotten is the least recently used of all, above it is
    /// that of one among 2 to 64 shards of at least 1,024 entries. Chance fills shards unevenly:
    /// a large table forgets its first client some percent before it is full.
    #[must_use]
    pub fn new(entries_max: u32, ttl_ns: u64) -> Self {
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
            ttl_ns: AtomicU64::new(ttl_ns),
            entries_max,
        }
    }

    /// The backend that `key` is mapped to, if it is and was used within the last `ttl_ns`. This
    /// is a use.
    #[must_use]
    pub fn get(&self, key: u64, now: u64) -> Option<u64> {
        let (shard, place) = self.locate(key);
        let (now, since) = self.times(now);
        shard.lock().get(place, now, since)
    }

    /// Maps `key` to `backend` and answers with the backend that it is mapped to then.
    ///
    /// That is another one when the key has a fresh mapping other than `replaces`: two workers
    /// can meet a new client, or the failure of its backend, at the same moment; the second then
    /// follows the first. `replaces` is what [`Self::get`] answered and can't be used any more.
    pub fn insert(&self, key: u64, backend: u64, replaces: Option<u64>, now: u64) -> u64 {
        let (shard, place) = self.locate(key);
        let (now, since) = self.times(now);
        let mut shard = shard.lock();
        match shard.get(place, now, since) {
            Some(mapped) if Some(mapped) != replaces => mapped,
            _ => {
                shard.put(place, backend, now, since);
                backend
            }
        }
    }

    /// Renews the mapping of `key` to `backend`, though it has expired meanwhile.
    pub fn revive(&self, key: u64, backend: u64, now: u64) {
        let (shard, place) = self.locate(key);
        shard.lock().revive(place, backend, self.times(now).0);
    }

    /// Maps `key` to `backend` for `time` ns, or the TTL if that is less.
    pub fn lend(&self, key: u64, backend: u64, time: u64, now: u64) {
        let (shard, place) = self.locate(key);
        let (now, since) = self.times(now);
        let early = self.ttl_ns.load(Ordering::Relaxed).saturating_sub(time);
        let mut shard = shard.lock();
        shard.remove(place);
        shard.put(place, backend, now.saturating_sub(early).max(1), since);
    }

    /// Forgets `key`.
    pub fn remove(&self, key: u64) {
        let (shard, place) = self.locate(key);
        shard.lock().remove(place);
    }

    /// Another TTL, for all that are in it.
    pub fn set_ttl(&self, ttl_ns: u64) {
        self.ttl_ns.store(ttl_ns, Ordering::Relaxed);
    }

    /// Entries in use, up to [`Self::capacity`]. Counts expired ones until another takes their
    /// place. Takes every shard's lock in turn: for people.
    #[must_use]
    pub fn clients(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }

    /// The most clients it remembers.
    #[must_use]
    pub fn capacity(&self) -> u32 {
        self.entries_max
    }

    /// What shards call the time, and the time that fresh entries were used at or after: both
    /// above 0, which is that of removed ones, however soon after the machine's start.
    fn times(&self, now: u64) -> (u64, u64) {
        let now = now.saturating_add(EPOCH);
        let since = now.saturating_sub(self.ttl_ns.load(Ordering::Relaxed));
        (now, since.max(1))
    }

    /// The shard is chosen by the upper half of a hash, the place in it by the lower.
    fn locate(&self, key: u64) -> (&Mutex<Shard>, Place) {
        let hash = self.secret.hash_one(key);
        let shard = ((hash >> 32) * self.shards.len() as u64) >> 32;
        let shard = usize::try_from(shard).expect("below the number of shards");
        let hash = u32::try_from(hash & u64::from(u32::MAX)).expect("32 bits");
        (&self.shards[shard], Place { key, hash })
    }
}

/// Without the entries: there may be millions, behind locks.
impl fmt::Debug for StickyTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StickyTable")
            .field("entries_max", &self.entries_max)
            .field("ttl_ns", &self.ttl_ns)
            .finish_non_exhaustive()
    }
}

/// Longer than any TTL but one that is for ever.
const EPOCH: u64 = 1 << 62;
/// Enough for two workers to meet at a shard rarely.
const SHARDS_MAX: u32 = 64;
/// Smaller shards would fill too unevenly: by 3% at this size.
const SHARD_ENTRIES_MIN: u32 = 1_024;

#[cfg(test)]
mod tests;
