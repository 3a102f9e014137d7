//! The event loop of the simulation. It plays the parts of the workers, which run the sessions, of
//! the backends, which serve them, and of the control thread, which publishes health.

use std::sync::Arc;

use slab::Slab;

use crate::config;
use crate::peek::proxy_protocol::CheckedTlvs;
use crate::pool::{Backend, Ended, Health, Pool};
use crate::select::{Choice, Plan, Request, Seat, Selector};
use crate::session::RETRY_AFTER;
use crate::time::{MS, SECOND};

use super::Scenario;
use super::fleet::Servers;
use super::measure::Measure;
use super::queue::{Event, EventQueue};
use super::scenario::Outage;
use super::session::{SimulatedSession, WaitsFor};
use super::traffic::{Arrival, ClientSource};

/// The control thread's work of each second: takes the current plan and the time in ns, and may
/// return a new pool for the workers.
pub(super) type EachSecond<'a> = &'a mut dyn FnMut(&Plan, u64) -> Option<Pool>;

/// The state of the simulation.
pub(super) struct Engine<'a> {
    pub(super) now: u64,
    pub(super) queue: EventQueue<Event>,
    pub(super) source: ClientSource,
    pub(super) fleet: Servers,
    pub(super) measure: Measure,
    /// The plan that workers select by. `version` counts its changes.
    plan: Arc<Plan>,
    version: u64,
    selectors: Vec<Selector>,
    seed: u64,
    sessions: Slab<SimulatedSession>,
    serial: u64,
    outage: Option<Outage>,
    end: u64,
    each_second: EachSecond<'a>,
}

impl<'a> Engine<'a> {
    /// The state at time 0, before the first client.
    pub(super) fn new(
        scenario: &Scenario,
        pool: Pool,
        seed: u64,
        each_second: EachSecond<'a>,
    ) -> Self {
        let fleet = Servers::new(scenario.fleet, &pool);
        let names: Vec<_> = pool.backends.iter().map(|b| b.name.as_str()).collect();
        let source = ClientSource::new(scenario, fleet.capacity(), &names, seed);
        let measure = Measure::new(scenario, &pool, &fleet);
        let plan = Arc::new(Plan::new(Arc::new(pool)));
        let mut engine = Self {
            now: 0,
            queue: EventQueue::new(),
            source,
            outage: scenario.outage.filter(|_| fleet.leaver().is_some()),
            fleet,
            measure,
            selectors: selectors(&plan, scenario.workers, seed),
            seed,
            plan,
            version: 1,
            sessions: Slab::new(),
            serial: 0,
            end: scenario.end,
            each_second,
        };
        engine.begin();
        engine
    }

    /// Runs until no event is left.
    pub(super) fn run(mut self) -> Measure {
        while let Some((at, event)) = self.queue.pop() {
            self.now = at;
            match event {
                Event::Arrive => self.on_arrive(),
                Event::Return(client) => {
                    if let Some(arrival) = self.source.comeback(client) {
                        self.accept(arrival);
                    }
                }
                Event::Wake(key, serial) => {
                    let session = self.sessions.get(key);
                    if session.is_some_and(|session| session.serial == serial) {
                        self.on_wake(key);
                    }
                }
                Event::Done(index, round) => self.on_done(index, round),
                Event::Leave => self.on_leave(),
                Event::Rejoin => self.fleet.set_away(None),
                Event::Publish(up) => self.publish(up),
                Event::Second => self.on_second(),
            }
        }
        debug_assert!(self.sessions.is_empty(), "a session waits for nothing");
        self.measure
    }

    fn begin(&mut self) {
        self.queue.push(0, Event::Second);
        if let Some(outage) = self.outage {
            self.queue.push(outage.from, Event::Leave);
            let known = outage.from + outage.detection;
            self.queue.push(known, Event::Publish(false));
            self.queue.push(outage.until, Event::Rejoin);
            let known = outage.until + outage.detection;
            self.queue.push(known, Event::Publish(true));
        }
        if let Some(at) = self.source.next_at() {
            self.queue.push(at, Event::Arrive);
        }
    }

    fn on_arrive(&mut self) {
        if let Some(arrival) = self.source.arrival() {
            self.accept(arrival);
        }
        if let Some(at) = self.source.next_at() {
            self.queue.push(at, Event::Arrive);
        }
    }

