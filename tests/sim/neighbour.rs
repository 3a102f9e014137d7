//! The other worker, which shares queues and backends with the worker under test: it takes places
//! at backends, waits in the same queues, and each calls the other's clients.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::sync::Arc;

use mahoraga::kernel::{Completion, Done};
use mahoraga::pool::{Backend, Called, Ended, Pool, Ticket};
use mahoraga::time::{MS, nanos};
use mahoraga::token::{Purpose, Token};
use mahoraga::worker::Inbox;

use crate::kernel::FakeKernel;
use crate::world::{Event, TICK};

/// The other worker's state, and what both share.
#[derive(Debug)]
pub(crate) struct Neighbour {
    pub(crate) inboxes: Arc<[Inbox]>,
    held: Vec<(usize, Arc<Backend>)>,
    /// Its clients that wait: the listener, and the number in the queue.
    waiting: Vec<(usize, u64)>,
    /// The worker under test has woken it.
    pub(crate) rung: Cell<bool>,
    /// It is about to read its inbox.
    woken: bool,
    /// It looks for places that become free without a call, while its clients wait.
    looks: bool,
    /// When the control thread last ended ejections.
    pub(crate) readmitted_at: u64,
    /// Since when a client waits although a place is free, by listener.
    in_vain_since: Vec<Option<u64>>,
}

impl Neighbour {
    /// A worker without sessions, beside this many listeners.
    pub(crate) fn new(listeners: usize) -> Self {
        Self {
            inboxes: [(); 2].map(|()| Inbox::default()).into(),
            rung: Cell::new(false),
            held: Vec::new(),
            waiting: Vec::new(),
            woken: false,
            looks: false,
            readmitted_at: 0,
            in_vain_since: vec![None; listeners],
        }
    }

    /// Connections that it has to backends.
    pub(crate) fn held(&self) -> usize {
        self.held.len()
    }
}

impl FakeKernel {
    /// The pools of all listeners so far, by the last publication.
    fn pools(&self) -> &[Arc<Pool>] {
        &self.world.routes[*self.world.known.end()]
    }

    fn pool(&self, listener: usize) -> Arc<Pool> {
        Arc::clone(&self.pools()[listener])
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
        // The listener may be gone: the client came in before, and sent its first bytes late.
        let listeners = self.pools().len() as u64;
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
            if !std::mem::replace(&mut self.world.neighbour.looks, true) {
                self.after(LOOK_EVERY, Event::NeighbourLooks);
            }
        }
    }

    /// Places become free by time, too.
    pub(crate) fn neighbour_looks(&mut self) {
        self.world.neighbour.looks = !self.world.neighbour.waiting.is_empty();
        if self.world.neighbour.looks {
            self.after(LOOK_EVERY, Event::NeighbourLooks);
        }
        self.neighbour_looks_for_its_own();
    }

    /// Also where the worker under test does not listen, or no longer does. Calls for the other
    /// listeners are that worker's task.
    pub(crate) fn neighbour_looks_for_its_own(&mut self) {
        let waiting = self.world.neighbour.waiting.iter();
        let listeners: BTreeSet<_> = waiting.map(|(listener, _)| *listener).collect();
        for listener in listeners {
            self.neighbour_calls(listener);
        }
    }

    /// Takes a place at any backend.
    fn neighbour_takes(&mut self, listener: usize) -> bool {
        let pool = self.pool(listener);
        let taken = pool
            .reachable()
            .find(|backend| backend.try_acquire(self.now));
        let held = &mut self.world.neighbour.held;
        held.extend(taken.map(|backend| (listener, Arc::clone(backend))));
        taken.is_some()
    }

    fn neighbours_client_goes(&mut self, which: usize) {
        let (listener, backend) = self.world.neighbour.held.swap_remove(which);
        backend.release(Ended::unanswered());
        self.neighbour_calls(listener);
    }

    /// There may be a place: it calls the first client of the queue, as a worker does.
    fn neighbour_calls(&mut self, listener: usize) {
        let pool = self.pool(listener);
        if pool.queue.is_empty() {
            return;
        }
        let places = pool.places(self.now);
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

    /// It was woken: it reads its inbox a little later.
    pub(crate) fn hear_wake(&mut self) {
        if self.world.neighbour.rung.take() {
            self.wake_neighbour();
        }
    }

    /// If there is something in its inbox it reads it a little later.
    fn wake_neighbour(&mut self) {
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

    fn neighbour_is_called(&mut self, call: Called) {
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
        let mut queues = self.pools().iter().map(|pool| &pool.queue);
        assert!(queues.all(|queue| queue.is_empty()), "a client waits");
    }

    /// The queue timeout of a listener's clients. The queues have the settings of the run's last
    /// snapshot, because all snapshots were made before the run.
    pub(crate) fn queue_timeout(&self, listener: u64) -> u64 {
        let last = self.world.routes.last().expect("at least one");
        let pool = &last[usize::try_from(listener).expect("few")];
        nanos(pool.config.queue.timeout)
    }

    /// No client may wait while a place is free. Looking for a place now and then is not enough.
    pub(crate) fn check_waiting_clients(&mut self) {
        let (now, settled) = (self.now, self.world.known.clone().count() == 1);
        for listener in 0..self.pools().len() {
            let pool = self.pool(listener);
            let waits = !pool.queue.is_empty();
            if waits {
                self.trace.see("client in the queue");
            }
            let in_vain = settled && waits && pool.places(now) > 0 && !self.world.neighbour.woken;
            // For some places there is no call.
            let by_time = pool.rising || pool.has_backlogs;
            let uncalled = by_time || now - self.world.neighbour.readmitted_at < LOOKED_MAX;
            let max = if uncalled { LOOKED_MAX } else { IN_VAIN_MAX };
            let since = &mut self.world.neighbour.in_vain_since[listener];
            *since = in_vain.then(|| since.unwrap_or(now));
            assert!(
                since.is_none_or(|since| now - since < max),
                "clients wait although a place is free: {:?}\n{}",
                pool.queue,
                self.dump()
            );
        }
    }
}

/// Between two looks of a worker for places that become free without a call: 250 ms.
const LOOK_EVERY: u64 = 250 * MS;
/// Such a place is found within this time.
const LOOKED_MAX: u64 = LOOK_EVERY + 2 * TICK;
/// Less than two looks 50 ms apart: they must not find the same free place twice.
const IN_VAIN_MAX: u64 = 50 * MS;
