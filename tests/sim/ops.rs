//! Operations in flight and how they go on: short, late, failing, or not at all.

use mahoraga::kernel::{BUFFER_BYTES, Buffer, BufferId, Completion, Done, Errno, Interest, Socket};
use mahoraga::time::US;
use mahoraga::token::{Purpose, Side, Token};

use crate::connects::Fate;
use crate::kernel::{FakeKernel, index, listening};
use crate::net::{Hold, RDHUP};
use crate::vain::Try;
use crate::world::Event;

/// An operation from its submission until its last completion is reported.
#[derive(Debug)]
pub(crate) struct InFlight {
    pub(crate) token: Token,
    pub(crate) fd: i32,
    pub(crate) kind: Kind,
    /// The schedule in force; a cancel may replace an earlier one.
    scheduled: Option<u64>,
    /// It was cancelled, and may still do this many steps as if it had not been.
    pub(crate) cancelled: Option<u32>,
    /// It will end once with this error, whatever the state of its socket.
    fault: Option<Errno>,
    /// Completions that are not reported yet.
    unreported: u32,
    /// Its last completion is among them.
    done: bool,
    /// Its last completion is in the batch that the worker handles now.
    pub(crate) reported: bool,
}

/// What an operation does.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Accept,
    Connect(Fate),
    /// This many bytes are left for it.
    Recv {
        most: u32,
    },
    Send {
        buffer: Buffer,
        more: bool,
    },
    /// `reported`: the events so far, if it goes on; `seen`: the bytes that had arrived then.
    Poll {
        interest: Interest,
        reported: u32,
        seen: u64,
    },
}

impl InFlight {
    pub(crate) fn new(token: Token, fd: i32, kind: Kind, fault: Option<Errno>) -> Self {
        Self {
            token,
            fd,
            kind,
            scheduled: None,
            cancelled: None,
            fault,
            unreported: 0,
            done: false,
            reported: false,
        }
    }
}

impl Kind {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::Connect(_) => "connect",
            Self::Recv { .. } => "recv",
            Self::Send { .. } => "send",
            Self::Poll { interest, .. } => match interest {
                Interest::Read => "poll read",
                Interest::Bytes => "poll bytes",
                Interest::Write => "poll write",
                Interest::Room => "poll room",
                Interest::Fault => "poll fault",
            },
        }
    }

    pub(crate) fn reads(&self) -> bool {
        let polls = matches!(self.interest(), Some(Interest::Read | Interest::Bytes));
        polls || matches!(self, Self::Recv { .. })
    }

    pub(crate) fn writes(&self) -> bool {
        let polls = matches!(self.interest(), Some(Interest::Write | Interest::Room));
        polls || matches!(self, Self::Send { .. })
    }

    fn interest(&self) -> Option<Interest> {
        match *self {
            Self::Poll { interest, .. } => Some(interest),
            Self::Accept | Self::Connect(_) | Self::Recv { .. } | Self::Send { .. } => None,
        }
    }

    /// Whether a poll goes on until it is cancelled.
    fn goes_on(&self) -> bool {
        let goes_on = [Interest::Bytes, Interest::Room, Interest::Fault];
        self.interest().is_some_and(|its| goes_on.contains(&its))
    }

    pub(crate) fn sends(&self, id: BufferId) -> bool {
        matches!(self, Self::Send { buffer, .. } if buffer.id == id)
    }
}

/// Scheduling.
impl FakeKernel {
    pub(crate) fn draw_fault(&mut self, kind: &Kind) -> Option<Errno> {
        let (odds, errnos): (u64, &[i32]) = match kind {
            Kind::Accept => (120, &[libc::EMFILE, libc::ENFILE, libc::ECONNABORTED]),
            Kind::Recv { .. } => (
                15,
                &[libc::EINTR, libc::EAGAIN, libc::ENOBUFS, libc::ENOMEM],
            ),
            Kind::Send { .. } => (5, &[libc::EINTR, libc::EAGAIN, libc::ENOMEM]),
            // Not an error: a wake-up without cause.
            Kind::Poll { .. } if !kind.goes_on() => (50, &[0]),
            Kind::Poll { .. } | Kind::Connect(_) => return None,
        };
        let strikes = self.random.permille(odds);
        strikes.then(|| Errno(self.random.pick(errnos)))
    }

