//! Backends to which this worker has no free local port, or no address to begin at. One connect per
//! backend, not one per client, finds out how long that lasts: with a whole range of ports in use,
//! each connect costs a search through all of them.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use crate::fault::Fault;
use crate::pool::{Backend, Tally};
use crate::time::MS;

/// Backends that no connect is tried on until a time, in nanoseconds of the worker's clock.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    /// By the address of the tally, which is kept so that no other gets it, and by the origin that
    /// lacks a port, or is missing.
    held: BTreeMap<(usize, Begin), Held>,
}

/// Where a connection to a backend begins. What one client's address lacks holds no other client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Begin {
    /// At the origin of this number.
    Machine(usize),
    /// At this client's address.
    Client(IpAddr),
}

#[derive(Debug)]
struct Held {
    _tally: Arc<Tally>,
    until: u64,
    /// When this was lacking first.
    since: u64,
    /// What is lacking.
    fault: Fault,
}

impl Held {
    /// Whether a connect that fails now is the next in a row.
    fn is_recent(&self, now: u64) -> bool {
        now < self.until.saturating_add(HOLD_MAX)
    }
}

impl Backoff {
    /// No connect to the backend is tried from this origin for a while, as it lacks this: for a
    /// quarter of the time that this has lasted, but [`HOLD`] at least and [`HOLD_MAX`] at most.
    pub(super) fn hold(&mut self, backend: &Backend, origin: Begin, fault: Fault, now: u64) {
        self.held.retain(|_, held| held.is_recent(now));
        let key = (key(backend), origin);
        let since = self.held.get(&key).map_or(now, |held| held.since);
        let pause = (now.saturating_sub(since) / 4).clamp(HOLD, HOLD_MAX);
        let held = Held {
            _tally: Arc::clone(&backend.tally),
            until: now.saturating_add(pause),
            since,
            fault,
        };
        if self.held.len() >= HELD_MAX {
            // To forget one early costs a search for a port.
            self.held.pop_first();
        }
        self.held.insert(key, held);
    }

    /// A connect to the backend from this origin has succeeded.
    pub(super) fn on_connected(&mut self, backend: &Backend, origin: Begin) {
        if !self.held.is_empty() {
            self.held.remove(&(key(backend), origin));
        }
    }

    /// What is lacking for a connect of this client to the backend, if one is tried from none of
    /// its origins: ports, where one of these has its address.
    pub(super) fn holds(
        &self,
        backend: &Backend,
        client: Option<IpAddr>,
        now: u64,
    ) -> Option<Fault> {
        if self.held.is_empty() {
            return None;
        }
        if backend.origins.at_client {
            return self.holds_at(backend, Begin::Client(client?), now);
        }
        let mut lacking = None;
        for origin in 0..backend.origins.len() {
            let fault = self.holds_at(backend, Begin::Machine(origin), now)?;
            lacking = lacking.filter(|its| *its == Fault::Ports).or(Some(fault));
        }
        lacking
    }

    /// The first origin from `turn` on that a connect can be tried from.
    pub(super) fn origin(&self, backend: &Backend, turn: usize, now: u64) -> usize {
        let count = backend.origins.len();
        let mut turns = (0..count).map(|n| turn.wrapping_add(n) % count);
        let free = |origin: &usize| {
            let origin = Begin::Machine(*origin);
            self.holds_at(backend, origin, now).is_none()
        };
        turns.find(free).unwrap_or(turn % count)
    }

    fn holds_at(&self, backend: &Backend, origin: Begin, now: u64) -> Option<Fault> {
        let held = self.held.get(&(key(backend), origin));
        held.filter(|held| held.until > now).map(|held| held.fault)
    }
}

fn key(backend: &Backend) -> usize {
    Arc::as_ptr(&backend.tally).addr()
}

