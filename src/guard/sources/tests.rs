//! Tests of the table of sources: its limits, its room, and both against a model.

use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::thread;

use super::*;
use crate::guard::{Gate, Pass, Rules};
use crate::time::MS;

const LARGE: u64 = 1 << 20;

fn number(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).unwrap()
}

fn rules(connections: Option<u32>, rate: Option<(u32, u32)>) -> Rules {
    let source = SourceRules {
        connections: connections.map(number),
        rate: rate.map(|(rate, burst)| Rate::new(number(rate), number(burst))),
        prefix_v4: 32,
        prefix_v6: 64,
        dry_run: false,
        action: Action::Reset,
        is_paced: false,
    };
    Rules {
        source: Some(source),
        ..Rules::default()
    }
}

fn ip(last: u32) -> Option<IpAddr> {
    Some(Ipv4Addr::from_bits(0x7F00_0000 + last).into())
}

/// How many of so many connections at once are admitted. Their places are lost.
fn admitted(gate: &Gate, sources: &Sources, rules: &Rules, ip: Option<IpAddr>) -> usize {
    let admit = |_: &usize| gate.admit(sources, rules, ip, 0).is_ok();
    (0..200).filter(admit).count()
}

fn held(pass: Result<Pass, Refusal>) -> Held {
    pass.unwrap().held.unwrap()
}

/// A table with room for so many sources.
fn room_for(sources: u64) -> Sources {
    Sources::new(92 * sources)
}

#[test]
fn a_source_takes_92_bytes() {
    assert_eq!(
        [91, 92, 183, 184].map(|bytes| Sources::new(bytes).capacity()),
        [0, 1, 1, 2]
    );
}

#[test]
fn each_source_of_each_listener_has_the_limits_for_itself() {
    let sources = Sources::new(LARGE);
    let gates = [Gate::new(&sources), Gate::new(&sources)];
    let by_count = rules(Some(100), None);
    let by_rate = rules(None, Some((1, 7)));
    for last in 1..=3 {
        assert_eq!(admitted(&gates[0], &sources, &by_count, ip(last)), 100);
        assert_eq!(admitted(&gates[1], &sources, &by_rate, ip(last)), 7);
    }
    assert_eq!(gates[0].refused(Refusal::SourceConnections), 300);
    assert_eq!(gates[1].refused(Refusal::SourceRate), 3 * 193);
    assert_eq!((sources.len(), sources.connections()), (6, 300));
}

#[test]
fn a_place_is_free_again_after_its_connection() {
    let sources = Sources::new(LARGE);
    let gate = Gate::new(&sources);
    let rules = rules(Some(2), None);
    let admit = || gate.admit(&sources, &rules, ip(1), 0);
    let (first, _second) = (held(admit()), held(admit()));
    assert_eq!(admit(), Err(Refusal::SourceConnections));
    gate.release(&sources, first);
    assert!(admit().is_ok() && admit().is_err());
    assert_eq!(sources.connections(), 2);
}

#[test]
fn a_refused_connection_uses_up_no_rate() {
    let sources = Sources::new(LARGE);
    let gate = Gate::new(&sources);
    let rules = rules(Some(1), Some((10, 3)));
    let admit = |now| gate.admit(&sources, &rules, ip(1), now);
    for _ in 0..3 {
        let place = held(admit(0));
        assert_eq!(admit(0), Err(Refusal::SourceConnections));
        gate.release(&sources, place);
    }
    assert_eq!(admit(0), Err(Refusal::SourceRate));
    assert!(admit(100 * MS).is_ok());
}

#[test]
fn a_source_is_a_network() {
    let sources = Sources::new(LARGE);
    let gate = Gate::new(&sources);
    let mut rules = rules(Some(1), None);
    let parse = |text: &str| text.parse().ok();
    let admit = |rules: &Rules, text| gate.admit(&sources, rules, parse(text), 0).is_ok();
    assert!(admit(&rules, "10.0.0.1") && !admit(&rules, "::ffff:10.0.0.1"));
    assert!(admit(&rules, "10.0.0.2"));
    assert!(admit(&rules, "2001:db8::1") && !admit(&rules, "2001:db8::ffff:0:0:1"));
    assert!(admit(&rules, "2001:db8:0:1::1"));
    let source = rules.source.as_mut().unwrap();
    (source.prefix_v4, source.prefix_v6) = (24, 128);
    assert!(admit(&rules, "10.0.0.3") && !admit(&rules, "10.0.0.255"));
    assert!(admit(&rules, "2001:db8::2") && admit(&rules, "2001:db8::3"));
    assert!(!admit(&rules, "2001:db8::3"));
}

