//! Members: clients select their backend themselves, by the number in the server name of their TLS
//! hello.
//!
//! It is that backend or none: the members of a cluster are not the same, and another one would
//! send the client away, or serve it wrongly. So an attempt that fails is followed by one on the
//! same backend.

use std::collections::HashMap;

use crate::peek::{MemberPattern, Miss, Name};
use crate::pool::Pool;

use super::{Choice, Keys, Looked, Plan, Scene};

/// The backends of a pool by their numbers.
#[derive(Debug)]
pub(super) struct Members {
    pattern: MemberPattern,
    places: HashMap<u32, u16>,
}

impl Members {
    /// `None`: the pool's strategy selects.
    pub(super) fn new(pool: &Pool) -> Option<Self> {
        Some(Self {
            pattern: pool.config.sni_member.clone()?,
            places: pool.config.numbers().zip(0..).collect(),
        })
    }

    /// What the name of a hello leads to.
    pub(super) fn look(&self, name: Result<&Name, Miss>) -> Looked {
        let number = match name {
            Ok(name) => self.pattern.number(name.as_bytes()),
            Err(Miss::Absent) => None,
            Err(Miss::Incomplete) => return Looked::Incomplete,
        };
        let known = number.filter(|number| self.places.contains_key(number));
        known.map_or(Looked::Nowhere, |number| Looked::Known(keys_of(number), 0))
    }

    /// Whether a name has the same number for both.
    pub(super) fn read_alike(&self, other: &Self) -> bool {
        self.pattern == other.pattern
    }

    /// The backend of a client with these keys, as an index into the pool; `None`: it has gone
    /// since its client was looked at.
    pub(super) fn place(&self, keys: Keys) -> Option<u16> {
        let number = u32::try_from(keys.select.checked_sub(1)?).ok()?;
        self.places.get(&number).copied()
    }

    /// The client's own backend, ejected or not and tried or not: no other can take it.
    pub(super) fn choose(&self, scene: &Scene<'_>) -> Choice {
        let its = self.place(scene.request.keys);
        let its = its.filter(|index| scene.backend(*index).is_in_rotation());
        let Some(index) = its else {
            return Choice::Unavailable;
        };
        let is_open = scene.with_ejected().with_tried().is_open(index);
        if is_open && !scene.pool.is_full() {
            Choice::Backend(index)
        } else {
            Choice::Full
        }
    }
}

impl Plan {
    /// Whether clients select their backends themselves, by name.
    #[must_use]
    pub fn is_of_members(&self) -> bool {
        self.members.is_some()
    }
}

/// The number of a member stands in place of the strategy's key. 0 is no key.
fn keys_of(number: u32) -> Keys {
    Keys {
        select: u64::from(number) + 1,
        ..Keys::default()
    }
}
