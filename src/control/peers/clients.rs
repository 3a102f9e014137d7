//! Sticky clients: what other balancers are to learn of this one's tables, and what is learned.
//!
//! Tables know clients and backends by hashes. On the wire a pool and a backend have their names,
//! so that an entry counts only where both are known.

use std::collections::HashMap;
use std::sync::Arc;

use crate::hash;
use crate::pool::{Learned, StickyEntry, StickyPage, StickyWatch};
use crate::select::Plan;
use crate::snapshot::Snapshot;
use crate::time::MS;

use super::bans::Now;
use super::clock::{Stamp, is_past};
use super::counts::Refusal;
use super::frame::{BACKENDS_MAX, CLIENTS_MAX, ClientEntry, Clients};

/// The pools of this balancer that have sticky clients.
#[derive(Debug, Default)]
pub(super) struct StickyPools {
    version: u64,
    by_name: HashMap<String, Arc<StickyPool>>,
}

/// A pool with sticky clients.
#[derive(Debug)]
pub(super) struct StickyPool {
    plan: Arc<Plan>,
    name: String,
    /// What clients are known by, as a file has it.
    key: String,
    watch: StickyWatch,
    /// The names of its backends, by their hashes.
    backends: HashMap<u64, String>,
}

/// What the times of the workers' clock are in ns since 1970: what is to be added.
#[derive(Clone, Copy, Debug)]
pub(super) struct Base(u64);

impl Base {
    pub(super) fn new(now: Now) -> Self {
        Self(now.wall.saturating_sub(now.monotonic))
    }

    /// The same while the clocks differ as before, so that stamps of one use are the same. After
    /// the machine's clock was set they are not.
    pub(super) fn follow(&mut self, now: Now) {
        let present = Self::new(now);
        if present.0.abs_diff(self.0) > STEP {
            *self = present;
        }
    }

    fn stamp(self, used: u64) -> Stamp {
        Stamp(used.saturating_add(self.0))
    }

    fn used(self, stamp: Stamp) -> u64 {
        stamp.0.saturating_sub(self.0)
    }
}

impl StickyPools {
    /// Follows a snapshot.
    pub(super) fn follow(&mut self, snapshot: &Snapshot) {
        if self.version == snapshot.version {
            return;
        }
        self.version = snapshot.version;
        let mut before = std::mem::take(&mut self.by_name);
        let pools = snapshot.pools.iter().filter_map(|plan| {
            let known = before.remove(&plan.pool().name);
            let known = known.filter(|its| Arc::ptr_eq(&its.plan, plan));
            known.or_else(|| StickyPool::new(plan).map(Arc::new))
        });
        self.by_name = pools.map(|pool| (pool.name.clone(), pool)).collect();
    }

    /// All of them.
    pub(super) fn all(&self) -> Vec<Arc<StickyPool>> {
        self.by_name.values().cloned().collect()
    }

    /// Takes in what another balancer has told. Answers why entries of it are not taken, and how
    /// many.
    pub(super) fn learn(&self, told: &Clients, base: Base, now: Now) -> Vec<(Refusal, usize)> {
        let all = told.entries.len();
        let Some(pool) = self.by_name.get(&told.pool) else {
            return vec![(Refusal::UnknownPool, all)];
        };
        if pool.key != told.key {
            return vec![(Refusal::OtherKey, all)];
        }
        let known = told.backends.iter().map(|name| {
            let backend = hash::of(name.as_bytes());
            pool.backends.contains_key(&backend).then_some(backend)
        });
        let known: Vec<_> = known.collect();
        let mut refused: Vec<(Refusal, usize)> = Vec::new();
        for entry in &told.entries {
            let backend = known.get(usize::from(entry.backend)).copied().flatten();
            if let Err(why) = pool.learn(entry, backend, (base, now)) {
                match refused.iter_mut().find(|(one, _)| *one == why) {
                    Some((_, count)) => *count += 1,
                    None => refused.push((why, 1)),
                }
            }
        }
        refused
    }
}

impl StickyPool {
    fn new(plan: &Arc<Plan>) -> Option<Self> {
        let pool = plan.pool();
        let (persist, table) = (pool.persist.as_ref()?, pool.sticky.as_ref()?);
        let names = pool.backends.iter().map(|backend| &backend.name);
        Some(Self {
            plan: Arc::clone(plan),
            name: pool.name.clone(),
            key: persist.key.to_string(),
            watch: StickyWatch::new(table),
            backends: names
                .map(|name| (hash::of(name.as_bytes()), name.clone()))
                .collect(),
        })
    }

    fn learn(
        &self,
        entry: &ClientEntry,
        backend: Option<u64>,
        (base, now): (Base, Now),
    ) -> Result<(), Refusal> {
        let backend = backend.ok_or(Refusal::UnknownBackend)?;
        if !is_past(entry.used, now.wall) {
            return Err(Refusal::Clock);
        }
        let told = StickyEntry {
            client: entry.client,
            backend,
            used: base.used(entry.used),
        };
        match self.watch.table().learn(told, now.monotonic) {
            Learned::Taken | Learned::Older => Ok(()),
            Learned::Full => Err(Refusal::NoRoom),
        }
    }

    /// Whether changes were lost since the last call.
    pub(super) fn has_lost(&self) -> bool {
        self.watch.has_lost()
    }

    /// Own entries that have changed since the last call, up to so many clients.
    pub(super) fn changes(&self, at_most: usize, base: Base, now: Now) -> Vec<Clients> {
        let clients = std::iter::from_fn(|| self.watch.next()).take(at_most);
        let mut clients: Vec<_> = clients.collect();
        clients.sort_unstable();
        clients.dedup();
        let table = self.watch.table();
        let own = clients.into_iter();
        self.frames(
            own.filter_map(|client| table.own(client, now.monotonic)),
            base,
        )
    }

    /// The next entries, of all writers; where to go on, or `None`.
    pub(super) fn page(
        &self,
        page: StickyPage,
        base: Base,
        now: Now,
    ) -> (Vec<Clients>, Option<StickyPage>) {
        let mut entries = Vec::new();
        let table = self.watch.table();
        let next = table.entries(page, (PAGE, now.monotonic), &mut entries);
        (self.frames(entries.into_iter(), base), next)
    }

    /// Entries as frames have them. Those of backends that have left are left out.
    fn frames(&self, entries: impl Iterator<Item = StickyEntry>, base: Base) -> Vec<Clients> {
        let mut frames: Vec<Clients> = Vec::new();
        let mut places: HashMap<u64, u16> = HashMap::new();
        for entry in entries {
            let Some(name) = self.backends.get(&entry.backend) else {
                continue;
            };
            let has_room = |frame: &Clients| {
                frame.entries.len() < CLIENTS_MAX
                    && (frame.backends.len() < BACKENDS_MAX || places.contains_key(&entry.backend))
            };
            if !frames.last().is_some_and(has_room) {
                places.clear();
                frames.push(Clients {
                    pool: self.name.clone(),
                    key: self.key.clone(),
                    ..Clients::default()
                });
            }
            let Some(frame) = frames.last_mut() else {
                continue;
            };
            let backend = *places.entry(entry.backend).or_insert_with(|| {
                frame.backends.push(name.clone());
                u16::try_from(frame.backends.len() - 1).unwrap_or(u16::MAX)
            });
            frame.entries.push(ClientEntry {
                client: entry.client,
                backend,
                used: base.stamp(entry.used),
            });
        }
        frames
    }
}

/// Clocks that differ by that much more than before: one was set.
const STEP: u64 = 100 * MS;
/// Entries that are looked at under a lock at a time.
const PAGE: u32 = 1_000;
