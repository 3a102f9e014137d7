//! What balancers tell each other of sticky clients: a queue of changes, which there is only once
//! another balancer is to learn of them, and entries that others have told.
//!
//! An entry that was learned never takes the place of one that this balancer has written and that
//! is fresh: a balancer that lies fills what is free, and no more.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crossbeam::queue::ArrayQueue;

use super::{EPOCH, LEARNED, Mapping, StickyTable, units};

/// A client of which other balancers know, or are to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StickyEntry {
    /// The hash of what it is known by.
    pub client: u64,
    /// The hash of the name of its backend.
    pub backend: u64,
    /// When it was used last, in ns of the workers' clock.
    pub used: u64,
}

/// What came of an entry that another balancer has told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Learned {
    /// It counts from now on.
    Taken,
    /// What is known here is as late, or later; or the entry is too old.
    Older,
    /// The table is full of entries of this balancer.
    Full,
}

/// Clients whose entries have changed.
#[derive(Debug)]
pub(super) struct Changes {
    clients: ArrayQueue<u64>,
    /// There was no room for one.
    has_lost: AtomicBool,
    watchers: AtomicUsize,
}

/// Changes of a table are noted while this is kept.
#[derive(Debug)]
pub struct StickyWatch(Arc<StickyTable>);

/// Where to go on with the entries of a table.
#[derive(Clone, Copy, Debug, Default)]
pub struct StickyPage {
    shard: u32,
    index: u32,
}

impl StickyTable {
    /// Notes for other balancers that the entry of a client has changed.
    pub(super) fn note(&self, client: u64, is_news: bool) {
        if is_news && let Some(changes) = self.changes.get() {
            changes.add(client);
        }
    }

    /// The entry of a client, if it is fresh and this balancer has written it.
    #[must_use]
    pub fn own(&self, client: u64, now: u64) -> Option<StickyEntry> {
        let (shard, key) = self.clients.locate(client);
        let shard = shard.lock();
        let mapping = *shard.value(shard.find(key)?);
        drop(shard);
        let is_own = mapping.used >= self.times(now).since && mapping.used & LEARNED == 0;
        is_own.then(|| entry(client, mapping))
    }

    /// Takes in an entry of another balancer. Of two the one that was used later counts, and of
    /// equal ones that of the higher backend: so balancers come to the same in any order.
    pub fn learn(&self, told: StickyEntry, now: u64) -> Learned {
        let (shard, key) = self.clients.locate(told.client);
        let times = self.times(now);
        let mapping = Mapping {
            backend: told.backend,
            used: units(told.used.saturating_add(EPOCH)) | LEARNED,
        };
        if mapping.used < times.since {
            return Learned::Older;
        }
        let mut shard = shard.lock();
        if let Some(index) = shard.find(key) {
            let known = shard.value_mut(index);
            let rank = |its: &Mapping| (its.used & !LEARNED, its.backend);
            // What was removed here was so on purpose.
            if known.used == 0 || rank(&mapping) <= rank(known) {
                return Learned::Older;
            }
            *known = mapping;
            return Learned::Taken;
        }
        let gives_way = |oldest: &Mapping| oldest.used < times.since || oldest.used & LEARNED != 0;
        match shard.insert_if_room(key, mapping, gives_way) {
            Some(index) => {
                // Entries of this balancer take its place first.
                shard.expose(index);
                Learned::Taken
            }
            None => Learned::Full,
        }
    }

    /// Adds the next fresh entries, of all writers: up to so many are looked at. Answers
    /// where to go on; `None`: these were the last.
    pub fn entries(
        &self,
        page: StickyPage,
        (at_most, now): (u32, u64),
        to: &mut Vec<StickyEntry>,
    ) -> Option<StickyPage> {
        let since = self.times(now).since;
        let shard = self.clients.shard(page.shard).lock();
        let end = page.index.saturating_add(at_most);
        let mut seen = 0;
        for (client, mapping) in shard.some(page.index, end) {
            seen += 1;
            if mapping.used >= since {
                to.push(entry(client, *mapping));
            }
        }
        if seen == at_most {
            return Some(StickyPage { index: end, ..page });
        }
        let next = page.shard + 1;
        (next < self.clients.shards()).then_some(StickyPage {
            shard: next,
            index: 0,
        })
    }
}

