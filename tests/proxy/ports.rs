//! Local ports: none may be left, and one may be the backend's.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;

use crate::balancer::{Balancer, Launch};
use crate::network;
use crate::peers::{Backend, ping};
use crate::watchdog::{eventually, patience, watched};

/// A balancer with a Unix listener, so that its clients need no ports.
fn start(listener: &str, pool: &str) -> (Balancer, PathBuf) {
    let launch = Launch::with_config("", 1);
    let front = launch.dir().join("front.sock");
    let text = format!(
        "(workers: 1, access_log: (to: \"access\"),\n\
         listeners: [(name: \"l\", bind: \"unix:{}\", pool: \"default\", {listener})],\n\
         pools: [(name: \"default\", {pool})])",
        front.display()
    );
    (launch.file(&text).start(), front)
}

fn connect(front: &Path) -> UnixStream {
    let client = UnixStream::connect(front).unwrap();
    client.set_read_timeout(Some(patience())).unwrap();
    client
}

/// Whether the client is served.
fn is_served(client: &mut UnixStream) -> bool {
    let mut answer = [0; 4];
    client.write_all(b"ping").is_ok()
        && client.read_exact(&mut answer).is_ok()
        && answer == *b"ping"
}

#[test]
fn a_lack_of_ports_is_waited_out_and_blames_no_backend() {
    watched(|| {
        network::own("21000 21019");
        let backend = Backend::tcp("127.0.0.1:22901", crate::peers::echo);
        let pool = format!("backends: [\"{}\"]", backend.address);
        let (balancer, front) = start("timeouts: (connect: \"30s\")", &pool);
        let events = balancer.follow();
        let mut held: Vec<_> = (0..20).map(|_| connect(&front)).collect();
        for client in &mut held {
            ping(client, b"held");
        }
        let late: Vec<_> = (0..30).map(|_| connect(&front)).collect();
        let event = events.next("no_local_port");
        assert_eq!(event["backend"], *backend.address);
        assert!(
            event["message"]
                .as_str()
                .unwrap()
                .contains("ip_local_port_range")
        );
        let lacks = || balancer.ask(&["status"])["lacks"].as_array().unwrap().len();
        eventually("the status says so", || lacks() == 1);
        balancer.until_logged("no free local port to backend");
        // Waiting costs little, no client is reset and no backend is blamed.
        balancer.process.expect_cpu_below(0.10);
        let known = balancer.backend(&backend.address);
        assert_eq!(known["failures"], 0);
        assert_eq!(known["ejected_s"], serde_json::Value::Null);
        assert!(known["no_local_port"].as_u64().unwrap() > 0);
        assert_eq!(balancer.number("connect_failures"), 0);
        network::set_ports("21000 21999");
        for mut client in late {
            assert!(is_served(&mut client));
        }
        eventually("the status forgets", || lacks() == 0);
        let known = balancer.backend(&backend.address);
        assert_eq!(known["opened"], 50, "attempts without a port do not count");
        drop((events, held));
        balancer.finish();
    });
}

#[test]
fn a_client_that_gets_no_port_in_time_ends_as_no_local_port() {
    watched(|| {
        network::own("21000 21009");
        let backend = Backend::tcp("127.0.0.1:22901", crate::peers::echo);
        let pool = format!("backends: [\"{}\"]", backend.address);
        let (balancer, front) = start("timeouts: (connect: \"200ms\")", &pool);
        let mut held: Vec<_> = (0..10).map(|_| connect(&front)).collect();
        for client in &mut held {
            ping(client, b"held");
        }
        assert!(!is_served(&mut connect(&front)));
        let log = balancer.dir().join("access");
        eventually("its line", || {
            let log = std::fs::read_to_string(&log).unwrap();
            log.contains("reason=no_local_port")
        });
        drop(held);
        balancer.finish();
    });
}

#[test]
fn another_backend_is_taken_where_one_has_no_port() {
    watched(|| {
        network::own("21000 21009");
        let [first, second] =
            ["127.0.0.1:22901", "127.0.0.1:22902"].map(|at| Backend::tcp(at, crate::peers::echo));
        let pool = format!(
            "strategy: \"first\", backends: [\"{}\", \"{}\"]",
            first.address, second.address
        );
        let (balancer, front) = start("attempts: 1", &pool);
        let mut held: Vec<_> = (0..20).map(|_| connect(&front)).collect();
        for client in &mut held {
            ping(client, b"held");
        }
        assert_eq!([first.accepted(), second.accepted()], [10, 10]);
        drop(held);
        balancer.finish();
    });
}

