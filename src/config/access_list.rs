//! Access lists: which clients may connect to the listeners that name them.

use std::path::PathBuf;

use super::codec::{Leaf, list, name, named, parsed, path, required, truth};
use super::table::settings;
use super::values;
use crate::guard::{Access, Action};
use crate::prefix::Prefix;

settings! {
    /// Prefixes of clients that may connect, and of those that may not. The longest prefix that an
    /// address is in counts.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct AccessList {
        /// The name that listeners use. It must be unique.
        pub name: String = String::new() => required(name());
        /// Addresses and prefixes whose clients may connect.
        pub allow: Vec<Prefix> = Vec::new() => list(prefix());
        /// Addresses and prefixes whose clients are refused.
        pub deny: Vec<Prefix> = Vec::new() => list(prefix());
        /// A file of more prefixes, one on each line: a bare prefix is denied, `allow PREFIX` is
        /// allowed. It is read again when it changes.
        pub file: Option<PathBuf> = None => path().given();
        /// What holds for addresses in no prefix: "allow" or "deny". It may be left out only where
        /// the list has no file, and either `allow` or `deny`: with `allow` others are denied, with
        /// `deny` they are allowed.
        pub others: Option<Access> = None => named("answer", &Access::ALL).or("auto");
        /// Refuse no client: only count and report those that the list would refuse.
        pub dry_run: bool = false => truth();
        /// What is done with clients that the list refuses: "reset", "drop" without a word, or
        /// "tarpit", which lets them wait.
        pub action: Action = Action::Reset => named("action", &Action::ALL);
    }
}

impl AccessList {
    /// Derives what holds for all others from the prefixes, where these say it. It is done once,
    /// for what is written: neither edits nor the file's lines may open a list to all clients.
    pub(super) fn complete(&mut self) {
        if self.others.is_some() || self.file.is_some() {
            return;
        }
        self.others = match (self.allow.is_empty(), self.deny.is_empty()) {
            (false, true) => Some(Access::Deny),
            (true, false) => Some(Access::Allow),
            (true, true) | (false, false) => None,
        };
    }
}

/// A prefix, in a file and in a flag.
pub(super) fn prefix() -> Leaf<Prefix> {
    parsed(values::PREFIX, values::prefix, Prefix::to_string)
}
