//! How many probes are under way at a time. Each has a socket and some memory, and thousands of
//! backends that do not answer would have thousands of each.
//!
//! Probes that find no place wait in a queue of their pool, and pools take turns: one whose
//! backends do not answer delays no other for long. Backends of a pool whose last probe failed have
//! a queue of their own, and can't take the last eighth of the places, so that the others are
//! probed in their time.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::rc::Rc;

use tokio::sync::oneshot;

use crate::sys;

/// The places of all probes.
#[derive(Clone, Debug)]
pub(super) struct Places(Rc<RefCell<State>>);

/// A place that a probe has. Drop gives it to the next one.
#[derive(Debug)]
pub(super) struct Place(Places);

/// Who takes turns: the name of a pool, and whether the last probe failed.
pub(super) type Lane = (String, bool);

/// Lanes of one kind, by their pools.
#[derive(Debug, Default)]
struct Lanes {
    queues: BTreeMap<String, VecDeque<oneshot::Sender<Place>>>,
    /// The pool whose turn was last.
    last: Option<String>,
}

#[derive(Debug)]
struct State {
    free: usize,
    /// Places that lanes whose last probe failed leave free.
    kept: usize,
    /// Probes that wait: those whose last one passed, and those whose last one failed.
    waiting: [Lanes; 2],
    /// Whether the last place went to one of those that failed.
    last_failed: bool,
}

impl Places {
    pub(super) fn new(places: usize) -> Self {
        Self(Rc::new(RefCell::new(State {
            free: places,
            kept: places / 8,
            waiting: Default::default(),
            last_failed: false,
        })))
    }

    /// As many as this process has descriptors for.
    pub(super) fn of_this_process() -> Self {
        let (descriptors, _) = sys::descriptor_limit();
        let share = usize::try_from(descriptors).unwrap_or(PLACES_MAX) / DESCRIPTORS_PER_PLACE;
        Self::new(share.clamp(1, PLACES_MAX))
    }

    /// Waits for a place.
    pub(super) async fn take(&self, lane: &Lane) -> Place {
        let place = {
            let mut state = self.0.borrow_mut();
            if state.has_place(lane.1) {
                state.free -= 1;
                return Place(self.clone());
            }
            let (sender, place) = oneshot::channel();
            let (pool, has_failed) = lane;
            let lanes = &mut state.waiting[usize::from(*has_failed)];
            lanes
                .queues
                .entry(pool.clone())
                .or_default()
                .push_back(sender);
            place
        };
        place.await.expect("each place goes to one that waits")
    }

    #[cfg(test)]
    pub(super) fn free(&self) -> usize {
        self.0.borrow().free
    }
}

impl State {
    /// Whether a probe may have a place now. `has_failed`: the last one of its backend did.
    fn has_place(&self, has_failed: bool) -> bool {
        self.free > if has_failed { self.kept } else { 0 }
    }

    /// Takes a place for the next one that waits and may have one. Both kinds take turns.
    fn next(&mut self) -> Option<oneshot::Sender<Place>> {
        for has_failed in [!self.last_failed, self.last_failed] {
            if !self.has_place(has_failed) {
                continue;
            }
            if let Some(first) = self.waiting[usize::from(has_failed)].next() {
                self.free -= 1;
                self.last_failed = has_failed;
                return Some(first);
            }
        }
        None
    }
}

