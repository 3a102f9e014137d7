//! The configuration in force after any reloads and changes.

use std::num::NonZeroU32;
use std::time::Duration;

use fastrand::Rng;

use super::*;
use crate::config::{AdminState, Backend, Discovery, Patch, Strategy, parse};

mod access_lists;
mod routes;

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
        patch: Patch::all(&[("weight", &weight.to_string())]),
    }
}

fn state(backend: &str, state: AdminState) -> Change {
    Change::SetBackend {
        pool: "a".to_owned(),
        backend: format!("127.0.0.1:{backend}"),
        patch: Patch::all(&[("state", state.as_str())]),
    }
}

fn limit(max: Option<u32>) -> Change {
    let max = max.map_or_else(|| "off".to_owned(), |max| max.to_string());
    Change::SetGlobal {
        patch: Patch::all(&[("max_connections", &max)]),
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

/// A file whose pool `a` discovers more.
fn discovering(backends: &[&str]) -> Config {
    let mut file = file(backends);
    file.pools[0].discovery = Some(Discovery::Srv("a.test".to_owned()));
    file
}

/// Adds discovered backends to pool `a`.
fn with<'a>(found: &'a [&str]) -> impl Fn(&Config) -> Config + Copy + 'a {
    move |declared| {
        let mut config = declared.clone();
        let found = found.iter().map(|port| format!("127.0.0.1:{port}"));
        let found = found.map(|at| Backend::at(at.parse().unwrap()));
        config.pools[0].backends.extend(found);
        config
    }
}

/// Applies one more order, which must succeed.
fn changed(declared: &Declared, order: &Change) -> Declared {
    changed_with(declared, order, &[])
}

/// The same, while these backends are discovered.
fn changed_with(declared: &Declared, order: &Change, found: &[&str]) -> Declared {
    let (next, ended) = declared.change(order, with(found)).unwrap();
    assert_eq!(ended, []);
    next
}

/// Weights and states of pool `a` in force while these backends are discovered.
fn in_force(declared: &Declared, found: &[&str]) -> Vec<(u16, AdminState)> {
    let config = declared.complete(with(found)(declared.config()));
    let backends = config.pools[0].backends.iter();
    backends.map(|its| (its.weight, its.state)).collect()
}

