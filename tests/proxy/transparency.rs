//! Connections to backends that begin at their client's address. On the loopback device each
//! address of 127.0.0.0/8 is this machine's, so that answers come back without rules of a firewall:
//! scripts/transparency.sh has those, and other machines.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::thread::{CapabilitySet, remove_capability_from_bounding_set};
use socket2::{Domain, Socket, Type};

use crate::balancer::Launch;
use crate::network;
use crate::peers::{Backend, connect, connect_from, echo, expect_reset, limit_waits, ping, reset};
use crate::watchdog::{eventually, watched};

/// An echo backend, and the addresses of its clients.
fn seen_by_backend(at: &str) -> (Backend, Arc<Mutex<Vec<SocketAddr>>>) {
    let peers = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&peers);
    let backend = Backend::tcp(at, move |stream| {
        seen.lock().push(stream.peer_addr().unwrap());
        echo(stream);
    });
    (backend, peers)
}

fn client(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 0, n)
}

#[test]
fn a_backend_sees_the_address_of_each_client() {
    watched(|| {
        network::own("20000 29999");
        let (backend, peers) = seen_by_backend("127.0.0.1:12901");
        let launch = Launch::to(std::slice::from_ref(&backend.address));
        let balancer = launch.workers(2).flag("--source", "client").start();
        let clients: Vec<_> = (71..91).map(client).collect();
        for own in &clients {
            let mut stream = connect_from(*own, balancer.address());
            ping(&mut stream, b"as the client");
            // Its port may be another's by then.
            let peer = peers.lock().pop().unwrap();
            assert_eq!(peer.ip(), *own);
        }
        balancer.finish();
    });
}

#[test]
fn a_client_of_the_other_family_is_refused_and_counted() {
    watched(|| {
        network::own("20000 29999");
        let (v4, _) = seen_by_backend("127.0.0.1:12901");
        let launch = Launch::between("[::]:0", std::slice::from_ref(&v4.address));
        let balancer = launch.flag("--source", "client").start();
        let port = balancer.address().port();
        let by = |ip: &str| connect(SocketAddr::new(ip.parse().unwrap(), port));
        ping(&mut by("127.0.0.1"), b"of its family");
        expect_reset(&mut by("::1"));
        assert_eq!(balancer.number("closed.not_transparent"), 1);
        let told = balancer.words(&["explain", "::1"]);
        let why = "The cause: no backend of the pool has an IPv6 address, as ::1 is one.";
        assert!(told.contains(why), "{told}");
        balancer.finish();

        // Each client has its backend where the pool has both, whichever comes first.
        let (v6, peers) = seen_by_backend("[::1]:12901");
        let launch = Launch::between("[::]:0", &[v4.address.clone(), v6.address.clone()]);
        let balancer = launch.flag("--source", "client").start();
        let port = balancer.address().port();
        let by = |ip: &str| connect(SocketAddr::new(ip.parse().unwrap(), port));
        for _ in 0..4 {
            ping(&mut by("127.0.0.1"), b"of its family");
            ping(&mut by("::1"), b"of its family");
        }
        assert_eq!(peers.lock().len(), 4);
        assert_eq!(balancer.number("connect_failures"), 0);
        balancer.finish();
    });
}

#[test]
fn a_client_that_has_gone_before_its_accept_is_counted_as_that() {
    watched(|| {
        network::own("20000 29999");
        let (backend, peers) = seen_by_backend("127.0.0.1:12901");
        let launch = Launch::to(std::slice::from_ref(&backend.address));
        let balancer = launch.flag("--source", "client").start();
        balancer.process.freeze();
        reset(connect_from(client(71), balancer.address()));
        balancer.process.signal(libc::SIGCONT);
        eventually("it is counted", || {
            balancer.number("closed.client_reset") == 1
        });
        assert_eq!(balancer.number("closed.not_transparent"), 0);
        assert!(peers.lock().is_empty());
        balancer.finish();
    });
}

