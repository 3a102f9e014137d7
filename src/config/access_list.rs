//! Access lists: which clients may connect to the listeners that name them.

use std::path::PathBuf;

use super::codec::{Leaf, list, name, named, parsed, path, required};
use super::table::{Shape, settings};
use super::values;
use crate::guard::Access;
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
        /// A file with more, one on each line: a bare prefix is denied, `allow PREFIX` is allowed.
        /// It is read again when it changes.
        pub file: Option<PathBuf> = None => path().given();
        /// What holds for addresses in no prefix: "allow" or "deny". Auto: "deny" where the list
        /// only allows, else "allow".
        pub others: Option<Access> = None => named("answer", &Access::ALL).or("auto");
    }
}

impl Shape for AccessList {}

/// A prefix, in a file and in a flag.
pub(super) fn prefix() -> Leaf<Prefix> {
    parsed(values::PREFIX, values::prefix, Prefix::to_string)
}
