//! A worker that can't keep up: it serves open sessions first, and refuses clients that wait for
//! too long.

use std::io::Write;
use std::net::TcpStream;

use crate::balancer::{Balancer, Launch};
use crate::peers::{self, Backend, ping};
use crate::watchdog::{eventually, heavy};

/// One worker whose clients may wait for a moment only.
fn start(backend: &Backend, overload: &str) -> Balancer {
    let config = format!(
        "(workers: 1, access_log: \"-\", overload: {overload},\n\
         listeners: [(name: \"front\", bind: \"127.0.0.1:0\", pool: \"p\")],\n\
         pools: [(name: \"p\", backends: [\"{}\"])])",
        backend.address
    );
    Launch::with_config(&config, 1).start()
}

/// Clients come in bursts until this holds: all of one are there before the worker takes any in,
/// and further ones come while it does. They leave by RST.
fn burst_until(balancer: &Balancer, what: &str, holds: impl Fn() -> bool) {
    eventually(what, || {
        let come = |_| peers::begin_to_connect(balancer.address());
        balancer.process.freeze();
        let mut clients: Vec<TcpStream> = (0..GATHERED).map(come).collect();
        balancer.process.signal(libc::SIGCONT);
        clients.extend((0..BURST).map(come));
        clients.into_iter().for_each(peers::reset);
        holds()
    });
}

#[test]
fn an_overloaded_worker_refuses_new_clients_and_serves_open_sessions() {
    heavy(|| {
        let backend = Backend::echo();
        let balancer = start(&backend, "(wait: \"1ms\", after: \"10ms\")");
        let events = balancer.follow();
        let mut held: Vec<_> = (0..8).map(|_| balancer.connect()).collect();
        held.iter_mut().for_each(|client| ping(client, b"before"));
        let refused = || balancer.number("closed.overloaded");
        burst_until(&balancer, "clients are refused", || {
            held.iter()
                .for_each(|client| ping(&mut &*client, b"during"));
            refused() > 0
        });
        let event = events.next("overloaded");
        assert!(event["message"].as_str().unwrap().contains("were refused"));
        let line = || balancer.output().count("reason=overloaded") > 0;
        eventually("refused clients have lines", line);
        // Further ones the kernel drops before they are connected.
        burst_until(&balancer, "the backlog is short", || {
            balancer.number("backlog_drops") > 0
        });
        held.iter_mut().for_each(|client| ping(client, b"after"));
        // The load is over: clients are taken in as ever.
        eventually("a client is served", || {
            let before = refused();
            ping(&mut balancer.connect(), b"again");
            refused() == before
        });
        drop((held, events));
        balancer.finish();
    });
}

#[test]
fn a_dry_run_refuses_no_client_and_counts_them() {
    heavy(|| {
        let backend = Backend::echo();
        let overload = "(wait: \"1ms\", after: \"10ms\", dry_run: true)";
        let balancer = start(&backend, overload);
        let counted = || balancer.number("overloaded_dry_run") > 0;
        burst_until(&balancer, "clients are counted", counted);
        assert_eq!(balancer.number("closed.overloaded"), 0);
        balancer.finish();
    });
}

/// A balancer whose second listener waits for first bytes.
fn start_with_memory(backend: &Backend, overload: &str) -> Balancer {
    let to = &backend.address;
    let config = format!(
        "(workers: 1, memory: \"4MiB\", overload: {overload},\n\
         listeners: [(bind: \"127.0.0.1:0\", pool: \"plain\"),\n\
         (name: \"named\", bind: \"127.0.0.1:0\", pool: \"named\",\n\
         timeouts: (peek: \"1m\"))],\n\
         pools: [(name: \"plain\", backends: [\"{to}\"]), (name: \"named\",\n\
         strategy: (name: \"hash\", key: \"http_path\"), backends: [\"{to}\"])])"
    );
    Launch::with_config(&config, 2).start()
}

/// Clients that stop in their first bytes, one for each buffer.
fn use_memory_up(balancer: &Balancer) -> Vec<TcpStream> {
    let stop = |_| {
        let mut client = peers::connect(balancer.address_of(1));
        client.write_all(b"GET /").unwrap();
        client
    };
    (0..BUFFERS).map(stop).collect()
}

#[test]
fn memory_that_is_used_up_refuses_no_client_by_default() {
    heavy(|| {
        let backend = Backend::echo();
        let balancer = start_with_memory(&backend, "(after: \"10ms\")");
        let stopped = use_memory_up(&balancer);
        let used_up = || balancer.number("buffers") >= BUFFERS as u64 * 19 / 20;
        eventually("buffers are used up", used_up);
        for _ in 0..20 {
            ping(&mut balancer.connect(), b"served");
        }
        assert!(used_up() && balancer.number("closed.memory_full") == 0);
        drop(stopped);
        balancer.finish();
    });
}

/// Others are refused until clients that hold buffers leave.
#[test]
fn a_worker_without_memory_refuses_new_clients_and_serves_open_sessions() {
    heavy(|| {
        let backend = Backend::echo();
        let balancer = start_with_memory(&backend, "(after: \"10ms\", memory: 60)");
        let mut open = balancer.connect();
        ping(&mut open, b"before");
        let stopped = use_memory_up(&balancer);
        eventually("clients are refused", || {
            let _ = peers::try_connect(balancer.address());
            ping(&mut open, b"during");
            balancer.number("closed.memory_full") > 0
        });
        peers::expect_turned_away(balancer.address());
        stopped.into_iter().for_each(peers::reset);
        eventually("buffers come back", || balancer.number("buffers") < 50);
        ping(&mut balancer.connect(), b"again");
        drop(open);
        balancer.finish();
    });
}

/// Clients that gather while the balancer is stopped. A worker is busy with them for tens of
/// milliseconds at least.
const GATHERED: usize = 1_000;
/// Clients that come after them.
const BURST: usize = 300;
/// As many as a worker with 4 MiB has.
const BUFFERS: usize = 192;
