//! Clients of a full pool: which wait, in which order they are served, and which are refused.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::thread;

use crate::balancer::{Balancer, Launch};
use crate::fleet::Fleet;
use crate::metrics::{scrape, sum};
use crate::peers::{expect_reset, expect_turned_away, reset};
use crate::reload::reload;
use crate::stage::{Guest, Stage, with_one_and_two_workers};
use crate::watchdog::{eventually, watched};

/// The number of clients that wait for a place, from the report of SIGUSR1.
fn waiting(balancer: &Balancer) -> usize {
    let asked = balancer.log().count("pool default: ");
    balancer.numbers();
    eventually("the pool is shown", || {
        balancer.log().count("pool default: ") > asked
    });
    balancer.note_figures();
    let lines = balancer.log().lines_with("pool default: ");
    let line = lines.last().unwrap().strip_suffix(" waiting for a place");
    line.map_or(0, |line| line.rsplit(", ").next().unwrap().parse().unwrap())
}

/// A client that waits behind the clients that wait already.
fn join(stage: &Stage, before: usize) -> TcpStream {
    let client = stage.balancer.connect();
    eventually("it waits", || waiting(&stage.balancer) == before + 1);
    client
}

fn is_welcome(client: &TcpStream) -> bool {
    client.set_nonblocking(true).unwrap();
    let welcome = client.peek(&mut [0]).is_ok_and(|read| read == 1);
    client.set_nonblocking(false).unwrap();
    welcome
}

/// One backend with one place, and a queue.
fn narrow(queue: &str, workers: usize) -> Stage {
    let fleet = Fleet::of(1);
    let backends = fleet.ron(&["max_connections: 1"]);
    let pool = format!("strategy: \"first\", queue: ({queue}), backends: [{backends}]");
    Stage::start(Launch::with_pool(&pool).workers(workers), "first", fleet)
}

fn reasons(stage: &Stage, reason: &str) -> usize {
    let lines = stage.lines();
    lines.iter().filter(|line| line.reason == reason).count()
}

#[test]
fn they_are_served_in_the_order_of_arrival() {
    with_one_and_two_workers(|workers| {
        let stage = narrow("timeout: \"10m\"", workers);
        let mut served = stage.hold();
        let mut clients: Vec<_> = (0..6).map(|before| join(&stage, before)).collect();
        while !clients.is_empty() {
            assert!(!clients.iter().any(is_welcome));
            served.leave();
            served = Guest::welcome(clients.remove(0));
        }
        served.leave();
        assert_eq!(waiting(&stage.balancer), 0);
        let waited = stage.lines();
        let waited = waited.iter().filter(|line| line.queued.is_some());
        assert_eq!(waited.count(), 6);
        let status = stage.balancer.ask(&["status"]);
        let times = status["latencies"].as_array().unwrap().iter();
        let mut of_queue = times.filter(|its| its["name"] == "queue");
        assert_eq!(of_queue.next().unwrap()["since_start"]["count"], 6);
        let text = scrape(&stage.balancer, "*/*");
        for of in ["listener", "pool"] {
            let name = format!("mahoraga_{of}_queue_seconds_count");
            assert_eq!(sum(&text, &name), 6, "{text}");
        }
        assert_eq!(stage.fleet.held_max(), [1]);
        stage.finish();
    });
}

/// A new client may find a place that was just left: it is for those who wait.
#[test]
fn no_client_overtakes_another() {
    with_one_and_two_workers(|workers| {
        let stage = narrow("timeout: \"10m\"", workers);
        let mut served = stage.hold();
        let mut clients = vec![join(&stage, 0)];
        for _ in 0..20 {
            // One client leaves while another comes.
            served.stream.shutdown(Shutdown::Write).unwrap();
            clients.push(stage.balancer.connect());
            served.stream.read_to_end(&mut Vec::new()).unwrap();
            served = Guest::welcome(clients.remove(0));
            assert!(!is_welcome(&clients[0]));
            eventually("the next one waits", || waiting(&stage.balancer) == 1);
        }
        served.leave();
        clients.into_iter().for_each(|client| {
            Guest::welcome(client).leave();
        });
        stage.finish();
    });
}

