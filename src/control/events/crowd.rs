//! Events of which thousands may come at once, as when a network with all its backends goes: the
//! first of each kind come singly, the others as a number. What is so now stands in the status and
//! its alerts, which follow the state and not the events.

use parking_lot::Mutex;

use crate::admin::model::EventKind;

use super::{Events, Severity, Subject};

/// The events of ten seconds, of each such kind.
#[derive(Debug, Default)]
pub(super) struct Crowds(Mutex<Vec<Crowd>>);

#[derive(Debug)]
struct Crowd {
    kind: EventKind,
    severity: Severity,
    told: u32,
    /// How many were not told, and the last of them.
    more: u64,
    last: String,
    /// The pool that all of them are about.
    pool: Option<String>,
    /// Seconds until their number is.
    left: u32,
}

impl Events {
    /// Reports one of many events. After the first of its kind, the others within ten seconds are
    /// counted only: more would displace all events that are kept, and fill the log.
    pub(in crate::control) fn tell_one_of_many(
        &self,
        severity: Severity,
        kind: EventKind,
        about: Subject<'_>,
        message: String,
    ) {
        let told = self.0.crowds.take((severity, kind), about.pool, message);
        if let Some(message) = told {
            self.tell(severity, kind, about, message);
        }
    }

    /// Reports how many events were not told. To be called each second.
    pub(in crate::control) fn tick(&self) {
        for crowd in self.0.crowds.tick() {
            let Crowd {
                kind,
                severity,
                more,
                last,
                pool,
                ..
            } = crowd;
            let message =
                format!("and {more} more like this within {WINDOW_SECONDS} s, the last: {last}");
            let about = pool.as_deref().map(Subject::pool).unwrap_or_default();
            self.tell(severity, kind, about, message);
        }
    }
}

impl Crowds {
    /// The message of an event that is to be told.
    fn take(
        &self,
        (severity, kind): (Severity, EventKind),
        pool: Option<&str>,
        message: String,
    ) -> Option<String> {
        let mut crowds = self.0.lock();
        let Some(crowd) = crowds.iter_mut().find(|crowd| crowd.kind == kind) else {
            crowds.push(Crowd {
                kind,
                severity,
                told: 1,
                more: 0,
                last: String::new(),
                pool: None,
                left: WINDOW_SECONDS,
            });
            return Some(message);
        };
        if crowd.told < SINGLE {
            crowd.told += 1;
            return Some(message);
        }
        if crowd.more == 0 {
            crowd.pool = pool.map(str::to_owned);
        } else if crowd.pool.as_deref() != pool {
            crowd.pool = None;
        }
        crowd.more += 1;
        crowd.last = message;
        None
    }

    /// The crowds whose time is over, if they have more.
    fn tick(&self) -> Vec<Crowd> {
        let mut crowds = self.0.lock();
        for crowd in &mut *crowds {
            crowd.left -= 1;
        }
        let over = crowds.extract_if(.., |crowd| crowd.left == 0);
        over.filter(|crowd| crowd.more > 0).collect()
    }
}

/// Events of a kind that come singly.
const SINGLE: u32 = 20;
/// For so long.
const WINDOW_SECONDS: u32 = 10;

#[cfg(test)]
mod tests {
    use super::super::Since;
    use super::*;

    #[tokio::test]
    async fn the_first_of_many_events_come_singly() {
        let events = Events::new();
        let tell = |kind, count: u32| {
            for number in 0..count {
                let about = Subject::default();
                events.tell_one_of_many(Severity::Quiet, kind, about, number.to_string());
            }
        };
        let mut watch = events.watch(Since::Recent(0));
        tell(EventKind::BackendResolved, 1_000);
        tell(EventKind::BackendRefused, 1);
        for number in 0..SINGLE {
            assert_eq!(watch.next().await.unwrap().message, number.to_string());
        }
        assert_eq!(watch.next().await.unwrap().kind, EventKind::BackendRefused);
        (0..WINDOW_SECONDS).for_each(|_| events.tick());
        let sum = watch.next().await.unwrap();
        assert_eq!(sum.kind, EventKind::BackendResolved);
        assert_eq!(
            sum.message,
            "and 980 more like this within 10 s, the last: 999"
        );
        assert_eq!(sum.pool, None);
        // The next ten seconds begin again.
        tell(EventKind::BackendResolved, 1);
        assert_eq!(watch.next().await.unwrap().message, "0");
        (0..WINDOW_SECONDS).for_each(|_| events.tick());
        tell(EventKind::BackendRefused, 1);
        assert_eq!(watch.next().await.unwrap().kind, EventKind::BackendRefused);
    }

    #[tokio::test]
    async fn a_sum_names_the_pool_that_all_its_events_are_about() {
        for (pools, expected) in [(["a", "a"], Some("a")), (["a", "b"], None)] {
            let events = Events::new();
            let kind = EventKind::BackendDown;
            for number in 0..SINGLE + 2 {
                let pool = pools[number.saturating_sub(SINGLE) as usize];
                let about = Subject::backend(pool, "x");
                events.tell_one_of_many(Severity::Quiet, kind, about, number.to_string());
            }
            let mut watch = events.watch(Since::Recent(0));
            (0..WINDOW_SECONDS).for_each(|_| events.tick());
            let sum = watch.next().await.unwrap();
            assert_eq!((sum.pool.as_deref(), sum.backend), (expected, None));
        }
    }
}
