//! Properties of every strategy.

use fastrand::Rng;

use super::*;
use crate::config::AllDown;

#[test]
fn a_backend_that_is_out_full_or_tried_is_not_selected_while_another_is_open() {
    for (name, strategy) in Strategy::all() {
        for seed in 0..200 {
            let mut rng = Rng::with_seed(seed);
            let pool = random_pool(&strategy, &mut rng);
            let mut bench = Bench::over(pool);
            for _ in 0..20 {
                let count = u16::try_from(bench.pool.backends.len()).unwrap();
                let tried: Vec<_> = (0..rng.usize(0..3)).map(|_| rng.u16(0..count)).collect();
                let keys = Keys {
                    select: rng.u64(..),
                    persist: rng.u64(0..5),
                    source: rng.u64(0..5),
                };
                let choice = bench.select(keys, &tried);
                check(&bench, choice, &tried, name);
                if !tried.is_empty() {
                    check_untried(&bench, choice, &tried, name);
                }
                if let Choice::Backend(index) = choice {
                    bench.open(index, 1);
                    if rng.u8(..) < 40 {
                        bench.backend(index).on_failed();
                    }
                }
            }
        }
    }
}

fn check(bench: &Bench, choice: Choice, tried: &[u16], name: &str) {
    let backends = || (0u16..).zip(&bench.pool.backends);
    let reachable =
        |backend: &Arc<Backend>| bench.pool.reachable().any(|one| Arc::ptr_eq(one, backend));
    let rotating = || backends().filter(|(_, backend)| reachable(backend));
    let full = bench.pool.is_full();
    let open = || rotating().filter(|(_, backend)| !full && !backend.is_full(bench.now));
    let fresh = || open().filter(|(index, _)| !tried.contains(index));
    match choice {
        Choice::Backend(index) if !open().any(|(other, _)| other == index) => {
            let last_resort = bench.backend(index);
            assert!(!full && !last_resort.is_full(bench.now), "{name}: full");
            let down = !last_resort.is_in_rotation();
            let open_to_down = bench.pool.config.fails_open();
            assert!(last_resort.is_ready() && (!down || open_to_down), "{name}");
            assert!(!tried.is_empty() && fresh().next().is_none(), "{name}");
        }
        Choice::Backend(index) => {
            let repeated = tried.contains(&index) && fresh().next().is_some();
            assert!(!repeated, "{name}: tried again");
            let backup = bench.backend(index).backup;
            let main = || fresh().any(|(_, backend)| !backend.backup);
            assert!(
                !backup || !main() || bench.pool.persist.is_some(),
                "{name}: a backup"
            );
        }
        Choice::Full => {
            assert!(bench.pool.places(bench.now) == 0, "{name}");
            assert!(
                rotating().next().is_some() && open().next().is_none(),
                "{name}: not full"
            );
        }
        Choice::Unavailable => assert!(
            rotating().next().is_none(),
            "{name}: a backend is reachable"
        ),
    }
}

/// After a failed attempt no client is lost, and none goes back, while some backend may take it
/// that it has not tried: ejected, down where the pool fails open, or both.
fn check_untried(bench: &Bench, choice: Choice, tried: &[u16], name: &str) {
    let pool = &bench.pool;
    let may_take = |backend: &Backend| {
        let down = !backend.is_in_rotation();
        backend.is_ready() && !backend.is_full(bench.now) && (!down || pool.config.fails_open())
    };
    let all = (0u16..).zip(&pool.backends);
    let mut untried = all.filter(|(index, backend)| !tried.contains(index) && may_take(backend));
    let in_vain = !matches!(choice, Choice::Backend(index) if !tried.contains(&index));
    if in_vain && !pool.is_full() {
        let left = untried.next().map(|(index, _)| index);
        assert_eq!(left, None, "{name}: {choice:?} after {tried:?}");
    }
}

fn random_pool(strategy: &Strategy, rng: &mut Rng) -> Pool {
    let weights: Vec<_> = (0..rng.usize(1..8)).map(|_| rng.u16(0..4)).collect();
    let mut all = backends(&weights);
    for backend in &mut all {
        backend.backup = rng.u8(..) < 60;
        backend.max_connections = std::num::NonZeroU32::new(rng.u32(0..6));
    }
    let mut config = config(strategy.clone(), &all);
    config.persist = rng.bool().then(Persist::default);
    config.max_connections = std::num::NonZeroU32::new([0, 0, 12][rng.usize(0..3)]);
    config.ejection = rng.bool().then(|| config::Ejection {
        failures: rng.u32(1..4),
        share: rng.u8(0..=100),
        ..config::Ejection::default()
    });
    if rng.bool() {
        config.all_down = Some(AllDown::Closed);
    }
    Pool::new(&config).with(|backend| {
        backend.standby = rng.u8(..) < 30;
        backend.slow_start = (rng.u8(..) < 60).then(|| crate::pool::SlowStart {
            since: SECOND,
            over: rng.u64(1..40) * MS,
        });
        let states = [
            AdminState::Ready,
            AdminState::Ready,
            AdminState::Drain,
            AdminState::Maint,
        ];
        backend.admin = states[rng.usize(0..4)];
        backend.health = if rng.u8(..) < 60 {
            Health::Down
        } else {
            Health::Up
        };
    })
}

