//! Backends that refuse or don't answer.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};

use crate::balancer::Launch;
use crate::peers::{self, Backend, expect_reset, expect_turned_away, ping};
use crate::watchdog::watched;

/// A backend that answers no connect: its queue is full and nothing accepts, so the kernel drops
/// every further SYN.
struct BlackHole {
    address: String,
    _listener: TcpListener,
    _queued: Vec<Socket>,
}

impl BlackHole {
    fn new() -> Self {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        listener.bind(&any.into()).unwrap();
        listener.listen(0).unwrap();
        let listener = TcpListener::from(listener);
        let address = listener.local_addr().unwrap();
        let fills = |_| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            socket.set_nonblocking(true).unwrap();
            // In progress.
            let _ = socket.connect(&SockAddr::from(address));
            socket
        };
        let queued = (0..4).map(fills).collect();
        let probe = TcpStream::connect_timeout(&address, Duration::from_millis(100));
        assert!(probe.is_err(), "a full queue takes no more");
        Self {
            address: address.to_string(),
            _listener: listener,
            _queued: queued,
        }
    }
}

#[test]
fn a_refused_connect_is_retried_on_the_next_backend() {
    watched(|| {
        let backend = Backend::echo();
        let backends = [
            peers::refusing_address(),
            backend.address.clone(),
            peers::refusing_address(),
        ];
        let balancer = Launch::to(&backends).start();
        for _ in 0..20 {
            // The client sends this before a backend is found, and it is not lost.
            ping(&mut balancer.connect(), b"asked early");
        }
        assert_eq!(backend.accepted(), 20);
        // One of the two is soon ejected, the other may not be.
        assert!(balancer.number("connect_failures") >= 10);
        balancer.finish();
    });
}

#[test]
fn when_all_refuse_the_client_is_reset() {
    watched(|| {
        let backends = [peers::refusing_address(), peers::refusing_address()];
        let balancer = Launch::to(&backends).start();
        for _ in 0..5 {
            expect_turned_away(balancer.address());
        }
        balancer.assert_rest();
        assert_eq!(balancer.number("closed.connect_failed"), 5);
        assert_eq!(balancer.number("connect_failures"), 15, "3 attempts each");
        balancer.finish();
    });
}

#[test]
fn attempts_can_be_fewer() {
    watched(|| {
        let backends = [peers::refusing_address(), peers::refusing_address()];
        let balancer = Launch::to(&backends).flag("--attempts", "1").start();
        expect_turned_away(balancer.address());
        balancer.assert_rest();
        assert_eq!(balancer.number("connect_failures"), 1);
        balancer.finish();
    });
}

#[test]
fn a_black_hole_is_given_up_and_another_backend_tried() {
    watched(|| {
        let (hole, backend) = (BlackHole::new(), Backend::echo());
        let backends = [hole.address.clone(), backend.address.clone()];
        let launch = Launch::to(&backends).flag("--connect-timeout", "200ms");
        let balancer = launch.start();
        for _ in 0..6 {
            ping(&mut balancer.connect(), b"asked early");
        }
        assert_eq!(backend.accepted(), 6);
        assert_eq!(balancer.number("connect_failures"), 3, "every other one");
        balancer.finish();
    });
}

#[test]
fn when_all_are_black_holes_the_client_is_reset() {
    watched(|| {
        let hole = BlackHole::new();
        let launch = Launch::to(std::slice::from_ref(&hole.address));
        let balancer = launch.flag("--connect-timeout", "100ms").start();
        let mut clients: Vec<_> = (0..10).map(|_| balancer.connect()).collect();
        clients.iter_mut().for_each(expect_reset);
        balancer.assert_rest();
        assert_eq!(balancer.number("closed.connect_timeout"), 10);
        balancer.finish();
    });
}

/// A client that leaves before it has a backend leaves nothing behind.
#[test]
fn a_client_may_leave_early() {
    watched(|| {
        let hole = BlackHole::new();
        let launch = Launch::to(std::slice::from_ref(&hole.address));
        let balancer = launch.flag("--connect-timeout", "200ms").start();
        for client in 0..10 {
            let stream = balancer.connect();
            if client % 2 == 0 {
                peers::reset(stream);
            }
        }
        balancer.finish();
    });
}