#[test]
fn a_full_table_forgets_the_source_that_was_there_last_of_all() {
    let sources = room_for(2);
    let gate = Gate::new(&sources);
    let rules = rules(None, Some((1, 2)));
    assert_eq!(admitted(&gate, &sources, &rules, ip(1)), 2);
    assert_eq!(admitted(&gate, &sources, &rules, ip(2)), 2);
    // Knocking in vain counts.
    assert_eq!(admitted(&gate, &sources, &rules, ip(1)), 0);
    assert_eq!(admitted(&gate, &sources, &rules, ip(3)), 2);
    assert_eq!(admitted(&gate, &sources, &rules, ip(1)), 0, "still known");
    assert_eq!(admitted(&gate, &sources, &rules, ip(2)), 2, "forgotten");
    assert_eq!((sources.len(), sources.overflowed()), (2, 0));
}

#[test]
fn sources_with_connections_are_never_forgotten() {
    let sources = room_for(2);
    let gate = Gate::new(&sources);
    let rules = rules(Some(3), None);
    let admit = |last| gate.admit(&sources, &rules, ip(last), 0);
    let place = held(admit(1));
    for last in 2..1_000 {
        let its = held(admit(last));
        gate.release(&sources, its);
    }
    assert_eq!(sources.overflowed(), 0);
    assert!(admit(1).is_ok() && admit(1).is_ok() && admit(1).is_err());
    gate.release(&sources, place);
    assert!(admit(1).is_ok() && admit(1).is_err());
}

#[test]
fn newcomers_to_a_table_full_of_connections_share_one_limit() {
    let sources = room_for(2);
    let gate = Gate::new(&sources);
    let rules = rules(Some(3), None);
    let admit = |last| gate.admit(&sources, &rules, ip(last), 0);
    let known = [held(admit(1)), held(admit(2))];
    let others: Vec<_> = (3..6).map(|last| held(admit(last))).collect();
    assert!(
        others
            .iter()
            .all(|place| matches!(place, Held::Overflow { .. }))
    );
    assert_eq!(admit(6), Err(Refusal::SourceConnections));
    assert_eq!((sources.overflowed(), gate.overflow_connections()), (4, 3));
    assert!(admit(1).is_ok(), "the known ones have limits of their own");
    // Another listener has another overflow.
    let other = Gate::new(&sources);
    assert!(other.admit(&sources, &rules, ip(7), 0).is_ok());
    for place in others.into_iter().chain(known) {
        gate.release(&sources, place);
    }
    assert_eq!(gate.overflow_connections(), 0);
    let place = held(admit(8));
    assert!(matches!(place, Held::Entry { .. }), "2 has made room");
}

/// As of clients that have gone before their address was asked for.
#[test]
fn clients_without_an_address_share_one_limit() {
    let sources = Sources::new(LARGE);
    let gate = Gate::new(&sources);
    assert_eq!(admitted(&gate, &sources, &rules(Some(5), None), None), 5);
    assert_eq!((sources.len(), sources.overflowed()), (0, 0));
}

#[test]
fn limits_are_exact_over_threads() {
    let sources = Sources::new(LARGE);
    let gates = [Gate::new(&sources), Gate::new(&sources)];
    let by_count = rules(Some(100), None);
    let by_rate = rules(None, Some((1, 100)));
    let count = || {
        let of = |last| {
            let by_count = admitted(&gates[0], &sources, &by_count, ip(last));
            [by_count, admitted(&gates[1], &sources, &by_rate, ip(last))]
        };
        (0..20)
            .map(of)
            .fold([0; 2], |sum, its| [0, 1].map(|i| sum[i] + its[i]))
    };
    let counts = thread::scope(|scope| {
        let threads = [(); 4].map(|()| scope.spawn(count));
        threads.map(|thread| thread.join().unwrap())
    });
    let sum = |i: usize| counts.iter().map(|its| its[i]).sum::<usize>();
    assert_eq!([sum(0), sum(1)], [2_000; 2]);
}

/// Addresses that come once each, as in a flood with forged or rotating ones.
#[test]
fn a_flood_of_sources_takes_no_more_than_the_table() {
    let sources = Sources::new(LARGE);
    let gate = Gate::new(&sources);
    let rules = rules(Some(1), Some((1, 1)));
    let guest = gate.admit(&sources, &rules, ip(0), 0);
    for number in 0..100_000_u64 {
        let network = Ipv6Addr::from_bits(u128::from(number) << 64);
        let place = held(gate.admit(&sources, &rules, Some(network.into()), number));
        gate.release(&sources, place);
    }
    assert_eq!(sources.len(), sources.capacity() as usize);
    assert!(u64::from(sources.capacity()) * 60 <= LARGE);
    assert_eq!((sources.overflowed(), guest.is_ok()), (0, true));
    assert!(gate.admit(&sources, &rules, ip(0), 0).is_err());
}

