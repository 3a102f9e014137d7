//! A balancer leaves and joins again; the process and its sessions go on.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use crate::balancer::Launch;
use crate::network;
use crate::peers::{Backend, connect, ping, refusing_address};
use crate::watchdog::{eventually, watched};

/// Goes from machine to machine.
const SHARED: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);

/// Another listener.
const MORE: &str = "(name: \"more\", bind: \"127.0.0.1:0\", pool: \"default\"), ";

fn launch(backend: &Backend) -> Launch {
    let pool = format!("backends: [\"{}\"]", backend.address);
    Launch::with_pool(&pool).settings("track_file: \"left\"")
}

#[test]
fn a_balancer_that_has_left_keeps_sessions_and_takes_no_new_clients() {
    watched(|| {
        let backend = Backend::echo();
        let balancer = launch(&backend).workers(2).start();
        let says = |what: &str| {
            let file = balancer.dir().join("left");
            fs::read_to_string(file).is_ok_and(|text| text == what)
        };
        eventually("the track file says ready", || says("0\n"));
        let mut open = balancer.connect();
        ping(&mut open, b"before");

        let message = balancer.words(&["leave", "--wait", "0s"]);
        assert_eq!(
            message,
            "left: no new clients are taken, and sessions may go on\n"
        );
        assert_eq!(balancer.http_status("/readyz"), 503);
        assert_eq!(balancer.http_status("/healthz"), 200);
        eventually("the track file says left", || says("1\n"));
        let left = &balancer.events("left")[0];
        let message = left["message"].as_str().unwrap();
        assert!(message.contains("1 session may go on"), "{message}");
        ping(&mut open, b"meanwhile");
        // Its first segment is dropped: it would be sent again after a second.
        let brief = Duration::from_millis(50);
        let late = TcpStream::connect_timeout(&balancer.address(), brief);
        assert_eq!(late.unwrap_err().kind(), std::io::ErrorKind::TimedOut);
        // A listener that is added meanwhile takes none either, and another leave changes nothing.
        let more = format!("listeners: [{MORE}");
        balancer.edit(|text| text.replacen("listeners: [", &more, 1));
        balancer.words(&["reload"]);
        let all = balancer.ask(&["listeners"]);
        let mut all = all.as_array().unwrap().iter();
        let more = all.find(|its| its["name"] == "more").unwrap();
        let more: SocketAddr = more["bind"].as_str().unwrap().parse().unwrap();
        assert!(TcpStream::connect_timeout(&more, brief).is_err());
        balancer.words(&["leave", "--wait", "0s"]);
        assert_eq!(balancer.events("left").len(), 1);

        assert_eq!(balancer.words(&["join"]), "joined: new clients are taken\n");
        assert_eq!(balancer.http_status("/readyz"), 200);
        eventually("the track file says ready again", || says("0\n"));
        for to in [balancer.address(), more] {
            ping(&mut connect(to), b"after");
        }
        ping(&mut open, b"after");
        drop(open);
        balancer.edit(|text| text.replacen(MORE, "", 1));
        balancer.words(&["reload"]);
        balancer.finish();
    });
}

#[test]
fn new_clients_are_taken_until_the_address_has_moved() {
    watched(|| {
        network::own("21000 29999");
        let backend = Backend::tcp("127.0.0.1:22901", crate::peers::echo);
        let listen = format!("bind: \"{SHARED}:22902\", freebind: true");
        let text = format!(
            "(workers: 1, track_file: \"left\", listeners: [({listen}, pool: \"web\")],
              pools: [(name: \"web\", backends: [\"{}\"])])",
            backend.address
        );
        // It listens before it has the address.
        let balancer = Launch::with_config(&text, 1).start();
        network::set_address(SHARED, true);
        let leaving = std::thread::scope(|scope| {
            let leave = scope.spawn(|| balancer.words(&["leave", "--wait", "1h"]));
            balancer.until_logged("leaving over the admin socket");
            assert_eq!(balancer.http_status("/readyz"), 503);
            ping(&mut balancer.connect(), b"still");
            network::set_address(SHARED, false);
            leave.join().unwrap()
        });
        assert!(leaving.starts_with("left: "), "{leaving}");
        let message = &balancer.events("left")[0]["message"];
        let why = "no address of a listener is on this machine";
        assert!(message.as_str().unwrap().contains(why), "{message}");
        network::set_address(SHARED, true);
        balancer.words(&["join"]);
        ping(&mut balancer.connect(), b"back");
        balancer.finish();
    });
}

#[test]
fn a_balancer_without_a_share_of_a_limit_is_not_ready() {
    watched(|| {
        let backend = Backend::echo();
        // Its etcd does not answer.
        let config = format!(
            "(workers: 1, track_file: \"left\", \
             fleet: (etcd: (endpoints: [\"http://{}\"], prefix: \"/m/\"), share_bans: false), \
             listeners: [(bind: \"127.0.0.1:0\", pool: \"p\", fleet_max_connections: 9)], \
             pools: [(name: \"p\", backends: [\"{}\"])])",
            refusing_address(),
            backend.address
        );
        let balancer = Launch::with_config(&config, 1).start();
        assert_eq!(balancer.http_status("/readyz"), 503);
        assert_eq!(balancer.http_status("/healthz"), 200);
        let status = balancer.ask(&["status"]);
        let why = status["not_ready"].as_str().unwrap();
        assert!(why.contains("no share of the fleet's limit"), "{why}");
        let file = balancer.dir().join("left");
        let says = |what: &str| fs::read_to_string(&file).is_ok_and(|text| text == what);
        eventually("the track file says so", || says("1\n"));
        // A limit of its own needs no share.
        balancer.edit(|text| text.replace("fleet_max_connections", "max_connections"));
        balancer.words(&["reload"]);
        eventually("it is ready", || balancer.http_status("/readyz") == 200);
        eventually("the track file says so too", || says("0\n"));
        balancer.finish();
    });
}
