//! Reports clients beyond limits of new connections, and a full table of sources: at once, and then
//! every ten seconds at most. Workers only count them.

use std::collections::HashMap;

use crate::admin::model::EventKind;
use crate::guard::Refusal;
use crate::snapshot::Snapshot;

use super::events::{Events, Severity, Subject};

/// What was reported.
#[derive(Default)]
pub(super) struct Exceeded {
    /// Refused clients, and those of dry runs, by listener, in the order of [`Refusal::ALL`].
    reported: HashMap<String, Counts>,
    overflowed: u64,
    /// Seconds until the next report may come.
    left: u32,
}

/// By limit: refused clients, and clients that would have been refused.
type Counts = [[u64; 2]; Refusal::ALL.len()];

impl Exceeded {
    /// To be called each second.
    pub(super) fn tick(&mut self, snapshot: &Snapshot, events: &Events) {
        self.left = self.left.saturating_sub(1);
        if self.left > 0 {
            return;
        }
        let mut sentences = Vec::new();
        let mut counts = HashMap::new();
        for listener in &snapshot.listeners {
            let now =
                Refusal::ALL.map(|rule| [listener.gate.refused(rule), listener.gate.dry_run(rule)]);
            let before = self.reported.get(&listener.name);
            if let Some(sentence) = sentence(&now, before.unwrap_or(&NONE)) {
                sentences.push(format!("listener `{}`: {sentence}", listener.name));
            }
            if now != NONE {
                counts.insert(listener.name.clone(), now);
            }
        }
        self.reported = counts;
        let mut tell = |severity, kind, sentence| {
            events.tell(severity, kind, Subject::default(), sentence);
            self.left = PAUSE_SECONDS;
        };
        if let Some(sentence) = joined(sentences) {
            tell(Severity::Info, EventKind::LimitExceeded, sentence);
        }
        let overflowed = snapshot.sources.overflowed();
        if overflowed > self.overflowed {
            let sentence = format!(
                "the table of {} sources is full of those with connections: {} new clients shared \
                 the limits of one source; raise `source_table`",
                snapshot.sources.capacity(),
                overflowed - self.overflowed
            );
            tell(Severity::Warn, EventKind::SourceTableFull, sentence);
            self.overflowed = overflowed;
        }
    }
}

/// The sentences of the first listeners.
fn joined(mut sentences: Vec<String>) -> Option<String> {
    let more = sentences.len().saturating_sub(LISTENERS_MAX);
    sentences.truncate(LISTENERS_MAX);
    let joined = sentences.join("; ");
    match (joined.is_empty(), more) {
        (true, _) => None,
        (false, 0) => Some(joined),
        (false, more) => Some(format!("{joined}; and {more} more listeners")),
    }
}

/// What is new of a listener's counts.
fn sentence(now: &Counts, before: &Counts) -> Option<String> {
    let new = |kind: usize| {
        let counts = Refusal::ALL.iter().zip(now.iter().zip(before));
        let new = counts.map(move |(rule, (now, before))| {
            (rule.as_str(), now[kind].saturating_sub(before[kind]))
        });
        let new = new.filter(|(_, count)| *count > 0);
        let words: Vec<_> = new
            .map(|(rule, count)| format!("{count} by {rule}"))
            .collect();
        words.join(", ")
    };
    match (&*new(0), &*new(1)) {
        ("", "") => None,
        (refused, "") => Some(format!("clients refused: {refused}")),
        ("", dry) => Some(format!("clients that a dry run would refuse: {dry}")),
        (refused, dry) => Some(format!(
            "clients refused: {refused}; that a dry run would refuse: {dry}"
        )),
    }
}

const NONE: Counts = [[0; 2]; Refusal::ALL.len()];
/// From one report to the next.
const PAUSE_SECONDS: u32 = 10;
/// Listeners that a report names.
const LISTENERS_MAX: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_has_what_is_new_by_rule() {
        let before = [[2, 0], [5, 1], [0, 0], [0, 0]];
        assert_eq!(sentence(&before, &before), None);
        let now = [[3, 0], [5, 1], [0, 0], [7, 0]];
        let words = "clients refused: 1 by source_connections, 7 by global_rate";
        assert_eq!(sentence(&now, &before).as_deref(), Some(words));
        let dry = [[2, 0], [5, 3], [0, 0], [0, 0]];
        let words = "clients that a dry run would refuse: 2 by source_rate";
        assert_eq!(sentence(&dry, &before).as_deref(), Some(words));
        let both = [[3, 0], [5, 3], [0, 0], [0, 0]];
        let words = "clients refused: 1 by source_connections; that a dry run would refuse: 2 by \
                     source_rate";
        assert_eq!(sentence(&both, &before).as_deref(), Some(words));
    }

    #[test]
    fn a_report_names_few_listeners() {
        assert_eq!(joined(Vec::new()), None);
        let all: Vec<_> = (0..8).map(|number| number.to_string()).collect();
        let words = "0; 1; 2; 3; 4; and 3 more listeners";
        assert_eq!(joined(all).as_deref(), Some(words));
    }
}
