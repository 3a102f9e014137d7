//! Clients that select their backends by the number in a server name.

use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::json;

use crate::balancer::{Balancer, Launch};
use crate::fleet::Fleet;
use crate::peers::{self, expect_reset};
use crate::routes::hello;
use crate::stage::Guest;
use crate::watchdog::{eventually, watched};

fn send(balancer: &Balancer, name: &str) -> TcpStream {
    let mut stream = peers::connect(balancer.address());
    stream.write_all(&hello(name)).unwrap();
    stream
}

/// The client of a member, which stays.
fn member(balancer: &Balancer, name: &str) -> Guest {
    Guest::welcome(send(balancer, name))
}

/// Clients of these names are refused for this reason. One whose name leads nowhere gets the alert
/// `unrecognized_name`.
fn expect_refused(balancer: &Balancer, reason: &str, names: &[&str]) {
    let number = format!("closed.{reason}");
    let before = balancer.number(&number);
    for name in names {
        let mut stream = send(balancer, name);
        if reason == "no_route" {
            let mut told = Vec::new();
            stream.read_to_end(&mut told).unwrap();
            assert_eq!(told, [21, 3, 3, 0, 2, 2, 112], "{name}");
        } else {
            expect_reset(&mut stream);
        }
    }
    let all = before + names.len() as u64;
    eventually("they are counted", || balancer.number(&number) == all);
}

#[test]
fn a_name_leads_to_the_member_of_its_number_or_nowhere() {
    watched(|| {
        let fleet = Fleet::of(4);
        let all = fleet.addresses();
        let config = format!(
            "(workers: 2, listeners: [(bind: \"127.0.0.1:0\", pool: \"kafka\", \
             routes: [(sni: [\"startup0.k.test\"], pool: \"any\")])],\n\
             pools: [(name: \"kafka\", sni_member: \"Broker-{{n}}.k.test.\", backends: [\
             (address: \"{}\", name: \"a\"), (address: \"{}\", name: \"b\", \
             max_connections: 1), (address: \"{}\", name: \"c\"), \
             (address: \"127.0.0.1:1\", name: \"dead\", member: 8)]), \
             (name: \"any\", backends: [\"{}\"])])",
            all[0], all[1], all[2], all[3]
        );
        let balancer = Launch::with_config(&config, 1).workers(2).start();
        for (name, number) in [
            ("broker-2.k.test", 2),
            ("BROKER-0.k.Test", 0),
            ("broker-1.k.test", 1),
            ("startup0.k.test", 3),
        ] {
            for _ in 0..2 {
                assert_eq!(member(&balancer, name).leave(), number, "{name}");
                balancer.assert_rest();
            }
        }
        // The place of `dead` is no number.
        let none = ["broker-3.k.test", "broker-01.k.tes", "startup1.k.test"];
        expect_refused(&balancer, "no_route", &none);
        let full = member(&balancer, "broker-1.k.test");
        expect_refused(&balancer, "pool_full", &["broker-1.k.test"]);
        // One that waited would keep others of the pool waiting.
        assert_eq!(member(&balancer, "broker-0.k.test").leave(), 0);
        assert_eq!(full.leave(), 1);
        expect_refused(&balancer, "connect_failed", &["broker-8.k.test"]);
        let told = &balancer.ask(&["explain", "127.0.0.1", "--last", "1"])[0];
        assert_eq!(told["keys"][0]["kind"], "sni_member");
        assert_eq!(told["keys"][0]["hash"], "8");
        assert_eq!(told["decision"]["backend"], "dead");
        assert_eq!(told["decision"]["why"], "named");
        assert_eq!(
            told["attempts_failed"], 3,
            "it is tried again, and no other"
        );
        balancer.finish();
    });
}

#[test]
fn members_that_leave_or_drain_change_no_other() {
    watched(|| {
        let fleet = Fleet::of(4);
        let config = format!(
            "(workers: 1, listeners: [(bind: \"127.0.0.1:0\", pool: \"kafka\")],\n\
             pools: [(name: \"kafka\", sni_member: \"broker-{{n}}.k.test\", backends: [{}])])",
            fleet.ron(&["name: \"a\"", "name: \"b\"", "name: \"c\"", "name: \"d\""])
        );
        let balancer = Launch::with_config(&config, 1).start();
        let stays = member(&balancer, "broker-3.k.test");
        balancer.ask(&["remove", "kafka/b"]);
        balancer.ask(&["drain", "kafka/c"]);
        balancer.until_adopted();
        for (name, number) in [("broker-0.k.test", 0), ("broker-3.k.test", 3)] {
            assert_eq!(member(&balancer, name).leave(), number, "{name}");
        }
        expect_refused(&balancer, "no_route", &["broker-1.k.test"]);
        expect_refused(&balancer, "no_backend", &["broker-2.k.test"]);
        let shown = balancer.ask(&["backends"]);
        let shown = shown.as_array().unwrap().iter();
        let shown: Vec<_> = shown.map(|one| (&one["name"], &one["member"])).collect();
        let numbers = json!([["a", 0], ["c", 2], ["d", 3]]);
        assert_eq!(json!(shown), numbers, "the second one has left");
        let would = |name| {
            let client = ["--client", "127.0.0.1", "--sni", name];
            balancer.ask(&[&["explain", "--dry-run", "kafka"][..], &client].concat())
        };
        let told = would("broker-3.k.test");
        assert_eq!(
            (&told["strategy"], &told["decision"]["backend"]),
            (&"sni_member".into(), &"d".into())
        );
        let says = would("broker-1.k.test")["decision"]["says"].clone();
        let sentence = "none was selected: the client's name leads to no backend that can be used";
        assert_eq!(says, sentence);
        assert_eq!(stays.leave(), 3);
        balancer.finish();
    });
}
