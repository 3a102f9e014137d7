//! Backends, strategies and limits changed by the command line while clients come and go.

use std::io::Read;
use std::net::Shutdown;
use std::thread;

use crate::balancer::Launch;
use crate::fleet::Fleet;
use crate::peers::{connect, ping};
use crate::stage::{Guest, Stage, leave_all, tally};
use crate::watchdog::{eventually, watched};

/// A stage with this many of its backends in the file, and the names of all.
fn stage(fields: &str, size: usize, in_file: usize) -> (Stage, Vec<String>) {
    let fleet = Fleet::of(size);
    let names = fleet.addresses();
    let backends: Vec<_> = names[..in_file]
        .iter()
        .map(|its| format!("\"{its}\""))
        .collect();
    let pool = format!("{fields} backends: [{}]", backends.join(", "));
    let launch = Launch::with_pool(&pool).workers(2);
    (Stage::start(launch, "round_robin", fleet), names)
}

/// The number of clients of each backend, of this many.
fn visited(stage: &Stage, clients: usize) -> Vec<usize> {
    tally(stage.fleet.len(), stage.visits(clients))
}

/// Clients come until one reaches this backend: the control thread answers before the last worker
/// has applied a change.
fn until_visited(stage: &Stage, backend: usize) {
    eventually("it is visited", || stage.visit() == backend);
}

fn change(stage: &Stage, arguments: &[&str]) {
    stage.balancer.words(arguments);
    stage.balancer.until_adopted();
}

#[test]
fn a_backend_joins_and_leaves_and_its_sessions_go_on() {
    watched(|| {
        let (stage, names) = stage("", 3, 2);
        change(&stage, &["add", "default", &names[2]]);
        until_visited(&stage, 2);
        let guests = stage.hold_all(12);
        let (mut stay, leave): (Vec<_>, Vec<_>) =
            guests.into_iter().partition(|guest| guest.backend == 2);
        leave_all(leave);
        assert!(!stay.is_empty());
        change(&stage, &["remove", &names[2]]);
        let leaving = stage.balancer.backend(&names[2]);
        assert!(leaving["leaving"] == true && leaving["in_rotation"] == false);
        assert_eq!(leaving["connections"], stay.len());
        assert_eq!(visited(&stage, 20)[2], 0);
        for guest in &mut stay {
            ping(&mut guest.stream, b"still there");
        }
        let waits = stage.balancer.refusal(&["remove", &names[2]]);
        assert_eq!(waits.0, Some(1), "it is removed already");
        leave_all(stay);
        eventually("it is unknown", || {
            stage.balancer.find_backend(&names[2]).is_none()
        });
        stage.finish();
    });
}

#[test]
fn a_drain_holds_where_a_changed_file_makes_a_weight_invalid() {
    watched(|| {
        let fleet = Fleet::of(2);
        let names = fleet.addresses();
        let [kept, gone] = [0, 1].map(|place| format!("\"{}\"", names[place]));
        let launch = Launch::with_pool(&format!("backends: [{kept}, {gone}]"));
        let balancer = launch.start();
        balancer.ask(&["drain", &names[0]]);
        let limit = ["set", "backend", &names[0], "--max-connections", "7"];
        balancer.ask(&limit);
        balancer.ask(&["weight", &names[0], "0"]);
        balancer.edit(|file| file.replace(&format!("{kept}, {gone}"), &kept));
        let notes = balancer.ask(&["reload"])["notes"].to_string();
        assert!(notes.contains("no longer has weight 0"), "{notes}");
        let backend = balancer.backend(&names[0]);
        assert_eq!(backend["state"], "drain");
        assert_eq!(backend["max_connections"], 7);
        assert_eq!(backend["weight"], 1);
        balancer.finish();
    });
}

#[test]
fn weight_is_the_share() {
    watched(|| {
        let (stage, names) = stage("", 2, 2);
        change(&stage, &["weight", &names[0], "0"]);
        assert_eq!(visited(&stage, 12), [0, 12]);
        change(&stage, &["weight", &names[0], "3"]);
        let visits = visited(&stage, 80);
        // Each worker begins at its own place in the round.
        assert!(visits[0].abs_diff(60) <= 4, "{visits:?}");
        assert_eq!(stage.balancer.backend(&names[0])["weight"], 3);
        stage.finish();
    });
}

