//! Has the ban table follow a list, on another thread: after a change of the list or of what is
//! trusted, and where a ban of another origin has ended.

use std::sync::Arc;

use tokio::sync::oneshot::{self, error::TryRecvError};

use crate::control::aside;
use crate::guard::{Ban, ImportOutcome, ImportedBans, Trusted};
use crate::prefix::Prefix;
use crate::snapshot::Snapshot;
use crate::sys;

/// A list that the ban table follows.
#[derive(Default)]
pub(super) struct FollowedList {
    list: Arc<ImportedBans>,
    /// Lists that were replaced: to free them may take long.
    replaced: Vec<Arc<ImportedBans>>,
    trusted: Arc<Trusted>,
    running: Option<Running>,
    /// The table is to follow.
    is_due: bool,
    /// But not before this time, in ns of the workers' clock.
    resume_at: u64,
    last: ImportOutcome,
    /// How often the table had changed when it last had no room.
    full_at: Option<u64>,
}

/// The outcome of another thread, and how many ns it took.
type Running = oneshot::Receiver<(ImportOutcome, u64)>;

impl FollowedList {
    pub(super) fn list(&self) -> &Arc<ImportedBans> {
        &self.list
    }

    /// What is in force of it, and what changed last.
    pub(super) fn last(&self) -> ImportOutcome {
        self.last
    }

    /// The table is to follow this list.
    pub(super) fn set(&mut self, list: Arc<ImportedBans>) {
        let old = std::mem::replace(&mut self.list, list);
        self.replaced.push(old);
        self.is_due = true;
    }

    /// Lets go of lists that are no longer used.
    pub(super) fn retire(&mut self, lists: impl IntoIterator<Item = Arc<ImportedBans>>) {
        self.replaced.extend(lists);
    }

    pub(super) fn has(&self, prefix: Prefix) -> bool {
        self.list.contains(prefix)
    }

    /// These bans have ended, or were lifted: the list may have them too.
    pub(super) fn on_ended(&mut self, ended: &[Arc<Ban>]) {
        self.is_due |= ended.iter().any(|ban| self.list.contains(ban.prefix));
    }

    /// The table is to follow once more, as bans were lifted.
    pub(super) fn set_due(&mut self) {
        self.is_due |= !self.list.is_empty();
    }

    /// To be called each second. Answers with what was in force before and is now, once the table
    /// has followed.
    pub(super) fn tick(&mut self, snapshot: &Snapshot) -> Option<[ImportOutcome; 2]> {
        let mut outcome = None;
        if let Some(running) = &mut self.running {
            match running.try_recv() {
                Err(TryRecvError::Empty) => return None,
                Ok((now, took)) => {
                    let pause = PAUSE_FACTOR.saturating_mul(took);
                    self.resume_at = sys::monotonic().saturating_add(pause);
                    let before = std::mem::replace(&mut self.last, now);
                    self.full_at = (now.no_room > 0).then(|| snapshot.bans.changes());
                    outcome = Some([before, now]);
                }
                // No thread could be made: it is tried again.
                Err(TryRecvError::Closed) => self.is_due = true,
            }
            self.running = None;
        }
        let has_room = self.full_at.is_some_and(|at| at != snapshot.bans.changes());
        let is_trusted_new = !Arc::ptr_eq(&self.trusted, &snapshot.trusted);
        self.is_due |= !self.list.is_empty() && (has_room || is_trusted_new);
        self.run(snapshot);
        outcome
    }

    /// Has another thread change the table if that is due, one at a time.
    pub(super) fn run(&mut self, snapshot: &Snapshot) {
        if !self.is_due || self.running.is_some() || sys::monotonic() < self.resume_at {
            return;
        }
        self.is_due = false;
        self.trusted = Arc::clone(&snapshot.trusted);
        let (list, trusted) = (Arc::clone(&self.list), Arc::clone(&self.trusted));
        let bans = Arc::clone(&snapshot.bans);
        let replaced = std::mem::take(&mut self.replaced);
        self.running = Some(aside::compute(move || {
            drop(replaced);
            let began = sys::monotonic();
            let outcome = bans.import(&list, &trusted, began);
            (outcome, sys::monotonic() - began)
        }));
    }
}

/// After the table has followed, that takes a pause so many times as long: a list that changes all
/// the time costs a twentieth of a CPU.
const PAUSE_FACTOR: u64 = 19;