#[test]
fn when_all_backends_are_full_the_choice_is_full() {
    for (name, strategy) in Strategy::all() {
        let mut all = backends(&[1, 2]);
        all[1].backup = true;
        for backend in &mut all {
            backend.max_connections = std::num::NonZeroU32::new(1);
        }
        let mut bench = Bench::of(strategy, &all);
        assert_eq!([bench.stay(), bench.stay()], [0, 1], "{name}");
        for tried in [&[][..], &[0], &[0, 1]] {
            assert_eq!(bench.select(Keys::default(), tried), Choice::Full, "{name}");
        }
        bench.close(1);
        assert_eq!(bench.stay(), 1, "{name}");
    }
}

#[test]
fn a_pool_without_usable_backends_selects_none() {
    for (name, strategy) in Strategy::all() {
        let mut bench = Bench::new(strategy, &[1, 1]);
        bench.change(|backend| backend.admin = AdminState::Drain);
        assert_eq!(
            bench.select(Keys::default(), &[]),
            Choice::Unavailable,
            "{name}"
        );
    }
}

#[test]
fn the_only_backend_is_tried_again() {
    for (name, strategy) in Strategy::all() {
        let mut bench = Bench::new(strategy, &[1, 1]);
        for _ in 0..20 {
            assert_eq!(
                bench.select(Keys::default(), &[0]),
                Choice::Backend(1),
                "{name}"
            );
        }
        assert!(
            matches!(bench.select(Keys::default(), &[0, 1]), Choice::Backend(_)),
            "{name}"
        );
    }
}

/// A backend that accepts and resets is always free and always fast.
#[test]
fn a_black_hole_gets_no_more_than_its_share() {
    for (name, strategy) in Strategy::all() {
        let mut bench = Bench::new(strategy, &[1; 5]);
        let mut fed = 0;
        let mut held = std::collections::VecDeque::new();
        for client in 0..5_000 {
            let index = bench.of_key(client);
            if index == 0 {
                fed += 1;
                bench.backend(0).on_failed();
                continue;
            }
            bench.open(index, 1);
            bench.answers(index, 10 * MS);
            held.push_back(index);
            if held.len() > 40 {
                bench.close(held.pop_front().unwrap());
            }
        }
        assert!(fed <= 5_000 / 5 * 3 / 2, "{name}: {fed}");
    }
}

#[test]
fn a_failing_backend_that_answers_again_is_one_of_all() {
    let mut bench = Bench::new(Strategy::LeastConnections, &[1; 4]);
    bench.backend(2).on_failed();
    bench.answers(2, MS);
    bench.fill(40);
    assert_eq!(bench.backend(2).tally.connections.used(), 10);
}

/// Clients hang at it until their connect timeout, so that it is never free.
#[test]
fn a_failing_backend_that_holds_its_clients_gets_no_more() {
    for (name, strategy) in all_by(&[SelectsBy::Load]) {
        let mut bench = Bench::new(strategy, &[1; 5]);
        for index in 0..5 {
            bench.answers(index, 10 * MS);
            bench.open(index, 10);
        }
        bench.open(0, 500);
        bench.backend(0).on_failed();
        let counts = bench.counts::<5>(2_000);
        assert_eq!(counts[0], 0, "{name}: {counts:?}");
    }
}

#[test]
fn where_all_fail_the_load_still_counts() {
    let mut bench = Bench::new(Strategy::LeastConnections, &[1; 4]);
    bench.open(0, 100);
    for index in 0..4 {
        bench.backend(index).on_failed();
    }
    bench.fill(300);
    let used = [0, 1, 2, 3].map(|index| bench.backend(index).tally.connections.used());
    assert_eq!(used, [100; 4]);
}

/// The last ones are off: to have tried them once must not bring them clients.
#[test]
fn first_gives_nothing_to_later_ones_that_failed() {
    let mut bench = Bench::new(Strategy::First, &[1; 4]);
    bench.backend(3).on_failed();
    assert_eq!(bench.counts::<4>(500), [500, 0, 0, 0]);
}

/// All have failed once; one of them never answers, and frees its connections at once.
#[test]
fn where_all_fail_a_black_hole_is_not_the_favourite() {
    for strategy in [Strategy::LeastConnections, Strategy::PowerOfTwo] {
        let mut bench = Bench::new(strategy, &[1; 3]);
        for index in 0..3 {
            bench.backend(index).on_failed();
        }
        bench.open(1, 100);
        bench.open(2, 100);
        let mut fed = 0;
        for _ in 0..100 {
            if bench.next() == 0 {
                fed += 1;
                bench.backend(0).on_failed();
            }
        }
        assert!(fed <= 50, "{fed}");
    }
}
