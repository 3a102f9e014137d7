//! A balancer between backends that identify themselves and clients of any source address.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::thread;

use crate::access_log::key_values;
use crate::balancer::{Balancer, Launch};
use crate::fleet::Fleet;
use crate::peers;
use crate::watchdog::{eventually, watched};

/// A running balancer and its backends.
pub(crate) struct Stage {
    pub(crate) fleet: Fleet,
    pub(crate) balancer: Balancer,
    /// The names that the access log may have for the strategy.
    strategies: Vec<String>,
}

/// A client that has received its backend's number.
#[derive(Debug)]
pub(crate) struct Guest {
    pub(crate) stream: TcpStream,
    /// The number of its backend.
    pub(crate) backend: usize,
}

/// A line of the access log.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) backend: Option<usize>,
    pub(crate) worker: usize,
    pub(crate) reason: String,
    pub(crate) attempts: usize,
    /// In µs, if it ever waited for a place.
    pub(crate) queued: Option<u64>,
}

/// Runs a test with one worker and, at the same time, with two.
pub(crate) fn with_one_and_two_workers(test: fn(usize)) {
    watched(move || {
        thread::scope(|scope| {
            scope.spawn(|| test(1));
            test(2);
        });
    });
}

/// `mahoraga proxy` to these backends, each with its other fields.
pub(crate) fn proxy(strategy: &str, fleet: &Fleet, extras: &[&str]) -> Launch {
    let extras = extras.iter().chain([&""].into_iter().cycle());
    let to = fleet.addresses().into_iter().zip(extras);
    let to: Vec<_> = to.map(|(address, extra)| address + extra).collect();
    Launch::to(&to)
        .flag("--strategy", strategy)
        .flag("--access-log", "-")
}

impl Stage {
    /// `mahoraga proxy` with this strategy and no other option.
    pub(crate) fn plain(strategy: &str, workers: usize, fleet: Fleet) -> Self {
        let launch = proxy(strategy, &fleet, &[]).workers(workers);
        Self::start(launch, strategy, fleet)
    }

    pub(crate) fn start(launch: Launch, strategy: &str, fleet: Fleet) -> Self {
        Self {
            balancer: launch.start(),
            strategies: vec![strategy.to_owned()],
            fleet,
        }
    }

    /// The strategy may change to this one.
    pub(crate) fn expect_too(&mut self, strategy: &str) {
        self.strategies.push(strategy.to_owned());
    }

    /// A client that sends these bytes, if any, and then receives its backend's number.
    pub(crate) fn call(&self, source: Ipv4Addr, first: &[u8]) -> Guest {
        let mut stream = peers::connect_from(source, self.balancer.address());
        stream.write_all(first).unwrap();
        Guest::welcome(stream)
    }

    /// A client that stays.
    pub(crate) fn hold(&self) -> Guest {
        self.call(Ipv4Addr::LOCALHOST, b"")
    }

    pub(crate) fn hold_all(&self, guests: usize) -> Vec<Guest> {
        (0..guests).map(|_| self.hold()).collect()
    }

    /// A client that comes and goes: the number of its backend.
    pub(crate) fn visit(&self) -> usize {
        self.hold().leave()
    }

    pub(crate) fn visit_from(&self, source: Ipv4Addr) -> usize {
        self.call(source, b"").leave()
    }

    /// Clients one after the other: the backend of each.
    pub(crate) fn visits(&self, clients: usize) -> Vec<usize> {
        (0..clients).map(|_| self.visit()).collect()
    }

    /// The access log by backend, once it has as many sessions as backends have accepted.
    pub(crate) fn lines(&self) -> Vec<Line> {
        let mut lines = Vec::new();
        eventually(
            "the log has all sessions that backends have accepted",
            || {
                lines = self.lines_so_far();
                self.counts(&lines) == self.fleet.accepted()
            },
        );
        lines
    }

