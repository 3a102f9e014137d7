//! What a strategy sees at one moment.

use fastrand::Rng;

use crate::pool::{Backend, Pool};

use super::Request;

/// A pool at the moment of one selection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scene<'a> {
    pub(super) pool: &'a Pool,
    pub(super) request: &'a Request<'a>,
    /// Backends that were tried may be tried again.
    again: bool,
}

impl<'a> Scene<'a> {
    pub(super) fn new(pool: &'a Pool, request: &'a Request<'a>, again: bool) -> Self {
        Self {
            pool,
            request,
            again,
        }
    }

    pub(super) fn backend(&self, index: u16) -> &'a Backend {
        &self.pool.backends[usize::from(index)]
    }

    /// Whether a backend in rotation takes another connection of this session.
    pub(super) fn is_open(&self, index: u16) -> bool {
        let tried = !self.again && self.request.tried.contains(&index);
        !tried && !self.backend(index).tally.connections.is_full()
    }

    /// The same for a backend that may be out of rotation.
    pub(super) fn is_usable(&self, index: u16) -> bool {
        let backend = self.pool.backends.get(usize::from(index));
        backend.is_some_and(|backend| backend.is_in_rotation()) && self.is_open(index)
    }

    /// Whether a client that is known to have a backend should go there again. Who stays with one
    /// that answers nobody would fail until it is ejected.
    pub(super) fn is_worth_keeping(&self, index: u16) -> bool {
        self.is_usable(index) && self.backend(index).tally.failures() < FAILURES_MAX
    }

    pub(super) fn connections(&self, index: u16) -> u32 {
        self.backend(index).tally.connections.used()
    }

    /// Connections that a backend is at work for: those that wait for an answer, exactly, and what
    /// it streams to and how that all will change, as is measured and foreseen each second.
    ///
    /// Open connections count for little: a session can be idle for hours, and hundreds of them
    /// would outvote what happens now. Without any weight, connections that come one by one would
    /// all end up with the backend that is a little faster than the others.
    pub(super) fn in_flight(&self, index: u16) -> f64 {
        let tally = &self.backend(index).tally;
        let open = f64::from(tally.connections.used());
        let foreseen = f64::from(tally.waiting()) + f64::from(tally.outlook().load);
        foreseen.max(0.0) + OPEN_PART * open
    }

    pub(super) fn weight(&self, index: u16) -> u16 {
        self.backend(index).weight
    }

    /// Whether all that was heard of it since its last answer are failures.
    pub(super) fn is_failing(&self, index: u16) -> bool {
        self.backend(index).tally.failures() > 0
    }

    /// The open member of the least score; of equal ones each by the chance of its weight.
    ///
    /// A backend that fails may be always free, and would attract everybody: one that accepts and
    /// resets is the fastest of all. So a score that is better than that of others gives it no more
    /// than the share of its weight, by chance, until it answers again. One that is worse, as
    /// clients hang there, counts as any other's.
    pub(super) fn least(
        &self,
        members: &[u16],
        rng: &mut Rng,
        score: impl Fn(u16) -> f64,
    ) -> Option<u16> {
        let mut sound = Lot::default();
        let mut failing = Lot::default();
        let mut weights = 0;
        let mut drawn = None;
        let mut drawn_from = 0;
        for &index in members {
            if !self.is_open(index) {
                continue;
            }
            let weight = u32::from(self.weight(index));
            weights += weight;
            let score = score(index);
            if !self.is_failing(index) {
                sound.enter(index, weight, (0.0, score), rng);
                continue;
            }
            // Among those that fail, whoever failed least: one that is always free would attract.
            let failures = f64::from(self.backend(index).tally.failures());
            failing.enter(index, weight, (failures, score), rng);
            drawn_from += weight;
            if rng.u32(0..drawn_from) < weight {
                drawn = Some((index, score));
            }
        }
        match (sound.winner, drawn) {
            (Some(_), Some((index, score)))
                if score <= sound.least.1 && rng.u32(0..weights) < drawn_from =>
            {
                Some(index)
            }
            (Some(winner), _) => Some(winner),
            (None, _) => failing.winner,
        }
    }
}

/// Draws one of those with the least score, each with the chance of its weight.
#[derive(Debug)]
struct Lot {
    winner: Option<u16>,
    /// Compared from left to right.
    least: (f64, f64),
    weights: u32,
}

impl Default for Lot {
    fn default() -> Self {
        Self {
            winner: None,
            least: (f64::INFINITY, f64::INFINITY),
            weights: 0,
        }
    }
}

impl Lot {
    fn enter(&mut self, index: u16, weight: u32, score: (f64, f64), rng: &mut Rng) {
        if score > self.least {
            return;
        }
        if score < self.least {
            self.least = score;
            self.weights = 0;
        }
        self.weights += weight;
        if self.weights == weight || rng.u32(0..self.weights) < weight {
            self.winner = Some(index);
        }
    }
}

/// What an open connection counts of one that waits for its answer.
const OPEN_PART: f64 = 0.01;
/// Failures in a row that end persistence.
const FAILURES_MAX: u32 = 3;
