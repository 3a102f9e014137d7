//! What settings cost clients: those that an idle timeout cut and that came back at once.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::hash;
use crate::kernel::Kernel;
use crate::pool::Missed;
use crate::session::CloseReason;
use crate::snapshot::LiveListener;
use crate::time::MS;

use super::Worker;
use super::slot::Slot;

/// Clients that the idle timeout cut lately, of all workers: a client that comes back may connect
/// to another one. Each place has the time of one client; a later one takes its place.
#[derive(Debug)]
pub struct IdleCuts {
    /// The last cut of any client, in ms of the workers' clock: while it is long ago, connects look
    /// at nothing else.
    last: AtomicU64,
    places: Box<[AtomicU64]>,
}

impl Default for IdleCuts {
    fn default() -> Self {
        Self {
            last: AtomicU64::new(0),
            places: (0..PLACES).map(|_| AtomicU64::new(0)).collect(),
        }
    }
}

impl IdleCuts {
    /// A client of a listener was cut at this time, in ms.
    fn note(&self, client: IpAddr, listener: u64, at: u64) {
        let (place, tag) = self.place(client, listener);
        place.store(tag | (at & TIME_MASK), Ordering::Relaxed);
        self.last.store(at, Ordering::Relaxed);
    }

    /// Whether a client was cut within a second before this time, in ms.
    fn is_recent(&self, now: u64) -> bool {
        let last = self.last.load(Ordering::Relaxed);
        last != 0 && now.saturating_sub(last) <= BACK_WITHIN
    }

    /// Whether a client of a listener that connects now was cut within the last second. It counts
    /// once.
    fn take(&self, client: IpAddr, listener: u64, now: u64) -> bool {
        let (place, tag) = self.place(client, listener);
        let known = place.load(Ordering::Relaxed);
        let ago = (now & TIME_MASK).wrapping_sub(known) & TIME_MASK;
        let is_it = known != 0 && known & !TIME_MASK == tag && ago <= BACK_WITHIN;
        let empty = || place.compare_exchange(known, 0, Ordering::Relaxed, Ordering::Relaxed);
        is_it && empty().is_ok()
    }

    /// The place of a client, and what tells it from most others of that place.
    fn place(&self, client: IpAddr, listener: u64) -> (&AtomicU64, u64) {
        let hash = match client {
            IpAddr::V4(ip) => hash::seeded(&ip.octets(), listener),
            IpAddr::V6(ip) => hash::seeded(&ip.octets(), listener),
        };
        let place = usize::try_from(hash).unwrap_or(usize::MAX) % PLACES;
        (&self.places[place], hash & !TIME_MASK)
    }
}

impl<K: Kernel> Worker<K> {
    /// Whether a client that connects now may be one that was cut a moment ago.
    fn regrets_idle_cuts(&self) -> bool {
        self.idle_cuts.is_recent(self.now / MS)
    }

    /// Counts a client that comes back within a second after the idle timeout cut it.
    #[inline]
    pub(super) fn note_return(&self, client: Option<SocketAddr>, listener: &LiveListener) {
        if self.regrets_idle_cuts()
            && let Some(client) = client
            && self.idle_cuts.take(client.ip(), listener.id, self.now / MS)
        {
            self.stats.idle_regrets.increment();
            listener.gate.count_idle_regret(listener.limits.idle);
        }
    }

    /// A session ends for this reason; its sockets are open still.
    pub(super) fn note_regret(&self, slot: &Slot, reason: CloseReason) {
        if reason == CloseReason::IdleTimeout {
            let peer = slot.peer.or_else(|| self.kernel.peer(&slot.client));
            if let Some(peer) = peer {
                let (client, listener) = (peer.ip(), slot.listener.id);
                self.idle_cuts.note(client, listener, self.now / MS);
            }
        }
        let missed = if reason == CloseReason::PoolFull {
            Missed::Full
        } else if reason == CloseReason::QueueTimeout {
            Missed::Late
        } else {
            return;
        };
        if slot.plan().is_of_members() {
            // No client waits there, whatever the settings.
            return;
        }
        let queue = &slot.plan().pool().queue;
        queue.note_missed(missed, self.now / MS);
    }

    /// A session has ended. Where it had a place of its pool, that has come free: counts a client
    /// that was refused just before, if any.
    pub(super) fn count_missed(&self, slot: &Slot) {
        if slot.backend.is_none() {
            return;
        }
        match slot.plan().pool().queue.take_missed(self.now / MS) {
            Some(Missed::Full) => self.stats.full_regrets.increment(),
            Some(Missed::Late) => self.stats.queue_regrets.increment(),
            None => {}
        }
    }
}

/// A client has come back if it connects within so many ms.
const BACK_WITHIN: u64 = 1_000;
/// Clients that are known at a time; 32 KiB.
const PLACES: usize = 4_096;
/// The part of a place that has the time: 34 years of ms.
const TIME_MASK: u64 = (1 << 40) - 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_clients_leave_a_cut_one_its_place() {
        let cuts = IdleCuts::default();
        let client: IpAddr = "192.0.2.1".parse().unwrap();
        cuts.note(client, 7, 10_000);
        for other in 0..100_000 {
            assert!(!cuts.take(IpAddr::V4(other.into()), 7, 10_100));
        }
        assert!(cuts.take(client, 7, 10_200));
    }

    #[test]
    fn a_client_comes_back_once_to_its_listener_within_a_second() {
        let cuts = IdleCuts::default();
        let client: IpAddr = "192.0.2.1".parse().unwrap();
        let other: IpAddr = "2001:db8::1".parse().unwrap();
        assert!(!cuts.is_recent(500));
        cuts.note(client, 7, 10_000);
        cuts.note(other, 7, 10_000);
        assert!(cuts.is_recent(11_000) && !cuts.is_recent(11_001));
        assert!(!cuts.take(client, 8, 10_500), "of another listener");
        assert!(cuts.take(client, 7, 11_000));
        assert!(!cuts.take(client, 7, 11_000), "it counts once");
        assert!(!cuts.take(other, 7, 11_001), "too late");
    }
}
