//! Tests of the table against a model, and of how it is divided.

use std::collections::{HashMap, HashSet};

use super::*;

/// A model: the entries in a list, and what is pinned apart.
#[derive(Default)]
struct Model {
    /// Key and value, the least recently used first.
    listed: Vec<(u64, u64)>,
    pinned: HashMap<u64, u64>,
}

impl Model {
    fn value(&mut self, key: u64) -> Option<&mut u64> {
        let listed = self.listed.iter_mut().find(|entry| entry.0 == key);
        let listed = listed.map(|(_, value)| value);
        listed.or_else(|| self.pinned.get_mut(&key))
    }

    fn take(&mut self, key: u64) -> Option<(u64, u64)> {
        let at = self.listed.iter().position(|entry| entry.0 == key)?;
        Some(self.listed.remove(at))
    }

    fn insert(&mut self, key: u64, value: u64, spent_below: u64) -> bool {
        let is_full = self.listed.len() + self.pinned.len() == ENTRIES;
        let is_spent = self.listed.first().is_some_and(|its| its.1 < spent_below);
        if is_full && self.listed.is_empty() {
            return false;
        }
        if is_full || is_spent {
            self.listed.remove(0);
        }
        self.listed.push((key, value));
        true
    }

    /// Does one operation on both, and compares what they answer. It pins an entry the more often,
    /// the higher `pins`.
    fn step(&mut self, table: &Lru<u64, u64>, pins: u32, random: &mut fastrand::Rng) {
        let (key, value) = (random.u64(0..2 * ENTRIES as u64), random.u64(0..100));
        let (shard, hashed) = table.locate(key);
        let mut shard = shard.lock();
        let found = shard.find(hashed);
        assert_eq!(found.is_some(), self.value(key).is_some());
        let Some(index) = found else {
            let spent_below = random.u64(0..20);
            let inserted = shard.insert(hashed, value, |oldest| *oldest < spent_below);
            assert_eq!(inserted.is_some(), self.insert(key, value, spent_below));
            assert_eq!(inserted, shard.find(hashed));
            return;
        };
        assert_eq!(Some(shard.value_mut(index)), self.value(key));
        match random.u32(0..5 + pins) {
            0 => {
                *shard.value_mut(index) = value;
                self.value(key).into_iter().for_each(|its| *its = value);
            }
            1 if !self.pinned.contains_key(&key) => {
                shard.expose(index);
                let entry = self.take(key);
                self.listed.splice(0..0, entry);
            }
            2 => {
                shard.unpin(index);
                let value = self.pinned.remove(&key);
                self.listed.extend(value.map(|value| (key, value)));
            }
            3 | 4 => {
                shard.touch(index);
                let entry = self.take(key);
                self.listed.extend(entry);
            }
            // Twice has no further effect.
            _ => {
                shard.pin(index);
                let entry = self.take(key);
                self.pinned.extend(entry);
            }
        }
    }
}

const ENTRIES: usize = 20;

#[test]
fn does_what_the_model_does() {
    let mut full = 0;
    for seed in 0..100_u32 {
        let mut random = fastrand::Rng::with_seed(seed.into());
        let table = Lru::new(20);
        let mut model = Model::default();
        for _ in 0..1_000 {
            model.step(&table, 1 + 10 * (seed % 2), &mut random);
            let listed: Vec<_> = model.listed.iter().map(|entry| entry.0).collect();
            assert_eq!(table.keys(), listed, "seed {seed}");
            assert_eq!(table.len(), listed.len() + model.pinned.len());
            full += u32::from(model.pinned.len() == ENTRIES);
        }
    }
    assert!(full > 0, "no run pinned all entries");
}

#[test]
fn a_table_of_pinned_entries_takes_no_other_until_one_is_unpinned() {
    let table = Lru::new(3);
    let insert = |key| {
        let (shard, hashed) = table.locate(key);
        let mut shard = shard.lock();
        let index = shard.insert(hashed, (), |()| true)?;
        shard.pin(index);
        Some(index)
    };
    assert_eq!([1, 2, 3, 4].map(insert), [Some(0), Some(1), Some(2), None]);
    assert_eq!((table.keys(), table.len()), (vec![], 3));
    table.shard(0).lock().unpin(1);
    assert_eq!(table.keys(), [2]);
    assert_eq!([4, 5].map(insert), [Some(1), None]);
    let found = [1, 2, 3, 4].map(|key| {
        let (shard, hashed) = table.locate(key);
        shard.lock().find(hashed)
    });
    assert_eq!(found, [Some(0), None, Some(2), Some(1)]);
}

#[test]
fn shards_sum_up_to_the_capacity() {
    let shards = [0, 1, 1_023, 2_047, 2_048, 5_000, 65_535, 65_536, 1_000_003];
    let shards = shards.map(|entries_max| {
        let table = Lru::new(entries_max);
        // Far more than there is room for, so that every shard is full.
        if entries_max < 10_000 {
            for key in 0..50_000 {
                let (shard, hashed) = table.locate(key);
                shard.lock().insert(hashed, (), |()| false);
            }
            assert_eq!(table.len(), entries_max as usize);
            assert_eq!(table.keys().len(), entries_max as usize);
        }
        table.shards.len()
    });
    assert_eq!(shards, [1, 1, 1, 1, 2, 4, 32, 64, 64]);
}

#[test]
fn a_table_takes_no_more_than_its_bytes() {
    assert_eq!(Shard::<u64, [u64; 2]>::ENTRY_BYTES, 44);
    let entries = Lru::<u64, [u64; 2]>::entries_in;
    assert_eq!([43, 44, 87, 88, 1 << 20].map(entries), [0, 1, 1, 2, 23_831]);
    assert_eq!(entries(u64::MAX), u32::MAX / 2);
}

/// Keys that strangers choose meet a hash of the table's own: two tables divide them differently.
#[test]
fn tables_have_secrets() {
    let tables = [(); 2].map(|()| Lru::<u64, ()>::new(100_000));
    let shards = tables.map(|table| {
        let shard_of = |key| table.locate(key).1.shard;
        let shards: HashMap<u64, _> = (0..1_000).map(|key| (key, shard_of(key))).collect();
        assert_eq!(shards.values().collect::<HashSet<_>>().len(), 64);
        shards
    });
    assert_ne!(shards[0], shards[1]);
}
