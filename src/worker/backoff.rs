//! Backends that can't be connected to just now, as this worker lacks a port towards them or their
//! backlog is full. One connect per backend finds out how long that lasts, not one per client:
//! with a whole range of ports in use each costs a search through all of them.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::fault::Fault;
use crate::pool::{Backend, Tally};

/// Backends that no connect is tried on until a time, in nanoseconds of the worker's clock.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    /// By the address of the tally, which is kept so that no other gets it.
    held: BTreeMap<usize, Held>,
}

#[derive(Debug)]
struct Held {
    _tally: Arc<Tally>,
    fault: Fault,
    until: u64,
}

impl Backoff {
    /// No connect is tried on the backend for [`HOLD`].
    pub(super) fn hold(&mut self, backend: &Backend, fault: Fault, now: u64) {
        let held = Held {
            _tally: Arc::clone(&backend.tally),
            fault,
            until: now.saturating_add(HOLD),
        };
        self.held.retain(|_, held| held.until > now);
        self.held.insert(key(backend), held);
    }

    /// Why no connect is tried on the backend; `None`: one may be.
    pub(super) fn why_held(&self, backend: &Backend, now: u64) -> Option<Fault> {
        let held = self.held.get(&key(backend))?;
        (held.until > now).then_some(held.fault)
    }
}

fn key(backend: &Backend) -> usize {
    Arc::as_ptr(&backend.tally).addr()
}

/// Between two connects to a backend that can't be connected to: 20 ms.
const HOLD: u64 = 20_000_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use crate::pool::Pool;

    #[test]
    fn a_backend_is_held_for_its_time_and_no_other_is() {
        let at = |port: u16| config::Backend::at(format!("127.0.0.1:{port}").parse().unwrap());
        let pool = Pool::new(&config::Pool::of("p", vec![at(1), at(2)]));
        let [one, other] = &pool.backends[..] else {
            panic!("two backends")
        };
        let mut backoff = Backoff::default();
        backoff.hold(one, Fault::Ports, 1_000);
        assert_eq!(backoff.why_held(one, 1_000 + HOLD - 1), Some(Fault::Ports));
        assert_eq!(backoff.why_held(one, 1_000 + HOLD), None);
        assert_eq!(backoff.why_held(other, 1_000), None);
        // What is over is forgotten with the next.
        backoff.hold(other, Fault::Busy, 1_000 + HOLD);
        assert_eq!(backoff.held.len(), 1);
        assert_eq!(Arc::strong_count(&one.tally), 1);
    }
}
