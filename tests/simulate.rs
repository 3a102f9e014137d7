//! The promises of the strategies, shown on simulated fleets, and of limits, shown on abuse; and
//! `mahoraga simulate` as a user meets it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use mahoraga::config::{self, Strategy, values};
use mahoraga::simulate::abuse::{self, AbuseOutcome, Protection};
use mahoraga::simulate::{Outcome, Scenario, equal_pool, run};

#[path = "simulate/cli.rs"]
mod cli;

const SEEDS: [u64; 3] = [1, 2, 3];

fn simulate(scenario: &str, pool: &config::Pool, strategy: &str, seed: u64) -> Outcome {
    let scenario = Scenario::named(scenario).unwrap();
    let strategy = values::strategy(strategy).unwrap();
    run(&scenario, pool, &strategy, seed)
}

/// The 99th percentile of waiting, in ms.
fn p99(scenario: &str, strategy: &str, seed: u64) -> f64 {
    simulate(scenario, &equal_pool(), strategy, seed).wait_p99_ms
}

#[test]
fn least_time_sees_a_slow_backend() {
    for seed in SEEDS {
        let blind = p99("slow_backend", "round_robin", seed);
        let seeing = p99("slow_backend", "least_time", seed);
        assert!(seeing * 3.0 <= blind, "{seeing} {blind}");
    }
}

/// Forecasts help where open connections say little about load: with long sessions whose work comes
/// first, on machines that differ. Waiting falls by at least 50% in bursts and 75% in the daily
/// wave.
#[test]
fn predictive_is_ahead_of_least_connections() {
    for (scenario, part) in [("burst", 0.5), ("daily_wave", 0.25)] {
        let counting = p99(scenario, "least_connections", 1);
        let predicting = p99(scenario, "predictive", 1);
        assert!(
            predicting <= part * counting,
            "{scenario}: {predicting} {counting}"
        );
    }
}

/// Where sessions work all the time counting them is right, and forecasts do no worse.
#[test]
fn predictive_counts_sessions_that_work() {
    for seed in SEEDS {
        let counting = p99("busy_sessions", "least_connections", seed);
        let predicting = p99("busy_sessions", "predictive", seed);
        assert!(predicting <= counting, "{predicting} {counting}");
    }
}

/// No strategy gives a backend that accepts and resets more than half again the share of its
/// weight, though it is always free and answers sooner than any other. That holds for `first` too,
/// where it is the first backend: once it fails, it gets its share among those that are not full.
#[test]
fn no_strategy_feeds_a_black_hole() {
    for (name, _) in Strategy::all() {
        let outcome = simulate("black_hole", &equal_pool(), name, 1);
        let fed = outcome.black_hole.unwrap();
        assert!(fed <= 1.5, "{name}: {fed}");
    }
}

/// Clients keep their own subset, or group, while one backend of ten leaves and returns: of all
/// connections from before until after, at least 95% go to the client's own backends.
#[test]
fn two_tiers_keep_clients_where_they_belong() {
    let mut grouped = equal_pool();
    for (nth, backend) in grouped.backends.iter_mut().enumerate() {
        backend.group = Some(format!("g{}", nth / 2));
    }
    for pool in [equal_pool(), grouped] {
        let outcome = simulate("leave_and_return", &pool, "two_tier", 1);
        assert!(outcome.broken > 0, "{outcome:?}");
        assert!(outcome.kept.unwrap() >= 0.95, "{outcome:?}");
    }
}

/// A strategy that follows a client or its key moves few clients besides those of the backend that
/// leaves: a tenth of them is away for less than half of the time, and comes back.
#[test]
fn few_clients_move_when_one_backend_leaves() {
    for (strategy, most) in [("sticky_round_robin", 0.05), ("hash", 0.05)] {
        let outcome = simulate("leave_and_return", &equal_pool(), strategy, 1);
        assert!(outcome.not_as_before <= most, "{outcome:?}");
    }
    let outcome = simulate("leave_and_return", &equal_pool(), "round_robin", 1);
    assert!(outcome.not_as_before > 0.8, "{outcome:?}");
}

/// The reserve follows the day: never fewer backends than the minimum, few decisions, and one turn
/// at each noon and midnight. A part of the machines is enough: waiting is hardly longer than with
/// all.
#[test]
fn a_reserve_follows_the_day_and_never_flaps() {
    for (strategy, seed) in [
        ("least_time", 1),
        ("round_robin", 2),
        ("least_connections", 3),
    ] {
        let outcome = simulate("day_with_reserve", &equal_pool(), strategy, seed);
        let scaled = outcome.scaled.as_ref().unwrap();
        assert_eq!((scaled.in_use_min, outcome.failures), (3, 0), "{scaled:?}");
        assert!(
            scaled.in_use_max >= 9 && scaled.in_use_mean < 8.0,
            "{scaled:?}"
        );
        // Two days, with at most seven joins and seven leaves each.
        assert!((20..=28).contains(&scaled.decisions), "{scaled:?}");
        assert_eq!(scaled.turns, 3, "{scaled:?}");
        let (scarce, all) = (outcome.wait_p99_ms, scaled.all_in_wait_p99_ms);
        assert!(scarce < 1.5 * all, "{strategy}: {scarce} {all}");
    }
}

/// A pool that scales by itself is simulated with its own marks and its own reserve.
#[test]
fn a_pool_scales_by_its_own_marks() {
    let mut pool = equal_pool();
    pool.backends[9].reserve = true;
    pool.scaling = Some(config::Scaling {
        high: 1_000_000,
        low: 0,
        ..config::Scaling::default()
    });
    let outcome = simulate("day_with_reserve", &pool, "round_robin", 1);
    let scaled = outcome.scaled.unwrap();
    assert_eq!((scaled.decisions, scaled.in_use_max), (0, 9));
    assert_eq!(outcome.backends[9].connections, 0);
}

/// What docs/protection.md advises: limits above what the largest address needs refuse no good
/// client, whatever makes an IPv6 source, and leave a twentieth of a flood.
#[test]
fn wide_limits_refuse_abuse_alone() {
    let all = Protection::all();
    let wide = all
        .iter()
        .filter(|its| its.name.starts_with("connections 1500, rate 100"));
    assert_eq!(wide.clone().count(), 5);
    for limits in wide {
        let outcome = abuse::run(limits, 2);
        for crowd in outcome.crowds.iter().filter(|its| its.abuse.is_none()) {
            assert_eq!(crowd.clients_refused, 0, "{}: {}", limits.name, crowd.name);
        }
        assert!(passed(&outcome, "flood") < 0.06, "{}", limits.name);
    }
}

/// A limit of all clients together is taken up by the flood: it refuses good clients.
#[test]
fn a_limit_for_all_refuses_good_clients() {
    let all = Protection::all();
    let for_all = all
        .iter()
        .find(|its| its.source.is_none() && its.listener.is_some());
    let outcome = abuse::run(for_all.unwrap(), 2);
    let homes = &outcome.crowds[0];
    assert!(homes.clients_refused > homes.clients / 2, "{homes:?}");
    assert!(passed(&outcome, "flood") > 0.2);
}

/// The part of a crowd's connections that got through.
fn passed(outcome: &AbuseOutcome, crowd: &str) -> f64 {
    let crowd = outcome.crowds.iter().find(|its| its.name == crowd).unwrap();
    let part = |number: u64| f64::from(u32::try_from(number).unwrap());
    part(crowd.connections - crowd.refused) / part(crowd.connections)
}
