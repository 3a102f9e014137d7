//! Every strategy: which backends it selects how often, and which never.

use std::time::Duration;

use super::*;
use crate::config::{
    self, FirstTier, Group, Key, LeastTime, Persist, SecondTier, SelectsBy, TwoTier,
};
use crate::pool::{AdminState, Ended, Health, Outlook};
use crate::time::{MS, SECOND};

mod ejection;
mod equal_parts;
mod explain;
mod members;
mod persistence;
mod properties;
mod shares;
mod slow_start;
mod tiers;

const ALONE: Seat = Seat {
    worker: 0,
    of: 1,
    pool: 0,
    seed: 0,
};

/// A pool with one worker and a clock.
struct Bench {
    pool: Arc<Pool>,
    selector: Selector,
    now: u64,
}

impl Bench {
    /// Backends b0, b1, ... of these weights.
    fn new(strategy: Strategy, weights: &[u16]) -> Self {
        Self::of(strategy, &backends(weights))
    }

    fn of(strategy: Strategy, backends: &[config::Backend]) -> Self {
        Self::with(config(strategy, backends))
    }

    fn with(config: config::Pool) -> Self {
        Self::over(Pool::new(&config))
    }

    /// Over a pool that was published.
    fn over(pool: Pool) -> Self {
        pool.take_effect(None);
        let pool = Arc::new(pool);
        Self {
            selector: selector(&pool, ALONE),
            pool,
            now: SECOND,
        }
    }

    /// The same pool, changed, as another snapshot would have it.
    fn change(&mut self, change: impl FnMut(&mut Backend)) {
        self.pool = Arc::new(self.pool.with(change));
        self.selector = selector(&self.pool, ALONE);
    }

    fn select(&mut self, keys: Keys, tried: &[u16]) -> Choice {
        self.now += MS;
        let request = Request {
            now: self.now,
            keys,
            tried,
        };
        self.selector.select(&request)
    }

    /// The backend of a client with this key.
    fn of_key(&mut self, key: u64) -> u16 {
        let keys = Keys {
            select: crate::hash::mix(key + 1),
            persist: key + 1,
            source: key + 1,
        };
        picked(self.select(keys, &[]))
    }

    /// The backend of the next client, which does not stay.
    fn next(&mut self) -> u16 {
        picked(self.select(Keys::default(), &[]))
    }

    /// The backend of the next client, which stays.
    fn stay(&mut self) -> u16 {
        let index = self.next();
        self.open(index, 1);
        index
    }

    fn fill(&mut self, clients: u32) {
        for _ in 0..clients {
            self.stay();
        }
    }

    fn open(&self, index: u16, connections: u32) {
        for _ in 0..connections {
            assert!(self.backend(index).try_acquire(self.now));
        }
    }

    fn close(&self, index: u16) {
        self.backend(index).release(Ended::unanswered());
    }

    fn backend(&self, index: u16) -> &Backend {
        &self.pool.backends[usize::from(index)]
    }

    /// The backend answers another client, which leaves.
    fn answers(&self, index: u16, after: u64) {
        let decay = self.selector.plan.decay();
        let backend = self.backend(index);
        assert!(backend.try_acquire(self.now));
        backend.tally.on_answered(after, self.now, decay);
        backend.release(Ended::default());
    }

    /// The backend answers this many clients, one after the other.
    fn answers_each(&mut self, index: u16, after: u64, clients: u32) {
        for _ in 0..clients {
            self.now += after + MS;
            self.answers(index, after);
        }
    }

    /// The number of selections of each of the first backends, by this many clients that do not
    /// stay.
    fn counts<const N: usize>(&mut self, clients: u64) -> [u32; N] {
        let mut counts = [0; N];
        for client in 0..clients {
            counts[usize::from(self.of_key(client))] += 1;
        }
        counts
    }
}

/// The strategies that select by one of these.
fn all_by(some: &[SelectsBy]) -> impl Iterator<Item = (&'static str, Strategy)> {
    let all = Strategy::all().into_iter();
    all.filter(|(_, strategy)| some.contains(&strategy.by()))
}

fn picked(choice: Choice) -> u16 {
    match choice {
        Choice::Backend(index) => index,
        Choice::Full | Choice::Unavailable => panic!("{choice:?}"),
    }
}

fn selector(pool: &Arc<Pool>, seat: Seat) -> Selector {
    Selector::new(Arc::new(Plan::new(Arc::clone(pool))), seat)
}

/// The selector of one of several workers.
fn selector_of(pool: &Arc<Pool>, worker: u32, of: u32) -> Selector {
    let seat = Seat {
        worker,
        of,
        pool: 0,
        seed: 0,
    };
    selector(pool, seat)
}

fn config(mut strategy: Strategy, backends: &[config::Backend]) -> config::Pool {
    // A strategy is tested alone: such a table remembers no client.
    if let Strategy::StickyRoundRobin(persist) = &mut strategy
        && *persist == Persist::default()
    {
        persist.clients_max = 0;
    }
    config::Pool {
        strategy,
        persist: None,
        ejection: None,
        ..config::Pool::of("p", backends.to_vec())
    }
}

fn backends(weights: &[u16]) -> Vec<config::Backend> {
    let backend = |(index, weight): (u16, &u16)| config::Backend {
        name: format!("b{index}"),
        weight: *weight,
        ..config::Backend::at(format!("127.0.0.1:{}", 9_000 + index).parse().unwrap())
    };
    (0u16..).zip(weights).map(backend).collect()
}

/// Within five standard deviations of the shares by these weights.
fn assert_shares(counts: &[u32], weights: &[u16]) {
    let all: u32 = counts.iter().sum();
    let sum: u32 = weights.iter().map(|weight| u32::from(*weight)).sum();
    for (count, weight) in counts.iter().zip(weights) {
        let share = f64::from(*weight) / f64::from(sum);
        let expected = f64::from(all) * share;
        let deviation = (expected * (1.0 - share)).sqrt();
        let off = (f64::from(*count) - expected).abs();
        assert!(off <= 5.0 * deviation + 1e-9, "{counts:?} by {weights:?}");
    }
}
