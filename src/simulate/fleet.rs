//! The servers behind the backends of a pool, and the roles that a scenario gives to some of them.

use crate::pool::Pool;

use super::chance::{float, share};
use super::scenario::Fleet;
use super::server::Server;

/// One server for each backend, by its index.
#[derive(Debug)]
pub(super) struct Servers {
    servers: Vec<Expected>,
    /// Backends that usually take clients: they have a weight and are no backups.
    usual: Vec<u16>,
    black_hole: Option<u16>,
    away: Option<u16>,
}

#[derive(Debug)]
struct Expected {
    server: Server,
    /// When its next request is expected to be done, in ns.
    at: Option<u64>,
    /// Which of the expectations so far that is.
    round: u64,
}

impl Servers {
    /// Servers with cores in proportion to the weights, at the speeds of the scenario.
    pub(super) fn new(fleet: Fleet, pool: &Pool) -> Self {
        let all = (0u16..).zip(&pool.backends);
        let usual = all.clone();
        let usual = usual.filter(|(_, backend)| backend.weight > 0 && !backend.backup);
        let usual: Vec<u16> = usual.map(|(index, _)| index).collect();
        let weight = |index: u16| u64::from(pool.backends[usize::from(index)].weight);
        let weights: u64 = usual.iter().map(|&index| weight(index)).sum();
        let mean = share(weights, usual.len() as u64);
        let servers = all.map(|(index, _)| {
            let place = usual.iter().position(|&other| other == index);
            let part = place.map_or(1.0, |_| float(weight(index)) / mean);
            let speed = match (fleet, place) {
                (Fleet::OneSlow(speed), Some(0)) => speed,
                (Fleet::Generations(speed), Some(place)) if place % 2 == 1 => speed,
                _ => 1.0,
            };
            Expected {
                server: Server::new(CORES * part, speed),
                at: None,
                round: 0,
            }
        });
        Self {
            servers: servers.collect(),
            black_hole: usual.first().copied().filter(|_| fleet == Fleet::BlackHole),
            usual,
            away: None,
        }
    }

    /// The capacity of the usual backends together: work in seconds at speed 1 for each second. The
    /// black hole has none.
    pub(super) fn capacity(&self) -> f64 {
        let useful = self.usual.iter();
        let useful = useful.filter(|&&index| !self.is_black_hole(index));
        useful.map(|&index| self.capacity_of(index)).sum()
    }

    pub(super) fn capacity_of(&self, index: u16) -> f64 {
        self.servers[usize::from(index)].server.capacity()
    }

    /// Backends that usually take clients.
    pub(super) fn usual(&self) -> &[u16] {
        &self.usual
    }

    /// The backend that an outage takes away; `None`: there is no usual backend.
    pub(super) fn leaver(&self) -> Option<u16> {
        let last = self.usual.len().checked_sub(1)?;
        self.usual.get(last.min(LEAVER)).copied()
    }

    pub(super) fn black_hole(&self) -> Option<u16> {
        self.black_hole
    }

    pub(super) fn is_black_hole(&self, index: u16) -> bool {
        self.black_hole == Some(index)
    }

    pub(super) fn is_away(&self, index: u16) -> bool {
        self.away == Some(index)
    }

    /// Takes a backend away with all its requests, or brings the absent one back.
    pub(super) fn set_away(&mut self, away: Option<u16>) {
        self.away = away;
        if let Some(index) = away {
            self.servers[usize::from(index)].server.clear();
        }
    }

    /// Begins a session's request; `work` is in ns at speed 1.
    pub(super) fn begin(&mut self, index: u16, session: usize, work: f64, now: u64) {
        let expected = &mut self.servers[usize::from(index)];
        expected.server.begin(session, work, now);
    }

    /// When a backend's next request will be done, in ns, and the number of this expectation;
    /// `None`: nothing has changed.
    pub(super) fn expect(&mut self, index: u16) -> Option<(u64, u64)> {
        let expected = &mut self.servers[usize::from(index)];
        let at = expected.server.next_end();
        if at == expected.at {
            return None;
        }
        expected.at = at;
        expected.round += 1;
        Some((at?, expected.round))
    }

    /// Whether this expectation is the latest one.
    pub(super) fn is_expected(&self, index: u16, round: u64) -> bool {
        self.servers[usize::from(index)].round == round
    }

    /// The next session whose request is done at `now`.
    pub(super) fn end(&mut self, index: u16, now: u64) -> Option<usize> {
        let expected = &mut self.servers[usize::from(index)];
        expected.at = None;
        expected.server.end(now)
    }
}

/// Cores of a backend of mean weight.
const CORES: f64 = 4.0;
/// The backend that an outage takes away, counted from 0 among the usual ones.
const LEAVER: usize = 3;
