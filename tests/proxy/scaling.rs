//! A pool grows by its reserve under load, shrinks after it, and reports both.

use std::io::{BufRead, BufReader, Read, Write};
use std::sync::mpsc;

use serde_json::Value;

use crate::balancer::Launch;
use crate::fleet::Fleet;
use crate::peers::{Backend, ping};
use crate::stage::{Stage, leave_all};
use crate::watchdog::{eventually, patience, watched};

/// The bodies of the webhooks.
fn webhook() -> (Backend, mpsc::Receiver<Value>) {
    let (sender, posts) = mpsc::channel();
    let server = Backend::tcp("127.0.0.1:0", move |stream| {
        let mut reader = BufReader::new(&stream);
        let mut length = 0;
        for line in reader.by_ref().lines() {
            let line = line.unwrap().to_ascii_lowercase();
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            if line.is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        sender.send(serde_json::from_slice(&body).unwrap()).unwrap();
        let answer = b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n";
        (&stream).write_all(answer).unwrap();
    });
    (server, posts)
}

#[test]
fn a_reserve_comes_in_above_the_high_mark_and_goes_out_below_the_low_one() {
    watched(|| {
        let (hook, posts) = webhook();
        let fleet = Fleet::of(3);
        let names = fleet.addresses();
        let pool = format!(
            "strategy: \"least_connections\", \
             scaling: (high: 4, low: 1, window: \"1s\", cool_down: \"1s\", \
             webhook: \"http://{}/scale\"), \
             reserve: [\"{}\", \"{}\"], backends: [\"{}\"]",
            hook.address, names[1], names[2], names[0]
        );
        let launch = Launch::with_pool(&pool).workers(2);
        let stage = Stage::start(launch, "least_connections", fleet);
        assert_eq!(stage.balancer.backend(&names[1])["standby"], true);
        let wait = patience();
        let next_post = || posts.recv_timeout(wait).unwrap();
        for _ in 0..2 {
            let guests = stage.hold_all(6);
            assert!(guests.iter().all(|guest| guest.backend == 0));
            let post = next_post();
            assert_eq!([&post["action"], &post["pool"]], ["in", "default"]);
            assert_eq!(post["backends"], serde_json::json!([names[1]]));
            stage.balancer.until(&names[1], "standby", false);
            // 6 connections over two are below the high mark: one more backend was enough.
            eventually("the reserve takes clients", || stage.visit() == 1);
            let mut stay = stage.hold();
            assert_eq!(stay.backend, 1);
            assert_eq!(stage.balancer.backend(&names[2])["standby"], true);
            leave_all(guests);
            let post = next_post();
            assert_eq!(post["action"], "out");
            assert_eq!(post["backends"], serde_json::json!([names[1]]));
            stage.balancer.until(&names[1], "standby", true);
            // The backend drains: its sessions may stay.
            ping(&mut stay.stream, b"still there");
            assert_eq!(stage.visits(4), [0; 4]);
            stay.leave();
        }
        assert_eq!(stage.balancer.events("scaled_in").len(), 2);
        assert_eq!(stage.balancer.events("scaled_out").len(), 2);
        assert!(posts.try_recv().is_err());
        stage.finish();
    });
}
