//! Probes into black holes: neither a descriptor nor an operation of the ring outlives them.
//!
//! A process of its own with a single test, as descriptors are counted.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use mahoraga::address::Address;
use mahoraga::config::{Backend, Check, CheckTls, Config, Expect, Pool, Probe};
use mahoraga::control::health::{Checks, HealthNews, Report};
use mahoraga::control::roster::Roster;
use parking_lot::Mutex;
use socket2::{Domain, Socket, Type};

#[test]
fn timed_out_probes_leave_nothing_behind() {
    let full = Full::new();
    let silent = Silent::new();
    let quick = Check {
        interval: Duration::from_secs(1),
        timeout: Duration::from_secs(1),
        ..Check::default()
    };
    let expecting = Check {
        probe: Probe::SendExpect {
            send: b"PING\r\n".to_vec(),
            expect: Expect::Bytes(b"PONG".to_vec()),
        },
        ..quick.clone()
    };
    let secured = Check {
        tls: CheckTls::On,
        ..quick.clone()
    };
    tokio_uring::start(async {
        swallow(full.address, &quick, "no connection within 1s", &silent).await;
        swallow(silent.address, &expecting, "no answer within 1s", &silent).await;
        swallow(
            silent.address,
            &secured,
            "no TLS handshake within 1s",
            &silent,
        )
        .await;
    });
}

/// Probes many targets at this address until each has timed out at least once, then counts
/// the descriptors and polls that are left.
async fn swallow(to: SocketAddr, check: &Check, why: &str, silent: &Silent) {
    let before = (descriptors(), polls());
    let config = many(to, check);
    let mut checks = Checks::new(7);
    let mut roster = Roster::default();
    roster.follow(&config);
    checks.follow(&config, &mut roster);
    assert_eq!(checks.targets(), TARGETS as usize);
    let mut seen = 0;
    // A check that reads the answer reports each backend first.
    for _ in 0..2_000 {
        let news = tokio::time::timeout(Duration::from_millis(20), checks.next()).await;
        if news == Ok(HealthNews::FirstRound) {
            break;
        }
        seen = seen.max(polls());
    }
    assert!(checks.first_round_done(), "every probe times out");
    assert!(seen > 100, "polls are counted: {seen}");
    let failures = config.pools.iter().map(|pool| {
        let member = roster.member(&pool.name, &pool.backends[0].name);
        failure(&checks.report(member.expect("it is there")))
    });
    let failures: Vec<_> = failures.collect();
    // On a busy machine a second may pass before a connection exists, or before this process runs
    // again.
    let late =
        |failure: &String| failure.ends_with("within 1s") || failure.starts_with("not probed");
    assert!(failures.iter().all(late), "{failures:?}");
    assert!(failures.iter().any(|failure| failure == why), "{why}");
    // This includes probes under way now, whose tasks all end at once.
    let none = Config::of(Vec::new(), Vec::new());
    roster.follow(&none);
    checks.follow(&none, &mut roster);
    let mut after = (descriptors(), polls());
    for _ in 0..1_000 {
        if after == before {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
        silent.let_go();
        after = (descriptors(), polls());
    }
    panic!("{before:?} descriptors and polls became {after:?}");
}

fn failure(report: &Option<Report>) -> String {
    let last = report.as_ref().and_then(|report| report.last.as_ref());
    let failure = last.and_then(|last| last.failure.as_ref());
    failure.map_or_else(String::new, ToString::to_string)
}

/// A different check makes a different target.
fn many(to: SocketAddr, check: &Check) -> Config {
    let pools = (0..TARGETS).map(|number| Pool {
        check: Some(Check {
            rise: 1 + number % 100,
            fall: 50 + number / 100,
            ..check.clone()
        }),
        ..Pool::of(number.to_string(), vec![Backend::at(Address::Tcp(to))])
    });
    Config::of(Vec::new(), pools.collect())
}

const TARGETS: u32 = 300;

/// A listener whose backlog is full: it answers no connect.
struct Full {
    address: SocketAddr,
    _sockets: Vec<Socket>,
}

impl Full {
    fn new() -> Self {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        listener.bind(&any.into()).expect("a free port");
        listener.listen(0).expect("it listens");
        let address = listener.local_addr().expect("it is bound");
        let mut sockets = vec![listener];
        for _ in 0..4 {
            let socket = Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), None);
            let socket = socket.expect("a socket");
            // The kernel takes the first connection, and leaves the others without an answer.
            let _ = socket.connect(&address);
            sockets.push(socket);
        }
        Self {
            address: address.as_socket().expect("an IP address"),
            _sockets: sockets,
        }
    }
}

/// A server that accepts connections and sends nothing.
struct Silent {
    address: SocketAddr,
    held: Arc<Mutex<Vec<TcpStream>>>,
}

impl Silent {
    fn new() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let held = Arc::new(Mutex::new(Vec::new()));
        let taken = Arc::clone(&held);
        // It ends with the process.
        thread::spawn(move || {
            for stream in listener.incoming() {
                taken.lock().extend(stream);
            }
        });
        Self { address, held }
    }

    /// Closes its ends of the connections.
    fn let_go(&self) {
        self.held.lock().clear();
    }
}

/// Open descriptors of this process.
fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").expect("procfs").count()
}

/// Polls that are under way in the rings of this process.
fn polls() -> usize {
    let rings = fs::read_dir("/proc/self/fd").expect("procfs");
    let rings = rings.filter_map(|entry| {
        let entry = entry.ok()?;
        let target = fs::read_link(entry.path()).ok()?;
        let is_ring = target.to_str()?.contains("io_uring");
        is_ring.then(|| entry.file_name().into_string().ok())?
    });
    let infos = rings.map(|ring| fs::read_to_string(format!("/proc/self/fdinfo/{ring}")));
    let count = |info: String| {
        let (_, list) = info.split_once("PollList:")?;
        let lines = list.lines().skip(1);
        let polls = lines.take_while(|line| line.trim_start().starts_with("op="));
        Some(polls.count())
    };
    infos.filter_map(|info| count(info.ok()?)).sum()
}
