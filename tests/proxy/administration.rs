//! Requests to the running program: its configuration, its measurements, changes; and reloads by
//! command and by the file.

use std::fs;

use serde_json::Value;

use crate::balancer::{Balancer, Launch};
use crate::fleet::Fleet;
use crate::stage::{Stage, leave_all};
use crate::watchdog::{eventually, watched};

fn stage(settings: &str, size: usize) -> Stage {
    let fleet = Fleet::of(size);
    let pool = format!("backends: [{}]", fleet.ron(&[]));
    let launch = Launch::with_pool(&pool).settings(settings).workers(2);
    Stage::start(launch, "round_robin", fleet)
}

/// The settings of each backend in a configuration, as the API shows them.
fn declared(balancer: &Balancer) -> Vec<Value> {
    let fields = [
        "pool",
        "name",
        "address",
        "weight",
        "max_connections",
        "backup",
        "group",
        "state",
    ];
    let backends = balancer.ask(&["backends"]);
    let backends = backends.as_array().unwrap().iter();
    let show = |backend: &Value| fields.iter().map(|field| backend[*field].clone()).collect();
    backends.map(show).collect()
}

#[test]
fn what_is_in_force_can_be_saved_and_started_from() {
    watched(|| {
        let stage = stage("shutdown_grace: \"17s\"", 3);
        let names = stage.fleet.addresses();
        let balancer = &stage.balancer;
        balancer.words(&["add", "default", "127.0.0.1:1,weight=0", "--name", "new"]);
        balancer.words(&["set", "backend", &names[0], "--max-connections", "30"]);
        balancer.words(&["weight", &names[1], "5", "--keep"]);
        balancer.words(&["drain", &names[1]]);
        balancer.words(&["remove", &names[2]]);
        balancer.words(&[
            "set",
            "pool",
            "default",
            "--strategy",
            "(name: \"hash\", max_load: 1.5)",
        ]);
        balancer.words(&["set", "global", "--max-connections", "300"]);
        let shown = balancer.words(&["config", "show"]);
        let fresh = Launch::with_config(&shown, 1).workers(2).start();
        assert_eq!(declared(&fresh), declared(balancer));
        let of = |balancer: &Balancer, command: &str, field: &str| {
            let answer = balancer.ask(&[command]);
            let one = answer.get(0).unwrap_or(&answer);
            one[field].clone()
        };
        for (command, field) in [("pools", "strategy"), ("status", "max_connections")] {
            let [old, new] = [balancer, &fresh].map(|its| of(its, command, field));
            assert_eq!(old, new, "{field}");
        }
        assert_eq!(of(&fresh, "status", "max_connections"), 300);
        // This file sets every field, so it is shown as it is.
        assert_eq!(fresh.words(&["config", "show"]), shown);
        fresh.finish();
        stage.finish();
    });
}

#[test]
fn changes_are_written_down() {
    watched(|| {
        let stage = stage("admin: (audit_log: \"audit.log\")", 2);
        let name = stage.fleet.addresses().swap_remove(0);
        stage.balancer.words(&["weight", &name, "9"]);
        stage.balancer.refusal(&["weight", &name, "9999"]);
        stage.balancer.words(&["remove", &name]);
        let twice = stage.fleet.addresses().swap_remove(1);
        stage.balancer.refusal(&["add", "default", &twice]);
        stage.balancer.words(&["sessions", "--kill", "--all"]);
        stage.balancer.words(&["reload"]);
        let path = stage.balancer.dir().join("audit.log");
        let mut lines: Vec<Value> = Vec::new();
        eventually("every change is in the audit log", || {
            let text = fs::read_to_string(&path).unwrap();
            let parse = |line: &str| serde_json::from_str(line).unwrap();
            lines = text
                .split_inclusive('\n')
                .filter(|line| line.ends_with('\n'))
                .map(parse)
                .collect();
            lines.iter().any(|line| line["action"] == "reload")
        });
        let actions: Vec<_> = lines
            .iter()
            .map(|line| (line["action"].as_str(), line["outcome"].as_str()))
            .map(|(action, outcome)| (action.unwrap(), outcome.unwrap()))
            .collect();
        assert_eq!(
            actions,
            [
                ("set_backend", "done"),
                ("remove_backend", "done"),
                ("add_backend", "refused"),
                ("kill", "done"),
                ("reload", "done")
            ],
            "{lines:?}"
        );
        assert_eq!(lines[0]["target"], format!("default/{name}"));
        assert_eq!(lines[0]["old"]["weight"], 1);
        assert_eq!(lines[0]["new"]["weight"], 9);
        assert!(lines.iter().all(|line| line["author"].is_string()));
        stage.finish();
    });
}

