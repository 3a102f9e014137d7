//! The share of each backend.

use super::*;

#[test]
fn round_robin_is_smooth_as_nginx_is() {
    let mut bench = Bench::new(Strategy::RoundRobin, &[5, 1, 1]);
    let picks: Vec<_> = (0..14).map(|_| bench.next()).collect();
    assert_eq!(picks, [0, 0, 1, 0, 2, 0, 0, 0, 0, 1, 0, 2, 0, 0]);
}

#[test]
fn every_round_gives_each_its_weight() {
    let mut bench = Bench::new(Strategy::RoundRobin, &[3, 0, 7, 1, 256]);
    for _ in 0..3 {
        assert_eq!(bench.counts::<5>(267), [3, 0, 7, 1, 256]);
    }
}

#[test]
fn workers_begin_their_rounds_at_other_places() {
    for weight in [1, 256] {
        let pool = Arc::new(Pool::new(&config(
            Strategy::RoundRobin,
            &backends(&[weight; 4]),
        )));
        let first = |worker| {
            let mut selector = selector_of(&pool, worker, 4);
            picked(selector.select(&Request::default()))
        };
        assert_eq!([first(0), first(1), first(2), first(3)], [0, 1, 2, 3]);
    }
}

/// One connection each, as at the start.
#[test]
fn pools_of_the_same_backends_begin_at_other_places() {
    for (name, strategy) in all_by(&[SelectsBy::Turn, SelectsBy::Load, SelectsBy::Chance]) {
        for (pools, backends, workers) in
            [(12, 3, 1), (12, 3, 2), (100, 10, 1), (50, 7, 4), (3, 3, 1)]
        {
            let weights = vec![1; backends];
            let config = config(strategy.clone(), &self::backends(&weights));
            let mut held = vec![0; backends];
            for pool in 0..pools {
                let seat = Seat {
                    worker: u32::try_from(pool % workers).unwrap(),
                    of: u32::try_from(workers).unwrap(),
                    pool,
                    seed: 5,
                };
                let pool = Arc::new(Pool::new(&config));
                let index = picked(selector(&pool, seat).select(&Request::default()));
                held[usize::from(index)] += 1;
            }
            let each = pools / backends as u64;
            let turn = strategy.by() == SelectsBy::Turn;
            let part = if turn { each + each / 2 } else { 2 * each };
            let most = part + 2;
            let max = *held.iter().max().unwrap();
            assert!(max <= most, "{name}, {pools}, {workers}: {held:?}");
        }
    }
}

#[test]
fn chance_differs_between_processes_and_repeats_with_its_seed() {
    for (name, strategy) in Strategy::all() {
        let draws = |seed, worker| {
            let pool = Pool::new(&config(strategy.clone(), &backends(&[1; 16])));
            let seat = Seat {
                worker,
                of: 2,
                pool: 0,
                seed,
            };
            let mut selector = selector(&Arc::new(pool), seat);
            let draw = |_| picked(selector.select(&Request::default()));
            (0..50).map(draw).collect::<Vec<_>>()
        };
        assert_eq!(draws(1, 0), draws(1, 0), "{name}");
        match strategy.by() {
            SelectsBy::Load | SelectsBy::Chance | SelectsBy::Tiers => {
                assert_ne!(draws(1, 0), draws(7, 0), "{name}");
                assert_ne!(draws(1, 0), draws(1, 1), "{name}");
            }
            SelectsBy::Turn | SelectsBy::Order => assert_eq!(draws(1, 0), draws(7, 0), "{name}"),
            SelectsBy::Key => {
                assert_eq!(draws(1, 0), draws(7, 1), "{name}: balancers must agree");
            }
        }
    }
}

#[test]
fn a_round_goes_on_over_snapshots() {
    let mut bench = Bench::new(Strategy::RoundRobin, &[1; 6]);
    let mut counts = [0; 6];
    // As many snapshots as clients, and one backend that comes and goes.
    for turn in 0..300 {
        counts[usize::from(bench.next())] += 1;
        let pool = Arc::new(bench.pool.with(|backend| {
            if backend.name == "b5" {
                backend.health = [Health::Up, Health::Down][turn % 2];
            }
        }));
        let plan = Arc::new(Plan::new(Arc::clone(&pool)));
        bench.selector.follow(plan, ALONE);
        bench.pool = pool;
    }
    assert!(
        counts[..5].iter().all(|count| (45..=65).contains(count)),
        "{counts:?}"
    );
}

