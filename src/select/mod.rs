//! Choosing a backend for a session.
//!
//! The control thread compiles a pool into a [`Plan`], which all workers share. Each worker makes
//! a [`Selector`] of it, which owns the worker's place in a round and its random numbers. Counts
//! that must be exact over all workers are in [`crate::pool`]. Nothing here reads a clock.

#![forbid(unsafe_code)]

mod alias;
mod explain;
mod first;
mod forecast;
mod forecaster;
mod hash;
mod keys;
mod least;
mod least_connections;
mod least_time;
mod maglev;
mod members;
mod persist;
mod power_of_two;
mod predictive;
mod random;
mod rendezvous;
mod round_robin;
mod scaling;
mod scene;
mod two_tier;

use std::sync::Arc;

use fastrand::Rng;

use crate::config::{SendProxy, Strategy};
use crate::hash as hashing;
use crate::pool::{Backend, Pool};

use explain::Terms;
pub use explain::{Considered, LISTED_MAX, LOOKS_MAX, Rated, Rating, Why};
use first::First;
pub use forecast::{Forecast, Model};
pub use forecaster::{BackendForecast, Forecaster};
use hash::Hash;
pub use keys::{Keys, Looked, hash_of};
use least_connections::LeastConnections;
use least_time::LeastTime;
pub use maglev::{Candidate, Maglev};
use members::Members;
use persist::Memory;
use power_of_two::PowerOfTwo;
use predictive::Predictive;
use random::Random;
pub use rendezvous::Rendezvous;
use round_robin::RoundRobin;
pub use scaling::{Decision, Scaler, ScalingAction};
use scene::Scene;
use two_tier::TwoTier;

/// A pool compiled for selection: immutable, shared by all workers.
#[derive(Debug)]
pub struct Plan {
    pool: Arc<Pool>,
    /// Backends in rotation: first those that are no backups, then the backups. Either may be
    /// empty.
    ranks: [Picker; 2],
    /// Backends that only their probes keep out of rotation. Empty unless the pool fails open.
    down: Vec<u16>,
    memory: Option<Memory>,
    /// Where clients select their backends themselves.
    members: Option<Members>,
    decay: u64,
    /// Backends are told what a client's TLS hello says.
    reads_hello: bool,
    /// What an explanation of its selections calls things.
    terms: Terms,
}

/// A worker's selector for one pool.
#[derive(Clone, Debug)]
pub struct Selector {
    plan: Arc<Plan>,
    ranks: [Picker; 2],
    rng: Rng,
    /// The last selection found the client's own backend.
    remembered: bool,
}

/// The session that needs a backend.
#[derive(Clone, Copy, Debug, Default)]
pub struct Request<'a> {
    /// Nanoseconds, monotonic.
    pub now: u64,
    /// The keys of its client.
    pub keys: Keys,
    /// Backends that earlier connect attempts of this session failed on, as indices into the pool.
    pub tried: &'a [u16],
}

/// The result of a selection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// This backend, as an index into the pool.
    Backend(u16),
    /// Every usable backend, or the whole pool, has reached its `max_connections`.
    Full,
    /// No backend can be used.
    Unavailable,
}

/// Who selects: a worker, for one of its pools. Each starts its round at another place.
#[derive(Clone, Copy, Debug)]
pub struct Seat {
    /// 0 to `of` - 1.
    pub worker: u32,
    /// The number of workers.
    pub of: u32,
    /// The pool's number among those of the worker. Pools of the same backends that all began with
    /// the same one would flood it.
    pub pool: u64,
    /// The seed of the random numbers. It differs between processes, because replicas that draw
    /// the same sequence would send their clients to the same backends at the same time.
    pub seed: u64,
}

impl Seat {
    /// This worker's seat for one of its pools.
    #[must_use]
    pub fn at(self, pool: u64) -> Self {
        Self { pool, ..self }
    }

    /// Each worker and pool has a sequence of its own.
    fn seed_for(self, pool: &Pool) -> u64 {
        let own = self.seed.wrapping_add(u64::from(self.worker));
        hashing::seeded(pool.name.as_bytes(), own ^ hashing::mix(self.pool))
    }

    /// The place where it begins in a round of so many turns. Workers divide the round evenly.
    /// Pools go on by the golden ratio: however many there are, their places lie evenly.
    fn place(self, turns: u64) -> u64 {
        let worker = turns * u64::from(self.worker) / u64::from(self.of.max(1));
        let part = self.pool.wrapping_mul(GOLDEN_RATIO);
        let pool = (u128::from(turns) * u128::from(part)) >> 64;
        let place = worker + u64::try_from(pool).unwrap_or(0);
        place % turns.max(1)
    }
}

/// A strategy over some of a pool's backends. Cheap to clone: tables are behind an `Arc`.
#[derive(Clone, Debug)]
enum Picker {
    RoundRobin(RoundRobin),
    Hash(Hash),
    LeastConnections(LeastConnections),
    LeastTime(LeastTime),
    Random(Random),
    PowerOfTwo(PowerOfTwo),
    First(First),
    TwoTier(TwoTier),
    Predictive(Predictive),
}

