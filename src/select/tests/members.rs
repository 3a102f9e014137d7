//! Clients that select their backends by name.

use super::*;
use crate::peek::proxy_protocol::CheckedTlvs;
use crate::peek::{FirstBytes, MemberPattern, Spoken};

fn bench(numbers: &[Option<u32>]) -> Bench {
    let mut all = backends(&vec![1; numbers.len()]);
    for (backend, number) in all.iter_mut().zip(numbers) {
        backend.member = *number;
    }
    Bench::with(config::Pool {
        sni_member: MemberPattern::read("b-{n}.example"),
        ..config(Strategy::default(), &all)
    })
}

fn look(bench: &Bench, name: &str) -> Looked {
    let spoken = Spoken {
        server_name: name.to_owned(),
        ..Spoken::default()
    };
    let hello = spoken.first_bytes().unwrap();
    let plan = bench.selector.plan();
    for length in 0..hello.len() {
        let looked = plan.look(None, &FirstBytes::new(&hello[..length], false));
        assert_eq!(looked, Looked::Incomplete, "{length} bytes");
    }
    plan.look(None, &FirstBytes::new(&hello, false))
}

fn keys(bench: &Bench, name: &str) -> Keys {
    let Looked::Known(keys, 0) = look(bench, name) else {
        panic!("{name} leads nowhere");
    };
    let client = "10.0.0.1:1".parse().unwrap();
    assert_eq!(
        bench
            .selector
            .plan()
            .keys_of(client, (Some(name), None), CheckedTlvs::NONE),
        keys
    );
    keys
}

#[test]
fn a_number_is_the_place_or_the_backends_own() {
    let mut bench = bench(&[None, Some(7), None, Some(1_000_000)]);
    for (name, index) in [
        ("b-0.example", 0),
        ("B-7.Example", 1),
        ("b-2.example", 2),
        ("b-1000000.example", 3),
    ] {
        let keys = keys(&bench, name);
        for _ in 0..3 {
            assert_eq!(bench.select(keys, &[]), Choice::Backend(index), "{name}");
        }
    }
    for name in ["b-1.example", "b-3.example", "b-00.example", "b.example"] {
        assert_eq!(look(&bench, name), Looked::Nowhere, "{name}");
    }
    let nothing = FirstBytes::none();
    assert_eq!(bench.selector.plan().look(None, &nothing), Looked::Nowhere);
    assert!(bench.selector.plan().peeks());
}

#[test]
fn a_client_gets_its_own_backend_or_none() {
    let mut bench = bench(&[None; 3]);
    let keys = keys(&bench, "b-1.example");
    let mut answer = |change: &mut dyn FnMut(&mut Backend), tried: &[u16]| {
        bench.change(|backend| {
            if backend.name == "b1" {
                change(backend);
            }
        });
        bench.select(keys, tried)
    };
    let own = Choice::Backend(1);
    assert_eq!(answer(&mut |_| {}, &[1]), own, "it is tried again");
    let tried = answer(&mut |backend| backend.health = Health::Down, &[]);
    assert_eq!(tried, Choice::Unavailable);
    let drained = answer(&mut |backend| backend.admin = AdminState::Drain, &[]);
    assert_eq!(drained, Choice::Unavailable);
    let full = &mut |backend: &mut Backend| {
        backend.health = Health::Up;
        backend.admin = AdminState::Ready;
        backend.tally.connections.set_max(0);
    };
    assert_eq!(answer(full, &[]), Choice::Full);
    let request = Request {
        keys,
        ..Request::default()
    };
    let considered = bench.selector.preview(&request);
    assert_eq!(considered.why, Some(Why::Full));
    assert_eq!(considered.passed_over[Rating::Full as usize], 1);
    assert_eq!(considered.passed_over[Rating::Strategy as usize], 2);
}

#[test]
fn keys_of_names_stay_while_the_pattern_does() {
    let (old, new) = (bench(&[None; 3]), bench(&[None, Some(5), Some(1)]));
    let its = keys(&old, "b-1.example");
    let taken = |new: &Bench, old: &Bench, keys| {
        let plans = [new, old].map(|bench| Arc::clone(bench.selector.plan()));
        plans[0].take_over(keys, &plans[1], (None, CheckedTlvs::NONE))
    };
    let mut moved = new;
    let keys = taken(&moved, &old, its);
    assert_eq!(
        moved.select(keys, &[]),
        Choice::Backend(2),
        "its number counts"
    );
    let mut plain = Bench::new(Strategy::default(), &[1; 3]);
    let keys = taken(&plain, &old, its);
    assert_eq!(keys, Keys::default());
    plain.next();
    let keys = taken(&moved, &plain, keys);
    assert_eq!(moved.select(keys, &[]), Choice::Unavailable);
}
