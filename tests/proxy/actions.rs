//! What is done with refused clients: by default they are reset; a rule may say otherwise.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::time::Duration;

use mahoraga::kernel::Socket;
use mahoraga::sys;

use crate::balancer::{Balancer, Launch};
use crate::machines::{self, HERE};
use crate::peers::{self, Backend, expect_broken, expect_reset, ping};
use crate::watchdog::{eventually, watched};

/// One worker with a listener of these settings, and these of the whole file.
fn start(backend: &Backend, listener: &str, global: &str) -> Balancer {
    start_workers(1, backend, listener, global)
}

fn start_workers(count: usize, backend: &Backend, listener: &str, global: &str) -> Balancer {
    let config = format!(
        "(workers: {count}, access_log: \"-\", {global}\n\
         listeners: [(bind: \"127.0.0.1:0\", pool: \"p\", {listener})],\n\
         pools: [(name: \"p\", backends: [\"{}\"])])",
        backend.address
    );
    Launch::with_config(&config, 1).workers(count).start()
}

/// Nothing comes, and no end either.
#[track_caller]
fn expect_silence(client: &TcpStream) {
    client
        .set_read_timeout(Some(Duration::from_millis(300)))
        .unwrap();
    let error = (&*client).read(&mut [0; 16]).unwrap_err();
    let waits = [ErrorKind::WouldBlock, ErrorKind::TimedOut];
    assert!(waits.contains(&error.kind()), "{error}");
}

/// Bytes that the balancer's kernel has not acknowledged.
fn unacknowledged(client: &TcpStream) -> u32 {
    sys::unsent(&Socket::from_raw(client.as_raw_fd()))
}

const DENIES: &str = "access_list: \"none\"";

/// A list that denies all, with this action, and slots for refused clients.
fn denies_all(action: &str, tarpit: &str) -> String {
    format!(
        "tarpit: {tarpit}, access_lists: [(name: \"none\", deny: [\"0.0.0.0/0\"], \
         others: \"deny\", action: \"{action}\")],"
    )
}

#[test]
fn a_client_in_the_tarpit_waits_and_is_not_read_from() {
    watched(|| {
        let backend = Backend::echo();
        let global = denies_all("tarpit", "(time: \"2s\")");
        let balancer = start(&backend, DENIES, &global);
        let mut client = balancer.connect();
        eventually("it is held", || balancer.number("tarpitted") == 1);
        client.write_all(&[7; 100]).unwrap();
        eventually("its bytes are acknowledged", || {
            unacknowledged(&client) == 0
        });
        expect_silence(&client);
        // It is not read from: what it sends fills the smallest window and then its own buffer.
        client.set_nonblocking(true).unwrap();
        while client.write(&[7; 64 * 1024]).is_ok() {}
        client.set_nonblocking(false).unwrap();
        assert!(unacknowledged(&client) > 0);
        expect_broken(&client);
        let line = || balancer.output().count("reason=access_denied") == 1;
        eventually("it has a line", line);
        assert_eq!(balancer.number("closed.access_denied"), 1);
        assert_eq!(backend.accepted(), 0);
        balancer.finish();
    });
}

#[test]
fn a_dropped_client_hears_nothing_not_even_an_acknowledgement() {
    watched(|| {
        let backend = Backend::echo();
        let global = denies_all("drop", "(time: \"2s\")");
        let balancer = start(&backend, DENIES, &global);
        let mut client = balancer.connect();
        eventually("it is held", || balancer.number("dropped") == 1);
        client.write_all(&[7; 100]).unwrap();
        expect_silence(&client);
        assert_eq!(unacknowledged(&client), 100);
        assert_eq!(backend.accepted(), 0);
        // On the same machine the end of its time shows.
        expect_broken(&client);
        balancer.finish();
    });
}

