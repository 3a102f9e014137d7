//! A client's session, as a worker would run it.

use std::sync::Arc;

use fastrand::Rng;

use crate::pool::Backend;
use crate::select::{Keys, Plan};

use super::traffic::Arrival;

/// A session. Times are in ns.
#[derive(Debug)]
pub(super) struct SimulatedSession {
    /// Unique, unlike the key: a wake-up for an earlier session with the same key is ignored.
    pub(super) serial: u64,
    pub(super) state: WaitsFor,
    pub(super) client: u32,
    pub(super) worker: usize,
    pub(super) keys: Keys,
    /// The plan that its backend was selected by.
    pub(super) plan: Arc<Plan>,
    pub(super) target: Option<Arc<Backend>>,
    /// The target's index into the pool.
    pub(super) index: u16,
    /// Backends that attempts failed on, in this version of the snapshot.
    pub(super) tried: Vec<u16>,
    pub(super) tried_in: u64,
    pub(super) attempts: u32,
    /// It waited because only backends that it tried are left.
    pub(super) paused: bool,
    /// When it began to wait for a place, while it does.
    pub(super) held_at: Option<u64>,
    pub(super) accepted_at: u64,
    /// When the last attempt began.
    pub(super) attempt_at: u64,
    /// When the request in service was sent.
    pub(super) asked_at: u64,
    /// When the client leaves.
    pub(super) leaves_at: u64,
    pub(super) answered: bool,
    /// Bytes so far, and those that come with each answer.
    pub(super) bytes: u64,
    pub(super) bytes_each: u64,
    /// Work of the next request, in ns at speed 1.
    pub(super) work: f64,
    pub(super) later: Option<Rng>,
    pub(super) recorded: Option<u16>,
}

/// What a session waits for. In all states but [`WaitsFor::Served`] a wake-up is scheduled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WaitsFor {
    /// For a place at a backend.
    Held,
    /// For the end of the connect.
    Connecting,
    /// For an answer: the server's event ends it.
    Served,
    /// For its client's next request.
    Thinking,
    /// For its client to leave.
    Lingering,
}

impl SimulatedSession {
    /// The session of a client that was accepted at `now`.
    pub(super) fn new(
        arrival: Arrival,
        serial: u64,
        keys: Keys,
        plan: Arc<Plan>,
        now: u64,
    ) -> Self {
        Self {
            serial,
            state: WaitsFor::Held,
            client: arrival.client,
            worker: arrival.worker,
            keys,
            plan,
            target: None,
            index: 0,
            tried: Vec::new(),
            tried_in: 0,
            attempts: 0,
            paused: false,
            held_at: None,
            accepted_at: now,
            attempt_at: now,
            asked_at: now,
            leaves_at: now + arrival.lifetime,
            answered: false,
            bytes: 0,
            bytes_each: arrival.bytes,
            work: arrival.work,
            later: arrival.later,
            recorded: arrival.recorded,
        }
    }
}
