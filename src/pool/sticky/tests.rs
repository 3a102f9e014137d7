//! Tests of the sticky table: expiry, eviction, and races, against a model.

use std::sync::Barrier;
use std::thread;

use super::*;

fn keys(table: &StickyTable) -> Vec<u64> {
    table.clients.keys()
}

#[test]
fn a_client_is_known_for_the_ttl_after_its_last_use() {
    let table = StickyTable::new(10, 100);
    assert_eq!(table.insert(1, 7, None, 1_000), 7);
    assert_eq!(table.get(1, 1_100), Some(7), "exactly the TTL");
    assert_eq!(table.get(1, 1_200), Some(7), "and again from there");
    let _ = table.get(1, 1_300);
    let _ = table.get(1, 1_250);
    assert_eq!(table.get(1, 1_290), Some(7), "no use takes time back");
    assert_eq!(table.get(1, 1_401), None);
    assert_eq!(table.get(1, 1_401), None, "asking in vain is no use");
    let _ = table.get(1, 1_401);
    assert_eq!(table.get(1, 1_401), None);
}

#[test]
fn a_ttl_can_be_for_ever_or_nothing() {
    let forever = StickyTable::new(10, u64::MAX);
    forever.insert(1, 7, None, 0);
    assert_eq!(forever.get(1, u64::MAX), Some(7));
    let nothing = StickyTable::new(10, 0);
    nothing.insert(1, 7, None, 5);
    assert_eq!((nothing.get(1, 5), nothing.get(1, 6)), (Some(7), None));
}

#[test]
fn a_full_table_forgets_the_least_recently_seen_client() {
    let table = StickyTable::new(3, 1_000);
    for key in 1..=3 {
        table.insert(key, 10 * key, None, key);
    }
    assert_eq!(table.get(1, 4), Some(10));
    table.insert(4, 40, None, 5);
    assert_eq!(keys(&table), [3, 1, 4]);
    let found = [1, 2, 3, 4].map(|key| table.get(key, 6));
    assert_eq!(found, [Some(10), None, Some(30), Some(40)]);
    table.insert(3, 31, Some(30), 7);
    table.insert(2, 20, None, 8);
    assert_eq!(keys(&table), [4, 3, 2]);
    assert_eq!((table.clients(), table.capacity()), (3, 3));
}

#[test]
fn expired_entries_are_used_again_first() {
    let table = StickyTable::new(1_000, 100);
    for key in 1..=4 {
        table.insert(key, key, None, key);
    }
    table.insert(5, 5, None, 102);
    assert_eq!(keys(&table), [2, 3, 4, 5], "1 gave its place");
    // A key keeps its own place, however full the table is.
    assert_eq!(table.insert(3, 33, None, 200), 33);
    assert_eq!(keys(&table), [2, 4, 5, 3]);
    table.insert(6, 6, None, 200);
    assert_eq!(keys(&table), [4, 5, 3, 6]);
}

#[test]
fn the_second_follows_the_first_except_to_what_it_replaces() {
    let table = StickyTable::new(10, 100);
    assert_eq!(table.insert(1, 7, None, 0), 7);
    assert_eq!(table.insert(1, 8, None, 0), 7);
    assert_eq!(table.insert(1, 8, Some(6), 0), 7, "another was replaced");
    assert_eq!(table.insert(1, 7, None, 0), 7);
    // Two workers saw 7 fail.
    assert_eq!(table.insert(1, 8, Some(7), 0), 8);
    assert_eq!(table.insert(1, 9, Some(7), 0), 8);
    assert_eq!(table.get(1, 0), Some(8));
    // Neither an expired entry nor a missing one holds a client.
    assert_eq!(table.insert(1, 9, None, 101), 9);
    assert_eq!(table.insert(2, 5, Some(4), 101), 5);
    // Following is a use.
    assert_eq!(table.insert(1, 3, None, 201), 9);
    assert_eq!(table.get(1, 301), Some(9));
}

#[test]
fn a_client_takes_44_bytes() {
    assert_eq!(Lru::<u64, Mapping>::entries_in(44), 1);
    assert_eq!(Lru::<u64, Mapping>::entries_in(43), 0);
}

