//! `mahoraga explain` says where a session went, what was tried, and how it ended.

use serde_json::{Value, json};

use crate::api::{ask, look};
use crate::balancer::{Balancer, Launch};
use crate::peers::{self, Backend, ping};
use crate::watchdog::{eventually, watched};

/// The explanation of a client's last session, once that has ended.
fn ended(balancer: &Balancer, client: &str) -> Value {
    let path = format!("/v1/explain?client={client}");
    let mut told = Value::Null;
    eventually("the session has ended", || {
        told = look(balancer, &path)[0].clone();
        told["state"] == "closed"
    });
    told
}

#[test]
fn a_session_that_was_refused_first_is_explained_also_when_that_backend_is_gone() {
    watched(|| {
        let backend = Backend::echo();
        let dead = peers::refusing_address();
        let to = [dead.clone(), backend.address.clone()];
        let launch = Launch::to(&to).flag("--strategy", "first");
        let balancer = launch.flag("--admin", "mahoraga.sock").start();
        let mut client = balancer.connect();
        ping(&mut client, b"hello");
        let address = client.local_addr().unwrap().to_string();
        let open = look(&balancer, &format!("/v1/explain?client={address}"))[0].clone();
        assert_eq!(open["state"], "open");
        assert_eq!(open["attempts"][1]["outcome"], "connected");
        drop(client);

        let told = ended(&balancer, &address);
        assert_eq!(told["client"], address.as_str());
        assert_eq!(told["pool"], "default");
        assert_eq!(told["strategy"], "first");
        assert_eq!(told["reason"], "client_closed");
        assert_eq!(told["bytes_up"], 5);
        assert_eq!(told["attempts_failed"], 1);
        let attempts = told["attempts"].as_array().unwrap();
        let outcomes = attempts
            .iter()
            .map(|one| (&one["address"], &one["outcome"]));
        let expected = [(&dead, "ECONNREFUSED"), (&backend.address, "connected")];
        assert_eq!(attempts.len(), 2);
        for ((address, outcome), expected) in outcomes.zip(expected) {
            assert_eq!(address, expected.0.as_str());
            assert_eq!(outcome, expected.1);
        }
        let decision = &told["decision"];
        assert_eq!(decision["backend"], backend.address.as_str());
        assert_eq!(decision["why"], "untried");
        let verdicts = decision["candidates"].as_array().unwrap().iter();
        let verdicts: Vec<_> = verdicts
            .map(|one| one["verdict"].as_str().unwrap())
            .collect();
        assert_eq!(verdicts, ["chosen", "tried"]);

        // A record outlives its backend.
        let path = format!("/v1/pools/default/backends/{dead}");
        let (code, _) = ask(&balancer, "DELETE", &path, "");
        assert_eq!(code, 200);
        let id = told["session"].as_str().unwrap();
        let later = look(&balancer, &format!("/v1/explain?session={id}"))[0].clone();
        assert_eq!(later["attempts"], told["attempts"]);
        let text = balancer.words(&["explain", id]);
        for part in [
            "ECONNREFUSED (Connection refused)",
            &dead,
            "client_closed",
            "by listener",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        let told = balancer.ask(&["explain", "127.0.0.1", "--last", "9"]);
        assert_eq!(told.as_array().unwrap().len(), 1);
        let (code, error) = balancer.refusal(&["explain", "0-999"]);
        assert_eq!(code, Some(1));
        assert!(
            error.contains("no session of 0-999 is remembered"),
            "{error}"
        );
        balancer.finish();
    });
}

#[test]
fn a_dry_run_says_where_the_next_client_goes_and_changes_nothing() {
    watched(|| {
        let backends = [Backend::echo(), Backend::echo(), Backend::echo()];
        let to = backends.each_ref().map(|backend| backend.address.clone());
        let balancer = Launch::to(&to).flag("--admin", "mahoraga.sock").start();
        let dry_run = ["explain", "--dry-run", "--client", "192.0.2.7", "default"];
        for _ in 0..4 {
            let told = [(); 3].map(|()| balancer.ask(&dry_run));
            assert_eq!(told[0], told[2]);
            let next = told[0]["decision"]["backend"].clone();
            let mut client = balancer.connect();
            ping(&mut client, b"hello");
            let address = client.local_addr().unwrap();
            let went = look(&balancer, &format!("/v1/explain?client={address}"));
            assert_eq!(went[0]["decision"]["backend"], next);
        }
        let text = balancer.words(&dry_run);
        assert!(
            text.starts_with("A client of 192.0.2.7 would go to "),
            "{text}"
        );
        assert!(!text.contains("routes"), "{text}");
        let path = "/v1/explain/dry_run?pool=defalt&client=192.0.2.7";
        let (code, error) = ask(&balancer, "GET", path, "");
        assert_eq!(code, 404, "{error}");
        balancer.finish();
    });
}

#[test]
fn a_client_that_was_refused_is_explained() {
    watched(|| {
        let backend = Backend::echo();
        let launch = Launch::to(std::slice::from_ref(&backend.address));
        let launch = launch.flag("--admin", "mahoraga.sock");
        let balancer = launch.flag("--deny", "127.0.0.0/8").start();
        peers::expect_turned_away(balancer.address());
        let told = ended(&balancer, "127.0.0.1");
        assert_eq!(told["reason"], "access_denied");
        assert_eq!(told["decision"], Value::Null);
        assert_eq!(told["pool"], "default");
        let text = balancer.words(&["explain", "127.0.0.1"]);
        let said = "It ended: access_denied after 0 ns, 0 B up, 0 B down.\n\
                    It was refused before a backend was selected.\n";
        assert!(text.ends_with(said), "{text}");
        balancer.finish();
    });
}

/// The first line of a dry run's text, and what it says of the listeners that refuse the client.
fn foretold(balancer: &Balancer, client: &str) -> (Vec<String>, Value) {
    let dry_run = ["explain", "--dry-run", "--client", client, "p"];
    let text = balancer.words(&dry_run);
    let lines = text.lines().take(3).map(str::to_owned).collect();
    (lines, balancer.ask(&dry_run))
}

/// A dry run says what `mahoraga route` says: of a listener where the client goes, and of a pool
/// whether it comes there.
fn expect_routes(balancer: &Balancer) {
    let client = ["--client", "192.0.2.7", "--sni", "a.example"];
    let route = balancer.ask(&[&["route", "front"][..], &client].concat());
    assert_eq!(route["pool"], Value::Null);
    let says = "route 1 of listener `front` refuses it, by sni `a.example`";
    assert_eq!(route["says"], says);
    let by_listener = [&["explain", "--listener", "front"][..], &client].concat();
    let told = balancer.ask(&by_listener);
    assert_eq!(told["listeners"][0]["route"], route);
    assert_eq!(
        (&told["refused"], &told["decision"]["why"]),
        (&json!(true), &json!("no_route"))
    );
    let text = balancer.words(&by_listener);
    assert_eq!(
        text,
        format!("A client of 192.0.2.7 would be refused: {says}.\n")
    );
    // By the other listener it comes to the pool.
    let told = balancer.ask(&[&["explain", "--dry-run", "p"][..], &client].concat());
    let routes = ["front", "back"].map(|name| {
        let mut listeners = told["listeners"].as_array().unwrap().iter();
        &listeners.find(|its| its["listener"] == name).unwrap()["route"]
    });
    assert_eq!(routes, [&route, &Value::Null]);
    assert_eq!(
        (&told["refused"], &told["elsewhere"]),
        (&json!(false), &json!(false))
    );
}

#[test]
fn a_dry_run_says_which_listeners_would_refuse_the_client_and_why() {
    watched(|| {
        let backend = Backend::echo();
        let text = format!(
            "(workers: 2, trusted: [\"192.0.2.66\"], access_lists: [
                (name: \"lan\", deny: [\"127.0.0.0/8\"], others: \"allow\"),
                (name: \"trial\", deny: [\"127.0.0.0/8\"], others: \"allow\", dry_run: true)],
            listeners: [(name: \"front\", bind: \"127.0.0.1:0\", pool: \"p\", access_list: \"lan\",
                    routes: [(sni: [\"a.example\"], pool: \"refuse\")]),
                (name: \"back\", bind: \"127.0.0.1:0\", pool: \"p\", access_list: \"trial\")],
            pools: [(name: \"p\", strategy: \"round_robin\", backends: [\"{}\"])])",
            backend.address
        );
        let balancer = Launch::with_config(&text, 2).workers(2).start();
        let goes = format!("would go to {}, in pool p (round_robin).", backend.address);
        // One listener denies it: the other lets it in, as real clients find.
        let (lines, told) = foretold(&balancer, "127.0.0.1");
        assert_eq!(lines[0], format!("A client of 127.0.0.1 {goes}"));
        let why =
            "listener `front` refuses it: access_denied by list `lan`, which denies 127.0.0.0/8";
        assert_eq!(lines[1], format!("But {why}."));
        assert_eq!(told["refused"], false);
        assert_eq!(told["listeners"][0]["listener"], "front");
        assert_eq!(
            told["listeners"][0]["refused"],
            json!({ "reason": "access_denied", "says": why })
        );
        assert_eq!(told["listeners"][1]["refused"], Value::Null);
        let says = told["says"].to_string();
        let notes = ["`trial` would", "limits and rates"];
        assert!(notes.iter().all(|its| says.contains(its)), "{says}");
        expect_routes(&balancer);
        peers::expect_turned_away(balancer.address());
        ping(&mut peers::connect(balancer.address_of(1)), b"let in");

        // A ban holds at both, but not for whom it does not concern.
        let other = foretold(&balancer, "192.0.2.7").0;
        assert_eq!(other[0], format!("A client of 192.0.2.7 {goes}"));
        let order = "{\"prefix\": \"192.0.2.0/24\", \"for\": \"1h\", \"reason\": \"it scans\"}";
        let (code, banned) = ask(&balancer, "POST", "/v1/bans", order);
        assert_eq!(code, 200, "{banned}");
        let until = banned["until"].as_str().unwrap();
        let until = &until[..until.len() - "00Z".len()];
        for client in ["192.0.2.7", "::ffff:192.0.2.7"] {
            let (lines, told) = foretold(&balancer, client);
            assert!(lines[0].ends_with("would be refused, in pool p (round_robin)."));
            for (line, name) in lines[1..].iter().zip(["front", "back"]) {
                let begin = format!("listener `{name}` refuses it: banned until {until}");
                assert!(line.starts_with(&begin), "{line}");
                assert!(line.ends_with(" (it scans), as 192.0.2.0/24."), "{line}");
            }
            assert_eq!(told["refused"], true);
            assert_eq!(told["listeners"][1]["refused"]["reason"], "banned");
        }
        let trusted = foretold(&balancer, "192.0.2.66");
        assert_eq!(trusted.0[0], format!("A client of 192.0.2.66 {goes}"));
        assert_eq!(trusted.1["listeners"][0]["refused"], Value::Null);

        // To ask counted no client.
        assert_eq!(look(&balancer, "/v1/bans")[0]["hits"], 0);
        let denied = &balancer.ask(&["listeners"])[0];
        assert_eq!(denied["refused_by"].to_string(), r#"{"access_denied":1}"#);
        let path = "/v1/explain/dry_run?pool=p&client=::1&sni=shop.example&url=/cart";
        let says = look(&balancer, path)["says"].to_string();
        for (what, kinds) in [("sni", "sni or http_host"), ("url", "http_path")] {
            let note = format!("`{what}` counts for routes only: no key of the pool is {kinds}\"");
            assert!(says.contains(&note), "{says}");
        }
        balancer.finish();
    });
}
