//! The lanes of sessions whose bandwidth is limited.
//!
//! They stand apart from slots, so that a session without a limit takes no memory for them, and an
//! event of it costs a test of a flag.

use crate::guard::{Buckets, Held, Lane, Pacing, SHARED, SharedLimit, SourcePlace};
use crate::kernel::{Kernel, UNBOUNDED};
use crate::pool::Backend;
use crate::snapshot::{LiveListener, Snapshot};
use crate::token::Side;

use super::Worker;

/// Lanes by slot, by source side.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    /// There are limits, or were some: sessions may keep a listener that is gone.
    on: bool,
    lanes: Vec<[Lane; 2]>,
    /// How often a direction rested.
    pub(super) rests: u64,
}

/// Whom a session has limits from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Party<'a> {
    pub(super) listener: &'a LiveListener,
    /// Its backend, once there is one.
    pub(super) backend: Option<&'a Backend>,
    /// Its place at its source, if that is counted.
    pub(super) held: Option<&'a Held>,
    /// What all sessions share.
    pub(super) snapshot: &'a Snapshot,
}

impl Lanes {
    /// Adopts the limits of a snapshot.
    pub(super) fn follow(&mut self, snapshot: &Snapshot) {
        self.on |= snapshot.has_bandwidth_limits;
        for lane in self.lanes.iter_mut().flatten() {
            lane.reconsider();
        }
    }

    /// The limits of a session; `None`: it has none.
    pub(super) fn pacing<'a>(&'a mut self, key: usize, party: Party<'a>) -> Option<Pacing<'a>> {
        if !self.on {
            return None;
        }
        self.limited(key, party)
    }

    #[inline(never)]
    fn limited<'a>(&'a mut self, key: usize, party: Party<'a>) -> Option<Pacing<'a>> {
        let limits = &party.listener.bandwidth;
        let of_source = party.held.map(|held| SharedLimit {
            meters: &limits.source,
            buckets: Buckets::Source(SourcePlace {
                sources: &party.snapshot.sources,
                gate: &party.listener.gate,
                held,
            }),
        });
        let of_backend = party.backend.map(|backend| SharedLimit {
            meters: &backend.tally.bandwidth,
            buckets: Buckets::Own(&backend.tally.connections),
        });
        let of_listener = Some(SharedLimit {
            meters: &limits.all,
            buckets: Buckets::Own(&party.listener.connections),
        });
        let in_all = Some(SharedLimit {
            meters: &party.snapshot.bandwidth,
            buckets: Buckets::Own(&party.snapshot.connections),
        });
        let shared: [_; SHARED] = [of_source, of_backend, of_listener, in_all]
            .map(|limit| limit.filter(|limit| limit.meters.is_limited()));
        let is_limited = limits.session.is_limited() || shared.iter().any(Option::is_some);
        if self.lanes.len() <= key {
            if !is_limited {
                return None;
            }
            self.lanes.resize_with(key + 1, Default::default);
        }
        let lanes = &mut self.lanes[key];
        if !is_limited {
            lanes.iter_mut().for_each(Lane::lift);
            return None;
        }
        Some(Pacing {
            lanes,
            session: &limits.session,
            shared,
            is_connected: party.backend.is_some(),
            rests: &mut self.rests,
        })
    }

    /// How many bytes an operation of a session may take, which it has just asked for.
    pub(super) fn granted(&self, key: usize, from: Side) -> u32 {
        if !self.on {
            return UNBOUNDED;
        }
        let lanes = self.lanes.get(key);
        lanes.map_or(UNBOUNDED, |lanes| lanes[from as usize].granted())
    }

    /// A session that has ended leaves none behind.
    fn clear(&mut self, key: usize) {
        if let Some(lanes) = self.lanes.get_mut(key) {
            *lanes = Default::default();
        }
    }
}

impl<K: Kernel> Worker<K> {
    /// The session leaves its backend, or ends: what it has taken is paid for.
    pub(super) fn settle_bandwidth(&mut self, key: usize) {
        let party = self.slots[key].party(&self.snapshot);
        if let Some(mut pacing) = self.lanes.pacing(key, party) {
            pacing.end(self.now);
        }
        self.lanes.clear(key);
    }
}
