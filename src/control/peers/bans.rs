//! What is known of bans of the fleet: for each network the last write of any balancer.
//!
//! Writes are merged by their stamps, so all balancers come to the same whatever the order in which
//! they learn of them, and however often. A ban that was lifted is kept for a while as such, or an
//! older message would bring it back. It has no connection, and is told the time.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::config::shortest_ban;
use crate::guard::{Ban, BannedBy, ImportedBan, ImportedBans};
use crate::prefix::Prefix;
use crate::time::{MS, NEVER, SECOND};

use super::clock::{Clock, Stamp, is_past};
use super::counts::Refusal;
use super::frame::BanEntry;

/// The last writes about bans.
#[derive(Debug)]
pub(super) struct BanWrites {
    writer: u64,
    /// The hub that uses it, by its number: one whose tasks are ending does not.
    hub: u64,
    /// The names of the members, by their places.
    members: Vec<String>,
    clock: Clock,
    all: BTreeMap<Prefix, Write>,
    /// How many of them came from each source: each has room of its own.
    held: HashMap<Source, usize>,
    /// Bans of this balancer at the last look: since when each holds.
    own: HashMap<Prefix, i64>,
    /// Own writes that the others do not know.
    unsent: Vec<Prefix>,
    /// Own bans that another balancer has lifted.
    lifted: Vec<OwnLifted>,
    /// Whether what the others ban may have changed.
    is_changed: bool,
}

/// Who this balancer has a write from. Members are known by their places.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Source {
    Own,
    /// A member, which has made it.
    Peer(usize),
    /// A member that passes it on. So one that lies about others costs them nothing.
    PassedOn {
        maker: usize,
        by: usize,
    },
}

impl Source {
    /// The member that has made it; `None`: this balancer.
    fn maker(self) -> Option<usize> {
        match self {
            Self::Own => None,
            Self::Peer(maker) | Self::PassedOn { maker, .. } => Some(maker),
        }
    }

    /// The same where members have other places; `None`: one of them is no member any more.
    fn moved(self, place: impl Fn(usize) -> Option<usize>) -> Option<Self> {
        Some(match self {
            Self::Own => Self::Own,
            Self::Peer(maker) => Self::Peer(place(maker)?),
            Self::PassedOn { maker, by } => Self::PassedOn {
                maker: place(maker)?,
                by: place(by)?,
            },
        })
    }
}

/// A ban of this balancer that another one has lifted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::control) struct OwnLifted {
    pub(in crate::control) prefix: Prefix,
    /// Which ban of the network: the one that began then.
    pub(in crate::control) since: i64,
}

/// The time, by both clocks, in ns.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    /// Of the workers' clock.
    pub(super) monotonic: u64,
    /// Since 1970.
    pub(super) wall: u64,
}

#[derive(Clone, Debug)]
struct Write {
    stamp: Stamp,
    writer: u64,
    /// Why the network is banned; `None`: its ban was lifted.
    reason: Option<Arc<str>>,
    /// Until when this counts, in ns of the workers' clock.
    until: u64,
    from: Source,
    /// When this balancer learned of it, or since when its own ban holds.
    since: i64,
}

impl BanWrites {
    /// Knows nothing. `writer` is the number of this balancer: no other has it.
    pub(super) fn new(writer: u64) -> Self {
        Self {
            writer,
            hub: 0,
            members: Vec::new(),
            clock: Clock::default(),
            all: BTreeMap::new(),
            held: HashMap::new(),
            own: HashMap::new(),
            unsent: Vec::new(),
            lifted: Vec::new(),
            is_changed: false,
        }
    }

    /// A hub with these members goes on with it. What members have told stays, by their names. That
    /// of others is forgotten.
    pub(super) fn hand_on(&mut self, hub: u64, members: Vec<String>) {
        let before = std::mem::replace(&mut self.members, members);
        let place = |place: usize| {
            let name = before.get(place)?;
            let mut names = self.members.iter();
            names.position(|its| its.eq_ignore_ascii_case(name))
        };
        self.held.clear();
        self.all.retain(|_, write| {
            let Some(from) = write.from.moved(place) else {
                return false;
            };
            write.from = from;
            *self.held.entry(from).or_default() += 1;
            true
        });
        self.hub = hub;
        self.is_changed = true;
    }

    /// Whether this hub uses it.
    pub(super) fn is_of(&self, hub: u64) -> bool {
        self.hub == hub
    }

    /// The place of a member.
    pub(super) fn place(&self, name: &str) -> Option<usize> {
        let mut names = self.members.iter();
        names.position(|its| its.eq_ignore_ascii_case(name))
    }

