//! Clients that come and go while a balancer leaves and returns.
//!
//! Each client has one connection at a time, for 20 s on average, and comes again a second later.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use fastrand::Rng;

use super::super::chance::{exponential, float, nanos, share};
use super::super::queue::EventQueue;
use super::{AgreementOutcome, FleetScenario, with_strategy};
use crate::config::Strategy;
use crate::hash;
use crate::peek::proxy_protocol::CheckedTlvs;
use crate::pool::{Backend, Ended, Pool};
use crate::select::{Choice, Keys, Plan, Request, Seat, Selector};
use crate::time::SECOND;

/// Runs the clients with one strategy.
pub(super) fn run(settings: &FleetScenario, strategy: &Strategy) -> AgreementOutcome {
    let mut engine = ClientEngine::new(settings, strategy);
    engine.run();
    engine.outcome()
}

/// The state of the simulation.
struct ClientEngine {
    now: u64,
    queue: EventQueue<ClientEvent>,
    rng: Rng,
    balancers: Vec<Balancer>,
    /// The indices of the balancers that the router knows.
    routes: Vec<usize>,
    clients: Vec<Client>,
    counts: [Counts; 3],
    agree: f64,
    rerouted: f64,
    /// The sum of the peaks of each second, and how many there were.
    peaks: (f64, u64),
}

/// A balancer: its own counts, and one worker.
struct Balancer {
    plan: Arc<Plan>,
    selector: Selector,
    /// Connections while all balancers are there.
    connections: u64,
}

struct Client {
    address: SocketAddr,
    /// What the router hashes: another number with each port.
    backend: Option<u16>,
    held: Option<(usize, Arc<Backend>)>,
}

/// New connections of a phase.
#[derive(Clone, Copy, Default)]
struct Counts {
    connections: u64,
    /// Of clients that came before.
    returning: u64,
    /// Of those, to the backend that they had.
    same: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum ClientEvent {
    Come(usize),
    Go(usize),
    /// Connections are counted.
    Sample,
    /// The first balancer leaves.
    Leave,
    /// It is back.
    Return,
}

impl ClientEngine {
    fn new(settings: &FleetScenario, strategy: &Strategy) -> Self {
        let pool = with_strategy(&settings.pool, strategy);
        let balancers = (0..u64::from(settings.balancers)).map(|number| {
            let plan = Arc::new(Plan::new(Arc::new(Pool::new(&pool))));
            let seat = Seat {
                worker: 0,
                of: 1,
                pool: 0,
                seed: settings.seed.wrapping_mul(1_000).wrapping_add(number),
            };
            Balancer {
                selector: Selector::new(Arc::clone(&plan), seat),
                plan,
                connections: 0,
            }
        });
        let mut rng = Rng::with_seed(settings.seed);
        let clients = (0..settings.clients).map(|_| {
            let address = IpAddr::V4(Ipv4Addr::from_bits(rng.u32(..)));
            Client {
                address: SocketAddr::new(address, rng.u16(1_024..)),
                backend: None,
                held: None,
            }
        });
        let clients: Vec<_> = clients.collect();
        let mut engine = Self {
            now: 0,
            queue: EventQueue::new(),
            rng,
            balancers: balancers.collect(),
            routes: (0..settings.balancers as usize).collect(),
            clients,
            counts: Default::default(),
            agree: 0.0,
            rerouted: 0.0,
            peaks: (0.0, 0),
        };
        for client in 0..engine.clients.len() {
            let at = engine.rng.u64(..WARM_UP / 2);
            engine.queue.push(at, ClientEvent::Come(client));
        }
        engine.queue.push(WARM_UP, ClientEvent::Sample);
        engine.queue.push(LEAVES_AT, ClientEvent::Leave);
        engine.queue.push(RETURNS_AT, ClientEvent::Return);
        engine
    }

    fn run(&mut self) {
        while let Some((at, event)) = self.queue.pop() {
            if at >= END {
                break;
            }
            self.now = at;
            match event {
                ClientEvent::Come(client) => self.on_come(client),
                ClientEvent::Go(client) => self.on_go(client),
                ClientEvent::Sample => self.on_sample(),
                ClientEvent::Leave => self.on_leave(),
                ClientEvent::Return => self.routes.insert(0, 0),
            }
        }
    }