/// Its end stays on this side of the first router, for clients of both families.
#[test]
fn a_dropped_client_behind_a_router_does_not_see_the_end() {
    watched(|| {
        let Some(there) = machines::neighbours() else {
            return;
        };
        let backend = Backend::echo();
        let config = format!(
            "(workers: 1, tarpit: (time: \"1s\"), \
             access_lists: [(name: \"none\", others: \"deny\", action: \"drop\", \
             deny: [\"0.0.0.0/0\"])], \
             listeners: [(name: \"a\", bind: \"[::]:0\", pool: \"p\", access_list: \"none\"), \
             (name: \"b\", bind: \"[::]:0\", pool: \"p\")], \
             pools: [(name: \"p\", backends: [\"{}\"])])",
            backend.address
        );
        let balancer = Launch::with_config(&config, 2).start();
        let connect = |listener: usize, here: &str| {
            let port = balancer.address_of(listener).port();
            let to = SocketAddr::new(here.parse().unwrap(), port);
            there.run(|| peers::connect(to))
        };
        // There is a way, and a way back.
        for here in HERE {
            ping(&mut connect(1, here), b"served");
        }
        let clients = HERE.map(|here| connect(0, here));
        eventually("they were held and let go", || {
            balancer.number("dropped") == 2 && balancer.number("held") == 0
        });
        clients.iter().for_each(expect_silence);
        assert_eq!(balancer.number("closed.access_denied"), 2);
        balancer.finish();
    });
}

#[test]
fn each_rule_has_an_action_of_its_own() {
    watched(|| {
        let backend = Backend::echo();
        let listener = "source_limits: (connections: 1, action: \"tarpit\"), \
                        rate_limit: (rate: 1, burst: 2, action: \"drop\")";
        let balancer = start(&backend, listener, "tarpit: (time: \"2s\"),");
        let mut first = balancer.connect();
        ping(&mut first, b"served");
        // Beyond its connections; what refuses it uses up nothing of the rate.
        let second = balancer.connect();
        eventually("it is tarpitted", || balancer.number("tarpitted") == 1);
        expect_silence(&second);
        // Others use up the rate.
        let from = |n| peers::connect_from(crate::stage::source(n), balancer.address());
        let others: Vec<_> = (0..20).map(from).collect();
        eventually("one is dropped", || balancer.number("dropped") >= 1);
        ping(&mut first, b"served still");
        drop((first, second, others));
        balancer.finish();
    });
}

/// One worker has held none when the others' clients have taken all slots: it resets its own.
#[test]
fn slots_are_those_of_all_workers() {
    watched(|| {
        let backend = Backend::echo();
        let global = denies_all("tarpit", "(slots: 2, time: \"2s\")");
        let balancer = start_workers(4, &backend, DENIES, &global);
        let _clients: Vec<_> = (0..30).map(|_| balancer.connect()).collect();
        eventually("all were refused", || {
            balancer.number("closed.access_denied") == 30
        });
        assert_eq!(balancer.number("held"), 2);
        balancer.finish();
    });
}

/// The first one is held for longest, and goes first.
#[test]
fn slots_are_bounded() {
    watched(|| {
        let backend = Backend::echo();
        let global = denies_all("tarpit", "(slots: 3, time: \"5s\")");
        let balancer = start(&backend, DENIES, &global);
        let clients: Vec<_> = (0..8).map(|_| balancer.connect()).collect();
        eventually("all were held", || balancer.number("tarpitted") == 8);
        assert_eq!(balancer.number("held_early"), 5);
        clients[..5].iter().for_each(expect_broken);
        clients[5..].iter().for_each(expect_silence);
        assert_eq!(balancer.number("held"), 3);
        clients[5..].iter().for_each(expect_broken);
        balancer.finish();
    });
}

/// The action is about new connections: open sessions end by RST.
#[test]
fn a_banned_client_may_be_tarpitted() {
    watched(|| {
        let backend = Backend::echo();
        let global = "tarpit: (time: \"1s\"), bans: (action: \"tarpit\"),";
        let balancer = start(&backend, "", global);
        let mut open = balancer.connect();
        ping(&mut open, b"served");
        balancer.words(&["ban", "127.0.0.1"]);
        expect_reset(&mut open);
        let client = balancer.connect();
        eventually("it is held", || balancer.number("tarpitted") == 1);
        expect_silence(&client);
        assert_eq!(balancer.number("closed.banned"), 2);
        balancer.finish();
    });
}