    fn accept(&mut self, arrival: Arrival) {
        self.serial += 1;
        let keys = self
            .plan
            .keys_without_bytes(arrival.address, CheckedTlvs::NONE);
        let plan = Arc::clone(&self.plan);
        let session = SimulatedSession::new(arrival, self.serial, keys, plan, self.now);
        let key = self.sessions.insert(session);
        self.measure.on_accepted(self.now);
        self.connect(key);
    }

    /// Selects a backend and begins a connect attempt, as a worker does.
    fn connect(&mut self, key: usize) {
        let session = &mut self.sessions[key];
        if session.tried_in != self.version {
            session.tried.clear();
            session.tried_in = self.version;
            session.plan = Arc::clone(&self.plan);
        }
        let request = Request {
            now: self.now,
            keys: session.keys,
            tried: &session.tried,
        };
        let index = match self.selectors[session.worker].select(&request) {
            Choice::Backend(index) => index,
            Choice::Full => return self.hold(key),
            Choice::Unavailable => return self.fail(key),
        };
        if session.tried.contains(&index) && !std::mem::replace(&mut session.paused, true) {
            return self.hold(key);
        }
        session.paused = false;
        let backend = &self.plan.pool().backends[usize::from(index)];
        if !backend.try_acquire(self.now) {
            return self.hold(key);
        }
        session.held_at = None;
        session.index = index;
        session.target = Some(Arc::clone(backend));
        session.attempts += 1;
        session.attempt_at = self.now;
        self.wait(key, WaitsFor::Connecting, self.now + ROUND_TRIP);
    }

    /// The client waits before another selection.
    fn hold(&mut self, key: usize) {
        let session = &mut self.sessions[key];
        let since = *session.held_at.get_or_insert(self.now);
        if self.now + RETRY_AFTER - since > CONNECT_TIMEOUT {
            return self.fail(key);
        }
        self.wait(key, WaitsFor::Held, self.now + RETRY_AFTER);
    }

    fn fail(&mut self, key: usize) {
        let session = self.sessions.remove(key);
        self.measure.on_failed(&session);
    }

    fn wait(&mut self, key: usize, state: WaitsFor, until: u64) {
        let session = &mut self.sessions[key];
        session.state = state;
        self.queue.push(until, Event::Wake(key, session.serial));
    }

    fn on_wake(&mut self, key: usize) {
        match self.sessions[key].state {
            WaitsFor::Held => self.connect(key),
            WaitsFor::Connecting => self.on_connected(key),
            WaitsFor::Thinking if self.now >= self.end => self.close(key),
            WaitsFor::Thinking => {
                let session = &mut self.sessions[key];
                session.asked_at = self.now;
                if let Some(backend) = &session.target {
                    backend.tally.on_asked();
                }
                self.ask(key);
            }
            WaitsFor::Lingering => self.close(key),
            WaitsFor::Served => unreachable!("an answer needs no wake-up"),
        }
    }

    fn on_connected(&mut self, key: usize) {
        let session = &mut self.sessions[key];
        if self.fleet.is_away(session.index) {
            session.tried.push(session.index);
            let failed = session.target.take();
            let left = ATTEMPTS > session.attempts;
            if let Some(backend) = failed {
                backend.on_failed();
                backend.release(Ended::unanswered());
            }
            self.measure.on_refused(session.index);
            return if left {
                self.connect(key)
            } else {
                self.fail(key)
            };
        }
        self.measure.on_connected(session);
        if self.fleet.is_black_hole(session.index) {
            let session = self.sessions.remove(key);
            self.leave(&session);
            return self.measure.on_failed(&session);
        }
        self.ask(key);
    }

    /// The client's next request reaches the backend.
    fn ask(&mut self, key: usize) {
        let session = &mut self.sessions[key];
        session.state = WaitsFor::Served;
        let (index, work) = (session.index, session.work);
        self.measure.on_work(index, work, self.now);
        self.fleet.begin(index, key, work, self.now);
        self.expect(index);
    }

    /// Schedules the end of the backend's next request.
    fn expect(&mut self, index: u16) {
        if let Some((at, round)) = self.fleet.expect(index) {
            self.queue.push(at, Event::Done(index, round));
        }
    }

    fn on_done(&mut self, index: u16, round: u64) {
        if !self.fleet.is_expected(index, round) {
            return;
        }
        while let Some(key) = self.fleet.end(index, self.now) {
            self.on_answer(key);
        }
        self.expect(index);
    }

