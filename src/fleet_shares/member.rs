//! A balancer of a fleet: its lease, what it reads and writes of the ledger, and what it may act
//! on meanwhile.

mod ends;

use std::collections::{BTreeMap, BTreeSet};

use super::ledger::{Demand, FleetShare, Ledger, MEMBERS_MAX, next_share};

/// A balancer, as it takes part in the ledger.
///
/// In each turn [`plan`](Self::plan) comes first. Then [`bound`](Self::bound) is put in force,
/// what is in use is looked at, and [`ask`](Self::ask) says what is to be asked of the ledger's
/// keeper. [`answered`](Self::answered) takes in what comes of that, and bounds are put in force
/// again. One request is under way at a time. Times are ns of a clock that goes on while the
/// machine sleeps.
#[derive(Clone, Debug)]
pub struct FleetMember {
    name: String,
    /// Of this process: another one may have the same name.
    instance: String,
    pace: u64,
    lease: Option<Lease>,
    /// The last state that was read, with what this balancer has written since.
    ledger: Ledger,
    revision: i64,
    live: BTreeSet<String>,
    read_at: Option<u64>,
    is_planned: bool,
    /// What the ledger lets it act on.
    held: BTreeMap<String, Held>,
    /// Each limit, by this balancer's configuration.
    wholes: BTreeMap<String, u32>,
    /// What it is to have.
    planned: BTreeMap<String, FleetShare>,
    /// A write that may still be done, though there was no answer: it is of this revision.
    unknown: Option<i64>,
    /// Balancers without a lease, and since when.
    gone: BTreeMap<String, u64>,
    /// The ledger was lost: no share grows before this time, by when all know.
    grows_at: u64,
    /// The instance that has this balancer's name.
    rival: Option<String>,
    conflicts: u64,
}

#[derive(Clone, Copy, Debug)]
struct Lease {
    id: i64,
    /// How long it lasts from each renewal.
    lasts: u64,
    /// When it was asked for, or for its last renewal.
    asked_at: u64,
    /// Whether the balancer's name is bound to it.
    is_registered: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Held {
    share: u32,
    base: u32,
}

/// What a balancer may take of a limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShareBound {
    /// Until the time below.
    pub share: u32,
    /// After it.
    pub base: u32,
    /// When the lease ends, as far as is known.
    pub until: u64,
}

impl ShareBound {
    /// How much it may take at a time.
    #[must_use]
    pub fn at(&self, now: u64) -> u32 {
        match now < self.until {
            true => self.share.max(self.base),
            false => self.base,
        }
    }
}

/// What is asked of the ledger's keeper.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// A lease.
    Grant,
    /// The balancer's name, bound to this lease, unless it is taken.
    Register(i64),
    /// This lease again.
    Renew(i64),
    /// The ledger, and who has a lease, of one moment.
    Read,
    /// Another ledger, on conditions.
    Write(LedgerWrite),
}

/// Another ledger. It is written only if all of this holds: the ledger is of the revision, the
/// name of the writer is bound to its instance, and those of `gone` to none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerWrite {
    /// 0: there is no ledger.
    pub revision: i64,
    /// What is written.
    pub ledger: Ledger,
    /// Balancers whose shares are cut, or left out: some of them, as each is a condition.
    pub gone: Vec<String>,
}

/// An answer of the ledger's keeper.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A lease, and for how long, in ns.
    Granted(i64, u64),
    /// The name is bound: `None` to this balancer, else to this instance.
    Registered(Option<String>),
    /// Whether the lease goes on.
    Renewed(bool),
    /// What was read.
    Read(LedgerView),
    /// Whether the conditions held.
    Written(bool),
    /// None came: what was asked may be done, now or later.
    Failed,
}

/// The ledger, and who has a lease, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LedgerView {
    /// Of the last change of the ledger; 0: there is none.
    pub revision: i64,
    /// What it says.
    pub ledger: Ledger,
    /// Instances by the names that are bound to them.
    pub instances: BTreeMap<String, String>,
}

