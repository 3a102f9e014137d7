//! Explanations: they say what the selection went by.

use super::*;
use crate::peek::proxy_protocol::CheckedTlvs;
use crate::peek::{FirstBytes, Spoken};

fn explained(bench: &Bench, tried: &[u16], choice: Choice) -> Considered {
    let mut considered = Considered::NONE;
    let request = Request {
        now: bench.now,
        tried,
        ..Request::default()
    };
    bench.selector.explain(&request, choice, &mut considered);
    considered
}

fn rating(considered: &Considered, bench: &Bench, index: u16) -> Rating {
    let number = bench.backend(index).number;
    let mut listed = considered.listed().iter();
    listed.find(|rated| rated.number == number).unwrap().verdict
}

#[test]
fn the_chosen_one_comes_first_then_the_best() {
    let mut bench = Bench::new(Strategy::LeastConnections, &[1, 1, 1, 2]);
    for (index, connections) in [(0, 3), (1, 1), (2, 2), (3, 1)] {
        bench.open(index, connections);
    }
    let choice = bench.select(Keys::default(), &[]);
    let considered = explained(&bench, &[], choice);
    let scores = considered.listed().iter().map(|rated| rated.score);
    assert_eq!(scores.collect::<Vec<_>>(), [0.5, 1.0, 2.0, 3.0]);
    assert_eq!(considered.why, Some(Why::Strategy));
    assert_eq!(considered.chosen, bench.backend(3).number);
    assert_eq!(considered.passed_over[Rating::Strategy as usize], 3);
    assert!(considered.score_is.is_some());
}

#[test]
fn each_backend_that_cannot_be_used_has_its_reason() {
    let mut bench = Bench::new(Strategy::LeastConnections, &[1; 9]);
    bench.change(|backend| match &*backend.name {
        "b0" => backend.health = Health::Down,
        "b1" => backend.admin = AdminState::Drain,
        "b2" => backend.admin = AdminState::Maint,
        "b3" => backend.standby = true,
        "b4" => backend.weight = 0,
        "b5" => backend.backup = true,
        _ => {}
    });
    bench.backend(6).tally.connections.set_max(0);
    let tried = [7];
    let choice = bench.select(Keys::default(), &tried);
    assert_eq!(choice, Choice::Backend(8));
    let considered = explained(&bench, &tried, choice);
    assert_eq!(considered.why, Some(Why::Untried));
    let expected = [
        Rating::Down,
        Rating::Drain,
        Rating::Maint,
        Rating::Standby,
        Rating::Weightless,
        Rating::Backup,
        Rating::Full,
        Rating::Tried,
    ];
    for rating in expected {
        assert_eq!(considered.passed_over[rating as usize], 1, "{rating:?}");
    }
    assert_eq!(considered.listed().len(), LISTED_MAX, "one is left out");
    assert_eq!(rating(&considered, &bench, 8), Rating::Chosen);

    bench.backend(8).tally.connections.set_max(0);
    bench.backend(7).tally.connections.set_max(0);
    bench.backend(5).tally.connections.set_max(0);
    let choice = bench.select(Keys::default(), &[]);
    let considered = explained(&bench, &[], choice);
    assert_eq!(considered.why, Some(Why::Full));
    assert_eq!(considered.chosen, 0);
    assert_eq!(considered.passed_over[Rating::Full as usize], 4);
}

#[test]
fn a_backup_and_an_ejected_backend_are_chosen_for_a_reason() {
    let mut all = backends(&[1, 1]);
    all[1].backup = true;
    let mut bench = Bench::of(Strategy::RoundRobin, &all);
    bench.change(|backend| {
        if !backend.backup {
            backend.health = Health::Down;
        }
    });
    let choice = bench.select(Keys::default(), &[]);
    let considered = explained(&bench, &[], choice);
    assert_eq!(considered.why, Some(Why::Backup));
    assert_eq!(rating(&considered, &bench, 0), Rating::Down);
    let choice = bench.select(Keys::default(), &[1]);
    let considered = explained(&bench, &[1], choice);
    assert_eq!(considered.why, Some(Why::DownOnly), "the pool fails open");
    let choice = bench.select(Keys::default(), &[0, 1]);
    let considered = explained(&bench, &[0, 1], choice);
    assert_eq!(considered.why, Some(Why::TriedAgain));
}

