//! A worker: one thread, one ring, its sessions.
//!
//! A turn is: wait, take the batch of completions, hand each to its session as an event, do what
//! the session asks for. Nothing is submitted while a session handles an event, unless the queue is
//! full, and time is read once per batch. A slot is freed only when nothing is in flight on it.

#![forbid(unsafe_code)]

mod accept;
mod arrivals;
mod backlog;
mod backoff;
mod banned;
mod completed;
mod connecting;
mod decisions;
mod ended;
mod filter;
mod follow;
mod handshakes;
mod headers;
mod held;
mod hoarders;
mod introducing;
mod lanes;
mod latencies;
mod log_feed;
mod log_lines;
mod metrics;
mod numbers;
mod pools;
mod postgres;
mod preview;
mod queue;
mod refuse;
mod regret;
mod report;
mod routing;
mod securing;
mod sessions;
mod slot;
mod spare;
mod stall;
pub mod timers;
mod tls;
mod tls_outcomes;
mod traffic;
mod tries;
mod turns;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;
use std::time::Duration;

use crossbeam::channel::Receiver;
use slab::Slab;

use crate::guard::Sample;
use crate::kernel::{Completion, Errno, Kernel, Socket};
use crate::select::Seat;
use crate::session::{CloseReason, Event, Links, Ops};
use crate::snapshot::Snapshot;
use crate::time::{MS, NEVER, between, nanos};
use crate::token::{Purpose, Token};

use accept::Port;
use arrivals::Arrivals;
use backoff::Backoff;
use banned::BanSweep;
use decisions::Decisions;
pub use decisions::{DECISIONS, Decided, DecisionRecord, End, FailedConnect};
pub use ended::LEFT;
pub use filter::{
    DecisionFilter, DecisionSubject, SESSIONS, SESSIONS_MAX, SessionFilter, SessionId,
};
use headers::Headers;
pub use headers::ProxyPeer;
use held::Held;
use hoarders::Hoarders;
use lanes::Lanes;
pub use latencies::{Counts, LATENCIES, Latencies, LatencyCounts, Times, quantiles};
pub use log_feed::{LogFeed, LogRule};
use log_lines::LogLines;
pub use metrics::{Histograms, Number, Progress, Recorded, Stats};
pub use numbers::{NUMBERS, Numbers};
use pools::Pools;
use postgres::CancelKeys;
pub use preview::{Preview, PreviewQuestion};
pub use queue::Inbox;
pub use regret::IdleCuts;
pub use report::{Command, LineExtras, LogEvent, Record, TlsRecord};
use sessions::Closing;
pub use sessions::SessionInfo;
use slot::Slot;
use stall::Stall;
use timers::Timers;
use traffic::Uncounted;
pub use tries::{FailedTry, TRIES_KEPT, Tries};

/// What a worker is made from.
#[derive(Debug)]
pub struct Setup {
    /// The worker's number, and how many workers there are.
    pub seat: Seat,
    /// The snapshot that it routes by at first.
    pub snapshot: Arc<Snapshot>,
    /// A listening socket per listener of the snapshot, in its order.
    pub sockets: Vec<Socket>,
    /// The largest number of sessions.
    pub capacity: usize,
    /// The backlog of a listener (listen(2)): one multishot accept can bring so many connections.
    pub backlog: u32,
    /// Commands of the control thread.
    pub mailbox: Receiver<Command>,
    /// By worker: the calls of clients that waited in a queue.
    pub inboxes: Arc<[Inbox]>,
    /// The queue of the access log, whose lines are dropped where it is full; `None` while the log
    /// is off.
    pub log: Option<LogFeed>,
    /// Clients that the idle timeout cut lately, of all workers.
    pub idle_cuts: Arc<IdleCuts>,
    /// The worker's counters, which any thread may read.
    pub stats: Arc<Stats>,
}

