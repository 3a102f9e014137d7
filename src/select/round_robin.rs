//! Weighted round robin, smooth: backends of weights 5, 1, 1 come as a a b a c a a, never as
//! a a a a a b c.
//!
//! The algorithm is nginx's: at each selection every backend's credit grows by its weight, the one
//! with the most is selected and pays the sum of all weights.

use std::sync::Arc;

use crate::pool::Pool;

use super::{Scene, Seat};

/// The state of one worker's round over some backends.
#[derive(Clone, Debug)]
pub(super) struct RoundRobin {
    round: Round,
}

impl RoundRobin {
    pub(super) fn new(pool: &Pool, members: &[u16]) -> Self {
        let turn = |&index: &u16| (index, pool.backends[usize::from(index)].weight.into());
        Self {
            round: Round::new(members.iter().map(turn)),
        }
    }

    pub(super) fn sit(&mut self, seat: Seat) {
        self.round.sit(seat);
    }

    /// Continues the round of `before`, from the first pool to the second. `false`: they have no
    /// backend in common.
    pub(super) fn follow(&mut self, before: &Self, pools: [&Pool; 2]) -> bool {
        self.round.follow(&before.round, |index| {
            let [old, new] = pools.map(|pool| pool.backends.get(usize::from(index)));
            let pair = old.zip(new);
            pair.is_some_and(|(old, new)| Arc::ptr_eq(&old.tally, &new.tally))
        })
    }

    pub(super) fn pick(&mut self, scene: &Scene<'_>) -> Option<u16> {
        match scene.fast_path() {
            Some(usual) => self.round.next(|index| usual.is_open(index)),
            None => self.round.next(|index| scene.is_open(index)),
        }
    }
}

/// A smooth weighted round over anything with an id.
#[derive(Clone, Debug)]
pub(super) struct Round {
    turns: Vec<Turn>,
}

#[derive(Clone, Copy, Debug)]
struct Turn {
    id: u16,
    weight: i64,
    credit: i64,
}

impl Round {
    /// A round that begins with the heaviest. Weights are above 0.
    pub(super) fn new(turns: impl Iterator<Item = (u16, u32)>) -> Self {
        let turns: Vec<_> = turns.collect();
        // Divided by their greatest common divisor: 200 and 100 make a round of 3, as 2 and 1 do.
        let unit = turns
            .iter()
            .fold(0, |unit, (_, weight)| gcd(unit, *weight))
            .max(1);
        let turns = turns.into_iter().map(|(id, weight)| Turn {
            id,
            weight: i64::from(weight / unit),
            credit: 0,
        });
        Self {
            turns: turns.collect(),
        }
    }

    /// Moves to the seat's starting place: workers and pools that all began with the first
    /// backend would flood it.
    pub(super) fn sit(&mut self, seat: Seat) {
        let weights: i64 = self.turns.iter().map(|turn| turn.weight).sum();
        // A bound, so that a large pool does not delay a worker.
        let most = OFFSET_TURNS_MAX / i64::try_from(self.turns.len().max(1)).unwrap_or(i64::MAX);
        let turns = u64::try_from(weights.min(most)).unwrap_or(0);
        for _ in 0..seat.place(turns) {
            self.next(|_| true);
        }
    }

    /// Takes over the credits of another round, for those that stay. `false`: none does.
    pub(super) fn follow(&mut self, before: &Self, stays: impl Fn(u16) -> bool) -> bool {
        let mut follows = false;
        // Credits earned with other weights can be too large for these.
        let most: i64 = self.turns.iter().map(|turn| turn.weight).sum();
        let mut old = before.turns.iter().peekable();
        for turn in &mut self.turns {
            // Both are in the order of the pool.
            while old.next_if(|old| old.id < turn.id).is_some() {}
            if let Some(old) = old.next_if(|old| old.id == turn.id && stays(turn.id)) {
                turn.credit = old.credit.clamp(-most, most);
                follows = true;
            }
        }
        follows
    }

    /// One step of the round among those that are `eligible`. O(n).
    pub(super) fn next(&mut self, eligible: impl Fn(u16) -> bool) -> Option<u16> {
        let mut best = None;
        let mut most = i64::MIN;
        let mut sum = 0;
        for (index, turn) in self.turns.iter_mut().enumerate() {
            if !eligible(turn.id) {
                continue;
            }
            turn.credit += turn.weight;
            sum += turn.weight;
            if turn.credit > most {
                most = turn.credit;
                best = Some(index);
            }
        }
        let best = &mut self.turns[best?];
        best.credit -= sum;
        Some(best.id)
    }
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// How many turns may be looked at to find a worker's starting place.
const OFFSET_TURNS_MAX: i64 = 1 << 20;