    /// Takes in what a member says of a network.
    pub(super) fn merge(
        &mut self,
        entry: &BanEntry,
        from: Source,
        now: Now,
    ) -> Result<(), Refusal> {
        self.follow_clock(now);
        let BanEntry { prefix, stamp, .. } = *entry;
        if !is_past(stamp, now.wall) {
            return Err(Refusal::Clock);
        }
        if prefix.length() < shortest_ban(prefix) {
            return Err(Refusal::TooWide);
        }
        let left = entry.left_ms.map(|left| left.saturating_mul(MS));
        let left = match entry.reason {
            Some(_) => left,
            None => Some(left.unwrap_or(NEVER).min(LIFTED_FOR)),
        };
        let write = Write {
            stamp,
            writer: entry.writer,
            reason: entry.reason.clone(),
            until: left.map_or(NEVER, |left| now.monotonic.saturating_add(left)),
            from,
            since: signed(now.monotonic),
        };
        let before = self.all.get(&prefix);
        if before.is_some_and(|its| !write.replaces(its)) {
            return Ok(());
        }
        if write.until <= now.monotonic {
            return Ok(());
        }
        let is_charged = before.is_some_and(|its| its.from == write.from);
        let held = self.held.get(&write.from).copied().unwrap_or(0);
        if !is_charged && held >= PEER_MAX {
            return Err(Refusal::NoRoom);
        }
        if write.reason.is_none()
            && let Some(&since) = self.own.get(&prefix)
        {
            self.lifted.push(OwnLifted { prefix, since });
        }
        self.put(prefix, write);
        Ok(())
    }

    /// To be called before each use of the clock. After the machine's clock was set back, writes of
    /// before may be ahead of the time by more than is tolerated. Those whose clocks are right have
    /// refused them, and would refuse each later write about the same network. So own ones are made
    /// again now, and those of others come before any other write: each makes its own again.
    pub(super) fn follow_clock(&mut self, now: Now) {
        if !self.clock.fall_back(now.wall) {
            return;
        }
        for (prefix, write) in &mut self.all {
            if is_past(write.stamp, now.wall) {
                continue;
            }
            match write.from {
                Source::Own => {
                    write.stamp = self.clock.stamp(now.wall);
                    self.unsent.push(*prefix);
                }
                Source::Peer(_) | Source::PassedOn { .. } => write.stamp = Stamp::default(),
            }
        }
    }

    /// Takes in the bans of this balancer: all of its table. The others learn of those by hand and
    /// by rules, up to a limit.
    pub(super) fn look(&mut self, table: &[Arc<Ban>], now: Now) {
        let is_own = |ban: &&Arc<Ban>| !ban.by.is_listed() && ban.until > now.monotonic;
        let is_narrow = |ban: &&Arc<Ban>| ban.prefix.length() >= shortest_ban(ban.prefix);
        let mut own: Vec<_> = table.iter().filter(is_own).filter(is_narrow).collect();
        own.sort_by_key(|ban| (ban.by != BannedBy::Hand, std::cmp::Reverse(ban.since)));
        own.truncate(OWN_MAX);
        self.own = own.iter().map(|ban| (ban.prefix, ban.since)).collect();
        for ban in own {
            self.look_at(ban, now);
        }
    }

    fn look_at(&mut self, ban: &Ban, now: Now) {
        let prefix = ban.prefix;
        // How long ago it was made; a clock that began with the machine may be younger.
        let age = signed(now.monotonic).saturating_sub(ban.since);
        let made = now.wall.saturating_sub(age.max(0).unsigned_abs());
        let stamp = match self.all.get(&prefix) {
            // The others would have no room for it.
            None if self
                .held
                .get(&Source::Own)
                .is_some_and(|held| *held >= PEER_MAX) =>
            {
                return;
            }
            None => Stamp::at(made),
            Some(known) if known.from == Source::Own && known.since == ban.since => return,
            // It was made by one who knew of the other write, or after it.
            Some(known) if ban.since > known.since || made > known.stamp.0 => {
                self.clock.stamp(now.wall).max(Stamp(known.stamp.0 + 1))
            }
            Some(known) => {
                if known.reason.is_none() {
                    let since = ban.since;
                    self.lifted.push(OwnLifted { prefix, since });
                }
                return;
            }
        };
        let write = Write {
            stamp,
            writer: self.writer,
            reason: Some(Arc::clone(&ban.reason)),
            until: ban.until,
            from: Source::Own,
            since: ban.since,
        };
        self.write(prefix, write);
    }

    /// An operator has lifted the ban of a network here.
    pub(super) fn lift(&mut self, prefix: Prefix, now: Now) {
        self.follow_clock(now);
        self.own.remove(&prefix);
        let Some(known) = self.all.get(&prefix).filter(|its| its.reason.is_some()) else {
            return;
        };
        let until = known.until.min(now.monotonic.saturating_add(LIFTED_FOR));
        let write = Write {
            stamp: self.clock.stamp(now.wall).max(Stamp(known.stamp.0 + 1)),
            writer: self.writer,
            reason: None,
            until,
            from: Source::Own,
            since: signed(now.monotonic),
        };
        self.write(prefix, write);
    }

