//! Tests of the scenario: what balancers agree on, and what a change of the pool takes.

use super::*;

fn scenario(balancers: u32, backends: u16, clients: u32) -> FleetScenario {
    FleetScenario {
        balancers,
        pool: pool_of(backends),
        strategies: strategies(),
        clients,
        seed: 1,
    }
}

fn of<'a>(outcome: &'a FleetOutcome, strategy: &str) -> &'a AgreementOutcome {
    let mut all = outcome.strategies.iter();
    all.find(|its| its.strategy == strategy).unwrap()
}

fn change(outcome: &FleetOutcome, change: ChangeKind) -> &ChangeOutcome {
    let mut all = outcome.changes.iter();
    all.find(|its| its.change == change).unwrap()
}

#[test]
fn the_same_seed_has_the_same_outcome() {
    let run = |seed| {
        let mut scenario = FleetScenario {
            seed,
            ..scenario(2, 3, 60)
        };
        scenario.strategies.truncate(2);
        json(&run(&scenario))
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}

/// With hundreds of connections for each backend on each balancer, as docs/failover.md says.
#[test]
fn hash_sends_clients_to_their_backend_through_every_balancer() {
    let mut scenario = scenario(3, 2, 1_200);
    scenario
        .strategies
        .retain(|(name, _)| name != "two_tier, subset 2");
    let outcome = run(&scenario);
    let hash = of(&outcome, "hash");
    assert_eq!((hash.agree, hash.same), (1.0, [1.0; 3]));
    let bounded = of(&outcome, "hash, max_load 2");
    assert!(bounded.agree >= 0.99, "{bounded:?}");
    assert!(bounded.same.iter().all(|same| *same >= 0.99), "{bounded:?}");
    let by_load = of(&outcome, "least_connections");
    assert!(by_load.same.iter().all(|same| *same < 0.6), "{by_load:?}");
    assert!(by_load.peak < hash.peak, "{by_load:?} {hash:?}");
    for its in &outcome.strategies {
        assert!(its.shares[0] > 0.3 && its.shares[1] < 0.37, "{its:?}");
        // Of three parts the first one goes: the router moves a half of another part.
        assert!((0.12..0.22).contains(&its.rerouted), "{its:?}");
    }
}

#[test]
fn a_change_is_told_to_every_balancer_once() {
    let mut scenario = scenario(8, 100, 5_000);
    scenario.strategies.clear();
    let outcome = run(&scenario);
    let one = change(&outcome, ChangeKind::OneLeaves);
    assert_eq!((one.backends, one.messages, one.sets), (1, 8, 8));
    assert!(one.first_ms >= 0.2 && one.all_ms <= 20.0, "{one:?}");
    assert!(one.apart_ms <= one.all_ms - one.first_ms + 0.001, "{one:?}");
    // One of a hundred, and nearly as many of the others: the table's walks go on past it.
    assert!((0.008..0.022).contains(&one.remapped), "{one:?}");
    assert!(one.remapped_of_others < 0.012, "{one:?}");
    let dies = change(&outcome, ChangeKind::OneDies);
    assert_eq!((dies.messages, dies.sets), (8 * 3, 8));
    // Three probes, 2 s apart, the last of which waits for 1 s.
    assert!(
        dies.first_ms >= 5_000.0 && dies.all_ms <= 7_000.0,
        "{dies:?}"
    );
    assert!(dies.apart_ms <= 2_000.0, "{dies:?}");
}

/// Changes that come fast are taken in together, and no balancer is late for long.
#[test]
fn a_hundred_balancers_agree_on_a_burst_within_a_quarter_of_a_second() {
    let scenario = FleetScenario {
        strategies: strategies(),
        ..scenario(100, 10_000, 1)
    };
    let outcome = run(&scenario);
    assert!(outcome.strategies.is_empty(), "too many counts for clients");
    let many = change(&outcome, ChangeKind::ManyLeave);
    assert_eq!((many.backends, many.messages), (100, 10_000));
    // Four sets in a second of ten, of each balancer.
    assert!((3_500..=4_200).contains(&many.sets), "{many:?}");
    assert!(many.all_ms <= 270.0, "{many:?}");
    let one = change(&outcome, ChangeKind::OneReturns);
    assert_eq!((one.messages, one.sets), (100, 100));
    assert!(one.all_ms <= 20.0, "{one:?}");
}

/// A pool of the user's has its own strategy and its own weights.
#[test]
fn a_pool_without_a_key_is_changed_as_one_of_hash() {
    let scenario = FleetScenario {
        strategies: vec![("random".to_owned(), Strategy::Random)],
        ..scenario(2, 10, 400)
    };
    let outcome = run(&scenario);
    assert!(of(&outcome, "random").agree < 0.3);
    let one = change(&outcome, ChangeKind::OneLeaves);
    assert!((0.05..0.2).contains(&one.remapped), "{one:?}");
}

#[test]
fn tables_have_a_line_for_each_strategy_and_change() {
    let text = table(&run(&scenario(2, 3, 60)));
    let lines: Vec<_> = text.lines().collect();
    assert!(lines[0].starts_with("fleet: several balancers"), "{text}");
    assert_eq!(lines[1], "2 balancers, 3 backends, 60 clients, seed 1");
    assert!(lines[3].starts_with("strategy  "), "{text}");
    assert!(lines[4].starts_with("hash  "), "{text}");
    assert!(lines[10].starts_with("change of the pool  "), "{text}");
    let probes = "probes every 2 s: 1/s at each backend, 2/s of each balancer";
    assert!(text.contains(probes), "{text}");
    let large = table(&run(&scenario(100, 201, 1)));
    assert!(
        large.contains("100 × 201 counts are more than 20000"),
        "{large}"
    );
}

/// What all may take together never exceeds the limit, whatever fails.
#[test]
fn a_limit_of_the_fleet_is_divided_by_leases() {
    for balancers in [2, 3, 8] {
        let mut scenario = scenario(balancers, 2, 1);
        scenario.strategies.clear();
        let limits = run(&scenario).limits;
        assert!(limits.iter().all(|its| its.most <= 1.0), "{limits:?}");
        let taken = |stage| {
            let its = limits.iter().find(|its| its.stage == stage).unwrap();
            its.taken / its.wanted.min(1.0)
        };
        assert!(taken(LimitStage::AllWant) > 0.95, "{limits:?}");
        assert!(taken(LimitStage::OneIsBusy) > 0.95, "{limits:?}");
        // Without its lease the busy one has its equal part at most.
        assert!(taken(LimitStage::EtcdIsAway) < 0.95, "{limits:?}");
        // The part of the dead one stays its base.
        assert!(taken(LimitStage::OneDies) > 0.4, "{limits:?}");
    }
}
