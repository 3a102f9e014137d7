//! Tests of a gate: the order of its limits, and dry runs.

use std::net::Ipv4Addr;
use std::num::NonZeroU32;

use super::*;
use crate::guard::SourcePlace;

fn number(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).unwrap()
}

fn rate(burst: u32) -> Option<RateRule> {
    let rate = Rate::new(number(1), number(burst));
    let dry_run = false;
    Some(RateRule {
        rate,
        fleet: None,
        dry_run,
        action: Action::Reset,
    })
}

fn source(connections: u32, burst: u32) -> Option<SourceRules> {
    Some(SourceRules {
        connections: Some(number(connections)),
        rate: Some(Rate::new(number(1), number(burst))),
        prefix_v4: 32,
        prefix_v6: 64,
        dry_run: false,
        action: Action::Reset,
        is_paced: false,
    })
}

fn client(last: u8) -> Option<IpAddr> {
    Some(Ipv4Addr::new(127, 0, 0, last).into())
}

#[test]
fn limits_are_asked_in_their_order() {
    let sources = Sources::new(1 << 20);
    let gates = [Gate::new(&sources), Gate::new(&sources)];
    let rules = Rules {
        source: source(3, 5),
        listener: rate(6),
        global: rate(8),
    };
    let admit = |gate: usize, last| gates[gate].admit(&sources, &rules, client(last), 0);
    let open = |gate, last| admit(gate, last).unwrap().held.unwrap();
    let places: Vec<_> = (0..3).map(|_| open(0, 1)).collect();
    assert_eq!(admit(0, 1), Err(Refusal::SourceConnections));
    for place in places {
        gates[0].release(&sources, place);
    }
    let _ = [open(0, 1), open(0, 1)];
    let _ = gates[0].admit(&sources, &rules, client(2), 0).unwrap();
    // Six of the listener, five of which are of the first source.
    assert_eq!(admit(0, 1), Err(Refusal::SourceRate));
    assert_eq!(admit(0, 3), Err(Refusal::ListenerRate));
    // Two are left of eight in all.
    let _ = [open(1, 1), open(1, 1)];
    assert_eq!(admit(1, 1), Err(Refusal::GlobalRate));
    let refused = Refusal::ALL.map(|rule| gates.each_ref().map(|gate| gate.refused(rule)));
    assert_eq!(refused, [[1, 0], [1, 0], [1, 0], [0, 1]]);
}

#[test]
fn what_one_limit_refuses_is_taken_from_no_other() {
    let sources = Sources::new(1 << 20);
    let gate = Gate::new(&sources);
    let mut rules = Rules {
        source: source(1, 1),
        listener: rate(2),
        global: rate(1),
    };
    let admit = |rules: &Rules, last| gate.admit(&sources, rules, client(last), 0);
    let _ = admit(&rules, 1).unwrap();
    for last in 2..100 {
        assert_eq!(admit(&rules, last), Err(Refusal::GlobalRate));
    }
    rules.global = None;
    let _ = admit(&rules, 2).unwrap();
    assert_eq!(admit(&rules, 3), Err(Refusal::ListenerRate));
    rules.listener = None;
    let _ = admit(&rules, 3).unwrap();
    assert_eq!(sources.connections(), 3);
}

#[test]
fn a_dry_run_counts_what_it_would_refuse() {
    let sources = Sources::new(1 << 20);
    let gate = Gate::new(&sources);
    let dry = |rule: Option<SourceRules>| {
        rule.map(|rule| SourceRules {
            dry_run: true,
            ..rule
        })
    };
    let rules = Rules {
        source: dry(source(2, 5)),
        listener: rate(4),
        global: rate(1).map(|rule| RateRule {
            dry_run: true,
            ..rule
        }),
    };
    let passes = [(); 5].map(|()| gate.admit(&sources, &rules, client(1), 0));
    let dry_runs = passes
        .each_ref()
        .map(|pass| pass.as_ref().map(|its| its.dry_run));
    let [connections, global] = [Refusal::SourceConnections, Refusal::GlobalRate].map(Some);
    let refused = Err(&Refusal::ListenerRate);
    let expected = [
        Ok(None),
        Ok(global),
        Ok(connections),
        Ok(connections),
        refused,
    ];
    assert_eq!(dry_runs, expected);
    // As it would be, the refused ones have no place.
    let held = passes.iter().flatten().filter(|pass| pass.held.is_some());
    assert_eq!((held.count(), sources.connections()), (2, 2));
    assert_eq!(gate.dry_run(Refusal::SourceConnections), 2);
    assert_eq!(gate.dry_run(Refusal::GlobalRate), 1);
    assert_eq!(gate.refused(Refusal::ListenerRate), 1);
}

#[test]
fn clients_beyond_a_dry_run_share_the_bandwidth_of_their_source() {
    let sources = Sources::new(1 << 20);
    let gate = Gate::new(&sources);
    let rules = Rules {
        source: source(2, 9).map(|rules| SourceRules {
            dry_run: true,
            is_paced: true,
            ..rules
        }),
        ..Rules::default()
    };
    let admit = || gate.admit(&sources, &rules, client(1), 0).unwrap();
    let mut places: Vec<_> = (0..5).map(|_| admit().held.unwrap()).collect();
    // The limit counts as if it had refused three of them.
    let beyond = || gate.dry_run(Refusal::SourceConnections);
    assert_eq!((sources.connections(), beyond()), (2, 3));
    let sessions = |held: &Held| {
        let (sources, gate) = (&sources, &gate);
        SourcePlace {
            sources,
            gate,
            held,
        }
        .sessions()
    };
    assert_eq!(sessions(&places[0]), 5);
    gate.release(&sources, places.remove(0));
    places.push(admit().held.unwrap());
    assert_eq!((sources.connections(), beyond()), (2, 3));
    gate.release(&sources, places.remove(2));
    places.push(admit().held.unwrap());
    assert_eq!((sources.connections(), beyond()), (2, 4));
    for place in places {
        gate.release(&sources, place);
    }
    assert_eq!(sources.connections(), 0);
}

#[test]
fn each_limit_has_its_own_action() {
    let rules = Rules {
        source: source(1, 1).map(|rules| SourceRules {
            action: Action::Tarpit,
            ..rules
        }),
        listener: rate(1).map(|rule| RateRule {
            action: Action::Drop,
            ..rule
        }),
        global: rate(1),
    };
    let actions = Refusal::ALL.map(|refusal| rules.action(refusal));
    let expected = [Action::Tarpit, Action::Tarpit, Action::Drop, Action::Reset];
    assert_eq!(actions, expected);
}

#[test]
fn the_longest_idle_timeout_that_is_regretted_is_kept() {
    let gate = Gate::new(&Sources::new(1 << 20));
    assert_eq!((gate.idle_regrets(), gate.idle_regretted()), (0, 0));
    for idle in [5, 9, NEVER, 7] {
        gate.count_idle_regret(idle);
    }
    assert_eq!((gate.idle_regrets(), gate.idle_regretted()), (4, 9));
}