#[test]
fn drain_keeps_sessions_and_takes_no_more() {
    watched(|| {
        let (stage, names) = stage("", 2, 2);
        let mut guests = stage.hold_all(8);
        change(&stage, &["drain", &names[0]]);
        assert_eq!(stage.balancer.backend(&names[0])["state"], "drain");
        assert_eq!(visited(&stage, 12), [0, 12]);
        for guest in &mut guests {
            ping(&mut guest.stream, b"still there");
        }
        thread::scope(|scope| {
            let wait = scope.spawn(|| {
                stage.balancer.words(&["drain", &names[0], "--wait=20s"]);
            });
            assert!(!wait.is_finished());
            leave_all(guests);
        });
        assert_eq!(stage.balancer.backend(&names[0])["connections"], 0);
        let again = stage.balancer.ask(&["drain", &names[0]]);
        assert_eq!(again["changed"], false);
        let last = stage.balancer.ask(&["drain", &names[1]]);
        assert_eq!(last["changed"], true);
        let note = last["notes"][0].as_str().unwrap();
        let want =
            "pool `default` has no usable backend: new sessions fail until one of 2 is usable";
        assert_eq!(note, want);
        assert_eq!(stage.balancer.ask(&["status"])["alerts"][0], want);
        let changed = stage.balancer.events("changed");
        assert_eq!(changed.len(), 2, "{changed:?}");
        assert_eq!(stage.balancer.events("pool_down").len(), 1);
        change(&stage, &["ready", &names[1]]);
        assert_eq!(stage.balancer.events("pool_up").len(), 1);
        assert!(
            stage.balancer.ask(&["status"])["alerts"]
                .as_array()
                .unwrap()
                .is_empty()
        );
        change(&stage, &["ready", &names[0]]);
        until_visited(&stage, 0);
        change(&stage, &["maint", &names[0]]);
        assert_eq!(stage.balancer.backend(&names[0])["state"], "maint");
        assert_eq!(visited(&stage, 12), [0, 12]);
        change(&stage, &["ready", &names[0]]);
        until_visited(&stage, 0);
        stage.finish();
    });
}

#[test]
fn waiting_for_a_drain_has_an_end() {
    watched(|| {
        let (stage, names) = stage("", 1, 1);
        let guest = stage.hold();
        let drain = ["drain", &names[0], "--wait=200ms"];
        let (code, message) = stage.balancer.refusal(&drain);
        assert_eq!(code, Some(1));
        assert!(message.contains("1 connection"), "{message}");
        leave_all([guest]);
        stage.finish();
    });
}

#[test]
fn a_pool_goes_over_to_another_strategy() {
    watched(|| {
        let (mut stage, _) = stage("", 3, 3);
        assert!(visited(&stage, 12).iter().all(|visits| *visits > 0));
        stage.expect_too("first");
        change(&stage, &["set", "pool", "default", "--strategy", "first"]);
        assert_eq!(visited(&stage, 12), [12, 0, 0]);
        assert_eq!(stage.balancer.ask(&["pools"])[0]["strategy"], "first");
        let wrong = ["set", "pool", "default", "--strategy", "fist"];
        let (code, message) = stage.balancer.refusal(&wrong);
        assert_eq!(code, Some(2));
        assert!(message.contains("did you mean `first`?"), "{message}");
        stage.finish();
    });
}

/// This many clients are served at a time, and others are refused.
fn served(stage: &Stage, clients: usize) -> Vec<Guest> {
    let come = |_| Guest::try_come(stage.balancer.address());
    (0..clients).filter_map(come).collect()
}

#[test]
fn limits_of_backends_and_pools() {
    watched(|| {
        let (stage, names) = stage("queue: (max: 0),", 2, 2);
        change(
            &stage,
            &["set", "backend", &names[0], "--max-connections", "2"],
        );
        change(
            &stage,
            &["set", "pool", "default", "--max-connections", "5"],
        );
        assert_eq!(stage.balancer.backend(&names[0])["max_connections"], 2);
        assert_eq!(stage.balancer.ask(&["pools"])[0]["max_connections"], 5);
        let guests = served(&stage, 9);
        assert_eq!(guests.len(), 5);
        assert_eq!(stage.fleet.held_max()[0], 2);
        leave_all(guests);
        change(
            &stage,
            &["set", "pool", "default", "--max-connections", "off"],
        );
        let guests = served(&stage, 9);
        assert_eq!(guests.len(), 9);
        leave_all(guests);
        // With a queue no client is refused.
        change(
            &stage,
            &["set", "pool", "default", "--max-connections", "1"],
        );
        let queue = [
            "set",
            "pool",
            "default",
            "--queue-max",
            "3",
            "--queue-timeout",
            "1m",
        ];
        change(&stage, &queue);
        let first = stage.hold();
        let second = connect(stage.balancer.address());
        eventually("it waits", || {
            stage.balancer.ask(&["pools"])[0]["queued"] == 1
        });
        leave_all([first]);
        leave_all([Guest::welcome(second)]);
        stage.finish();
    });
}

