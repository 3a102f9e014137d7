//! Backends that failed too often, and pools that are full.

use std::num::NonZeroU32;

use super::*;
use crate::config::{AllDown, Ejection};

/// A pool that ejects, whatever share of it.
fn ejecting(strategy: Strategy, backends: &[config::Backend]) -> config::Pool {
    config::Pool {
        ejection: Some(Ejection {
            share: 100,
            ..Ejection::default()
        }),
        ..config(strategy, backends)
    }
}

fn eject(bench: &Bench, indices: &[u16]) {
    for &index in indices {
        assert!((0..5).any(|_| bench.backend(index).on_failed()));
    }
}

#[test]
fn an_ejected_backend_gets_nothing_on_any_worker_until_readmitted() {
    for (name, strategy) in Strategy::all() {
        let pool = Arc::new(Pool::new(&ejecting(strategy, &backends(&[1; 4]))));
        let mut bench = Bench::of(Strategy::Random, &backends(&[1]));
        bench.selector = selector(&pool, ALONE);
        bench.pool = Arc::clone(&pool);
        let mut other = selector_of(&pool, 1, 2);
        let mut met = |bench: &mut Bench, client: u64| {
            let keys = Keys {
                select: crate::hash::mix(client),
                ..Keys::default()
            };
            let request = Request {
                now: bench.now,
                keys,
                tried: &[],
            };
            [bench.of_key(client), picked(other.select(&request))]
        };
        for client in 0..100 {
            let failed = met(&mut bench, client).contains(&0) && bench.backend(0).on_failed();
            assert_eq!(failed, bench.backend(0).tally.is_ejected(), "{name}");
            if failed {
                break;
            }
        }
        if !bench.backend(0).tally.is_ejected() {
            eject(&bench, &[0]);
        }
        for client in 0..500 {
            assert!(!met(&mut bench, client).contains(&0), "{name}");
        }
        assert!(bench.backend(0).readmit());
        let back = (500..1_000).filter(|&client| met(&mut bench, client).contains(&0));
        assert!(back.count() > 0, "{name}");
    }
}

#[test]
fn an_ejected_backends_keys_go_on_by_their_own_sequence() {
    let hash = Strategy::Hash(config::Hash::default());
    let mut bench = Bench::with(ejecting(hash, &backends(&[1; 5])));
    let before: Vec<_> = (0..5_000).map(|key| bench.of_key(key)).collect();
    eject(&bench, &[2]);
    let mut counts = [0; 5];
    for (key, &before) in (0..).zip(&before) {
        let after = bench.of_key(key);
        if before == 2 {
            counts[usize::from(after)] += 1;
        } else {
            assert_eq!(after, before, "no other client moves");
        }
    }
    let [a, b, none, c, d] = counts;
    assert_eq!(none, 0);
    assert_shares(&[a, b, c, d], &[1; 4]);
    bench.backend(2).readmit();
    let back: Vec<_> = (0..5_000).map(|key| bench.of_key(key)).collect();
    assert_eq!(before, back);
}

/// The average is over backends that take connections.
#[test]
fn a_bound_leaves_out_ejected_backends() {
    let strategy = Strategy::Hash(config::Hash {
        key: Key::default(),
        max_load: Some(125),
    });
    let mut bench = Bench::with(ejecting(strategy, &backends(&[1; 4])));
    bench.open(0, 500);
    eject(&bench, &[0]);
    for _ in 0..300 {
        let index = bench.of_key(7);
        bench.open(index, 1);
    }
    for index in 1..4 {
        let used = bench.backend(index).tally.connections.used();
        assert!(used <= 126, "{index}: {used} of 300");
    }
}

#[test]
fn a_client_of_an_ejected_backend_moves_and_stays_moved() {
    let mut config = ejecting(Strategy::RoundRobin, &backends(&[1; 5]));
    config.persist = Some(Persist::default());
    let mut bench = Bench::with(config);
    let own = bench.of_key(1);
    eject(&bench, &[own]);
    let next = bench.of_key(1);
    assert_ne!(next, own);
    bench.backend(own).readmit();
    assert_eq!(bench.of_key(1), next);
}

/// The control thread does not know of it yet.
#[test]
fn where_all_are_ejected_the_pool_does_as_configured() {
    for (name, strategy) in Strategy::all() {
        for (all_down, open) in [(AllDown::Open, true), (AllDown::Closed, false)] {
            let mut config = ejecting(strategy.clone(), &backends(&[1, 1, 1]));
            config.all_down = Some(all_down);
            let mut bench = Bench::with(config);
            eject(&bench, &[0, 1, 2]);
            let choice = bench.select(Keys::default(), &[0, 1, 2]);
            assert_eq!(matches!(choice, Choice::Backend(_)), open, "{name}");
            assert_eq!(choice == Choice::Unavailable, !open, "{name}");
        }
    }
}

