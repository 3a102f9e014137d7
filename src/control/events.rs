//! Events: written to the operational log and sent to watchers. The last events are kept, so that a
//! watcher that comes late, or reconnects, misses nothing.

mod crowd;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};

use crate::admin::model::{BalancerEvent, EventKind};
use crate::wording::plural;

use crowd::Crowds;

/// Publishes events to the operational log and to all watchers.
#[derive(Clone, Debug)]
pub struct Events(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// Identifies this run of the program: each run numbers its events from 1.
    run: u128,
    recent: Mutex<Recent>,
    live: broadcast::Sender<BalancerEvent>,
    crowds: Crowds,
}

#[derive(Debug, Default)]
struct Recent {
    /// The number of the last event.
    last: u64,
    /// The last events, the oldest first.
    events: VecDeque<BalancerEvent>,
}

/// Where a watcher begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// At so many of the last events.
    Recent(u32),
    /// After the event of this number.
    Number(u64),
}

/// A watcher's stream of events.
#[derive(Debug)]
pub struct EventWatch {
    /// Events before the watch began, which come first.
    replay: VecDeque<BalancerEvent>,
    live: broadcast::Receiver<BalancerEvent>,
    /// The number of the last event that came out, or was missed.
    last: u64,
}

/// How an event is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Severity {
    /// Not at all: the log has it already.
    Quiet,
    /// At level info.
    Info,
    /// At level warn: an operator should look.
    Warn,
}

/// What an event is about.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Subject<'a> {
    pub(super) pool: Option<&'a str>,
    pub(super) backend: Option<&'a str>,
}

impl<'a> Subject<'a> {
    pub(super) fn pool(pool: &'a str) -> Self {
        Self {
            pool: Some(pool),
            backend: None,
        }
    }

    pub(super) fn backend(pool: &'a str, backend: &'a str) -> Self {
        Self {
            pool: Some(pool),
            backend: Some(backend),
        }
    }
}

impl Events {
    pub(crate) fn new() -> Self {
        let started = SystemTime::now().duration_since(UNIX_EPOCH);
        Self(Arc::new(Shared {
            run: started.unwrap_or_default().as_millis(),
            recent: Mutex::default(),
            live: broadcast::channel(BEHIND).0,
            crowds: Crowds::default(),
        }))
    }

    /// Logs an event and sends it to all watchers. `kind` is for programs, `message` is a sentence
    /// for people.
    pub(super) fn tell(
        &self,
        severity: Severity,
        kind: EventKind,
        about: Subject<'_>,
        message: String,
    ) {
        match severity {
            Severity::Quiet => {}
            Severity::Info => log::info!("{message}"),
            Severity::Warn => log::warn!("{message}"),
        }
        self.push(BalancerEvent {
            kind,
            pool: about.pool.map(str::to_owned),
            backend: about.backend.map(str::to_owned),
            message,
            ..BalancerEvent::default()
        });
    }

    /// Sends an event to all watchers. Sets its number and time.
    pub fn push(&self, mut event: BalancerEvent) {
        let mut recent = self.0.recent.lock();
        recent.last += 1;
        event.number = recent.last;
        event.at = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
        if recent.events.len() == KEPT {
            recent.events.pop_front();
        }
        recent.events.push_back(event.clone());
        // Under the lock, so that a new watcher gets each event once. There may be no watcher.
        let _ = self.0.live.send(event);
    }

    /// Begins to watch.
    #[must_use]
    pub fn watch(&self, since: Since) -> EventWatch {
        let recent = self.0.recent.lock();
        let after = match since {
            Since::Recent(count) => recent.last.saturating_sub(u64::from(count)),
            Since::Number(number) => number.min(recent.last),
        };
        let replay = recent.events.iter().filter(|event| event.number > after);
        let mut replay: VecDeque<BalancerEvent> = replay.cloned().collect();
        let first = replay.front().map_or(recent.last + 1, |event| event.number);
        let gap = first - 1 - after;
        // To ask for more events than are kept is no mistake. A watcher that reconnects relies on
        // missing nothing, so it learns of the gap.
        if gap > 0 && matches!(since, Since::Number(_)) {
            replay.push_front(missed(gap, first - 1));
        }
        EventWatch {
            replay,
            live: self.0.live.subscribe(),
            last: after,
        }
    }

    /// The id of an event, which a watcher that reconnects sends.
    pub(crate) fn id(&self, event: &BalancerEvent) -> String {
        format!("{}-{}", self.0.run, event.number)
    }

