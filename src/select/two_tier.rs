//! Two tiers: a static tier picks some of the backends, a dynamic tier picks one of those.
//!
//! The static tier picks one of the groups that backends name. A hash without groups picks a subset
//! for each key, by rendezvous hashing. Subsets are taken from all configured backends, whatever
//! their state, so that a backend which leaves and returns moves only its own clients. When the
//! first group is down or full the next one takes over: in the key's order, in the round, or by
//! priority.

use std::num::NonZeroU16;
use std::sync::Arc;

use fastrand::Rng;

use crate::config::{self, FirstTier, SecondTier, Strategy};
use crate::pool::{Backend, Pool};

use super::least_time::AnswerTime;
use super::round_robin::Round;
use super::{LOOKS_MAX, LeastConnections, LeastTime, PowerOfTwo, Rendezvous, Scene, Seat};
use super::{least_connections, least_time};

/// Both tiers over the members.
#[derive(Clone, Debug)]
pub(super) struct TwoTier {
    all: Then,
    /// The members of each group, in order of priority.
    groups: Arc<[Then]>,
    first: First,
}

#[derive(Clone, Debug)]
enum First {
    Group(Arc<Rendezvous>),
    Subset(Arc<Subsets>, SecondTier),
    Weight(Round),
    Priority,
}

#[derive(Debug)]
struct Subsets {
    order: Rendezvous,
    /// The backend of each candidate of `order`, as an index into the pool.
    backends: Vec<u16>,
    size: NonZeroU16,
}

/// The second tier over some backends.
#[derive(Clone, Debug)]
enum Then {
    LeastConnections(LeastConnections),
    LeastTime(LeastTime),
    PowerOfTwo(PowerOfTwo),
}

impl TwoTier {
    pub(super) fn new(
        settings: &config::TwoTier,
        pool: &Pool,
        members: Arc<[u16]>,
        backup: bool,
    ) -> Self {
        let of_group = |group: &config::Group| {
            let named = |&&index: &&u16| {
                pool.backends[usize::from(index)].group.as_ref() == Some(&group.name)
            };
            let own: Arc<[u16]> = members.iter().filter(named).copied().collect();
            Then::new(settings.then, pool, own)
        };
        let groups: Arc<[_]> = settings.groups.iter().map(of_group).collect();
        let first = match &settings.first {
            FirstTier::Hash { subset, .. } if groups.is_empty() => {
                First::Subset(Arc::new(Subsets::new(pool, backup, *subset)), settings.then)
            }
            FirstTier::Hash { .. } => {
                let weighted = settings.groups.iter();
                let weighted = weighted.map(|group| (group.name.as_str(), group.weight));
                First::Group(Arc::new(Rendezvous::new(weighted)))
            }
            FirstTier::Weight => {
                let turns = (0u16..).zip(&settings.groups);
                First::Weight(Round::new(turns.map(|(id, group)| (id, group.weight))))
            }
            FirstTier::Priority => First::Priority,
        };
        Self {
            all: Then::new(settings.then, pool, members),
            groups,
            first,
        }
    }

    pub(super) fn sit(&mut self, seat: Seat) {
        if let First::Weight(round) = &mut self.first {
            round.sit(seat);
        }
    }

    /// Continues the round of groups of `before`. `false`: it has none.
    pub(super) fn follow(&mut self, before: &Self, pools: [&Pool; 2]) -> bool {
        let (First::Weight(round), First::Weight(before)) = (&mut self.first, &before.first) else {
            return false;
        };
        round.follow(before, |id| {
            let [old, new] = pools.map(|pool| group(pool, id));
            old.is_some() && old == new
        })
    }

    /// The tier that a selected backend is of.
    pub(super) fn tier<'a>(
        &self,
        key: u64,
        (index, chosen): (u16, &'a Backend),
        order: &'a mut [u16; ORDER_MAX],
    ) -> Tier<'a> {
        match &self.first {
            First::Subset(subsets, _) => subsets.tier(key, index, order),
            First::Group(_) | First::Weight(_) | First::Priority => match &chosen.group {
                Some(group) => Tier::Group(Some(group)),
                None => Tier::All,
            },
        }
    }

    /// How the second tier scores by answer times within a tier, if it does.
    pub(super) fn answer_times(&self, scene: &Scene<'_>, tier: Tier<'_>) -> Option<AnswerTime> {
        let Then::LeastTime(all) = &self.all else {
            return None;
        };
        let own = match tier {
            Tier::All | Tier::Group(None) => Some(all),
            Tier::Subset(indices) => return Some(all.scorer_among(indices, scene)),
            Tier::Group(name) => self.groups.iter().find_map(|group| match group {
                Then::LeastTime(its) => {
                    let first = its.members().first()?;
                    (scene.backend(*first).group.as_deref() == name).then_some(its)
                }
                Then::LeastConnections(_) | Then::PowerOfTwo(_) => None,
            }),
        };
        let members = own.unwrap_or(all).members();
        Some(all.scorer_among(&members[..members.len().min(LOOKS_MAX)], scene))
    }

    pub(super) fn pick(&mut self, scene: &Scene<'_>, rng: &mut Rng) -> Option<u16> {
        let Self { all, groups, first } = self;
        let key = scene.request.keys.select;
        let within = |group: u16, rng: &mut Rng| groups[usize::from(group)].pick(scene, rng);
        let picked = match first {
            First::Subset(subsets, then) => subsets.pick(key, *then, scene, rng),
            First::Group(order) => {
                let mut groups = [0; GROUPS_MAX];
                let known = order.best(key, &mut groups);
                groups[..known].iter().find_map(|&group| within(group, rng))
            }
            First::Weight(round) => {
                let open = |group: u16| {
                    let mut members = groups[usize::from(group)].members().iter();
                    members.any(|&index| scene.is_open(index))
                };
                round.next(open).and_then(|group| within(group, rng))
            }
            First::Priority => (0u16..)
                .take(groups.len())
                .find_map(|group| within(group, rng)),
        };
        // Every group in the key's order is full: any open backend.
        picked.or_else(|| all.pick(scene, rng))
    }
}

