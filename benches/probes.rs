//! What probing costs the control thread: CPU time per probe with all backends healthy, against all
//! of them black holes or refusing.
//!
//! [`TARGETS`] targets for [`SECONDS`] each. Only the control thread is measured, with its time in
//! the kernel; the servers' time is not included.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::thread;
use std::time::Duration;

use mahoraga::address::Address;
use mahoraga::config::{Backend, Check, Config, Expect, HttpProbe, Pool, Probe};
use mahoraga::control::health::Checks;
use mahoraga::control::roster::Roster;
use socket2::{Domain, Socket, Type};

fn main() {
    let refused = bound();
    let full = bound();
    full.listen(0).expect("it listens");
    let _waiting: Vec<_> = (0..4).map(|_| attempt(&full)).collect();
    let [refused_at, full_at] = [&refused, &full].map(address);
    let answering = serve(true);
    let silent = serve(false);

    println!("{:<8} {:<24} {:>7} {:>9}", "", "", "probes", "us/probe");
    compare(
        "tcp",
        &Probe::Tcp,
        answering,
        &[("no connection", full_at), ("refused", refused_at)],
    );
    let http = Probe::Http(HttpProbe {
        status: 200..=299,
        ..HttpProbe::default()
    });
    let failing = [
        ("no connection", full_at),
        ("no answer", silent),
        ("refused", refused_at),
    ];
    compare("http", &http, answering, &failing);
    let expect = Probe::SendExpect {
        send: b"PING".to_vec(),
        expect: Expect::Bytes(b"200".to_vec()),
    };
    compare("expect", &expect, answering, &failing);
}

fn compare(name: &str, probe: &Probe, healthy: SocketAddr, failing: &[(&str, SocketAddr)]) {
    let base = measure(name, "healthy", probe, healthy);
    for (why, address) in failing {
        let cost = measure(name, why, probe, *address);
        println!("{:<8} {why:<24} {:.2} times healthy", "", cost / base);
    }
}

/// Probes for a while, and returns the CPU time of a probe, in ns.
fn measure(name: &str, what: &str, probe: &Probe, to: SocketAddr) -> f64 {
    let check = Check {
        probe: probe.clone(),
        interval: Duration::from_millis(100),
        timeout: Duration::from_millis(80),
        ..Check::default()
    };
    let pools = (0..TARGETS).map(|number| Pool {
        // A different check makes it a different target.
        check: Some(Check {
            rise: 1 + number % 100,
            fall: 1 + number / 100,
            ..check.clone()
        }),
        ..Pool::of(number.to_string(), vec![Backend::at(Address::Tcp(to))])
    });
    let config = Config::of(Vec::new(), pools.collect());
    let (probes, cpu) = tokio_uring::start(async {
        let mut checks = Checks::new(1);
        let mut roster = Roster::default();
        roster.follow(&config);
        checks.follow(&config, &mut roster);
        let before = cpu();
        let probing = async {
            loop {
                checks.next().await;
            }
        };
        // The task never ends by itself.
        let _ = tokio::time::timeout(Duration::from_secs(SECONDS), probing).await;
        let cpu = cpu() - before;
        let members = config.pools.iter();
        let members = members.map(|pool| roster.member(&pool.name, &pool.backends[0].name));
        let reports = members.map(|member| checks.report(member?));
        let probes = reports.map(|report| report.map_or(0, |report| report.probes));
        (probes.sum::<u64>(), cpu)
    });
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let cost = cpu as f64 / probes as f64;
    println!("{name:<8} {what:<24} {probes:>7} {:>9.1}", cost / 1_000.0);
    cost
}

/// CPU time of this thread, in ns (proc_pid_schedstat(5)).
fn cpu() -> u64 {
    let stat = fs::read_to_string("/proc/thread-self/schedstat").expect("procfs");
    let cpu = stat.split(' ').next().expect("three numbers");
    cpu.parse().expect("a number")
}

/// A server that reads, and answers once if `answers` is set.
fn serve(answers: bool) -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            thread::spawn(move || {
                let mut request = [0; 1_024];
                // A probe may close its connection at any time.
                while matches!(stream.read(&mut request), Ok(1..)) {
                    if answers {
                        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
                    }
                }
            });
        }
    });
    address
}

fn bound() -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    socket.bind(&any.into()).expect("a free port");
    socket
}

fn address(socket: &Socket) -> SocketAddr {
    let address = socket.local_addr().expect("it is bound");
    address.as_socket().expect("an IP address")
}

/// The first takes the only place in the backlog.
fn attempt(to: &Socket) -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), None).expect("a socket");
    let _ = socket.connect(&address(to).into());
    socket
}

const TARGETS: u32 = 200;
const SECONDS: u64 = 10;