#[test]
fn limits_of_clients() {
    watched(|| {
        let (stage, _) = stage("", 1, 1);
        let listener = stage.balancer.ask(&["listeners"])[0]["name"].clone();
        let listener = listener.as_str().unwrap();
        change(
            &stage,
            &["set", "listener", listener, "--max-connections", "2"],
        );
        let mut guests = stage.hold_all(2);
        let third = connect(stage.balancer.address());
        let waits = || {
            third.set_nonblocking(true).unwrap();
            let waits = third.peek(&mut [0]).is_err();
            third.set_nonblocking(false).unwrap();
            waits
        };
        thread::sleep(std::time::Duration::from_millis(200));
        assert!(waits());
        change(
            &stage,
            &["set", "listener", listener, "--max-connections", "off"],
        );
        eventually("it is served", || !waits());
        let limit = stage.balancer.ask(&["status"])["max_connections"].clone();
        assert!(limit.as_u64().unwrap() > 4);
        change(&stage, &["set", "global", "--max-connections", "4"]);
        assert_eq!(stage.balancer.ask(&["status"])["max_connections"], 4);
        guests.push(Guest::welcome(third));
        guests.push(stage.hold());
        let fifth = connect(stage.balancer.address());
        thread::sleep(std::time::Duration::from_millis(200));
        assert_eq!(stage.fleet.held(), [4]);
        leave_all(guests);
        leave_all([Guest::welcome(fifth)]);
        stage.finish();
    });
}

/// The weights of backends, by name; `None`: it takes no clients, or is not there.
fn weights(stage: &Stage, names: &[String]) -> Vec<Option<u64>> {
    let weight = |name: &String| {
        let backend = stage.balancer.find_backend(name);
        let backend = backend.filter(|its| its["leaving"] == false && its["state"] == "ready");
        backend?["weight"].as_u64()
    };
    names.iter().map(weight).collect()
}

#[test]
fn what_changes_nothing_publishes_no_version() {
    watched(|| {
        let (stage, names) = stage("", 2, 2);
        let name = &names[1];
        change(&stage, &["drain", name]);
        change(&stage, &["weight", name, "7"]);
        let version = stage.balancer.ask(&["status"])["snapshot"].clone();
        stage.balancer.edit(|text| format!("// A comment.\n{text}"));
        for again in [&["drain", name][..], &["weight", name, "7"], &["reload"]] {
            let answer = stage.balancer.ask(again);
            assert_eq!(answer["snapshot"], version, "{again:?}");
            assert_eq!(answer["changed"], false, "{again:?}");
        }
        stage.finish();
    });
}

#[test]
fn rotating_logs_ends_nothing_that_was_ordered() {
    watched(|| {
        let (stage, names) = stage("", 4, 3);
        change(&stage, &["add", "default", &names[3]]);
        change(&stage, &["weight", &names[0], "7"]);
        change(&stage, &["drain", &names[1]]);
        change(&stage, &["remove", &names[2]]);
        let ordered = [Some(7), None, None, Some(1)];
        assert_eq!(weights(&stage, &names), ordered);
        let version = stage.balancer.ask(&["status"])["snapshot"].clone();
        let guests = stage.hold_all(20);
        for round in 1..=3 {
            stage.balancer.process.signal(libc::SIGHUP);
            eventually("nothing has changed", || {
                stage.balancer.log().count("reload: nothing has changed") == round
            });
        }
        assert_eq!(stage.balancer.ask(&["status"])["snapshot"], version);
        assert_eq!(weights(&stage, &names), ordered);
        assert_eq!(visited(&stage, 27)[1..3], [0, 0]);
        leave_all(guests);
        stage.finish();
    });
}

