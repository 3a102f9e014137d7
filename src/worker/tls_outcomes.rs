//! How TLS begins and what becomes of it: handshakes that are done or fail are counted, and ends
//! are told that no more comes.

use crate::kernel::{Kernel, Manner};
use crate::session::CloseReason;
use crate::time::US;
use crate::tls::{FailureKind, PostgresRecords, TlsStanding};
use crate::token::Side;

use super::slot::Slot;
use super::tls::{SlotTls, TlsEnd};
use super::{Worker, handshakes};

impl<K: Kernel> Worker<K> {
    /// The TLS of a client that comes, where it ends at its port.
    pub(super) fn tls_of_client(&self, port: usize) -> Option<Box<SlotTls>> {
        let listener = &self.ports[port].listener;
        let records = listener.tls.as_ref()?.begins.begin();
        let records = match listener.postgres.ends_tls {
            true => Box::new(PostgresRecords::new(records)),
            false => records,
        };
        let end = TlsEnd::of_client(records, self.now);
        Some(Box::new(SlotTls::of_client(end)))
    }

    /// A session with TLS ends.
    #[cold]
    pub(super) fn end_tls(&mut self, slot: &mut Slot) {
        handshakes::end(&mut self.ports[slot.port], slot);
        self.say_ends(slot);
    }

    /// Tells those ends of a session that end in order that no more comes, unless they were told:
    /// as where a time is over.
    fn say_ends(&mut self, slot: &mut Slot) {
        for side in Side::BOTH {
            let manner = match side {
                Side::Client => slot.session.manner(),
                Side::Backend => slot.session.backend_manner(),
            };
            let can = manner == Manner::Graceful && !slot.session.is_past_telling(side);
            let is_there = side == Side::Client || slot.backend.is_some();
            let Some(tls) = slot.tls_mut(side).filter(|_| can && is_there) else {
                continue;
            };
            if tls.failure.is_none() && tls.standing != TlsStanding::Handshake {
                let mut notice = Vec::new();
                tls.records.close(&mut tls.incoming, &mut notice);
                self.kernel.say(slot.socket(side), &notice);
            }
        }
    }
}

/// Takes note of a handshake that is done.
pub(super) fn count_handshake(slot: &mut Slot, side: Side, now: u64) {
    let Some(tls) = slot.tls_mut(side) else {
        return;
    };
    let took = now.saturating_sub(tls.began_at);
    tls.took_us = u32::try_from(took / US).unwrap_or(u32::MAX).max(1);
    // A request to cancel may come without TLS.
    if let (Some(tls), Some(counts)) = (slot.tls(side), slot.tls_counts(side))
        && tls.records.agreed().version.is_some()
    {
        counts.on_established(&tls.records.agreed(), took);
    }
}

/// Counts a session whose TLS has failed: by what its records show, or by how it ended. Handshakes
/// with backends that fail are counted as they do.
pub(super) fn count_failure(slot: &Slot, reason: CloseReason) {
    let known = [
        (
            CloseReason::TlsFailed,
            Side::Client,
            Some(FailureKind::Left),
        ),
        (
            CloseReason::TlsTimeout,
            Side::Client,
            Some(FailureKind::Late),
        ),
        (CloseReason::BackendTlsFailed, Side::Backend, None),
    ];
    let Some((_, side, otherwise)) = known.into_iter().find(|its| its.0 == reason) else {
        return;
    };
    let failure = slot.tls(side).and_then(|tls| tls.failure.as_ref());
    if let (Side::Backend, Some(failure), Some(backend)) = (side, failure, &slot.target) {
        if let Some(tls) = &slot.plan().pool().tls {
            tls.on_failed((&backend.name, &backend.address), failure);
        }
        return;
    }
    let kind = failure.map(|failure| failure.kind).or(otherwise);
    if let (Some(kind), Some(counts)) = (kind, slot.tls_counts(side)) {
        counts.on_failed(kind);
    }
}