    pub(crate) fn schedule(&mut self, token: u64) {
        let delay = self.random.lag();
        self.schedule_after(token, delay);
    }

    pub(crate) fn schedule_after(&mut self, token: u64, delay: u64) {
        let serial = self.serial();
        if let Some(op) = self.ops.get_mut(&token) {
            op.scheduled = Some(serial);
            self.after(delay, Event::Step(token, serial));
        }
    }

    /// Lets the operations on a socket see that it has changed.
    pub(crate) fn wake_ops(&mut self, fd: i32) {
        let ours = |op: &&InFlight| op.fd == fd;
        let tokens: Vec<u64> = self
            .ops
            .values()
            .filter(ours)
            .map(|op| op.token.raw())
            .collect();
        for token in tokens {
            self.wake_op(token);
        }
    }

    pub(crate) fn wake_op(&mut self, token: u64) {
        let Some(op) = self.ops.get_mut(&token) else {
            return;
        };
        if let Kind::Poll {
            interest, reported, ..
        } = &mut op.kind
        {
            // An event that has passed is reported again when it comes back.
            *reported &= self.conns[index(op.fd)].events(*interest);
        }
        let op = &self.ops[&token];
        let free = op.scheduled.is_none() && !op.done && op.unreported < UNREPORTED_MAX;
        if free && self.is_ready(op) {
            self.schedule(token);
        }
    }

    fn is_ready(&self, op: &InFlight) -> bool {
        match op.kind {
            Kind::Accept => !self.listeners[listening(op.fd)].backlog.is_empty(),
            Kind::Connect(_) => false,
            Kind::Recv { .. } => self.conns[index(op.fd)].is_readable(),
            Kind::Send { .. } => true,
            Kind::Poll {
                interest,
                reported,
                seen,
            } => {
                let conn = &self.conns[index(op.fd)];
                let arrived = interest == Interest::Bytes && conn.arrived() > seen;
                arrived || conn.events(interest) & !reported != 0
            }
        }
    }

    /// A cancel may come too late: the operation has ended already, or goes on for a while.
    pub(crate) fn cancel_op(&mut self, target: Token) {
        let late = if self.random.permille(600) {
            0
        } else {
            u32::try_from(self.random.between(1, u64::from(LATE_MAX))).expect("few")
        };
        let delay = self.random.lag();
        let op = self.ops.get_mut(&target.raw());
        let op = op.unwrap_or_else(|| panic!("{target:?} is cancelled, but not in flight"));
        if op.done {
            self.trace.see("cancel of what has ended already");
        } else if op.cancelled.is_none() {
            op.cancelled = Some(late);
            self.schedule_after(target.raw(), delay);
        }
    }

    /// An operation goes on.
    pub(crate) fn step(&mut self, token: u64, serial: u64) {
        let Some(op) = self.ops.get_mut(&token) else {
            return;
        };
        if op.scheduled != Some(serial) || op.done {
            return;
        }
        op.scheduled = None;
        let (name, kind, fd) = (op.token, op.kind, op.fd);
        if let Some(errno) = op.fault.take() {
            return self.fail_by_chance(name, kind, fd, errno);
        }
        if op.cancelled == Some(0) {
            return self.end_cancelled(name);
        }
        if let Some(late) = &mut op.cancelled {
            *late -= 1;
        }
        let before = self.completed.len();
        match kind {
            Kind::Accept => self.step_accept(name, listening(fd)),
            Kind::Connect(fate) => self.step_connect(name, fd, fate),
            Kind::Recv { most } => self.step_recv(name, fd, most),
            Kind::Send { .. } => self.step_send(name, fd, kind),
            Kind::Poll { interest, .. } => self.step_poll(name, fd, interest),
        }
        let op = &self.ops[&token];
        if op.cancelled.is_some() {
            if self.completed.len() > before {
                self.trace.see("completion after a cancel");
            }
            if !op.done {
                self.schedule(token);
            }
        }
        self.wake_op(token);
    }

