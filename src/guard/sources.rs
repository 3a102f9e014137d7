//! The table of sources: what all workers count of each client's network.
//!
//! Invariant: the table takes no more than its bytes. A source with connections that are counted is
//! never forgotten. Where there is no room for a newcomer, all newcomers of a listener share the
//! limits of one source.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use parking_lot::Mutex;

use super::bandwidth::Taken;
use super::fleet_rate::FleetRate;
use super::gate::Gate;
use super::rate::{Bucket, Rate, SharedBucket};
use super::{Action, Refusal};
use crate::lru::Lru;
use crate::prefix::Prefix;

/// The sources of all listeners, and what is counted of all clients together. It outlives
/// snapshots.
#[derive(Debug)]
pub struct Sources {
    table: Lru<Source, Count>,
    /// New connections of all listeners.
    pub(super) all: SharedBucket,
    /// The same where the fleet limits them.
    pub fleet_rate: FleetRate,
    /// Listeners that there have been.
    gates: AtomicU32,
    /// Clients for whose source the table had no room.
    overflowed: AtomicU64,
}

/// A network of clients of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Source {
    /// The number of the listener's gate: each listener counts for itself.
    gate: u32,
    network: Prefix,
}

/// What is counted of a source.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Count {
    bucket: Bucket,
    connections: u32,
    /// Connections beyond limits in a dry run, which share the bandwidth of the others.
    beyond: u32,
    /// Bytes of its sessions: [from clients, from backends].
    taken: [Taken; 2],
}

/// What a source may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceRules {
    /// Connections at a time. `None`: they are not counted.
    pub connections: Option<NonZeroU32>,
    /// New connections.
    pub rate: Option<Rate>,
    /// How many bits of an IPv4 address make a source.
    pub prefix_v4: u8,
    /// How many bits of an IPv6 address make a source.
    pub prefix_v6: u8,
    /// Whether clients beyond the limits are only counted.
    pub dry_run: bool,
    /// What is done with clients beyond the limits.
    pub action: Action,
    /// Whether its sessions share a bandwidth, and so are counted.
    pub is_paced: bool,
}

/// The place of a connection in the count of its source. It is to be released when the connection
/// ends.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub enum Held {
    /// Among those for whose sources there was no room.
    Overflow {
        /// Limits count it; else it is beyond them, in a dry run.
        counts: bool,
    },
    /// In an entry of the table, which is pinned as long.
    Entry {
        /// The number of its shard.
        shard: u8,
        /// Its index there.
        index: u32,
        /// As above.
        counts: bool,
    },
}

impl Sources {
    /// A table that takes `bytes` at most, without a source.
    #[must_use]
    pub fn new(bytes: u64) -> Self {
        Self {
            table: Lru::new(Lru::<Source, Count>::entries_in(bytes)),
            all: SharedBucket::default(),
            fleet_rate: FleetRate::default(),
            gates: AtomicU32::new(0),
            overflowed: AtomicU64::new(0),
        }
    }

    /// How many sources are known, up to [`Self::capacity`]. Takes every lock in turn: not for the
    /// data path.
    #[must_use]
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether no source is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The most sources that can be known.
    #[must_use]
    pub fn capacity(&self) -> u32 {
        self.table.capacity()
    }

    /// Clients that shared the limits of one source, as the table had no room for theirs.
    #[must_use]
    pub fn overflowed(&self) -> u64 {
        self.overflowed.load(Ordering::Relaxed)
    }

