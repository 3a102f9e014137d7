//! The sticky table of a pool: maps clients to backends, for all workers, in a fixed size.
//!
//! Invariant: never more than `entries_max` clients. A full table forgets the least recently used
//! one. It sees only hashes of clients and backends, and has no clock of its own.

mod shard;

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam::utils::CachePadded;
use parking_lot::Mutex;

use shard::{Place, Shard};

/// A table from client to backend.
///
/// A large table has several shards, each behind its own lock, which is held for a few memory
/// accesses. An entry takes 44 bytes. A shard allocates all its entries with its first client; the
/// kernel backs 40 of the 44 bytes only once entries are written.
///
/// Times are in nanoseconds of a monotonic clock. Workers' clocks may differ by a batch, so an
/// entry's time never decreases.
pub struct StickyTable {
    shards: Box<[CachePadded<Mutex<Shard>>]>,
    /// The secret of a SipHash over the keys, so that no client can aim at a shard or a bucket.
    secret: RandomState,
    ttl_ns: AtomicU64,
    entries_max: u32,
}

impl StickyTable {
    /// An empty table of at most `entries_max` clients, each remembered for `ttl_ns` after its last
    /// use. With 0 entries it remembers none.
    ///
    /// Below 2,048 entries a full table forgets the least recently used client. Above that it has 2
    /// to 64 shards of at least 1,024 entries, and a full shard forgets its least recently used
    /// one. Shards fill unevenly, so a large table forgets its first client a few percent before it
    /// is full.
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

    /// The backend of `key`, if the entry was used within the last `ttl_ns`. Counts as a use.
    #[must_use]
    pub fn get(&self, key: u64, now: u64) -> Option<u64> {
        let (shard, place) = self.locate(key);
        let (now, since) = self.times(now);
        shard.lock().get(place, now, since)
    }

    /// Maps `key` to `backend`, unless it has a fresh mapping to a backend other than `replaces`.
    /// Returns the backend that it is mapped to afterwards.
    ///
    /// Two workers can meet a new client, or the failure of its backend, at the same moment: the
    /// second then follows the first. `replaces` is the unusable backend that [`Self::get`]
    /// returned.
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

    /// Renews the mapping of `key` to `backend`, even if it has expired.
    pub fn revive(&self, key: u64, backend: u64, now: u64) {
        let (shard, place) = self.locate(key);
        shard.lock().revive(place, backend, self.times(now).0);
    }

    /// Maps `key` to `backend` for `time` ns, or for the TTL if that is shorter.
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

    /// Changes the TTL, for all entries.
    pub fn set_ttl(&self, ttl_ns: u64) {
        self.ttl_ns.store(ttl_ns, Ordering::Relaxed);
    }

    /// The number of entries, up to [`Self::capacity`], including expired ones that are not yet
    /// replaced. Takes every shard's lock in turn: not for the data path.
    #[must_use]
    pub fn clients(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }

    /// The most clients it remembers.
    #[must_use]
    pub fn capacity(&self) -> u32 {
        self.entries_max
    }

    /// The time in terms of shards, and the earliest last use of an entry that is fresh. Both are
    /// above 0, which marks removed entries, even right after the machine's start.
    fn times(&self, now: u64) -> (u64, u64) {
        let now = now.saturating_add(EPOCH);
        let since = now.saturating_sub(self.ttl_ns.load(Ordering::Relaxed));
        (now, since.max(1))
    }

    /// The upper half of the hash chooses the shard, the lower half the bucket.
    fn locate(&self, key: u64) -> (&Mutex<Shard>, Place) {
        let hash = self.secret.hash_one(key);
        let shard = ((hash >> 32) * self.shards.len() as u64) >> 32;
        let shard = usize::try_from(shard).expect("below the number of shards");
        let hash = u32::try_from(hash & u64::from(u32::MAX)).expect("32 bits");
        (&self.shards[shard], Place { key, hash })
    }
}

/// Leaves the entries out: there may be millions, behind locks.
impl fmt::Debug for StickyTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StickyTable")
            .field("entries_max", &self.entries_max)
            .field("ttl_ns", &self.ttl_ns)
            .finish_non_exhaustive()
    }
}

/// Added to times. Longer than any TTL, unless that is endless.
const EPOCH: u64 = 1 << 62;
/// Enough shards that two workers rarely need the same one.
const SHARDS_MAX: u32 = 64;
/// Smaller shards would fill too unevenly; these differ by 3%.
const SHARD_ENTRIES_MIN: u32 = 1_024;

#[cfg(test)]
mod tests;
