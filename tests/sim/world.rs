//! The world around the balancer: events that happen by themselves at their time.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;

use crossbeam::channel::Sender;
use mahoraga::guard::{Ban, BannedBy, Bans, Gate, Limit, ListenerBandwidth, Sources};
use mahoraga::kernel::{Completion, Done};
use mahoraga::pool::Pool;
use mahoraga::prefix::Prefix;
use mahoraga::session::SessionLimits;
use mahoraga::time::{MS, nanos};
use mahoraga::token::{Purpose, Token};
use mahoraga::worker::Command;

use crate::kernel::FakeKernel;
use crate::neighbour::Neighbour;
use crate::orders::{Close, List, client_ip};
use crate::rates::Rates;

/// What surrounds the balancer in one run.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) mailbox: Sender<Command>,
    pub(crate) commands: VecDeque<Command>,
    /// Each client sends a byte of a request after such a time, for ever; 0: what clients do is
    /// chance.
    pub(crate) drip: u64,
    /// Listeners whose clients come by proxies.
    pub(crate) proxied: BTreeSet<usize>,
    /// Clients ask for TLS before their first bytes.
    pub(crate) asks: bool,
    /// Clients ask to cancel what a session does whose backend has this port.
    pub(crate) cancels: Option<u16>,
    /// How backends behave, by port.
    pub(crate) backends: Vec<Temper>,
    /// The limit of descriptors.
    pub(crate) descriptors: usize,
    /// Some backends expect a header.
    pub(crate) introduces: bool,
    /// No descriptor is free for a while.
    pub(crate) famine: bool,
    /// No local port is free for a while.
    pub(crate) drought: bool,
    /// Meanwhile this machine does not have the source address either.
    pub(crate) sourceless: bool,
    /// How often a listener's backend on a Unix socket had a full backlog since it last accepted a
    /// connection, and since when, by listener and port.
    pub(crate) full_backlogs: BTreeMap<(usize, u16), (u64, u64)>,
    /// The limits that another worker shares, in all and per listener.
    pub(crate) in_all: Arc<Limit>,
    pub(crate) per_listener: Vec<Arc<Limit>>,
    pub(crate) sources: Arc<Sources>,
    pub(crate) gates: Vec<Arc<Gate>>,
    pub(crate) bans: Arc<Bans>,
    /// Addresses that were banned, with beginning and end.
    pub(crate) banned: Vec<(IpAddr, u64, u64)>,
    pub(crate) bandwidth: Vec<Arc<ListenerBandwidth>>,
    pub(crate) rates: Rates,
    pub(crate) others: u32,
    pub(crate) neighbour: Neighbour,
    /// The worker has woken the control thread since the last look.
    pub(crate) control_woken: Cell<bool>,
    pub(crate) limits: Vec<SessionLimits>,
    /// The pool of each listener so far, by publication; the worker may have any publication in
    /// `known`. A listener that is gone keeps its last pool.
    pub(crate) routes: Vec<Vec<Arc<Pool>>>,
    pub(crate) known: RangeInclusive<usize>,
    /// Listeners, by publication.
    pub(crate) in_force: Vec<Vec<usize>>,
    /// Listeners whose sockets were lost on the way.
    pub(crate) lost: BTreeSet<usize>,
    /// Orders that were sent.
    pub(crate) closes: Vec<Close>,
    pub(crate) lists: Vec<List>,
    pub(crate) beat: u64,
    /// When the run must be over, once the stop was sent.
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

/// An event that happens by itself at its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Event {
    /// An operation goes on; the serial distinguishes a later schedule from an earlier one.
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
    /// That worker looks for places that become free without a call.
    NeighbourLooks,
    /// That worker reads its inbox.
    NeighbourWakes,
    /// Clients of an address are banned for so long.
    Ban(u64, u64),
    /// A backend's behaviour changes.
    Temper(usize, u8),
    /// The control thread ends all ejections.
    Readmit,
    /// Time to check for streams that stand still.
    Tick,
}

impl FakeKernel {
    /// Runs an event whose time has come.
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
                self.world.sourceless = begins && self.random.permille(300);
            }
            Event::Others(wanted) => self.others_take(wanted),
            Event::Neighbour => self.neighbour_acts(),
            Event::NeighbourLooks => self.neighbour_looks(),
            Event::NeighbourWakes => self.neighbour_wakes(),
            Event::Ban(number, time) => self.ban(number, time),
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
                self.check_waiting_clients();
                self.make_bytes();
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
                self.stop_making();
            }
            Command::TakeHistograms(_)
            | Command::Log(_)
            | Command::Sessions(..)
            | Command::Decisions(..)
            | Command::Preview(..)
            | Command::Close(..)
            | Command::CloseDowned(_)
            | Command::FreeMemory(_)
            | Command::Beat(_) => {}
        }
        self.world.mailbox.send(command).expect("the worker reads");
        self.wake();
    }

    fn ban(&mut self, number: u64, time: u64) {
        let (ip, until) = (client_ip(number), self.now + time);
        let prefix = Prefix::new(ip, 32).expect("an address");
        let ban = Ban::new(prefix, BannedBy::Hand, "".into(), (0, until));
        self.world.bans.add(ban, self.now).expect("there is room");
        self.world.banned.push((ip, self.now, until));
        self.wake();
    }

    fn wake(&mut self) {
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

    /// Another worker takes or leaves places of each limit, until it holds this many.
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

/// The interval of the checks for streams that stand still.
pub(crate) const TICK: u64 = 50 * MS;
