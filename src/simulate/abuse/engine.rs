//! The event loop: clients connect, pass the gate or not, and leave.

use std::net::IpAddr;

use fastrand::Rng;
use slab::Slab;

use super::super::chance::{exponential, nanos};
use super::super::queue::EventQueue;
use super::CrowdOutcome;
use super::crowd::Crowd;
use crate::guard::{
    Action, BanRule, Bans, ClientStage, Gate, Held, Refusal, Rules, Sources, Trusted,
};
use crate::session::CloseReason;
use crate::time::{MS, SECOND};

/// The state of the simulation.
pub(super) struct AbuseEngine {
    now: u64,
    queue: EventQueue<Event>,
    sources: Sources,
    gate: Gate,
    rules: Rules,
    bans: Bans,
    trusted: Trusted,
    /// When sources are banned.
    ban: Option<BanRule>,
    crowds: Vec<Members>,
    /// Connections that are open.
    open: Slab<Open>,
    /// How many connections were open so far.
    opened: u64,
    /// What the gate had refused when the measurement began.
    refused_before: [u64; Refusal::ALL.len()],
    /// Clients that were refused by then as they were banned.
    banned_before: u64,
}

/// A crowd, and what is counted of it.
struct Members {
    crowd: Crowd,
    /// Its own, so that no crowd alters another one.
    rng: Rng,
    outcome: CrowdOutcome,
    /// Of each client.
    clients: Vec<Seen>,
    /// Connections that it has tried to open since the start.
    tried: u32,
    open: u32,
}

/// What was seen of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Seen {
    Nothing,
    Admitted,
    Refused,
}

/// An open connection.
struct Open {
    /// No other one has it: a key comes again.
    number: u64,
    crowd: usize,
    address: IpAddr,
    held: Option<Held>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// A client of this crowd comes.
    Visit(usize),
    /// A client of a crowd connects.
    Connect(usize, u32),
    /// The connection of a key and a number ends.
    Close(usize, u64),
    /// The measurement begins.
    Measure,
}

impl AbuseEngine {
    pub(super) fn new((rules, ban): (Rules, Option<BanRule>), seed: u64) -> Self {
        let sources = Sources::new(TABLE_BYTES);
        let crowds = (1..).zip(Crowd::all()).map(|(nth, crowd)| Members {
            rng: Rng::with_seed(seed.wrapping_mul(1_000).wrapping_add(nth)),
            outcome: CrowdOutcome {
                name: crowd.name,
                abuse: crowd.abuse,
                clients: crowd.clients,
                clients_seen: 0,
                clients_refused: 0,
                connections: 0,
                refused: 0,
                open_max: 0,
            },
            clients: vec![Seen::Nothing; crowd.clients as usize],
            tried: 0,
            open: 0,
            crowd,
        });
        Self {
            now: 0,
            queue: EventQueue::new(),
            gate: Gate::new(&sources),
            sources,
            rules,
            bans: Bans::new(BANS_MAX),
            trusted: Trusted::default(),
            ban,
            crowds: crowds.collect(),
            open: Slab::new(),
            opened: 0,
            refused_before: Default::default(),
            banned_before: 0,
        }
    }

    /// Runs until the measurement ends.
    pub(super) fn run(mut self) -> Self {
        self.queue.push(WARM_UP, Event::Measure);
        for crowd in 0..self.crowds.len() {
            self.expect_visit(crowd);
        }
        while let Some((at, event)) = self.queue.pop() {
            if at >= END {
                break;
            }
            self.now = at;
            match event {
                Event::Visit(crowd) => self.on_visit(crowd),
                Event::Connect(crowd, client) => self.on_connect(crowd, client),
                Event::Close(key, number) => self.on_close(key, number),
                Event::Measure => {
                    self.refused_before = Refusal::ALL.map(|rule| self.gate.refused(rule));
                    self.banned_before = self.bans.hits();
                }
            }
        }
        self
    }

    /// What happened to the crowds.
    pub(super) fn crowds(&self) -> Vec<CrowdOutcome> {
        let of = |its: &Members| {
            let at_least = |seen: Seen| {
                let clients = its.clients.iter().filter(|its| **its >= seen).count();
                u32::try_from(clients).unwrap_or(u32::MAX)
            };
            CrowdOutcome {
                clients_seen: at_least(Seen::Admitted),
                clients_refused: at_least(Seen::Refused),
                ..its.outcome.clone()
            }
        };
        self.crowds.iter().map(of).collect()
    }

    /// Connections that this limit refused while it was measured.
    pub(super) fn refused_by(&self, rule: Refusal) -> u64 {
        self.gate.refused(rule) - self.refused_before[rule as usize]
    }

