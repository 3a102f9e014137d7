//! Slow start: shares and places that grow.

use std::collections::VecDeque;
use std::num::NonZeroU32;

use super::*;
use crate::pool::{SlowStart, Standing};

const OVER: u64 = 100 * SECOND;

/// A pool whose first backend begins its slow start at one second.
fn rising(config: &config::Pool) -> Bench {
    let known = |backend: &config::Backend| Standing {
        slow_start: (backend.name == "b0").then_some(SlowStart {
            since: SECOND,
            over: OVER,
        }),
        ..Standing::default()
    };
    Bench::over(Pool::build(config, None, known))
}

/// The share of the first of `of` equal backends at a time, in percent of its final share: of
/// clients that stay until this many others have come, once the pool has settled.
fn part(strategy: &Strategy, of: u16, held: usize, percent: u64) -> f64 {
    let mut bench = rising(&config(strategy.clone(), &backends(&vec![1; of.into()])));
    for index in 0..of {
        bench.answers(index, 10 * MS);
    }
    let at = SECOND + OVER / 100 * percent;
    let mut open = VecDeque::new();
    let (clients, settling) = (10_000, 5_000);
    let mut fed = 0;
    for client in 0..clients + settling {
        // The clock stands still, but averages fade.
        bench.now = at;
        // A strategy with a key draws by it, others by chance.
        let index = match strategy.key() {
            Some(_) => bench.of_key(client),
            None => bench.next(),
        };
        bench.open(index, 1);
        open.push_back(index);
        if open.len() > held {
            bench.close(open.pop_front().unwrap());
        }
        fed += u32::from(client >= settling && index == 0);
    }
    f64::from(fed) * f64::from(of) / 100.0
}

/// With few and with many connections at a time.
#[test]
fn the_share_grows_evenly_under_every_strategy() {
    for (name, strategy) in Strategy::all() {
        let of = if name == "first" { 1 } else { 10 };
        for held in [0, 10 * 30] {
            for percent in [1, 10, 30, 50, 70, 90, 100] {
                let part = if of == 1 {
                    first(percent)
                } else {
                    part(&strategy, of, held, percent)
                };
                // Beside others at full share: r of 9 + r, by connections; by selections r of 10.
                let off = (part - f64::from(u32::try_from(percent).unwrap())).abs();
                assert!(off <= 10.0, "{name}, {held} held, {percent}%: {part}");
            }
        }
    }
}

/// The first would get everything.
fn first(percent: u64) -> f64 {
    let mut bench = rising(&config(Strategy::First, &backends(&[1; 3])));
    let mut fed = 0;
    for _ in 0..10_000 {
        bench.now = SECOND + OVER / 100 * percent;
        fed += u32::from(bench.next() == 0);
    }
    f64::from(fed) / 100.0
}

#[test]
fn a_client_with_a_key_moves_once_and_on_all_workers() {
    let hash = Strategy::Hash(config::Hash::default());
    let mut bench = rising(&config(hash, &backends(&[1; 5])));
    let mut other = selector(
        &bench.pool,
        Seat {
            worker: 1,
            of: 2,
            pool: 0,
            seed: 0,
        },
    );
    let mut moved = vec![false; 2_000];
    for percent in (0..=100).step_by(5) {
        for client in 0..2_000_u64 {
            bench.now = SECOND + OVER / 100 * percent;
            let index = bench.of_key(client);
            let request = Request {
                now: bench.now,
                keys: Keys {
                    select: crate::hash::mix(client + 1),
                    ..Keys::default()
                },
                tried: &[],
            };
            assert_eq!(picked(other.select(&request)), index);
            let moved = &mut moved[usize::try_from(client).unwrap()];
            assert!(!*moved || index == 0, "to and fro");
            *moved |= index == 0;
        }
    }
}

#[test]
fn a_lone_or_last_untried_backend_takes_clients_in_slow_start() {
    for (name, strategy) in Strategy::all() {
        let mut bench = rising(&config(strategy.clone(), &backends(&[1])));
        assert!((0..100).all(|key| bench.of_key(key) == 0), "{name}");
        let mut bench = rising(&config(strategy, &backends(&[1, 1])));
        for _ in 0..100 {
            let choice = bench.select(Keys::default(), &[1]);
            assert_eq!(choice, Choice::Backend(0), "{name}");
        }
    }
}

#[test]
fn a_backup_does_not_take_what_a_rising_backend_leaves() {
    for (name, strategy) in Strategy::all() {
        let mut all = backends(&[1, 1]);
        all[1].backup = true;
        let mut bench = rising(&config(strategy, &all));
        assert!((0..100).all(|key| bench.of_key(key) == 0), "{name}");
    }
}

#[test]
fn known_clients_go_to_a_rising_backend_unthinned() {
    let mut config = config(Strategy::RoundRobin, &backends(&[1; 5]));
    config.persist = Some(Persist {
        ttl: Duration::from_secs(1_000),
        ..Persist::default()
    });
    let before = Bench::with(config.clone());
    let keys = Keys {
        select: 0,
        persist: 9,
        source: 9,
    };
    before
        .selector
        .plan
        .on_left(before.backend(0), &keys, before.now);
    let known = |_: &config::Backend| Standing {
        slow_start: Some(SlowStart {
            since: SECOND,
            over: OVER,
        }),
        ..Standing::default()
    };
    let mut bench = Bench::over(Pool::build(&config, Some(&before.pool), known));
    assert!((0..100).all(|_| bench.select(keys, &[]) == Choice::Backend(0)));
}

#[test]
fn places_grow_with_the_share_and_are_exact() {
    for (name, strategy) in Strategy::all() {
        let mut all = backends(&[1]);
        all[0].max_connections = NonZeroU32::new(50);
        let mut bench = rising(&config(strategy, &all));
        for (percent, places) in [(0, 1), (1, 1), (3, 2), (50, 25), (99, 50), (100, 50)] {
            bench.now = SECOND + OVER / 100 * percent;
            let used = bench.backend(0).tally.connections.used();
            let now = bench.now;
            let taken = (used..100).take_while(|_| bench.backend(0).try_acquire(now));
            assert_eq!(
                used as usize + taken.count(),
                places,
                "{name} at {percent}%"
            );
            // The clock goes on by a millisecond, which adds no place.
            assert_eq!(bench.select(Keys::default(), &[]), Choice::Full, "{name}");
        }
    }
}