    /// Connections that are counted at their source. As slow as [`Self::len`], and slower.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.table.sum(|count| u64::from(count.connections))
    }

    /// The number of a new gate.
    pub(super) fn number_gate(&self) -> u32 {
        self.gates.fetch_add(1, Ordering::Relaxed)
    }

    /// Counts a new connection of a source if the rules and `others` let it pass; `None` for a
    /// source: its address is not known. Nothing is counted of a connection that is refused.
    pub(super) fn admit<T>(
        &self,
        source: Option<Source>,
        overflow: &Mutex<Count>,
        (rules, now): (&SourceRules, u64),
        others: impl FnOnce() -> Result<T, Refusal>,
    ) -> Result<(Option<Held>, T), Refusal> {
        let is_counted = rules.counts();
        if let Some(source) = source {
            let (shard, key) = self.table.locate(source);
            let mut shard = shard.lock();
            let known = shard.find(key);
            let insert = || shard.insert(key, Count::default(), |oldest| oldest.is_spent(now));
            if let Some(index) = known.or_else(insert) {
                shard.touch(index);
                let taken = shard.value_mut(index).take(rules, now, others);
                if is_counted && taken.is_ok() {
                    shard.pin(index);
                } else if known.is_none() && taken.is_err() {
                    shard.expose(index);
                }
                let shard = u8::try_from(key.shard).expect("few shards");
                let held = is_counted.then_some(Held::Entry {
                    shard,
                    index,
                    counts: true,
                });
                return Ok((held, taken?));
            }
            self.overflowed.fetch_add(1, Ordering::Relaxed);
        }
        let rest = overflow.lock().take(rules, now, others)?;
        let held = Held::Overflow { counts: true };
        Ok((is_counted.then_some(held), rest))
    }

    /// A place of a connection that is beyond the limits of its source, in a dry run: it shares the
    /// bandwidth of the source, and no limit counts it.
    pub(super) fn hold_beyond(&self, source: Option<Source>, overflow: &Mutex<Count>) -> Held {
        let counts = false;
        if let Some(source) = source {
            let (shard, key) = self.table.locate(source);
            let mut shard = shard.lock();
            if let Some(index) = shard.find(key) {
                shard.value_mut(index).beyond += 1;
                shard.pin(index);
                let shard = u8::try_from(key.shard).expect("few shards");
                return Held::Entry {
                    shard,
                    index,
                    counts,
                };
            }
        }
        overflow.lock().beyond += 1;
        Held::Overflow { counts }
    }

    /// A counted connection has ended.
    pub(super) fn release(&self, held: Held, overflow: &Mutex<Count>) {
        match held {
            Held::Overflow { counts } => overflow.lock().release(counts),
            Held::Entry {
                shard,
                index,
                counts,
            } => {
                let mut shard = self.table.shard(shard.into()).lock();
                let count = shard.value_mut(index);
                count.release(counts);
                if count.sessions() == 0 {
                    shard.unpin(index);
                }
            }
        }
    }
}

impl SourceRules {
    /// Whether sessions have a place at their source.
    fn counts(&self) -> bool {
        self.connections.is_some() || self.is_paced
    }
}

/// The place of a session at its source.
#[derive(Clone, Copy, Debug)]
pub struct SourcePlace<'a> {
    /// All sources.
    pub sources: &'a Sources,
    /// The gate that gave the place.
    pub gate: &'a Gate,
    /// Which place.
    pub held: &'a Held,
}

impl SourcePlace<'_> {
    /// Sessions of the source.
    pub(super) fn sessions(&self) -> u32 {
        self.with(|count| count.sessions())
    }

    /// Lets a direction of the source be changed.
    pub(super) fn with_taken<T>(&self, way: usize, call: impl FnOnce(&mut Taken) -> T) -> T {
        self.with(|count| call(&mut count.taken[way]))
    }

    fn with<T>(&self, call: impl FnOnce(&mut Count) -> T) -> T {
        match *self.held {
            Held::Overflow { .. } => call(&mut self.gate.overflow().lock()),
            Held::Entry { shard, index, .. } => {
                let mut shard = self.sources.table.shard(shard.into()).lock();
                call(shard.value_mut(index))
            }
        }
    }
}

impl Source {
    pub(super) fn new(gate: u32, ip: IpAddr, rules: &SourceRules) -> Option<Self> {
        let ip = ip.to_canonical();
        let length = match ip {
            IpAddr::V4(_) => rules.prefix_v4,
            IpAddr::V6(_) => rules.prefix_v6,
        };
        let network = Prefix::new(ip, length)?;
        Some(Self { gate, network })
    }
}

impl Count {
    /// Counts one more if the rules and `others` allow it.
    fn take<T>(
        &mut self,
        rules: &SourceRules,
        now: u64,
        others: impl FnOnce() -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        let is_full = |max: NonZeroU32| self.connections >= max.get();
        if rules.connections.is_some_and(is_full) {
            return Err(Refusal::SourceConnections);
        }
        let mut bucket = self.bucket;
        if let Some(rate) = rules.rate {
            self.bucket = bucket.under(rate, now);
            bucket = self.bucket.take(rate, now).ok_or(Refusal::SourceRate)?;
        }
        let rest = others()?;
        self.bucket = bucket;
        self.connections += u32::from(rules.counts());
        Ok(rest)
    }

    fn release(&mut self, counts: bool) {
        let taken = if counts {
            &mut self.connections
        } else {
            &mut self.beyond
        };
        debug_assert!(*taken > 0, "more given back than taken");
        *taken -= 1;
    }

    /// All that share its bandwidth.
    fn sessions(&self) -> u32 {
        self.connections + self.beyond
    }

    pub(super) fn connections(&self) -> u32 {
        self.connections
    }

    /// Whether nothing would be lost with it.
    fn is_spent(&self, now: u64) -> bool {
        let is_full = self.taken.iter().all(|taken| taken.is_full(now));
        self.sessions() == 0 && self.bucket.is_full(now) && is_full
    }
}

/// What the place takes in each session.
const _: () = assert!(size_of::<Option<Held>>() == 8);

#[cfg(test)]
mod tests;
