//! Many reloads and changes leave nothing behind: no descriptor, no memory, no state that a fresh
//! start would not have.

use std::fmt::Debug;
use std::fs;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::api::{ask, look};
use crate::balancer::{Balancer, Launch};
use crate::crowd::{self, Hall};
use crate::process::Descriptors;
use crate::storm::{file, is_broken, reload, variable};
use crate::watchdog::{eventually, heavy};

fn start(halls: &[Hall]) -> Balancer {
    Launch::with_config(&file(halls, 0), 1).workers(2).start()
}

fn write(balancer: &Balancer, text: &str) {
    fs::write(balancer.dir().join("config.ron"), text).unwrap();
}

fn reload_by_api(balancer: &Balancer) -> u16 {
    let results = || {
        let lines = ["is in force", "reload: the old configuration stays"];
        lines.map(|line| balancer.log().count(line))
    };
    let before = results();
    let (code, _) = ask(balancer, "POST", "/v1/reload", "");
    // A later count of such lines must not include this one.
    eventually("the log has the line", || results() != before);
    code
}

/// Waits until two values are equal, and shows both when they never are.
#[track_caller]
fn expect_same<T: Debug + PartialEq>(mut pair: impl FnMut() -> [T; 2]) {
    let [mut one, mut other] = pair();
    for _ in 0..500 {
        if one == other {
            return;
        }
        thread::sleep(Duration::from_millis(20));
        [one, other] = pair();
    }
    assert_eq!(one, other);
}

fn expect_descriptors(balancer: &Balancer, wanted: &Descriptors) {
    expect_same(|| {
        [
            balancer.process.descriptors().lasting,
            wanted.lasting.clone(),
        ]
    });
}

fn expect_memory(balancer: &Balancer, before: u64, what: &str) {
    let after = balancer.process.resident_bytes();
    println!("{what}: {} KiB, then {} KiB", before / 1024, after / 1024);
    assert!(after <= before + MEMORY, "{before} B, then {after} B");
}

#[test]
fn a_broken_file_leaves_nothing_behind() {
    heavy(|| {
        let halls = [Hall::open(), Hall::open()];
        let balancer = start(&halls);
        let descriptors = balancer.process.descriptors();
        let refuse = |times: u64| {
            for number in 1..=times {
                // Each file is broken at another place.
                let text = file(&halls, 7 * (1 + number % 50));
                if number % 10 == 0 {
                    assert!(!reload(&balancer, &text, true));
                } else {
                    write(&balancer, &text);
                    assert_eq!(reload_by_api(&balancer), 422);
                }
            }
        };
        refuse(WARM_UP);
        let memory = balancer.process.resident_bytes();
        let times = variable("RELOADS_BROKEN", 1_000);
        refuse(times);
        expect_descriptors(&balancer, &descriptors);
        expect_memory(&balancer, memory, &format!("{times} broken files"));
        assert!(reload(&balancer, &file(&halls, 0), true));
        assert!(crowd::visit(balancer.address()).is_ok());
        balancer.finish();
    });
}

#[test]
fn listeners_and_pools_that_come_and_go_leave_nothing_behind() {
    heavy(|| {
        let halls = [Hall::open(), Hall::open()];
        let balancer = start(&halls);
        let plain = file(&halls, 0);
        let address = &halls[1].address;
        let more = plain.replace(
            "],\npools: [",
            &format!(
                "(name: \"tcp\", bind: \"127.0.0.1:0\", pool: \"more\"), \
                 (name: \"unix\", bind: \"unix:more.sock\", pool: \"more\")],\n\
                 pools: [(name: \"more\", strategy: \"predictive\", persist: \"source_ip\", \
                 backends: [\"{address}\"]), "
            ),
        );
        assert_ne!(plain, more);
        let descriptors = balancer.process.descriptors();
        let alternate = |times: u64| {
            for _ in 0..times / 2 {
                write(&balancer, &more);
                assert_eq!(reload_by_api(&balancer), 200);
                assert!(reload(&balancer, &plain, true));
            }
        };
        alternate(WARM_UP);
        expect_descriptors(&balancer, &descriptors);
        let memory = balancer.process.resident_bytes();
        let times = variable("RELOADS_GOOD", 200);
        alternate(times);
        expect_descriptors(&balancer, &descriptors);
        expect_memory(&balancer, memory, &format!("{times} good files"));
        assert_eq!(balancer.number("listeners_lost"), 0);
        balancer.finish();
    });
}