    fn fail_by_chance(&mut self, token: Token, kind: Kind, fd: i32, errno: Errno) {
        match kind {
            Kind::Poll { .. } => {
                self.trace.see("spurious wake-up");
                self.complete(token, Ok(Done::Count(1)), false);
            }
            Kind::Accept => {
                self.trace.see("accept failed");
                self.complete(token, Err(errno), false);
            }
            Kind::Recv { .. } | Kind::Send { .. } | Kind::Connect(_) => {
                match kind {
                    Kind::Recv { .. } => self.on_vain(fd, Try::Receive),
                    Kind::Send { .. } => self.on_vain_to(fd, Try::Send),
                    Kind::Accept | Kind::Connect(_) | Kind::Poll { .. } => {}
                }
                if errno == Errno::NOBUFS {
                    self.on_starved();
                }
                self.trace.see("receive or send failed in passing");
                self.complete(token, Err(errno), false);
            }
        }
    }

    pub(crate) fn end_cancelled(&mut self, token: Token) {
        self.trace.see("cancel won");
        self.complete(token, Err(Errno::CANCELED), false);
    }

    pub(crate) fn complete(&mut self, token: Token, outcome: Result<Done, Errno>, more: bool) {
        let op = self.ops.get_mut(&token.raw()).expect("in flight");
        assert!(!op.done, "the fake kernel ends an operation twice");
        op.unreported += 1;
        op.done = !more;
        self.completed.push_back(Completion {
            token,
            outcome,
            more,
        });
    }

    pub(crate) fn on_reaped(&mut self, completion: &Completion) {
        if completion.token.purpose() == Purpose::Wake {
            self.woken = true;
            return;
        }
        let token = completion.token.raw();
        let op = self
            .ops
            .get_mut(&token)
            .expect("in flight until its end is reported");
        op.unreported -= 1;
        op.reported = !completion.more;
        self.wake_op(token);
    }
}

/// What each kind does in a step.
impl FakeKernel {
    fn step_accept(&mut self, token: Token, listener: usize) {
        if self.listeners[listener].backlog.is_empty() {
            return;
        }
        if self.lacks_descriptors() {
            self.trace.see("accept failed for want of descriptors");
            return self.complete(token, Err(Errno(libc::EMFILE)), false);
        }
        let Some(fd) = self.listeners[listener].backlog.pop_front() else {
            return;
        };
        self.conn(fd).hold = Hold::Open;
        let many = self.listeners[listener].many;
        let more = many && !self.random.permille(60);
        if many && !more {
            self.trace.see("multishot accept ended");
        }
        self.complete(token, Ok(Done::Accepted(Socket::from_raw(fd))), more);
    }

    fn step_recv(&mut self, token: Token, fd: i32, left: u32) {
        let unread = self.conn(fd).unread();
        if unread == 0 {
            if let Some(end) = self.conn(fd).recv_end() {
                let reset = self.conn(fd).is_reset();
                if reset && end.is_ok() && !self.conn(fd).inbound.fin {
                    self.trace.see("a reset that looks like an end of stream");
                }
                if self.conn(fd).partner.is_none() {
                    self.conn(fd).moved_at = self.now;
                    self.trace.see(match end {
                        Ok(()) => "end of a client while connecting",
                        Err(_) => "reset of a client while connecting",
                    });
                }
                self.complete(token, end.map(|()| Done::Count(0)), false);
            }
            return;
        }
        if self.free.is_empty() {
            self.on_starved();
            self.on_vain(fd, Try::Receive);
            return self.complete(token, Err(Errno::NOBUFS), false);
        }
        let most = unread.min(u64::from(left.min(BUFFER_BYTES)));
        let len = if self.random.permille(850) {
            most
        } else {
            self.random.between(1, most)
        };
        let buffer = self.fill_buffer(fd, len);
        let held = self.conn(fd).buffers;
        assert!(held <= HELD_MAX, "{held} buffers are held for {fd}");
        self.trace
            .most("buffers held for one direction", u64::from(held));
        let more = left >= BUFFER_BYTES && left > buffer.len && !self.random.permille(30);
        if !more {
            self.trace.see("multishot receive ended with bytes");
        }
        let left = left - buffer.len;
        if let Some(op) = self.ops.get_mut(&token.raw()) {
            op.kind = Kind::Recv { most: left };
        }
        if self.conn(fd).partner.is_none() {
            self.trace.see("bytes of a client while connecting");
        }
        self.complete(token, Ok(Done::Received(buffer)), more);
        let ends = self.conn(fd).unread() == 0 && self.conn(fd).is_readable();
        let room = self.ops[&token.raw()].unreported < UNREPORTED_MAX;
        if more && ends && room && self.random.permille(600) {
            self.step_recv(token, fd, left);
        }
    }