#[test]
fn a_connection_to_itself_is_refused_to_clients_and_probes() {
    watched(|| {
        network::own("21000 21031");
        let backend = "127.0.0.1:21016";
        let pool = format!(
            "check: (type: \"tcp\", interval: \"100ms\", rise: 1, fall: 1), all_down: \"open\",\n\
             ejection: \"off\", backends: [\"{backend}\"]"
        );
        let (balancer, front) = start("attempts: 1", &pool);
        balancer.until(backend, "health", "down");
        for _ in 0..300 {
            assert!(!is_served(&mut connect(&front)), "served by itself");
        }
        // Time for some 40 probes.
        thread::sleep(Duration::from_secs(4));
        assert_eq!(balancer.log().count_unaudited("is up"), 0);
        // Nothing keeps the backend's port.
        eventually("the backend can bind", || {
            TcpListener::bind(backend).is_ok()
        });
        balancer.finish();
    });
}

#[test]
fn each_source_address_has_ports_of_its_own() {
    watched(|| {
        network::own("21000 21009");
        let backend = Backend::tcp("127.0.0.1:22901", crate::peers::echo);
        let pool = format!(
            "source: [\"127.0.0.2\", \"127.0.0.3\", \"127.0.0.4\"], backends: [\"{}\"],\n\
             check: (type: \"tcp\", interval: \"100ms\", initial: \"probe\")",
            backend.address
        );
        let (balancer, front) = start("", &pool);
        balancer.until(&backend.address, "health", "up");
        // A probe may hold one port of each from time to time.
        let mut held: Vec<_> = (0..27).map(|_| connect(&front)).collect();
        for client in &mut held {
            ping(client, b"held");
        }
        assert_eq!(balancer.backend(&backend.address)["failures"], 0);
        drop(held);
        balancer.finish();
    });
}

#[test]
fn connections_begin_within_the_ports_of_the_pool() {
    watched(|| {
        network::own("10000 19999");
        let (backend, peers) = seen_by_backend();
        let pool = format!(
            "source_ports: \"10000-10159\", backends: [\"{}\"]",
            backend.address
        );
        let (balancer, front) = start("", &pool);
        for _ in 0..40 {
            assert!(is_served(&mut connect(&front)));
        }
        // The last sixteenth is for probes. On a kernel without support the log warns instead.
        let is_logged = balancer.log().count("source_ports does nothing") > 0;
        let ports: Vec<_> = peers.lock().iter().map(|peer| peer.port()).collect();
        let within = ports.iter().all(|port| (10_000..10_150).contains(port));
        assert_ne!(within, is_logged, "{ports:?}");
        balancer.finish();
    });
}

#[test]
fn a_source_address_of_another_machine_is_refused() {
    watched(|| {
        let pool = "source: [\"192.0.2.1\"], backends: [\"127.0.0.1:1\"]";
        let (status, log) = Launch::with_pool(pool).run();
        assert_eq!(status.code(), Some(1), "{log}");
        let why = "pool `default`: cannot connect from 192.0.2.1";
        assert!(log.contains(why), "{log}");
        let ports = pool.replace("source: [\"192.0.2.1\"]", "source_ports: \"1-9\"");
        let (status, log) = Launch::with_pool(&ports).run();
        assert_eq!(status.code(), Some(1), "{log}");
        assert!(
            log.contains("cannot connect from source_ports 1-9: expected a part of"),
            "{log}"
        );
        let backend = Backend::echo();
        let pool = format!("backends: [\"{}\"]", backend.address);
        let balancer = Launch::with_pool(&pool).start();
        let source = "pools: [(source: [\"192.0.2.1\"], name:";
        balancer.edit(|text| text.replace("pools: [(name:", source));
        let (code, message) = balancer.refusal(&["reload"]);
        assert!(code == Some(1) && message.contains(why), "{message}");
        ping(&mut balancer.connect(), b"as before");
        balancer.finish();
    });
}

/// An echo backend, and where each of its connections came from.
fn seen_by_backend() -> (Backend, Arc<Mutex<Vec<SocketAddr>>>) {
    let peers = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&peers);
    let backend = Backend::tcp("127.0.0.1:22901", move |stream| {
        seen.lock().push(stream.peer_addr().unwrap());
        crate::peers::echo(stream);
    });
    (backend, peers)
}

#[test]
fn a_client_for_whom_no_source_address_is_left_ends_as_no_source_address() {
    watched(|| {
        network::own("21000 29999");
        network::set_address(LEAVES, true);
        let backend = Backend::tcp("127.0.0.1:22901", crate::peers::echo);
        let pool = format!(
            "source: [\"{LEAVES}\"], backends: [\"{}\"]",
            backend.address
        );
        let (balancer, front) = start("timeouts: (connect: \"200ms\")", &pool);
        network::set_address(LEAVES, false);
        assert!(!is_served(&mut connect(&front)));
        let log = balancer.dir().join("access");
        eventually("its line", || {
            let log = std::fs::read_to_string(&log).unwrap();
            log.contains("reason=no_source_address")
        });
        balancer.finish();
    });
}