/// A random request for a change; it may be refused.
fn change(
    random: &mut fastrand::Rng,
    halls: &[Hall],
    more: &[Hall],
) -> (&'static str, String, Value) {
    let keep = random.bool();
    let hall = &halls[random.usize(..halls.len())].address;
    let backends = "/v1/pools/default/backends".to_owned();
    let one = format!("{backends}/{hall}");
    let pool = "/v1/pools/default".to_owned();
    let strategies = ["random", "first", "least_time", "power_of_two"];
    let states = ["ready", "drain", "maint"];
    let limit = random.u32(1_000..2_000);
    let weight = random.u32(0..9);
    let added = format!("added-{}", random.u32(..3));
    let its_own = &more[random.usize(..more.len())].address;
    let body = match random.u32(..10) {
        0 => return ("DELETE", format!("{one}?keep={keep}"), Value::Null),
        1 => return ("DELETE", format!("{backends}/{added}"), Value::Null),
        2 | 3 => {
            let body = json!({"name": added, "address": its_own, "weight": weight, "keep": keep});
            return ("POST", backends, body);
        }
        4 => json!({ "weight": weight }),
        5 => json!({ "max_connections": limit }),
        6 => json!({ "state": states[random.usize(..3)] }),
        7 => {
            let body = match random.bool() {
                true => json!({"strategy": strategies[random.usize(..4)], "keep": keep}),
                false => json!({"max_connections": limit, "queue_max": weight, "keep": keep}),
            };
            return ("PATCH", pool, body);
        }
        8 => {
            let body = json!({"max_connections": limit, "keep": keep});
            return ("PATCH", "/v1/listeners/first".to_owned(), body);
        }
        _ => {
            let body = json!({"max_connections": limit, "keep": keep});
            return ("PATCH", "/v1/limits".to_owned(), body);
        }
    };
    let mut body = body;
    body["keep"] = keep.into();
    ("PATCH", one, body)
}

fn text(body: &Value) -> String {
    if body.is_null() {
        return String::new();
    }
    body.to_string()
}

/// The settings in force, without what time and chance change: ports that the kernel chose, the
/// progress of a slow start, and times of events.
fn state(balancer: &Balancer) -> [Value; 4] {
    let mut listeners = look(balancer, "/v1/listeners");
    for listener in listeners.as_array_mut().unwrap() {
        let bind = listener["bind"].as_str().unwrap();
        let ip = bind.rsplit_once(':').unwrap().0.to_owned();
        listener["bind"] = ip.into();
    }
    let mut pools = look(balancer, "/v1/pools");
    for pool in pools.as_array_mut().unwrap() {
        for backend in pool["backends"].as_array_mut().unwrap() {
            backend["rising"] = Value::Null;
            backend["last_change"] = Value::Null;
            backend["state_s"] = Value::Null;
        }
    }
    let limit = look(balancer, "/v1/status")["max_connections"].clone();
    [listeners, pools, limit, effective(balancer).into()]
}

fn effective(balancer: &Balancer) -> String {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_mahoraga"));
    let command = command.args(["config", "show"]).current_dir(balancer.dir());
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// After any reloads and changes the state equals that of a fresh start with the settings in force.
#[test]
fn a_fresh_start_comes_to_the_same_state() {
    heavy(|| {
        let halls: Vec<_> = (0..9).map(|_| Hall::open()).collect();
        let (halls, more) = halls.split_at(3);
        for seed in 1..=variable("RELOADS_SEEDS", 6) {
            let mut random = fastrand::Rng::with_seed(seed);
            let balancer = start(halls);
            let mut counts = [0, 0, 0];
            for _ in 0..variable("RELOADS_STEPS", 40) {
                if random.u32(..4) == 0 {
                    let number = random.u64(..1_000);
                    let by_signal = random.bool();
                    let taken = reload(&balancer, &file(halls, number), by_signal);
                    assert_eq!(taken, !is_broken(number));
                    counts[0] += 1;
                } else {
                    let (method, path, body) = change(&mut random, halls, more);
                    let (code, message) = ask(&balancer, method, &path, &text(&body));
                    let expected = [200, 201, 404, 409, 422].contains(&code);
                    assert!(expected, "{method} {path} {body}: {code} {message}");
                    counts[1 + usize::from(code > 201)] += 1;
                }
            }
            println!("seed {seed}: reloads, changes, refusals: {counts:?}");
            assert!(counts[1] > 0);
            let text = effective(&balancer);
            let listeners = look(&balancer, "/v1/listeners");
            let listeners = listeners.as_array().unwrap().len();
            let fresh = Launch::with_config(&text, listeners).workers(2).start();
            // A probe may be late.
            expect_same(|| [&balancer, &fresh].map(state));
            fresh.finish();
        }
    });
}

/// Runs before memory is measured: more than the number of events that are kept.
const WARM_UP: u64 = 300;
/// The tolerance of the measurement of memory.
const MEMORY: u64 = 1 << 20;