    fn on_come(&mut self, nth: usize) {
        let lasts = nanos(exponential(&mut self.rng) * LASTS);
        let client = &mut self.clients[nth];
        client.address.set_port(self.rng.u16(1_024..));
        let balancer = route(&self.routes, client.address);
        let its = &mut self.balancers[balancer];
        let keys = keys_of(&its.plan, client.address);
        let chosen = its.selector.select(&Request {
            now: self.now,
            keys,
            tried: &[],
        });
        let Choice::Backend(index) = chosen else {
            return self.queue.push(self.now + SECOND, ClientEvent::Come(nth));
        };
        let backend = Arc::clone(&its.plan.pool().backends[usize::from(index)]);
        if !backend.try_acquire(self.now) {
            return self.queue.push(self.now + SECOND, ClientEvent::Come(nth));
        }
        let before = client.backend.replace(index);
        client.held = Some((balancer, backend));
        self.queue.push(self.now + lasts, ClientEvent::Go(nth));
        if self.now >= WARM_UP {
            let counts = &mut self.counts[phase(self.now)];
            counts.connections += 1;
            counts.returning += u64::from(before.is_some());
            counts.same += u64::from(before == Some(index));
            its.connections += u64::from(self.now < LEAVES_AT);
        }
    }

    fn on_go(&mut self, nth: usize) {
        if let Some((balancer, backend)) = self.clients[nth].held.take() {
            backend.release(Ended::unanswered());
            let plan = &self.balancers[balancer].plan;
            let keys = keys_of(plan, self.clients[nth].address);
            plan.on_left(&backend, &keys, self.now);
        }
        self.queue.push(self.now + SECOND, ClientEvent::Come(nth));
    }

    /// The largest number of connections of a backend over the mean, of all balancers together.
    fn on_sample(&mut self) {
        let mut sums = vec![0_u64; self.balancers[0].plan.pool().backends.len()];
        for balancer in &self.balancers {
            for (sum, backend) in sums.iter_mut().zip(&balancer.plan.pool().backends) {
                *sum += u64::from(backend.tally.connections.used());
            }
        }
        let mean = share(sums.iter().sum(), sums.len() as u64);
        let most = float(sums.into_iter().max().unwrap_or(0));
        if mean > 0.0 {
            self.peaks.0 += most / mean;
            self.peaks.1 += 1;
        }
        if self.now + SECOND < LEAVES_AT {
            self.queue.push(self.now + SECOND, ClientEvent::Sample);
        }
    }

    fn on_leave(&mut self) {
        let clients = self.clients.iter().map(|client| client.address);
        let agree = clients.clone().filter(|client| self.do_agree(*client));
        self.agree = share(agree.count() as u64, self.clients.len() as u64);
        let before = self.routes.clone();
        self.routes.remove(0);
        let rerouted = clients.filter(|client| {
            route(&before, *client) != 0 && route(&before, *client) != route(&self.routes, *client)
        });
        self.rerouted = share(rerouted.count() as u64, self.clients.len() as u64);
    }

    /// Whether every balancer would send this client to the same backend now.
    fn do_agree(&self, client: SocketAddr) -> bool {
        let mut choices = self.balancers.iter().map(|balancer| {
            // A copy: a question must not change the round of its strategy.
            balancer.selector.clone().select(&Request {
                now: self.now,
                keys: keys_of(&balancer.plan, client),
                tried: &[],
            })
        });
        let first = choices.next();
        choices.all(|choice| Some(choice) == first)
    }

    fn outcome(&self) -> AgreementOutcome {
        let all: u64 = self.balancers.iter().map(|its| its.connections).sum();
        let shares = self.balancers.iter();
        let shares = shares.map(|its| share(its.connections, all));
        AgreementOutcome {
            strategy: String::new(),
            connections: self.counts.iter().map(|counts| counts.connections).sum(),
            agree: self.agree,
            same: self
                .counts
                .map(|counts| share(counts.same, counts.returning)),
            rerouted: self.rerouted,
            shares: [
                shares.clone().fold(1.0, f64::min),
                shares.fold(0.0, f64::max),
            ],
            peak: self.peaks.0 / float(self.peaks.1.max(1)),
        }
    }
}

/// The balancer of this client: an equal part of all hashes for each, in their order, as Linux's
/// routes of several next hops have it (`fib_multipath_hash_policy=1`).
fn route(routes: &[usize], client: SocketAddr) -> usize {
    let hash = hash::seeded(client.to_string().as_bytes(), ROUTER_SEED) >> 32;
    let nth = (hash * routes.len() as u64) >> 32;
    routes[usize::try_from(nth).unwrap_or(0)]
}

fn keys_of(plan: &Plan, client: SocketAddr) -> Keys {
    plan.keys_without_bytes(Some(client), CheckedTlvs::NONE)
}

fn phase(now: u64) -> usize {
    usize::from(now >= LEAVES_AT) + usize::from(now >= RETURNS_AT)
}

/// The mean length of a connection, in seconds.
const LASTS: f64 = 20.0;
/// Until then the numbers of connections grow, in ns.
const WARM_UP: u64 = 60 * SECOND;
const LEAVES_AT: u64 = WARM_UP + 60 * SECOND;
const RETURNS_AT: u64 = LEAVES_AT + 60 * SECOND;
const END: u64 = RETURNS_AT + 60 * SECOND;
/// The router's hash has nothing in common with that of a balancer.
const ROUTER_SEED: u64 = 0x6563_6d70;
