//! SIGUSR1, SIGTERM, SIGINT.

use std::fs;
use std::io::Cursor;
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::Deserializer;
use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

use crate::balancer::{Balancer, Launch};
use crate::peers::{self, Backend, expect_end, expect_reset, ping};
use crate::process::Process;
use crate::watchdog::{eventually, time, watched};

/// The intervals of a histogram log: tag and histogram.
fn intervals(log: &[u8]) -> Vec<(String, Histogram<u64>)> {
    let entries = IntervalLogIterator::new(log).map(|entry| entry.unwrap());
    let intervals = entries.filter_map(|entry| match entry {
        LogEntry::Interval(interval) => Some(interval),
        LogEntry::StartTime(_) | LogEntry::BaseTime(_) => None,
    });
    let decode = |text: &str| {
        let bytes = BASE64_STANDARD.decode(text).unwrap();
        Deserializer::new()
            .deserialize(&mut Cursor::new(bytes))
            .unwrap()
    };
    let named = intervals.map(|interval| {
        let tag = interval.tag().unwrap().as_str().to_owned();
        (tag, decode(interval.encoded_histogram()))
    });
    named.collect()
}

fn count(intervals: &[(String, Histogram<u64>)], metric: &str) -> u64 {
    let of_metric = intervals
        .iter()
        .filter(|(tag, _)| tag.split('.').nth(1) == Some(metric));
    of_metric.map(|(_, histogram)| histogram.len()).sum()
}

#[test]
fn sigusr1_writes_tables_and_a_histogram_log() {
    watched(|| {
        let backend = Backend::echo();
        let balancer = Launch::to(std::slice::from_ref(&backend.address))
            .workers(2)
            .start();
        let talk = |sessions: usize| {
            for _ in 0..sessions {
                ping(&mut balancer.connect(), &[1; 1_000]);
            }
        };
        talk(30);
        balancer.assert_rest();
        let log = fs::read(balancer.dir().join("mahoraga.hlog")).unwrap();
        let found = intervals(&log);
        for metric in ["connect_us", "first_byte_us", "session_us", "bytes_up_B"] {
            assert_eq!(count(&found, metric), 30, "{metric}");
        }
        assert!(count(&found, "turn_ns") > 0);
        for worker in ["worker-0.", "worker-1."] {
            assert!(found.iter().any(|(tag, _)| tag.starts_with(worker)));
        }
        let up = found.iter().filter(|(tag, _)| tag.ends_with("bytes_up_B"));
        let recorded = up.filter(|(_, histogram)| !histogram.is_empty());
        for (_, histogram) in recorded {
            assert!(histogram.equivalent(histogram.max(), 1_000), "two digits");
        }
        let log = balancer.log().all();
        let table = ["count", "p99.9", "connect", "session", "bytes_down", "turn"];
        assert!(table.iter().all(|word| log.contains(word)), "{log}");

        // Later intervals hold only new values.
        talk(5);
        balancer.assert_rest();
        let log = fs::read(balancer.dir().join("mahoraga.hlog")).unwrap();
        assert_eq!(count(&intervals(&log), "session_us"), 35);
        balancer.finish();
    });
}

/// Starts it and sends it a signal this long after its first instruction.
fn signalled(signal: i32, after: Duration) -> (std::process::Child, std::path::PathBuf) {
    let launch = Launch::to(&[peers::refusing_address()]);
    let dir = launch.dir().to_owned();
    let child = launch.spawn();
    let process = Process(child.id());
    // The loader runs before the program's first instruction, and the program cannot affect it.
    while !process.is_prepared_for_signals() {
        thread::yield_now();
    }
    thread::sleep(after);
    process.signal(signal);
    (child, dir)
}

#[test]
fn a_signal_at_any_moment_of_the_start_does_what_it_does_later() {
    watched(|| {
        let harmless = [libc::SIGHUP, libc::SIGUSR2, libc::SIGALRM];
        let stopping = [libc::SIGTERM, libc::SIGINT, libc::SIGQUIT];
        let moments = [0, 3, 15].map(Duration::from_millis);
        for after in moments {
            for signal in harmless {
                let (mut child, dir) = signalled(signal, after);
                let process = Process(child.id());
                eventually("it runs", || {
                    let ended = child.try_wait().unwrap();
                    assert!(ended.is_none(), "{signal} after {after:?}: {ended:?}");
                    process.listens_to_signals()
                });
                process.signal(libc::SIGTERM);
                assert_eq!(child.wait().unwrap().code(), Some(0), "{signal} {after:?}");
                fs::remove_dir_all(dir).unwrap();
            }
            for signal in stopping {
                let (mut child, dir) = signalled(signal, after);
                assert_eq!(child.wait().unwrap().code(), Some(0), "{signal} {after:?}");
                fs::remove_dir_all(dir).unwrap();
            }
        }
    });
}

#[test]
fn signals_that_ask_for_nothing_are_survived_and_sigusr2_says_so() {
    watched(|| {
        let backend = Backend::echo();
        let balancer = Launch::to(std::slice::from_ref(&backend.address)).start();
        let timers = [libc::SIGALRM, libc::SIGVTALRM, libc::SIGPROF];
        let machine = [libc::SIGIO, libc::SIGPWR, libc::SIGSTKFLT];
        let limits = [libc::SIGXCPU, libc::SIGXFSZ];
        let others = [libc::SIGPIPE, libc::SIGCHLD, libc::SIGURG, libc::SIGWINCH];
        let signals = timers.into_iter().chain(machine).chain(limits);
        let signals = signals.chain(others).chain([libc::SIGUSR2]);
        for signal in signals.chain(libc::SIGRTMIN()..=libc::SIGRTMAX()) {
            balancer.process.signal(signal);
        }
        eventually("a line", || {
            balancer.log().count("reserved for upgrades") == 1
        });
        ping(&mut balancer.connect(), b"alive");
        balancer.finish();
    });
}

