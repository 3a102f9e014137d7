//! One shard of a sticky table: an LRU cache, made of a chained hash table and a list in order of
//! use over one array.
//!
//! Hash tables with open addressing leave tombstones and rehash everything at once, doubling their
//! size, or move any number of entries. Here an insertion into a full shard always unlinks one
//! entry and links one.
//!
//! Invariant: every entry is in the list and in the chain of its bucket, exactly once.

/// Up to a fixed number of entries; the least recently used one is replaced first.
#[derive(Debug)]
pub(super) struct Shard {
    entries_max: u32,
    /// The first entry of each bucket's chain: `entries_max` buckets, or none before the first
    /// entry.
    buckets: Vec<u32>,
    /// Grows up to `entries_max`, then entries are reused. An entry keeps its index.
    entries: Vec<Entry>,
    /// The ends of the list.
    newest: u32,
    oldest: u32,
}

/// 40 bytes, and 4 more in `buckets`.
#[derive(Debug)]
struct Entry {
    key: u64,
    backend: u64,
    /// When it was used last, in ns; 0: removed.
    used: u64,
    bucket: u32,
    /// The next in the bucket's chain.
    next: u32,
    newer: u32,
    older: u32,
}

/// A key and where to look for it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) key: u64,
    /// Evenly distributed over all 32 bits.
    pub(super) hash: u32,
}

impl Shard {
    pub(super) fn new(entries_max: u32) -> Self {
        Self {
            entries_max,
            buckets: Vec::new(),
            entries: Vec::new(),
            newest: NONE,
            oldest: NONE,
        }
    }

    /// The backend of an entry that was used at or after `since`. Counts as a use.
    pub(super) fn get(&mut self, place: Place, now: u64, since: u64) -> Option<u64> {
        let index = self.find(place)?;
        if self.entry(index).used < since {
            return None;
        }
        self.renew(index, now);
        Some(self.entry(index).backend)
    }

    /// Maps the key to the backend, whatever it was mapped to.
    pub(super) fn put(&mut self, place: Place, backend: u64, now: u64, since: u64) {
        if self.entries_max == 0 {
            return;
        }
        if let Some(index) = self.find(place) {
            self.entry_mut(index).backend = backend;
            self.renew(index, now);
            return;
        }
        if self.entries.is_empty() {
            // All at once: a growing vector would move its entries under the lock.
            self.entries.reserve_exact(self.entries_max as usize);
            self.buckets = vec![NONE; self.entries_max as usize];
        }
        let entry = Entry {
            key: place.key,
            backend,
            used: now,
            bucket: self.bucket(place),
            next: NONE,
            newer: NONE,
            older: NONE,
        };
        let index = self.store(entry, since);
        self.chain(index);
        self.link(index);
    }

    /// Renews an entry of this backend, even if it has expired, unless it was removed.
    pub(super) fn revive(&mut self, place: Place, backend: u64, now: u64) {
        if let Some(index) = self.find(place) {
            let entry = self.entry(index);
            if entry.used > 0 && entry.backend == backend {
                self.renew(index, now);
            }
        }
    }

    /// Marks an entry as removed, to be reused first.
    pub(super) fn remove(&mut self, place: Place) {
        let Some(index) = self.find(place) else {
            return;
        };
        self.entry_mut(index).used = 0;
        self.unlink(index);
        let first = self.oldest;
        let entry = self.entry_mut(index);
        entry.older = NONE;
        entry.newer = first;
        self.oldest = index;
        match first {
            NONE => self.newest = index,
            first => self.entry_mut(first).older = index,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Stores the entry. Replaces the oldest one if that has expired or the shard is full.
    fn store(&mut self, entry: Entry, since: u64) -> u32 {
        let index = u32::try_from(self.entries.len()).expect("at most entries_max");
        let expired = self.oldest != NONE && self.entry(self.oldest).used < since;
        if index < self.entries_max && !expired {
            self.entries.push(entry);
            return index;
        }
        let index = self.oldest;
        self.unlink(index);
        self.unchain(index);
        *self.entry_mut(index) = entry;
        index
    }

    fn find(&self, place: Place) -> Option<u32> {
        if self.entries.is_empty() {
            return None;
        }
        let mut index = self.buckets[self.bucket(place) as usize];
        while index != NONE && self.entry(index).key != place.key {
            index = self.entry(index).next;
        }
        (index != NONE).then_some(index)
    }

    fn bucket(&self, place: Place) -> u32 {
        let bucket = (u64::from(place.hash) * u64::from(self.entries_max)) >> 32;
        u32::try_from(bucket).expect("below entries_max")
    }

    /// Records a use of the entry at `now`, in ns.
    fn renew(&mut self, index: u32, now: u64) {
        let entry = self.entry_mut(index);
        entry.used = entry.used.max(now);
        if index != self.newest {
            self.unlink(index);
            self.link(index);
        }
    }

    /// Puts an entry that is not in the list at its newest end.
    fn link(&mut self, index: u32) {
        let second = self.newest;
        let entry = self.entry_mut(index);
        entry.newer = NONE;
        entry.older = second;
        self.newest = index;
        match second {
            NONE => self.oldest = index,
            second => self.entry_mut(second).newer = index,
        }
    }

    /// Takes an entry out of the list.
    fn unlink(&mut self, index: u32) {
        let &Entry { newer, older, .. } = self.entry(index);
        match newer {
            NONE => self.newest = older,
            newer => self.entry_mut(newer).older = older,
        }
        match older {
            NONE => self.oldest = newer,
            older => self.entry_mut(older).newer = newer,
        }
    }

    /// Puts an entry first into its bucket's chain.
    fn chain(&mut self, index: u32) {
        let bucket = self.entry(index).bucket as usize;
        self.entry_mut(index).next = self.buckets[bucket];
        self.buckets[bucket] = index;
    }

    /// Takes an entry out of its bucket's chain.
    fn unchain(&mut self, index: u32) {
        let &Entry { bucket, next, .. } = self.entry(index);
        let mut before = self.buckets[bucket as usize];
        if before == index {
            self.buckets[bucket as usize] = next;
            return;
        }
        while self.entry(before).next != index {
            before = self.entry(before).next;
        }
        self.entry_mut(before).next = next;
    }

    fn entry(&self, index: u32) -> &Entry {
        &self.entries[index as usize]
    }

    fn entry_mut(&mut self, index: u32) -> &mut Entry {
        &mut self.entries[index as usize]
    }
}

/// No entry. An index never gets this high: memory ends before.
const NONE: u32 = u32::MAX;

#[cfg(test)]
impl Shard {
    /// The keys, the least recently used first, after comparing list and chains.
    pub(super) fn keys(&self) -> Vec<u64> {
        assert_eq!(size_of::<Entry>(), 40);
        assert!(self.len() <= self.entries_max as usize);
        assert!(self.entries.capacity() <= self.entries_max as usize);
        let mut keys = Vec::new();
        let (mut index, mut older) = (self.oldest, NONE);
        while index != NONE {
            assert_eq!(self.entry(index).older, older);
            keys.push(self.entry(index).key);
            (index, older) = (self.entry(index).newer, index);
        }
        assert_eq!((self.newest, keys.len()), (older, self.len()));
        let mut chained = 0;
        for (bucket, &first) in self.buckets.iter().enumerate() {
            let mut index = first;
            while index != NONE {
                assert_eq!(self.entry(index).bucket as usize, bucket);
                index = self.entry(index).next;
                chained += 1;
            }
        }
        assert_eq!(chained, self.len());
        keys
    }
}