impl Plan {
    /// Compiles a pool. Builds tables, which takes milliseconds for large pools, so never call it
    /// on a worker.
    #[must_use]
    pub fn new(pool: Arc<Pool>) -> Self {
        let ranks = [false, true].map(|backup| {
            let all = (0u16..).zip(&pool.backends);
            let members =
                all.filter(|(_, backend)| backend.backup == backup && backend.is_in_rotation());
            let members: Arc<[u16]> = members.map(|(index, _)| index).collect();
            Picker::new(&pool, members, backup)
        });
        let members = Members::new(&pool);
        Self {
            ranks,
            terms: Terms::of(&pool, members.is_some()),
            down: down(&pool),
            memory: Memory::new(&pool),
            members,
            decay: least_time::decay_ns(pool.strategy.averages_over()),
            reads_hello: reads_hello(&pool),
            pool,
        }
    }

    /// The pool that it was compiled from.
    #[must_use]
    pub fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    /// The time constant of the average of answer times, in ns.
    #[must_use]
    pub fn decay(&self) -> u64 {
        self.decay
    }

    /// Remembers, where the pool persists, that the client with these keys left this backend at
    /// `now`, in ns.
    pub fn on_left(&self, backend: &Backend, keys: &Keys, now: u64) {
        if let Some(memory) = &self.memory {
            memory.on_left(backend, keys, now);
        }
    }
}

impl Selector {
    /// The selector of one worker.
    #[must_use]
    pub fn new(plan: Arc<Plan>, seat: Seat) -> Self {
        let mut ranks = plan.ranks.clone();
        for rank in &mut ranks {
            rank.sit(seat);
        }
        Self {
            ranks,
            rng: Rng::with_seed(seat.seed_for(&plan.pool)),
            remembered: false,
            plan,
        }
    }

    /// The plan that it selects by.
    #[must_use]
    pub fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }

    /// Switches to another plan. The random sequence goes on, and so does the round among backends
    /// or groups that kept their place: a selector that started over with each snapshot would
    /// always pick the same backends first. Does nothing if the plan is the same.
    pub fn follow(&mut self, plan: Arc<Plan>, seat: Seat) {
        if Arc::ptr_eq(&self.plan, &plan) {
            return;
        }
        let mut ranks = plan.ranks.clone();
        for (rank, before) in ranks.iter_mut().zip(&self.ranks) {
            rank.follow(before, [&self.plan.pool, &plan.pool], seat);
        }
        self.ranks = ranks;
        self.plan = plan;
    }

    /// Selects a backend: the client's own if the pool persists and that one is usable, otherwise
    /// by the strategy; a backup only when no other backend is usable. After a failed attempt, in
    /// this order: one that was not tried; one that is ejected, or down where the pool fails open;
    /// one that was tried. Where the client's name leads to one backend, that one or none.
    pub fn select(&mut self, request: &Request<'_>) -> Choice {
        let Self {
            plan,
            ranks,
            rng,
            remembered,
        } = self;
        *remembered = false;
        let scene = Scene::new(&plan.pool, request);
        if let Some(members) = &plan.members {
            return members.choose(&scene);
        }
        let Some(memory) = &plan.memory else {
            return choose(&scene, plan, ranks, rng);
        };
        if plan.pool.is_full() {
            return none_of(&plan.pool);
        }
        let known = memory.recall(request);
        let chosen = match known.filter(|index| scene.is_worth_keeping(*index)) {
            Some(known) => known,
            None => match choose(&scene, plan, ranks, rng) {
                Choice::Backend(chosen) => chosen,
                none @ (Choice::Full | Choice::Unavailable) => return none,
            },
        };
        // When all backends fail, no other is better, and clients keep theirs.
        let sound = scene.is_worth_keeping(chosen);
        let keeps = |index| scene.is_worth_keeping(index) || !sound && scene.is_usable(index);
        let assigned = memory.assign(chosen, request, keeps);
        *remembered = known == Some(assigned) || assigned != chosen;
        Choice::Backend(assigned)
    }
}

fn choose(scene: &Scene<'_>, plan: &Plan, ranks: &mut [Picker], rng: &mut Rng) -> Choice {
    let pool = scene.pool;
    if pool.is_full() {
        return none_of(pool);
    }
    let picked = if scene.request.tried.is_empty() {
        pick(scene, ranks, rng).or_else(|| {
            let fall_back = pool.falls_back_to_ejected();
            fall_back.then(|| pick(&scene.with_ejected(), ranks, rng))?
        })
    } else {
        pick_again(scene, plan, ranks, rng)
    };
    picked.map_or_else(|| none_of(pool), Choice::Backend)
}

