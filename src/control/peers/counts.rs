//! What is counted of each member, and of strangers.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::admin::model::PeerStatus;
use crate::config::PeerMember;

use super::hub::Side;

/// Why an entry of a member is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Its sender's clock differs too much.
    Clock,
    /// The member has as many entries here as it may have, or the table has no room for it.
    NoRoom,
    /// The pool has another key of its clients here.
    OtherKey,
    /// A ban of a large part of the internet.
    TooWide,
    /// The backend is not known here.
    UnknownBackend,
    /// A ban of one that is no member here.
    UnknownMember,
    /// The pool is not known here, or has no sticky clients.
    UnknownPool,
}

impl Refusal {
    const ALL: [(&'static str, Self); 7] = [
        ("clock", Self::Clock),
        ("no_room", Self::NoRoom),
        ("other_key", Self::OtherKey),
        ("too_wide", Self::TooWide),
        ("unknown_backend", Self::UnknownBackend),
        ("unknown_member", Self::UnknownMember),
        ("unknown_pool", Self::UnknownPool),
    ];
}

/// What is counted of a member.
#[derive(Debug)]
pub(super) struct PeerCounts {
    pub(super) name: String,
    address: String,
    /// It is this balancer itself.
    pub(super) is_own: AtomicBool,
    /// It takes what this balancer sends.
    pub(super) is_sending: AtomicBool,
    /// Connections by which it sends.
    pub(super) receiving: AtomicUsize,
    pub(super) sent: AtomicU64,
    pub(super) received: AtomicU64,
    refused: [AtomicU64; Refusal::ALL.len()],
    /// Frames that can't be read: each has ended a connection.
    pub(super) malformed: AtomicU64,
    /// How often all was sent again, as it was too slow for changes.
    pub(super) resyncs: AtomicU64,
    /// From a beat to its answer, in ms.
    pub(super) lag_ms: AtomicU64,
    /// Why it is not connected, or what is wrong with it, of each of the two connections.
    problems: [Mutex<Option<String>>; 2],
}

impl PeerCounts {
    pub(super) fn new(member: &PeerMember) -> Self {
        Self {
            name: member.name.clone(),
            address: member.address.clone(),
            is_own: AtomicBool::default(),
            is_sending: AtomicBool::default(),
            receiving: AtomicUsize::default(),
            sent: AtomicU64::default(),
            received: AtomicU64::default(),
            refused: Default::default(),
            malformed: AtomicU64::default(),
            resyncs: AtomicU64::default(),
            lag_ms: AtomicU64::default(),
            problems: Default::default(),
        }
    }

    pub(super) fn add(counter: &AtomicU64, more: usize) {
        counter.fetch_add(more as u64, Ordering::Relaxed);
    }

    pub(super) fn refuse(&self, why: Refusal, count: usize) {
        Self::add(&self.refused[why as usize], count);
    }

    /// Notes what is wrong with a connection; `None`: it is well. Answers whether that is new.
    pub(super) fn note(&self, side: Side, problem: Option<String>) -> bool {
        let mut noted = self.problems[side as usize].lock();
        let is_new = *noted != problem;
        *noted = problem;
        is_new
    }

    /// What is wrong with it, if anything.
    pub(super) fn problem(&self) -> Option<String> {
        let mut problems = self.problems.iter().map(|its| its.lock().clone());
        problems.find_map(|problem| problem)
    }

    /// As the API shows it.
    pub(super) fn status(&self) -> PeerStatus {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let sending = self.is_sending.load(Ordering::Relaxed);
        let refused = Refusal::ALL.map(|(name, why)| (name, count(&self.refused[why as usize])));
        let all = refused
            .into_iter()
            .chain([("malformed", count(&self.malformed))]);
        let refused = all.filter(|(_, count)| *count > 0);
        PeerStatus {
            name: self.name.clone(),
            address: self.address.clone(),
            sending,
            receiving: self.receiving.load(Ordering::Relaxed) > 0,
            sent: count(&self.sent),
            received: count(&self.received),
            refused: refused
                .map(|(name, count)| (name.to_owned(), count))
                .collect::<BTreeMap<_, _>>(),
            resyncs: count(&self.resyncs),
            lag_ms: sending.then(|| count(&self.lag_ms)),
            problem: self.problem(),
        }
    }
}