    /// Connections that bans refused while it was measured.
    pub(super) fn banned(&self) -> u64 {
        self.bans.hits() - self.banned_before
    }

    fn expect_visit(&mut self, crowd: usize) {
        let its = &mut self.crowds[crowd];
        let wait = exponential(&mut its.rng) / its.crowd.visits;
        self.queue.push(self.now + nanos(wait), Event::Visit(crowd));
    }

    fn on_visit(&mut self, crowd: usize) {
        let its = &mut self.crowds[crowd];
        let client = its.rng.u32(..its.crowd.clients);
        let connections = its.crowd.connections;
        for nth in 0..u64::from(connections) {
            let at = self.now + nth * APART;
            self.queue.push(at, Event::Connect(crowd, client));
        }
        self.expect_visit(crowd);
    }

    fn on_connect(&mut self, crowd: usize, client: u32) {
        let its = &mut self.crowds[crowd];
        let address = its.crowd.address(client, its.tried, &mut its.rng);
        // Drawn of refused ones too, so that limits don't change what the crowd does later.
        let lasts = nanos(its.crowd.lasts.draw(&mut its.rng));
        its.tried += 1;
        let is_measured = self.now >= WARM_UP;
        let admitted = self.admit(address);
        if is_measured {
            let its = &mut self.crowds[crowd];
            its.outcome.connections += 1;
            its.outcome.refused += u64::from(admitted.is_err());
            let seen = match admitted {
                Ok(_) => Seen::Admitted,
                Err(_) => Seen::Refused,
            };
            let client = &mut its.clients[client as usize];
            *client = seen.max(*client);
        }
        if let Ok(held) = admitted {
            self.open((crowd, address), held, lasts);
        }
    }

    /// Asks what a worker asks.
    fn admit(&mut self, address: IpAddr) -> Result<Option<Held>, CloseReason> {
        let stage = ClientStage {
            bans: &self.bans,
            ban_action: Action::Reset,
            trusted: &self.trusted,
            access: None,
            rules: &self.rules,
            gate: &self.gate,
            sources: &self.sources,
        };
        match stage.admit(Some(address), self.now) {
            Ok(pass) => Ok(pass.held),
            Err(denied) => {
                let reason = denied.by.into();
                self.note_offence(address, reason);
                Err(reason)
            }
        }
    }

    /// Counts an offence, and closes the connections of a source that is banned for it.
    fn note_offence(&mut self, address: IpAddr, reason: CloseReason) {
        let Some(rule) = self.ban.filter(|_| reason.is_offence()) else {
            return;
        };
        if self.bans.offend(address, &rule, reason.as_str(), self.now) {
            drop(self.bans.take_news());
            drop(self.bans.expire(self.now, usize::MAX));
            let is_banned = |open: &Open| self.bans.is_banned(open.address, self.now);
            let of_banned = self.open.iter().filter(|(_, open)| is_banned(open));
            let of_banned: Vec<_> = of_banned.map(|(key, open)| (key, open.number)).collect();
            for (key, number) in of_banned {
                self.on_close(key, number);
            }
        }
    }

    fn open(&mut self, (crowd, address): (usize, IpAddr), held: Option<Held>, lasts: u64) {
        self.opened += 1;
        let number = self.opened;
        let key = self.open.insert(Open {
            number,
            crowd,
            address,
            held,
        });
        self.queue.push(self.now + lasts, Event::Close(key, number));
        let its = &mut self.crowds[crowd];
        its.open += 1;
        if self.now >= WARM_UP {
            its.outcome.open_max = its.outcome.open_max.max(its.open);
        }
    }

    fn on_close(&mut self, key: usize, number: u64) {
        // A ban may have closed it before.
        if self.open.get(key).is_none_or(|its| its.number != number) {
            return;
        }
        let Open { crowd, held, .. } = self.open.remove(key);
        self.crowds[crowd].open -= 1;
        if let Some(held) = held {
            self.gate.release(&self.sources, held);
        }
    }
}

/// The time between two connections of a visit, in ns.
pub(super) const APART: u64 = 20 * MS;
/// The length of the measurement, in seconds.
pub(super) const MEASURED_SECONDS: u64 = 120;
/// When it begins, in ns: counts of connections are near their mean.
const WARM_UP: u64 = 60 * SECOND;
const END: u64 = WARM_UP + MEASURED_SECONDS * SECOND;
/// The default of `bans.max`.
const BANS_MAX: u32 = 100_000;
/// The default of `source_table`. No crowd fills it, so nothing here depends on its random key.
const TABLE_BYTES: u64 = 64 << 20;
