//! Counters show bytes while they move, in every view, and agree with the sessions' totals.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use serde_json::Value;

use crate::api::{ask, look};
use crate::balancer::{Balancer, Launch};
use crate::bytes::Bytes;
use crate::peers::{self, Backend};
use crate::watchdog::{eventually, watched};

const MB: u64 = 1_000_000;

/// The bytes of the balancer, its workers together, its listener, pool and backend.
fn shown(balancer: &Balancer, field: &str) -> Vec<u64> {
    let number = |its: &Value| its[field].as_u64().unwrap();
    let status = look(balancer, "/v1/status");
    let workers = status["workers"].as_array().unwrap().iter();
    let pool = look(balancer, "/v1/pools/default");
    vec![
        number(&status),
        workers.map(number).sum(),
        number(&look(balancer, "/v1/listeners")[0]),
        number(&pool),
        number(&pool["backends"][0]),
    ]
}

#[test]
fn bytes_are_counted_while_they_flow_and_once() {
    watched(|| {
        let (backend, to) = peers::listen();
        let launch = Launch::to(&[to]).workers(2);
        let launch = launch.flag("--admin", "mahoraga.sock");
        let balancer = launch.flag("--access-log", "access.log").start();
        let (client, server) = peers::session(&balancer, &backend);
        let [mut down_out, mut down_in] = [1, 1].map(Bytes::new);
        let [mut up_out, mut up_in] = [2, 2].map(Bytes::new);
        // Copied, with nothing after it that would end a turn.
        up_out.send(&mut &client, 700);
        up_in.expect(&mut &server, 700);
        let up = || shown(&balancer, "bytes_up") == [700; 5];
        eventually("small messages are seen", up);
        // Spliced.
        thread::scope(|scope| {
            scope.spawn(|| down_out.send(&mut &server, 40 * MB));
            down_in.expect(&mut &client, 40 * MB);
        });
        assert!(balancer.pipes_made() > 0, "a stream is spliced");
        let down = || shown(&balancer, "bytes_down") == [40 * MB; 5];
        eventually("a stream is seen", down);
        let open = look(&balancer, "/v1/sessions");
        let totals = ["bytes_up", "bytes_down"].map(|field| shown(&balancer, field));
        assert_eq!(open[0]["bytes_down"].as_u64(), Some(totals[1][0]));
        drop((client, server));
        let line = || std::fs::read_to_string(balancer.dir().join("access.log")).unwrap();
        eventually("the session's line", || line().contains('\n'));
        let ended = ["bytes_up", "bytes_down"].map(|field| shown(&balancer, field));
        assert_eq!(ended, totals, "its end counts nothing twice");
        for (field, total) in ["bytes_up", "bytes_down"].into_iter().zip(totals) {
            assert!(
                line().contains(&format!(" {field}={} ", total[0])),
                "{}",
                line()
            );
        }
        balancer.finish();
    });
}

#[test]
fn a_download_that_goes_on_has_a_rate() {
    watched(|| {
        let (backend, to) = peers::listen();
        let launch = Launch::to(&[to]).flag("--admin", "mahoraga.sock");
        let balancer = launch.start();
        let (client, server) = peers::session(&balancer, &backend);
        let seen = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                let (mut out, mut into) = (Bytes::new(1), Bytes::new(1));
                while !seen.load(Ordering::Relaxed) {
                    out.send(&mut &server, 10_000);
                    into.expect(&mut &client, 10_000);
                }
            });
            let moves = || {
                shown(&balancer, "bytes_down_per_s")
                    .iter()
                    .all(|rate| *rate > 0)
            };
            eventually("each shows a rate", moves);
            seen.store(true, Ordering::Relaxed);
        });
        let rests = || shown(&balancer, "bytes_down_per_s") == [0; 5];
        eventually("each shows no rate at rest", rests);
        drop((client, server));
        balancer.finish();
    });
}

/// Includes sessions that go on.
#[test]
fn waits_are_shown_by_window() {
    watched(|| {
        let backend = Backend::echo();
        let launch = Launch::to(std::slice::from_ref(&backend.address));
        let balancer = launch.flag("--admin", "mahoraga.sock").start();
        let clients: Vec<_> = (0..20).map(|_| balancer.connect()).collect();
        for client in &clients {
            peers::ping(&mut &*client, b"hello");
        }
        let windows = ["last_10s", "last_1m", "since_start"];
        let shown = |kind: usize| {
            let its = look(&balancer, "/v1/status")["latencies"][kind].clone();
            windows.map(|window| its[window]["count"].as_u64().unwrap())
        };
        assert_eq!([0, 1, 2].map(shown), [[20; 3], [20; 3], [0; 3]]);
        drop(clients);
        eventually("they have ended", || shown(2) == [20; 3]);
        let first_byte = &look(&balancer, "/v1/status")["latencies"][1]["last_10s"];
        let [p50, p99] = ["p50_us", "p99_us"].map(|of| first_byte[of].as_u64().unwrap());
        assert!(0 < p50 && p50 <= p99);
        balancer.finish();
    });
}

#[test]
fn what_happened_to_a_backend_outlives_a_reload() {
    watched(|| {
        let (backend, address) = peers::listen();
        let check = "check: (type: \"tcp\", interval: \"100ms\", rise: 1, fall: 2)";
        let pool = format!("{check}, backends: [\"{address}\"]");
        let launch = Launch::with_pool(&pool).settings("admin: (socket: \"mahoraga.sock\")");
        let balancer = launch.start();
        let backend_of = || look(&balancer, "/v1/pools/default")["backends"][0].clone();
        let change = || backend_of()["last_change"]["to"].clone();
        eventually("it is up", || {
            backend_of()["health"] == "up" && change() == "up"
        });
        assert_eq!(backend_of()["times_down"], 0);
        drop(backend);
        // The backend refuses the connect, and the client is reset.
        peers::expect_broken(&balancer.connect());
        eventually("it is down", || change() == "down");
        let down = backend_of();
        assert_eq!(down["times_down"], 1);
        assert!(down["checks_failed"].as_u64().unwrap() >= 2);
        let refused = down["connect_failures"]["refused"].as_u64();
        assert!(refused > Some(0), "{down}");
        let (code, message) = ask(&balancer, "POST", "/v1/reload", "");
        assert_eq!(code, 200, "{message}");
        let after = backend_of();
        assert_eq!(after["times_down"], 1);
        assert_eq!(after["connect_failures"]["refused"].as_u64(), refused);
        assert_eq!(after["last_change"], down["last_change"]);
        assert!(after["checks_failed"].as_u64() >= down["checks_failed"].as_u64());
        assert!(after["down_s"].as_f64() >= down["down_s"].as_f64());
        balancer.finish();
    });
}