#[test]
fn a_source_address_that_leaves_is_passed_over_and_named_once() {
    watched(|| {
        network::own("21000 29999");
        network::set_address(LEAVES, true);
        let (backend, peers) = seen_by_backend();
        let pool = format!(
            "source: [\"{LEAVES}\", \"127.0.0.2\"], backends: [\"{}\"],\n\
             check: (type: \"tcp\", interval: \"100ms\", rise: 1, fall: 1)",
            backend.address
        );
        let (balancer, front) = start("attempts: 1", &pool);
        let uses = |address: Ipv4Addr| peers.lock().iter().any(|peer| peer.ip() == address);
        for _ in 0..4 {
            assert!(is_served(&mut connect(&front)));
        }
        assert!(uses(LEAVES) && uses(Ipv4Addr::new(127, 0, 0, 2)));

        network::set_address(LEAVES, false);
        let events = balancer.follow();
        for _ in 0..40 {
            assert!(is_served(&mut connect(&front)));
        }
        let event = events.next("no_source_address");
        assert_eq!(event["pool"], "default");
        let message = event["message"].as_str().unwrap();
        assert!(message.contains("192.168.77.1"), "{message}");
        let lacks = || balancer.ask(&["status"])["lacks"].as_array().unwrap().len();
        eventually("the status says so", || lacks() == 1);
        // The health checks pass it over too: time for some of them.
        thread::sleep(Duration::from_millis(500));
        let known = balancer.backend(&backend.address);
        assert_eq!(
            (&known["health"], &known["failures"]),
            (&"up".into(), &0.into())
        );
        assert_eq!(balancer.number("connect_failures"), 0);
        assert!(balancer.number("sources_missing") > 0);
        assert_eq!(balancer.log().count("does not have source address"), 1);
        assert_eq!(balancer.log().count_unaudited("not probed"), 0);

        peers.lock().clear();
        network::set_address(LEAVES, true);
        eventually("it is used again", || {
            is_served(&mut connect(&front)) && uses(LEAVES)
        });
        eventually("the status forgets", || lacks() == 0);
        drop(events);
        balancer.finish();
    });
}

#[test]
fn without_its_only_source_address_a_client_waits_for_it() {
    watched(|| {
        network::own("21000 29999");
        network::set_address(LEAVES, true);
        let (backend, _) = seen_by_backend();
        let pool = format!(
            "source: [\"{LEAVES}\"], backends: [\"{}\"]",
            backend.address
        );
        let (balancer, front) = start("timeouts: (connect: \"30s\")", &pool);
        network::set_address(LEAVES, false);
        let mut client = connect(&front);
        balancer.until_logged("does not have source address 192.168.77.1");
        balancer.process.expect_cpu_below(0.10);
        network::set_address(LEAVES, true);
        assert!(is_served(&mut client));
        assert_eq!(balancer.number("connect_failures"), 0);
        drop(client);
        balancer.finish();
    });
}

#[test]
fn each_worker_has_ports_of_its_own() {
    watched(|| {
        network::own("10000 19999");
        let (backend, peers) = seen_by_backend();
        let pool = format!(
            "source_ports: \"10000-19999\", backends: [\"{}\"]",
            backend.address
        );
        let balancer = Launch::with_pool(&pool).workers(2).start();
        // One after the other, so that the backend sees them in this order.
        let mut clients = Vec::new();
        for _ in 0..60 {
            let mut client = balancer.connect();
            ping(&mut client, b"held");
            clients.push(client);
        }
        let sessions = balancer.ask(&["sessions"]);
        let worker_of = |client: SocketAddr| {
            let mut sessions = sessions.as_array().unwrap().iter();
            let session = sessions.find(|one| one["client"] == client.to_string());
            session.unwrap()["id"]
                .as_str()
                .unwrap()
                .split_once('-')
                .unwrap()
                .0
                == "1"
        };
        let mut parts = [BTreeSet::new(), BTreeSet::new()];
        for (client, peer) in clients.iter().zip(&*peers.lock()) {
            let worker = worker_of(client.local_addr().unwrap());
            parts[usize::from(worker)].insert(peer.port());
        }
        let [first, second] = &parts;
        assert_eq!(first.len() + second.len(), 60);
        assert!(!first.is_empty() && !second.is_empty());
        // The last sixteenth is for probes, and each worker has half of the rest.
        let within = first.last() < Some(&14_688)
            && second.first() >= Some(&14_687)
            && second.last() < Some(&19_375);
        let is_logged = balancer.log().count("source_ports does nothing") > 0;
        assert_ne!(within, is_logged, "{parts:?}");
        drop(clients);
        balancer.finish();
    });
}

/// An address that this network has for a while.
const LEAVES: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 1);