#[test]
fn other_weights_do_not_make_a_round_repay_old_credits() {
    let mut bench = Bench::new(Strategy::RoundRobin, &[256, 1]);
    for _ in 0..128 {
        bench.next();
    }
    let pool = Arc::new(bench.pool.with(|backend| backend.weight = 1));
    let plan = Arc::new(Plan::new(Arc::clone(&pool)));
    bench.selector.follow(plan, ALONE);
    bench.pool = pool;
    let picks: Vec<_> = (0..8).map(|_| bench.next()).collect();
    assert!(
        picks
            .windows(4)
            .all(|four| four.contains(&0) && four.contains(&1)),
        "{picks:?}"
    );
}

#[test]
fn hash_gives_a_client_its_backend_and_each_its_share() {
    let mut bench = Bench::new(Strategy::Hash(config::Hash::default()), &[1, 2, 0, 5]);
    for client in 0..1_000 {
        assert_eq!(bench.of_key(client), bench.of_key(client));
    }
    assert_shares(&bench.counts::<4>(80_000), &[1, 2, 0, 5]);
}

#[test]
fn a_backend_that_leaves_a_hash_moves_its_own_clients_and_few_more() {
    let mut bench = Bench::new(Strategy::Hash(config::Hash::default()), &[1; 10]);
    let before: Vec<_> = (0..20_000).map(|client| bench.of_key(client)).collect();
    bench.change(|backend| {
        if backend.name == "b4" {
            backend.health = Health::Down;
        }
    });
    let after: Vec<_> = (0..20_000).map(|client| bench.of_key(client)).collect();
    let moved = before.iter().zip(&after).filter(|(old, new)| old != new);
    let strays = moved.filter(|(old, _)| **old != 4).count();
    assert!(strays <= 20_000 / 10, "{strays} moved without need");
    assert!(!after.contains(&4));
    bench.change(|backend| backend.health = Health::Up);
    let back: Vec<_> = (0..20_000).map(|client| bench.of_key(client)).collect();
    assert_eq!(before, back);
}

#[test]
fn a_full_backends_keys_spread_over_all_others() {
    let mut all = backends(&[1; 5]);
    all[2].max_connections = std::num::NonZeroU32::new(1);
    let mut bench = Bench::of(Strategy::Hash(config::Hash::default()), &all);
    let own: Vec<_> = (0..5_000).filter(|&key| bench.of_key(key) == 2).collect();
    bench.open(2, 1);
    let mut counts = [0; 5];
    for key in own {
        counts[usize::from(bench.of_key(key))] += 1;
    }
    assert_eq!(counts[2], 0);
    let [a, b, _, c, d] = counts;
    assert_shares(&[a, b, c, d], &[1; 4]);
}

#[test]
fn with_max_load_no_backend_has_more_than_its_bound() {
    let strategy = Strategy::Hash(config::Hash {
        key: Key::default(),
        max_load: Some(125),
    });
    let mut bench = Bench::new(strategy, &[1, 1, 2]);
    // One client that sends all requests, then all others.
    for client in (0..600).map(|_| 7).chain(0..600) {
        let index = bench.of_key(client);
        bench.open(index, 1);
        let all = f64::from(bench.pool.connections.used());
        for (backend, part) in bench.pool.backends.iter().zip([0.25, 0.25, 0.5]) {
            let bound = (1.25 * all * part).ceil();
            assert!(f64::from(backend.tally.connections.used()) <= bound);
        }
    }
}