#[test]
fn nothing_is_remembered_without_entries() {
    let table = StickyTable::new(0, 100);
    assert_eq!(table.insert(1, 7, None, 0), 7);
    assert_eq!(table.get(1, 0), None);
    assert!(table.clients() == 0);
}

/// A model: an unbounded list of the mappings with the times of their last use.
#[derive(Default)]
struct Model {
    /// (key, backend, used), the least recently used first.
    entries: Vec<(u64, u64, u64)>,
}

impl Model {
    fn get(&mut self, key: u64, now: u64) -> Option<u64> {
        let at = self.entries.iter().position(|entry| entry.0 == key)?;
        if self.entries[at].2 + TTL < now {
            return None;
        }
        let (_, backend, used) = self.entries.remove(at);
        self.entries.push((key, backend, used.max(now)));
        Some(backend)
    }

    fn insert(&mut self, key: u64, backend: u64, replaces: Option<u64>, now: u64) -> u64 {
        if let Some(mapped) = self.get(key, now)
            && Some(mapped) != replaces
        {
            return mapped;
        }
        let before = self.entries.iter().position(|entry| entry.0 == key);
        let used = before.map_or(0, |at| self.entries.remove(at).2);
        let expired = self.entries.first().is_some_and(|e| e.2 + TTL < now);
        if before.is_none() && (self.entries.len() == ENTRIES || expired) {
            self.entries.remove(0);
        }
        self.entries.push((key, backend, used.max(now)));
        backend
    }
}

const TTL: u64 = 50;
const ENTRIES: usize = 20;

/// Random operations, with a clock that goes back now and then, as between workers.
#[test]
fn does_what_the_model_does() {
    for seed in 0..50 {
        let mut random = fastrand::Rng::with_seed(seed);
        let table = StickyTable::new(20, TTL);
        let mut model = Model::default();
        let mut clock = 0;
        for _ in 0..1_000 {
            clock += random.u64(0..4);
            let now = clock - random.u64(0..3).min(clock);
            let (key, backend) = (random.u64(0..40), random.u64(0..3));
            if random.bool() {
                assert_eq!(table.get(key, now), model.get(key, now), "seed {seed}");
            } else {
                let replaces = random.bool().then(|| random.u64(0..3));
                let ours = table.insert(key, backend, replaces, now);
                assert_eq!(ours, model.insert(key, backend, replaces, now));
            }
            let expected: Vec<_> = model.entries.iter().map(|entry| entry.0).collect();
            assert_eq!(keys(&table), expected, "seed {seed}");
        }
    }
}

/// Workers that meet the same new clients at the same moment agree on each.
#[test]
fn racing_workers_agree() {
    const KEYS: u32 = 20_000;
    let table = StickyTable::new(100_000, 1_000);
    let barrier = Barrier::new(2);
    let worker = |backend: u64| {
        barrier.wait();
        (0..u64::from(KEYS))
            .map(|key| table.insert(key, backend, None, 0))
            .collect::<Vec<_>>()
    };
    let [ours, theirs] = thread::scope(|scope| {
        [1, 2]
            .map(|backend| scope.spawn(move || worker(backend)))
            .map(|worker| worker.join().unwrap())
    });
    assert_eq!(ours, theirs);
    assert_eq!(table.clients(), KEYS as usize);
    for (key, backend) in (0..u64::from(KEYS)).zip(ours) {
        assert_eq!(table.get(key, 0), Some(backend));
    }
}

#[test]
fn what_is_removed_is_gone_and_its_place_is_used_first() {
    let table = StickyTable::new(3, 1_000_000);
    for key in 1..=3 {
        table.insert(key, key, None, 10);
    }
    table.remove(2);
    table.remove(9);
    assert_eq!(table.get(2, 11), None);
    table.insert(4, 4, None, 12);
    assert_eq!([1, 3, 4].map(|key| table.get(key, 13)), [1, 3, 4].map(Some));
    table.remove(4);
    assert_eq!(table.insert(4, 7, None, 14), 7);
    assert_eq!(table.get(4, 15), Some(7));
    for key in [1, 3, 4] {
        table.remove(key);
        table.insert(key, 9, None, 16);
    }
    assert_eq!([1, 3, 4].map(|key| table.get(key, 17)), [Some(9); 3]);
}