impl Lanes {
    /// The first one that waits in the next lane, without those that were given up.
    fn next(&mut self) -> Option<oneshot::Sender<Place>> {
        loop {
            let after = self
                .last
                .as_deref()
                .map_or(Bound::Unbounded, Bound::Excluded);
            let mut later = self.queues.range::<str, _>((after, Bound::Unbounded));
            let next = later.next().or_else(|| self.queues.iter().next());
            let pool = next?.0.clone();
            let queue = self.queues.get_mut(&pool)?;
            let first = loop {
                match queue.pop_front() {
                    Some(given_up) if given_up.is_closed() => {}
                    first => break first,
                }
            };
            if queue.is_empty() {
                self.queues.remove(&pool);
            }
            self.last = Some(pool);
            if first.is_some() {
                return first;
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let next = {
            let mut state = self.0.0.borrow_mut();
            state.free += 1;
            state.next()
        };
        if let Some(next) = next {
            // One that has just been given up drops its place, which comes here again.
            drop(next.send(Self(self.0.clone())));
        }
    }
}

/// A probe has a buffer of 16 KiB, and some 40 KiB where it speaks TLS.
const PLACES_MAX: usize = 1_024;
/// The control thread needs the others: for clients of the API, the DNS, listening sockets, logs.
const DESCRIPTORS_PER_PLACE: usize = 4;

#[cfg(test)]
mod tests {
    use std::cmp::Reverse;
    use std::collections::BinaryHeap;

    use futures_util::stream::FuturesUnordered;
    use futures_util::{FutureExt, StreamExt};

    use super::*;

    /// Backends of three kinds, each probed every two seconds: those that do not answer within a
    /// second, others of the same pool, and those of another pool.
    const SILENT: usize = 10_000;
    const OTHERS: usize = 20;
    const PLACES: usize = 512;
    const INTERVAL: u64 = 2_000;

    /// When a probe of a backend begins, and when it ends, in ms.
    #[derive(PartialEq, Eq, PartialOrd, Ord)]
    enum Step {
        End,
        Begin,
    }

    fn lane(backend: usize) -> Lane {
        match backend {
            ..SILENT => ("a".to_owned(), true),
            backend if backend < SILENT + OTHERS => ("a".to_owned(), false),
            _ => ("b".to_owned(), false),
        }
    }

    #[test]
    fn backends_that_do_not_answer_delay_no_check_of_others() {
        let places = Places::new(PLACES);
        let count = SILENT + 2 * OTHERS;
        let mut steps = BinaryHeap::new();
        for backend in 0..count {
            let first = (backend as u64 * 617) % INTERVAL;
            steps.push(Reverse((first, Step::Begin, backend)));
        }
        let mut waiting = FuturesUnordered::new();
        let mut held: BTreeMap<usize, Place> = BTreeMap::new();
        let (mut due, mut probed, mut waits) = (vec![0; count], vec![0; count], vec![0; count]);
        while let Some(Reverse((now, step, backend))) = steps.pop().filter(|its| its.0.0 < 60_000) {
            match step {
                Step::Begin => {
                    due[backend] = now;
                    let places = places.clone();
                    waiting.push(async move { (backend, places.take(&lane(backend)).await) });
                }
                Step::End => drop(held.remove(&backend)),
            }
            while let Some(Some((backend, place))) = waiting.next().now_or_never() {
                held.insert(backend, place);
                probed[backend] += 1;
                waits[backend] = waits[backend].max(now - due[backend]);
                let takes = if backend < SILENT { 1_000 } else { 1 };
                steps.push(Reverse((now + takes, Step::End, backend)));
                steps.push(Reverse((now + INTERVAL.max(takes), Step::Begin, backend)));
            }
            assert!(held.len() <= PLACES);
        }
        let others = waits[SILENT..].iter().max().unwrap();
        assert!(*others <= 50, "a check came {others} ms late");
        assert!(probed[SILENT..].iter().all(|probes| *probes >= 29));
        assert!(probed[..SILENT].iter().all(|probes| *probes >= 2));
    }

    #[test]
    fn places_of_probes_that_are_given_up_go_to_others() {
        let places = Places::new(1);
        let lane = lane(0);
        let first = places.take(&lane).now_or_never().unwrap();
        for _ in 0..3 {
            let mut given_up = Box::pin(places.take(&lane));
            assert!((&mut given_up).now_or_never().is_none());
        }
        let mut next = Box::pin(places.take(&lane));
        let mut last = Box::pin(places.take(&lane));
        assert!((&mut next).now_or_never().is_none() && (&mut last).now_or_never().is_none());
        drop(first);
        // It was given a place, and ends before it has seen that.
        drop(next);
        assert!((&mut last).now_or_never().is_some());
        assert_eq!(places.free(), 1);
        let state = places.0.borrow();
        assert!(state.waiting.iter().all(|lanes| lanes.queues.is_empty()));
    }
}