/// The messages of the orders that a reload ends.
fn sentences(ended: &[EndedOrder]) -> Vec<&str> {
    ended.iter().map(|ended| &*ended.sentence).collect()
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
fn orders_hold_over_reloads_until_the_entry_in_the_file_changes() {
    let declared = Declared::new(file(&["1", "2"]));
    let declared = changed(&declared, &weight("1", 7));
    let declared = changed(&declared, &state("2", AdminState::Drain));
    let declared = changed(&declared, &add("3"));
    let in_force = are(&[("1", 7), ("2", 1), ("3", 1)]);
    assert_eq!(weights(&declared), in_force);
    // Other backends join and leave.
    let (declared, ended) = declared.reload(file(&["5", "1", "2"]), false);
    assert_eq!(ended, []);
    let (declared, ended) = declared.reload(file(&["1", "2"]), false);
    assert_eq!((ended, weights(&declared)), (vec![], in_force));
    let backend = |declared: &Declared, at: usize| declared.config().pools[0].backends[at].clone();
    assert_eq!(backend(&declared, 1).state, AdminState::Drain);
    // The file changes another setting of one of them.
    let mut other = file(&["1", "2"]);
    other.pools[0].backends[1].weight = 5;
    let (declared, ended) = declared.reload(other.clone(), false);
    assert_eq!(ended, []);
    assert_eq!(weights(&declared), are(&[("1", 7), ("2", 5), ("3", 1)]));
    assert_eq!(backend(&declared, 1).state, AdminState::Drain);
    // The file changes the same setting.
    other.pools[0].backends[1].state = AdminState::Maint;
    let (declared, ended) = declared.reload(other, false);
    let message = "a/127.0.0.1:2 is no longer drained: the file has changed its state; \
                   run `mahoraga drain a/127.0.0.1:2` to drain it again";
    assert_eq!(sentences(&ended), [message]);
    assert_eq!(backend(&declared, 1).state, AdminState::Maint);
}

#[test]
fn of_two_settings_of_an_order_only_the_one_that_the_file_changes_ends() {
    let order = Change::SetPool {
        pool: "a".to_owned(),
        patch: Patch::all(&[("strategy", "random"), ("queue_max", "9")]),
    };
    let declared = changed(&Declared::new(file(&["1"])), &order);
    let mut other = file(&["1"]);
    other.pools[0].strategy = Strategy::LeastConnections;
    let (declared, ended) = declared.reload(other, false);
    let message = "pool a no longer has strategy random: the file has changed its strategy; \
                   run `mahoraga set pool a --strategy random` to set it again";
    assert_eq!(sentences(&ended), [message]);
    assert_eq!(declared.config().pools[0].queue.max, 9);
    let holding = declared.holding().unwrap();
    assert_eq!(
        holding,
        "1 change by command still holds: pool a: queue_max 9"
    );
    // One setting is taken back.
    let declared = changed(&Declared::new(file(&["1"])), &order);
    let back = Change::SetPool {
        pool: "a".to_owned(),
        patch: Patch::all(&[("strategy", "round_robin")]),
    };
    let declared = changed(&declared, &back);
    assert_eq!(declared.holding().unwrap(), holding);
}

#[test]
fn a_file_that_says_what_was_ordered_takes_it_over() {
    let declared = Declared::new(file(&["1", "2"]));
    let declared = changed(&declared, &weight("1", 7));
    let declared = changed(&declared, &add("3"));
    let declared = changed(&declared, &remove("2"));
    let shown = parse("f".to_owned(), declared.config().to_ron().into()).unwrap();
    let (mut declared, ended) = declared.reload(shown.0.clone(), false);
    assert_eq!((ended, declared.orders.len()), (vec![], 0));
    assert_eq!(*declared.config(), shown.0);
    let agreed = "3 changes by command are in the file now: a/127.0.0.1:1: weight 7; \
                  a/127.0.0.1:3: added; a/127.0.0.1:2: removed";
    assert_eq!(declared.take_agreed().as_deref(), Some(agreed));
    assert_eq!((declared.take_agreed(), declared.holding()), (None, None));
}

#[test]
fn an_order_is_taken_back_by_one_that_makes_things_as_the_file_has_them() {
    let first = Declared::new(file(&["1", "2"]));
    for (order, back) in [
        (weight("1", 7), weight("1", 1)),
        (state("1", AdminState::Maint), state("1", AdminState::Ready)),
        (add("3"), remove("3")),
        (remove("2"), add("2")),
        (limit(Some(9)), limit(None)),
    ] {
        let ordered = changed(&first, &order);
        assert_eq!(ordered.orders.len(), 1, "{order:?}");
        let back = changed(&ordered, &back);
        assert_eq!(back.orders, [], "{order:?}");
        assert_eq!(back.config(), first.config(), "{order:?}");
    }
}

#[test]
fn limits_and_pools_hold_until_the_file_changes_them() {
    let set_pool = |max: u32| Change::SetPool {
        pool: "a".to_owned(),
        patch: Patch::all(&[
            ("strategy", "random"),
            ("max_connections", &max.to_string()),
        ]),
    };
    let declared = Declared::new(file(&["1", "2"]));
    let declared = changed(&declared, &limit(Some(9)));
    let declared = changed(&declared, &set_pool(5));
    let (declared, ended) = declared.reload(file(&["1", "2", "3"]), false);
    assert_eq!(ended, []);
    assert_eq!(declared.config().pools[0].strategy, Strategy::Random);
    let mut other = file(&["1", "2", "3"]);
    other.pools[0].max_connections = NonZeroU32::new(77);
    other.max_connections = NonZeroU32::new(66);
    let (declared, ended) = declared.reload(other, false);
    let message = [
        "global no longer has max_connections 9: the file has changed its max_connections; \
         run `mahoraga set global --max-connections 9` to set it again",
        "pool a no longer has max_connections 5: the file has changed its max_connections; \
         run `mahoraga set pool a --max-connections 5` to set it again",
    ];
    assert_eq!(sentences(&ended), message);
    assert_eq!(declared.config().max_connections, NonZeroU32::new(66));
}

#[test]
fn a_removal_holds_and_leaves_no_trace_of_what_the_api_added() {
    let declared = Declared::new(file(&["1", "2"]));
    let mut declared = changed(&declared, &remove("1"));
    for _ in 0..100 {
        declared = changed(&declared, &add("3"));
        declared = changed(&declared, &weight("3", 5));
        declared = changed(&declared, &remove("3"));
    }
    assert_eq!(declared.orders, [remove("1")]);
    let holding = "1 change by command still holds: a/127.0.0.1:1: removed";
    assert_eq!(declared.holding().as_deref(), Some(holding));
    let (declared, ended) = declared.reload(file(&["1", "2", "4"]), false);
    assert_eq!(
        (ended, weights(&declared)),
        (vec![], are(&[("2", 1), ("4", 1)]))
    );
    // The file has removed the backend too: when it returns later the order does not apply.
    let (mut declared, ended) = declared.reload(file(&["2"]), false);
    assert_eq!((ended, declared.orders.len()), (vec![], 0));
    let agreed = "1 change by command is in the file now: a/127.0.0.1:1: removed";
    assert_eq!(declared.take_agreed().as_deref(), Some(agreed));
    let (declared, _) = declared.reload(file(&["1", "2"]), false);
    assert_eq!(weights(&declared), are(&[("1", 1), ("2", 1)]));
    // A removal ends when the file changes the entry.
    let declared = changed(&declared, &remove("1"));
    let mut other = file(&["1", "2"]);
    other.pools[0].backends[0].weight = 4;
    let (_, ended) = declared.reload(other, false);
    let message = "a/127.0.0.1:1 is no longer removed: the file has changed its weight; \
                   run `mahoraga remove a/127.0.0.1:1` to remove it again";
    assert_eq!(sentences(&ended), [message]);
}

#[test]
fn a_backend_that_the_file_lists_as_it_was_not_added_is_named_once() {
    let declared = changed(&Declared::new(file(&["1"])), &add("2"));
    let declared = changed(&declared, &weight("2", 7));
    assert_eq!(weights(&declared), are(&[("1", 1), ("2", 7)]));
    let (reloaded, ended) = declared.reload(file(&["1", "2"]), false);
    let message = "a/127.0.0.1:2 is no longer added by a command: \
                   the file lists it now, with its own settings";
    assert_eq!(sentences(&ended), [message]);
    assert_eq!(weights(&reloaded), are(&[("1", 1), ("2", 1)]));
}

#[test]
fn a_command_to_give_an_order_again_is_quoted_for_a_shell() {
    let named = |weight: u16| {
        let mut config = file(&["1", "2"]);
        config.pools[0].backends[0].name = "x y; it's".to_owned();
        config.pools[0].backends[0].weight = weight;
        config
    };
    let patch = Patch::of("weight", "3").unwrap();
    let order = Change::SetBackend {
        pool: "a".to_owned(),
        backend: "x y; it's".to_owned(),
        patch,
    };
    let declared = changed(&Declared::new(named(1)), &order);
    let (_, ended) = declared.reload(named(5), false);
    let command = r"run `mahoraga set backend 'a/x y; it'\''s' --weight 3` to set it again";
    assert!(sentences(&ended)[0].ends_with(command), "{ended:?}");
}

#[test]
fn of_an_order_that_became_invalid_only_the_invalid_setting_ends() {
    let declared = Declared::new(file(&["1", "2"]));
    let declared = changed(&declared, &state("1", AdminState::Drain));
    let declared = changed(&declared, &weight("1", 0));
    let (declared, ended) = declared.reload(file(&["1"]), false);
    let message = "a/127.0.0.1:1 no longer has weight 0: pool `a`: backends: every weight is 0";
    assert_eq!(ended.len(), 1);
    assert!(ended[0].sentence.starts_with(message), "{ended:?}");
    assert_eq!(in_force(&declared, &[]), [(1, AdminState::Drain)]);
    let (declared, ended) = declared.reload(file(&["1", "2"]), false);
    assert_eq!(ended, []);
    assert_eq!(in_force(&declared, &[])[0], (1, AdminState::Drain));
}

#[test]
fn a_backend_that_can_not_stay_removed_is_drained() {
    let declared = Declared::new(file(&["1", "2"]));
    let declared = changed(&declared, &remove("1"));
    let (declared, ended) = declared.reload(file(&["1"]), false);
    assert_eq!(ended.len(), 1);
    let sentence = &ended[0].sentence;
    assert!(
        sentence.starts_with("a/127.0.0.1:1 is no longer removed: "),
        "{sentence}"
    );
    assert!(sentence.ends_with("; it is drained instead"), "{sentence}");
    assert_eq!(in_force(&declared, &[]), [(1, AdminState::Drain)]);
}

#[test]
fn an_order_that_has_no_place_any_more_ends_and_is_named() {
    let declared = Declared::new(file(&["1", "2"]));
    let declared = changed(&declared, &weight("2", 7));
    let (declared, ended) = declared.reload(file(&["1"]), false);
    let message = "a/127.0.0.1:2 no longer has weight 7: the file no longer lists it";
    assert_eq!(sentences(&ended), [message]);
    let (declared, ended) = declared.reload(file(&["1", "2"]), false);
    assert_eq!(
        (ended, weights(&declared)),
        (vec![], are(&[("1", 1), ("2", 1)]))
    );
    // The order would make the file invalid.
    let declared = changed(&declared, &weight("1", 0));
    let (declared, ended) = declared.reload(file(&["1"]), false);
    assert_eq!((ended.len(), weights(&declared)), (1, are(&[("1", 1)])));
}

/// A value may come from elsewhere than the text: the comparison is with the text alone.
#[test]
fn the_same_text_ends_nothing() {
    let declared = Declared::new(file(&["1", "2"]));
    let declared = changed(&declared, &weight("2", 7));
    let mut moved = file(&["1", "2"]);
    moved.pools[0].backends[1].weight = 3;
    let (same, ended) = declared.reload(moved.clone(), true);
    assert_eq!((ended, weights(&same)), (vec![], weights(&declared)));
    let (_, ended) = declared.reload(moved, false);
    assert_eq!(ended.len(), 1);
}

#[test]
fn a_discovered_backend_can_be_changed_and_not_removed() {
    use AdminState::Ready;
    let declared = Declared::new(discovering(&["1"]));
    let set = changed_with(&declared, &weight("2", 7), &["2"]);
    assert_eq!(weights(&set), are(&[("1", 1)]));
    let error = declared.change(&remove("2"), with(&["2"])).unwrap_err();
    assert!(error.to_string().contains("discovered"), "{error}");
    let error = declared.change(&remove("3"), with(&["2"])).unwrap_err();
    assert!(matches!(error, ChangeError::Unknown { .. }));
    assert_eq!(in_force(&set, &["2"]), [(1, Ready), (7, Ready)]);
}

#[test]
fn an_order_about_a_discovered_backend_holds_while_the_backend_is_away() {
    use AdminState::{Maint, Ready};
    let declared = Declared::new(discovering(&["1"]));
    let declared = changed_with(&declared, &state("2", Maint), &["2", "3"]);
    // Other orders are given meanwhile.
    assert_eq!(in_force(&declared, &["3"]), [(1, Ready); 2]);
    let declared = changed_with(&declared, &weight("3", 7), &["3"]);
    let declared = changed_with(&declared, &weight("1", 5), &["3"]);
    let (declared, ended) = declared.reload(discovering(&["1", "4"]), false);
    assert_eq!(ended, []);
    let want = [(5, Ready), (1, Ready), (1, Maint), (7, Ready)];
    assert_eq!(in_force(&declared, &["2", "3"]), want);
    let comments = declared.comments();
    let comments: Vec<_> = comments.lines().skip(1).collect();
    assert_eq!(
        comments,
        ["// a/127.0.0.1:2: maint", "// a/127.0.0.1:3: weight 7"]
    );
    let (saved, _) = parse(
        "f".to_owned(),
        (declared.comments() + &declared.config().to_ron()).into(),
    )
    .unwrap();
    assert_eq!(saved, *declared.config());
    // Orders that are taken back leave no trace.
    let declared = changed_with(&declared, &state("2", Ready), &["2", "3"]);
    let declared = changed_with(&declared, &weight("3", 1), &["2", "3"]);
    assert_eq!(
        (declared.floating.len(), declared.comments()),
        (0, String::new())
    );
}

#[test]
fn an_order_ends_with_the_discovery_of_its_pool() {
    let declared = Declared::new(discovering(&["1"]));
    let declared = changed_with(&declared, &weight("2", 7), &["2"]);
    let (declared, ended) = declared.reload(file(&["1"]), false);
    let message = "a/127.0.0.1:2 no longer has weight 7: its pool discovers no backends now";
    assert_eq!(sentences(&ended), [message]);
    assert_eq!(declared.floating, []);
}

#[test]
fn orders_about_too_many_backends_that_are_away_end_the_oldest_first() {
    let mut declared = Declared::new(discovering(&["9999"]));
    let ports = 1..=AWAY_MAX + 2;
    declared.floating = ports.map(|port| weight(&port.to_string(), 7)).collect();
    // The first one is not away.
    let last = (AWAY_MAX + 3).to_string();
    let found = ["1", &last];
    let (declared, ended) = declared.change(&weight(&last, 7), with(&found)).unwrap();
    let message = "a/127.0.0.1:2 no longer has weight 7: it is away, and only the last 1000 such \
                   orders are kept";
    assert_eq!(sentences(&ended), [message]);
    let ready = AdminState::Ready;
    assert_eq!(
        in_force(&declared, &["1", "2", "3"])[1..],
        [(7, ready), (1, ready), (7, ready)]
    );
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
                    declared = declared.reload(file(&some), false).0;
                }
                continue;
            }
            let change = random_change(&mut rng);
            // A refused change has no effect.
            if let Ok((next, _)) = declared.change(&change, Config::clone) {
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
            assert!(declared.orders.len() < 40 && declared.floating.is_empty());
        }
        assert!(made > 5, "seed {seed}: {made} changes");
    }
}

