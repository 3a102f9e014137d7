//! Edits of access lists, prefix by prefix.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use crate::config::access_list::{AccessList, prefix};
use crate::config::codec::list;
use crate::config::table::{defaults, settings};
use crate::guard::Access;
use crate::prefix::Prefix;

settings! {
    /// A change of an access list while the balancer runs.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct AccessEdits {
        /// Addresses and prefixes whose clients may connect from now on.
        pub allow: Vec<Prefix> = Vec::new() => list(prefix());
        /// Addresses and prefixes whose clients are refused from now on.
        pub deny: Vec<Prefix> = Vec::new() => list(prefix());
        /// Addresses and prefixes that leave the list. Those of its file stay.
        pub remove: Vec<Prefix> = Vec::new() => list(prefix());
    }
}

defaults!(AccessEdits);

/// What each of some prefixes becomes in a list; `None`: it leaves the list.
type Becomes = BTreeMap<Prefix, Option<Access>>;

impl AccessEdits {
    /// The edits of a request, each prefix once and in order.
    ///
    /// # Errors
    /// A prefix has two edits that differ, or there are too many.
    pub fn checked(&self) -> Result<Self, String> {
        let mut becomes = Becomes::new();
        for (prefix, access) in self.listed() {
            if becomes
                .insert(prefix, access)
                .is_some_and(|before| before != access)
            {
                return Err(format!(
                    "`{prefix}` is listed twice: expected it in one of `allow`, `deny` and `remove`"
                ));
            }
        }
        if becomes.len() > EDITS_MAX {
            return Err(format!(
                "{} prefixes are too many for one change: expected at most {EDITS_MAX}; put more \
                 into the `file` of the list",
                becomes.len()
            ));
        }
        Ok(becomes.into())
    }

    /// Whether it changes nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.listed().next().is_none()
    }

    fn listed(&self) -> impl Iterator<Item = (Prefix, Option<Access>)> {
        let all = [
            (&self.allow, Some(Access::Allow)),
            (&self.deny, Some(Access::Deny)),
            (&self.remove, None),
        ];
        let each = all.into_iter();
        each.flat_map(|(prefixes, access)| prefixes.iter().map(move |prefix| (*prefix, access)))
    }

    /// The prefixes in order, each with what it becomes; `None`: it leaves the list.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (Prefix, Option<Access>)> {
        self.listed().collect::<Becomes>().into_iter()
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
        earlier
            .iter()
            .chain(self.iter())
            .collect::<Becomes>()
            .into()
    }

    /// The edits of prefixes in which two lists differ, and the rest.
    pub(crate) fn split(&self, one: &AccessList, other: &AccessList) -> [Self; 2] {
        let (one, other) = (entries(one), entries(other));
        let differs = |prefix: &Prefix| one.get(prefix) != other.get(prefix);
        let (differing, rest): (Becomes, Becomes) =
            self.iter().partition(|(prefix, _)| differs(prefix));
        [differing, rest].map(Self::from)
    }

    /// What the list has of each of these prefixes.
    pub(crate) fn now(&self, list: &AccessList) -> Self {
        let now = entries(list);
        let now = self
            .iter()
            .map(|(prefix, _)| (prefix, now.get(&prefix).copied()));
        now.collect::<Becomes>().into()
    }
}

impl From<Becomes> for AccessEdits {
    fn from(becomes: Becomes) -> Self {
        let mut edits = Self::default();
        for (prefix, access) in becomes {
            let to = match access {
                Some(Access::Allow) => &mut edits.allow,
                Some(Access::Deny) => &mut edits.deny,
                None => &mut edits.remove,
            };
            to.push(prefix);
        }
        edits
    }
}

/// Such as `allow 10.0.0.0/8, remove 10.6.0.0/16`.
impl fmt::Display for AccessEdits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (prefix, access)) in self.iter().take(SHOWN_MAX).enumerate() {
            let verb = access.map_or("remove", Access::as_str);
            write!(f, "{}{verb} {prefix}", if i == 0 { "" } else { ", " })?;
        }
        match self.iter().len().saturating_sub(SHOWN_MAX) {
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