/// The loop of one thread over its sessions.
#[derive(Debug)]
pub struct Worker<K> {
    id: u32,
    seat: Seat,
    kernel: K,
    now: u64,
    snapshot: Arc<Snapshot>,
    /// The key of a port is the slot of its accept's token.
    ports: Slab<Port>,
    /// The ports of the snapshot's listeners, by the listeners' ids.
    listening: BTreeMap<u64, usize>,
    pools: Pools,
    /// The end of this turn updates the ports.
    ports_changed: bool,
    /// The ports are updated at this time at the latest.
    ports_due: u64,
    arrivals: Arrivals,
    headers: Headers,
    held: Held,
    slots: Slab<Slot>,
    capacity: usize,
    backlog: u32,
    backoff: Backoff,
    /// Counts connections, so that source addresses take turns.
    origin_turn: usize,
    /// What the last connect failed by, and how long it took, in ns: its session abandons it next.
    failed: (Errno, u64),
    decisions: Decisions,
    generation: u32,
    sessions_opened: u64,
    links: Links,
    lanes: Lanes,
    ops: Ops,
    batch: Vec<Completion>,
    timers: Timers,
    due: Vec<u32>,
    /// Time and token of each visit that a session waits for.
    visits: BinaryHeap<Reverse<(u64, u64)>>,
    /// Orders to close sessions little by little.
    closings: Vec<Closing>,
    /// When the next of those sessions is closed.
    close_at: u64,
    /// Closes the sessions of clients that are banned.
    ban_sweep: BanSweep,
    hoarders: Hoarders,
    uncounted: Uncounted,
    mailbox: Receiver<Command>,
    inboxes: Arc<[Inbox]>,
    /// When to look for places that come free without a call; [`NEVER`] while no client waits.
    look_at: u64,
    log: Option<LogFeed>,
    log_lines: LogLines,
    /// The keys of sessions that may be cancelled.
    cancel_keys: CancelKeys,
    turns: turns::Turns,
    /// Memory that TLS borrows.
    spare: spare::Spare,
    idle_cuts: Arc<IdleCuts>,
    stats: Arc<Stats>,
    recorded: Box<Recorded>,
    stall: Stall,
    /// Refused clients that get a line in the access log.
    refusals: Sample,
    stop: Stop,
}

/// How far a stop has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    /// The worker was not asked to stop.
    Running,
    /// It accepts no more, and cuts at this time the sessions that are left.
    Grace(u64),
    /// It has cut them.
    Cut,
}

impl Stop {
    /// When sessions are cut.
    fn cuts_at(self) -> u64 {
        match self {
            Self::Grace(at) => at,
            Self::Running | Self::Cut => NEVER,
        }
    }
}

impl<K: Kernel> Worker<K> {
    /// A worker that accepts from its first turn on.
    pub fn new(kernel: K, setup: Setup) -> Self {
        let now = kernel.now();
        let listeners = setup.snapshot.listeners.iter().zip(setup.sockets);
        let mut ports = Slab::new();
        let mut listening = BTreeMap::new();
        let mut pools = Pools::default();
        for (listener, socket) in listeners {
            let its_pools = pools.follow_all(listener, setup.seat);
            let access = setup.snapshot.access.get(&listener.id).cloned();
            let port = Port::new((Arc::clone(listener), access), its_pools, socket);
            listening.insert(listener.id, ports.insert(port));
        }
        setup.stats.progress.adopt(setup.snapshot.version, now);
        let mut lanes = Lanes::default();
        lanes.follow(&setup.snapshot);
        Self {
            id: setup.seat.worker,
            seat: setup.seat,
            now,
            ports,
            listening,
            pools,
            kernel,
            ports_changed: true,
            ports_due: now,
            arrivals: Arrivals::default(),
            headers: Headers::default(),
            held: Held::default(),
            slots: Slab::new(),
            capacity: setup.capacity,
            backlog: setup.backlog,
            backoff: Backoff::default(),
            // Workers begin at different ones.
            origin_turn: setup.seat.worker as usize,
            failed: (Errno::CANCELED, 0),
            decisions: Decisions::new(),
            generation: 0,
            sessions_opened: 0,
            links: Links::default(),
            lanes,
            ops: Ops::default(),
            batch: Vec::new(),
            timers: Timers::new(now),
            due: Vec::new(),
            visits: BinaryHeap::new(),
            closings: Vec::new(),
            close_at: NEVER,
            ban_sweep: BanSweep::default(),
            hoarders: Hoarders::default(),
            uncounted: Uncounted::new(now),
            snapshot: setup.snapshot,
            mailbox: setup.mailbox,
            inboxes: setup.inboxes,
            look_at: NEVER,
            log_lines: LogLines::of(setup.log.as_ref()),
            cancel_keys: CancelKeys::default(),
            turns: turns::Turns::default(),
            spare: spare::Spare::default(),
            log: setup.log,
            idle_cuts: setup.idle_cuts,
            stats: setup.stats,
            recorded: Box::default(),
            stall: Stall::new(now),
            refusals: Sample::default(),
            stop: Stop::Running,
        }
    }

