//! Persistence: a client comes back to the backend that it had.
//!
//! A client that is known by something in its first bytes is remembered by its address too: its
//! first request has no cookie yet, and its next one must follow that.

use std::collections::HashMap;
use std::sync::Arc;

use crate::config::Key;
use crate::hash;
use crate::pool::{Backend, Pool, StickyTable};

use super::{Keys, Request};

/// What the pool's table says, in terms of the pool's backends.
#[derive(Debug)]
pub(super) struct Memory {
    table: Arc<StickyTable>,
    /// The table knows backends by the hash of their name, as their places change.
    ids: Vec<u64>,
    places: HashMap<u64, u16>,
    by_source_too: bool,
}

impl Memory {
    pub(super) fn new(pool: &Pool) -> Option<Self> {
        let table = Arc::clone(pool.sticky.as_ref()?);
        let names = pool.backends.iter().map(|backend| &backend.name);
        let ids: Vec<_> = names.map(|name| hash::of(name.as_bytes())).collect();
        let key = pool.persist.as_ref().map(|persist| &persist.key);
        Some(Self {
            table,
            places: ids.iter().copied().zip(0..).collect(),
            ids,
            by_source_too: matches!(key, Some(Key::First(_))),
        })
    }

    /// The backend that the client is known to have, by what it shows or else by its address.
    pub(super) fn recall(&self, request: &Request<'_>) -> Option<u16> {
        self.keys(&request.keys)
            .find_map(|key| self.place(self.table.get(key, request.now)?))
    }

    /// Remembers the client's backend. Answers with the one that holds: another one if, at the same
    /// moment, another worker chose that for the same client and it is `usable`.
    pub(super) fn settle(
        &self,
        chosen: u16,
        request: &Request<'_>,
        usable: impl Fn(u16) -> bool,
    ) -> u16 {
        let mut settled = chosen;
        for key in self.keys(&request.keys) {
            let id = self.ids[usize::from(settled)];
            let old = self.table.get(key, request.now);
            let stale = old.filter(|&old| !self.place(old).is_some_and(&usable));
            let holds = self.table.insert(key, id, stale, request.now);
            settled = self
                .place(holds)
                .filter(|&index| usable(index))
                .unwrap_or(settled);
        }
        settled
    }

    /// The client was with this backend until now, perhaps for longer than it is remembered.
    pub(super) fn on_left(&self, backend: &Backend, keys: &Keys, now: u64) {
        let id = hash::of(backend.name.as_bytes());
        for key in self.keys(keys) {
            self.table.insert(key, id, None, now);
        }
    }

    fn keys(&self, keys: &Keys) -> impl Iterator<Item = u64> {
        let source = self.by_source_too && keys.source != keys.persist;
        [Some(keys.persist), source.then_some(keys.source)]
            .into_iter()
            .flatten()
    }

    fn place(&self, id: u64) -> Option<u16> {
        self.places.get(&id).copied()
    }
}
