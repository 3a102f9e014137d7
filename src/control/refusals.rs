//! Reports refused clients: at once, and then every ten seconds at most. Workers only count them.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::admin::model::EventKind;
use crate::snapshot::{Listener, Snapshot};

use super::events::{Events, Severity, Subject};

/// The refused clients that were reported.
#[derive(Default)]
pub(super) struct Refusals {
    /// By the name of their listener.
    reported: HashMap<String, u64>,
    /// Seconds until the next report may come.
    left: u32,
}

impl Refusals {
    /// To be called each second.
    pub(super) fn tick(&mut self, snapshot: &Snapshot, events: &Events) {
        self.left = self.left.saturating_sub(1);
        if self.left > 0 {
            return;
        }
        let counts = snapshot.listeners.iter().filter_map(|listener| {
            let count = listener.refused.load(Ordering::Relaxed);
            let before = self.reported.get(&listener.name).copied().unwrap_or(0);
            (count > 0).then(|| (listener, count, count.saturating_sub(before)))
        });
        let counts: Vec<_> = counts.collect();
        if let Some(sentence) = sentence(&counts) {
            let about = Subject::default();
            events.tell(Severity::Info, EventKind::AccessDenied, about, sentence);
            self.left = PAUSE_SECONDS;
        }
        let counts = counts.into_iter();
        self.reported = counts
            .map(|(listener, count, _)| (listener.name.clone(), count))
            .collect();
    }
}

/// How many clients were refused since the last report, if any.
fn sentence(counts: &[(&Arc<Listener>, u64, u64)]) -> Option<String> {
    let new = counts.iter().filter(|(_, _, more)| *more > 0);
    let (first, ..) = new.clone().max_by_key(|(_, _, more)| *more)?;
    let others = match new.clone().count() - 1 {
        0 => String::new(),
        others => format!(" and {others} more"),
    };
    let more: u64 = new.clone().map(|(_, _, more)| more).sum();
    let all: u64 = new.map(|(_, count, _)| count).sum();
    let clients = if more == 1 { "client" } else { "clients" };
    Some(format!(
        "listener `{}`{others}: {more} {clients} refused by access list, {all} in all",
        first.name
    ))
}

/// From one report to the next.
const PAUSE_SECONDS: u32 = 10;
