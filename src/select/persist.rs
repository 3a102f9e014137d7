//! Persistence: a client comes back to the backend that it had.
//!
//! A client that is to be known by a cookie has none with its first request: until it shows one it
//! is remembered by its address, which the first new cookie takes over. Then the address is
//! forgotten: others may come from there, and they need not share a backend. A cookie that changes,
//! as at a login, follows whoever has just left the address.

use std::collections::HashMap;
use std::sync::Arc;

use crate::config::Key;
use crate::hash;
use crate::peek::Field;
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
            by_source_too: matches!(key, Some(Key::Peeked(Field::HttpCookie(_)))),
        })
    }

    /// The backend that the client is known to have.
    pub(super) fn recall(&self, request: &Request<'_>) -> Option<u16> {
        let find = |key| self.place(self.table.get(key, request.now)?);
        find(request.keys.persist).or_else(|| {
            let source = self.source(&request.keys)?;
            find(source).or_else(|| find(left_from(source)))
        })
    }

    /// Remembers the client's backend. Answers with the one that holds: another one if, at the same
    /// moment, another worker chose that for the same client and it is `usable`.
    pub(super) fn settle(
        &self,
        chosen: u16,
        request: &Request<'_>,
        usable: impl Fn(u16) -> bool,
    ) -> u16 {
        let (key, now) = (request.keys.persist, request.now);
        let old = self.table.get(key, now);
        let stale = old.filter(|&old| !self.place(old).is_some_and(&usable));
        let id = self.ids[usize::from(chosen)];
        let holds = self.table.insert(key, id, stale, now);
        if let Some(source) = self.source(&request.keys)
            && old.is_none()
        {
            self.table.remove(source);
            self.table.remove(left_from(source));
        }
        self.place(holds)
            .filter(|&index| usable(index))
            .unwrap_or(chosen)
    }

    /// The client was with this backend until now, perhaps for longer than it is remembered.
    pub(super) fn on_left(&self, backend: &Backend, keys: &Keys, now: u64) {
        let id = hash::of(backend.name.as_bytes());
        if self.by_source_too && keys.source == keys.persist {
            // A cookie may have taken over from its address meanwhile.
            self.table.revive(keys.persist, id, now);
        } else {
            self.table.insert(keys.persist, id, None, now);
        }
        if let Some(source) = self.source(keys) {
            self.table.lend(left_from(source), id, LEFT, now);
        }
    }

    /// What a client was known by before it showed what it is known by now.
    fn source(&self, keys: &Keys) -> Option<u64> {
        (self.by_source_too && keys.source != keys.persist).then_some(keys.source)
    }

    fn place(&self, id: u64) -> Option<u16> {
        self.places.get(&id).copied()
    }
}

/// Who was known by a cookie and left this address: a login changes the cookie, and the next
/// connection shows one that nobody knows.
fn left_from(source: u64) -> u64 {
    hash::mix(source ^ 0x6c65_6674)
}

/// How long the next unknown cookie is taken for another one of the client that left: 10 s, in ns.
const LEFT: u64 = 10_000_000_000;
