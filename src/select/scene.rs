//! What a strategy sees at one moment.

use fastrand::Rng;

use crate::hash;
use crate::pool::{Backend, Pool};

use super::Request;

/// A pool at the moment of one selection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scene<'a> {
    pub(super) pool: &'a Pool,
    pub(super) request: &'a Request<'a>,
    /// Backends that were tried may be tried again.
    again: bool,
    /// Backends that are ejected are taken all the same.
    desperate: bool,
    /// Backends that failed since their last answer are passed over.
    sound: bool,
    /// Below 100: whose share has not risen above this, in percent, is passed over.
    drawn: u8,
    /// A backend may have been tried, be ejected, in slow start, or have a full backlog: nearly
    /// always none is, and none is asked.
    unusual: bool,
}

impl<'a> Scene<'a> {
    /// Ejected backends are out, those in slow start take whom they have a place for.
    pub(super) fn new(pool: &'a Pool, request: &'a Request<'a>) -> Self {
        Self {
            pool,
            request,
            again: false,
            desperate: false,
            sound: false,
            drawn: 0,
            unusual: pool.rising
                || pool.crowds
                || pool.ejections.used() > 0
                || !request.tried.is_empty(),
        }
    }

    /// The same where it is known to the compiler that nobody need be asked, if so it is. What
    /// looks at every backend is compiled for that by itself, and takes a quarter less.
    #[inline(always)]
    pub(super) fn usual(&self) -> Option<Self> {
        (!self.unusual).then_some(Self {
            unusual: false,
            ..*self
        })
    }

    /// The same where backends may be tried again.
    pub(super) fn again(self) -> Self {
        Self {
            again: true,
            ..self
        }
    }

    /// The same where backends that are ejected are taken all the same.
    pub(super) fn desperate(self) -> Self {
        Self {
            desperate: true,
            ..self
        }
    }

    /// The same where backends that failed since their last answer are passed over.
    pub(super) fn sound(self) -> Self {
        Self {
            sound: true,
            unusual: true,
            ..self
        }
    }

    /// The same where those in slow start are closed as often as their share is from full; `None`
    /// where there are none. A client with a key is drawn by it: it moves to them once, and not
    /// to and fro.
    pub(super) fn thinned(self, rng: &mut Rng) -> Option<Self> {
        if !self.pool.rising {
            return None;
        }
        let drawn = match self.request.keys.select {
            0 => rng.u8(0..100),
            key => u8::try_from(hash::mix(key ^ THINNING) % 100).unwrap_or(0),
        };
        Some(Self { drawn, ..self })
    }

    /// Any that is open, each with the same chance as long as few are closed.
    pub(super) fn any(&self, members: &[u16], rng: &mut Rng) -> Option<u16> {
        let (before, after) = members.split_at(rng.usize(0..=members.len()));
        let mut all = after.iter().chain(before).copied();
        all.find(|&index| self.is_open(index))
    }

    pub(super) fn backend(&self, index: u16) -> &'a Backend {
        &self.pool.backends[usize::from(index)]
    }

    /// Whether a backend in rotation takes another connection of this session.
    #[inline(always)]
    pub(super) fn is_open(&self, index: u16) -> bool {
        let backend = self.backend(index);
        if !self.unusual {
            return !backend.tally.connections.is_full();
        }
        let tried = !self.again && self.request.tried.contains(&index);
        !tried && self.is_let_in(backend) && !backend.is_full(self.request.now)
    }

    fn is_let_in(&self, backend: &Backend) -> bool {
        let shut_out = !self.desperate && backend.is_shut_out();
        let passed_over = self.sound && backend.tally.failures() > 0;
        !shut_out && !passed_over && self.drawn < backend.percent(self.request.now)
    }

    /// Whether a backend counts among those that share the load.
    pub(super) fn is_shut_out(&self, index: u16) -> bool {
        self.unusual && self.backend(index).is_shut_out()
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

    /// How much a load is to a backend: in slow start it is strained by less. What it has counts
    /// for more, and not its score in all: an idle one would have to be better than others many
    /// times over to get anything.
    #[inline(always)]
    pub(super) fn strain(&self, backend: &Backend, load: f64) -> f64 {
        if !self.unusual || !self.pool.rising {
            return load;
        }
        load * 100.0 / f64::from(backend.percent(self.request.now))
    }

    /// Connections that a backend is at work for: those that wait for an answer, exactly, and what
    /// it streams to and how that all will change, as is measured and foreseen each second.
    ///
    /// Open connections count for little: a session can be idle for hours, and hundreds of them
    /// would outvote what happens now. Without any weight, connections that come one by one would
    /// all end up with the backend that is a little faster than the others.
    #[inline(always)]
    pub(super) fn in_flight(&self, backend: &Backend) -> f64 {
        let tally = &backend.tally;
        let open = f64::from(tally.connections.used());
        let foreseen = f64::from(tally.waiting()) + f64::from(tally.outlook().load);
        self.strain(backend, foreseen.max(0.0) + OPEN_PART * open)
    }

    pub(super) fn weight(&self, index: u16) -> u16 {
        self.backend(index).weight
    }

    /// Whether all that was heard of it since its last answer are failures.
    pub(super) fn is_failing(&self, index: u16) -> bool {
        self.backend(index).tally.failures() > 0
    }
}

/// Of the hash that a key is drawn by, apart from the one that it is selected by.
const THINNING: u64 = 0x736c_6f77;
/// What an open connection counts of one that waits for its answer.
const OPEN_PART: f64 = 0.01;
/// Failures in a row that end persistence.
const FAILURES_MAX: u32 = 3;