/// The average is over backends that take connections.
#[test]
fn a_bound_leaves_out_drained_backends() {
    let strategy = Strategy::Hash(config::Hash {
        key: Key::default(),
        max_load: Some(125),
    });
    let mut bench = Bench::new(strategy, &[1; 4]);
    bench.open(0, 500);
    bench.change(|backend| {
        if backend.name == "b0" {
            backend.admin = AdminState::Drain;
        }
    });
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
fn least_connections_evens_counts_out_by_weight() {
    let mut bench = Bench::new(Strategy::LeastConnections, &[1, 2, 0, 3]);
    bench.open(0, 30);
    for _ in 0..150 {
        bench.stay();
    }
    let counts = [0, 1, 2, 3].map(|index| bench.backend(index).tally.connections.used());
    assert_eq!(counts, [30, 60, 0, 90]);
    bench.close(1);
    bench.close(1);
    assert_eq!([bench.stay(), bench.stay()], [1, 1]);
}

#[test]
fn equals_are_taken_by_the_chance_of_their_weight() {
    for strategy in [Strategy::LeastConnections, Strategy::Random] {
        let mut bench = Bench::new(strategy, &[1, 2, 0, 5]);
        assert_shares(&bench.counts::<4>(40_000), &[1, 2, 0, 5]);
    }
}

#[test]
fn counts_of_all_workers_are_one() {
    let pool = Arc::new(Pool::new(&config(
        Strategy::LeastConnections,
        &backends(&[1; 8]),
    )));
    let mut workers = [0, 1].map(|worker| selector_of(&pool, worker, 2));
    for turn in 0..80 {
        let index = picked(workers[turn % 2].select(&Request::default()));
        assert!(pool.backends[usize::from(index)].try_acquire(0));
    }
    let used = pool
        .backends
        .iter()
        .map(|backend| backend.tally.connections.used());
    assert!(
        used.clone().all(|used| used == 10),
        "{:?}",
        used.collect::<Vec<_>>()
    );
}

#[test]
fn two_choices_are_nearly_even_and_never_worse_than_chance() {
    let spread = |strategy| {
        let mut bench = Bench::new(strategy, &[1; 100]);
        bench.fill(10_000);
        let used = bench.pool.backends.iter();
        let used: Vec<_> = used.map(|b| b.tally.connections.used()).collect();
        used.iter().max().unwrap() - used.iter().min().unwrap()
    };
    let (two, one) = (spread(Strategy::PowerOfTwo), spread(Strategy::Random));
    assert!(two <= 8 && one >= 30, "{two}, {one}");
}

#[test]
fn two_choices_heed_weights() {
    let mut bench = Bench::new(Strategy::PowerOfTwo, &[1, 2, 5]);
    bench.fill(8_000);
    let used = [0, 1, 2].map(|index| bench.backend(index).tally.connections.used());
    for (used, expected) in used.into_iter().zip([1_000_u32, 2_000, 5_000]) {
        assert!(used.abs_diff(expected) <= 50, "{used} of {expected}");
    }
}

#[test]
fn first_fills_one_after_the_other() {
    let mut all = backends(&[1; 3]);
    for backend in &mut all[..2] {
        backend.max_connections = std::num::NonZeroU32::new(3);
    }
    let mut bench = Bench::of(Strategy::First, &all);
    let picks: Vec<_> = (0..8).map(|_| bench.stay()).collect();
    assert_eq!(picks, [0, 0, 0, 1, 1, 1, 2, 2]);
    bench.close(0);
    assert_eq!([bench.stay(), bench.stay()], [0, 2]);
}

fn least_time() -> Strategy {
    Strategy::LeastTime(LeastTime::default())
}

#[test]
fn least_time_shares_by_speed() {
    let mut bench = Bench::new(least_time(), &[1, 1]);
    bench.answers_each(0, 10 * MS, 10);
    bench.answers_each(1, 30 * MS, 10);
    bench.fill(400);
    let used = [0, 1].map(|index| bench.backend(index).tally.connections.used());
    assert_eq!(used, [300, 100]);
}

#[test]
fn least_time_heeds_weights() {
    let mut bench = Bench::new(least_time(), &[1, 3]);
    for index in [0, 1] {
        bench.answers(index, 10 * MS);
    }
    bench.fill(400);
    assert_eq!(bench.backend(1).tally.connections.used(), 300);
}

#[test]
fn a_new_backend_is_not_flooded() {
    let mut bench = Bench::new(least_time(), &[1; 5]);
    for index in 0..4 {
        bench.answers(index, 10 * MS);
        bench.open(index, 20);
    }
    // Until it has as many connections as the others it gets new ones, like a backend of average
    // speed.
    bench.fill(20);
    assert!((18..=20).contains(&bench.backend(4).tally.connections.used()));
    bench.fill(100);
    assert!((36..=44).contains(&bench.backend(4).tally.connections.used()));
}

#[test]
fn at_low_traffic_the_fast_one_is_preferred_and_the_slow_one_tried_again() {
    let mut bench = Bench::new(least_time(), &[1, 1]);
    bench.answers_each(0, 10 * MS, 3);
    bench.answers_each(1, 300 * MS, 3);
    let mut slow = 0;
    // A connection each second, which ends before the next.
    for _ in 0..600 {
        bench.now += SECOND;
        let index = bench.stay();
        bench.answers(index, if index == 0 { 10 * MS } else { 300 * MS });
        bench.close(index);
        slow += u32::from(index == 1);
    }
    assert!((3..60).contains(&slow), "{slow} of 600");
}

/// Whichever comes first: without this it would seem as good as the unknown ones for ever, and a
/// little better. One late answer changes nothing, the second one does.
#[test]
fn one_client_at_a_time_finds_the_slow_one() {
    for slow in 0..4 {
        let mut bench = Bench::new(least_time(), &[1, 1, 5, 1]);
        let mut visits = Vec::new();
        for _ in 0..60 {
            let index = bench.stay();
            let after = if index == slow { 300 * MS } else { 10 * MS };
            bench.now += after;
            bench.answers(index, after);
            bench.close(index);
            visits.push(index);
        }
        assert!(
            visits[..4].contains(&slow),
            "each is tried once: {visits:?}"
        );
        let met = visits.iter().filter(|index| **index == slow);
        assert!((1..=2).contains(&met.count()), "{slow}: {visits:?}");
    }
}

/// A backend that takes clients and never answers any.
#[test]
fn a_backend_that_stays_silent_is_not_taken_for_a_new_one() {
    let mut bench = Bench::new(least_time(), &[1, 1]);
    let mut silent = 0;
    for _ in 0..50 {
        bench.now += 5 * MS;
        let index = bench.stay();
        if index == 0 {
            bench.answers(index, 10 * MS);
        }
        bench.close(index);
        silent += u32::from(index == 1);
    }
    assert!(silent < 40, "{silent} of 50");
}

#[test]
fn only_one_finds_out_whether_a_slow_backend_has_recovered() {
    let mut bench = Bench::new(least_time(), &[1, 1]);
    bench.answers_each(0, 10 * MS, 3);
    bench.answers_each(1, 300 * MS, 3);
    bench.now += 600 * SECOND;
    bench.answers(0, 10 * MS);
    let first: Vec<_> = (0..10).map(|_| bench.stay()).collect();
    assert_eq!(
        first.iter().filter(|&&index| index == 1).count(),
        1,
        "{first:?}"
    );
}

#[test]
fn predictive_heeds_what_is_foreseen() {
    let foreseen = |load, cost| {
        let mut bench = Bench::new(Strategy::Predictive(config::Predictive::default()), &[1, 1]);
        bench.backend(0).tally.set_outlook(Outlook { load, cost });
        bench.fill(60);
        bench.backend(0).tally.connections.used()
    };
    assert!(foreseen(0.0, 1.0).abs_diff(30) <= 1);
    assert!(
        foreseen(20.0, 1.0).abs_diff(20) <= 1,
        "it will be busy with others"
    );
    assert!(
        foreseen(-10.0, 1.0).abs_diff(35) <= 1,
        "others will leave it"
    );
    assert!(
        foreseen(0.0, 2.0).abs_diff(20) <= 1,
        "each costs it twice as much"
    );
}

/// Clients of a connection pool: they come one by one, are answered at once, and stay.
#[test]
fn connections_that_stay_are_spread_though_one_backend_is_a_little_faster() {
    for strategy in [
        least_time(),
        Strategy::Predictive(config::Predictive::default()),
    ] {
        let mut bench = Bench::new(strategy, &[1; 4]);
        for _ in 0..400 {
            bench.now += 5 * MS;
            let index = bench.stay();
            let time = 10 * MS + u64::from(index) * MS / 10;
            let decay = bench.selector.plan.decay();
            bench
                .backend(index)
                .tally
                .on_answered(time, bench.now, decay);
        }
        for index in 0..4 {
            let used = bench.backend(index).tally.connections.used();
            assert!((85..=115).contains(&used), "{index}: {used}");
        }
    }
}

/// One has hundreds of idle sessions, the other new ones that wait.
#[test]
fn idle_sessions_do_not_outvote_those_that_wait() {
    for strategy in [
        least_time(),
        Strategy::Predictive(config::Predictive::default()),
    ] {
        let mut bench = Bench::new(strategy, &[1, 1]);
        bench.answers(1, 10 * MS);
        for _ in 0..300 {
            bench.open(0, 1);
            let decay = bench.selector.plan.decay();
            bench
                .backend(0)
                .tally
                .on_answered(10 * MS, bench.now, decay);
        }
        bench.fill(20);
        let new = bench.backend(1).tally.connections.used();
        assert!((10..=13).contains(&new), "{new} of 20");
    }
}
