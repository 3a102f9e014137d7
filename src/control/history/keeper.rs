//! The thread of the history's file: copies from memory what the file lacks, and tries again later
//! when that fails.

use std::time::{Duration, SystemTime};

use crossbeam::channel::{Receiver, RecvTimeoutError};

use super::{KeptFile, Shared};
use crate::admin::model::EventKind;
use crate::control::events::{Events, Severity, Subject};
use crate::history::{self, Keep, Opened, Store, StoreError};
use crate::sys;

/// What the file has, and how it goes on.
struct Keeper<'a> {
    shared: &'a Shared,
    file: &'a KeptFile,
    keep: Keep,
    events: &'a Events,
    store: Option<Store>,
    /// The last second and the last event that it has of this run.
    copied: (Option<u64>, i64),
}

/// Copies until `stop` has no sender left, and once more then.
pub(super) fn run(shared: &Shared, keep: Keep, stop: &Receiver<()>, events: &Events) {
    let Some(file) = &shared.file else {
        return;
    };
    let now = super::ms(SystemTime::now()) / 1_000;
    let mut keeper = Keeper {
        shared,
        file,
        keep,
        events,
        store: None,
        copied: (now.checked_sub(2), 0),
    };
    let mut pause = Duration::ZERO;
    loop {
        let is_end = stop.recv_timeout(pause) == Err(RecvTimeoutError::Disconnected);
        file.state.lock().working_since = Some(sys::monotonic());
        let outcome = keeper.copy(is_end);
        pause = match &outcome {
            Ok(()) => COPY_EVERY,
            Err(_) => (pause * 2).clamp(RETRY_MIN, RETRY_MAX),
        };
        keeper.report(outcome);
        if is_end {
            return;
        }
    }
}

impl Keeper<'_> {
    fn copy(&mut self, is_end: bool) -> Result<(), StoreError> {
        for _ in 0..ROUNDS_MAX {
            let store = match &mut self.store {
                Some(store) => store,
                None => {
                    let Opened { store, set_aside } = history::open(&self.file.path, self.keep)?;
                    if let Some((aside, why)) = set_aside {
                        self.tell_damaged(&aside.display(), &why);
                    }
                    self.store.insert(store)
                }
            };
            let memory = self.shared.memory.lock();
            let rows = memory.rows_after(self.copied, SECONDS_AT_ONCE, is_end)?;
            drop(memory);
            if rows.is_empty() {
                return Ok(());
            }
            match store.add(&rows) {
                Ok(()) => self.copied = (rows.last, rows.last_event),
                // It has removed the oldest.
                Err(StoreError::Bound) => {}
                Err(StoreError::Corrupt(why)) => {
                    self.store = None;
                    let aside = history::set_aside(&self.file.path)?;
                    self.tell_damaged(&aside.display(), &why);
                }
                Err(error) => {
                    // To open it again finds out whether it is still there.
                    self.store = None;
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    fn tell_damaged(&self, aside: &dyn std::fmt::Display, why: &str) {
        let path = self.file.path.display();
        let message = format!("the history {path} is begun again: {why}; it is {aside} now");
        self.tell(Severity::Warn, EventKind::HistoryDamaged, message);
    }

    fn tell(&self, severity: Severity, kind: EventKind, message: String) {
        self.events
            .tell(severity, kind, Subject::default(), message);
    }

    fn report(&self, outcome: Result<(), StoreError>) {
        let error = outcome.err().map(|error| error.to_string());
        let bytes = self.store.as_ref().and_then(|store| store.bytes().ok());
        let mut state = self.file.state.lock();
        state.working_since = None;
        state.is_open = self.store.is_some();
        state.bytes = bytes.unwrap_or(state.bytes);
        let before = std::mem::replace(&mut state.error, error.clone());
        drop(state);
        match (before, error) {
            (None, Some(why)) => {
                let message = self.file.sentence(&why);
                self.tell(Severity::Warn, EventKind::HistoryFailed, message);
            }
            (Some(_), None) => {
                let path = self.file.path.display();
                let message = format!("the history is kept in {path} again");
                self.tell(Severity::Info, EventKind::HistoryRestored, message);
            }
            _ => {}
        }
    }
}

/// How often the file gets what is new: a process that is killed loses this much.
const COPY_EVERY: Duration = Duration::from_secs(2);
/// Between two attempts at a file that failed: ever longer.
const RETRY_MIN: Duration = Duration::from_secs(5);
const RETRY_MAX: Duration = Duration::from_secs(60);
/// Seconds that are copied in one transaction, in so many transactions at a time.
const SECONDS_AT_ONCE: u64 = 60;
const ROUNDS_MAX: usize = 100;