/// If clients only looked for a place now and then, this would take longer than the watchdog waits.
#[test]
fn a_place_is_handed_over_at_once() {
    with_one_and_two_workers(|workers| {
        let stage = narrow("timeout: \"10m\"", workers);
        let mut served = stage.hold();
        for _ in 0..600 {
            let next = stage.balancer.connect();
            served.leave();
            served = Guest::welcome(next);
        }
        served.leave();
        stage.finish();
    });
}

#[test]
fn a_client_that_finds_the_queue_full_is_reset_at_once() {
    with_one_and_two_workers(|workers| {
        let stage = narrow("max: 2, timeout: \"10m\"", workers);
        let guest = stage.hold();
        let clients = [join(&stage, 0), join(&stage, 1)];
        for _ in 0..3 {
            expect_turned_away(stage.balancer.address());
        }
        guest.leave();
        for client in clients {
            Guest::welcome(client).leave();
        }
        assert_eq!(
            ["pool_full", "client_closed"].map(|why| reasons(&stage, why)),
            [3, 3]
        );
        assert_eq!(stage.balancer.number("closed.pool_full"), 3);
        assert_eq!(stage.balancer.number("connect_failures"), 0);
        stage.finish();
    });
}

#[test]
fn no_client_waits_without_a_queue() {
    watched(|| {
        let stage = narrow("max: 0", 2);
        let guest = stage.hold();
        expect_turned_away(stage.balancer.address());
        guest.leave();
        stage.visit();
        assert_eq!(reasons(&stage, "pool_full"), 1);
        stage.finish();
    });
}

#[test]
fn a_client_that_waits_too_long_is_reset() {
    watched(|| {
        let stage = narrow("timeout: \"300ms\"", 2);
        let guest = stage.hold();
        let mut clients: Vec<_> = (0..4).map(|_| stage.balancer.connect()).collect();
        // Nothing that a client sends changes this.
        clients[1].write_all(b"hello").unwrap();
        clients[2].shutdown(Shutdown::Write).unwrap();
        clients.iter_mut().for_each(expect_reset);
        guest.leave();
        stage.visit();
        let lines = stage.lines();
        let late = lines.iter().filter(|line| line.reason == "queue_timeout");
        let waits: Vec<_> = late.map(|line| line.queued.unwrap()).collect();
        assert_eq!(waits.len(), 4);
        assert!(waits.iter().all(|us| *us >= 300_000), "{waits:?}");
        assert_eq!(lines.iter().filter(|line| line.queued.is_none()).count(), 2);
        assert_eq!(stage.balancer.number("closed.queue_timeout"), 4);
        stage.finish();
    });
}

#[test]
fn a_client_that_leaves_the_queue_makes_room() {
    with_one_and_two_workers(|workers| {
        let stage = narrow("max: 2, timeout: \"10m\"", workers);
        let guest = stage.hold();
        let first = join(&stage, 0);
        let second = join(&stage, 1);
        reset(first);
        eventually("it is gone", || waiting(&stage.balancer) == 1);
        let third = join(&stage, 1);
        guest.leave();
        for client in [second, third] {
            Guest::welcome(client).leave();
        }
        let counts = ["client_reset", "client_closed"].map(|why| reasons(&stage, why));
        assert_eq!(counts, [1, 3]);
        stage.finish();
    });
}

