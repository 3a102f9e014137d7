//! The connections of proxies whose headers are not complete, and what becomes of them.

use std::collections::BTreeSet;
use std::sync::Arc;

use slab::Slab;

use crate::guard::PeerStage;
use crate::kernel::Socket;
use crate::session::CloseReason;
use crate::time::NEVER;

use super::client::{HeaderClient, ProxyPeer};

/// The unfinished headers of a worker.
#[derive(Debug, Default)]
pub(in crate::worker) struct Headers {
    pub(super) waiting: Slab<Waiting>,
    /// The deadlines of those that are not decided, with their places.
    pub(super) deadlines: BTreeSet<(u64, usize)>,
    pub(super) generation: u32,
}

#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) port: usize,
    pub(super) socket: Socket,
    pub(super) proxy: ProxyPeer,
    pub(super) stage: Arc<PeerStage>,
    pub(super) generation: u32,
    pub(super) until: u64,
    /// How often it was looked at since its first turn.
    pub(super) looks: u32,
    /// The poll that is in flight.
    pub(super) polling: bool,
    /// What becomes of it once nothing is in flight; `None`: its header is unfinished.
    pub(super) verdict: Option<Verdict>,
}

#[derive(Debug)]
pub(super) enum Verdict {
    Named(Box<HeaderClient>),
    Refused(CloseReason),
    /// The stop's grace is over.
    Dropped,
}

impl Headers {
    pub(in crate::worker) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// When the next one is late, in ns.
    pub(in crate::worker) fn next(&self) -> u64 {
        self.deadlines.first().map_or(NEVER, |(until, _)| *until)
    }

    /// Has one wait no longer than until this time.
    pub(super) fn hasten(&mut self, key: usize, until: u64) {
        let waiting = &mut self.waiting[key];
        if until < waiting.until {
            self.deadlines.remove(&(waiting.until, key));
            waiting.until = until;
            self.deadlines.insert((until, key));
        }
    }

    /// The oldest one that is undecided; with a port, of that port.
    pub(super) fn oldest(&self, port: Option<usize>) -> Option<usize> {
        let is_of = |key: &usize| port.is_none_or(|port| self.waiting[*key].port == port);
        let mut keys = self.deadlines.iter().map(|(_, key)| *key);
        keys.find(is_of)
    }
}