/// A source of the model: its tokens, in ns of time that they take to come, and its connections.
#[derive(Clone, Copy)]
struct Modelled {
    tokens: u64,
    at: u64,
    connections: u32,
}

/// A gate of the model, without a limit of its table.
struct Model {
    connections: u32,
    interval: u64,
    burst: u64,
    sources: HashMap<u32, Modelled>,
}

impl Model {
    fn admit(&mut self, source: u32, now: u64) -> Result<(), Refusal> {
        let full = Modelled {
            tokens: self.burst * self.interval,
            at: now,
            connections: 0,
        };
        let its = self.sources.entry(source).or_insert(full);
        its.tokens = full.tokens.min(its.tokens + now - its.at);
        its.at = now;
        if its.connections >= self.connections {
            return Err(Refusal::SourceConnections);
        }
        if its.tokens < self.interval {
            return Err(Refusal::SourceRate);
        }
        its.tokens -= self.interval;
        its.connections += 1;
        Ok(())
    }
}

#[test]
fn does_what_the_model_does() {
    for seed in 0..50 {
        let mut random = fastrand::Rng::with_seed(seed);
        let sources = Sources::new(LARGE);
        let mut gates: Vec<_> = (0..3)
            .map(|_| {
                let (max, rate, burst) = (random.u32(1..5), random.u32(1..2_000), random.u32(1..9));
                let model = Model {
                    connections: max,
                    interval: 1_000 * MS / u64::from(rate),
                    burst: burst.into(),
                    sources: HashMap::new(),
                };
                (
                    Gate::new(&sources),
                    rules(Some(max), Some((rate, burst))),
                    model,
                )
            })
            .collect();
        let mut open = Vec::new();
        let mut now = 0;
        for _ in 0..2_000 {
            now += random.u64(0..2 * MS);
            let number = random.usize(0..gates.len());
            if random.u32(0..3) == 0 && !open.is_empty() {
                let (number, source, place): (usize, _, _) =
                    open.swap_remove(random.usize(0..open.len()));
                let (gate, _, model) = &mut gates[number];
                gate.release(&sources, place);
                model.sources.get_mut(&source).unwrap().connections -= 1;
                continue;
            }
            let source = random.u32(0..10);
            let (gate, rules, model) = &mut gates[number];
            let pass = gate.admit(&sources, rules, ip(source), now);
            assert_eq!(
                pass.as_ref().err(),
                model.admit(source, now).as_ref().err(),
                "{seed}"
            );
            open.extend(
                pass.into_iter()
                    .map(|pass| (number, source, pass.held.unwrap())),
            );
            assert_eq!(sources.connections(), open.len() as u64);
        }
    }
}

/// A small table, in which there is often no room.
#[test]
fn no_connection_is_lost_where_there_is_no_room() {
    for seed in 0..50 {
        let mut random = fastrand::Rng::with_seed(seed);
        let sources = room_for(5);
        let gate = Gate::new(&sources);
        let rules = rules(Some(2), Some((100, 3)));
        let mut open: Vec<(u32, Held)> = Vec::new();
        let mut now = 0;
        for _ in 0..2_000 {
            now += random.u64(0..10 * MS);
            if random.bool() && !open.is_empty() {
                let (_, place) = open.swap_remove(random.usize(0..open.len()));
                gate.release(&sources, place);
            } else {
                let source = random.u32(0..12);
                let pass = gate.admit(&sources, &rules, ip(source), now);
                open.extend(pass.into_iter().map(|pass| (source, pass.held.unwrap())));
            }
            let overflow = u64::from(gate.overflow_connections());
            assert_eq!(sources.connections() + overflow, open.len() as u64);
            assert!(overflow <= 2 && sources.len() <= 5);
            let in_table = |one: &&(u32, Held)| matches!(one.1, Held::Entry { .. });
            let mut of_source = HashMap::new();
            for (source, _) in open.iter().filter(in_table) {
                *of_source.entry(source).or_insert(0) += 1;
            }
            assert!(of_source.values().all(|count| *count <= 2), "{seed}");
        }
        assert!(sources.overflowed() > 0);
    }
}