/// By every strategy: the next selection is the one that was foretold, and to tell it changes
/// nothing.
#[test]
fn a_preview_is_the_next_selection() {
    for (name, strategy) in Strategy::all() {
        let mut bench = Bench::new(strategy, &[1, 2, 3, 1]);
        for key in 0..50 {
            let keys = Keys {
                select: crate::hash::mix(key),
                persist: key + 1,
                source: key + 1,
            };
            bench.now += MS;
            let request = Request {
                now: bench.now,
                keys,
                tried: &[],
            };
            let told = [(); 3].map(|()| bench.selector.preview(&request));
            let index = picked(bench.selector.select(&request));
            for told in told {
                assert_eq!(told.chosen, bench.backend(index).number, "{name}");
                assert_eq!(told.listed()[0].verdict, Rating::Chosen, "{name}");
                assert_eq!(told.backends, 4, "{name}");
            }
            bench.open(index, 1);
        }
    }
}

#[test]
fn a_client_that_is_remembered_is_said_to_be() {
    let strategy = Strategy::StickyRoundRobin(Persist {
        clients_max: 10,
        ..Persist::default()
    });
    let mut bench = Bench::new(strategy, &[1, 1, 1]);
    let first = bench.of_key(7);
    let keys = Keys {
        select: crate::hash::mix(8),
        persist: 8,
        source: 8,
    };
    let choice = bench.select(keys, &[]);
    assert_eq!(choice, Choice::Backend(first));
    let considered = explained(&bench, &[], choice);
    assert_eq!(considered.why, Some(Why::Remembered));
    assert_eq!(considered.passed_over[Rating::Remembered as usize], 2);
    let request = Request {
        now: bench.now,
        keys,
        tried: &[],
    };
    assert_eq!(bench.selector.preview(&request).why, Some(Why::Remembered));
}

#[test]
fn other_groups_and_a_load_beyond_its_bound_are_told() {
    let groups = [("a", 1), ("b", 1)].map(|(name, weight)| Group {
        name: name.to_owned(),
        weight,
    });
    let mut all = backends(&[1; 4]);
    for (backend, group) in all.iter_mut().zip(["a", "a", "b", "b"]) {
        backend.group = Some(group.to_owned());
    }
    let strategy = Strategy::TwoTier(TwoTier {
        first: FirstTier::Priority,
        then: SecondTier::LeastConnections,
        groups: groups.to_vec(),
    });
    let mut bench = Bench::of(strategy, &all);
    let choice = bench.select(Keys::default(), &[]);
    let considered = explained(&bench, &[], choice);
    assert_eq!(considered.passed_over[Rating::Tier as usize], 2);
    assert_eq!(considered.passed_over[Rating::Strategy as usize], 1);

    let strategy = Strategy::Hash(config::Hash {
        max_load: Some(125),
        ..config::Hash::default()
    });
    let mut bench = Bench::new(strategy, &[1, 1, 1]);
    let own = bench.of_key(0);
    bench.open(own, 10);
    let keys = Keys {
        select: crate::hash::mix(1),
        persist: 1,
        source: 1,
    };
    let request = Request {
        now: bench.now,
        keys,
        tried: &[],
    };
    let considered = bench.selector.preview(&request);
    assert_eq!(rating(&considered, &bench, own), Rating::MaxLoad);
}