impl FleetMember {
    /// A balancer of this name. `pace` is how often it reads the ledger, in ns.
    #[must_use]
    pub fn new(name: &str, instance: &str, pace: u64) -> Self {
        Self {
            name: name.to_owned(),
            instance: instance.to_owned(),
            pace,
            lease: None,
            ledger: Ledger::default(),
            revision: 0,
            live: BTreeSet::new(),
            read_at: None,
            is_planned: false,
            held: BTreeMap::new(),
            wholes: BTreeMap::new(),
            planned: BTreeMap::new(),
            unknown: None,
            gone: BTreeMap::new(),
            grows_at: 0,
            rival: None,
            conflicts: 0,
        }
    }

    /// The name of this balancer, and of its process.
    #[must_use]
    pub fn identity(&self) -> (&str, &str) {
        (&self.name, &self.instance)
    }

    /// The number of its lease, if it has one.
    #[must_use]
    pub fn lease(&self) -> Option<i64> {
        self.lease.map(|lease| lease.id)
    }

    /// What it may take of a limit.
    #[must_use]
    pub fn bound(&self, limit: &str) -> ShareBound {
        let held = self.held.get(limit).copied().unwrap_or_default();
        let planned = self.planned.get(limit);
        // It may be less than what is in use, which the ledger keeps.
        let share = planned.map_or(held.share, |planned| held.share.min(planned.share));
        let lease = self.lease.filter(|lease| lease.is_registered);
        ShareBound {
            share,
            base: held.base.min(share),
            until: lease.map_or(0, |lease| lease.until()),
        }
    }

    /// The balancers that have a lease, by what was read last.
    #[must_use]
    pub fn leased(&self) -> usize {
        self.live.len()
    }

    /// The ledger, as it was read last.
    #[must_use]
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Whether another process has the name of this balancer.
    #[must_use]
    pub fn has_rival(&self) -> bool {
        self.rival.is_some()
    }

    /// Balancers that the ledger has, and that have no lease.
    pub fn gone(&self) -> impl Iterator<Item = &str> {
        self.gone.keys().map(String::as_str)
    }

    /// Whether the ledger was lost a moment ago, so that no share grows yet.
    #[must_use]
    pub fn is_held_back(&self, now: u64) -> bool {
        now < self.grows_at
    }

    /// Whether the ledger has no room for this balancer.
    #[must_use]
    pub fn is_left_out(&self) -> bool {
        let members = &self.ledger.members;
        members.len() >= MEMBERS_MAX && !members.contains_key(&self.name)
    }

    /// Writes that came too late: another balancer had written before.
    #[must_use]
    pub fn conflicts(&self) -> u64 {
        self.conflicts
    }

    /// Whether it has a lease at a time.
    #[must_use]
    pub fn has_lease(&self, now: u64) -> bool {
        self.lease
            .is_some_and(|lease| lease.is_registered && now < lease.until())
    }

    /// Gives back, by what was read last, what it is to give back: bounds become lower before the
    /// ledger says so.
    pub fn plan(&mut self, demands: &BTreeMap<String, Demand>, now: u64) {
        self.held.retain(|limit, _| demands.contains_key(limit));
        self.planned.retain(|limit, _| demands.contains_key(limit));
        let wholes = demands.iter();
        self.wholes = wholes
            .map(|(limit, its)| (limit.clone(), its.limit))
            .collect();
        // A lower limit holds at once, whatever the ledger has.
        lower(&mut self.held, &self.wholes, (&self.name, &self.ledger));
        // Without another look: what is free may do.
        let is_hungry = demands.iter().any(|(limit, demand)| {
            let planned = self.planned.get(limit);
            planned.is_none_or(|planned| planned.want == 0 && demand.want > planned.share)
        });
        self.is_planned &= !is_hungry;
        if self.is_planned || !self.may_write(now) {
            return;
        }
        for (limit, demand) in demands {
            let next = self.next(limit, *demand, now);
            let held = self.held.entry(limit.clone()).or_default();
            held.share = held.share.min(next.share);
            held.base = held.base.min(next.base);
            self.planned.insert(limit.clone(), next);
        }
    }