/// The first tier as one selection saw it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Tier<'a> {
    /// It left no backend out.
    All,
    /// It picked this group.
    Group(Option<&'a str>),
    /// It picked these backends.
    Subset(&'a [u16]),
}

impl Tier<'_> {
    /// The most backends of a subset.
    pub(super) const ORDER_MAX: usize = ORDER_MAX;

    /// Whether a backend is in another group, or in none of the subset.
    pub(super) fn leaves_out(self, index: u16, backend: &Backend) -> bool {
        match self {
            Self::All => false,
            Self::Group(name) => backend.group.as_deref() != name,
            Self::Subset(indices) => !indices.contains(&index),
        }
    }
}

/// The name of a group by its place in the round.
fn group(pool: &Pool, id: u16) -> Option<&str> {
    let Strategy::TwoTier(settings) = &pool.strategy else {
        return None;
    };
    let group = settings.groups.get(usize::from(id))?;
    Some(&group.name)
}

impl Subsets {
    fn new(pool: &Pool, backup: bool, size: NonZeroU16) -> Self {
        let all = (0u16..).zip(&pool.backends);
        let all = all.filter(|(_, backend)| {
            // A backend that waits in the reserve would only make subsets smaller.
            backend.backup == backup && backend.weight > 0 && !backend.standby
        });
        let candidates = all
            .clone()
            .map(|(_, backend)| (backend.name.as_str(), u32::from(backend.weight)));
        Self {
            order: Rendezvous::new(candidates),
            backends: all.map(|(index, _)| index).collect(),
            size,
        }
    }

    /// The key's subset, if this backend is one of it.
    fn tier<'a>(&self, key: u64, index: u16, order: &'a mut [u16; ORDER_MAX]) -> Tier<'a> {
        let size = usize::from(self.size.get()).min(ORDER_MAX / 2);
        let known = self.order.best(key, &mut order[..size]);
        for candidate in &mut order[..known] {
            *candidate = self.backends[usize::from(*candidate)];
        }
        let subset = &order[..known];
        if subset.contains(&index) {
            Tier::Subset(subset)
        } else {
            Tier::All
        }
    }

    /// One of the key's subset, or of the next backends in its order.
    fn pick(&self, key: u64, then: SecondTier, scene: &Scene<'_>, rng: &mut Rng) -> Option<u16> {
        let size = usize::from(self.size.get()).min(ORDER_MAX / 2);
        // Looks beyond the subset, which costs more, only when none of the subset is usable.
        for ahead in [size, ORDER_MAX] {
            let mut best = [0; ORDER_MAX];
            let known = self.order.best(key, &mut best[..ahead]);
            for candidate in &mut best[..known] {
                *candidate = self.backends[usize::from(*candidate)];
            }
            let mut subsets = best[..known].chunks_mut(size);
            let picked = subsets.find_map(|subset| {
                let usable = partition(subset, |index| scene.is_usable(index));
                among(&subset[..usable], then, scene, rng)
            });
            if picked.is_some() {
                return picked;
            }
        }
        None
    }
}

/// Moves those that fit to the front, keeping their order. Returns how many there are.
fn partition(indices: &mut [u16], fits: impl Fn(u16) -> bool) -> usize {
    let mut kept = 0;
    for at in 0..indices.len() {
        if fits(indices[at]) {
            indices.swap(kept, at);
            kept += 1;
        }
    }
    kept
}

impl Then {
    fn new(tier: SecondTier, pool: &Pool, members: Arc<[u16]>) -> Self {
        match tier {
            SecondTier::LeastConnections => Self::LeastConnections(LeastConnections::new(members)),
            SecondTier::LeastTime(settings) => Self::LeastTime(LeastTime::new(settings, members)),
            SecondTier::PowerOfTwo => Self::PowerOfTwo(PowerOfTwo::new(pool, members)),
        }
    }

    fn members(&self) -> &[u16] {
        match self {
            Self::LeastConnections(strategy) => strategy.members(),
            Self::LeastTime(strategy) => strategy.members(),
            Self::PowerOfTwo(strategy) => strategy.members(),
        }
    }

    fn pick(&self, scene: &Scene<'_>, rng: &mut Rng) -> Option<u16> {
        match self {
            Self::LeastConnections(strategy) => strategy.pick(scene, rng),
            Self::LeastTime(strategy) => strategy.pick_shared(scene, rng),
            Self::PowerOfTwo(strategy) => strategy.pick_shared(scene, rng),
        }
    }
}

/// The best of a subset. With so few members, `power_of_two` looks at all of them.
fn among(subset: &[u16], tier: SecondTier, scene: &Scene<'_>, rng: &mut Rng) -> Option<u16> {
    match tier {
        SecondTier::LeastConnections | SecondTier::PowerOfTwo => {
            least_connections::pick(subset, scene, rng)
        }
        SecondTier::LeastTime(settings) => {
            least_time::pick(subset, least_time::decay_ns(settings), scene, rng)
        }
    }
}

/// How many groups of a key's order are tried.
const GROUPS_MAX: usize = 16;
/// How many backends of a key's order are tried: its subset, then those that a full subset spills
/// to.
const ORDER_MAX: usize = Rendezvous::BEST_MAX;
