//! What settings cost clients is counted, and the status names the setting.

use std::fs;
use std::io::{Read, Write};

use crate::balancer::{Balancer, Launch};
use crate::metrics::{scrape, sum};
use crate::peers::{self, Backend, greeting, ping};
use crate::watchdog::{eventually, watched};

/// Whether the status names a setting among the regrets.
fn is_regretted(balancer: &Balancer, setting: &str) -> bool {
    let status = balancer.words(&["status"]);
    let mut regrets = status.lines().filter(|line| line.starts_with("regret"));
    regrets.any(|line| line.contains(setting))
}

#[test]
fn a_client_that_comes_back_after_the_idle_timeout_is_counted() {
    watched(|| {
        let backend = Backend::echo();
        let pool = format!("backends: [\"{}\"]", backend.address);
        let settings = "defaults: (timeouts: (idle: \"100ms\"))";
        let balancer = Launch::with_pool(&pool).settings(settings).start();
        assert!(!is_regretted(&balancer, "timeouts.idle"));
        // A busy machine may take more than a second to connect again.
        eventually("a client came back", || {
            let mut client = balancer.connect();
            ping(&mut client, b"hello");
            let _ = client.read(&mut [0]);
            let _again = balancer.connect();
            balancer.number("idle_regrets") > 0
        });
        assert!(is_regretted(&balancer, "`timeouts.idle`, of 1s 100ms,"));
        assert!(is_regretted(&balancer, "listener `"));
        let closed = &balancer.ask(&["listeners"])[0]["closed"];
        assert!(closed["idle_timeout"].as_u64() > Some(0), "{closed}");
        let text = scrape(&balancer, "*/*");
        assert!(
            sum(&text, "mahoraga_listener_idle_regrets_total") > 0,
            "{text}"
        );
        // With a timeout that would have kept them there is nothing to mend.
        let file = balancer.dir().join("config.ron");
        let config = fs::read_to_string(&file).unwrap();
        let config = config.replace("idle: \"100ms\"", "idle: \"2s\"");
        fs::write(file, config).unwrap();
        balancer.process.signal(libc::SIGHUP);
        eventually("the setting was mended", || {
            !is_regretted(&balancer, "timeouts.idle")
        });
        assert!(balancer.number("idle_regrets") > 0, "it is counted still");
        balancer.finish();
    });
}

#[test]
fn clients_refused_just_before_a_place_came_free_are_counted() {
    watched(|| {
        for (queue, counter, setting) in [
            ("max: 0", "full_regrets", "`queue.max`"),
            ("timeout: \"20ms\"", "queue_regrets", "`queue.timeout`"),
        ] {
            let backend = Backend::echo();
            let pool = format!(
                "queue: ({queue}), backends: [(address: \"{}\", max_connections: 1)]",
                backend.address
            );
            let balancer = Launch::with_pool(&pool).start();
            // A busy machine may take more than 100 ms to end a session.
            eventually("a place came free just after a refusal", || {
                let mut first = balancer.connect();
                // The one of the round before may still hold the place.
                let asked = first.write_all(b"hello");
                if asked.and_then(|()| first.read_exact(&mut [0; 5])).is_err() {
                    return false;
                }
                let _ = balancer.connect().read(&mut [0]);
                drop(first);
                balancer.number(counter) > 0
            });
            assert!(is_regretted(&balancer, setting));
            assert!(is_regretted(&balancer, "pool `default`: "));
            let text = scrape(&balancer, "*/*");
            assert!(
                sum(&text, &format!("mahoraga_pool_{counter}_total")) > 0,
                "{text}"
            );
            balancer.finish();
        }
    });
}

#[test]
fn an_ejection_that_no_probe_agrees_with_is_counted() {
    watched(|| {
        let (hole, sound) = (Backend::tcp("127.0.0.1:0", peers::reset), greeting());
        let pool = format!(
            "check: (type: \"tcp\", interval: \"100ms\"), \
             ejection: (failures: 1, base: \"300ms\", max: \"300ms\"), \
             backends: [\"{}\", \"{}\"]",
            hole.address, sound.address
        );
        let balancer = Launch::with_pool(&pool).start();
        eventually("an ejection has ended", || {
            let _ = balancer.connect().read(&mut [0]);
            is_regretted(&balancer, "`ejection.failures`")
        });
        let whose = format!("backend `{}` of pool `default`: ", hole.address);
        assert!(is_regretted(&balancer, &whose));
        balancer.finish();
    });
}
