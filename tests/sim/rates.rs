//! Limits of bandwidth: at no time were more bytes taken than they allow.

use std::collections::BTreeMap;

use mahoraga::guard::ByteRate;
use mahoraga::kernel::BUFFER_BYTES;
use mahoraga::time::SECOND;
use mahoraga::token::Side;

use crate::kernel::{FakeKernel, index};
use crate::scenario::SLOW_RATE;
use crate::world::World;

/// What was taken from the clients, or the backends, of each listener and of each connection.
#[derive(Debug, Default)]
pub(crate) struct Rates {
    listeners: BTreeMap<(usize, usize), Taken>,
    connections: BTreeMap<i32, Taken>,
}

#[derive(Debug)]
struct Taken {
    since: u64,
    bytes: u64,
    connections: u64,
}

impl Taken {
    fn add(&mut self, bytes: u64) -> u64 {
        self.bytes += bytes;
        self.bytes
    }
}

impl World {
    /// Whether what comes from a side of a listener's sessions rests for long.
    pub(crate) fn is_slow(&self, listener: usize, from: Side) -> bool {
        let limits = self.bandwidth.get(listener);
        let rate = limits.and_then(|limits| limits.session.way(from as usize).rate());
        rate.is_some_and(|rate| rate.per_second() <= SLOW_RATE)
    }
}

impl FakeKernel {
    /// Bytes were taken from a socket.
    pub(crate) fn note_taken(&mut self, fd: i32, bytes: u64) {
        let now = self.now;
        let conn = &self.conns[index(fd)];
        let way = conn.side as usize;
        let partner = conn.partner.map_or(0, |fd| self.conns[index(fd)].listener);
        let listener = conn.listener.max(partner);
        let Some(limits) = self.world.bandwidth.get(listener) else {
            return;
        };
        let limits = [&limits.session, &limits.all].map(|meters| meters.way(way).rate());
        let new = || Taken {
            since: now,
            bytes: 0,
            connections: 0,
        };
        let rates = &mut self.world.rates;
        let is_new = !rates.connections.contains_key(&fd);
        let own = rates.connections.entry(fd).or_insert_with(new);
        own.add(bytes);
        let all = rates.listeners.entry((listener, way)).or_insert_with(new);
        all.add(bytes);
        all.connections += u64::from(is_new);
        if let Some(rate) = limits[0] {
            self.trace.see("bytes of a session with a limit");
            let most = allowed(rate, now - own.since, 1) + rate.burst();
            assert!(own.bytes <= most, "{fd}: {own:?} of {most} for {rate:?}");
        }
        if let Some(rate) = limits[1] {
            self.trace.see("bytes of a listener with a limit");
            // Half of the rate is for sessions that move little, with a burst of their own.
            let most = allowed(rate, now - all.since, all.connections) + 2 * rate.burst();
            assert!(
                all.bytes <= most,
                "{listener}: {all:?} of {most} for {rate:?}"
            );
        }
    }
}

/// What flows in a time; and what each session takes before it pays: its first bytes, and a buffer.
fn allowed(rate: ByteRate, time: u64, sessions: u64) -> u64 {
    rate.per_second() * time / SECOND + 2 * u64::from(BUFFER_BYTES) * sessions
}
