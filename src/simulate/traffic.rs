//! The arrivals of clients: random, or replayed from a trace.
//!
//! All random numbers of a session are drawn at its arrival, from the seed alone, so that every
//! strategy gets the same clients with the same work.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use fastrand::Rng;

use super::Scenario;
use super::chance::{self, float};
use super::scenario::{ClientTraffic, OfferedLoad, Sessions};
use super::trace::Trace;
use crate::time::{SECOND, US};

/// A client that arrives, and its session.
#[derive(Clone, Debug)]
pub(super) struct Arrival {
    pub(super) client: u32,
    pub(super) address: Option<SocketAddr>,
    /// The worker that accepts it.
    pub(super) worker: usize,
    /// Work of the first request, in ns at speed 1.
    pub(super) work: f64,
    /// How long it stays after its accept, in ns.
    pub(super) lifetime: u64,
    /// Bytes in both directions with each answer.
    pub(super) bytes: u64,
    /// The backend that it had in the trace, as an index into the pool.
    pub(super) recorded: Option<u16>,
    /// The random numbers of its later requests; `None`: it has one request.
    pub(super) later: Option<Rng>,
}

/// Where clients come from.
#[derive(Debug)]
pub(super) struct ClientSource {
    rng: Rng,
    /// The random numbers of returning clients. Apart from `rng`, because their number depends on
    /// the strategy, and other clients must not.
    comebacks: Rng,
    workers: usize,
    clients: u32,
    end: u64,
    stream: Stream,
}

#[derive(Debug)]
enum Stream {
    Drawn {
        load: OfferedLoad,
        sessions: Sessions,
        /// Arrivals per second at a load of 1.
        rate: f64,
        /// The time of the last arrival, in seconds.
        at: f64,
    },
    Recorded {
        trace: Arc<Trace>,
        next: usize,
        /// The trace's names of backends as indices into the pool.
        backends: Vec<Option<u16>>,
    },
}

impl ClientSource {
    /// Clients for a fleet that can do `capacity` seconds of work per second.
    pub(super) fn new(scenario: &Scenario, capacity: f64, names: &[&str], seed: u64) -> Self {
        let stream = match &scenario.traffic {
            ClientTraffic::Drawn { load, sessions } => Stream::Drawn {
                load: *load,
                sessions: *sessions,
                rate: capacity / sessions.work(),
                at: 0.0,
            },
            ClientTraffic::Recorded(trace) => {
                let place = |name: &String| names.iter().position(|known| known == name);
                let place = |name| place(name).and_then(|place| u16::try_from(place).ok());
                Stream::Recorded {
                    trace: Arc::clone(trace),
                    next: 0,
                    backends: trace.backends().iter().map(place).collect(),
                }
            }
        };
        Self {
            rng: Rng::with_seed(seed),
            comebacks: Rng::with_seed(!seed),
            workers: scenario.workers.max(1) as usize,
            clients: scenario.clients.max(1),
            end: scenario.end,
            stream,
        }
    }

    /// When the next client comes, in ns; `None`: no more clients come.
    pub(super) fn next_at(&mut self) -> Option<u64> {
        let at = match &mut self.stream {
            Stream::Drawn { load, rate, at, .. } => {
                // Thinning: candidates come at the highest rate, and some of them are dropped.
                let peak = load.peak();
                loop {
                    *at += chance::exponential(&mut self.rng) / (*rate * peak);
                    // A fleet without capacity has a rate of 0, and no client comes.
                    if !at.is_finite() || chance::nanos(*at) >= self.end {
                        return None;
                    }
                    if self.rng.f64() * peak < load.at(*at) {
                        break chance::nanos(*at);
                    }
                }
            }
            Stream::Recorded { trace, next, .. } => trace.session(*next)?.at * US,
        };
        (at < self.end).then_some(at)
    }

    /// The client that comes now.
    pub(super) fn arrival(&mut self) -> Option<Arrival> {
        let worker = self.rng.usize(0..self.workers);
        match &mut self.stream {
            Stream::Drawn { sessions, .. } => {
                // The power 3/2 of chance: one of the first tenth comes twice as often as the mean.
                let place = self.rng.f64();
                let place = place * place.sqrt() * float(self.clients.into());
                let client = u32::try_from(chance::ceil(place)).unwrap_or(1).max(1) - 1;
                Some(drawn(sessions, client, worker, &mut self.rng))
            }
            Stream::Recorded {
                trace,
                next,
                backends,
            } => {
                let session = trace.session(*next)?;
                *next += 1;
                let address = trace.address(session.client);
                Some(Arrival {
                    client: session.client,
                    address: address.map(|ip| SocketAddr::new(ip, session.port)),
                    worker,
                    work: float(session.work * US),
                    lifetime: session.lifetime * US,
                    bytes: session.bytes,
                    recorded: session
                        .backend
                        .and_then(|backend| backends[usize::from(backend)]),
                    later: None,
                })
            }
        }
    }

    /// A client that comes back because its session broke; those of a trace don't.
    pub(super) fn comeback(&mut self, client: u32) -> Option<Arrival> {
        let Stream::Drawn { sessions, .. } = &self.stream else {
            return None;
        };
        let worker = self.comebacks.usize(0..self.workers);
        Some(drawn(sessions, client, worker, &mut self.comebacks))
    }

    /// How long a client whose session broke takes to come back, in ns.
    pub(super) fn comeback_after(&mut self) -> u64 {
        self.comebacks.u64(0..SECOND)
    }

    /// What a client asks for after an answer: after how many ns, and how much work.
    pub(super) fn later(&self, rng: &mut Rng) -> Option<(u64, f64)> {
        let Stream::Drawn { sessions, .. } = &self.stream else {
            return None;
        };
        let think = chance::exponential(rng) * sessions.think;
        Some((
            chance::nanos(think),
            sessions.next.draw(rng) * float(SECOND),
        ))
    }
}

fn drawn(sessions: &Sessions, client: u32, worker: usize, rng: &mut Rng) -> Arrival {
    let ip = Ipv4Addr::from_bits(u32::from_be_bytes([10, 0, 0, 0]) | client & 0x00ff_ffff);
    let port = rng.u16(1_024..);
    Arrival {
        client,
        address: Some(SocketAddr::new(IpAddr::V4(ip), port)),
        worker,
        work: sessions.first.draw(rng) * float(SECOND),
        lifetime: chance::nanos(sessions.lifetime.draw(rng)),
        bytes: BYTES,
        recorded: None,
        later: Some(rng.fork()),
    }
}

/// A request and an answer.
const BYTES: u64 = 16 * 1024;
