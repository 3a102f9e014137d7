//! Persistence: a client returns to the backend that it had.
//!
//! With a cookie as key, a client's first request has none. Until it shows one, it is remembered by
//! its address. The first new cookie takes that entry over, and the address is forgotten, because
//! other clients may have the same address. When a cookie changes, as at a login, the new cookie
//! takes the backend of the client that has just left the same address.

use std::collections::HashMap;
use std::sync::Arc;

use crate::config::Key;
use crate::hash;
use crate::peek::Field;
use crate::pool::{Backend, Pool, StickyTable};
use crate::time::SECOND;

use super::{Keys, Request};

/// The pool's sticky table, in terms of the pool's backends.
#[derive(Debug)]
pub(super) struct Memory {
    table: Arc<StickyTable>,
    /// The hash of each backend's name: the table uses it because indices change.
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

    /// The backend that the client had, as an index into the pool.
    pub(super) fn recall(&self, request: &Request<'_>) -> Option<u16> {
        let find = |key| self.place(self.table.get(key, request.now)?);
        find(request.keys.persist).or_else(|| {
            let source = self.source(&request.keys)?;
            find(source).or_else(|| find(left_from(source)))
        })
    }

    /// The same as [`Self::recall`], without counting as a use.
    pub(super) fn look(&self, request: &Request<'_>) -> Option<u16> {
        let find = |key| self.place(self.table.look(key, request.now)?);
        find(request.keys.persist).or_else(|| {
            let source = self.source(&request.keys)?;
            find(source).or_else(|| find(left_from(source)))
        })
    }

    /// Remembers the client's backend. Returns the backend to use: another one if, at the same
    /// moment, another worker chose that for the same client and it is `usable`.
    pub(super) fn assign(
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

    /// Remembers that the client leaves this backend at `now`, in ns. The entry may have expired
    /// during the session.
    pub(super) fn on_left(&self, backend: &Backend, keys: &Keys, now: u64) {
        let id = hash::of(backend.name.as_bytes());
        if self.by_source_too && keys.source == keys.persist {
            // Only if it is still there: a cookie may have taken the entry of the address over.
            self.table.revive(keys.persist, id, now);
        } else {
            self.table.insert(keys.persist, id, None, now);
        }
        if let Some(source) = self.source(keys) {
            self.table.lend(left_from(source), id, LEFT, now);
        }
    }

    /// The key that a client had before it showed its cookie.
    fn source(&self, keys: &Keys) -> Option<u64> {
        (self.by_source_too && keys.source != keys.persist).then_some(keys.source)
    }

    fn place(&self, id: u64) -> Option<u16> {
        self.places.get(&id).copied()
    }
}

/// The key of the client with a cookie that left this address last. A login changes the cookie, so
/// that client's next connection shows an unknown one.
fn left_from(source: u64) -> u64 {
    hash::mix(source ^ 0x6c65_6674)
}

/// For how long an unknown cookie counts as the new cookie of the client that left: 10 s.
const LEFT: u64 = 10 * SECOND;
