//! The pool as a strategy sees it during one selection: which backends are open, and how loaded.

use fastrand::Rng;

use crate::hash;
use crate::pool::{Backend, Pool};

use super::Request;

/// A pool during one selection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scene<'a> {
    pub(super) pool: &'a Pool,
    pub(super) request: &'a Request<'a>,
    /// Backends that this session tried are open too.
    tried_too: bool,
    /// Ejected backends are open too.
    ejected_too: bool,
    /// Backends that failed since their last answer are closed.
    sound_only: bool,
    /// 0 to 99: backends in slow start are closed while their share, in percent, is not above this.
    drawn: u8,
    /// Some backend may be tried, ejected, in slow start, or have a full backlog. Nearly always
    /// `false`: then only the connection count decides whether a backend is open.
    needs_checks: bool,
}

impl<'a> Scene<'a> {
    /// Tried and ejected backends are closed; those in slow start are open while they have a place.
    pub(super) fn new(pool: &'a Pool, request: &'a Request<'a>) -> Self {
        Self {
            pool,
            request,
            tried_too: false,
            ejected_too: false,
            sound_only: false,
            drawn: 0,
            needs_checks: pool.rising
                || pool.has_backlogs
                || pool.ejections.used() > 0
                || !request.tried.is_empty(),
        }
    }

    /// This scene if it needs no checks, in a form that shows the compiler so. Loops over all
    /// backends are compiled once more for this case, which makes them a quarter faster.
    #[inline(always)]
    pub(super) fn fast_path(&self) -> Option<Self> {
        (!self.needs_checks).then_some(Self {
            needs_checks: false,
            ..*self
        })
    }

    /// This scene with tried backends open too.
    pub(super) fn with_tried(self) -> Self {
        Self {
            tried_too: true,
            ..self
        }
    }

    /// This scene with ejected backends open too.
    pub(super) fn with_ejected(self) -> Self {
        Self {
            ejected_too: true,
            ..self
        }
    }

    /// This scene without backends that failed since their last answer.
    pub(super) fn without_failing(self) -> Self {
        Self {
            sound_only: true,
            needs_checks: true,
            ..self
        }
    }

    /// This scene with each backend in slow start closed with the probability by which its share
    /// falls short of 100%. `None`: no backend is in slow start. A client with a key is drawn by
    /// its key, so that it moves to such a backend once and stays there.
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

    /// Any open member: each with the same chance as long as few are closed.
    pub(super) fn any(&self, members: &[u16], rng: &mut Rng) -> Option<u16> {
        let (before, after) = members.split_at(rng.usize(0..=members.len()));
        let mut all = after.iter().chain(before).copied();
        all.find(|&index| self.is_open(index))
    }

    pub(super) fn backend(&self, index: u16) -> &'a Backend {
        &self.pool.backends[usize::from(index)]
    }

    /// Whether this session may use a backend, which must be in rotation.
    #[inline(always)]
    pub(super) fn is_open(&self, index: u16) -> bool {
        let backend = self.backend(index);
        if !self.needs_checks {
            return !backend.tally.connections.is_full();
        }
        let tried = !self.tried_too && self.request.tried.contains(&index);
        !tried && self.is_let_in(backend) && !backend.is_full(self.request.now)
    }

    fn is_let_in(&self, backend: &Backend) -> bool {
        let shut_out = !self.ejected_too && backend.is_shut_out();
        let passed_over = self.sound_only && backend.tally.failures() > 0;
        !shut_out && !passed_over && self.drawn < backend.percent(self.request.now)
    }

    /// Whether a backend gets no load because it is ejected.
    pub(super) fn is_shut_out(&self, index: u16) -> bool {
        self.needs_checks && self.backend(index).is_shut_out()
    }

    /// Whether this session may use a backend, in rotation or not.
    pub(super) fn is_usable(&self, index: u16) -> bool {
        let backend = self.pool.backends.get(usize::from(index));
        backend.is_some_and(|backend| backend.is_in_rotation()) && self.is_open(index)
    }

    /// Whether a persistent client should go to its backend again. Not if that has failed several
    /// times in a row: the client would fail until the backend is ejected.
    pub(super) fn is_worth_keeping(&self, index: u16) -> bool {
        self.is_usable(index) && self.backend(index).tally.failures() < FAILURES_MAX
    }

    pub(super) fn connections(&self, index: u16) -> u32 {
        self.backend(index).tally.connections.used()
    }

    /// A backend's load, divided by its share while it is in slow start. The load is scaled and
    /// not the whole score, because then an idle backend would have to be many times better than
    /// others to get a connection at all.
    #[inline(always)]
    pub(super) fn strain(&self, backend: &Backend, load: f64) -> f64 {
        if !self.needs_checks || !self.pool.rising {
            return load;
        }
        load * 100.0 / f64::from(backend.percent(self.request.now))
    }

    /// Connections in flight: the exact number that wait for an answer, plus the sessions that the
    /// backend streams to and the change that is forecast, both updated once per second.
    ///
    /// An open connection counts a hundredth. A session can be idle for hours, and hundreds of
    /// them must not outweigh what happens now. They count a little so that connections which come
    /// one by one do not all go to the backend that is slightly faster than the others.
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

    /// Whether it has failed since its last answer.
    pub(super) fn is_failing(&self, index: u16) -> bool {
        self.backend(index).tally.failures() > 0
    }
}

/// Makes the hash for slow start independent of the hash that the strategy uses.
const THINNING: u64 = 0x736c_6f77;
/// The load of an open connection, relative to one that waits for its answer.
const OPEN_PART: f64 = 0.01;
/// A backend with this many failures in a row loses its persistent clients.
const FAILURES_MAX: u32 = 3;
