//! The ban table: networks whose clients are refused at accept, for a time or until they are
//! lifted.
//!
//! All threads share it, and it outlives snapshots. Workers look into it for each client; those
//! who ban change an entry, whatever the number of the others.

mod imported;
mod knocks;
mod lengths;
mod offences;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crossbeam::utils::CachePadded;
use parking_lot::{Mutex, RwLock};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::Trusted;
use crate::prefix::Prefix;
use crate::time::NEVER;

pub use imported::{ImportOutcome, ImportedBan, ImportedBans};
use knocks::{Knocking, Knocks};
use lengths::Lengths;
use offences::Offences;
pub use offences::{BanNews, BanRule, RuleBan};

/// A network whose clients are refused.
#[derive(Debug)]
pub struct Ban {
    /// The network.
    pub prefix: Prefix,
    /// Who banned it.
    pub by: BannedBy,
    /// Why, in a sentence; empty: no reason was given.
    pub reason: Arc<str>,
    /// Since when, in ns of the workers' clock. A clock that began with the machine may be younger
    /// than a ban of the machine's last run: it then is negative.
    pub since: i64,
    /// Until when; [`NEVER`]: until it is lifted.
    pub until: u64,
    /// How often a rule has banned the network, with this one; 0: it was no rule.
    pub times: u32,
    /// Clients that it refused.
    hits: AtomicU64,
    /// Those of the present second.
    knocks: Knocks,
}

/// Who bans.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum BannedBy {
    /// An operator.
    #[default]
    Hand,
    /// A rule that its clients broke.
    Rule,
    /// A line of the watched file.
    File,
    /// The fleet: a key of etcd.
    Fleet,
    /// Another balancer of the fleet.
    Peer,
}

impl BannedBy {
    /// Each with its name.
    pub const ALL: [(&'static str, Self); 5] = [
        (Self::Hand.as_str(), Self::Hand),
        (Self::Rule.as_str(), Self::Rule),
        (Self::File.as_str(), Self::File),
        (Self::Fleet.as_str(), Self::Fleet),
        (Self::Peer.as_str(), Self::Peer),
    ];

    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hand => "hand",
            Self::Rule => "rule",
            Self::File => "file",
            Self::Fleet => "fleet",
            Self::Peer => "peer",
        }
    }

    /// Whether its ban takes the place of one that holds.
    fn replaces(self, before: Self) -> bool {
        match self {
            Self::Hand => true,
            Self::Rule | Self::File | Self::Fleet | Self::Peer => self == before,
        }
    }

    /// The most bans that there may be after one of its: what clients do fills no place of
    /// operators, and lists leave some to rules too.
    fn most(self, max: u32) -> u32 {
        match self {
            Self::Hand => max,
            Self::Rule => max - max / FOR_OPERATORS,
            Self::File | Self::Fleet | Self::Peer => max - max / FOR_OTHERS,
        }
    }

    /// Whether its bans come and go with a list, so that an operator can't lift them here.
    #[must_use]
    pub fn is_listed(self) -> bool {
        match self {
            Self::Hand | Self::Rule => false,
            Self::File | Self::Fleet | Self::Peer => true,
        }
    }
}

impl Ban {
    /// A ban that has refused no client.
    #[must_use]
    pub fn new(prefix: Prefix, by: BannedBy, reason: Arc<str>, time: (i64, u64)) -> Self {
        let (since, until) = time;
        Self {
            prefix,
            by,
            reason,
            since,
            until,
            times: 0,
            hits: AtomicU64::new(0),
            knocks: Knocks::default(),
        }
    }

    /// The same ban, which has refused so many clients.
    #[must_use]
    pub fn with_hits(self, hits: u64) -> Self {
        let hits = AtomicU64::new(hits);
        Self { hits, ..self }
    }

    /// The same ban, as the `times`-th one of its network by a rule.
    #[must_use]
    pub fn for_the(self, times: u32) -> Self {
        Self { times, ..self }
    }

    /// Clients that it refused.
    #[must_use]
    pub fn hits(&self) -> u64 {
        self.hits.load(Ordering::Relaxed)
    }

    fn holds(&self, now: u64) -> bool {
        self.until > now
    }
}

/// The networks that are banned now.
#[derive(Debug)]
pub struct Bans {
    /// By prefix. Workers read them at accept.
    shards: Box<[Shard]>,
    /// The lengths that prefixes have, so that a look-up asks for no other.
    lengths: Lengths,
    max: AtomicU32,
    count: AtomicU32,
    /// Counts up with each new ban: open sessions are to be looked at.
    added: AtomicU64,
    /// Counts up with each change.
    changes: AtomicU64,
    /// Clients that were refused.
    hits: AtomicU64,
    /// Networks whose clients keep knocking.
    knocking: Knocking,
    order: Mutex<Order>,
    offences: Offences,
}

type Shard = CachePadded<RwLock<HashMap<Prefix, Arc<Ban>>>>;

