//! The sticky table of a pool: maps clients to backends, for all workers, in a fixed size.
//!
//! Invariant: never more than `entries_max` clients. A full table forgets the least recently used
//! one. It sees only hashes of clients and backends, and has no clock of its own.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::config::Persist;
use crate::lru::{Hashed, Lru, Shard};
use crate::time::nanos;

use super::Pool;

/// A table from client to backend. An entry takes 44 bytes.
///
/// Times are in nanoseconds of a monotonic clock. Workers' clocks may differ by a batch, so an
/// entry's time never decreases.
pub struct StickyTable {
    clients: Lru<u64, Mapping>,
    ttl_ns: AtomicU64,
}

/// What is known of a client.
#[derive(Clone, Copy, Debug)]
struct Mapping {
    backend: u64,
    /// When it was used last, in ns; 0: removed.
    used: u64,
}

impl StickyTable {
    /// An empty table of at most `entries_max` clients, each remembered for `ttl_ns` after its last
    /// use. With 0 entries it remembers none. How exactly a full table forgets the least recently
    /// used client is said at [`Lru::new`].
    #[must_use]
    pub fn new(entries_max: u32, ttl_ns: u64) -> Self {
        Self {
            clients: Lru::new(entries_max),
            ttl_ns: AtomicU64::new(ttl_ns),
        }
    }

    /// The backend of `key`, if the entry was used within the last `ttl_ns`. Counts as a use.
    #[must_use]
    pub fn get(&self, key: u64, now: u64) -> Option<u64> {
        let (shard, key) = self.clients.locate(key);
        get(&mut shard.lock(), key, self.times(now))
    }

    /// The same as [`Self::get`], without counting as a use.
    #[must_use]
    pub fn look(&self, key: u64, now: u64) -> Option<u64> {
        let (shard, key) = self.clients.locate(key);
        let shard = shard.lock();
        let mapping = *shard.value(shard.find(key)?);
        (mapping.used >= self.times(now).1).then_some(mapping.backend)
    }

    /// Maps `key` to `backend`, unless it has a fresh mapping to a backend other than `replaces`.
    /// Returns the backend that it is mapped to afterwards.
    ///
    /// Two workers can meet a new client, or the failure of its backend, at the same moment: the
    /// second then follows the first. `replaces` is the unusable backend that [`Self::get`]
    /// returned.
    pub fn insert(&self, key: u64, backend: u64, replaces: Option<u64>, now: u64) -> u64 {
        let (shard, key) = self.clients.locate(key);
        let times = self.times(now);
        let mut shard = shard.lock();
        match get(&mut shard, key, times) {
            Some(mapped) if Some(mapped) != replaces => mapped,
            _ => {
                put(&mut shard, key, backend, times);
                backend
            }
        }
    }

    /// Renews the mapping of `key` to `backend`, even if it has expired, unless it was removed.
    pub fn revive(&self, key: u64, backend: u64, now: u64) {
        let (shard, key) = self.clients.locate(key);
        let mut shard = shard.lock();
        if let Some(index) = shard.find(key) {
            let mapping = shard.value(index);
            if mapping.used > 0 && mapping.backend == backend {
                renew(&mut shard, index, self.times(now).0);
            }
        }
    }

    /// Maps `key` to `backend` for `time` ns, or for the TTL if that is shorter.
    pub fn lend(&self, key: u64, backend: u64, time: u64, now: u64) {
        let (shard, key) = self.clients.locate(key);
        let (now, since) = self.times(now);
        let early = self.ttl_ns.load(Ordering::Relaxed).saturating_sub(time);
        let mut shard = shard.lock();
        remove(&mut shard, key);
        let used = now.saturating_sub(early).max(1);
        put(&mut shard, key, backend, (used, since));
    }

    /// Forgets `key`.
    pub fn remove(&self, key: u64) {
        let (shard, key) = self.clients.locate(key);
        remove(&mut shard.lock(), key);
    }

    /// Changes the TTL, for all entries.
    pub fn set_ttl(&self, ttl_ns: u64) {
        self.ttl_ns.store(ttl_ns, Ordering::Relaxed);
    }

    /// The number of entries, up to [`Self::capacity`], including expired ones that are not yet
    /// replaced. Takes every shard's lock in turn: not for the data path.
    #[must_use]
    pub fn clients(&self) -> usize {
        self.clients.len()
    }

    /// The most clients it remembers.
    #[must_use]
    pub fn capacity(&self) -> u32 {
        self.clients.capacity()
    }

    /// The time in terms of mappings, and the earliest last use of one that is fresh. Both are
    /// above 0, which marks removed entries, even right after the machine's start.
    fn times(&self, now: u64) -> (u64, u64) {
        let now = now.saturating_add(EPOCH);
        let since = now.saturating_sub(self.ttl_ns.load(Ordering::Relaxed));
        (now, since.max(1))
    }
}

/// The backend of a mapping that was used at or after `since`. Counts as a use.
fn get(shard: &mut Clients, key: Hashed<u64>, (now, since): (u64, u64)) -> Option<u64> {
    let index = shard.find(key)?;
    if shard.value(index).used < since {
        return None;
    }
    renew(shard, index, now);
    Some(shard.value(index).backend)
}

/// Maps the key to the backend, whatever it was mapped to.
fn put(shard: &mut Clients, key: Hashed<u64>, backend: u64, (now, since): (u64, u64)) {
    if let Some(index) = shard.find(key) {
        shard.value_mut(index).backend = backend;
        return renew(shard, index, now);
    }
    let mapping = Mapping { backend, used: now };
    // A shard without room for any client remembers none.
    let _ = shard.insert(key, mapping, |oldest| oldest.used < since);
}

/// Marks a mapping as removed, to be replaced first.
fn remove(shard: &mut Clients, key: Hashed<u64>) {
    if let Some(index) = shard.find(key) {
        shard.value_mut(index).used = 0;
        shard.expose(index);
    }
}

/// Records a use at `now`, in ns.
fn renew(shard: &mut Clients, index: u32, now: u64) {
    let mapping = shard.value_mut(index);
    mapping.used = mapping.used.max(now);
    shard.touch(index);
}

/// The sticky table of the pool before; a new one if the key or the size has changed.
pub(super) fn table(persist: Option<&Persist>, before: Option<&Pool>) -> Option<Arc<StickyTable>> {
    let persist = persist?;
    let ttl = nanos(persist.ttl);
    let same =
        |before: &Persist| before.key == persist.key && before.clients_max == persist.clients_max;
    let before = before.filter(|before| before.persist.as_ref().is_some_and(same));
    let table = before.and_then(|before| before.sticky.clone());
    table.or_else(|| Some(Arc::new(StickyTable::new(persist.clients_max, ttl))))
}

/// Leaves the entries out: there may be millions, behind locks.
impl fmt::Debug for StickyTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StickyTable")
            .field("entries_max", &self.capacity())
            .field("ttl_ns", &self.ttl_ns)
            .finish_non_exhaustive()
    }
}

type Clients = Shard<u64, Mapping>;

/// Added to times. Longer than any TTL, unless that is endless.
const EPOCH: u64 = 1 << 62;

#[cfg(test)]
mod tests;