/// A client whose own port the test chooses: it is none of those that the kernel takes.
fn connect_from_port(own: Ipv4Addr, port: u16, to: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((own, port)).into()).unwrap();
    socket.connect(&to.into()).unwrap();
    let stream = TcpStream::from(socket);
    limit_waits(&stream);
    stream
}

#[test]
fn a_client_that_has_used_up_its_ports_holds_no_other() {
    watched(|| {
        network::own("21000 21009");
        let backend = Backend::tcp("127.0.0.1:12901", echo);
        // The kernel would choose one of those ports for the listener.
        let config = format!(
            "(workers: 1, defaults: (timeouts: (connect: \"200ms\")),\n\
             listeners: [(bind: \"127.0.0.1:12902\", pool: \"default\")],\n\
             pools: [(name: \"default\", source: \"client\", backends: [\"{}\"])])",
            backend.address
        );
        let balancer = Launch::with_config(&config, 1).start();
        let mut port = 30_000;
        let mut from = |own: u8| {
            port += 1;
            connect_from_port(client(own), port, balancer.address())
        };
        let mut held: Vec<_> = (0..10).map(|_| from(71)).collect();
        for stream in &mut held {
            ping(stream, b"held");
        }
        let mut portless = from(71);
        for _ in 0..10 {
            ping(&mut from(72), b"at once");
        }
        expect_reset(&mut portless);
        assert_eq!(balancer.number("closed.no_local_port"), 1);
        eventually("the lack with its remedy", || {
            let lacks = balancer.ask(&["status"])["lacks"].to_string();
            lacks.contains("a client has used up those of its own address")
        });
        drop(held);
        balancer.finish();
    });
}

#[test]
fn a_reload_can_not_take_a_right_back_that_the_start_gave_up() {
    watched(|| {
        network::own("20000 29999");
        let backend = Backend::echo();
        let pool = format!("backends: [\"{}\"]", backend.address);
        // Some kernels make it keep the other capability for its filters.
        let launch = |pool: &str| {
            let others = || {
                Ok(remove_capability_from_bounding_set(
                    CapabilitySet::NET_ADMIN,
                )?)
            };
            Launch::with_pool(pool).before_exec(others)
        };
        let balancer = launch(&pool).start();
        balancer.edit(|text| text.replace("pools: [(name:", "pools: [(source: \"client\", name:"));
        let (code, message) = balancer.refusal(&["reload"]);
        let why = "cannot connect from clients' addresses (source: \"client\")";
        assert!(
            code == Some(1) && message.contains(why) && message.contains("restart the balancer"),
            "{message}"
        );
        ping(&mut balancer.connect(), b"as before");
        balancer.finish();
        let pool = format!("source: \"client\", {pool}");
        let balancer = launch(&pool).start();
        let kept = &balancer.ask(&["status"])["privileges"]["capabilities"];
        let kept = kept.as_array().unwrap();
        assert!(kept.contains(&"CAP_NET_RAW".into()), "{kept:?}");
        // It is kept over a reload without such a pool.
        for (from, to) in [("source: \"client\",", "source: [],"), ("[]", "\"client\"")] {
            balancer.edit(|text| text.replace(from, to));
            balancer.words(&["reload"]);
            balancer.until_adopted();
            ping(&mut balancer.connect(), b"with it or without");
        }
        balancer.finish();
    });
}

#[test]
fn a_client_whose_connects_fail_ejects_no_backend_for_others() {
    watched(|| {
        network::own("20000 29999");
        let sound = Backend::tcp("127.0.0.1:12901", echo);
        let dead = "127.0.0.1:12999".to_owned();
        let launch = Launch::to(&[dead, sound.address.clone()]);
        let balancer = launch.flag("--source", "client").start();
        for _ in 0..30 {
            ping(
                &mut connect_from(client(71), balancer.address()),
                b"goes on",
            );
        }
        assert!(balancer.number("connect_failures") >= 10);
        assert!(balancer.events("backend_ejected").is_empty());
        for own in (72..102).map(client) {
            ping(&mut connect_from(own, balancer.address()), b"goes on");
        }
        eventually("it fails for others too", || {
            balancer.events("backend_ejected").len() == 1
        });
        balancer.finish();
    });
}
