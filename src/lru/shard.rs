//! One shard of a table: an LRU cache, made of a chained hash table and a list in order of use over
//! one array.
//!
//! Hash tables with open addressing leave tombstones and rehash everything at once, doubling their
//! size, or move any number of entries. Here an insertion into a full shard always unlinks one
//! entry and links one.
//!
//! Invariant: every entry is in the chain of its bucket exactly once, and in the list exactly once
//! unless it is pinned.

/// Up to a fixed number of entries; the least recently used one is replaced first.
#[derive(Debug)]
pub struct Shard<K, V> {
    entries_max: u32,
    /// The first entry of each bucket's chain: `entries_max` buckets, or none before the first
    /// entry.
    buckets: Vec<u32>,
    /// Grows up to `entries_max`, then entries are reused. An entry keeps its index.
    entries: Vec<Entry<K, V>>,
    /// The ends of the list.
    newest: u32,
    oldest: u32,
}

/// 16 bytes beside key and value, and 4 more in `buckets`.
#[derive(Debug)]
struct Entry<K, V> {
    key: K,
    value: V,
    bucket: u32,
    /// The next in the bucket's chain.
    next: u32,
    /// [`PINNED`] while it is not in the list.
    newer: u32,
    older: u32,
}

/// A key with the hash that says where to look for it.
#[derive(Clone, Copy, Debug)]
pub struct Hashed<K> {
    pub(super) key: K,
    /// Evenly distributed over all 32 bits.
    pub(super) hash: u32,
    /// The number of its shard.
    pub shard: u32,
}

impl<K: Copy + Eq, V> Shard<K, V> {
    /// What an entry takes in all.
    pub(super) const ENTRY_BYTES: u64 = (size_of::<Entry<K, V>>() + size_of::<u32>()) as u64;

    pub(super) fn new(entries_max: u32) -> Self {
        Self {
            entries_max,
            buckets: Vec::new(),
            entries: Vec::new(),
            newest: NONE,
            oldest: NONE,
        }
    }

    /// The index of the entry of a key. That is no use of it.
    #[must_use]
    pub fn find(&self, key: Hashed<K>) -> Option<u32> {
        if self.entries.is_empty() {
            return None;
        }
        let mut index = self.buckets[self.bucket(key) as usize];
        while index != NONE && self.entry(index).key != key.key {
            index = self.entry(index).next;
        }
        (index != NONE).then_some(index)
    }

    /// Adds the entry of a key that has none, as the one used last. Replaces the least recently
    /// used entry that is not pinned, if `is_spent` or the shard is full. Returns the index of the
    /// new entry; `None`: the shard is full of pinned entries, and stays as it is.
    pub fn insert(
        &mut self,
        key: Hashed<K>,
        value: V,
        is_spent: impl FnOnce(&V) -> bool,
    ) -> Option<u32> {
        debug_assert!(self.find(key).is_none(), "a key has one entry");
        if self.entries.is_empty() {
            // All at once: a growing vector would move its entries under the lock.
            self.entries.reserve_exact(self.entries_max as usize);
            self.buckets = vec![NONE; self.entries_max as usize];
        }
        let new = u32::try_from(self.entries.len()).expect("at most entries_max");
        let oldest = (self.oldest != NONE).then_some(self.oldest);
        let spent = oldest.filter(|oldest| is_spent(&self.entry(*oldest).value));
        let reused = match spent {
            None if new < self.entries_max => None,
            None => Some(oldest?),
            spent => spent,
        };
        let entry = Entry {
            key: key.key,
            value,
            bucket: self.bucket(key),
            next: NONE,
            newer: NONE,
            older: NONE,
        };
        let index = match reused {
            None => {
                self.entries.push(entry);
                new
            }
            Some(index) => {
                self.unlink(index);
                self.unchain(index);
                *self.entry_mut(index) = entry;
                index
            }
        };
        self.chain(index);
        self.link(index);
        Some(index)
    }

    /// The same, but where that would replace an entry that does not give way: then it stays as it
    /// is, and the answer is `None`.
    pub fn insert_if_room(
        &mut self,
        key: Hashed<K>,
        value: V,
        gives_way: impl Fn(&V) -> bool,
    ) -> Option<u32> {
        let is_full = self.entries.len() >= self.entries_max as usize;
        let has_one = self.oldest != NONE && gives_way(&self.entry(self.oldest).value);
        (!is_full || has_one).then(|| self.insert(key, value, |_| is_full))?
    }

    /// Entries from one index to before another one. An entry keeps its index, so all of them are
    /// seen by and by, though others come meanwhile.
    pub fn some(&self, from: u32, to: u32) -> impl Iterator<Item = (K, &V)> {
        let to = (to as usize).min(self.entries.len());
        let some = self.entries.get(from as usize..to).unwrap_or_default();
        some.iter().map(|entry| (entry.key, &entry.value))
    }

    /// The value of an entry.
    #[must_use]
    pub fn value(&self, index: u32) -> &V {
        &self.entry(index).value
    }

    /// The value of an entry, to change it. That is no use of it.
    pub fn value_mut(&mut self, index: u32) -> &mut V {
        &mut self.entry_mut(index).value
    }

    /// Records a use of an entry.
    pub fn touch(&mut self, index: u32) {
        if index != self.newest && !self.is_pinned(index) {
            self.unlink(index);
            self.link(index);
        }
    }

    /// Makes an entry the one that is replaced first. It must not be pinned.
    pub fn expose(&mut self, index: u32) {
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

    /// Keeps an entry from being replaced.
    pub fn pin(&mut self, index: u32) {
        if !self.is_pinned(index) {
            self.unlink(index);
            self.entry_mut(index).newer = PINNED;
        }
    }

    /// Ends that. Counts as a use.
    pub fn unpin(&mut self, index: u32) {
        if self.is_pinned(index) {
            self.link(index);
        }
    }

    /// The number of entries.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &V> {
        self.entries.iter().map(|entry| &entry.value)
    }

    fn is_pinned(&self, index: u32) -> bool {
        self.entry(index).newer == PINNED
    }

    fn bucket(&self, key: Hashed<K>) -> u32 {
        let bucket = (u64::from(key.hash) * u64::from(self.entries_max)) >> 32;
        u32::try_from(bucket).expect("below entries_max")
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
        debug_assert_ne!(newer, PINNED, "a pinned entry is not in the list");
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

    fn entry(&self, index: u32) -> &Entry<K, V> {
        &self.entries[index as usize]
    }

    fn entry_mut(&mut self, index: u32) -> &mut Entry<K, V> {
        &mut self.entries[index as usize]
    }
}

/// No entry. An index never gets this high: memory ends before.
const NONE: u32 = u32::MAX;
/// In place of the newer neighbour of a pinned entry.
const PINNED: u32 = u32::MAX - 1;

#[cfg(test)]
impl<K: Copy + Eq, V> Shard<K, V> {
    /// The keys that are not pinned, the least recently used first, after comparing list and
    /// chains.
    pub(super) fn check(&self) -> Vec<K> {
        assert!(self.len() <= self.entries_max as usize);
        assert!(self.entries.capacity() <= self.entries_max as usize);
        let mut keys = Vec::new();
        let (mut index, mut older) = (self.oldest, NONE);
        while index != NONE {
            assert_eq!(self.entry(index).older, older);
            keys.push(self.entry(index).key);
            (index, older) = (self.entry(index).newer, index);
        }
        assert_eq!(self.newest, older);
        let pinned = self.entries.iter().filter(|entry| entry.newer == PINNED);
        assert_eq!(keys.len() + pinned.count(), self.len());
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
