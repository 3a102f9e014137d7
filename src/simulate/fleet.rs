//! The backends of a pool as servers, and the parts that a scenario gives to some of them.

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
    /// Each with cores in proportion to its weight, at the speed that the scenario says.
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

    /// Work that the usual ones can do together, in seconds at speed 1 for each second. What
    /// answers nothing can do nothing.
    pub(super) fn capacity(&self) -> f64 {
        let useful = self.usual.iter();
        let useful = useful.filter(|&&index| !self.is_black_hole(index));
        useful.map(|&index| self.capacity_of(index)).sum()
    }

    pub(super) fn capacity_of(&self, index: u16) -> f64 {
        self.servers[usize::from(index)].server.capacity()
    }

    /// Those that usually take clients.
    pub(super) fn usual(&self) -> &[u16] {
        &self.usual
    }

    /// Who leaves, if somebody does.
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

    /// One goes away with all that it has in service, or nobody is away any more.
    pub(super) fn set_away(&mut self, away: Option<u16>) {
        self.away = away;
        if let Some(index) = away {
            self.servers[usize::from(index)].server.clear();
        }
    }

    /// A session's request, of so much work in ns at speed 1.
    pub(super) fn begin(&mut self, index: u16, session: usize, work: f64, now: u64) {
        let expected = &mut self.servers[usize::from(index)];
        expected.server.begin(session, work, now);
    }

    /// When a backend's next request will be done, if that is not what was expected already.
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

    /// Whether it is this one of the expectations that holds.
    pub(super) fn is_expected(&self, index: u16, round: u64) -> bool {
        self.servers[usize::from(index)].round == round
    }

    /// A session whose request is done.
    pub(super) fn end(&mut self, index: u16, now: u64) -> Option<usize> {
        let expected = &mut self.servers[usize::from(index)];
        expected.at = None;
        expected.server.end(now)
    }
}

/// Cores of a backend of mean weight.
const CORES: f64 = 4.0;
/// The place of the one that leaves among those that usually take clients.
const LEAVER: usize = 3;