    fn on_starved(&mut self) {
        self.starved_at = self.now;
        self.trace.see("no buffer for a receive");
    }

    /// Bytes from a backend that broke because of what was sent to it.
    pub(crate) fn note_early_answer(&mut self, fd: i32) {
        let conn = self.conn(fd);
        if conn.side == Side::Backend && conn.known_broken {
            self.trace.see("early answer after a broken sink");
        }
    }

    fn step_send(&mut self, token: Token, fd: i32, kind: Kind) {
        let Kind::Send { buffer, more } = kind else {
            unreachable!("{kind:?} is no send");
        };
        let conn = self.conn(fd);
        if conn.refuses_bytes() {
            let errno = conn.send_error();
            self.trace.see("send to a broken connection");
            return self.complete(token, Err(errno), false);
        }
        let mut bytes = u64::from(buffer.len).min(conn.outbound_room());
        if self.takes_nothing(fd) {
            bytes = 0;
        } else if self.random.permille(20) {
            bytes = self.random.between(bytes.min(1), bytes);
        }
        if bytes == 0 {
            self.on_vain_to(fd, Try::Send);
            self.trace.see("no room for a send");
            return self.complete(token, Err(Errno(libc::EAGAIN)), false);
        }
        let sent = u32::try_from(bytes).expect("a length");
        let bytes = usize::try_from(bytes).expect("a length");
        let from = buffer.start as usize;
        let held = std::mem::take(&mut self.buffers[usize::from(buffer.id)].bytes);
        // A send that ends for lack of room lets go of what it has (`tcp_sendmsg`).
        let all = from + bytes == held.len();
        self.deliver(fd, &held[from..from + bytes], more && all);
        self.buffers[usize::from(buffer.id)].bytes = held;
        if sent < buffer.len {
            self.trace.see("short send");
        }
        self.complete(token, Ok(Done::Count(sent)), false);
    }

    fn step_poll(&mut self, token: Token, fd: i32, interest: Interest) {
        let op = &self.ops[&token.raw()];
        if !self.is_ready(op) {
            return;
        }
        let more = op.kind.goes_on() && !self.random.permille(20);
        let conn = self.conn(fd);
        let events = conn.events(interest);
        let seen = conn.arrived();
        if interest == Interest::Bytes {
            conn.fault_seen |= conn.error_pending;
            self.trace.see("bytes wait for a buffer");
        } else if interest == Interest::Fault {
            conn.fault_seen |= conn.error_pending;
            let what = if conn.error_pending {
                "fault seen by a watch"
            } else {
                "hang-up seen by a watch"
            };
            self.trace.see(what);
        }
        if matches!(interest, Interest::Write | Interest::Room) && events == RDHUP {
            self.trace.see(if more {
                "a poll that goes on reports an end"
            } else {
                "a poll for room ended in vain"
            });
            self.on_vain_to(fd, Try::PollForRoom);
        }
        let op = self.ops.get_mut(&token.raw()).expect("in flight");
        op.kind = Kind::Poll {
            interest,
            reported: events,
            seen,
        };
        self.complete(token, Ok(Done::Count(events)), more);
    }
}

/// The number of an operation's completions that may wait to be reported.
const UNREPORTED_MAX: u32 = 4;
/// Steps that an operation still does after a cancel.
const LATE_MAX: u32 = 3;
/// Buffers held for one direction: 4 stop the receive, but its other completions of the batch and
/// its late steps still come; and what goes before them.
const HELD_MAX: u32 = 5 + UNREPORTED_MAX + LATE_MAX;
/// A peer's reaction takes at least this.
pub(crate) const REACTION: u64 = US;