    /// What is to be asked next, if anything.
    pub fn ask(&mut self, demands: &BTreeMap<String, Demand>, now: u64) -> Option<Ask> {
        let Some(lease) = self.lease else {
            return Some(Ask::Grant);
        };
        if !lease.is_registered {
            let is_old = now >= lease.asked_at + lease.lasts / 3;
            return Some(match is_old {
                true => Ask::Renew(lease.id),
                false => Ask::Register(lease.id),
            });
        }
        if now >= lease.asked_at + lease.lasts / 3 {
            return Some(Ask::Renew(lease.id));
        }
        let pace = match self.is_urgent() {
            true => self.pace / 4,
            false => self.pace,
        };
        if self.read_at.is_none_or(|at| now >= at + pace) {
            return Some(Ask::Read);
        }
        if self.is_planned || !self.may_write(now) {
            return None;
        }
        self.is_planned = true;
        self.write(demands, now).map(Ask::Write)
    }

    /// Whether a balancer needs more than it has.
    fn is_urgent(&self) -> bool {
        let others = self.ledger.members.iter();
        let others = others.filter(|(name, _)| self.live.contains(*name));
        let shares = others.flat_map(|(_, shares)| shares.values());
        shares
            .chain(self.planned.values())
            .any(|share| share.want > 0)
    }

    fn may_write(&self, now: u64) -> bool {
        self.has_lease(now) && self.read_at.is_some()
    }

    /// What it is to have of a limit.
    fn next(&self, limit: &str, demand: Demand, now: u64) -> FleetShare {
        let others = self
            .ledger
            .others(&self.name, limit, |name| self.live.contains(name));
        let before = self.ledger.share(&self.name, limit).unwrap_or_default();
        let mut next = next_share(before.share, &others, demand);
        if now < self.grows_at {
            next.share = next.share.min(before.share);
            next.base = next.base.min(next.share);
        }
        next
    }

    /// The write of what was planned, if it changes anything.
    fn write(&self, demands: &BTreeMap<String, Demand>, now: u64) -> Option<LedgerWrite> {
        let mut ledger = self.ledger.clone();
        let before = self.ledger.members.get(&self.name);
        let mut is_needed = self.unknown == Some(self.revision) || self.revision == 0;
        is_needed |= before.is_none_or(|before| before.len() != self.planned.len());
        let mut shares = BTreeMap::new();
        for (limit, planned) in &self.planned {
            let before = before.and_then(|before| before.get(limit)).copied();
            let used = demands.get(limit).map_or(0, |demand| demand.used);
            let mut next = *planned;
            // What is in use counts until it ends.
            next.share = next
                .share
                .max(used.min(before.map_or(0, |before| before.share)));
            is_needed |= before.is_none_or(|before| differs(&before, &next));
            shares.insert(limit.clone(), next);
        }
        let mut gone = Vec::new();
        for (name, since) in &self.gone {
            if gone.len() == GONE_MAX {
                break;
            }
            if now >= since.saturating_add(FORGOTTEN_AFTER) {
                ledger.members.remove(name);
                gone.push(name.clone());
            } else if ledger.cut(name) {
                gone.push(name.clone());
            }
        }
        let members = &mut ledger.members;
        if members.len() < MEMBERS_MAX || members.contains_key(&self.name) {
            members.insert(self.name.clone(), shares);
        } else {
            is_needed = false;
        }
        let write = LedgerWrite {
            revision: self.revision,
            ledger,
            gone,
        };
        (is_needed || !write.gone.is_empty()).then_some(write)
    }

    /// Takes in what came of a request that was made at `asked_at`.
    pub fn answered(&mut self, ask: Ask, answer: Answer, asked_at: u64, now: u64) {
        match (ask, answer) {
            (Ask::Grant, Answer::Granted(id, lasts)) => {
                self.lease = Some(Lease {
                    id,
                    lasts,
                    asked_at,
                    is_registered: false,
                });
            }
            (Ask::Register(_), Answer::Registered(by)) => {
                let is_own = by.as_ref().is_none_or(|by| *by == self.instance);
                if let Some(lease) = self.lease.as_mut() {
                    lease.is_registered = is_own;
                }
                self.rival = by.filter(|_| !is_own);
                if !is_own {
                    // What the name has in the ledger is the other one's.
                    self.held.clear();
                    self.planned.clear();
                }
                // What was read before is older than the name is bound.
                self.read_at = None;
            }
            (Ask::Renew(_), Answer::Renewed(true)) => {
                if let Some(lease) = self.lease.as_mut() {
                    lease.asked_at = asked_at;
                }
            }
            (Ask::Renew(_), Answer::Renewed(false)) => self.lose_lease(),
            (Ask::Read, Answer::Read(view)) => self.read(view, asked_at, now),
            (Ask::Write(write), Answer::Written(true)) => {
                // The next read has its revision; until then nothing more is written.
                self.take_own(&write.ledger, now);
                self.read_at = None;
                self.unknown = None;
            }
            (Ask::Write(_), Answer::Written(false)) => {
                self.conflicts += 1;
                self.read_at = None;
            }
            (Ask::Write(write), _) => {
                self.unknown = Some(write.revision);
                self.read_at = None;
            }
            _ => {}
        }
    }

