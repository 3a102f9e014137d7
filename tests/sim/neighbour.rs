//! Another worker, as far as this one meets it: it takes places at backends, waits in the same
//! queues, calls and is called.

use std::sync::Arc;

use mahoraga::kernel::{Completion, Done};
use mahoraga::pool::{Backend, Call, Ended, Pool, Ticket};
use mahoraga::snapshot::Snapshot;
use mahoraga::token::{Purpose, Token};
use mahoraga::worker::Inbox;

use crate::kernel::FakeKernel;
use crate::random::MS;
use crate::world::Event;

/// What the other worker has, and what both know.
#[derive(Debug)]
pub(crate) struct Neighbour {
    pub(crate) inboxes: Arc<[Inbox]>,
    /// In the order of their publication.
    pub(crate) snapshots: Vec<Arc<Snapshot>>,
    held: Vec<(usize, Arc<Backend>)>,
    /// Its clients that wait: the listener, and the number in the queue.
    waiting: Vec<(usize, u64)>,
    /// It is about to read its inbox.
    woken: bool,
    /// Since when somebody waits for a place that is there, by listener.
    in_vain_since: Vec<Option<u64>>,
}

impl Neighbour {
    pub(crate) fn new(inboxes: Arc<[Inbox]>, snapshots: Vec<Arc<Snapshot>>) -> Self {
        let listeners = snapshots[0].listeners.len();
        Self {
            inboxes,
            snapshots,
            held: Vec::new(),
            waiting: Vec::new(),
            woken: false,
            in_vain_since: vec![None; listeners],
        }
    }

    /// Connections that it has to backends.
    pub(crate) fn held(&self) -> usize {
        self.held.len()
    }
}

impl FakeKernel {
    /// The pool that a listener has by the last publication.
    fn pool(&self, listener: usize) -> Arc<Pool> {
        let snapshot = &self.world.neighbour.snapshots[*self.world.known.end()];
        Arc::clone(snapshot.listeners[listener].plan.pool())
    }

    /// One of its clients comes, goes, or gives up.
    pub(crate) fn neighbour_acts(&mut self) {
        let neighbour = &self.world.neighbour;
        let (held, waiting) = (neighbour.held.len(), neighbour.waiting.len());
        match self.random.below(10) {
            0..=4 => self.neighbours_client_comes(),
            5..=8 if held > 0 => {
                let which = self.random.below(held as u64);
                let which = usize::try_from(which).expect("an index");
                self.neighbours_client_goes(which);
            }
            9 if waiting > 0 => {
                let which = self.random.below(waiting as u64);
                let which = usize::try_from(which).expect("an index");
                let (listener, number) = self.world.neighbour.waiting.swap_remove(which);
                if self.pool(listener).queue.leave(number) {
                    self.neighbour_calls(listener);
                }
            }
            _ => {}
        }
    }

    fn neighbours_client_comes(&mut self) {
        let listeners = self.listeners.len() as u64;
        let listener = usize::try_from(self.random.below(listeners)).expect("few");
        let pool = self.pool(listener);
        if pool.queue.is_empty() && self.neighbour_takes(listener) {
            return;
        }
        let ticket = Ticket {
            worker: 1,
            slot: u32::try_from(listener).expect("few"),
            generation: 0,
            since: self.now,
        };
        if let Some((number, _)) = pool.queue.join(ticket, self.now) {
            self.world.neighbour.waiting.push((listener, number));
            self.neighbour_calls(listener);
        }
    }

    /// Takes a place at any backend.
    fn neighbour_takes(&mut self, listener: usize) -> bool {
        let pool = self.pool(listener);
        let mut backends = pool.backends.iter();
        let taken = backends.find(|backend| backend.is_in_rotation() && backend.try_acquire());
        let held = &mut self.world.neighbour.held;
        held.extend(taken.map(|backend| (listener, Arc::clone(backend))));
        taken.is_some()
    }

    fn neighbours_client_goes(&mut self, which: usize) {
        let (listener, backend) = self.world.neighbour.held.swap_remove(which);
        backend.release(Ended::unanswered());
        self.neighbour_calls(listener);
    }

