//! The counts of a simulation.

use hdrhistogram::Histogram;

use crate::pool::Pool;
use crate::time::{MS, SECOND, US};

use super::chance::{self, share};
use super::fleet::Servers;
use super::home::Homes;
use super::session::SimulatedSession;
use super::{BackendOutcome, Outcome, Scenario};

/// The counts of one run.
#[derive(Debug)]
pub(super) struct Measure {
    warm_up: u64,
    end: u64,
    /// From a request to its answer, in ns.
    waits: Histogram<u64>,
    connections: u64,
    failures: u64,
    broken: u64,
    returning: u64,
    not_as_before: u64,
    homes: Option<Homes>,
    at_home: u64,
    connected: u64,
    recorded: u64,
    not_as_logged: u64,
    black_hole: Option<u16>,
    usual: Vec<u16>,
    backends: Vec<Counts>,
    /// The backend of each client's last connection.
    last: Vec<Option<u16>>,
}

#[derive(Clone, Debug)]
struct Counts {
    name: String,
    weight: u64,
    /// Its capacity: work in ns at speed 1 for each ns.
    capacity: f64,
    connections: u64,
    refused: u64,
    /// In ns at speed 1.
    work: f64,
}

impl Measure {
    pub(super) fn new(scenario: &Scenario, pool: &Pool, servers: &Servers) -> Self {
        let counts = (0u16..).zip(&pool.backends).map(|(index, backend)| Counts {
            name: backend.name.clone(),
            weight: backend.weight.into(),
            capacity: servers.capacity_of(index),
            connections: 0,
            refused: 0,
            work: 0.0,
        });
        Self {
            warm_up: scenario.warm_up,
            end: scenario.end,
            waits: Histogram::new_with_bounds(US, WAIT_MAX, 3)
                .expect("three digits over this range are possible"),
            connections: 0,
            failures: 0,
            broken: 0,
            returning: 0,
            not_as_before: 0,
            homes: Homes::new(pool),
            at_home: 0,
            connected: 0,
            recorded: 0,
            not_as_logged: 0,
            black_hole: servers.black_hole(),
            usual: servers.usual().to_vec(),
            backends: counts.collect(),
            last: vec![None; scenario.clients.max(1) as usize],
        }
    }

    /// A client was accepted.
    pub(super) fn on_accepted(&mut self, now: u64) {
        self.connections += u64::from(now >= self.warm_up);
    }

    /// A backend refused a connection.
    pub(super) fn on_refused(&mut self, index: u16) {
        self.backends[usize::from(index)].refused += 1;
    }

    /// A session is connected to its backend.
    pub(super) fn on_connected(&mut self, session: &SimulatedSession) {
        let index = session.index;
        let last = self.last[session.client as usize].replace(index);
        if session.accepted_at < self.warm_up {
            return;
        }
        self.connected += 1;
        self.backends[usize::from(index)].connections += 1;
        self.returning += u64::from(last.is_some());
        self.not_as_before += u64::from(last.is_some_and(|last| last != index));
        self.recorded += u64::from(session.recorded.is_some());
        self.not_as_logged += u64::from(session.recorded.is_some_and(|recorded| recorded != index));
        let homes = self.homes.as_mut();
        let at_home = homes.is_some_and(|homes| homes.is_home(session.keys, index));
        self.at_home += u64::from(at_home);
    }

    /// A backend gets work, in ns at speed 1.
    pub(super) fn on_work(&mut self, index: u16, work: f64, now: u64) {
        if now >= self.warm_up {
            self.backends[usize::from(index)].work += work;
        }
    }

    /// A request is answered.
    pub(super) fn on_answer(&mut self, asked_at: u64, now: u64) {
        if asked_at >= self.warm_up {
            self.waits.saturating_record(now - asked_at);
        }
    }

    /// A client got no answer.
    pub(super) fn on_failed(&mut self, session: &SimulatedSession) {
        self.failures += u64::from(session.accepted_at >= self.warm_up);
    }

    /// A session broke while it was open.
    pub(super) fn on_broken(&mut self, session: &SimulatedSession) {
        self.broken += 1;
        if !session.answered {
            self.on_failed(session);
        }
    }

    /// The results.
    pub(super) fn outcome(self, scenario: &Scenario, strategy: &'static str, seed: u64) -> Outcome {
        let window = chance::float(self.end.saturating_sub(self.warm_up).max(1));
        let load = |counts: &Counts| counts.work / (counts.capacity * window);
        let usual = || {
            let usual = self.usual.iter().filter(|&&i| Some(i) != self.black_hole);
            usual.map(|&index| &self.backends[usize::from(index)])
        };
        let loads: f64 = usual().map(load).sum();
        let mean = loads / chance::float(usual().count().max(1) as u64);
        let highest = usual().map(load).fold(0.0, f64::max);
        let work: f64 = usual().map(|counts| counts.work).sum();
        let capacity: f64 = usual().map(|counts| counts.capacity).sum();
        let wait = |quantile| chance::float(self.waits.value_at_quantile(quantile)) / MS_F;
        Outcome {
            scenario: scenario.name,
            strategy,
            seed,
            workers: scenario.workers.max(1),
            seconds: chance::float(self.end.saturating_sub(self.warm_up)) / chance::float(SECOND),
            connections: self.connections,
            requests: self.waits.len(),
            failures: self.failures,
            broken: self.broken,
            load: if capacity > 0.0 {
                work / (capacity * window)
            } else {
                0.0
            },
            wait_p50_ms: wait(0.5),
            wait_p99_ms: wait(0.99),
            imbalance: if mean > 0.0 { highest / mean } else { 1.0 },
            returning: self.returning,
            not_as_before: share(self.not_as_before, self.returning),
            kept: (self.homes.is_some()).then(|| share(self.at_home, self.connected)),
            black_hole: self.black_hole.map(|index| self.fed(index)),
            not_as_logged: (self.recorded > 0).then(|| share(self.not_as_logged, self.recorded)),
            ceiling: None,
            scaled: None,
            backends: self
                .backends
                .iter()
                .map(|counts| BackendOutcome {
                    name: counts.name.clone(),
                    connections: counts.connections,
                    refused: counts.refused,
                    load: load(counts),
                })
                .collect(),
        }
    }

    /// A backend's share of the connections, divided by its share of the weights.
    fn fed(&self, index: u16) -> f64 {
        let usual = self.usual.iter();
        let weights: u64 = usual
            .map(|&index| self.backends[usize::from(index)].weight)
            .sum();
        let counts = &self.backends[usize::from(index)];
        share(counts.connections, self.connected) / share(counts.weight, weights)
    }
}

#[expect(clippy::cast_precision_loss, reason = "a million is exact")]
const MS_F: f64 = MS as f64;
/// The longest wait that is recorded, in ns: a day. Longer waits count as this.
const WAIT_MAX: u64 = 86_400 * SECOND;