#[test]
fn orders_hold_over_reloads_until_the_entry_in_the_file_changes() {
    watched(|| {
        let (stage, names) = stage("", 4, 3);
        change(&stage, &["weight", &names[0], "7"]);
        change(&stage, &["drain", &names[1]]);
        change(&stage, &["add", "default", &names[3]]);
        // A half-edited file changes nothing.
        stage.balancer.edit(|file| format!("{file} ,"));
        assert_eq!(stage.balancer.refusal(&["reload"]).0, Some(1));
        let ordered = [Some(7), None, Some(1), Some(1)];
        assert_eq!(weights(&stage, &names), ordered);
        // The file changes elsewhere: the orders stay.
        stage.balancer.edit(|file| file.replace(" ,", ""));
        let third = format!("\"{}\"", names[2]);
        let heavier = format!("(address: {third}, weight: 3)");
        stage.balancer.edit(|file| file.replace(&third, &heavier));
        let message = stage.balancer.words(&["reload"]);
        let holding = "3 changes by command still hold: ";
        assert!(
            message.lines().nth(1).unwrap().starts_with(holding),
            "{message}"
        );
        let ordered = [Some(7), None, Some(3), Some(1)];
        assert_eq!(weights(&stage, &names), ordered);
        // The file changes the setting of an order: that order ends.
        let second = format!("\"{}\"", names[1]);
        let heavier = format!("(address: {second}, weight: 2, state: \"maint\")");
        stage.balancer.edit(|file| file.replace(&second, &heavier));
        let message = stage.balancer.words(&["reload"]);
        let holding = "2 changes by command still hold: ";
        assert!(
            message.lines().nth(1).unwrap().starts_with(holding),
            "{message}"
        );
        let ended = format!(
            "default/{} is no longer drained: the file has changed",
            names[1]
        );
        stage.balancer.until_logged(&ended);
        assert_eq!(stage.balancer.log().count_unaudited(&ended), 1);
        let ordered = [Some(7), None, Some(3), Some(1)];
        assert_eq!(weights(&stage, &names), ordered);
        // The settings in force are those of a fresh start.
        let shown = stage.balancer.words(&["config", "show"]);
        stage.balancer.edit(|_| shown.clone());
        let message = stage.balancer.words(&["reload"]);
        let agreed = "2 changes by command are in the file now: ";
        assert!(
            message.lines().nth(1).unwrap().starts_with(agreed),
            "{message}"
        );
        assert_eq!(weights(&stage, &names), ordered);
        stage.finish();
    });
}

#[test]
fn sessions_are_listed_and_killed() {
    watched(|| {
        let (stage, names) = stage("", 2, 2);
        let mut guests = stage.hold_all(6);
        guests.push(stage.call(crate::stage::source(3), b""));
        let list = |filter: &[&str]| -> Vec<serde_json::Value> {
            let sessions = stage.balancer.ask(&[&["sessions"], filter].concat());
            sessions.as_array().unwrap().clone()
        };
        assert_eq!(list(&[]).len(), 7);
        assert_eq!(list(&["--limit", "3"]).len(), 3);
        let (_, unknown) = stage.balancer.refusal(&["sessions", "--pool", "other"]);
        assert!(unknown.contains("no pool called `other`"), "{unknown}");
        let one = list(&["--client", "127.0.0.5"]);
        assert_eq!(one.len(), 1);
        let guest = guests.pop().unwrap();
        let address = guest.stream.local_addr().unwrap().to_string();
        assert_eq!(one[0]["client"], address);
        assert_eq!(one[0]["backend"], names[guest.backend]);
        assert_eq!(one[0]["state"], "open");
        let killed = stage
            .balancer
            .ask(&["sessions", "--kill", one[0]["id"].as_str().unwrap()]);
        assert_eq!(killed["sessions"], 1);
        expect_gone(guest);
        let (gone, stay): (Vec<_>, Vec<_>) =
            guests.into_iter().partition(|guest| guest.backend == 0);
        let of = list(&["--backend", &names[0]]);
        assert_eq!(of.len(), gone.len());
        let killed = ["sessions", "--kill", "--backend", &names[0]];
        let killed = stage.balancer.ask(&killed);
        assert_eq!(killed["sessions"], gone.len());
        let count = gone.len() + 1;
        gone.into_iter().for_each(expect_gone);
        for mut guest in stay {
            ping(&mut guest.stream, b"still there");
            guest.leave();
        }
        let lines = stage.lines();
        let killed = lines.iter().filter(|line| line.reason == "killed");
        assert_eq!(killed.count(), count);
        stage.finish();
    });
}

/// The order closed its session, in order or by a reset.
fn expect_gone(mut guest: Guest) {
    let read = guest.stream.read(&mut [0]);
    assert!(read.map_or(true, |read| read == 0));
    // A client that has left has no session to close.
    let _ = guest.stream.shutdown(Shutdown::Both);
}