    /// There may be a place: it calls the first who waits, as a worker does.
    fn neighbour_calls(&mut self, listener: usize) {
        let pool = self.pool(listener);
        if pool.queue.is_empty() {
            return;
        }
        let places = pool.places();
        while let Some(call) = pool.queue.call(self.now, places) {
            self.world.neighbour.inboxes[call.ticket.worker as usize].put(call);
            if call.ticket.worker == 0 {
                self.trace.see("called by another worker");
                self.completed.push_back(Completion {
                    token: Token::of(Purpose::Wake),
                    outcome: Ok(Done::Count(1)),
                    more: true,
                });
            }
            if call.comes {
                break;
            }
        }
        self.wake_neighbour();
    }

    /// It reads its inbox in a while, if there is something in it.
    pub(crate) fn wake_neighbour(&mut self) {
        let neighbour = &mut self.world.neighbour;
        if !neighbour.woken && !neighbour.inboxes[1].is_empty() {
            neighbour.woken = true;
            let lag = self.random.lag();
            self.after(lag, Event::NeighbourWakes);
        }
    }

    pub(crate) fn neighbour_wakes(&mut self) {
        self.world.neighbour.woken = false;
        while let Some(call) = self.world.neighbour.inboxes[1].take() {
            self.neighbour_is_called(call);
        }
    }

    fn neighbour_is_called(&mut self, call: Call) {
        let listener = usize::try_from(call.ticket.slot).expect("few");
        let client = (listener, call.number);
        let waiting = &mut self.world.neighbour.waiting;
        let Some(which) = waiting.iter().position(|other| *other == client) else {
            return;
        };
        let queue = &self.pool(listener).queue;
        if !call.comes {
            self.world.neighbour.waiting.swap_remove(which);
        } else if self.neighbour_takes(listener) {
            self.trace.see("another worker's client called");
            self.world.neighbour.waiting.swap_remove(which);
            assert!(queue.leave(call.number));
            self.neighbour_calls(listener);
        } else if queue.step_back(call.number) {
            self.neighbour_calls(listener);
        }
    }

    /// Everything it has is given back.
    pub(crate) fn neighbour_ends(&mut self) {
        while self.world.neighbour.held() > 0 {
            self.neighbours_client_goes(0);
        }
        while let Some((listener, number)) = self.world.neighbour.waiting.pop() {
            self.pool(listener).queue.leave(number);
        }
        for listener in 0..self.listeners.len() {
            assert!(self.pool(listener).queue.is_empty(), "somebody waits");
        }
    }

    /// How long clients of a listener may wait. Queues were given their last settings before the
    /// run, when all its snapshots were made.
    pub(crate) fn queue_timeout(&self, listener: &str) -> u64 {
        let last = self.world.neighbour.snapshots.last();
        let mut listeners = last.expect("one at least").listeners.iter();
        let listener = listeners.find(|other| other.name == listener);
        let timeout = listener.map(|listener| listener.plan.pool().config.queue.timeout);
        let timeout = timeout.expect("listeners stay").as_nanos();
        u64::try_from(timeout).expect("a sane timeout")
    }

    /// Nobody may wait for a place that is there. Looking for one now and then would not do.
    pub(crate) fn look_for_those_who_wait(&mut self) {
        let (now, settled) = (self.now, self.world.known.clone().count() == 1);
        for listener in 0..self.listeners.len() {
            let pool = self.pool(listener);
            let waits = !pool.queue.is_empty();
            if waits {
                self.trace.see("client in the queue");
            }
            let in_vain = settled && waits && pool.places() > 0 && !self.world.neighbour.woken;
            let since = &mut self.world.neighbour.in_vain_since[listener];
            *since = in_vain.then(|| since.unwrap_or(now));
            assert!(
                since.is_none_or(|since| now - since < IN_VAIN_MAX),
                "clients wait for a place that is there: {:?}\n{}",
                pool.queue,
                self.dump()
            );
        }
    }
}

/// A look at every 50 ms must not find the same twice.
const IN_VAIN_MAX: u64 = 50 * MS;
