//! The connections of proxies whose headers are not complete, and what becomes of them.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use slab::Slab;

use crate::guard::PeerStage;
use crate::kernel::Socket;
use crate::session::CloseReason;
use crate::time::NEVER;
use crate::token::GENERATION_MASK;

use super::client::{HeaderClient, ProxyPeer};

/// The connections of a worker that wait for their header, or for the end of what they asked for.
#[derive(Debug, Default)]
pub(in crate::worker) struct Headers {
    waiting: Slab<Waiting>,
    /// The deadlines of those whose header is unfinished, with their places.
    deadlines: BTreeSet<(u64, usize)>,
    /// The same by port. None of them is empty.
    by_port: BTreeMap<usize, BTreeSet<(u64, usize)>>,
    generation: u32,
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

impl Waiting {
    /// One whose header is unfinished, until this time.
    pub(super) fn new(
        (port, socket, proxy): (usize, Socket, ProxyPeer),
        stage: Arc<PeerStage>,
        until: u64,
    ) -> Self {
        Self {
            port,
            socket,
            proxy,
            stage,
            generation: 0,
            until,
            looks: 0,
            polling: false,
            verdict: None,
        }
    }
}

impl Headers {
    /// The number of them, with those that are decided and whose poll has not ended.
    pub(in crate::worker) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// When the next unfinished one is late, in ns.
    pub(in crate::worker) fn next(&self) -> u64 {
        self.oldest().map_or(NEVER, |(until, _)| until)
    }

    /// The number of those whose header is unfinished.
    pub(super) fn unfinished(&self) -> usize {
        self.deadlines.len()
    }

    /// The same of a port.
    pub(super) fn unfinished_of(&self, port: usize) -> usize {
        self.by_port.get(&port).map_or(0, BTreeSet::len)
    }

    /// The oldest one whose header is unfinished: its deadline and its place.
    pub(super) fn oldest(&self) -> Option<(u64, usize)> {
        self.deadlines.first().copied()
    }

    /// The same of a port: its place.
    pub(super) fn oldest_of(&self, port: usize) -> Option<usize> {
        let first = self.by_port.get(&port)?.first();
        first.map(|(_, key)| *key)
    }

    pub(super) fn get(&self, key: usize) -> &Waiting {
        &self.waiting[key]
    }

    pub(super) fn get_mut(&mut self, key: usize) -> &mut Waiting {
        &mut self.waiting[key]
    }

    pub(super) fn keys(&self) -> Vec<usize> {
        self.waiting.iter().map(|(key, _)| key).collect()
    }

    /// Adds one whose header is unfinished, and returns its place.
    pub(super) fn insert(&mut self, waiting: Waiting) -> usize {
        self.generation = (self.generation + 1) & GENERATION_MASK;
        let generation = self.generation;
        let key = self.waiting.insert(Waiting {
            generation,
            ..waiting
        });
        self.note_deadline(key);
        key
    }

    /// Has one wait no longer than until this time.
    pub(super) fn hasten(&mut self, key: usize, until: u64) {
        if until < self.waiting[key].until {
            self.forget_deadline(key);
            self.waiting[key].until = until;
            self.note_deadline(key);
        }
    }

    /// Decides what becomes of one. `true`: its header was unfinished until now.
    pub(super) fn decide(&mut self, key: usize, verdict: Verdict) -> bool {
        let is_first = self.waiting[key].verdict.replace(verdict).is_none();
        if is_first {
            self.forget_deadline(key);
        }
        is_first
    }

    /// Takes one that is decided, and whose poll has ended.
    pub(super) fn remove(&mut self, key: usize) -> Waiting {
        self.waiting.remove(key)
    }

    fn note_deadline(&mut self, key: usize) {
        let Waiting { port, until, .. } = self.waiting[key];
        self.deadlines.insert((until, key));
        self.by_port.entry(port).or_default().insert((until, key));
    }

    fn forget_deadline(&mut self, key: usize) {
        let Waiting { port, until, .. } = self.waiting[key];
        self.deadlines.remove(&(until, key));
        if let Entry::Occupied(mut of_port) = self.by_port.entry(port) {
            of_port.get_mut().remove(&(until, key));
            if of_port.get().is_empty() {
                of_port.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_is_found_of_all_and_of_a_port() {
        let stage = Arc::new(PeerStage::new(&[], true, 9));
        let mut headers = Headers::default();
        let [a, b, c] = [(7, 30), (9, 20), (7, 10)].map(|(port, until)| {
            let stage = Arc::clone(&stage);
            headers.insert(Waiting::new(
                (port, Socket::from_raw(0), ProxyPeer::Unix),
                stage,
                until,
            ))
        });
        let of = |headers: &Headers| {
            let ports = [7, 9].map(|port| (headers.unfinished_of(port), headers.oldest_of(port)));
            (headers.next(), headers.oldest().map(|its| its.1), ports)
        };
        assert_eq!(of(&headers), (10, Some(c), [(2, Some(c)), (1, Some(b))]));
        headers.hasten(a, 5);
        headers.hasten(a, 50);
        assert_eq!(of(&headers), (5, Some(a), [(2, Some(a)), (1, Some(b))]));
        assert!(headers.decide(a, Verdict::Dropped));
        assert!(!headers.decide(a, Verdict::Dropped));
        assert!(headers.decide(b, Verdict::Dropped));
        assert_eq!(of(&headers), (10, Some(c), [(1, Some(c)), (0, None)]));
        assert_eq!((headers.len(), headers.unfinished()), (3, 1));
        assert!(headers.decide(c, Verdict::Dropped) && headers.next() == NEVER);
        for key in headers.keys() {
            assert!(headers.remove(key).verdict.is_some());
        }
        assert!(headers.by_port.is_empty() && headers.len() == 0);
    }
}
