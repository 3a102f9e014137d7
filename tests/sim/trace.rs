//! The trace of a run: a hash of all events, a print of them when one seed is replayed, and how
//! often each case of interest occurred.

use std::collections::BTreeMap;

use mahoraga::kernel::{Completion, Done};
use mahoraga::token::Token;

/// The record of a run.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    pub(crate) clock: u64,
    pub(crate) hash: u64,
    pub(crate) verbose: bool,
    /// Occurrences by name.
    pub(crate) seen: BTreeMap<&'static str, u64>,
}

impl Trace {
    /// A case of interest occurred.
    pub(crate) fn see(&mut self, what: &'static str) {
        *self.seen.entry(what).or_default() += 1;
        if self.verbose {
            println!("{:>12} us      -- {what}", self.clock / 1_000);
        }
    }

    /// The maximum of a measure.
    pub(crate) fn most(&mut self, what: &'static str, measure: u64) {
        let highest = self.seen.entry(what).or_default();
        *highest = measure.max(*highest);
    }

    /// The balancer submitted an operation.
    pub(crate) fn op(&mut self, what: &str, token: Token, number: u64) {
        self.note(what, token.raw(), number);
        if self.verbose {
            println!("{:>12} us  {what} {token:?} {number}", self.clock / 1_000);
        }
    }

    /// An event without a token happened to a descriptor.
    pub(crate) fn fact(&mut self, what: &str, fd: i32, number: u64) {
        self.note(what, u64::from(fd.unsigned_abs()), number);
        if self.verbose {
            println!("{:>12} us  {what} {fd} {number:#x}", self.clock / 1_000);
        }
    }

    /// A completion is reported to the balancer.
    pub(crate) fn completion(&mut self, completion: &Completion) {
        let outcome = match &completion.outcome {
            Ok(Done::Accepted(socket)) => u64::from(socket.raw().unsigned_abs()),
            Ok(Done::Received(buffer)) => u64::from(buffer.id) << 32 | u64::from(buffer.len),
            Ok(Done::Count(count)) => 1 << 60 | u64::from(*count),
            Err(errno) => 1 << 61 | u64::from(errno.0.unsigned_abs()),
        };
        self.note("done", completion.token.raw(), outcome);
        if self.verbose {
            println!(
                "{:>12} us      {:?} -> {:?}{}",
                self.clock / 1_000,
                completion.token,
                completion.outcome,
                if completion.more { " ..." } else { "" }
            );
        }
    }

    /// FNV-1a over all events.
    fn note(&mut self, what: &str, a: u64, b: u64) {
        let numbers = [self.clock, a, b];
        let letters = what.bytes().map(u64::from);
        for number in letters.chain(numbers) {
            self.hash = (self.hash ^ number).wrapping_mul(0x0100_0000_01b3);
        }
    }
}
