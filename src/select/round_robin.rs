//! Weighted round robin, smooth: backends of weights 5, 1, 1 come as a a b a c a a, never as
//! a a a a a b c.
//!
//! The algorithm is nginx's: at each selection every backend's credit grows by its weight, the one
//! with the most is selected and pays the sum of all weights.

use crate::pool::Pool;

use super::{Request, Seat};

/// The state of one worker's round over a pool.
#[derive(Debug)]
pub struct RoundRobin {
    turns: Vec<Turn>,
}

#[derive(Clone, Copy, Debug)]
struct Turn {
    backend: u16,
    weight: i32,
    credit: i32,
}

impl RoundRobin {
    /// A round over the backends with a weight, begun at the place of this worker: workers that
    /// all began with the first backend would flood it.
    #[must_use]
    pub fn new(pool: &Pool, seat: Seat) -> Self {
        let turns = (0u16..)
            .zip(&pool.backends)
            .filter(|(_, backend)| backend.weight > 0)
            .map(|(backend, b)| Turn {
                backend,
                weight: i32::from(b.weight),
                credit: 0,
            });
        let mut round = Self {
            turns: turns.collect(),
        };
        for _ in 0..round.offset(seat) {
            round.select(Request { tried: &[] });
        }
        round
    }

    /// Selects the next backend that was not tried; among the tried when all were.
    pub fn select(&mut self, request: Request<'_>) -> Option<u16> {
        self.next(|turn| !request.tried.contains(&turn.backend))
            .or_else(|| self.next(|_| true))
    }

    /// One step of the round among the backends that are `eligible`. O(n).
    fn next(&mut self, eligible: impl Fn(&Turn) -> bool) -> Option<u16> {
        let mut best: Option<usize> = None;
        let mut sum = 0;
        for index in 0..self.turns.len() {
            if !eligible(&self.turns[index]) {
                continue;
            }
            self.turns[index].credit += self.turns[index].weight;
            sum += self.turns[index].weight;
            if best.is_none_or(|best| self.turns[index].credit > self.turns[best].credit) {
                best = Some(index);
            }
        }
        let best = &mut self.turns[best?];
        best.credit -= sum;
        Some(best.backend)
    }

    /// Steps that bring this worker to its place, bounded so that a large pool does not delay a
    /// start.
    fn offset(&self, seat: Seat) -> u32 {
        let round: u32 = self
            .turns
            .iter()
            .map(|turn| turn.weight.unsigned_abs())
            .sum();
        (u64::from(round) * u64::from(seat.worker) / u64::from(seat.of.max(1)))
            .min(OFFSET_STEPS_MAX)
            .try_into()
            .unwrap_or(0)
    }
}

const OFFSET_STEPS_MAX: u64 = 1_024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    const FIRST: Seat = Seat { worker: 0, of: 1 };

    fn pool(weights: &[u16]) -> Pool {
        let backend = |(index, weight): (u16, &u16)| config::Backend {
            name: format!("b{index}"),
            weight: *weight,
            ..config::Backend::at(format!("127.0.0.1:{}", 9000 + index).parse().unwrap())
        };
        Pool::new(&config::Pool {
            name: "p".into(),
            strategy: config::Strategy::RoundRobin,
            persist: None,
            backends: (0u16..).zip(weights).map(backend).collect(),
        })
    }

    fn picks(round: &mut RoundRobin, count: usize) -> Vec<u16> {
        (0..count)
            .map(|_| round.select(Request { tried: &[] }).unwrap())
            .collect()
    }

    #[test]
    fn is_smooth_as_nginx_is() {
        let mut round = RoundRobin::new(&pool(&[5, 1, 1]), FIRST);
        assert_eq!(
            picks(&mut round, 14),
            [0, 0, 1, 0, 2, 0, 0, 0, 0, 1, 0, 2, 0, 0]
        );
    }

    #[test]
    fn every_cycle_gives_each_its_weight() {
        let weights = [3, 0, 7, 1, 256];
        let mut round = RoundRobin::new(&pool(&weights), FIRST);
        for _ in 0..3 {
            let picked = picks(&mut round, 267);
            for (backend, weight) in (0u16..).zip(weights) {
                let count = picked.iter().filter(|&&p| p == backend).count();
                assert_eq!(count, usize::from(weight));
            }
        }
    }

    #[test]
    fn workers_begin_at_other_places() {
        let pool = pool(&[1, 1, 1, 1]);
        let first = |worker| {
            let mut round = RoundRobin::new(&pool, Seat { worker, of: 4 });
            picks(&mut round, 1)[0]
        };
        assert_eq!([first(0), first(1), first(2), first(3)], [0, 1, 2, 3]);
    }

    #[test]
    fn tries_another_first_and_the_same_last() {
        let mut round = RoundRobin::new(&pool(&[1, 1, 0]), FIRST);
        for _ in 0..4 {
            assert_eq!(round.select(Request { tried: &[0] }), Some(1));
        }
        assert!(round.select(Request { tried: &[0, 1] }).is_some());
        assert_eq!(
            RoundRobin::new(&pool(&[0]), FIRST).select(Request { tried: &[] }),
            None
        );
    }
}
