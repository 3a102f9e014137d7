//! The host names that a route asks for.

#![forbid(unsafe_code)]

use std::collections::HashSet;

use crate::peek::{NamePattern, NameRegex, above};

/// Host names, found by their hash however many there are; regular expressions are few
/// ([`ROUTE_REGEXES_MAX`](crate::config::ROUTE_REGEXES_MAX)).
#[derive(Debug, Default)]
pub(super) struct Names {
    exact: HashSet<Box<[u8]>>,
    /// All names below these.
    below: HashSet<Box<[u8]>>,
    matching: Vec<NameRegex>,
}

impl Names {
    pub(super) fn new(patterns: &[NamePattern]) -> Self {
        let mut names = Self::default();
        for pattern in patterns {
            match pattern {
                NamePattern::Exact(name) => drop(names.exact.insert(name.as_bytes().into())),
                NamePattern::Below(name) => drop(names.below.insert(name.as_bytes().into())),
                NamePattern::Matching(regex) => names.matching.push(regex.clone()),
            }
        }
        names
    }

    pub(super) fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.below.is_empty() && self.matching.is_empty()
    }

    pub(super) fn have(&self, name: &[u8]) -> bool {
        let is_below = || above(name).any(|parent| self.below.contains(parent));
        self.exact.contains(name)
            || !self.below.is_empty() && is_below()
            || self.matching.iter().any(|regex| regex.matches(name))
    }
}