fn random_change(rng: &mut Rng) -> Change {
    let name = rng.u8(1..7).to_string();
    let pool = if rng.bool() { "a" } else { "b" }.to_owned();
    let limit = match rng.u32(..100) {
        0 => "off".to_owned(),
        limit => limit.to_string(),
    };
    match rng.u8(..7) {
        0 => add(&name),
        1 => remove(&name),
        2 => weight(&name, rng.u16(..=256)),
        3 => Change::SetBackend {
            pool,
            backend: format!("127.0.0.1:{name}"),
            patch: Patch::all(&[
                ("max_connections", &limit),
                ("state", AdminState::ALL[rng.usize(..3)].0),
            ]),
        },
        4 => {
            let strategies = Strategy::all();
            Change::SetPool {
                pool,
                patch: Patch::all(&[
                    ("strategy", strategies[rng.usize(..strategies.len())].0),
                    ("max_connections", &limit),
                    ("queue_max", &rng.u32(..100).to_string()),
                    ("queue_timeout", &format!("{}ms", rng.u64(1_000..60_000))),
                ]),
            }
        }
        5 => Change::SetListener {
            listener: "l".to_owned(),
            patch: Patch::all(&[("max_connections", &limit)]),
        },
        _ => Change::SetGlobal {
            patch: Patch::all(&[("max_connections", &limit)]),
        },
    }
}