fn entry(client: u64, mapping: Mapping) -> StickyEntry {
    StickyEntry {
        client,
        backend: mapping.backend,
        used: (mapping.used >> 1).saturating_sub(EPOCH),
    }
}

impl Changes {
    fn add(&self, client: u64) {
        if self.watchers.load(Ordering::Relaxed) > 0 && self.clients.push(client).is_err() {
            self.has_lost.store(true, Ordering::Relaxed);
        }
    }
}

impl StickyWatch {
    /// Notes changes of a table from now on.
    #[must_use]
    pub fn new(table: &Arc<StickyTable>) -> Self {
        let watch = Self(Arc::clone(table));
        watch.changes().watchers.fetch_add(1, Ordering::Relaxed);
        watch
    }

    /// The table.
    #[must_use]
    pub fn table(&self) -> &Arc<StickyTable> {
        &self.0
    }

    /// A client whose entry has changed.
    #[must_use]
    pub fn next(&self) -> Option<u64> {
        self.changes().clients.pop()
    }

    /// Whether changes were lost since the last call.
    #[must_use]
    pub fn has_lost(&self) -> bool {
        self.changes().has_lost.swap(false, Ordering::Relaxed)
    }

    fn changes(&self) -> &Changes {
        self.0.changes.get_or_init(|| Changes {
            clients: ArrayQueue::new(CHANGES_MAX),
            has_lost: AtomicBool::new(false),
            watchers: AtomicUsize::new(0),
        })
    }
}

impl Drop for StickyWatch {
    fn drop(&mut self) {
        let changes = self.changes();
        if changes.watchers.fetch_sub(1, Ordering::Relaxed) == 1 {
            while changes.clients.pop().is_some() {}
        }
    }
}

