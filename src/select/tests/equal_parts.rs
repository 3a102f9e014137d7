//! Equal backends get equal parts of the connections that stay, whatever noise is in their answers.

use fastrand::Rng;

use super::*;
use crate::time::nanos;

/// The arrival of clients, and the behaviour of backends.
#[derive(Clone, Copy, Debug)]
struct Case {
    backends: u16,
    /// Connections for each of them.
    each: u32,
    /// All clients of a burst come before any of them is answered; 1: one by one.
    burst: u32,
    answered: bool,
    workers: u32,
    /// The time between bursts at most, in ns.
    gap: u64,
    /// How many of 65,536 bursts meet a stall.
    stalls: u16,
    /// The machine is busy, and then is not, for so long at most, in ns: answers take 2 to 30
    /// times as long.
    busy: u64,
    /// A session that ends, with any number of bytes, comes after each burst.
    short: bool,
}

/// No backend has more than this many.
fn most(each: u32) -> u32 {
    each + each / 2 + 2
}

/// A round trip within a rack, some of them many times as long: in ns.
fn noisy(rng: &mut Rng) -> u64 {
    let usual = 150e-6 - 100e-6 * rng.f64().max(1e-9).ln();
    let late = match rng.u8(..) {
        0..8 => 30e-3 * rng.f64(),
        8..30 => 3e-3 * rng.f64(),
        _ => 0.0,
    };
    nanos(Duration::from_secs_f64(usual + late))
}

/// The connections of each backend in the end.
fn held(strategy: &Strategy, case: Case, seed: u64) -> Vec<u32> {
    let mut rng = Rng::with_seed(seed);
    let weights = vec![1; case.backends.into()];
    let pool = Arc::new(Pool::new(&config(strategy.clone(), &backends(&weights))));
    let seat = |worker| Seat {
        worker,
        of: case.workers,
        pool: 0,
        seed,
    };
    let workers = 0..case.workers;
    let mut workers: Vec<_> = workers
        .map(|worker| selector(&pool, seat(worker)))
        .collect();
    let decay = workers[0].plan.decay();
    let mut forecaster = strategy.looks_ahead().map(Forecaster::new);
    let mut now = SECOND;
    let mut ticks_at = now;
    let mut left = u32::from(case.backends) * case.each;
    let (mut phase_ends_at, mut slowness) = (0, 1);
    while left > 0 {
        if case.busy > 0 && now >= phase_ends_at {
            phase_ends_at = now + rng.u64(0..case.busy);
            slowness = if slowness == 1 { rng.u64(2..30) } else { 1 };
        }
        let burst = case.burst.min(left);
        left -= burst;
        // One of the backends stalls now and then, for all that wait for it.
        let stalled = (rng.u16(..) < case.stalls).then(|| (rng.u16(0..case.backends), 40 * MS));
        let mut answers = Vec::new();
        for _ in 0..burst + u32::from(case.short) {
            let worker = rng.usize(0..workers.len());
            let request = Request {
                now,
                ..Request::default()
            };
            let index = picked(workers[worker].select(&request));
            assert!(pool.backends[usize::from(index)].try_acquire(now));
            let stall = stalled.filter(|(stalled, _)| *stalled == index);
            let stall = stall.map_or(0, |(_, stall)| stall);
            let answer = (slowness * noisy(&mut rng)).min(40 * MS);
            answers.push((answer.max(stall), index));
        }
        answers.sort_unstable();
        for (after, index) in answers.iter().filter(|_| case.answered) {
            let tally = &pool.backends[usize::from(*index)].tally;
            tally.on_answered(*after, now + after, decay);
        }
        now += answers.last().map_or(0, |(after, _)| *after) + rng.u64(0..case.gap);
        if let Some((_, index)) = answers.last().filter(|_| case.short) {
            pool.backends[usize::from(*index)].release(Ended {
                waiting: !case.answered,
                in_use: 0,
                bytes: 1 << rng.u8(5..25),
            });
        }
        while ticks_at <= now {
            if let Some(forecaster) = &mut forecaster {
                forecaster.tick(&pool, ticks_at);
            }
            ticks_at += SECOND;
        }
    }
    let backends = pool.backends.iter();
    backends.map(|one| one.tally.connections.used()).collect()
}

/// Checks the case with so many seeds.
fn assert_equal_parts(name: &str, strategy: &Strategy, case: Case, seeds: u64) {
    for seed in 0..seeds {
        let held = held(strategy, case, seed);
        let max = held.iter().max().unwrap();
        assert!(
            *max <= most(case.each),
            "{name}, {case:?}, {seed}: {held:?}"
        );
    }
}

#[test]
fn equal_backends_get_equal_parts_of_the_connections_that_stay() {
    for (name, strategy) in all_by(&[SelectsBy::Turn, SelectsBy::Load]) {
        for backends in [2, 3, 10, 100_u16] {
            for each in [1, 3, 10, 30_u32] {
                for (burst, answered, workers) in [
                    (1, false, 1),
                    (1, true, 1),
                    (1, true, 2),
                    (u32::from(backends) * each, true, 2),
                    (u32::from(backends) * 2, true, 2),
                    (u32::from(backends) * 2, false, 2),
                    (17, true, 1),
                ] {
                    let case = Case {
                        backends,
                        each,
                        burst,
                        answered,
                        workers,
                        gap: 2 * MS,
                        stalls: 5_000,
                        busy: 0,
                        short: false,
                    };
                    let seeds = if backends < 100 { 12 } else { 1 };
                    assert_equal_parts(name, &strategy, case, seeds);
                }
            }
        }
    }
}

/// Over seconds and minutes costs are learned and loads forecast, from noise alone.
#[test]
fn equal_backends_get_equal_parts_of_the_connections_that_come_slowly() {
    for (name, strategy) in all_by(&[SelectsBy::Turn, SelectsBy::Load]) {
        for (backends, each, gap) in [
            (2, 40, 200 * MS),
            (2, 15, SECOND),
            (3, 30, 500 * MS),
            (10, 10, 200 * MS),
            (10, 10, 2 * SECOND),
            (100, 5, 50 * MS),
        ] {
            // Short sessions take turns of a round.
            let short = strategy.by() == SelectsBy::Load;
            for (workers, short, busy) in [
                (1, false, 0),
                (2, false, 0),
                (1, short, 0),
                (1, false, 20 * MS),
                (1, false, 4 * SECOND),
            ] {
                let case = Case {
                    backends,
                    each,
                    burst: 1,
                    answered: true,
                    workers,
                    gap,
                    stalls: 1_000,
                    busy,
                    short,
                };
                let seeds = if backends < 100 { 40 } else { 2 };
                assert_equal_parts(name, &strategy, case, seeds);
            }
        }
    }
}