/// The backend that answers was ejected before.
#[test]
fn after_a_failed_attempt_an_ejected_backend_comes_before_one_that_was_tried() {
    for (name, strategy) in Strategy::all() {
        for count in [2, 3, 10] {
            for all_down in [AllDown::Open, AllDown::Closed] {
                let mut config = ejecting(strategy.clone(), &backends(&vec![1; count]));
                config.all_down = Some(all_down);
                let mut bench = Bench::with(config);
                eject(&bench, &[0]);
                let mut tried = Vec::new();
                for _ in 1..count {
                    let next = picked(bench.select(Keys::default(), &tried));
                    assert!(next != 0 && !tried.contains(&next), "{name}: {tried:?}");
                    tried.push(next);
                }
                let last = bench.select(Keys::default(), &tried);
                assert_eq!(last, Choice::Backend(0), "{name}");
                tried.push(0);
                let again = picked(bench.select(Keys::default(), &tried));
                assert_ne!(again, 0, "{name}: those in rotation first");
            }
        }
    }
}

/// The probes have not noticed yet that the backend is back.
#[test]
fn after_a_failed_attempt_one_that_is_down_is_tried_where_the_pool_fails_open() {
    for (name, strategy) in Strategy::all() {
        for (all_down, then) in [(AllDown::Open, 1), (AllDown::Closed, 0)] {
            let mut config = config(strategy.clone(), &backends(&[1, 1, 1]));
            config.all_down = Some(all_down);
            let mut bench = Bench::with(config);
            bench.change(|backend| match backend.name.as_str() {
                "b1" => backend.health = Health::Down,
                "b2" => backend.admin = AdminState::Drain,
                _ => {}
            });
            assert_eq!(bench.next(), 0, "{name}");
            assert_eq!(picked(bench.select(Keys::default(), &[0])), then, "{name}");
            let again = picked(bench.select(Keys::default(), &[0, 1]));
            assert_eq!(again, 0, "{name}");
        }
    }
}

/// Nine of ten refuse, and are not ejected yet.
#[test]
fn a_failed_attempt_is_followed_by_one_on_a_backend_that_has_not_failed() {
    for (name, strategy) in Strategy::all() {
        let mut bench = Bench::new(strategy, &[1; 10]);
        for index in (0..10).filter(|index| *index != 7) {
            bench.backend(index).on_unreached();
        }
        for key in 0..50 {
            let keys = Keys {
                select: crate::hash::mix(key),
                ..Keys::default()
            };
            let first = u16::try_from(key % 7).unwrap();
            let choice = bench.select(keys, &[first]);
            assert_eq!(choice, Choice::Backend(7), "{name}");
        }
    }
}

#[test]
fn an_ejected_backend_is_used_where_the_pool_panics() {
    for (name, strategy) in Strategy::all() {
        let config = ejecting(strategy, &backends(&[1, 1, 1]));
        let mut bench = Bench::with(config.clone());
        eject(&bench, &[0, 1]);
        assert!((0..50).all(|key| bench.of_key(key) == 2), "{name}");
        let standing = |_: &config::Backend| crate::pool::Standing::default();
        let next = Pool::build(&config, Some(&bench.pool), standing);
        assert!(next.panic, "a third is usable");
        let mut bench = Bench::over(next);
        let met = (0..200).map(|key| bench.of_key(key)).any(|one| one != 2);
        assert!(met, "{name}");
    }
}

#[test]
fn a_full_pool_is_full_though_its_backends_are_not() {
    for (name, strategy) in Strategy::all() {
        for persist in [None, Some(Persist::default())] {
            let mut config = config(strategy.clone(), &backends(&[1, 1]));
            config.max_connections = NonZeroU32::new(3);
            config.persist = persist;
            let mut bench = Bench::with(config);
            for client in 0..3 {
                let index = bench.of_key(client);
                bench.open(index, 1);
            }
            assert_eq!(bench.select(Keys::default(), &[]), Choice::Full, "{name}");
            let index = u16::from(bench.backend(0).tally.connections.used() == 0);
            assert!(!bench.backend(index).try_acquire(bench.now), "{name}");
            bench.close(index);
            assert!(matches!(
                bench.select(Keys::default(), &[]),
                Choice::Backend(_)
            ));
        }
    }
}

#[test]
fn a_backend_in_reserve_gets_nothing() {
    for (name, strategy) in Strategy::all() {
        let all = backends(&[1; 3]);
        let known = |backend: &config::Backend| crate::pool::Standing {
            standby: backend.name == "b1",
            ..Default::default()
        };
        let mut bench = Bench::over(Pool::build(&config(strategy, &all), None, known));
        assert!((0..200).all(|key| bench.of_key(key) != 1), "{name}");
    }
}
