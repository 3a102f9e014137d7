//! What the end of a session leaves: its times, and what it shows of its backend.

use crate::kernel::Kernel;
use crate::pool::{Backend, Ended};
use crate::session::{CloseReason, Summary, Unanswered};
use crate::time::US;
use crate::token::Side;

use super::Worker;
use super::slot::Slot;
use super::tls_outcomes::count_failure;

impl<K: Kernel> Worker<K> {
    pub(super) fn measure(&mut self, slot: &Slot, summary: &Summary) {
        let took = self.now.saturating_sub(summary.opened_at);
        self.stats.latencies.session.record(took);
        slot.listener.gate.times.session.record(took);
        if let Some(backend) = slot.backend() {
            backend.record(|times| &times.session, took);
        }
        let [up, down] = summary.delivered;
        self.recorded.session.record(took / US);
        self.recorded.bytes_up.record(up);
        self.recorded.bytes_down.record(down);
    }

    /// What exactly a session ended by, where its reason leaves that open.
    #[inline]
    pub(super) fn cause_of(&self, slot: &Slot, reason: CloseReason) -> Option<String> {
        match is_explained(reason) {
            true => None,
            false => self.cause(slot, reason),
        }
    }

    #[cold]
    fn cause(&self, slot: &Slot, reason: CloseReason) -> Option<String> {
        if reason == CloseReason::NotTransparent {
            let client = slot.origin_client();
            let is_own = client.address.is_some_and(|ip| self.kernel.has_address(ip));
            return Some(client.misfit(is_own));
        }
        let side = match reason == CloseReason::TlsFailed {
            true => Side::Client,
            false => Side::Backend,
        };
        let failure = slot.tls(side).and_then(|tls| tls.failure.as_ref());
        let left = || (side == Side::Client).then(|| LEFT.to_owned());
        failure.map(|failure| failure.why.clone()).or_else(left)
    }

    /// Takes note of an end that may show a limit as wrong, or that TLS has failed.
    pub(super) fn note_end(&self, slot: &Slot, reason: CloseReason) {
        self.note_regret(slot, reason);
        count_failure(slot, reason);
    }
}

/// Whether a reason says all that is known.
fn is_explained(reason: CloseReason) -> bool {
    let open = [
        CloseReason::TlsFailed,
        CloseReason::BackendTlsFailed,
        CloseReason::NotTransparent,
    ];
    !open.contains(&reason)
}

impl Slot {
    /// Whether this end is an offence of its client. A proxy's own connection is no client's.
    pub(super) fn offends_by(&self, reason: CloseReason) -> bool {
        reason == CloseReason::FirstBytesTimeout && self.listener.ban.is_some() && !self.is_own()
    }
}

/// Gives the place of an ended session at its backend back, and counts what the session shows of
/// the backend. Returns whether that ejected the backend or readmitted it.
pub(super) fn release_backend(
    backend: &Backend,
    reason: CloseReason,
    summary: &Summary,
    on_trial: bool,
) -> bool {
    let mut moved = false;
    match summary.fault {
        Some(Unanswered::Failed) => moved = backend.on_failed(),
        Some(Unanswered::Unclear) => backend.tally.on_unanswered(),
        None if reason.is_orderly() && summary.delivered[0] > 0 => {
            // A backend that never sends anything is sound too.
            backend.tally.on_sound();
            moved = on_trial && backend.on_trial_passed();
        }
        None => {}
    }
    backend.release(Ended {
        waiting: summary.awaits_answer,
        in_use: summary.in_use,
        bytes: summary.delivered[0] + summary.delivered[1],
    });
    moved
}

/// What a handshake ended by in which nothing failed.
pub const LEFT: &str = "the client closed the connection in the handshake";