    /// Turns until a stop has ended the last session.
    pub fn run(&mut self) {
        self.update_ports();
        while !self.is_finished() {
            self.turn();
        }
        // Hands over the last closes.
        self.kernel.wait(Some(Duration::ZERO), &mut self.batch);
    }

    /// Waits for a batch and handles it.
    pub fn turn(&mut self) {
        let timer = self.timers.next().unwrap_or(NEVER);
        let due = self.wait_until(timer);
        self.turns.begin();
        self.stall.on_wait(due);
        let timeout = between(self.now, due);
        let taken = self.take_events((due != NEVER).then_some(timeout));
        let began = self.now;
        self.take_what_is_ready(taken);
        self.take_turns();
        if self.now.saturating_sub(timer) >= STALL {
            self.catch_up_after_stall();
        }
        self.make_visits();
        self.expire();
        if self.now >= self.look_at {
            self.look_for_places();
        }
        self.answer_calls();
        self.sweep_banned();
        self.close_hoarders();
        self.log_progress();
        self.take_arrivals();
        if self.ports_changed || self.now >= self.ports_due {
            self.update_ports();
        }
        self.count_due();
        self.stats.sessions.set(self.slots.len() as u64);
        self.stats.parked.set(self.parked());
        self.stats.unfinished_headers.set(self.headers.len() as u64);
        self.stats.held.set(self.held.len() as u64);
        self.stats.arriving.set(self.arrivals.len() as u64);
        self.stats.bandwidth_rests.set(self.lanes.rests);
        self.stats
            .buffers
            .set(u64::from(self.kernel.buffers_in_use()));
        self.stats.pipes.set(u64::from(self.kernel.pipes_in_use()));
        self.stats.set_usage(self.kernel.usage());
        self.now = self.kernel.now();
        self.stall.on_turned(began, self.now);
        self.links.set_short(self.kernel.is_short_of_buffers());
        self.recorded.turn.record(self.now - began);
        self.stats.latencies.turn.record(self.now - began);
    }

    /// Waits for a batch, and hands each completion to its session. Returns how many came.
    fn take_batch(&mut self, timeout: Option<Duration>) -> usize {
        let mut batch = std::mem::take(&mut self.batch);
        self.kernel.wait(timeout, &mut batch);
        self.now = self.kernel.now();
        let taken = batch.len();
        self.stall.on_woken(self.now, taken);
        let mut completions = batch.drain(..);
        while let Some(completion) = completions.next() {
            let next = completions.as_slice().first();
            let ends = next.is_some_and(|next| next.token == completion.token && next.is_end());
            self.on_completion(completion, ends);
        }
        drop(completions);
        self.batch = batch;
        taken
    }

    /// The same as [`Self::take_batch`]; returns how many came that are no new clients.
    fn take_events(&mut self, timeout: Option<Duration>) -> usize {
        let before = self.arrivals.len();
        let taken = self.take_batch(timeout);
        taken.saturating_sub(self.arrivals.len() - before)
    }