#[test]
fn sigquit_lets_sessions_end() {
    stops_gracefully(libc::SIGQUIT, 1);
}

/// An open session whose backend the test plays.
fn open(launch: fn(Launch) -> Launch) -> (Balancer, TcpListener, TcpStream, TcpStream) {
    let (backend, to) = peers::listen();
    let balancer = launch(Launch::to(&[to])).start();
    let (client, accepted) = peers::session(&balancer, &backend);
    (balancer, backend, client, accepted)
}

fn refuses(balancer: &Balancer) -> bool {
    let timeout = Duration::from_millis(500);
    TcpStream::connect_timeout(&balancer.address(), timeout).is_err()
}

fn stops_gracefully(signal: i32, workers: usize) {
    watched(move || {
        let backend = Backend::echo();
        let to = std::slice::from_ref(&backend.address);
        let mut balancer = Launch::to(to).workers(workers).start();
        let mut client = balancer.connect();
        ping(&mut client, b"before");
        balancer.process.signal(signal);
        eventually("no client is accepted", || refuses(&balancer));
        ping(&mut client, &[2; 500_000]);
        thread::sleep(Duration::from_millis(200));
        assert!(!balancer.has_ended(), "it waits for its session");
        ping(&mut client, b"still");
        drop(client);
        assert_eq!(balancer.wait().code(), Some(0));
        assert_eq!(balancer.log().count("panic"), 0);
    });
}

#[test]
fn sigterm_lets_sessions_end() {
    stops_gracefully(libc::SIGTERM, 1);
}

#[test]
fn sigint_lets_sessions_end_on_all_workers() {
    stops_gracefully(libc::SIGINT, 2);
}

/// A worker without sessions ends, and can't answer.
#[test]
fn sessions_that_hold_up_the_stop_are_listed_and_closed() {
    watched(|| {
        let launch = |launch: Launch| launch.workers(2).flag("--admin", "a.sock");
        let (mut balancer, _backend, mut client, _accepted) = open(launch);
        balancer.process.signal(libc::SIGTERM);
        let workers = || {
            let threads = balancer.process.all_threads();
            let names = threads.iter().map(|its| its.value("Name"));
            names.filter(|name| name.starts_with("worker-")).count()
        };
        eventually("one worker has ended", || workers() == 1);
        let listed = balancer.ask(&["sessions", "--admin", "a.sock"]);
        assert_eq!(listed.as_array().unwrap().len(), 1, "{listed}");
        // The answer comes although the last worker and the balancer end.
        let killed = balancer.ask(&["sessions", "--kill", "--all", "--admin", "a.sock"]);
        assert_eq!(killed["sessions"], 1);
        expect_reset(&mut client);
        assert_eq!(balancer.wait().code(), Some(0));
    });
}

#[test]
fn an_idle_balancer_ends_at_once() {
    watched(|| {
        let (backend, to) = peers::listen();
        let mut balancer = Launch::to(&[to]).workers(2).start();
        drop(peers::session(&balancer, &backend));
        balancer.assert_rest();
        balancer.process.signal(libc::SIGTERM);
        assert_eq!(balancer.wait().code(), Some(0));
    });
}

#[test]
fn a_second_signal_ends_it_at_once() {
    watched(|| {
        let (mut balancer, _backend, mut client, _accepted) = open(|launch| launch);
        balancer.process.signal(libc::SIGTERM);
        eventually("stopping", || balancer.log().count("stopping") > 0);
        balancer.process.signal(libc::SIGTERM);
        assert_eq!(balancer.wait().code(), Some(128 + libc::SIGTERM));
        let mut rest = [0; 1];
        let received = std::io::Read::read(&mut client, &mut rest);
        assert!(!received.is_ok_and(|read| read > 0), "the session is over");
    });
}

#[test]
fn what_outlasts_the_grace_is_reset() {
    watched(|| {
        let grace = |launch: Launch| launch.flag("--shutdown-grace", "300ms");
        let (mut balancer, _backend, mut client, mut accepted) = open(grace);
        balancer.process.signal(libc::SIGTERM);
        expect_reset(&mut client);
        expect_reset(&mut accepted);
        assert_eq!(balancer.wait().code(), Some(0));
        assert_eq!(balancer.log().count("panic"), 0);
    });
}

#[test]
fn idle_sessions_end_and_half_closed_ones_sooner() {
    watched(|| {
        let (backend, to) = peers::listen();
        let balancer = Launch::to(&[to])
            .flag("--idle-timeout", &time(1_000))
            .flag("--half-closed-timeout", "100ms")
            .start();
        let (mut client, mut accepted) = peers::session(&balancer, &backend);
        // Nothing is truncated: both see an end and no reset.
        expect_end(&mut client);
        expect_end(&mut accepted);
        let (mut client, mut accepted) = peers::session(&balancer, &backend);
        client.shutdown(std::net::Shutdown::Write).unwrap();
        expect_end(&mut accepted);
        expect_reset(&mut client);
        balancer.assert_rest();
        assert_eq!(balancer.number("closed.idle_timeout"), 1);
        assert_eq!(balancer.number("closed.half_closed_timeout"), 1);
        balancer.finish();
    });
}