    /// Where a watcher that reconnects with this id begins. One with an id of another run gets all
    /// events that are kept.
    pub(crate) fn since(&self, id: &str) -> Since {
        let parts = id.split_once('-');
        let number = parts.and_then(|(run, number)| {
            let ours = run.parse() == Ok(self.0.run);
            number.parse().ok().filter(|_| ours)
        });
        Since::Number(number.unwrap_or(0))
    }
}

impl EventWatch {
    /// The next event, or how many this watcher missed because it was too slow. The future can be
    /// dropped without loss.
    pub async fn next(&mut self) -> Option<BalancerEvent> {
        if let Some(event) = self.replay.pop_front() {
            self.last = event.number;
            return Some(event);
        }
        let event = match self.live.recv().await {
            Ok(event) => event,
            Err(RecvError::Lagged(count)) => missed(count, self.last + count),
            Err(RecvError::Closed) => return None,
        };
        self.last = event.number;
        Some(event)
    }
}

impl EventWatch {
    /// The next event that is there already, as [`Self::next`] gives it.
    pub(super) fn try_next(&mut self) -> Option<BalancerEvent> {
        let event = match self.replay.pop_front() {
            Some(event) => event,
            None => match self.live.try_recv() {
                Ok(event) => event,
                Err(TryRecvError::Lagged(count)) => missed(count, self.last + count),
                Err(TryRecvError::Empty | TryRecvError::Closed) => return None,
            },
        };
        self.last = event.number;
        Some(event)
    }
}

fn missed(count: u64, last: u64) -> BalancerEvent {
    BalancerEvent {
        number: last,
        at: humantime::format_rfc3339_millis(SystemTime::now()).to_string(),
        kind: EventKind::Missed,
        message: format!("{} missed", plural(count, "event")),
        ..BalancerEvent::default()
    }
}

/// Events that wait for a slow watcher; it misses more.
const BEHIND: usize = 1_024;
/// Events that are kept.
const KEPT: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> BalancerEvent {
        BalancerEvent {
            kind: EventKind::Changed,
            ..BalancerEvent::default()
        }
    }

    fn events(count: usize) -> Events {
        let events = Events::new();
        for _ in 0..count {
            events.push(event());
        }
        events
    }

    /// Number and kind of the events that come without waiting.
    async fn numbers(watch: &mut EventWatch) -> Vec<(u64, EventKind)> {
        let mut all = Vec::new();
        while let Ok(Some(event)) =
            tokio::time::timeout(std::time::Duration::ZERO, watch.next()).await
        {
            all.push((event.number, event.kind));
        }
        all
    }

    fn plain(range: std::ops::RangeInclusive<u64>) -> Vec<(u64, EventKind)> {
        range.map(|number| (number, EventKind::Changed)).collect()
    }

    #[tokio::test]
    async fn recent_events_come_first() {
        let events = events(5);
        let mut watch = events.watch(Since::Recent(2));
        events.push(event());
        assert_eq!(numbers(&mut watch).await, plain(4..=6));
        let mut watch = events.watch(Since::Recent(1_000));
        assert_eq!(numbers(&mut watch).await, plain(1..=6));
        assert!(
            numbers(&mut events.watch(Since::Recent(0)))
                .await
                .is_empty()
        );
    }

    #[tokio::test]
    async fn a_watcher_that_reconnects_continues() {
        let events = events(5);
        let id = events.id(&BalancerEvent {
            number: 3,
            ..BalancerEvent::default()
        });
        assert_eq!(
            numbers(&mut events.watch(events.since(&id))).await,
            plain(4..=5)
        );
        // An id of another run, or no id: all that are kept.
        for id in ["1-3", "x", ""] {
            assert_eq!(
                numbers(&mut events.watch(events.since(id))).await,
                plain(1..=5)
            );
        }
        // A number that is still to come is no gap.
        let id = events.id(&BalancerEvent {
            number: 9,
            ..BalancerEvent::default()
        });
        assert!(
            numbers(&mut events.watch(events.since(&id)))
                .await
                .is_empty()
        );
    }

    #[tokio::test]
    async fn a_watcher_that_reconnects_late_learns_how_many_it_missed() {
        let events = events(KEPT + 10);
        let all = numbers(&mut events.watch(Since::Number(4))).await;
        assert_eq!(all[0], (10, EventKind::Missed));
        assert_eq!(all[1..], plain(11..=KEPT as u64 + 10));
    }

    #[tokio::test]
    async fn a_slow_watcher_learns_how_many_it_missed() {
        let events = events(1);
        let mut watch = events.watch(Since::Recent(0));
        for _ in 0..BEHIND + 7 {
            events.push(event());
        }
        let first = watch.next().await.unwrap();
        assert_eq!((first.number, first.kind), (8, EventKind::Missed));
        assert_eq!(first.message, "7 events missed");
        assert_eq!(watch.next().await.unwrap().number, 9);
    }
}