/// Changes that wait: as many as a fleet takes in half a second, of 16 bytes each.
const CHANGES_MAX: usize = 1 << 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::SECOND;

    const TTL: u64 = 100 * SECOND;
    const NOW: u64 = 1_000 * SECOND;

    fn table(entries_max: u32) -> Arc<StickyTable> {
        Arc::new(StickyTable::new(entries_max, TTL))
    }

    fn told(client: u64, backend: u64, used: u64) -> StickyEntry {
        StickyEntry {
            client,
            backend,
            used,
        }
    }

    fn changes(watch: &StickyWatch) -> Vec<u64> {
        std::iter::from_fn(|| watch.next()).collect()
    }

    #[test]
    fn nothing_is_noted_unless_it_is_watched() {
        let table = table(10);
        table.insert(1, 7, None, NOW);
        assert!(table.changes.get().is_none());
        let watch = StickyWatch::new(&table);
        table.insert(2, 7, None, NOW);
        assert_eq!(changes(&watch), [2]);
        table.insert(3, 7, None, NOW);
        drop(watch);
        table.insert(4, 7, None, NOW);
        assert!(changes(&StickyWatch::new(&table)).is_empty());
    }

    #[test]
    fn a_client_that_is_used_all_the_time_is_told_once_in_a_while() {
        let table = table(10);
        let watch = StickyWatch::new(&table);
        table.insert(1, 7, None, NOW);
        for ms in 0..100_000 {
            let _ = table.get(1, NOW + ms * 1_000_000);
        }
        let times = changes(&watch).len();
        assert!(
            (8..=15).contains(&times),
            "{times} times in 100 s of a TTL of 100 s"
        );
    }

    #[test]
    fn what_was_learned_is_told_to_no_one_until_it_is_used_here() {
        let table = table(10);
        let watch = StickyWatch::new(&table);
        assert_eq!(table.learn(told(1, 7, NOW), NOW), Learned::Taken);
        assert_eq!((changes(&watch), table.own(1, NOW)), (vec![], None));
        assert_eq!(table.look(1, NOW), Some(7));
        assert_eq!(table.get(1, NOW + 5), Some(7));
        assert_eq!(changes(&watch), [1]);
        assert_eq!(table.own(1, NOW + 5), Some(told(1, 7, NOW + 5)));
        // It ends a TTL after its use on the other balancer.
        table.learn(told(2, 7, NOW - TTL / 2), NOW);
        assert_eq!(table.look(2, NOW + TTL / 2), Some(7));
        assert_eq!(table.look(2, NOW + TTL / 2 + 1), None);
        assert_eq!(table.learn(told(3, 7, NOW - TTL - 1), NOW), Learned::Older);
    }

    #[test]
    fn a_write_that_knows_another_one_is_later() {
        let table = table(10);
        // By a clock that is ahead.
        table.learn(told(1, 7, NOW + 5 * SECOND), NOW);
        table.insert(1, 8, Some(7), NOW);
        let own = table.own(1, NOW).unwrap();
        assert!(own.backend == 8 && own.used > NOW + 5 * SECOND);
        assert_eq!(
            table.learn(told(1, 7, NOW + 5 * SECOND), NOW),
            Learned::Older
        );
    }

    #[test]
    fn entries_of_others_take_only_room_that_is_free() {
        let table = table(4);
        for client in 1..=3 {
            table.insert(client, 7, None, NOW);
        }
        for client in 10..1_000 {
            table.learn(told(client, 9, NOW), NOW);
        }
        assert!((1..=3).all(|client| table.look(client, NOW) == Some(7)));
        // An own one takes their place.
        table.insert(4, 7, None, NOW);
        assert!((1..=4).all(|client| table.look(client, NOW) == Some(7)));
        assert_eq!(table.learn(told(10, 9, NOW), NOW), Learned::Full);
        // Until own ones are over.
        let later = NOW + TTL + 1;
        assert_eq!(table.learn(told(10, 9, later), later), Learned::Taken);
    }

    #[test]
    fn what_was_removed_here_does_not_come_back() {
        let table = table(10);
        table.insert(1, 7, None, NOW);
        table.remove(1);
        assert_eq!(table.learn(told(1, 7, NOW), NOW), Learned::Older);
        assert_eq!(table.look(1, NOW), None);
    }

    #[test]
    fn two_tables_come_to_the_same_in_any_order() {
        for seed in 0..200 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let tables = [table(4_096), table(4_096)];
            let mut under_way: Vec<(usize, StickyEntry)> = Vec::new();
            for step in 0..60 {
                let now = NOW + step * rng.u64(..2) * SECOND;
                let (at, client) = (rng.usize(..2), rng.u64(..4));
                let replaces = tables[at].look(client, now).filter(|_| rng.bool());
                tables[at].insert(client, rng.u64(..3), replaces, now);
                under_way.extend(tables[at].own(client, now).map(|its| (1 - at, its)));
                rng.shuffle(&mut under_way);
                for _ in 0..rng.usize(..=under_way.len()) {
                    // Some come twice.
                    let Some((to, entry)) = under_way.last().copied() else {
                        break;
                    };
                    if rng.bool() {
                        under_way.pop();
                    }
                    if rng.u8(..3) > 0 {
                        tables[to].learn(entry, now);
                    }
                }
            }
            let now = NOW + 60 * SECOND;
            let all = |table: &StickyTable| {
                let (mut all, mut page) = (Vec::new(), Some(StickyPage::default()));
                while let Some(at) = page {
                    page = table.entries(at, (3, now), &mut all);
                }
                all.sort_by_key(|its| its.client);
                all
            };
            for (from, to) in [(0, 1), (1, 0)] {
                for entry in all(&tables[from]) {
                    tables[to].learn(entry, now);
                }
            }
            assert_eq!(all(&tables[0]), all(&tables[1]), "seed {seed}");
        }
    }
}