    fn on_answer(&mut self, key: usize) {
        let session = &mut self.sessions[key];
        self.measure.on_answer(session.asked_at, self.now);
        session.bytes += session.bytes_each;
        if let Some(backend) = &session.target {
            if session.answered {
                backend.tally.on_replied();
            } else {
                let answer = self.now - session.attempt_at;
                let decay = session.plan.decay();
                backend.tally.on_answered(answer, self.now, decay);
            }
            session.answered = true;
        }
        if self.now >= self.end {
            session.state = WaitsFor::Lingering;
            return self.close(key);
        }
        let later = session.later.as_mut();
        let later = later.and_then(|rng| self.source.later(rng));
        match later {
            Some((think, work)) if self.now + think < session.leaves_at => {
                session.work = work;
                self.wait(key, WaitsFor::Thinking, self.now + think);
            }
            _ => {
                let leaves_at = session.leaves_at.max(self.now);
                self.wait(key, WaitsFor::Lingering, leaves_at);
            }
        }
    }

    fn close(&mut self, key: usize) {
        let session = self.sessions.remove(key);
        self.leave(&session);
    }

    /// Ends a connected session and updates the backend's tally, as a worker does.
    fn leave(&self, session: &SimulatedSession) {
        let Some(backend) = &session.target else {
            return;
        };
        if !session.answered {
            backend.on_failed();
        }
        backend.release(Ended {
            waiting: session.state == WaitsFor::Served || !session.answered,
            in_use: 0,
            bytes: session.bytes,
        });
        session.plan.on_left(backend, &session.keys, self.now);
    }

    /// The outage begins: sessions with its backend break, and their clients return later.
    fn on_leave(&mut self) {
        let Some(index) = self.fleet.leaver() else {
            return;
        };
        self.fleet.set_away(Some(index));
        let connected = |session: &SimulatedSession| {
            session.index == index
                && session.target.is_some()
                && session.state != WaitsFor::Connecting
                && session.state != WaitsFor::Held
        };
        let broken = self.sessions.iter();
        let broken: Vec<_> = broken
            .filter(|(_, session)| connected(session))
            .map(|(key, _)| key)
            .collect();
        for key in broken {
            let session = self.sessions.remove(key);
            self.leave(&session);
            self.measure.on_broken(&session);
            let back_at = self.now + self.source.comeback_after();
            self.queue.push(back_at, Event::Return(session.client));
        }
    }

    /// Publishes a snapshot: the same pool with the health of one backend changed.
    fn publish(&mut self, up: bool) {
        let Some(index) = self.fleet.leaver() else {
            return;
        };
        let pool = self.plan.pool();
        let name = pool.backends[usize::from(index)].name.clone();
        let pool = pool.with(|backend: &mut Backend| {
            if backend.name == name {
                backend.health = if up { Health::Up } else { Health::Down };
            }
        });
        self.select_from(pool);
    }

    fn select_from(&mut self, pool: Pool) {
        self.plan = Arc::new(Plan::new(Arc::new(pool)));
        self.version += 1;
        let workers = u32::try_from(self.selectors.len()).unwrap_or(u32::MAX);
        self.selectors = selectors(&self.plan, workers, self.seed);
    }

    fn on_second(&mut self) {
        if let Some(pool) = (self.each_second)(&self.plan, self.now) {
            self.select_from(pool);
        }
        if self.now + SECOND <= self.end {
            self.queue.push(self.now + SECOND, Event::Second);
        }
    }
}

/// A selector for each worker.
fn selectors(plan: &Arc<Plan>, workers: u32, seed: u64) -> Vec<Selector> {
    let of = workers.max(1);
    let seats = (0..of).map(|worker| Seat {
        worker,
        of,
        pool: 0,
        seed,
    });
    seats
        .map(|seat| Selector::new(Arc::clone(plan), seat))
        .collect()
}

/// The time that a connect takes, whether it succeeds or fails, in ns.
const ROUND_TRIP: u64 = MS / 2;
/// How long a client waits for a place at most, in ns: the default of a listener.
const CONNECT_TIMEOUT: u64 = 5 * SECOND;
/// Connect attempts per session.
const ATTEMPTS: u32 = config::ATTEMPTS as u32;