#[test]
fn of_two_that_are_drawn_the_others_are_told_apart() {
    let mut bench = Bench::new(Strategy::PowerOfTwo, &[1; 5]);
    let choice = bench.select(Keys::default(), &[]);
    let considered = explained(&bench, &[], choice);
    assert_eq!(considered.passed_over[Rating::Strategy as usize], 1);
    assert_eq!(considered.passed_over[Rating::NotDrawn as usize], 3);
}

#[test]
fn a_failing_backend_is_chosen_and_passed_over_for_its_share() {
    let mut bench = Bench::new(Strategy::LeastConnections, &[1, 1]);
    bench.backend(0).on_failed();
    bench.open(1, 5);
    let mut shares = [0; 2];
    for _ in 0..200 {
        let choice = bench.select(Keys::default(), &[]);
        let considered = explained(&bench, &[], choice);
        if choice == Choice::Backend(0) {
            assert_eq!(considered.why, Some(Why::FailingShare));
        } else {
            assert_eq!(considered.why, Some(Why::Strategy));
            assert_eq!(rating(&considered, &bench, 0), Rating::Failing);
        }
        shares[usize::from(picked(choice))] += 1;
    }
    assert!(shares.iter().all(|share| *share > 0), "{shares:?}");
}

#[test]
fn of_a_large_pool_a_bounded_part_is_looked_at() {
    let mut bench = Bench::new(Strategy::RoundRobin, &[1; 300]);
    let choice = bench.select(Keys::default(), &[]);
    let considered = explained(&bench, &[], choice);
    assert_eq!((considered.backends, considered.looked_at), (300, 64));
    let passed_over: u16 = considered.passed_over.iter().sum();
    assert_eq!(passed_over, 63);
    assert_eq!(considered.listed().len(), LISTED_MAX);
    assert_eq!(considered.listed()[0].verdict, Rating::Chosen);
}

#[test]
fn keys_are_those_of_the_first_bytes() {
    let key = |name: &str| name.parse::<Key>().unwrap();
    let client = "10.0.0.1:50000".parse().unwrap();
    let plan = |key: Key| {
        let strategy = Strategy::Hash(config::Hash {
            key,
            ..config::Hash::default()
        });
        Plan::new(Arc::new(Pool::new(&config(strategy, &backends(&[1])))))
    };
    let request = b"GET /a?b HTTP/1.1\r\nHost: Shop.Example:80\r\n\r\n";
    for (name, host, target) in [
        ("http_host", Some("shop.example"), None),
        ("http_host", None, Some("http://shop.example:8080/x")),
        ("http_path", None, Some("/a?c")),
    ] {
        let plan = plan(key(name));
        let Looked::Known(keys, 0) = plan.look(Some(client), &FirstBytes::new(request, true))
        else {
            panic!("{name}");
        };
        assert_eq!(
            plan.keys_of(client, (host, target), CheckedTlvs::NONE),
            keys,
            "{name}"
        );
        let missed = plan.keys_of(client, (None, None), CheckedTlvs::NONE);
        assert_eq!(missed.select, missed.source, "{name}");
    }
    let behind = Spoken {
        tlvs: vec![("0xE0".parse().unwrap(), b"blue".to_vec())],
        ..Spoken::default()
    };
    let behind = behind.bytes().unwrap();
    let of_tlv = plan(key("proxy_tlv(0xE0)")).keys_of(client, (None, None), behind.tlvs());
    assert_ne!(of_tlv.select, of_tlv.source);
    let hello = include_bytes!("../../../tests/captures/curl.bin");
    let plan = plan(key("sni"));
    let Looked::Known(keys, 0) = plan.look(Some(client), &FirstBytes::new(hello, true)) else {
        panic!("a capture has a name");
    };
    let hello = crate::peek::ClientHello::parse(hello).unwrap();
    let name = hello.server_name.unwrap();
    let name = std::str::from_utf8(name.as_bytes()).unwrap();
    assert_eq!(
        plan.keys_of(client, (Some(name), None), CheckedTlvs::NONE),
        keys
    );
}
