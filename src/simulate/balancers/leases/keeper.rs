//! The keeper of the ledger: it answers as etcd does.

use std::collections::BTreeMap;

use crate::fleet_shares::{Answer, Ask, Ledger, LedgerView};
use crate::time::SECOND;

/// What is kept.
#[derive(Default)]
pub(super) struct Keeper {
    revision: i64,
    ledger: Ledger,
    leases: BTreeMap<i64, u64>,
    /// Instance and lease, by the balancer's name.
    names: BTreeMap<String, (String, i64)>,
    /// Requests that were answered so far.
    pub(super) asked: u64,
    /// No request arrives.
    pub(super) is_away: bool,
}

impl Keeper {
    /// Ends the leases whose time is over, and what is bound to them.
    pub(super) fn end_leases(&mut self, now: u64) {
        self.leases.retain(|_, end| now < *end);
        let leases = &self.leases;
        self.names
            .retain(|_, (_, lease)| leases.contains_key(lease));
    }

    /// The answer to a request of a balancer, of this name and instance.
    pub(super) fn answer(&mut self, ask: &Ask, by: (&str, &str), now: u64) -> Answer {
        if self.is_away {
            return Answer::Failed;
        }
        self.asked += 1;
        let (name, instance) = by;
        match ask {
            Ask::Grant => {
                let id = i64::try_from(self.asked).unwrap_or(i64::MAX);
                self.leases.insert(id, now + LASTS);
                Answer::Granted(id, LASTS)
            }
            Ask::Register(lease) => match self.names.get(name) {
                Some((bound, _)) => Answer::Registered(Some(bound.clone())),
                None => {
                    let value = (instance.to_owned(), *lease);
                    self.names.insert(name.to_owned(), value);
                    Answer::Registered(None)
                }
            },
            Ask::Renew(lease) => {
                let end = self.leases.get_mut(lease);
                Answer::Renewed(end.map(|end| *end = now + LASTS).is_some())
            }
            Ask::Read => Answer::Read(LedgerView {
                revision: self.revision,
                ledger: self.ledger.clone(),
                instances: self
                    .names
                    .iter()
                    .map(|(name, (instance, _))| (name.clone(), instance.clone()))
                    .collect(),
            }),
            Ask::Write(write) => {
                let holds = write.revision == self.revision
                    && write.gone.iter().all(|gone| !self.names.contains_key(gone));
                if holds {
                    self.revision += 1;
                    self.ledger = write.ledger.clone();
                }
                Answer::Written(holds)
            }
        }
    }
}

/// How long leases last, in ns.
const LASTS: u64 = 10 * SECOND;