    fn lines_so_far(&self) -> Vec<Line> {
        let addresses = self.fleet.addresses();
        let lines = self.balancer.output().lines_with("");
        let parse = |line: &String| {
            let fields = key_values(line);
            assert!(self.strategies.contains(&fields["strategy"]), "{line}");
            assert_eq!(fields["pool"], "default", "{line}");
            let unconnected = fields["connect_us"] == "-";
            let backend = addresses.iter().position(|to| *to == fields["backend"]);
            assert!(backend.is_some() || unconnected, "{line}");
            Line {
                backend: backend.filter(|_| !unconnected),
                worker: fields["worker"].parse().unwrap(),
                reason: fields["reason"].clone(),
                attempts: fields["attempts"].parse().unwrap(),
                queued: fields["queued_us"].parse().ok(),
            }
        };
        lines.iter().map(parse).collect()
    }

    /// Sessions by backend.
    pub(crate) fn counts<'a>(&self, lines: impl IntoIterator<Item = &'a Line>) -> Vec<usize> {
        let backends = lines.into_iter().filter_map(|line| line.backend);
        tally(self.fleet.len(), backends)
    }

    /// After all clients have left: the log is complete, and the balancer at rest ends in order.
    pub(crate) fn finish(self) {
        let lines = self.lines();
        let mut workers = HashMap::new();
        for line in &lines {
            *workers.entry(line.worker).or_insert(0) += 1;
        }
        // The kernel spreads clients by chance.
        if self.balancer.workers() > 1 && lines.len() >= 40 {
            assert!(workers.len() > 1, "all {} on one worker", lines.len());
        }
        self.balancer.finish();
    }
}

impl Guest {
    /// Waits for the backend's number.
    pub(crate) fn welcome(mut stream: TcpStream) -> Self {
        let mut number = [0];
        stream.read_exact(&mut number).unwrap();
        Self {
            stream,
            backend: number[0].into(),
        }
    }

    /// A new client, or `None` if it is refused for lack of a place.
    pub(crate) fn try_come(to: SocketAddr) -> Option<Self> {
        let mut stream = peers::try_connect(to).ok()?;
        let mut number = [0];
        stream.read_exact(&mut number).ok()?;
        Some(Self {
            stream,
            backend: number[0].into(),
        })
    }

    /// Ends, and waits until the session is over everywhere.
    pub(crate) fn leave(mut self) -> usize {
        self.stream.shutdown(Shutdown::Write).unwrap();
        self.stream.read_to_end(&mut Vec::new()).unwrap();
        self.backend
    }
}

pub(crate) fn leave_all(guests: impl IntoIterator<Item = Guest>) {
    guests.into_iter().for_each(|guest| {
        guest.leave();
    });
}

/// The n-th of many source addresses.
pub(crate) fn source(n: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::LOCALHOST.to_bits() + 1 + n)
}

/// The number of occurrences of each backend.
pub(crate) fn tally(backends: usize, found: impl IntoIterator<Item = usize>) -> Vec<usize> {
    let mut counts = vec![0; backends];
    for backend in found {
        counts[backend] += 1;
    }
    counts
}

/// The difference between the most and the least.
pub(crate) fn spread(counts: &[usize]) -> usize {
    counts.iter().max().unwrap() - counts.iter().min().unwrap()
}

/// Within five standard deviations of the shares by these weights.
#[track_caller]
pub(crate) fn assert_shares(counts: &[usize], weights: &[u32]) {
    let all: usize = counts.iter().sum();
    let all = f64::from(u32::try_from(all).unwrap());
    let sum: u32 = weights.iter().sum();
    for (count, weight) in counts.iter().zip(weights) {
        let share = f64::from(*weight) / f64::from(sum);
        let deviation = (all * share * (1.0 - share)).sqrt();
        let off = (f64::from(u32::try_from(*count).unwrap()) - all * share).abs();
        assert!(off <= 5.0 * deviation, "{counts:?} by {weights:?}");
    }
}
