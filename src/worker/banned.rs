//! Has clients banned that break rules, and closes the open sessions of clients that are banned.
//!
//! No order names them. A worker that sees that bans were added looks through its sessions, some in
//! each turn, and asks the ban table about each. So however many bans come, and however busy the
//! worker is, none is lost, and all that come during a look are done by the next one.

use std::net::SocketAddr;

use crate::kernel::{Kernel, Sleeper};
use crate::session::{CloseReason, SessionState};
use crate::snapshot::LiveListener;
use crate::time::NEVER;

use super::Worker;

/// How far a worker has looked for sessions of banned clients. Times are ns of its clock.
#[derive(Debug, Default)]
pub(super) struct BanSweep {
    /// The sessions of all bans up to this one are closed, by [`Bans::added`].
    ///
    /// [`Bans::added`]: crate::guard::Bans::added
    done: u64,
    running: Option<Running>,
    /// When the next look may begin.
    resume_at: u64,
}

#[derive(Clone, Copy, Debug)]
struct Running {
    /// The last ban that this look is about.
    added: u64,
    /// The slot to go on with.
    next: usize,
    /// How long it has taken.
    took: u64,
}

impl BanSweep {
    /// When there is something to do; `added` is how many bans there have been.
    pub(super) fn due(&self, now: u64, added: u64) -> u64 {
        match self.running {
            Some(_) => now,
            None if added != self.done => self.resume_at,
            None => NEVER,
        }
    }
}

impl<K: Kernel> Worker<K> {
    /// Looks through some sessions if bans were added since the last look.
    pub(super) fn sweep_banned(&mut self) {
        let added = self.snapshot.bans.added();
        if self.ban_sweep.due(self.now, added) > self.now {
            return;
        }
        let began = self.kernel.now();
        let first = Running {
            added,
            next: 0,
            took: 0,
        };
        let mut running = self.ban_sweep.running.take().unwrap_or(first);
        if running.next == 0 {
            self.refuse_banned_parked();
        }
        let end = self.slots.capacity().min(running.next + SLOTS_AT_ONCE);
        for key in running.next..end {
            self.close_if_banned(key);
        }
        let now = self.kernel.now();
        running.took += now.saturating_sub(began);
        running.next = end;
        if end < self.slots.capacity() && !self.snapshot.bans.is_empty() {
            self.ban_sweep.running = Some(running);
        } else {
            self.ban_sweep.done = running.added;
            self.ban_sweep.resume_at = now.saturating_add(PAUSE_FACTOR * running.took);
        }
    }

    /// Counts what a client did, if it is an offence for which its listener bans.
    pub(super) fn note_offence(
        &self,
        listener: &LiveListener,
        client: Option<SocketAddr>,
        reason: CloseReason,
    ) {
        let Some((rule, client)) = listener.ban.as_ref().zip(client) else {
            return;
        };
        let (ip, snapshot) = (client.ip(), &self.snapshot);
        if !reason.is_offence() || snapshot.trusted.contains(ip) {
            return;
        }
        if snapshot.bans.offend(ip, rule, reason.as_str(), self.now) {
            // It reports the ban, and wakes the other workers.
            self.kernel.wake(Sleeper::Control);
        }
    }

    fn close_if_banned(&mut self, key: usize) {
        let Some(slot) = self.slots.get(key) else {
            return;
        };
        if slot.session.view().state == SessionState::Closing {
            return;
        }
        self.learn_peer(key);
        let slot = &self.slots[key];
        // A proxy's own connection is no client's.
        let peer = slot.peer.filter(|_| !slot.is_own());
        if peer.is_some_and(|peer| self.snapshot.is_banned(peer.ip(), self.now)) {
            self.with_session(key, |session, cx| session.close(CloseReason::Banned, cx));
        }
    }
}

/// Sessions that are looked at in a turn: others are not to wait for all of them.
const SLOTS_AT_ONCE: usize = 1_024;
/// A look pauses for so many times as long as it took: bans that come all the time cost a
/// twentieth of a worker.
const PAUSE_FACTOR: u64 = 19;
