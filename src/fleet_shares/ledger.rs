//! The arithmetic of shares: what a balancer takes or gives back, given what all have.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What a balancer has of one limit. Numbers are connections, or new connections in a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FleetShare {
    /// The whole limit, by this balancer's configuration.
    pub limit: u32,
    /// What it may take while its lease lasts.
    pub share: u32,
    /// What it may take without a lease; at most its share.
    pub base: u32,
    /// What it would take if it could; 0: it has enough.
    #[serde(default)]
    pub want: u32,
}

/// What a balancer needs of a limit now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Demand {
    /// The whole limit.
    pub limit: u32,
    /// What is in use and can't be given back.
    pub used: u32,
    /// What it would take, with room for more; at least what is in use.
    pub want: u32,
}

/// What another balancer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Other {
    /// By the ledger.
    pub share: FleetShare,
    /// Whether it has a lease: only then it asks for more.
    pub is_live: bool,
}

/// What each balancer has of each limit, by their names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Ledger {
    /// By the balancer's name, and then by that of the limit.
    pub members: BTreeMap<String, BTreeMap<String, FleetShare>>,
}

/// What a balancer is to have of a limit next, of which it has `mine`.
///
/// - An equal part is its own where it needs that: others give back what they have beyond theirs
///   and do not use.
/// - What it does not need, it gives back where others need it, down to a quarter of an equal part.
/// - What is free beyond that goes to those who need it, half to the first of two.
/// - What no balancer needs goes into equal parts, so that each has its part when a crowd comes, or
///   when the ledger can't be reached.
///
/// The share may be less than what is in use: then nothing new begins, and the ledger keeps what is
/// in use until it ends.
#[must_use]
pub fn next_share(mine: u32, others: &[Other], demand: Demand) -> FleetShare {
    let live = others.iter().filter(|other| other.is_live);
    // While a lower limit is being rolled out it holds already.
    let limits = live.clone().map(|other| other.share.limit);
    let limit = limits.fold(demand.limit, u32::min);
    let members = u32::try_from(others.len() + 1).unwrap_or(u32::MAX);
    let fair = limit / members;
    let floor = (fair / 4).max(fair.min(1));
    let want = demand.want.max(demand.used).max(floor).min(limit);
    let given: u64 = others
        .iter()
        .map(|other| u64::from(other.share.share))
        .sum();
    let most = u32::try_from(u64::from(limit).saturating_sub(given)).unwrap_or(u32::MAX);
    let claims = |up_to: u32| {
        let lacks = live.clone().map(move |other| {
            let wants = other.share.want.min(up_to);
            u64::from(wants.saturating_sub(other.share.share))
        });
        u32::try_from(lacks.sum::<u64>()).unwrap_or(u32::MAX)
    };
    let (claimed, entitled) = (claims(limit), claims(fair));
    let share = if mine > most {
        // The limit was lowered, or another balancer has a higher one.
        mine.min(fair.max(most))
    } else {
        let free = most - mine;
        let goal = if claimed == 0 { want.max(fair) } else { want };
        let to_fair = goal.min(fair).saturating_sub(mine).min(free);
        let mine = mine + to_fair;
        let spare = (free - to_fair).saturating_sub(entitled);
        let hungry = live.clone().filter(|other| other.share.want > 0).count();
        let part = spare.div_ceil(u32::try_from(hungry + 1).unwrap_or(u32::MAX));
        let grown = mine + goal.saturating_sub(mine).min(part);
        if grown > mine || to_fair > 0 {
            grown
        } else {
            let unneeded = mine.saturating_sub(want);
            let beyond = mine.saturating_sub(fair);
            // What others lack of equal parts, needed or not. Small differences stay.
            let lacks = live.map(|other| u64::from(fair.saturating_sub(other.share.share)));
            let lacks = u32::try_from(lacks.sum::<u64>()).unwrap_or(u32::MAX);
            let idle = unneeded.min(beyond);
            let idle = if idle > mine / 8 { idle } else { 0 };
            let gives = unneeded.min(claimed.saturating_sub(free));
            let gives = gives.max(beyond.min(entitled.saturating_sub(free)));
            mine - gives.max(idle.min(lacks.saturating_sub(free)))
        }
    };
    FleetShare {
        limit: demand.limit,
        share,
        base: share.min(fair),
        want: if want > share { want } else { 0 },
    }
}

impl Ledger {
    /// What other balancers than `me` have of a limit.
    #[must_use]
    pub fn others(&self, me: &str, limit: &str, is_live: impl Fn(&str) -> bool) -> Vec<Other> {
        let others = self.members.iter().filter(|(name, _)| *name != me);
        let others = others.filter_map(|(name, shares)| {
            Some(Other {
                share: *shares.get(limit)?,
                is_live: is_live(name),
            })
        });
        others.collect()
    }

    /// What a balancer has of a limit.
    #[must_use]
    pub fn share(&self, member: &str, limit: &str) -> Option<FleetShare> {
        self.members.get(member)?.get(limit).copied()
    }

    /// Cuts the shares of a balancer without a lease down to their bases. `true`: it had more.
    pub fn cut(&mut self, member: &str) -> bool {
        let mut has_changed = false;
        for share in self
            .members
            .get_mut(member)
            .into_iter()
            .flat_map(BTreeMap::values_mut)
        {
            let base = share.base.min(share.share);
            has_changed |= share.share != base;
            (share.share, share.want) = (base, 0);
        }
        has_changed
    }

    /// What all balancers have of a limit together.
    #[must_use]
    pub fn sum(&self, limit: &str) -> u64 {
        let shares = self.members.values().filter_map(|shares| shares.get(limit));
        shares.map(|share| u64::from(share.share)).sum()
    }
}

/// Balancers that a ledger has at most.
pub const MEMBERS_MAX: usize = 255;