#[test]
fn a_broken_file_is_refused_by_the_reload_and_changes_nothing() {
    watched(|| {
        let stage = stage("", 2);
        let before = declared(&stage.balancer);
        stage
            .balancer
            .edit(|file| file.replace("backends: [", "backends: [ ,"));
        let (code, message) = stage.balancer.refusal(&["reload"]);
        assert_eq!(code, Some(1));
        assert!(message.contains("config.ron:"), "{message}");
        let reloads = stage.balancer.ask(&["status"])["reloads"].clone();
        assert_eq!([&reloads["succeeded"], &reloads["failed"]], [0, 1]);
        assert!(
            reloads["last_error"]
                .as_str()
                .unwrap()
                .contains("config.ron:")
        );
        assert_eq!(declared(&stage.balancer), before);
        assert_eq!(stage.balancer.events("reload_failed").len(), 1);
        stage
            .balancer
            .edit(|file| file.replace("backends: [ ,", "backends: ["));
        stage.balancer.words(&["reload"]);
        let reloads = stage.balancer.ask(&["status"])["reloads"].clone();
        assert_eq!([&reloads["succeeded"], &reloads["failed"]], [1, 1]);
        assert_eq!(reloads["last_error"], Value::Null);
        stage.visits(4);
        stage.finish();
    });
}

#[test]
fn reload_on_change_reads_a_changed_file() {
    watched(|| {
        for wanted in [true, false] {
            let mut stage = stage(&format!("reload_on_change: {wanted}"), 3);
            stage.expect_too("first");
            let guests = stage.hold_all(6);
            let change = |file: &str| file.replace("backends:", "strategy: \"first\", backends:");
            stage.balancer.edit(change);
            if wanted {
                stage.balancer.until_logged("reload: snapshot");
                eventually("by the new strategy", || {
                    stage.visits(6).iter().all(|backend| *backend == 0)
                });
                stage
                    .balancer
                    .edit(|file| file.replace("\"first\"", "\"fist\""));
                stage.balancer.until_logged("did you mean `first`?");
                assert_eq!(stage.visits(6), [0; 6]);
            } else {
                std::thread::sleep(std::time::Duration::from_secs(3));
                assert_eq!(stage.balancer.ask(&["status"])["reloads"]["succeeded"], 0);
                assert_eq!(stage.balancer.ask(&["pools"])[0]["strategy"], "round_robin");
            }
            leave_all(guests);
            stage.finish();
        }
    });
}

#[test]
fn a_change_of_the_file_during_a_stop_is_no_failed_reload() {
    watched(|| {
        let mut stage = stage("reload_on_change: true", 1);
        let guests = stage.hold_all(1);
        stage.balancer.process.signal(libc::SIGTERM);
        stage.balancer.until_logged("stopping");
        stage.balancer.edit(|file| format!("{file}\n// changed\n"));
        // The look each second would have seen it.
        std::thread::sleep(std::time::Duration::from_secs(3));
        stage.balancer.process.signal(libc::SIGHUP);
        stage.balancer.until_logged("the file is not read again");
        leave_all(guests);
        assert_eq!(stage.balancer.wait().code(), Some(0));
        let log = stage.balancer.log();
        assert_eq!(log.count("the file is not read again"), 1);
        assert_eq!(log.count("stays in force"), 0, "{}", log.all());
    });
}

#[test]
fn what_was_measured_is_shown() {
    watched(|| {
        let stage = stage("", 2);
        stage.visits(10);
        let count = |name: &str, arguments: &[&str]| {
            let all = stage.balancer.ask(&[&["histograms"], arguments].concat());
            let all = all.as_array().unwrap().iter();
            let named = all.filter(|its| its["name"] == name);
            named.map(|its| its["count"].as_u64().unwrap()).collect()
        };
        let counts: Vec<u64> = count("session", &[]);
        assert_eq!(counts, [10]);
        // Reads twice, with a signal in between: reading does not reset a counter.
        stage.balancer.numbers();
        stage.visits(5);
        let counts: Vec<u64> = count("session", &["--workers"]);
        assert_eq!(
            (counts.len(), counts[0], counts[1..].iter().sum()),
            (3, 15, 15)
        );
        stage.finish();
    });
}

#[test]
fn a_watcher_gets_each_event() {
    watched(|| {
        let stage = stage("", 2);
        let events = stage.balancer.follow();
        let name = stage.fleet.addresses().swap_remove(1);
        stage.balancer.words(&["drain", &name]);
        let changed = events.next("changed");
        assert_eq!(changed["backend"], *name);
        stage.balancer.words(&["remove", &name]);
        let removed = events.next("backend_removed");
        assert!(removed["number"].as_u64() > changed["number"].as_u64());
        stage.balancer.words(&["add", "default", &name]);
        assert_eq!(events.next("backend_added")["backend"], *name);
        drop(events);
        stage.finish();
    });
}
