//! What is in force after any reloads and changes.

use fastrand::Rng;

use super::*;
use crate::config::{AdminState, Backend, Queue, Strategy, parse};

fn file(backends: &[&str]) -> Config {
    let backends: Vec<_> = backends
        .iter()
        .map(|its| format!("\"127.0.0.1:{its}\""))
        .collect();
    let text = format!(
        "(listeners: [(name: \"l\", bind: \"127.0.0.1:80\", pool: \"a\")],
          pools: [(name: \"a\", backends: [{0}]), (name: \"b\", backends: [{0}])])",
        backends.join(", ")
    );
    parse("f".to_owned(), text.into()).unwrap().0
}

fn weight(backend: &str, weight: u16) -> Change {
    Change::SetBackend {
        pool: "a".to_owned(),
        backend: format!("127.0.0.1:{backend}"),
        weight: Some(weight),
        max_connections: None,
        state: None,
    }
}

fn add(backend: &str) -> Change {
    Change::AddBackend {
        pool: "a".to_owned(),
        backend: Box::new(Backend::at(format!("127.0.0.1:{backend}").parse().unwrap())),
    }
}

fn remove(backend: &str) -> Change {
    Change::RemoveBackend {
        pool: "a".to_owned(),
        backend: format!("127.0.0.1:{backend}"),
    }
}

/// The same with one more change, which it takes.
fn changed(declared: &Declared, change: &Change, keep: bool) -> Declared {
    let effective = declared.config().clone();
    declared.change(change, keep, &effective).unwrap()
}

fn weights(declared: &Declared) -> Vec<(String, u16)> {
    let pool = &declared.config().pools[0];
    let backends = pool.backends.iter();
    backends
        .map(|its| (its.name.replace("127.0.0.1:", ""), its.weight))
        .collect()
}

fn are(wanted: &[(&str, u16)]) -> Vec<(String, u16)> {
    wanted
        .iter()
        .map(|(name, weight)| ((*name).to_owned(), *weight))
        .collect()
}

#[test]
fn what_is_kept_holds_over_reloads_and_the_rest_does_not() {
    let declared = Declared::new(file(&["1", "2"]));
    let declared = changed(&declared, &weight("1", 7), true);
    let declared = changed(&declared, &weight("2", 9), false);
    let declared = changed(&declared, &add("3"), true);
    let declared = changed(&declared, &add("4"), false);
    assert_eq!(
        weights(&declared),
        are(&[("1", 7), ("2", 9), ("3", 1), ("4", 1)])
    );
    let (declared, given_up) = declared.reload(file(&["1", "2", "5"]));
    assert_eq!(given_up, []);
    assert_eq!(
        weights(&declared),
        are(&[("1", 7), ("2", 1), ("5", 1), ("3", 1)])
    );
}

#[test]
fn a_removal_is_kept_and_leaves_no_trace_of_what_the_api_added() {
    let declared = Declared::new(file(&["1", "2"]));
    let declared = changed(&declared, &remove("1"), true);
    let mut declared = changed(&declared, &add("1"), true);
    for _ in 0..100 {
        declared = changed(&declared, &add("3"), true);
        declared = changed(&declared, &weight("3", 5), true);
        declared = changed(&declared, &remove("3"), true);
    }
    assert_eq!(declared.kept, [remove("1"), add("1")]);
    let (declared, given_up) = declared.reload(file(&["1", "2"]));
    assert_eq!(given_up, []);
    assert_eq!(weights(&declared), are(&[("2", 1), ("1", 1)]));
    // The file has removed it as well.
    let (declared, given_up) = declared.reload(file(&["2"]));
    assert_eq!(
        (given_up, weights(&declared)),
        (vec![], are(&[("2", 1), ("1", 1)]))
    );
}

#[test]
fn a_kept_change_that_has_no_place_any_more_is_given_up_and_told() {
    let declared = Declared::new(file(&["1", "2"]));
    let declared = changed(&declared, &weight("2", 7), true);
    let (declared, given_up) = declared.reload(file(&["1"]));
    assert_eq!(given_up.len(), 1);
    assert!(matches!(given_up[0], ChangeError::Unknown { .. }));
    let (declared, given_up) = declared.reload(file(&["1", "2"]));
    assert_eq!(
        (given_up, weights(&declared)),
        (vec![], are(&[("1", 1), ("2", 1)]))
    );
}

#[test]
fn a_discovered_backend_can_be_changed_and_not_removed() {
    let declared = Declared::new(file(&["1"]));
    let effective = file(&["1", "2"]);
    let set = declared.change(&weight("2", 7), false, &effective).unwrap();
    assert_eq!(weights(&set), are(&[("1", 1)]));
    assert_eq!(
        set.complete(effective.clone()).pools[0].backends[1].weight,
        7
    );
    // It vanishes and comes back.
    assert_eq!(set.complete(file(&["1"])), file(&["1"]));
    assert_eq!(
        set.complete(effective.clone()).pools[0].backends[1].weight,
        7
    );
    let error = declared
        .change(&remove("2"), false, &effective)
        .unwrap_err();
    assert!(error.to_string().contains("discovered"), "{error}");
    let error = declared
        .change(&remove("3"), false, &effective)
        .unwrap_err();
    assert!(matches!(error, ChangeError::Unknown { .. }));
}

/// After any reloads and changes, a fresh start with what `config show` prints is the same.
#[test]
fn the_state_is_that_of_a_fresh_start_with_the_effective_configuration() {
    for seed in 0..200 {
        let mut rng = Rng::with_seed(seed);
        let mut declared = Declared::new(file(&["1", "2", "3"]));
        let mut made = 0;
        for _ in 0..30 {
            if rng.u8(..) < 40 {
                let names = ["1", "2", "3", "4", "5"];
                let some: Vec<_> = names.into_iter().filter(|_| rng.bool()).collect();
                if !some.is_empty() {
                    declared = declared.reload(file(&some)).0;
                }
                continue;
            }
            let effective = declared.config().clone();
            let change = random_change(&mut rng);
            // What is refused changes nothing.
            if let Ok(next) = declared.change(&change, rng.bool(), &effective) {
                declared = next;
                made += 1;
            }
            let shown = declared.config().to_ron();
            let (fresh, _) = parse("shown".to_owned(), shown.into()).unwrap();
            assert_eq!(
                Declared::new(fresh).config(),
                declared.config(),
                "seed {seed}"
            );
            assert!(declared.kept.len() < 30 && declared.afloat.is_empty());
        }
        assert!(made > 5, "seed {seed}: {made} changes");
    }
}

fn random_change(rng: &mut Rng) -> Change {
    let name = rng.u8(1..7).to_string();
    let pool = if rng.bool() { "a" } else { "b" }.to_owned();
    let some = |limit: u32| std::num::NonZeroU32::new(limit);
    match rng.u8(..7) {
        0 => add(&name),
        1 => remove(&name),
        2 => weight(&name, rng.u16(..=256)),
        3 => Change::SetBackend {
            pool,
            backend: format!("127.0.0.1:{name}"),
            weight: None,
            max_connections: Some(some(rng.u32(..100))),
            state: Some(AdminState::ALL[rng.usize(..3)].1),
        },
        4 => {
            let strategies = Strategy::all();
            Change::SetPool {
                pool,
                strategy: Some(strategies[rng.usize(..strategies.len())].1.clone()),
                max_connections: Some(some(rng.u32(..100))),
                queue: Some(Queue {
                    max: rng.u32(..100),
                    timeout: std::time::Duration::from_millis(rng.u64(1_000..60_000)),
                }),
            }
        }
        5 => Change::SetListener {
            listener: "l".to_owned(),
            max_connections: some(rng.u32(..100)),
        },
        _ => Change::SetLimit {
            max_connections: some(rng.u32(..100)),
        },
    }
}

#[test]
fn the_last_word_counts_about_who_was_discovered_and_is_declared_now() {
    let declared = Declared::new(file(&["1"]));
    let effective = file(&["1", "2"]);
    let changed = declared.change(&weight("2", 7), true, &effective).unwrap();
    // It holds over a reload, until the file declares it.
    let (kept, _) = changed.reload(file(&["1"]));
    assert_eq!(
        kept.complete(effective.clone()).pools[0].backends[1].weight,
        7
    );
    let (gone, _) = kept.reload(file(&["1", "2"]));
    assert_eq!(gone.complete(gone.config().clone()), file(&["1", "2"]));
    // Or somebody adds it, and then says otherwise.
    let added = changed.change(&add("2"), false, &effective).unwrap();
    assert_eq!(added.complete(added.config().clone()), *added.config());
    // What is not to be kept goes with the next file.
    let passing = declared.change(&weight("2", 7), false, &effective).unwrap();
    let (gone, _) = passing.reload(file(&["1"]));
    assert_eq!(gone.complete(effective.clone()), effective);
}

#[test]
fn a_removal_that_is_not_kept_removes_for_good_what_only_the_api_knew() {
    let declared = Declared::new(file(&["1", "2"]));
    let declared = changed(&declared, &add("3"), true);
    let declared = changed(&declared, &remove("3"), false);
    let (declared, _) = declared.reload(file(&["1", "2"]));
    assert_eq!(weights(&declared), are(&[("1", 1), ("2", 1)]));
}