/// Picks an open backend, backups last.
fn pick(scene: &Scene<'_>, ranks: &mut [Picker], rng: &mut Rng) -> Option<u16> {
    let thinned = scene.thinned(rng);
    ranks.iter_mut().find_map(|rank| {
        let thin = thinned.and_then(|scene| rank.pick(&scene, rng));
        // A backend in slow start takes all that no other can.
        thin.or_else(|| rank.pick(scene, rng))
    })
}

/// Picks a backend after a failed attempt. Health may be out of date by half a minute, so the
/// client is lost only if no backend at all accepts it.
fn pick_again(scene: &Scene<'_>, plan: &Plan, ranks: &mut [Picker], rng: &mut Rng) -> Option<u16> {
    let sound = scene.without_failing();
    let mut all = ranks.iter_mut();
    let untried = all.find_map(|rank| rank.pick(&sound, rng).or_else(|| rank.pick(scene, rng)));
    untried
        .or_else(|| pick(&scene.with_ejected(), ranks, rng))
        .or_else(|| scene.with_ejected().any(&plan.down, rng))
        .or_else(|| pick(&scene.with_tried(), ranks, rng))
        .or_else(|| {
            let fall_back = scene.pool.falls_back_to_ejected();
            fall_back.then(|| pick(&scene.with_tried().with_ejected(), ranks, rng))?
        })
}

/// Whether a backend is told what a client's TLS hello says.
fn reads_hello(pool: &Pool) -> bool {
    let backends = pool.backends.iter();
    let mut headers = backends.filter_map(|backend| backend.send_proxy.as_ref());
    headers.any(SendProxy::reads_hello)
}

/// Backends that are out of rotation only because they are down.
fn down(pool: &Pool) -> Vec<u16> {
    let all = (0u16..).zip(&pool.backends);
    let down = all.filter(|(_, backend)| backend.is_ready() && !backend.is_in_rotation());
    let down = down.filter(|_| pool.config.fails_open());
    down.map(|(index, _)| index).collect()
}

/// Why no backend was selected.
fn none_of(pool: &Pool) -> Choice {
    if pool.reachable().next().is_some() {
        Choice::Full
    } else {
        Choice::Unavailable
    }
}

impl Picker {
    fn new(pool: &Pool, members: Arc<[u16]>, backup: bool) -> Self {
        match &pool.strategy {
            Strategy::RoundRobin | Strategy::StickyRoundRobin(_) => {
                Self::RoundRobin(RoundRobin::new(pool, &members))
            }
            Strategy::Hash(hash) => Self::Hash(Hash::new(hash, pool, members)),
            Strategy::LeastConnections => Self::LeastConnections(LeastConnections::new(members)),
            Strategy::LeastTime(settings) => Self::LeastTime(LeastTime::new(*settings, members)),
            Strategy::Random => Self::Random(Random::new(pool, members)),
            Strategy::PowerOfTwo => Self::PowerOfTwo(PowerOfTwo::new(pool, members)),
            Strategy::First => Self::First(First::new(members)),
            Strategy::TwoTier(settings) => {
                Self::TwoTier(TwoTier::new(settings, pool, members, backup))
            }
            Strategy::Predictive(_) => Self::Predictive(Predictive::new(members)),
        }
    }

    /// Moves the round to the worker's starting place.
    fn sit(&mut self, seat: Seat) {
        if let Self::RoundRobin(strategy) = self {
            strategy.sit(seat);
        } else if let Self::TwoTier(strategy) = self {
            strategy.sit(seat);
        }
    }

    /// Continues the round of the picker before it, from the first pool to the second. Starts at
    /// the worker's place if there is no round to continue.
    fn follow(&mut self, before: &Self, pools: [&Pool; 2], seat: Seat) {
        let followed =
            if let (Self::RoundRobin(round), Self::RoundRobin(before)) = (&mut *self, before) {
                round.follow(before, pools)
            } else if let (Self::TwoTier(tiers), Self::TwoTier(before)) = (&mut *self, before) {
                tiers.follow(before, pools)
            } else {
                false
            };
        if !followed {
            self.sit(seat);
        }
    }

    fn pick(&mut self, scene: &Scene<'_>, rng: &mut Rng) -> Option<u16> {
        match self {
            Self::RoundRobin(strategy) => strategy.pick(scene),
            Self::Hash(strategy) => strategy.pick(scene),
            Self::LeastConnections(strategy) => strategy.pick(scene, rng),
            Self::LeastTime(strategy) => strategy.pick(scene, rng),
            Self::Random(strategy) => strategy.pick(scene, rng),
            Self::PowerOfTwo(strategy) => strategy.pick(scene, rng),
            Self::First(strategy) => strategy.pick(scene, rng),
            Self::TwoTier(strategy) => strategy.pick(scene, rng),
            Self::Predictive(strategy) => strategy.pick(scene, rng),
        }
    }
}

/// The golden ratio's fraction, times 2^64.
const GOLDEN_RATIO: u64 = 0x9e37_79b9_7f4a_7c15;

#[cfg(test)]
mod tests;
