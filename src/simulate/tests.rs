//! Whole simulations: the same seed gives the same outcome, and no session is lost.

use std::time::Duration;

use super::*;
use crate::time::SECOND;

/// A scenario cut down to some seconds.
fn short(scenario: Scenario, seconds: u64) -> Scenario {
    Scenario {
        warm_up: SECOND,
        end: seconds * SECOND,
        ..scenario
    }
}

fn of(scenario: &Scenario, strategy: &Strategy) -> Outcome {
    run(scenario, &equal_pool(), strategy, 1)
}

#[test]
fn the_same_seed_has_the_same_outcome() {
    let outage = Outage {
        from: 2 * SECOND,
        until: 4 * SECOND,
        detection: SECOND,
    };
    let scenario = Scenario {
        outage: Some(outage),
        ..short(Scenario::heavy_tail(), 6)
    };
    for (_, strategy) in Strategy::all() {
        let run = |seed| json(&[run(&scenario, &equal_pool(), &strategy, seed)]);
        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));
    }
}

#[test]
fn every_strategy_meets_the_same_clients() {
    let scenario = short(Scenario::equal(), 5);
    let outcomes = Strategy::all().map(|(_, strategy)| of(&scenario, &strategy));
    for outcome in &outcomes {
        assert_eq!(outcome.connections, outcomes[0].connections);
        assert_eq!(outcome.failures, 0);
        let connected = outcome.backends.iter().map(|backend| backend.connections);
        assert_eq!(connected.sum::<u64>(), outcome.connections);
    }
}

#[test]
fn loads_come_as_they_are_asked_for() {
    for (scenario, want) in [
        (Scenario::equal(), 0.8),
        (Scenario::slow_backend(), 0.7),
        (Scenario::leave_and_return(), 0.7),
    ] {
        let load = of(&scenario, &Strategy::LeastConnections).load;
        assert!((load - want).abs() < 0.05, "{} {load}", scenario.name);
    }
}

#[test]
fn weights_are_capacities() {
    let mut pool = equal_pool();
    for (backend, weight) in pool.backends.iter_mut().zip([200, 100].into_iter().cycle()) {
        backend.weight = weight;
    }
    pool.backends[9].weight = 0;
    pool.backends[8].backup = true;
    let scenario = short(Scenario::equal(), 10);
    let outcome = run(&scenario, &pool, &Strategy::RoundRobin, 1);
    assert!(outcome.imbalance < 1.1, "{outcome:?}");
    assert_eq!(outcome.backends[8].connections, 0);
    assert_eq!(outcome.backends[9].connections, 0);
    let ratio = chance::share(
        outcome.backends[0].connections,
        outcome.backends[1].connections,
    );
    assert!((1.95..2.05).contains(&ratio), "{ratio}");
}

#[test]
fn clients_that_find_all_full_wait_and_then_give_up() {
    let mut pool = equal_pool();
    for backend in &mut pool.backends {
        backend.max_connections = NonZeroU32::new(10);
    }
    // About 64 sessions would be open at a backend.
    let outcome = run(
        &short(Scenario::equal(), 20),
        &pool,
        &Strategy::RoundRobin,
        1,
    );
    assert!(outcome.failures > outcome.connections / 4, "{outcome:?}");
    let connected = outcome.backends.iter().map(|backend| backend.connections);
    assert_eq!(
        connected.sum::<u64>() + outcome.failures,
        outcome.connections
    );
}

#[test]
fn clients_that_find_no_backend_fail_at_once() {
    let mut pool = equal_pool();
    pool.backends.truncate(1);
    let scenario = Scenario {
        outage: Some(Outage {
            from: 2 * SECOND,
            until: 100 * SECOND,
            detection: SECOND,
        }),
        ..short(Scenario::equal(), 5)
    };
    let outcome = run(
        &scenario,
        &pool,
        &Strategy::LeastTime(Default::default()),
        1,
    );
    // Connects are refused until the workers learn of it, and are not begun afterwards.
    let refused = outcome.backends[0].refused;
    assert!(refused > 0 && outcome.failures > refused / 3, "{outcome:?}");
    assert!(outcome.broken > 0);
}

