//! The sticky table of a pool: maps clients to backends, for all workers, in a fixed size.
//!
//! Invariant: never more than `entries_max` clients. A full table forgets the least recently used
//! one. It sees only hashes of clients and backends, and has no clock of its own.

mod shared;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use crate::config::Persist;
use crate::lru::{Hashed, Lru, Shard};
use crate::time::nanos;

use super::Pool;
use shared::Changes;
pub use shared::{Learned, StickyEntry, StickyPage, StickyWatch};

/// A table from client to backend. An entry takes 44 bytes.
///
/// Times are in nanoseconds of a monotonic clock. Workers' clocks may differ by a batch, so an
/// entry's time never decreases.
pub struct StickyTable {
    clients: Lru<u64, Mapping>,
    ttl_ns: AtomicU64,
    /// What other balancers are to learn; none before that is first asked for.
    changes: OnceLock<Changes>,
}

/// What is known of a client.
#[derive(Clone, Copy, Debug)]
struct Mapping {
    backend: u64,
    /// When it was used last, in units of [`Times`]; 0: removed. The lowest bit is set where
    /// another balancer has told so.
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
            changes: OnceLock::new(),
        }
    }

    /// The backend of `key`, if the entry was used within the last `ttl_ns`. Counts as a use.
    #[must_use]
    pub fn get(&self, key: u64, now: u64) -> Option<u64> {
        let (shard, hashed) = self.clients.locate(key);
        let (backend, is_news) = get(&mut shard.lock(), hashed, self.times(now))?;
        self.note(key, is_news);
        Some(backend)
    }

    /// The same as [`Self::get`], without counting as a use.
    #[must_use]
    pub fn look(&self, key: u64, now: u64) -> Option<u64> {
        let (shard, key) = self.clients.locate(key);
        let shard = shard.lock();
        let mapping = *shard.value(shard.find(key)?);
        (mapping.used >= self.times(now).since).then_some(mapping.backend)
    }

    /// Maps `key` to `backend`, unless it has a fresh mapping to a backend other than `replaces`.
    /// Returns the backend that it is mapped to afterwards.
    ///
    /// Two workers can meet a new client, or the failure of its backend, at the same moment: the
    /// second then follows the first. `replaces` is the unusable backend that [`Self::get`]
    /// returned.
    pub fn insert(&self, key: u64, backend: u64, replaces: Option<u64>, now: u64) -> u64 {
        let (shard, hashed) = self.clients.locate(key);
        let times = self.times(now);
        let mut shard = shard.lock();
        let (mapped, is_news) = match get(&mut shard, hashed, times) {
            Some((mapped, is_news)) if Some(mapped) != replaces => (mapped, is_news),
            _ => {
                put(&mut shard, hashed, backend, times);
                (backend, true)
            }
        };
        drop(shard);
        self.note(key, is_news);
        mapped
    }

    /// Renews the mapping of `key` to `backend`, even if it has expired, unless it was removed.
    pub fn revive(&self, key: u64, backend: u64, now: u64) {
        let (shard, key) = self.clients.locate(key);
        let mut shard = shard.lock();
        if let Some(index) = shard.find(key) {
            let mapping = shard.value(index);
            if mapping.used > 0 && mapping.backend == backend {
                renew(&mut shard, index, self.times(now));
            }
        }
    }

    /// Maps `key` to `backend` for `time` ns, or for the TTL if that is shorter.
    pub fn lend(&self, key: u64, backend: u64, time: u64, now: u64) {
        let (shard, key) = self.clients.locate(key);
        let mut times = self.times(now);
        let early = self.ttl_ns.load(Ordering::Relaxed).saturating_sub(time);
        times.now = times.now.saturating_sub(units(early)).max(2);
        let mut shard = shard.lock();
        remove(&mut shard, key);
        put(&mut shard, key, backend, times);
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

    fn times(&self, now: u64) -> Times {
        let ttl = self.ttl_ns.load(Ordering::Relaxed);
        let now = units(now.saturating_add(EPOCH));
        let since = now.saturating_sub(units(ttl));
        Times {
            now,
            since: since.max(1),
            step: 2 * u64::from(self.changes.get().is_some()),
            // An eighth of the TTL, about 1 to 69 s.
            slot_bits: (ttl >> 2).max(1).ilog2().clamp(31, 37),
        }
    }
}

/// Times in terms of mappings: in halves of nanoseconds, so that the lowest bit is free. Those of
/// uses are above 0, which marks removed entries, even right after the machine's start.
#[derive(Clone, Copy)]
struct Times {
    now: u64,
    /// The earliest last use of a mapping that is fresh.
    since: u64,
    /// How much later a mapping to another backend is than the one that it replaces, at least: so
    /// that the clock of another balancer does not matter, where there is one.
    step: u64,
    /// Other balancers learn of a use when the time without so many bits has changed.
    slot_bits: u32,
}

/// A time or a duration in ns, in the units of [`Times`].
fn units(ns: u64) -> u64 {
    ns.min(u64::MAX >> 1) << 1
}

/// The backend of a mapping that was used at or after `since`, and whether other balancers are to
/// learn of it. Counts as a use.
fn get(shard: &mut Clients, key: Hashed<u64>, times: Times) -> Option<(u64, bool)> {
    let index = shard.find(key)?;
    if shard.value(index).used < times.since {
        return None;
    }
    let is_news = renew(shard, index, times);
    Some((shard.value(index).backend, is_news))
}

/// Maps the key to the backend, whatever it was mapped to.
fn put(shard: &mut Clients, key: Hashed<u64>, backend: u64, times: Times) {
    if let Some(index) = shard.find(key) {
        let mapping = shard.value_mut(index);
        if mapping.backend != backend {
            mapping.backend = backend;
            mapping.used = mapping.used.saturating_add(times.step);
        }
        renew(shard, index, times);
        return;
    }
    let used = times.now;
    let mapping = Mapping { backend, used };
    // A shard without room for any client remembers none.
    let _ = shard.insert(key, mapping, |oldest| oldest.used < times.since);
}

/// Marks a mapping as removed, to be replaced first.
fn remove(shard: &mut Clients, key: Hashed<u64>) {
    if let Some(index) = shard.find(key) {
        shard.value_mut(index).used = 0;
        shard.expose(index);
    }
}

/// Records a use. Answers whether other balancers are to learn of it: the last one they know of is
/// a while ago, or was another balancer's.
fn renew(shard: &mut Clients, index: u32, times: Times) -> bool {
    let mapping = shard.value_mut(index);
    let before = mapping.used;
    // Without the lowest bit: it is this balancer's now.
    mapping.used = times.now.max(before.saturating_add(before & LEARNED));
    let is_later = (before ^ mapping.used) >> times.slot_bits != 0;
    shard.touch(index);
    is_later || before & LEARNED != 0
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
const EPOCH: u64 = 1 << 61;
/// The bit of a mapping that another balancer has told.
const LEARNED: u64 = 1;

#[cfg(test)]
mod tests;