/// Whatever it has sent: the kernel tells the close of a Unix socket from the end of a stream.
#[test]
fn a_unix_client_that_has_closed_leaves_the_queue() {
    watched(|| {
        let fleet = Fleet::of(1);
        let backends = fleet.ron(&["max_connections: 1"]);
        let config = format!(
            "(workers: 1, listeners: [(bind: \"unix:front.sock\", pool: \"default\")],\n\
             pools: [(name: \"default\", queue: (timeout: \"10m\"), backends: [{backends}])])"
        );
        let launch = Launch::with_config(&config, 1);
        let front = launch.dir().join("front.sock");
        let balancer = launch.start();
        let mut served = UnixStream::connect(&front).unwrap();
        served.read_exact(&mut [0]).unwrap();
        for sent in [&b""[..], b"a request"] {
            let mut client = UnixStream::connect(&front).unwrap();
            client.write_all(sent).unwrap();
            eventually("it waits", || waiting(&balancer) == 1);
            drop(client);
            eventually("it is gone", || waiting(&balancer) == 0);
        }
        assert_eq!(balancer.number("closed.client_reset"), 2);
        drop(served);
        balancer.finish();
    });
}

#[test]
fn what_a_client_says_in_the_queue_reaches_its_backend() {
    watched(|| {
        let stage = narrow("timeout: \"10m\"", 2);
        let guest = stage.hold();
        let mut client = join(&stage, 0);
        let message: Vec<u8> = (0..200_000_u32).map(|n| n.to_be_bytes()[3]).collect();
        let mut speaker = client.try_clone().unwrap();
        let words = message.clone();
        let speaker = thread::spawn(move || {
            speaker.write_all(&words).unwrap();
            speaker.shutdown(Shutdown::Write).unwrap();
        });
        guest.leave();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).unwrap();
        speaker.join().unwrap();
        assert!(answer[1..] == message, "{} bytes", answer.len());
        stage.finish();
    });
}

/// A reload that raises a limit calls as many clients as there are places; so does one that adds a
/// backend.
#[test]
fn a_reload_that_brings_places_calls() {
    with_one_and_two_workers(|workers| {
        let fleet = Fleet::of(2);
        let pool = |first: &str, second: &str| {
            let extras = [first, second].map(|max| format!("max_connections: {max}"));
            let backends = fleet.ron(&[&extras[0], &extras[1]]);
            let backends = backends.replace("max_connections: 0", "weight: 0");
            format!("strategy: \"first\", queue: (timeout: \"10m\"), backends: [{backends}]")
        };
        let [old, raised, more] = [pool("1", "0"), pool("3", "0"), pool("3", "2")];
        let launch = Launch::with_pool(&old).workers(workers);
        let stage = Stage::start(launch, "first", fleet);
        let mut guests = vec![stage.hold()];
        let mut clients: Vec<_> = (0..5).map(|before| join(&stage, before)).collect();
        let mut welcome = |clients: &mut Vec<TcpStream>, count: usize| {
            let called = clients.drain(..count);
            guests.extend(called.map(Guest::welcome));
            guests.len()
        };
        reload(&stage, &raised);
        assert_eq!(welcome(&mut clients, 2), 3);
        assert_eq!(waiting(&stage.balancer), 3);
        reload(&stage, &more);
        assert_eq!(welcome(&mut clients, 2), 5);
        assert_eq!(stage.fleet.held(), [3, 2]);
        guests.into_iter().for_each(|guest| {
            guest.leave();
        });
        Guest::welcome(clients.remove(0)).leave();
        stage.finish();
    });
}

/// The clients are connected already: a stop serves them too, within its grace.
#[test]
fn a_stop_serves_those_that_wait() {
    with_one_and_two_workers(|workers| {
        let mut stage = narrow("timeout: \"10m\"", workers);
        let guest = stage.hold();
        let clients = [join(&stage, 0), join(&stage, 1)];
        stage.balancer.process.signal(libc::SIGTERM);
        eventually("it stops", || stage.balancer.log().count("stopping: ") == 1);
        guest.leave();
        for client in clients {
            Guest::welcome(client).leave();
        }
        assert_eq!(stage.balancer.wait().code(), Some(0));
    });
}