/// Changes of two operators to one half each are both kept.
#[test]
fn both_halves_of_a_queue_are_kept() {
    let half = |name, value| Change::SetPool {
        pool: "a".to_owned(),
        patch: Patch::all(&[(name, value)]),
    };
    let declared = Declared::new(file(&["1"]));
    let declared = changed(&declared, &half("queue_max", "3"));
    let declared = changed(&declared, &half("queue_timeout", "4s"));
    let (reloaded, ended) = declared.reload(file(&["1", "2"]), false);
    assert_eq!(ended, []);
    for config in [declared.config(), reloaded.config()] {
        let queue = config.pool("a").unwrap().queue;
        assert_eq!((queue.max, queue.timeout), (3, Duration::from_secs(4)));
    }
}

#[test]
fn the_last_order_counts_for_a_backend_that_is_declared_after_discovery() {
    let declared = Declared::new(discovering(&["1"]));
    let changed = changed_with(&declared, &weight("2", 7), &["2"]);
    let (gone, ended) = changed.reload(discovering(&["1", "2"]), false);
    assert_eq!(in_force(&gone, &[]), [(1, AdminState::Ready); 2]);
    let message = "a/127.0.0.1:2 no longer has weight 7: the file lists it now; \
                   run `mahoraga set backend a/127.0.0.1:2 --weight 7` to set it again";
    assert_eq!(sentences(&ended), [message]);
    // An added backend replaces the order for the discovered one.
    let added = changed_with(&changed, &add("2"), &["2"]);
    assert_eq!(added.complete(added.config().clone()), *added.config());
}

#[test]
fn a_reload_keeps_every_pool_that_is_as_before() {
    let same = |one: &Declared, other: &Declared| -> Vec<bool> {
        let both = one.config.pools.iter().zip(&other.config.pools);
        both.map(|(one, other)| Shared::is_same(one, other))
            .collect()
    };
    let declared = Declared::new(file(&["1", "2"]));
    let (next, _) = declared.reload(file(&["1", "2"]), false);
    assert_eq!(same(&declared, &next), [true, true]);
    // So does one that is not as the file has it.
    let declared = changed(&next, &weight("1", 7));
    assert_eq!(same(&next, &declared), [false, true]);
    let (next, ended) = declared.reload(file(&["1", "2"]), false);
    assert_eq!((same(&declared, &next), ended), (vec![true, true], vec![]));
    let (next, _) = declared.reload(file(&["1", "2", "3"]), false);
    assert_eq!(same(&declared, &next), [false, false]);
}
