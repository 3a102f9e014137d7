//! What happens: told to the operational log and to those who watch. The last events are kept, so
//! that a watcher who comes late, or comes back, misses nothing.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use crate::admin::model::{Event, EventKind};

/// Publishes events to the operational log and to all watchers.
#[derive(Clone, Debug)]
pub struct Events(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// Tells the numbers of this run of the program from those of others.
    run: u128,
    past: Mutex<Past>,
    live: broadcast::Sender<Event>,
}

#[derive(Debug, Default)]
struct Past {
    /// The number of the last event.
    last: u64,
    /// The last events, the oldest first.
    events: VecDeque<Event>,
}

/// Where a watcher begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// The last so many of those that are kept.
    Recent(u32),
    /// Those after this number.
    Number(u64),
}

/// A watcher's view of the events.
#[derive(Debug)]
pub struct Watch {
    past: VecDeque<Event>,
    live: broadcast::Receiver<Event>,
    /// The number up to which all was told, or missed.
    last: u64,
}

/// How an event is told in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Weight {
    /// Not at all: the log has it already.
    Quiet,
    /// As it should be.
    Info,
    /// Somebody should look.
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
            past: Mutex::default(),
            live: broadcast::channel(BEHIND).0,
        }))
    }

    /// Tells the log and all who watch. `kind` is for programs, `message` a sentence for people.
    pub(super) fn tell(
        &self,
        weight: Weight,
        kind: EventKind,
        about: Subject<'_>,
        message: String,
    ) {
        match weight {
            Weight::Quiet => {}
            Weight::Info => log::info!("{message}"),
            Weight::Warn => log::warn!("{message}"),
        }
        self.push(Event {
            kind,
            pool: about.pool.map(str::to_owned),
            backend: about.backend.map(str::to_owned),
            message,
            ..Event::default()
        });
    }

    /// Tells all who watch. Number and time are set here.
    pub fn push(&self, mut event: Event) {
        let mut past = self.0.past.lock();
        past.last += 1;
        event.number = past.last;
        event.at = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
        if past.events.len() == REMEMBERED {
            past.events.pop_front();
        }
        past.events.push_back(event.clone());
        // Under the lock, so that a new watcher gets each event once. There may be no watcher.
        let _ = self.0.live.send(event);
    }

    /// Begins to watch.
    #[must_use]
    pub fn watch(&self, since: Since) -> Watch {
        let past = self.0.past.lock();
        let after = match since {
            Since::Recent(count) => past.last.saturating_sub(u64::from(count)),
            Since::Number(number) => number.min(past.last),
        };
        let told = past.events.iter().filter(|event| event.number > after);
        let mut told: VecDeque<Event> = told.cloned().collect();
        let first = told.front().map_or(past.last + 1, |event| event.number);
        let gap = first - 1 - after;
        // Who asks for the last 1000 of 3 or for more than are remembered knows no better; who
        // comes back was told that he will miss nothing.
        if gap > 0 && matches!(since, Since::Number(_)) {
            told.push_front(missed(gap, first - 1));
        }
        Watch {
            past: told,
            live: self.0.live.subscribe(),
            last: after,
        }
    }

    /// The id of an event, by which a watcher that comes back goes on.
    pub(crate) fn id(&self, event: &Event) -> String {
        format!("{}-{}", self.0.run, event.number)
    }

    /// From where on a watcher goes on who comes back with an id. One of another run has seen
    /// nothing of this one.
    pub(crate) fn since(&self, id: &str) -> Since {
        let parts = id.split_once('-');
        let number = parts.and_then(|(run, number)| {
            let ours = run.parse() == Ok(self.0.run);
            number.parse().ok().filter(|_| ours)
        });
        Since::Number(number.unwrap_or(0))
    }
}

impl Watch {
    /// The next event, or how many this watcher was too slow for. Nothing is lost when the future
    /// is dropped.
    pub async fn next(&mut self) -> Option<Event> {
        if let Some(event) = self.past.pop_front() {
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

fn missed(count: u64, last: u64) -> Event {
    Event {
        number: last,
        at: humantime::format_rfc3339_millis(SystemTime::now()).to_string(),
        kind: EventKind::Missed,
        message: format!("{count} events were missed"),
        ..Event::default()
    }
}

/// Events that a watcher may be behind.
const BEHIND: usize = 1_024;
/// Events that are remembered.
const REMEMBERED: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    fn happening() -> Event {
        Event {
            kind: EventKind::Changed,
            ..Event::default()
        }
    }

    fn told(count: usize) -> Events {
        let events = Events::new();
        for _ in 0..count {
            events.push(happening());
        }
        events
    }

    /// Number and kind of what can be had at once.
    async fn numbers(watch: &mut Watch) -> Vec<(u64, EventKind)> {
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
    async fn the_last_are_told_first() {
        let events = told(5);
        let mut watch = events.watch(Since::Recent(2));
        events.push(happening());
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
    async fn who_comes_back_goes_on_where_he_was() {
        let events = told(5);
        let id = events.id(&Event {
            number: 3,
            ..Event::default()
        });
        assert_eq!(
            numbers(&mut events.watch(events.since(&id))).await,
            plain(4..=5)
        );
        // Of another run, or of nothing: all that is remembered.
        for id in ["1-3", "x", ""] {
            assert_eq!(
                numbers(&mut events.watch(events.since(id))).await,
                plain(1..=5)
            );
        }
        // A number that is yet to come is no gap.
        let id = events.id(&Event {
            number: 9,
            ..Event::default()
        });
        assert!(
            numbers(&mut events.watch(events.since(&id)))
                .await
                .is_empty()
        );
    }

    #[tokio::test]
    async fn who_comes_back_late_is_told_what_he_missed() {
        let events = told(REMEMBERED + 10);
        let all = numbers(&mut events.watch(Since::Number(4))).await;
        assert_eq!(all[0], (10, EventKind::Missed));
        assert_eq!(all[1..], plain(11..=REMEMBERED as u64 + 10));
    }

    #[tokio::test]
    async fn who_is_slow_is_told_how_many_he_missed() {
        let events = told(1);
        let mut watch = events.watch(Since::Recent(0));
        for _ in 0..BEHIND + 7 {
            events.push(happening());
        }
        let first = watch.next().await.unwrap();
        assert_eq!((first.number, first.kind), (8, EventKind::Missed));
        assert_eq!(first.message, "7 events were missed");
        assert_eq!(watch.next().await.unwrap().number, 9);
    }
}
