//! Edits of access lists, prefix by prefix.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use crate::config::access_list::{AccessList, AccessListChange};
use crate::guard::Access;
use crate::prefix::Prefix;

/// What each of some prefixes becomes in a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccessEdits(BTreeMap<Prefix, Option<Access>>);

impl AccessEdits {
    /// The edits of a request.
    ///
    /// # Errors
    /// A prefix has two edits that differ, or there are too many.
    pub fn new(change: &AccessListChange) -> Result<Self, String> {
        let all = [
            (&change.allow, Some(Access::Allow)),
            (&change.deny, Some(Access::Deny)),
            (&change.remove, None),
        ];
        let mut edits = BTreeMap::new();
        for (prefixes, access) in all {
            for prefix in prefixes {
                if edits
                    .insert(*prefix, access)
                    .is_some_and(|before| before != access)
                {
                    return Err(format!(
                        "`{prefix}` is listed twice: expected it in one of `allow`, `deny` and \
                         `remove`"
                    ));
                }
            }
        }
        if edits.len() > EDITS_MAX {
            return Err(format!(
                "{} prefixes are too many for one change: expected at most {EDITS_MAX}; put more \
                 into the `file` of the list",
                edits.len()
            ));
        }
        Ok(Self(edits))
    }

    /// Whether it changes nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The prefixes, each with what it becomes; `None`: it leaves the list.
    pub fn iter(&self) -> impl Iterator<Item = (Prefix, Option<Access>)> {
        self.0.iter().map(|(prefix, access)| (*prefix, *access))
    }

    /// Edits a list. Prefixes that are as they should be keep their places.
    pub(crate) fn apply(&self, list: &mut AccessList) {
        let now = entries(list);
        let differing = self
            .iter()
            .filter(|(prefix, access)| now.get(prefix) != access.as_ref());
        let differing: BTreeMap<_, _> = differing.collect();
        for prefixes in [&mut list.allow, &mut list.deny] {
            prefixes.retain(|prefix| !differing.contains_key(prefix));
        }
        for (prefix, access) in differing {
            match access {
                Some(Access::Allow) => list.allow.push(prefix),
                Some(Access::Deny) => list.deny.push(prefix),
                None => {}
            }
        }
    }

    /// These after earlier ones, as one.
    pub(crate) fn after(&self, earlier: &Self) -> Self {
        let mut both = earlier.clone();
        both.0.extend(&self.0);
        both
    }

    /// The edits of prefixes in which two lists differ, and the rest.
    pub(crate) fn split(&self, one: &AccessList, other: &AccessList) -> [Self; 2] {
        let (one, other) = (entries(one), entries(other));
        let both = self
            .iter()
            .partition(|(prefix, _)| one.get(prefix) != other.get(prefix));
        let (differing, rest) = both;
        [Self(differing), Self(rest)]
    }

    /// What the list has of each of these prefixes.
    pub(crate) fn now(&self, list: &AccessList) -> Self {
        let now = entries(list);
        Self(
            self.iter()
                .map(|(prefix, _)| (prefix, now.get(&prefix).copied()))
                .collect(),
        )
    }
}

/// Such as `allow 10.0.0.0/8, remove 10.6.0.0/16`.
impl fmt::Display for AccessEdits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (prefix, access)) in self.iter().take(SHOWN_MAX).enumerate() {
            let verb = access.map_or("remove", Access::as_str);
            write!(f, "{}{verb} {prefix}", if i == 0 { "" } else { ", " })?;
        }
        match self.0.len().saturating_sub(SHOWN_MAX) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

/// The prefixes of a list.
fn entries(list: &AccessList) -> HashMap<Prefix, Access> {
    let allowed = list.allow.iter().map(|prefix| (*prefix, Access::Allow));
    let denied = list.deny.iter().map(|prefix| (*prefix, Access::Deny));
    allowed.chain(denied).collect()
}

/// Prefixes of one change: it is one line of the audit log.
const EDITS_MAX: usize = 1_000;
/// Prefixes that a sentence names.
const SHOWN_MAX: usize = 10;