    fn write(&mut self, prefix: Prefix, write: Write) {
        self.put(prefix, write);
        self.unsent.push(prefix);
    }

    fn put(&mut self, prefix: Prefix, write: Write) {
        self.clock.observe(write.stamp);
        *self.held.entry(write.from).or_default() += 1;
        if let Some(before) = self.all.insert(prefix, write) {
            self.release(before.from);
        }
        self.is_changed = true;
    }

    fn release(&mut self, from: Source) {
        if let Some(held) = self.held.get_mut(&from) {
            *held = held.saturating_sub(1);
        }
    }

    /// Forgets what no longer counts.
    pub(super) fn expire(&mut self, now: u64) {
        let over = self.all.extract_if(.., |_, write| write.until <= now);
        let over: Vec<_> = over.map(|(_, write)| write.from).collect();
        over.into_iter().for_each(|from| self.release(from));
    }

    /// Own writes since the last call.
    pub(super) fn take_unsent(&mut self, now: u64) -> Vec<BanEntry> {
        let unsent = std::mem::take(&mut self.unsent);
        let known = unsent.into_iter().filter_map(|prefix| {
            let write = self.all.get(&prefix)?;
            Some(write.entry(prefix, now))
        });
        known.collect()
    }

    /// Own bans that others have lifted, the first ones that were not taken yet: a member that
    /// lifts thousands at once does not keep the control thread.
    pub(super) fn take_lifted(&mut self) -> Vec<OwnLifted> {
        let count = self.lifted.len().min(LIFTED_AT_ONCE);
        self.lifted.drain(..count).collect()
    }

    /// All that is known, by the names of those who made it; without a name: this balancer, the
    /// first one. `own_too`: own writes are shared.
    pub(super) fn known(&self, own_too: bool, now: u64) -> BTreeMap<Option<&str>, Vec<BanEntry>> {
        let mut known: BTreeMap<_, Vec<_>> = BTreeMap::new();
        let all = self.all.iter();
        let all = all.filter(|(_, write)| write.until > now);
        for (prefix, write) in all.filter(|(_, write)| own_too || write.from != Source::Own) {
            let maker = write.from.maker();
            let maker = maker.and_then(|place| self.members.get(place));
            let of_maker = known.entry(maker.map(String::as_str)).or_default();
            of_maker.push(write.entry(*prefix, now));
        }
        known
    }

    /// What the others ban, if that may have changed since the last call.
    pub(super) fn take_list(&mut self, now: u64) -> Option<ImportedBans> {
        if !std::mem::take(&mut self.is_changed) {
            return None;
        }
        let all = self.all.iter();
        let all = all.filter(|(_, write)| write.from != Source::Own && write.until > now);
        let banned = all.filter_map(|(prefix, write)| {
            let reason = Arc::clone(write.reason.as_ref()?);
            Some(ImportedBan {
                prefix: *prefix,
                reason,
                until: write.until,
            })
        });
        Some(ImportedBans::of(BannedBy::Peer, banned.collect()))
    }
}

impl Write {
    /// Whether it counts instead of another one: it is later, or the same by the one who made it.
    /// That frees the room of the one who passed it on.
    fn replaces(&self, other: &Self) -> bool {
        let is_passed_on = |write: &Self| matches!(write.from, Source::PassedOn { .. });
        let of = |write: &Self| (write.stamp, write.writer, !is_passed_on(write));
        of(self) > of(other)
    }

    fn entry(&self, prefix: Prefix, now: u64) -> BanEntry {
        let left = self.until.saturating_sub(now);
        BanEntry {
            prefix,
            stamp: self.stamp,
            writer: self.writer,
            left_ms: (self.until < NEVER).then(|| left.div_ceil(MS)),
            reason: self.reason.clone(),
        }
    }
}

fn signed(ns: u64) -> i64 {
    i64::try_from(ns).unwrap_or(i64::MAX)
}

/// Bans of this balancer that are shared: those by hand first, and then the latest.
const OWN_MAX: usize = 5_000;
/// Writes that are held of each source.
const PEER_MAX: usize = 10_000;
/// Bans that the control thread lifts at once.
const LIFTED_AT_ONCE: usize = 256;
/// How long it is known that a ban was lifted, unless the ban would have ended before: a day. Who
/// was away for longer may bring it back.
const LIFTED_FOR: u64 = 86_400 * SECOND;

#[cfg(test)]
mod tests;