/// All bans once more, for those who change or list them.
#[derive(Debug, Default)]
struct Order {
    by_prefix: BTreeMap<Prefix, Arc<Ban>>,
    /// Those that end by themselves, the first to end first.
    by_end: BTreeSet<(u64, Prefix)>,
}

/// The table has no room for another ban.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("the ban table is full: it has {0} bans; lift some, or raise `bans: (max: ...)`")]
pub struct BansFull(pub u32);

impl Bans {
    /// A table for at most `max` bans.
    #[must_use]
    pub fn new(max: u32) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Shard::default()).collect(),
            lengths: Lengths::default(),
            max: AtomicU32::new(max),
            count: AtomicU32::new(0),
            added: AtomicU64::new(0),
            changes: AtomicU64::new(0),
            hits: AtomicU64::new(0),
            knocking: Knocking::default(),
            order: Mutex::default(),
            offences: Offences::default(),
        }
    }

    /// Sets the most bans that it takes. Those that it has stay.
    pub fn set_max(&self, max: u32) {
        self.max.store(max, Ordering::Relaxed);
    }

    /// The most bans that it takes.
    #[must_use]
    pub fn max(&self) -> u32 {
        self.max.load(Ordering::Relaxed)
    }

    /// How many bans there are. Those whose time is over count until they are removed.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.count.load(Ordering::Relaxed)
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Clients that bans have refused.
    #[must_use]
    pub fn hits(&self) -> u64 {
        self.hits.load(Ordering::Relaxed)
    }

    /// Counts up with each new ban.
    #[must_use]
    pub fn added(&self) -> u64 {
        self.added.load(Ordering::Acquire)
    }

    /// Counts up with each ban that comes or goes.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// Whether an address is banned now.
    #[must_use]
    pub fn is_banned(&self, ip: IpAddr, now: u64) -> bool {
        self.longest(ip, now, |_| ()).is_some()
    }

    /// Whether an address is banned now, and in no trusted network: those may be within a wider one
    /// that is banned.
    #[must_use]
    pub fn refuses(&self, ip: IpAddr, trusted: &Trusted, now: u64) -> bool {
        self.is_banned(ip, now) && !trusted.contains(ip)
    }

    /// Counts a client of a banned address as refused, by the longest prefix that it is in.
    pub fn count_hit(&self, ip: IpAddr, now: u64) {
        let counted = self.longest(ip, now, |ban| {
            ban.hits.fetch_add(1, Ordering::Relaxed);
            if ban.knocks.count(now) {
                self.knocking.add(ban.prefix);
            }
        });
        if counted.is_some() {
            self.hits.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Banned networks that more than 10 clients of a second came from, since the last call.
    #[must_use]
    pub fn take_knocking(&self) -> Vec<Prefix> {
        self.knocking.take()
    }

    /// Whether exactly this network is banned now.
    #[must_use]
    pub fn holds(&self, prefix: Prefix, now: u64) -> bool {
        self.exact(prefix, now).is_some()
    }

    /// The ban of exactly this network now.
    #[must_use]
    pub fn exact(&self, prefix: Prefix, now: u64) -> Option<Arc<Ban>> {
        let bans = self.shard(prefix).read();
        bans.get(&prefix).filter(|ban| ban.holds(now)).cloned()
    }

    /// Counts clients of a banned network that the kernel dropped.
    pub fn count_dropped(&self, prefix: Prefix, clients: u64) {
        if let Some(ban) = self.shard(prefix).read().get(&prefix) {
            ban.hits.fetch_add(clients, Ordering::Relaxed);
        }
        self.hits.fetch_add(clients, Ordering::Relaxed);
    }

    /// The ban of an address now, by the longest prefix that it is in.
    #[must_use]
    pub fn find(&self, ip: IpAddr, now: u64) -> Option<Arc<Ban>> {
        self.longest(ip, now, Arc::clone)
    }

    fn longest<T>(&self, ip: IpAddr, now: u64, then: impl Fn(&Arc<Ban>) -> T) -> Option<T> {
        if self.is_empty() {
            return None;
        }
        let ip = ip.to_canonical();
        let mut prefixes = self
            .lengths
            .of(ip)
            .filter_map(|length| Prefix::new(ip, length));
        prefixes.find_map(|prefix| {
            let bans = self.shard(prefix).read();
            bans.get(&prefix).filter(|ban| ban.holds(now)).map(&then)
        })
    }

    /// Bans a network from now on. A ban of the same network is replaced, and what it has refused
    /// goes on being counted; but neither a rule nor a list replaces a ban of another origin.
    /// Answers with the ban in force, and the one before.
    ///
    /// # Errors
    /// [`BansFull`]. A part of the table is for operators alone: clients can't fill it.
    pub fn add(&self, ban: Ban, now: u64) -> Result<(Arc<Ban>, Option<Arc<Ban>>), BansFull> {
        let mut order = self.order.lock();
        let before = order.by_prefix.get(&ban.prefix).map(Arc::clone);
        if let Some(before) = &before
            && !ban.by.replaces(before.by)
            && before.holds(now)
        {
            return Ok((Arc::clone(before), Some(Arc::clone(before))));
        }
        let max = ban.by.most(self.max());
        let count = u32::try_from(order.by_prefix.len()).unwrap_or(u32::MAX);
        if before.is_none() && count >= max {
            return Err(BansFull(count));
        }
        let ban = self.put(&mut order, ban);
        Ok((ban, before.filter(|before| before.holds(now))))
    }

    /// Puts a ban of an earlier run into the table, unless its network is banned already. Those of
    /// that run may be more than the table takes now. Answers whether it holds.
    pub fn restore(&self, ban: Ban, now: u64) -> bool {
        let mut order = self.order.lock();
        let known = order.by_prefix.get(&ban.prefix);
        if known.is_some_and(|its| its.holds(now)) {
            return false;
        }
        if ban.times > 0 {
            self.offences.remember(ban.prefix, ban.times, ban.until);
        }
        self.put(&mut order, ban);
        true
    }

    /// Puts a ban into the table, in place of one of the same network.
    fn put(&self, order: &mut Order, ban: Ban) -> Arc<Ban> {
        if let Some(before) = order.by_prefix.get(&ban.prefix) {
            let end = (before.until, before.prefix);
            ban.hits.fetch_add(before.hits(), Ordering::Relaxed);
            order.by_end.remove(&end);
        } else {
            self.lengths.add(ban.prefix);
            self.count.fetch_add(1, Ordering::Relaxed);
        }
        let ban = Arc::new(ban);
        if ban.until < NEVER {
            order.by_end.insert((ban.until, ban.prefix));
        }
        order.by_prefix.insert(ban.prefix, Arc::clone(&ban));
        let mut shard = self.shard(ban.prefix).write();
        shard.insert(ban.prefix, Arc::clone(&ban));
        drop(shard);
        self.changes.fetch_add(1, Ordering::Release);
        self.added.fetch_add(1, Ordering::Release);
        ban
    }

    /// Lifts the ban of exactly this network.
    pub fn lift(&self, prefix: Prefix) -> Option<Arc<Ban>> {
        let lifted = self.remove(&mut self.order.lock(), prefix);
        self.offences.forget(prefix);
        lifted
    }

    /// Removes bans whose time is over, up to so many.
    pub fn expire(&self, now: u64, at_most: usize) -> Vec<Arc<Ban>> {
        let mut removed = Vec::new();
        loop {
            // Workers that ban are not to wait for all of them.
            let at_once = REMOVED_AT_ONCE.min(at_most - removed.len());
            let mut order = self.order.lock();
            let over = order.by_end.iter().take_while(|(until, _)| *until <= now);
            let over: Vec<_> = over.take(at_once).map(|(_, prefix)| *prefix).collect();
            if over.is_empty() {
                return removed;
            }
            let over = over.into_iter();
            removed.extend(over.filter_map(|prefix| self.remove(&mut order, prefix)));
        }
    }

    fn remove(&self, order: &mut Order, prefix: Prefix) -> Option<Arc<Ban>> {
        let ban = order.by_prefix.remove(&prefix)?;
        order.by_end.remove(&(ban.until, prefix));
        self.shard(prefix).write().remove(&prefix);
        self.lengths.remove(prefix);
        self.count.fetch_sub(1, Ordering::Relaxed);
        self.changes.fetch_add(1, Ordering::Release);
        Some(ban)
    }

    /// All bans that hold now, in the order of their prefixes. Bans that come meanwhile may be
    /// missing.
    #[must_use]
    pub fn all(&self, now: u64) -> Vec<Arc<Ban>> {
        let mut all: Vec<Arc<Ban>> = Vec::new();
        loop {
            let after = all
                .last()
                .map_or(Bound::Unbounded, |last| Bound::Excluded(last.prefix));
            let order = self.order.lock();
            let rest = order.by_prefix.range((after, Bound::Unbounded));
            let before = all.len();
            // Others are not to wait for all of them.
            all.extend(rest.take(AT_ONCE).map(|(_, ban)| Arc::clone(ban)));
            if all.len() == before {
                break;
            }
        }
        all.retain(|ban| ban.holds(now));
        all
    }

    fn shard(&self, prefix: Prefix) -> &Shard {
        let [high, low] = prefix.halves();
        let mixed = (high ^ low.rotate_left(32)).wrapping_mul(MIX) >> (64 - SHARDS.ilog2());
        &self.shards[usize::try_from(mixed).unwrap_or(0)]
    }
}

/// Enough that a new ban rarely holds up a worker.
const SHARDS: usize = 64;
/// Spreads networks over the shards (2^64 divided by the golden ratio).
const MIX: u64 = 0x9E37_79B9_7F4A_7C15;
/// Bans that are removed while others wait.
const REMOVED_AT_ONCE: usize = 100;
/// Bans that are listed at once.
const AT_ONCE: usize = 1_000;
/// A part of the table is for operators: one in so many places.
const FOR_OPERATORS: u32 = 16;
/// A part of the table is for others than lists: one in so many places.
const FOR_OTHERS: u32 = 8;

#[cfg(test)]
mod tests;
