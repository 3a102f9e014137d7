//! Too few usable backends: the probes may be wrong.

use std::io::Read;

use crate::access_log::key_values;
use crate::balancer::{Balancer, Launch};
use crate::fleet::Fleet;
use crate::peers;
use crate::watchdog::{eventually, watched};

/// A fleet with probes, some of whose backends fail them.
fn with_down(fields: &str, size: usize, down: usize) -> (Fleet, Balancer) {
    let fleet = Fleet::of(size);
    let pool = format!(
        "{fields} ejection: \"off\", \
         check: (type: \"tcp\", interval: \"100ms\", fall: 2), backends: [{}]",
        fleet.ron(&[])
    );
    let balancer = Launch::with_pool(&pool).workers(2).start();
    eventually("it is ready", || balancer.http_status("/readyz") == 200);
    (0..down).for_each(|number| fleet.stop(number));
    until_down(&balancer, down);
    (fleet, balancer)
}

fn until_down(balancer: &Balancer, down: usize) {
    eventually(&format!("{down} are down"), || {
        let backends = balancer.ask(&["backends"]);
        let backends = backends.as_array().unwrap().iter();
        backends.filter(|its| its["health"] == "down").count() == down
    });
}

/// Clients that come and go, served or not.
fn visit(balancer: &Balancer, times: usize) {
    for _ in 0..times {
        // Without a usable backend the connection ends, or is reset.
        let _ = peers::try_connect(balancer.address()).map(|mut its| its.read(&mut [0]));
    }
}

/// The number of backends that this many clients tried.
fn tried(balancer: &Balancer, clients: usize) -> usize {
    let opened = || -> Vec<_> {
        let backends = balancer.ask(&["backends"]);
        let backends = backends.as_array().unwrap().iter();
        backends.map(|its| its["opened"].as_u64()).collect()
    };
    let before = opened();
    visit(balancer, clients);
    let pairs = before.into_iter().zip(opened());
    pairs.filter(|(before, after)| before < after).count()
}

fn panics(balancer: &Balancer) -> bool {
    balancer.ask(&["pools"])[0]["panic"].as_bool().unwrap()
}

#[test]
fn below_half_the_pool_panics_and_logs_it() {
    watched(|| {
        let (fleet, balancer) = with_down("", 10, 5);
        assert!(!panics(&balancer));
        assert_eq!(tried(&balancer, 30), 5);
        let events = balancer.follow();
        fleet.stop(5);
        assert_eq!(events.next("panic")["pool"], "default");
        assert!(panics(&balancer));
        let message = "WARN ] pool `default` panics: 4 of 10 backends are usable";
        balancer.until_logged(message);
        assert_eq!(tried(&balancer, 60), 10);
        (0..6).for_each(|number| fleet.start(number));
        events.next("panic_over");
        until_down(&balancer, 0);
        assert!(!panics(&balancer));
        assert_eq!(balancer.log().count(message), 1);
        drop(events);
        balancer.finish();
    });
}

#[test]
fn zero_is_never() {
    watched(|| {
        let (_fleet, balancer) = with_down("panic_below: 0,", 4, 3);
        assert!(!panics(&balancer));
        assert_eq!(tried(&balancer, 20), 1);
        balancer.finish();
    });
}

/// The reasons of sessions that end while no backend is usable.
fn all_down(fields: &str) -> (Balancer, Vec<String>) {
    let (_fleet, balancer) = with_down(fields, 2, 2);
    let before = balancer.output().count("\n");
    visit(&balancer, 10);
    let lines = balancer.output().lines(before + 10);
    let mut reasons: Vec<_> = lines[before..]
        .iter()
        .map(|line| key_values(line)["reason"].clone())
        .collect();
    reasons.dedup();
    (balancer, reasons)
}

#[test]
fn where_all_are_down_they_are_tried_all_the_same() {
    watched(|| {
        let (balancer, reasons) = all_down("");
        assert!(panics(&balancer));
        assert_eq!(reasons, ["connect_failed"]);
        balancer.finish();
    });
}

#[test]
fn all_down_closed_tries_no_backend() {
    watched(|| {
        let (balancer, reasons) = all_down("all_down: \"closed\",");
        assert!(!panics(&balancer));
        assert_eq!(reasons, ["no_backend"]);
        let message = "pool `default` has no usable backend: new sessions fail until one of 2 is";
        let logged = format!("WARN ] {message}");
        balancer.until_logged(&logged);
        assert_eq!(balancer.log().count(&logged), 1);
        let alerts = &balancer.ask(&["status"])["alerts"];
        assert!(alerts[0].as_str().unwrap().starts_with(message), "{alerts}");
        balancer.finish();
    });
}

#[test]
fn a_pool_without_usable_backends_that_is_drained_does_not_recover() {
    watched(|| {
        let (fleet, balancer) = with_down("", 2, 2);
        balancer.until_logged("WARN ] pool `default` panics: 0 of 2");
        let names = fleet.addresses();
        assert_eq!(balancer.ask(&["drain", &names[0]])["changed"], true);
        let note = &balancer.ask(&["drain", &names[1]])["notes"][0];
        assert!(
            note.as_str().unwrap().contains("no usable backend"),
            "{note}"
        );
        let message = "WARN ] pool `default` has no usable backend";
        balancer.until_logged(message);
        assert_eq!(balancer.log().count(message), 1);
        assert_eq!(balancer.log().count("has enough usable backends again"), 0);
        balancer.finish();
    });
}

/// Before any probe nothing is wrong.
#[test]
fn a_start_is_no_panic() {
    watched(|| {
        let fleet = Fleet::of(2);
        let pool = format!(
            "check: (type: \"tcp\", interval: \"500ms\", initial: \"probe\"), backends: [{}]",
            fleet.ron(&[])
        );
        let balancer = Launch::with_pool(&pool).start();
        eventually("it is ready", || balancer.http_status("/readyz") == 200);
        assert_eq!(balancer.log().count("panics"), 0);
        assert_eq!(balancer.events("panic").len(), 0);
        balancer.finish();
    });
}

#[test]
fn an_only_backend_that_refuses_is_an_alert() {
    watched(|| {
        let fleet = Fleet::of(1);
        let pool = format!("backends: [{}]", fleet.ron(&[]));
        let balancer = Launch::with_pool(&pool).start();
        let alerts = || balancer.ask(&["status"])["alerts"].to_string();
        visit(&balancer, 1);
        assert_eq!(alerts(), "[]");
        fleet.stop(0);
        let message = "pool `default` fails its clients: its only backend has failed";
        eventually("the alert", || {
            visit(&balancer, 3);
            alerts().contains(message)
        });
        fleet.start(0);
        eventually("its end", || {
            visit(&balancer, 1);
            alerts() == "[]"
        });
        balancer.finish();
    });
}
