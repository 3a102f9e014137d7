//! What a client is known by: hashes of what the pool's strategy and its persistence look at.

use std::net::{IpAddr, SocketAddr};

use crate::config::Key;
use crate::hash;
use crate::peek::{self, Field, Peeked};

use super::Plan;

/// A client's keys, as hashes; 0 where nothing is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keys {
    /// What the strategy selects by.
    pub select: u64,
    /// What the client is remembered by.
    pub persist: u64,
    /// What it is remembered by while it does not show the former: its address.
    pub source: u64,
}

/// What a look at a client's first bytes came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Looked {
    /// Its keys, with the number of those that had to be taken from its address instead.
    Known(Keys, u8),
    /// More bytes are needed.
    Incomplete,
}

impl Plan {
    /// Whether a client's first bytes are needed.
    #[must_use]
    pub fn peeks(&self) -> bool {
        let needs = |key: Option<&Key>| matches!(key, Some(Key::Peeked(_)));
        needs(self.pool.strategy.key()) || needs(self.persist_key())
    }

    /// Whether a client's address is needed.
    #[must_use]
    pub fn needs_source(&self) -> bool {
        self.pool.strategy.key().is_some() || self.persist_key().is_some()
    }

    /// The keys of a client. `first` are its first bytes so far; `last` says that there will be no
    /// more of them.
    #[must_use]
    pub fn look(&self, client: Option<SocketAddr>, first: &[u8], last: bool) -> Looked {
        let source = source(client, &Key::default());
        let mut missed = 0;
        let mut look = |key: Option<&Key>| match key {
            None => Some(0),
            Some(Key::Peeked(field)) => match peek(field, first, last) {
                Peeked::Found(hash) => Some(hash),
                Peeked::Absent => {
                    missed += 1;
                    Some(source)
                }
                Peeked::Incomplete => None,
            },
            Some(key) => Some(self::source(client, key)),
        };
        match (look(self.pool.strategy.key()), look(self.persist_key())) {
            (Some(select), Some(persist)) => Looked::Known(
                Keys {
                    select,
                    persist,
                    source,
                },
                missed,
            ),
            _ => Looked::Incomplete,
        }
    }

    /// The keys of a client whose first bytes were not looked at.
    #[must_use]
    pub fn keys_without_bytes(&self, client: Option<SocketAddr>) -> Keys {
        if !self.needs_source() {
            return Keys::default();
        }
        match self.look(client, &[], true) {
            Looked::Known(keys, _) => keys,
            Looked::Incomplete => Keys::default(),
        }
    }

    /// The keys of a client that had them by another plan. What is another key now is taken from
    /// its address, as its first bytes are not looked at again.
    #[must_use]
    pub fn take_over(&self, keys: Keys, old: &Self, client: Option<SocketAddr>) -> Keys {
        let mut taken = self.keys_without_bytes(client);
        if self.pool.strategy.key() == old.pool.strategy.key() {
            taken.select = keys.select;
        }
        if self.persist_key() == old.persist_key() {
            taken.persist = keys.persist;
        }
        taken
    }

    fn persist_key(&self) -> Option<&Key> {
        self.pool.persist.as_ref().map(|persist| &persist.key)
    }
}

fn peek(field: &Field, first: &[u8], last: bool) -> Peeked {
    let peeked = peek::peek(field, first);
    if last && peeked == Peeked::Incomplete {
        Peeked::Absent
    } else {
        peeked
    }
}

/// The hash of a client's address; all clients of a Unix socket are one.
fn source(client: Option<SocketAddr>, key: &Key) -> u64 {
    let Some(client) = client else { return 0 };
    let (v4, v6, port) = match *key {
        Key::SourceIp { v4, v6 } => (v4, v6, None),
        Key::SourceIpPort => (32, 128, Some(client.port())),
        Key::Peeked(_) => return 0,
    };
    let mut bytes = [0; 18];
    let length = match client.ip().to_canonical() {
        IpAddr::V4(ip) => {
            let mask = u32::MAX
                .checked_shl(32 - u32::from(v4.min(32)))
                .unwrap_or(0);
            bytes[..4].copy_from_slice(&(ip.to_bits() & mask).to_be_bytes());
            4
        }
        IpAddr::V6(ip) => {
            let mask = u128::MAX
                .checked_shl(128 - u32::from(v6.min(128)))
                .unwrap_or(0);
            bytes[..16].copy_from_slice(&(ip.to_bits() & mask).to_be_bytes());
            16
        }
    };
    let Some(port) = port else {
        return hash::of(&bytes[..length]);
    };
    bytes[length..length + 2].copy_from_slice(&port.to_be_bytes());
    hash::of(&bytes[..length + 2])
}
