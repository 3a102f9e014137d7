//! Shares of limits over a fleet: who may take how much of a limit, without a word per connection.
//!
//! A ledger that all balancers read and write, one write at a time, has what each has of each
//! limit ([`Ledger`]). A balancer acts on its share as long as its lease lasts, and on no more than
//! its base after that ([`FleetMember`]). Nothing here reads a clock or talks to anyone.
//!
//! Invariant: what all act on adds up to at most the limit. For that, the shares in the ledger add
//! up to at most the limit; each acts on no more than the ledger has for it; who wants more writes
//! it before acting on it, and who gives back acts on less before writing it; and others cut the
//! share of one without a lease down to its base, never below.

#![forbid(unsafe_code)]

mod ledger;
mod member;

pub use ledger::{Demand, FleetShare, Ledger, MEMBERS_MAX, Other, next_share};
pub use member::{Answer, Ask, FleetMember, LedgerView, LedgerWrite, ShareBound};

#[cfg(test)]
mod tests;
