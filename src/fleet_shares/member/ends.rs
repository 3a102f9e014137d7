//! How a balancer begins again with another way to the ledger, and how it leaves.

use super::{FleetMember, LedgerWrite};

impl FleetMember {
    /// The same balancer, which asks for the ledger in another way: with what it may act on without
    /// a lease. Of its earlier requests, one may still be done.
    #[must_use]
    pub fn again(mut self, pace: u64) -> Self {
        self.lose_lease();
        self.pace = pace;
        self.is_planned = false;
        self.rival = None;
        self.unknown = Some(self.revision);
        self
    }

    /// Gives all back before the ledger says so: nothing is in use any more, and it comes no more.
    pub fn leave(&mut self) {
        self.held.clear();
        self.planned.clear();
    }

    /// The ledger without this balancer, right after it was read.
    #[must_use]
    pub fn farewell(&self, now: u64) -> Option<LedgerWrite> {
        let mut ledger = self.ledger.clone();
        let is_there = ledger.members.remove(&self.name).is_some();
        (is_there && self.may_write(now)).then(|| LedgerWrite {
            revision: self.revision,
            ledger,
            gone: Vec::new(),
        })
    }
}