/// From a connect that found no port to the next: 20 ms. With the default range each costs a search
/// of some milliseconds, during which all sessions of the worker wait.
const HOLD: u64 = 20 * MS;
/// The same at most: 320 ms.
const HOLD_MAX: u64 = 16 * HOLD;
/// Origins that are held at most: clients that have used up their ports are few.
const HELD_MAX: usize = 1_024;

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
        backoff.hold(one, Begin::Machine(0), Fault::Ports, 1_000);
        assert_eq!(
            backoff.holds(one, None, 1_000 + HOLD - 1),
            Some(Fault::Ports)
        );
        assert_eq!(backoff.holds(one, None, 1_000 + HOLD), None);
        assert_eq!(backoff.holds(other, None, 1_000), None);
        // What is over for long is forgotten with the next.
        backoff.hold(
            other,
            Begin::Machine(0),
            Fault::Ports,
            1_000 + HOLD + HOLD_MAX,
        );
        assert_eq!(backoff.held.len(), 1);
        assert_eq!(Arc::strong_count(&one.tally), 1);
    }

    #[test]
    fn a_lack_that_lasts_is_asked_about_ever_more_rarely() {
        let at = config::Backend::at("127.0.0.1:1".parse().unwrap());
        let pool = Pool::new(&config::Pool::of("p", vec![at]));
        let backend = &pool.backends[0];
        let mut backoff = Backoff::default();
        let mut now = 1_000;
        let mut fails = |backoff: &mut Backoff| {
            backoff.hold(backend, Begin::Machine(0), Fault::Ports, now);
            let began = now;
            while backoff.holds(backend, None, now).is_some() {
                now += MS;
            }
            (now - began) / MS
        };
        let waits = [(); 20].map(|()| fails(&mut backoff));
        assert_eq!(waits[..6], [20, 20, 20, 20, 20, 25]);
        assert_eq!(waits[18..], [320, 320], "{waits:?}");
        backoff.on_connected(backend, Begin::Machine(0));
        assert_eq!(fails(&mut backoff), 20);
    }

    #[test]
    fn an_origin_without_a_port_is_passed_over_until_all_are() {
        let at = config::Backend::at("127.0.0.1:1".parse().unwrap());
        let mut config = config::Pool::of("p", vec![at]);
        let own = ["127.0.0.2", "127.0.0.3"].map(|ip| ip.parse().unwrap());
        config.origins.addresses = own.to_vec();
        let pool = Pool::new(&config);
        let backend = &pool.backends[0];
        let mut backoff = Backoff::default();
        let turns = |backoff: &Backoff| [0, 1, 2].map(|turn| backoff.origin(backend, turn, 5));
        assert_eq!(turns(&backoff), [0, 1, 0]);
        backoff.hold(backend, Begin::Machine(0), Fault::Ports, 5);
        assert_eq!(turns(&backoff), [1, 1, 1]);
        assert_eq!(backoff.holds(backend, None, 5), None);
        backoff.hold(backend, Begin::Machine(1), Fault::Source, 5);
        // A wider range of ports would help.
        assert_eq!(backoff.holds(backend, None, 5), Some(Fault::Ports));
        assert_eq!(backoff.holds(backend, None, 5 + HOLD), None);
        backoff.hold(backend, Begin::Machine(0), Fault::Source, 5);
        assert_eq!(backoff.holds(backend, None, 5), Some(Fault::Source));
    }

    #[test]
    fn a_client_without_a_port_holds_no_other() {
        let at = config::Backend::at("127.0.0.1:1".parse().unwrap());
        let mut config = config::Pool::of("p", vec![at]);
        config.origins.at_client = true;
        let pool = Pool::new(&config);
        let backend = &pool.backends[0];
        let mut backoff = Backoff::default();
        let client = |n: u32| IpAddr::from((0x0a00_0000 + n).to_be_bytes());
        let busy = Begin::Client(client(1));
        backoff.hold(backend, busy, Fault::Ports, 5);
        assert_eq!(
            backoff.holds(backend, Some(client(1)), 5),
            Some(Fault::Ports)
        );
        assert_eq!(backoff.holds(backend, Some(client(2)), 5), None);
        backoff.on_connected(backend, busy);
        assert_eq!(backoff.holds(backend, Some(client(1)), 5), None);
        let many = u32::try_from(2 * HELD_MAX).unwrap();
        for n in 0..many {
            backoff.hold(backend, Begin::Client(client(n)), Fault::Ports, 5);
            assert!(backoff.holds(backend, Some(client(n)), 5).is_some());
        }
        assert_eq!(backoff.held.len(), HELD_MAX);
    }
}
