//! Addresses that lead back to the balancer, or that no server can have: whatever they come by, no
//! client goes round.

use std::fs;
use std::net::Ipv4Addr;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::balancer::{Balancer, Launch};
use crate::discovery::name_server;
use crate::network;
use crate::peers::{Backend, echo, ping};
use crate::watchdog::{eventually, watched};

/// An address of the test's network that is not of the loopback.
const OWN: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 1);
/// The listener's port, below those that the kernel gives away.
const PORT: u16 = 20_900;

/// A balancer in a network of its own, whose listener takes connections to every address.
fn start(pool: &str, settings: &str) -> Balancer {
    let text = format!(
        "(workers: 1, {settings}\n\
         listeners: [(name: \"l\", bind: \"0.0.0.0:{PORT}\", pool: \"default\")],\n\
         pools: [(name: \"default\", {pool})])"
    );
    Launch::with_config(&text, 1).start()
}

fn alerts(balancer: &Balancer) -> String {
    balancer.ask(&["status"])["alerts"].to_string()
}

#[test]
fn no_address_of_this_machine_leads_back_to_its_listener() {
    watched(|| {
        network::own("21000 29999");
        network::set_address(OWN, true);
        let backend = Backend::tcp("127.0.0.1:20901", echo);
        let good = &*backend.address;
        let own = format!("{OWN}:{PORT}");
        let balancer = start("discover: (file: \"list\"), backends: []", "");
        let list = |lines: &[&str]| {
            let new = balancer.dir().join("new");
            fs::write(&new, lines.join("\n")).unwrap();
            fs::rename(new, balancer.dir().join("list")).unwrap();
        };
        let has = |name| balancer.find_backend(name).is_some();
        let is_served = || ping(&mut balancer.connect(), b"served");
        let events = balancer.follow();

        list(&[good, &own]);
        let refused = events.next("backend_refused");
        assert_eq!(refused["backend"], *own);
        eventually("the other one joins", || has(good));
        is_served();
        assert!(!has(&own));
        let left_out = format!("{own} is left out");
        assert!(alerts(&balancer).contains(&left_out));

        // The last good one stays.
        list(&[&own]);
        balancer.until_logged("1 backends, 0 new, 1 gone");
        is_served();
        assert!(has(good) && !has(&own));

        list(&["0.0.0.0:1"]);
        let why = "line 1: invalid address `0.0.0.0:1`: expected the address of a server";
        let failed = events.next("discovery_failed");
        assert!(
            failed["message"].as_str().unwrap().contains(why),
            "{failed}"
        );
        assert!(alerts(&balancer).contains(why));
        is_served();
        assert!(has(good));

        // By the API, and by a file, which is as good as on another machine.
        let (_, error) = balancer.refusal(&["add", "default", &own]);
        assert!(error.contains("leads back to its own pool"), "{error}");
        balancer.edit(|file| file.replace("backends: []", &format!("backends: [\"{own}\"]")));
        balancer.words(&["reload"]);
        is_served();
        assert!(has(good) && !has(&own));
        assert_eq!(balancer.number("accepted"), 4, "none of them goes round");
        drop(events);
        balancer.finish();
    });
}

#[test]
fn an_address_that_this_machine_gets_later_is_left_out_while_it_has_it() {
    watched(|| {
        network::own("21000 29999");
        let own = format!("{OWN}:{PORT}");
        let pool = format!("backends: [\"{own}\"]");
        let balancer = start(&pool, "max_connections: 200,");
        let has = || balancer.find_backend(&own).is_some();
        let events = balancer.follow();
        assert!(has());

        network::set_address(OWN, true);
        // It goes round until that is noticed.
        let client = balancer.connect();
        let refused = events.next("backend_refused");
        assert_eq!(refused["backend"], *own);
        assert!(alerts(&balancer).contains(&format!("{own} is left out")));
        eventually("the sessions end", || balancer.number("sessions") == 0);
        drop(client);
        assert!(!has());

        network::set_address(OWN, false);
        eventually("the backend is back", has);
        assert_eq!(
            balancer.ask(&["status"])["alerts"].as_array().map(Vec::len),
            Some(0)
        );
        drop(events);
        balancer.finish();
    });
}

/// The address that two machines share is here when the balancer starts.
#[test]
fn a_start_leaves_out_an_address_that_this_machine_has() {
    watched(|| {
        network::own("21000 29999");
        network::set_address(OWN, true);
        let good = Backend::tcp("127.0.0.1:20901", echo);
        let own = format!("{OWN}:{PORT}");
        let pool = format!("backends: [\"{own}\", \"{}\"]", good.address);
        let balancer = start(&pool, "");
        let has = || balancer.find_backend(&own).is_some();
        let left_out = format!("{own} is left out");
        balancer.until_logged(&left_out);
        assert!(alerts(&balancer).contains(&left_out));
        assert!(!has());
        for _ in 0..4 {
            ping(&mut balancer.connect(), b"served");
        }
        balancer.edit(|file| format!("{file}\n// again"));
        balancer.words(&["reload"]);
        assert!(!has());
        // An order about others is no place to refuse it.
        balancer.ask(&["add", "default", "127.0.0.1:20902"]);
        assert_eq!(balancer.number("accepted"), 4, "none of them goes round");
        network::set_address(OWN, false);
        eventually("the backend is there", has);
        balancer.finish();
    });
}

#[test]
fn a_host_name_that_leads_back_says_so() {
    watched(|| {
        network::own("21000 29999");
        network::set_address(OWN, true);
        let server = name_server(&Arc::new(Mutex::new(vec![OWN])));
        let name = format!("db.test:{PORT}");
        let pool = format!("backends: [\"{name}\"]");
        let balancer = start(&pool, &format!("resolvers: [\"{server}\"],"));
        balancer.until_logged("leads back to its own pool");
        let backend = balancer.backend(&name);
        assert_eq!(backend["health"], "unresolved");
        let why = backend["check"].as_str().unwrap();
        assert!(why.contains("leads back to its own pool"), "{why}");
        assert!(alerts(&balancer).contains("leads back to its own pool"));
        drop(balancer.connect());
        eventually("one client", || balancer.number("accepted") == 1);
        balancer.finish();
    });
}
