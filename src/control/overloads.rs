//! Reports workers that can't keep up with new clients, or have no memory for them: as an alert
//! while it lasts, and as an event at once and then every ten seconds at most. Workers only count
//! the clients.

use std::sync::Arc;

use crate::admin::model::EventKind;
use crate::session::CloseReason;
use crate::worker::Stats;

use super::events::{Events, Severity, Subject};

/// Clients that were refused because their worker was overloaded, or had no memory.
#[derive(Default)]
pub(super) struct Overloads {
    /// Those so far, and those that a dry run would have refused, at the last call.
    seen: Counts,
    /// The same at the last event.
    reported: Counts,
    /// Seconds until the next event may come.
    left: u32,
    /// What is so now, for people.
    now: Option<String>,
}

/// Refused clients, and those that a dry run would have refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    refused: u64,
    memory: u64,
    dry_run: u64,
}

impl Overloads {
    /// To be called each second.
    pub(super) fn tick(&mut self, stats: &[Arc<Stats>], events: &Events) {
        let sum = |count: fn(&Stats) -> u64| stats.iter().map(|its| count(its)).sum();
        self.update(Counts {
            refused: sum(|its| its.closed[CloseReason::Overloaded as usize].get()),
            memory: sum(|its| its.closed[CloseReason::MemoryFull as usize].get()),
            dry_run: sum(|its| its.overloaded_dry_run.get()),
        });
        if let Some(sentence) = self.due() {
            events.tell(
                Severity::Warn,
                EventKind::Overloaded,
                Subject::default(),
                sentence,
            );
        }
    }

    /// What is so now, for people.
    pub(super) fn now(&self) -> Option<&String> {
        self.now.as_ref()
    }

    fn update(&mut self, counts: Counts) {
        let before = std::mem::replace(&mut self.seen, counts);
        self.now = sentence(counts, before, "in the last second");
        self.left = self.left.saturating_sub(1);
    }

    /// The sentence of an event that is due.
    fn due(&mut self) -> Option<String> {
        if self.left > 0 {
            return None;
        }
        let sentence = sentence(self.seen, self.reported, "since the last such event")?;
        self.reported = self.seen;
        self.left = PAUSE_SECONDS;
        Some(sentence)
    }
}

fn sentence(now: Counts, before: Counts, when: &str) -> Option<String> {
    let refused = now.refused.saturating_sub(before.refused);
    let memory = now.memory.saturating_sub(before.memory);
    let dry_run = now.dry_run.saturating_sub(before.dry_run);
    let late = |count, were| {
        format!(
            "{count} new clients {were} {when}, as they waited for a worker for too long; \
             sessions that are open come first; {MORE_CPUS}"
        )
    };
    let full = || {
        format!(
            "{memory} new clients were refused {when}, as clients that read or send slowly have \
             used up the memory for their bytes; {MORE_MEMORY}"
        )
    };
    let why = match (refused, memory, dry_run) {
        (0, 0, 0) => return None,
        (0, 0, dry_run) => late(dry_run, "would have been refused (dry_run)"),
        (refused, 0, _) => late(refused, "were refused"),
        (0, ..) => full(),
        (refused, ..) => format!("{}; {}", late(refused, "were refused"), full()),
    };
    Some(format!("overloaded: {why}"))
}

/// What helps.
const MORE_CPUS: &str = "add CPUs and workers, or another balancer";
const MORE_MEMORY: &str = "raise `memory`, or limit what one source may take (`source_limits`)";
/// From one event to the next.
const PAUSE_SECONDS: u32 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(refused: u64, dry_run: u64) -> Counts {
        Counts {
            refused,
            dry_run,
            ..Counts::default()
        }
    }

    #[test]
    fn an_event_comes_at_once_and_then_has_the_sum_of_ten_seconds() {
        let mut overloads = Overloads::default();
        overloads.update(counts(0, 0));
        assert_eq!(overloads.now(), None);
        assert_eq!(overloads.due(), None);
        overloads.update(counts(3, 0));
        let now = overloads.now().expect("it is overloaded");
        assert!(now.starts_with("overloaded: 3 new clients were refused in the last second, "));
        assert!(overloads.due().is_some());
        for second in 1..10 {
            overloads.update(counts(3 + second, 0));
            assert!(overloads.due().is_none(), "{second}");
        }
        overloads.update(counts(12, 0));
        assert_eq!(overloads.now(), None);
        let sum = overloads.due().expect("ten seconds are over");
        assert!(sum.starts_with("overloaded: 9 new clients were refused since the last such"));
    }

    #[test]
    fn a_dry_run_is_reported_as_one() {
        let mut overloads = Overloads::default();
        overloads.update(counts(0, 2));
        let sentence = overloads.due().expect("an event");
        assert!(sentence.contains("2 new clients would have been refused (dry_run)"));
    }

    #[test]
    fn memory_that_is_used_up_is_reported_apart() {
        let mut overloads = Overloads::default();
        let memory = Counts {
            memory: 7,
            ..Counts::default()
        };
        overloads.update(memory);
        let sentence = overloads.due().expect("an event");
        assert!(sentence.starts_with("overloaded: 7 new clients were refused since the last"));
        assert!(sentence.contains("used up the memory") && !sentence.contains("CPUs"));
        overloads.update(Counts {
            refused: 3,
            memory: 9,
            dry_run: 0,
        });
        let now = overloads.now().expect("it is overloaded");
        assert!(
            now.contains("3 new clients") && now.contains("2 new clients"),
            "{now}"
        );
    }
}
