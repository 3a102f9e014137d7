//! A keeper of the ledger that answers as etcd does, in virtual time.

use std::collections::BTreeMap;

use super::super::{Answer, Ask, FleetShare, Ledger, LedgerView};
use crate::time::SECOND;

/// How long leases last.
pub(super) const LASTS: u64 = 10 * SECOND;

/// What a balancer asks, and when it arrives and is answered.
pub(super) struct Request {
    pub(super) ask: Ask,
    pub(super) name: String,
    pub(super) instance: String,
    pub(super) at: u64,
    pub(super) answered_at: u64,
}

#[derive(Default)]
pub(super) struct Keeper {
    revision: i64,
    ledger: Ledger,
    changed: i64,
    /// When each ends.
    leases: BTreeMap<i64, u64>,
    /// Instance and lease, by name.
    names: BTreeMap<String, (String, i64)>,
    asked: u64,
    /// What is on its way, and whether its answer is lost.
    requests: BTreeMap<u64, (Request, bool)>,
    answers: BTreeMap<u64, (u64, Answer)>,
    pub(super) stopped_until: u64,
}

impl Keeper {
    pub(super) fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Takes a request on its way; `is_lost`: it never arrives.
    pub(super) fn take(&mut self, request: Request, is_lost: bool, is_deaf: bool) -> u64 {
        self.asked += 1;
        if !is_lost {
            self.requests.insert(self.asked, (request, is_deaf));
        }
        self.asked
    }

    pub(super) fn answer(&mut self, id: u64, now: u64) -> Option<Answer> {
        self.answers.get(&id).filter(|(at, _)| now >= *at)?;
        self.answers.remove(&id).map(|(_, answer)| answer)
    }

    pub(super) fn run(&mut self, now: u64) {
        if now < self.stopped_until {
            return;
        }
        self.leases.retain(|_, end| now < *end);
        self.names
            .retain(|_, (_, lease)| self.leases.contains_key(lease));
        let due: Vec<_> = self
            .requests
            .iter()
            .filter(|(_, (its, _))| now >= its.at)
            .collect();
        let due: Vec<_> = due.into_iter().map(|(id, _)| *id).collect();
        for id in due {
            let (request, is_deaf) = self.requests.remove(&id).unwrap();
            let answer = self.obey(&request, now);
            if !is_deaf {
                self.answers.insert(id, (request.answered_at, answer));
            }
        }
    }

    /// All that it has is gone.
    pub(super) fn wipe(&mut self) {
        (self.revision, self.changed, self.ledger) = (0, 0, Ledger::default());
        self.leases.clear();
        self.names.clear();
    }

    /// A person deletes the ledger.
    pub(super) fn forget(&mut self) {
        (self.revision, self.changed, self.ledger) = (0, 0, Ledger::default());
    }

    /// It has so many balancers without a lease.
    pub(super) fn bury(&mut self, count: u32, limits: [&str; 2], share: FleetShare) {
        let shares = limits.map(|limit| (limit.to_owned(), share));
        let members = (0..count).map(|number| (format!("pod-{number}"), shares.clone().into()));
        self.ledger.members.extend(members);
        (self.revision, self.changed) = (self.revision + 1, self.revision + 1);
    }

    pub(super) fn obey(&mut self, request: &Request, now: u64) -> Answer {
        match &request.ask {
            Ask::Grant => {
                self.asked += 1;
                let id = i64::try_from(self.asked).unwrap();
                self.leases.insert(id, now + LASTS);
                Answer::Granted(id, LASTS)
            }
            Ask::Register(lease) => {
                let bound = self.names.get(&request.name).map(|(instance, _)| instance);
                if let Some(other) = bound.filter(|its| **its != request.instance) {
                    return Answer::Registered(Some(other.clone()));
                }
                if !self.leases.contains_key(lease) {
                    return Answer::Failed;
                }
                let value = (request.instance.clone(), *lease);
                self.names.insert(request.name.clone(), value);
                Answer::Registered(None)
            }
            Ask::Renew(lease) => {
                let end = self.leases.get_mut(lease);
                Answer::Renewed(end.map(|end| *end = now + LASTS).is_some())
            }
            Ask::Read => {
                let names = self.names.iter();
                Answer::Read(LedgerView {
                    revision: self.changed,
                    ledger: self.ledger.clone(),
                    instances: names
                        .map(|(name, its)| (name.clone(), its.0.clone()))
                        .collect(),
                })
            }
            Ask::Write(write) => {
                if write.gone.len() + 2 > CONDITIONS_MAX {
                    return Answer::Failed;
                }
                let own = self.names.get(&request.name).map(|(instance, _)| instance);
                let holds = write.revision == self.changed
                    && own == Some(&request.instance)
                    && write.gone.iter().all(|name| !self.names.contains_key(name));
                if holds {
                    self.revision += 1;
                    self.changed = self.revision;
                    self.ledger = write.ledger.clone();
                }
                Answer::Written(holds)
            }
        }
    }
}

/// Conditions of a write, as etcd takes them.
const CONDITIONS_MAX: usize = 128;
