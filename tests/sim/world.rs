//! The world around the balancer: what happens by itself, when its time has come.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::RangeInclusive;
use std::sync::Arc;

use crossbeam::channel::Sender;
use mahoraga::guard::Limit;
use mahoraga::kernel::{Completion, Done};
use mahoraga::pool::Pool;
use mahoraga::session::SessionLimits;
use mahoraga::time::nanos;
use mahoraga::token::{Purpose, Token};
use mahoraga::worker::Command;

use crate::kernel::FakeKernel;
use crate::neighbour::Neighbour;
use crate::orders::{Close, List};
use crate::random::MS;

/// What surrounds the balancer in one run.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) mailbox: Sender<Command>,
    pub(crate) commands: VecDeque<Command>,
    /// How backends behave, by port.
    pub(crate) backends: Vec<Temper>,
    /// Descriptors at most.
    pub(crate) descriptors: usize,
    /// No descriptor is to be had for a while.
    pub(crate) famine: bool,
    /// No local port is free for a while.
    pub(crate) drought: bool,
    /// How often a listener's backend on a Unix socket had a full backlog since it last took a
    /// connection, and since when, by its port.
    pub(crate) full_backlogs: BTreeMap<(usize, u16), (u64, u64)>,
    /// Another worker's share of the limits, in all and per listener.
    pub(crate) in_all: Arc<Limit>,
    pub(crate) per_listener: Vec<Arc<Limit>>,
    pub(crate) others: u32,
    pub(crate) neighbour: Neighbour,
    pub(crate) limits: Vec<SessionLimits>,
    /// Where each listener that there was leads to, by publication; the worker knows of one in
    /// `known`. A listener that is gone keeps its last pool.
    pub(crate) routes: Vec<Vec<Arc<Pool>>>,
    pub(crate) known: RangeInclusive<usize>,
    /// Listeners, by publication.
    pub(crate) in_force: Vec<Vec<usize>>,
    /// Those whose listening sockets got lost on the way.
    pub(crate) lost: BTreeSet<usize>,
    /// What was ordered.
    pub(crate) closes: Vec<Close>,
    pub(crate) lists: Vec<List>,
    pub(crate) beat: u64,
    /// When everything has to be over, once the stop was sent.
    pub(crate) over_at: Option<u64>,
}

/// How a backend answers a connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Temper {
    Good,
    Refusing,
    Silent,
    Moody,
}

/// What happens by itself at some time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Event {
    /// An operation goes on; the serial tells a later schedule from an earlier one.
    Step(u64, u64),
    /// A peer goes on with its script.
    Act(i32),
    /// A peer reads.
    Read(i32),
    /// A peer's RST arrives.
    Reset(i32),
    /// A client connects to a listener.
    Arrive(usize),
    /// The control thread sends its next command.
    Command,
    /// Descriptors run out or are back.
    Famine(bool),
    /// Local ports run out or are back.
    Drought(bool),
    /// Another worker takes places, or leaves them.
    Others(u32),
    /// One of another worker's clients does something.
    Neighbour,
    /// That worker looks for places of which nobody is told.
    NeighbourLooks,
    /// That worker reads what it was called for.
    NeighbourWakes,
    /// A backend's mood changes.
    Temper(usize, u8),
    /// The control thread ends all ejections.
    Readmit,
    /// Time to look for what stands still.
    Tick,
}

impl FakeKernel {
    /// An event's time has come.
    pub(crate) fn happen(&mut self, event: Event) {
        match event {
            Event::Step(token, serial) => self.step(token, serial),
            Event::Act(fd) => self.act(fd),
            Event::Read(fd) => self.peer_reads(fd),
            Event::Reset(fd) => self.on_reset(fd),
            Event::Arrive(listener) => self.arrive(listener),
            Event::Command => self.send_command(),
            Event::Famine(begins) => {
                self.trace.fact("famine", 0, u64::from(begins));
                self.world.famine = begins;
            }
            Event::Drought(begins) => {
                self.trace.fact("drought", 0, u64::from(begins));
                self.world.drought = begins;
            }
            Event::Others(wanted) => self.others_take(wanted),
            Event::Neighbour => self.neighbour_acts(),
            Event::NeighbourLooks => self.neighbour_looks(),
            Event::NeighbourWakes => self.neighbour_wakes(),
            Event::Temper(backend, mood) => {
                let tempers = [
                    Temper::Good,
                    Temper::Refusing,
                    Temper::Silent,
                    Temper::Moody,
                ];
                self.world.backends[backend] = tempers[usize::from(mood) % 4];
            }
            Event::Readmit => self.readmit(),
            Event::Tick => {
                self.look_for_stalls();
                self.look_for_leftovers();
                self.look_for_those_who_wait();
                self.after(TICK, Event::Tick);
            }
        }
    }

    fn send_command(&mut self) {
        let command = self.world.commands.pop_front().expect("one per event");
        let command = self.note_order(command);
        self.trace.fact("command", 0, 0);
        match &command {
            Command::Publish(_) => {
                self.trace.see("publication");
                let (oldest, newest) = (*self.world.known.start(), *self.world.known.end());
                self.begin_listening(newest + 1);
                self.world.known = oldest..=newest + 1;
                self.neighbour_looks_for_its_own();
            }
            Command::Stop(grace) => {
                self.world.over_at = Some(self.now + nanos(*grace));
            }
            Command::TakeHistograms(_)
            | Command::Log(_)
            | Command::Sessions(..)
            | Command::Close(..)
            | Command::CloseDowned(_)
            | Command::Beat(_) => {}
        }
        self.world.mailbox.send(command).expect("the worker reads");
        self.completed.push_back(Completion {
            token: Token::of(Purpose::Wake),
            outcome: Ok(Done::Count(1)),
            more: true,
        });
    }

    fn readmit(&mut self) {
        let pools = self.world.routes.iter().flatten();
        let backends = pools.flat_map(|pool| &pool.backends);
        if backends.filter(|backend| backend.readmit()).count() > 0 {
            self.trace.see("readmission");
            self.world.neighbour.readmitted_at = self.now;
        }
    }

    /// Another worker comes to hold so many places of each limit.
    pub(crate) fn others_take(&mut self, wanted: u32) {
        let limits = || self.world.per_listener.iter().chain([&self.world.in_all]);
        while self.world.others > wanted {
            limits().for_each(|limit| limit.release());
            self.world.others -= 1;
        }
        while self.world.others < wanted && limits().all(|limit| !limit.is_full()) {
            limits().for_each(|limit| assert!(limit.try_acquire()));
            self.world.others += 1;
        }
    }
}

/// Between two looks for what stands still.
pub(crate) const TICK: u64 = 50 * MS;