#[test]
fn sticky_clients_stay_and_return() {
    let outcome = of(
        &short(Scenario::equal(), 10),
        &Strategy::StickyRoundRobin(Default::default()),
    );
    assert!(
        outcome.returning > 1_000 && outcome.not_as_before < 1e-9,
        "{outcome:?}"
    );
}

#[test]
fn two_tiers_take_the_groups_that_backends_name() {
    let mut pool = equal_pool();
    for (nth, backend) in pool.backends.iter_mut().enumerate() {
        backend.group = Some(format!("g{}", nth / 2));
    }
    let tiers = Strategy::TwoTier(Default::default());
    let prepared = prepare(&Scenario::equal(), &pool, &tiers);
    let groups = prepared.groups();
    let groups: Vec<_> = groups
        .iter()
        .map(|group| (&*group.name, group.weight))
        .collect();
    assert_eq!(
        groups,
        [("g0", 2), ("g1", 2), ("g2", 2), ("g3", 2), ("g4", 2)]
    );
    let outcome = run(&short(Scenario::equal(), 5), &pool, &tiers, 1);
    assert_eq!(outcome.kept, Some(1.0));
}

#[test]
fn own_settings_hold_for_the_own_strategy() {
    let mut pool = equal_pool();
    let own = Strategy::Hash(config::Hash {
        max_load: Some(125),
        ..Default::default()
    });
    pool.strategy = own.clone();
    let hash = Strategy::Hash(Default::default());
    let day = Duration::from_secs(300);
    let wave = Scenario::daily_wave();
    assert_eq!(prepare(&wave, &pool, &hash).strategy, own);
    let predictive = Strategy::Predictive(Default::default());
    let prepared = prepare(&wave, &pool, &predictive).strategy;
    assert!(
        matches!(prepared, Strategy::Predictive(settings) if settings.season == Some(day)),
        "{prepared:?}"
    );
    pool.strategy = Strategy::StickyRoundRobin(Default::default());
    assert_eq!(prepare(&wave, &pool, &hash).persists(), None);
}

#[test]
fn every_fifth_second_is_reported() {
    let mut times = Vec::new();
    let mut note = |plan: &Plan, now| {
        times.push((plan.pool().name.clone(), now / SECOND));
        None
    };
    let pool = Pool::new(&equal_pool());
    let _ = Engine::new(&short(Scenario::equal(), 3), pool, 1, &mut note).run();
    let want: Vec<_> = (0..=3).map(|second| ("equal".to_owned(), second)).collect();
    assert_eq!(times, want);
}

#[test]
fn charts_are_drawn() {
    let outcomes = Strategy::all().map(|(_, strategy)| of(&short(Scenario::equal(), 2), &strategy));
    let svg = chart(&outcomes).unwrap();
    assert!(svg.starts_with("<svg ") && svg.trim_end().ends_with("</svg>"));
    for outcome in &outcomes {
        assert!(svg.contains(outcome.strategy));
    }
    assert!(chart(&outcomes[..1]).is_ok());
    let error = chart(&[]).unwrap_err().to_string();
    assert_eq!(error, "the chart can't be drawn: there is no outcome");
}

#[test]
fn a_reserve_is_reported_and_drawn() {
    let scenario = short(Scenario::day_with_reserve(), 30);
    let outcome = of(&scenario, &Strategy::RoundRobin);
    let scaled = outcome.scaled.clone().unwrap();
    assert_eq!(scaled.course.len(), 7);
    let outcomes = [outcome];
    let text = table(&outcomes, None);
    assert!(text.contains("  all in, p99 "), "{text}");
    assert!(text.contains(" 3.0 (3-3) "), "{text}");
    assert!(!text.contains("imbalance"), "{text}");
    let fields: serde_json::Value = serde_json::from_str(&json(&outcomes)).unwrap();
    assert_eq!(fields[0]["scaled"]["in_use_min"], 3);
    let svg = chart(&outcomes).unwrap();
    assert!(svg.contains("backends in use (round_robin)"));
}

#[test]
fn names_find_scenarios() {
    for scenario in Scenario::all() {
        assert_eq!(
            Scenario::named(scenario.name).map(|found| found.about),
            Some(scenario.about)
        );
    }
    assert!(Scenario::named("trace").is_none());
}