    /// While clients wait for their turn, streams for their visits or sessions for their end, takes
    /// the events of open sessions first: the kernel hands out some 20 completions per wait.
    /// `taken` of them came last.
    fn take_what_is_ready(&mut self, mut taken: usize) {
        let mut batches = READY_BATCHES;
        let others_wait = |worker: &Self| {
            let turns = !worker.arrivals.is_empty() || worker.turns.has_waiting();
            turns || worker.has_due_visit() || worker.hoarders.leave()
        };
        while taken >= FULL_BATCH && batches > 0 && others_wait(self) {
            self.stall.on_wait(self.now);
            taken = self.take_events(Some(Duration::ZERO));
            batches -= 1;
        }
    }

    /// This thread did not run for a while: the process was stopped, or the machine is loaded. The
    /// completions of that time count before its deadlines. The kernel hands out some 20
    /// completions per wait, however many there are.
    fn catch_up_after_stall(&mut self) {
        for _ in 0..STALL_BATCHES {
            if self.take_batch(Some(Duration::ZERO)) == 0 {
                return;
            }
        }
    }

    /// Whether a stop has come to its end.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.stop != Stop::Running
            && self.slots.is_empty()
            && self.ports.iter().all(|(_, port)| port.is_closed())
    }

    /// The kernel, for the simulation to look into.
    pub fn kernel_mut(&mut self) -> &mut K {
        &mut self.kernel
    }

    /// When the next thing is to be done; `timer` is when the wheel is due.
    fn wait_until(&self, timer: u64) -> u64 {
        let waits = !self.arrivals.is_empty() || self.turns.has_waiting();
        if waits || self.is_called() || self.hoarders.leave() {
            return self.now;
        }
        let visit = self.visits.peek().map_or(NEVER, |Reverse((at, _))| *at);
        let look = if self.slots.is_empty() {
            NEVER
        } else {
            self.stall.look_at(self.now)
        };
        visit
            .min(timer)
            .min(look)
            .min(self.ports_due)
            .min(self.close_at)
            .min(self.ban_sweep.due(self.now, self.snapshot.bans.added()))
            .min(self.held.next())
            .min(self.headers.next())
            .min(self.look_at)
            .min(self.progress_due())
            .min(self.uncounted.turn_due())
            .min(self.stop.cuts_at())
    }

    fn on_completion(&mut self, completion: Completion, ends: bool) {
        let token = completion.token;
        let event = match token.purpose() {
            Purpose::Accept => return self.on_accept(completion),
            Purpose::Wake => return self.read_mailbox(),
            Purpose::Detached => return,
            Purpose::Connect => return self.on_connect_completed(token, completion.outcome),
            Purpose::Recv(from) => completed::received(from, completion.outcome, ends),
            Purpose::Send(to) => completed::sent(to, completion.outcome),
            Purpose::PollSource(from) => completed::source_ready(from, completion.outcome),
            Purpose::PollSink(to) => completed::sink_ready(to, completion.outcome),
            Purpose::Watch(side) => completed::watched(side, completion.outcome),
            Purpose::Header => return self.on_header_bytes(completion),
            Purpose::Retry | Purpose::Starvation(_) | Purpose::Pace(_) => {
                unreachable!("a visit is no kernel operation")
            }
        };
        self.deliver(token, event, completion.more);
    }

    pub(super) fn deliver(&mut self, token: Token, event: Event, more: bool) {
        let key = token.slot() as usize;
        let slot = &mut self.slots[key];
        assert_eq!(
            slot.generation,
            token.generation(),
            "a slot was freed under an operation"
        );
        if matches!(event, Event::Sent(..)) && !slot.moved {
            self.uncounted.note(key, slot);
        }
        self.with_session(key, |session, cx| session.on_event(event, more, cx));
    }

    fn has_due_visit(&self) -> bool {
        let first = self.visits.peek();
        first.is_some_and(|Reverse((at, _))| *at <= self.now)
    }

    /// Makes the visits that are due, the first that came due first, for [`VISITS_TIME`]. One may
    /// move a whole pipe of bytes: what a thousand streams have must not make others wait.
    fn make_visits(&mut self) {
        if !self.has_due_visit() {
            return;
        }
        let until = self.kernel.now().saturating_add(VISITS_TIME);
        while let Some(&Reverse((at, raw))) = self.visits.peek() {
            if at > self.now {
                break;
            }
            self.visits.pop();
            let token = Token::from_raw(raw).expect("only tokens are put on the heap");
            let event = match token.purpose() {
                Purpose::Retry => Event::Retry,
                Purpose::Starvation(from) => Event::Starvation(from),
                Purpose::Pace(from) => Event::Pace(from),
                Purpose::Accept
                | Purpose::Wake
                | Purpose::Detached
                | Purpose::Connect
                | Purpose::Header
                | Purpose::Recv(_)
                | Purpose::Send(_)
                | Purpose::PollSource(_)
                | Purpose::PollSink(_)
                | Purpose::Watch(_) => unreachable!("{token:?} is no visit"),
            };
            self.deliver(token, event, false);
            if self.kernel.now() >= until {
                return;
            }
        }
    }

    fn expire(&mut self) {
        let mut due = std::mem::take(&mut self.due);
        self.timers.expire(self.now, &mut due);
        for slot in due.drain(..) {
            let key = slot as usize;
            self.with_session(key, |session, cx| session.on_deadline(cx));
            self.set_timer(key);
        }
        self.due = due;
        if self.now >= self.close_at {
            self.close_due();
        }
        self.let_go_due();
        self.expire_headers();
        if self.now >= self.stop.cuts_at() {
            self.cut();
        }
    }

    /// Has the timer of a session, if it is still there, fire at its deadline or sooner: one that
    /// fires too early is set again.
    fn set_timer(&mut self, key: usize) {
        if let Some(slot) = self.slots.get(key) {
            self.timers.set(slot::number(key), slot.deadline(self.now));
        }
    }

    fn read_mailbox(&mut self) {
        // The receiver of an answer may be gone: then the answer is dropped.
        while let Ok(command) = self.mailbox.try_recv() {
            match command {
                Command::Publish(snapshot) => self.publish(snapshot),
                Command::TakeHistograms(reply) => {
                    let _ = reply.try_send((self.id, std::mem::take(&mut self.recorded)));
                }
                Command::Log(log) => self.set_log(log),
                Command::Sessions(filter, reply) => {
                    let _ = reply.try_send(self.list(&filter));
                }
                Command::Decisions(filter, reply) => {
                    let _ = reply.try_send(self.decisions.list(self.id, &filter));
                }
                Command::Preview(question, reply) => {
                    let _ = reply.try_send(self.preview(&question));
                }
                Command::Close(filter, reason, spread, reply) => {
                    let _ = reply.try_send(self.close_matching(filter, reason, spread));
                }
                Command::CloseDowned(backends) => self.close_downed(backends),
                Command::FreeMemory(bytes) => self.free_memory(bytes),
                Command::Beat(beat) => self.stats.progress.on_beat(beat),
                Command::Stop(grace) => {
                    self.let_all_go();
                    self.stop = Stop::Grace(self.now.saturating_add(nanos(grace)));
                    self.ports_changed = true;
                }
            }
        }
    }

    /// Ends what is left at the end of a stop's grace.
    fn cut(&mut self) {
        self.stop = Stop::Cut;
        self.drop_arrivals();
        self.drop_headers();
        self.drop_parked();
        let keys: Vec<usize> = self.slots.iter().map(|(key, _)| key).collect();
        for key in keys {
            self.with_session(key, |session, cx| session.close(CloseReason::Shutdown, cx));
        }
    }
}

/// A timer is never so late while the thread runs: 20 ms.
const STALL: u64 = 20 * MS;
/// Waits without a pause after a stall: enough for all sessions of a worker with usual limits.
const STALL_BATCHES: usize = 1_024;
/// Visits take so long in a turn, and the last of them longer: 1 ms.
const VISITS_TIME: u64 = MS;
/// Completions of a wait behind which there may be more.
const FULL_BATCH: usize = 16;
/// Waits without a pause before clients that wait get their turn all the same.
const READY_BATCHES: usize = 32;