    fn lose_lease(&mut self) {
        self.lease = None;
        self.read_at = None;
        // Others cut it.
        for held in self.held.values_mut() {
            held.share = held.share.min(held.base);
        }
    }

    fn read(&mut self, view: LedgerView, asked_at: u64, now: u64) {
        if view.instances.get(&self.name) != Some(&self.instance) {
            // The lease has ended, or was revoked.
            return self.lose_lease();
        }
        let is_lost = view.revision < self.revision;
        if is_lost {
            let lasts = self.lease.map_or(0, |lease| lease.lasts);
            self.grows_at = now.saturating_add(lasts);
        }
        self.revision = view.revision;
        // Where there is none any more, it is written again as it was known.
        if view.revision > 0 {
            self.ledger = view.ledger;
        }
        self.live = view.instances.into_keys().collect();
        self.read_at = Some(asked_at);
        self.is_planned = false;
        let names = self.ledger.members.keys();
        let gone = names.filter(|name| !self.live.contains(*name));
        let gone = gone.map(|name| {
            let since = self.gone.get(name).copied();
            (name.clone(), since.unwrap_or(now))
        });
        self.gone = gone.collect();
        if self.unknown == Some(self.revision) {
            // A write that gives back may still be done: what it gave back stays so.
            return;
        }
        self.unknown = None;
        if view.revision > 0 {
            let ledger = std::mem::take(&mut self.ledger);
            self.take_own(&ledger, now);
            self.ledger = ledger;
        }
    }

    /// Acts on what the ledger has for this balancer.
    fn take_own(&mut self, ledger: &Ledger, now: u64) {
        let own = ledger.members.get(&self.name);
        let may_grow = now >= self.grows_at;
        let before = std::mem::take(&mut self.held);
        for (limit, share) in own.into_iter().flatten() {
            let mut held = Held {
                share: share.share,
                base: share.base.min(share.share),
            };
            if !may_grow {
                let before = before.get(limit).copied().unwrap_or_default();
                held.share = held.share.min(before.share);
                held.base = held.base.min(before.base);
            }
            self.held.insert(limit.clone(), held);
        }
        lower(&mut self.held, &self.wholes, (&self.name, ledger));
    }
}

/// Lowers what is held to the whole of each limit, and without a lease to an equal part of it.
fn lower(
    held: &mut BTreeMap<String, Held>,
    wholes: &BTreeMap<String, u32>,
    (me, ledger): (&str, &Ledger),
) {
    for (limit, held) in held {
        let Some(whole) = wholes.get(limit) else {
            continue;
        };
        let others = ledger.members.iter().filter(|(name, _)| *name != me);
        let others = others.filter(|(_, shares)| shares.contains_key(limit));
        let members = u32::try_from(others.count() + 1).unwrap_or(u32::MAX);
        held.share = held.share.min(*whole);
        held.base = held.base.min(whole / members);
    }
}

/// Whether a share is to be written in place of another: a little more or less that is wanted is
/// not told.
fn differs(before: &FleetShare, next: &FleetShare) -> bool {
    let wants =
        (before.want == 0) != (next.want == 0) || next.want.abs_diff(before.want) > before.want / 8;
    wants || (next.limit, next.share, next.base) != (before.limit, before.share, before.base)
}

impl Lease {
    /// When it ends at the earliest. Clocks may differ in pace by a twentieth.
    fn until(&self) -> u64 {
        self.asked_at + (self.lasts - self.lasts / 20)
    }
}

/// A balancer that has had no lease for so long is left out: an hour.
const FORGOTTEN_AFTER: u64 = 3_600 * crate::time::SECOND;
/// Names that one write cuts or leaves out: etcd takes 128 conditions in a transaction.
const GONE_MAX: usize = 64;
