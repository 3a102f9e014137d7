//! Reports refused clients: at once, and then every ten seconds at most. Workers only count them.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::Ordering;

use crate::admin::model::EventKind;
use crate::snapshot::Snapshot;

use super::events::{Events, Severity, Subject};

/// The refused clients that were reported.
#[derive(Default)]
pub(super) struct Refusals {
    /// By what refused them.
    reported: HashMap<Refuser, u64>,
    /// Seconds until the next report may come.
    left: u32,
}

/// What refuses clients: a listener, or an access list in a dry run.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Refuser {
    Listener(String),
    DryRun(String),
}

/// How many clients were refused, and how many of them since the last report.
struct Count {
    by: Refuser,
    all: u64,
    new: u64,
}

impl Refusals {
    /// To be called each second.
    pub(super) fn tick(&mut self, snapshot: &Snapshot, events: &Events) {
        self.left = self.left.saturating_sub(1);
        if self.left > 0 {
            return;
        }
        let counts: Vec<_> = self.counts(snapshot).collect();
        let (dry, refused): (Vec<_>, Vec<_>) = counts
            .iter()
            .partition(|count| matches!(count.by, Refuser::DryRun(_)));
        for counts in [refused, dry] {
            if let Some(sentence) = sentence(&counts) {
                let about = Subject::default();
                events.tell(Severity::Info, EventKind::AccessDenied, about, sentence);
                self.left = PAUSE_SECONDS;
            }
        }
        let counts = counts.into_iter().map(|count| (count.by, count.all));
        self.reported = counts.collect();
    }

    fn counts(&self, snapshot: &Snapshot) -> impl Iterator<Item = Count> {
        let listeners = snapshot.listeners.iter().map(|listener| {
            let refused = listener.refused.load(Ordering::Relaxed);
            (Refuser::Listener(listener.name.clone()), refused)
        });
        let lists = snapshot.access.values().filter(|list| list.dry_run);
        // Several listeners may have one list.
        let lists: BTreeMap<_, _> = lists.map(|list| (&list.name, list)).collect();
        let lists = lists.into_iter().map(|(name, list)| {
            let refused = list.refused.load(Ordering::Relaxed);
            (Refuser::DryRun(name.clone()), refused)
        });
        let counts = listeners.chain(lists).filter(|(_, all)| *all > 0);
        counts.map(|(by, all)| {
            let before = self.reported.get(&by).copied().unwrap_or(0);
            let new = all.saturating_sub(before);
            Count { by, all, new }
        })
    }
}

/// How many clients were refused since the last report, if any.
fn sentence(counts: &[&Count]) -> Option<String> {
    let new = counts.iter().filter(|count| count.new > 0);
    let first = new.clone().max_by_key(|count| count.new)?;
    let others = match new.clone().count() - 1 {
        0 => String::new(),
        others => format!(" and {others} more"),
    };
    let more: u64 = new.clone().map(|count| count.new).sum();
    let all: u64 = new.map(|count| count.all).sum();
    let clients = if more == 1 { "client" } else { "clients" };
    Some(match &first.by {
        Refuser::Listener(name) => format!(
            "listener `{name}`{others}: {more} {clients} refused by access list, {all} in all"
        ),
        Refuser::DryRun(name) => format!(
            "access list `{name}`{others}: {more} {clients} would be refused (dry_run), {all} in \
             all"
        ),
    })
}

/// From one report to the next.
const PAUSE_SECONDS: u32 = 10;
