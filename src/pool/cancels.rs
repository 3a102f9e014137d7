//! Where the sessions of PostgreSQL clients are, so that a request to cancel goes there too. It
//! comes on a connection of its own, and perhaps to another worker.

use std::net::IpAddr;

use crate::lru::Lru;
use crate::peek::CancelKey;

use super::Backend;

/// The backends of sessions by what a request to cancel shows of them, for all workers. An
/// entry takes some 60 bytes.
#[derive(Debug)]
pub struct Cancels {
    by_key: Lru<CanceledBy, Option<CancelPlace>>,
    /// Apart from those, as each client of the listener has an address.
    by_client: Lru<CanceledBy, Option<CancelPlace>>,
}

/// What a request to cancel shows of the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CanceledBy {
    /// The key that its backend gave it.
    Key(CancelKey),
    /// The address of its client.
    Client(IpAddr),
}

/// The backend of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CancelPlace {
    /// The number of its pool.
    pub pool: u32,
    /// The number of the backend.
    pub backend: u32,
}

impl Default for Cancels {
    fn default() -> Self {
        Self {
            by_key: Lru::new(SESSIONS_MAX),
            by_client: Lru::new(SESSIONS_MAX),
        }
    }
}

impl Cancels {
    /// Takes note of where a session is. Of several from an address the last one counts.
    pub fn note(&self, by: CanceledBy, place: CancelPlace) {
        let (shard, key) = self.table(by).locate(canonical(by));
        let mut shard = shard.lock();
        if let Some(index) = shard.find(key) {
            *shard.value_mut(index) = Some(place);
            shard.touch(index);
        } else {
            let _ = shard.insert(key, Some(place), Option::is_none);
        }
    }

    /// Where the session is that a request would cancel.
    #[must_use]
    pub fn find(&self, by: CanceledBy) -> Option<CancelPlace> {
        let (shard, key) = self.table(by).locate(canonical(by));
        let shard = shard.lock();
        shard.find(key).and_then(|index| *shard.value(index))
    }

    fn table(&self, by: CanceledBy) -> &Lru<CanceledBy, Option<CancelPlace>> {
        match by {
            CanceledBy::Key(_) => &self.by_key,
            CanceledBy::Client(_) => &self.by_client,
        }
    }

    /// The session has ended.
    pub fn forget(&self, by: CanceledBy) {
        let (shard, key) = self.table(by).locate(canonical(by));
        let mut shard = shard.lock();
        if let Some(index) = shard.find(key) {
            *shard.value_mut(index) = None;
            shard.expose(index);
        }
    }
}

impl Backend {
    /// Takes a place for a request to cancel, beyond its limits too: that frees places. `false`:
    /// there are many such requests already.
    pub fn try_acquire_for_cancel(&self) -> bool {
        if !self.tally.connections.try_acquire_beyond(BEYOND_MAX) {
            return false;
        }
        if !self.in_pool.try_acquire_beyond(BEYOND_MAX) {
            self.tally.connections.release();
            return false;
        }
        self.tally.on_opened();
        true
    }
}

fn canonical(by: CanceledBy) -> CanceledBy {
    match by {
        CanceledBy::Client(ip) => CanceledBy::Client(ip.to_canonical()),
        CanceledBy::Key(_) => by,
    }
}

/// Requests to cancel that a backend gets at a time beyond its limits. A server answers one at
/// once; one that does not, or a client that sends many, is not to take what others need.
const BEYOND_MAX: u32 = 16;
/// Beyond it the one that was noted first is forgotten: its cancel goes by its client's address.
const SESSIONS_MAX: u32 = 1 << 16;

#[cfg(test)]
mod tests {
    use super::*;

    const PLACES: [CancelPlace; 2] = [
        CancelPlace {
            pool: 1,
            backend: 2,
        },
        CancelPlace {
            pool: 1,
            backend: 3,
        },
    ];

    #[test]
    fn a_session_is_found_until_it_ends() {
        let cancels = Cancels::default();
        let key = |process| CanceledBy::Key(CancelKey::new(process, b"1234"));
        cancels.note(key(7), PLACES[0]);
        cancels.note(key(8), PLACES[1]);
        assert_eq!(cancels.find(key(7)), Some(PLACES[0]));
        assert_eq!(cancels.find(key(9)), None);
        let other = CanceledBy::Key(CancelKey::new(7, b"1235"));
        assert_eq!(cancels.find(other), None, "the secret counts too");
        cancels.forget(key(7));
        assert_eq!(cancels.find(key(7)), None);
        assert_eq!(cancels.find(key(8)), Some(PLACES[1]));
        // As the process number comes again.
        cancels.note(key(7), PLACES[1]);
        assert_eq!(cancels.find(key(7)), Some(PLACES[1]));
    }

    #[test]
    fn of_an_address_the_last_session_counts() {
        let cancels = Cancels::default();
        let client = |text: &str| CanceledBy::Client(text.parse().unwrap());
        for place in PLACES {
            cancels.note(client("192.0.2.1"), place);
        }
        assert_eq!(cancels.find(client("::ffff:192.0.2.1")), Some(PLACES[1]));
        assert_eq!(cancels.find(client("192.0.2.2")), None);
    }

    #[test]
    fn it_forgets_beyond_its_size() {
        let cancels = Cancels::default();
        let key = |process| CanceledBy::Key(CancelKey::new(process, b""));
        for process in 0..2 * SESSIONS_MAX {
            cancels.note(key(process), PLACES[0]);
        }
        assert!(cancels.by_key.len() <= SESSIONS_MAX as usize);
        assert!(cancels.find(key(0)).is_none());
        assert!(cancels.find(key(2 * SESSIONS_MAX - 1)).is_some());
    }
}
