//! All that shows figures tells the same totals of a load: access log, `/metrics`, the history, the
//! answers of the API that `top` and the dashboard show, and the backends themselves.

use std::collections::BTreeMap;
use std::fs;

use serde_json::Value;

use crate::api::look;
use crate::balancer::{Balancer, Launch};
use crate::metrics::{scrape, sum};
use crate::peers::{self, Backend, ping};
use crate::watchdog::{eventually, watched};

/// What each of them is asked for, by name.
type Totals = BTreeMap<&'static str, u64>;
type Tells = fn(&Balancer) -> Totals;

const REASONS: [&str; 3] = ["client_closed", "client_reset", "access_denied"];

fn of_access_log(balancer: &Balancer) -> Totals {
    let text = fs::read_to_string(balancer.dir().join("access.log")).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| line.parse().unwrap()).collect();
    let sum = |field: &str| lines.iter().filter_map(|line| line[field].as_u64()).sum();
    let failed = lines
        .iter()
        .flat_map(|line| line["attempts_list"].as_array());
    let failed = failed.flatten().filter(|one| one["outcome"] != "connected");
    let failed = failed.count() as u64;
    let sessions = lines.iter().filter(|line| !line["backend"].is_null());
    let mut totals = Totals::from([
        ("accepted", lines.len() as u64),
        ("answered", sessions.count() as u64),
        ("bytes_up", sum("bytes_up")),
        ("bytes_down", sum("bytes_down")),
        ("connect_failures", failed),
        ("connects", sum("attempts") - failed),
    ]);
    for reason in REASONS {
        let ended = lines.iter().filter(|line| line["reason"] == reason);
        totals.insert(reason, ended.count() as u64);
    }
    totals
}

fn of_metrics(balancer: &Balancer) -> Totals {
    let text = scrape(balancer, "application/openmetrics-text");
    let with = |name: &str, label: &str| {
        let lines = text.lines().filter(|line| line.contains(label));
        sum(&lines.collect::<Vec<_>>().join("\n"), name)
    };
    let traffic = "mahoraga_worker_traffic_bytes_total";
    let mut totals = Totals::from([
        ("accepted", sum(&text, "mahoraga_worker_accepted_total")),
        ("answered", sum(&text, "mahoraga_backend_answered_total")),
        ("bytes_up", with(traffic, "\"up\"")),
        ("bytes_down", with(traffic, "\"down\"")),
        (
            "connect_failures",
            sum(&text, "mahoraga_worker_connect_failures_total"),
        ),
        (
            "connects",
            sum(&text, "mahoraga_worker_connect_seconds_count"),
        ),
    ]);
    for reason in REASONS {
        let label = format!("\"{reason}\"");
        totals.insert(reason, with("mahoraga_worker_closed_total", &label));
    }
    totals
}

fn of_history(balancer: &Balancer) -> Totals {
    let history = look(balancer, "/v1/history?since=10m");
    let subjects = history["subjects"].as_array().unwrap();
    let total = |kind: &str, figure: &str, part: &str| -> u64 {
        let its = subjects.iter().filter(|its| its["kind"] == kind);
        let values = its.filter_map(|its| its["figures"][figure][part].as_array());
        values.flatten().filter_map(Value::as_u64).sum()
    };
    let mut totals = Totals::from([
        ("accepted", total("process", "worker_accepted", "sum")),
        ("answered", total("backend", "answered", "sum")),
        ("bytes_up", total("process", "worker_traffic.up", "sum")),
        ("bytes_down", total("process", "worker_traffic.down", "sum")),
        (
            "connect_failures",
            total("process", "worker_connect_failures", "sum"),
        ),
        ("connects", total("process", "worker_connect", "count")),
    ]);
    for reason in REASONS {
        let figure = format!("worker_closed.{reason}");
        totals.insert(reason, total("process", &figure, "sum"));
    }
    totals
}

/// What `top` and the dashboard ask for.
fn of_api(balancer: &Balancer) -> Totals {
    let status = look(balancer, "/v1/status");
    let workers = status["workers"].as_array().unwrap();
    let number = |name: &str| {
        workers
            .iter()
            .filter_map(|its| its["numbers"][name].as_u64())
            .sum()
    };
    let pools = look(balancer, "/v1/pools");
    let backends: Vec<&Value> = pools[0]["backends"].as_array().unwrap().iter().collect();
    let failures = backends
        .iter()
        .filter_map(|its| its["connect_failures"].as_object());
    let failures = failures.flat_map(|by| by.values().filter_map(Value::as_u64));
    let mut totals = Totals::from([
        ("accepted", status["accepted"].as_u64().unwrap()),
        (
            "answered",
            backends
                .iter()
                .filter_map(|its| its["answered"].as_u64())
                .sum(),
        ),
        ("bytes_up", status["bytes_up"].as_u64().unwrap()),
        ("bytes_down", status["bytes_down"].as_u64().unwrap()),
        ("connect_failures", failures.sum()),
        (
            "connects",
            backends
                .iter()
                .filter_map(|its| its["answered"].as_u64())
                .sum(),
        ),
    ]);
    for reason in REASONS {
        totals.insert(reason, number(&format!("closed.{reason}")));
    }
    totals
}

#[test]
fn all_that_shows_figures_tells_the_same_totals() {
    watched(|| {
        let backend = Backend::echo();
        let dead = peers::refusing_address();
        let file = format!(
            "(workers: 2, admin: (socket: \"mahoraga.sock\"),\n\
             access_log: (to: \"access.log\", format: \"json\"),\n\
             listeners: [(name: \"front\", bind: \"127.0.0.1:0\", pool: \"p\",\n\
             access_list: \"no\")], access_lists: [(name: \"no\", deny: [\"127.0.0.9\"])],\n\
             pools: [(name: \"p\", strategy: \"first\", ejection: \"off\",\n\
             backends: [\"{dead}\", \"{}\"])])",
            backend.address
        );
        let mut balancer = Launch::with_config(&file, 1).start();
        let mut clients: Vec<_> = (0..9).map(|_| balancer.connect()).collect();
        for (number, client) in clients.iter_mut().enumerate() {
            ping(client, &b"agreement"[..=number]);
        }
        clients.drain(..3).for_each(peers::reset);
        drop(clients);
        for _ in 0..4 {
            let refused = peers::visit([127, 0, 0, 9].into(), balancer.address());
            assert!(refused.is_none());
        }
        eventually("sessions end", || {
            look(&balancer, "/v1/status")["connections"] == 0
        });
        let connect_failures = of_api(&balancer)["connect_failures"];
        assert!((1..=9).contains(&connect_failures));
        let right = Totals::from([
            ("accepted", 13),
            ("answered", 9),
            ("bytes_up", 45),
            ("bytes_down", 45),
            ("connect_failures", connect_failures),
            ("connects", 9),
            ("client_closed", 6),
            ("client_reset", 3),
            ("access_denied", 4),
        ]);
        let all: [(&str, Tells); 3] = [
            ("metrics", of_metrics),
            ("history", of_history),
            ("API", of_api),
        ];
        for (name, totals) in all {
            let mut told = Totals::new();
            eventually(&format!("{name} tells {right:?}"), || {
                told = totals(&balancer);
                told == right || {
                    eprintln!("{name}: {told:?}");
                    false
                }
            });
        }
        assert_eq!(backend.accepted() as u64, right["connects"]);
        // The log is whole when the balancer has ended.
        balancer.process.signal(libc::SIGTERM);
        assert_eq!(balancer.wait().code(), Some(0), "{}", balancer.log().all());
        assert_eq!(of_access_log(&balancer), right);
    });
}
