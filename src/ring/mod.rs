//! The io_uring of one worker: operations to submission entries, completion entries to
//! completions. No other module knows either.
//!
//! Ownership, for every `SAFETY` below: an entry names memory of two kinds. Receive and send
//! buffers lie in the arena of `Buffers`, whose numbers are held by sessions from completion, or
//! `take_buffer`, to `give_back`, so never reused while an operation is in flight. Socket addresses
//! lie in `addresses`, which is cleared only when the kernel has taken every entry. Both outlive
//! every operation that names them: a worker ends when no session is left, and with it nothing is
//! in flight but the poll of the eventfd, which names no memory.

#![expect(
    unsafe_code,
    reason = "the kernel is given addresses and descriptors here, only here"
)]

mod buffers;
mod memory;
mod pipes;
mod reap;
mod setup;
#[cfg(test)]
mod tests;
mod wakes;

use std::cmp::Ordering;
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use io_uring::{EnterFlags, IoUring, opcode, squeue, types};
use socket2::SockAddr;

use crate::address::Address;
use crate::fault::Fault;
use crate::kernel::{
    BUFFER_BYTES, Buffer, BufferId, Completion, Errno, Interest, Kernel, Manner, Pipe, Pumped,
    RECV_BYTES_MAX, Sleeper, Socket, TcpInfo, Usage,
};
use crate::origin::Origin;
use crate::sys;
use crate::token::{Purpose, Token};

use buffers::{Buffers, GROUP};
use pipes::Pipes;
pub use setup::{Features, SetupError, probe};
pub use wakes::Wakes;

/// How large a worker's ring is.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Submission entries: a batch beyond them is handed over early.
    pub submissions: u32,
    /// Receive buffers at most, up to 32,768.
    pub buffers: u16,
    /// Pipes at most.
    pub pipes: u32,
}

/// The [`Kernel`] of a worker. Fields are dropped in this order: the ring before what it points at.
pub struct Ring {
    uring: IoUring,
    buffers: Buffers,
    /// Addresses of connects that the kernel has not taken yet. Never grows beyond its capacity,
    /// so never moves.
    addresses: Vec<SockAddr>,
    pipes: Pipes,
    /// Bytes that are passed on without a buffer are read into this one.
    scratch: Box<[u8]>,
    features: Features,
    wakes: Wakes,
    /// The socket by which the control thread hands over listening sockets.
    inlet: Arc<OwnedFd>,
    /// Listening sockets that arrived and were not asked for yet, by their listeners' ids.
    handed: VecDeque<(u64, OwnedFd)>,
    /// Descriptors that only hold their numbers, for backends of clients that were accepted when
    /// there are no others: what was accepted can always be served, one after the other.
    spares: Vec<OwnedFd>,
    /// A descriptor was closed since spares were last looked at.
    closed: bool,
    /// Without the other calls, which are counted where they are made.
    usage: Usage,
}

impl Ring {
    /// A ring for the calling thread, the only one that may use it. Listening sockets come through
    /// `inlet` ([`sys::descriptor_channel`]).
    ///
    /// # Errors
    /// [`SetupError`], as [`probe`].
    pub fn new(
        features: Features,
        size: Size,
        wakes: Wakes,
        inlet: Arc<OwnedFd>,
    ) -> Result<Self, SetupError> {
        let (uring, buffers) = setup::build(features, size.submissions, size.buffers)?;
        let mut ring = Self {
            uring,
            buffers,
            addresses: Vec::with_capacity(ADDRESSES_MAX),
            pipes: Pipes::new(size.pipes),
            scratch: vec![0; BUFFER_BYTES as usize].into(),
            features,
            wakes,
            inlet,
            handed: VecDeque::new(),
            spares: Vec::with_capacity(SPARES),
            closed: false,
            usage: Usage::default(),
        };
        ring.restock_spares();
        ring.await_wake();
        Ok(ring)
    }

    fn await_wake(&mut self) {
        let wake = types::Fd(self.wakes.own().as_raw_fd());
        let poll = opcode::PollAdd::new(wake, POLLIN).multi(true).build();
        self.push(poll, Token::of(Purpose::Wake));
    }

    fn restock_spares(&mut self) {
        self.closed = false;
        while self.spares.len() < SPARES {
            let Ok(spare) = sys::duplicate(self.wakes.own()) else {
                return;
            };
            self.spares.push(spare);
        }
    }

    /// Queues an entry, handing the queue over first when it is full.
    fn push(&mut self, entry: squeue::Entry, token: Token) {
        let entry = entry.user_data(token.raw());
        loop {
            // SAFETY: every entry made in this module names memory owned as the module's text
            // says, until the completion of its token.
            if unsafe { self.uring.submission().push(&entry) }.is_ok() {
                return;
            }
            self.submit();
        }
    }

    /// An entry that completes only when it fails.
    fn push_detached(&mut self, entry: squeue::Entry) {
        self.push(
            entry.flags(squeue::Flags::SKIP_SUCCESS),
            Token::of(Purpose::Detached),
        );
    }

    /// Queues an entry that the kernel cancels while this thread ends, also when it is killed.
    /// Other entries hold their files until the kernel has torn down the ring, some ticks after
    /// the process is gone: a listener would go on accepting clients that no one serves.
    ///
    /// A thread that ends cancels each chain of entries in which one is marked as in flight, and
    /// a wait on a futex is marked from the moment it is handed over (`io_req_track_inflight` and
    /// `io_match_linked` in the kernel's io_uring). So such a wait is linked behind the entry. It
    /// never waits: it is cancelled when the entry fails, and its value is wrong when it runs.
    fn push_tracked(&mut self, entry: squeue::Entry, token: Token) {
        // The word lives as long as the process, and the kernel only reads it.
        static WORD: u32 = 0;
        let wrong = u64::from(!WORD);
        let never = opcode::FutexWait::new(&raw const WORD, wrong, ANY_BIT, WORD_OF_32_BITS);
        // A chain ends where a batch ends.
        if self.room() < 2 {
            self.submit();
        }
        self.push(entry.flags(squeue::Flags::IO_LINK), token);
        self.push(never.build(), Token::of(Purpose::Detached));
    }

    /// Entries that fit in the queue before it must be handed over.
    fn room(&mut self) -> usize {
        let queue = self.uring.submission();
        queue.capacity() - queue.len()
    }

    /// Hands the queue over without waiting.
    fn submit(&mut self) {
        self.usage.enters += 1;
        match self.uring.submit() {
            Ok(taken) => self.usage.submissions += taken as u64,
            Err(error) if is_passing(&error) => {}
            Err(error) => panic!("io_uring_enter: {error}"),
        }
        self.forget_addresses();
    }

    /// Hands the queue over and waits for a completion. The wait always has the poll of the
    /// eventfd pending, so it counts as I/O wait unless a flag says otherwise: an idle
    /// balancer would show as a machine that waits for its disks.
    fn submit_and_wait(&mut self, timeout: Option<Duration>) {
        let timespec = timeout.map(types::Timespec::from);
        let mut args = types::SubmitArgs::new();
        if let Some(timespec) = &timespec {
            args = args.timespec(timespec);
        }
        let mut flags = EnterFlags::GETEVENTS | EnterFlags::EXT_ARG;
        flags.set(EnterFlags::NO_IOWAIT, self.features.no_iowait);
        let queued = u32::try_from(self.uring.submission().len()).unwrap_or(u32::MAX);
        // The crate's own call for this cannot pass NO_IOWAIT.
        // SAFETY: EXT_ARG makes the kernel read `args` and the `timespec` in it, both owned by
        // this function, and it is done with them when the call returns. What the queued entries
        // name is owned as the module's text says.
        let entered = unsafe {
            self.uring
                .submitter()
                .enter(queued, 1, flags.bits(), Some(&args))
        };
        self.usage.enters += 1;
        match entered {
            Ok(taken) => self.usage.submissions += taken as u64,
            Err(error) if is_passing(&error) => {}
            Err(error) => panic!("io_uring_enter: {error}"),
        }
        self.forget_addresses();
    }

    /// The kernel has its own copy of an address once it has taken the entry.
    fn forget_addresses(&mut self) {
        if !self.addresses.is_empty() && self.uring.submission().is_empty() {
            self.addresses.clear();
        }
    }
}

impl Kernel for Ring {
    fn wake(&self, thread: Sleeper) {
        match thread {
            Sleeper::Worker(number) => sys::notify(&self.wakes.workers[number as usize]),
            Sleeper::Control => self.wakes.control.ring(),
            Sleeper::LogWriter => self.wakes.log_writer.ring(),
        }
    }

    fn now(&self) -> u64 {
        sys::monotonic()
    }

    fn wait(&mut self, timeout: Option<Duration>, completions: &mut Vec<Completion>) {
        self.buffers.restock(self.pipes.leased() * BUFFERS_PER_PIPE);
        // An idle worker looks after its memory once before it sleeps for long.
        let bloated = self.buffers.is_bloated();
        let trims = bloated && timeout.is_none_or(|timeout| timeout > TRIM_AFTER);
        let timeout = if trims { Some(TRIM_AFTER) } else { timeout };
        self.submit_and_wait(timeout);
        if self.closed && self.spares.len() < SPARES {
            self.restock_spares();
        }
        self.reap(completions);
        // What has overflowed the completion queue is filled as well, and not taken yet.
        let idle = trims && completions.is_empty();
        if (idle || self.buffers.is_trim_due()) && !self.uring.submission().cq_overflow() {
            self.buffers.trim();
        }
        if idle {
            self.pipes.close_idle();
        }
    }

    fn accept(&mut self, token: Token, listener: &Socket, many: bool) {
        let fd = types::Fd(listener.raw());
        let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        let accept = if many {
            opcode::AcceptMulti::new(fd).flags(flags).build()
        } else {
            // The peer's address is asked for only when it is needed.
            let no_address = std::ptr::null_mut();
            opcode::Accept::new(fd, no_address, no_address.cast())
                .flags(flags)
                .build()
        };
        if self.features.prompt_close {
            self.push_tracked(accept, token);
        } else {
            self.push(accept, token);
        }
    }

    fn accept_now(&mut self, listener: &Socket) -> Option<Socket> {
        sys::accept(listener)
    }

    fn set_backlog(&mut self, listener: &Socket, most: u32) {
        sys::set_backlog(listener, most);
    }

    fn dropped_clients(&self, listener: &Socket) -> u32 {
        sys::dropped_clients(listener)
    }

    fn adopt(&mut self, listener: u64) -> Option<Socket> {
        loop {
            while let Some((id, socket)) = self.handed.pop_front() {
                match id.cmp(&listener) {
                    Ordering::Less => drop(socket),
                    Ordering::Equal => return Some(Socket::from_raw(socket.into_raw_fd())),
                    Ordering::Greater => {
                        self.handed.push_front((id, socket));
                        return None;
                    }
                }
            }
            // Those that wait come in even where the table is full.
            self.spares.drain(..).for_each(sys::close_owned);
            self.closed = true;
            if !sys::receive_descriptors(&self.inlet, &mut self.handed) {
                return None;
            }
        }
    }

    fn connect(
        &mut self,
        token: Token,
        socket: &Socket,
        to: &Address,
    ) -> Option<Result<(), Errno>> {
        if let Address::Unix(_) = to {
            // The kernel answers at once. From the ring a full backlog would be asked 128 times,
            // and then by a thread of its own.
            return Some(sys::connect_now(socket, to));
        }
        while self.addresses.len() == self.addresses.capacity() {
            self.submit();
        }
        self.addresses.push(sys::socket_address(to));
        let address = self.addresses.last().expect("pushed just now");
        let (pointer, len) = (address.as_ptr().cast(), address.len());
        self.push(
            opcode::Connect::new(types::Fd(socket.raw()), pointer, len).build(),
            token,
        );
        None
    }

    fn recv(&mut self, token: Token, socket: &Socket, most: u32) {
        let socket = types::Fd(socket.raw());
        let recv = opcode::RecvMulti::new(socket, GROUP).build();
        let short = self.buffers.is_short();
        let most = most.min(if short { BUFFER_BYTES } else { RECV_BYTES_MAX });
        // A buffer is the least that a multishot receive can be bounded to.
        let bounded = self.features.bounded_recv;
        let least = [RECV_BYTES_MAX, BUFFER_BYTES][usize::from(bounded)];
        let recv = if most < least {
            let (buffer, len) = (std::ptr::null_mut(), most.min(BUFFER_BYTES));
            let once = opcode::Recv::new(socket, buffer, len).buf_group(GROUP);
            once.build().flags(squeue::Flags::BUFFER_SELECT)
        } else if bounded {
            setup::bounded(recv, most)
        } else {
            recv
        };
        self.push(recv, token);
    }

    fn pass_on(&mut self, from: &Socket, to: &Socket, most: u32) -> Pumped {
        let most = self.scratch.len().min(most as usize);
        pipes::pass_on(from, to, &mut self.scratch[..most])
    }

    fn send(&mut self, token: Token, socket: &Socket, buffer: Buffer, more: bool) {
        // A send that waits inside the kernel waits by a poll, which ends at once when the peer
        // has ended its direction: the kernel then retries it, and gives it a thread in the end.
        let bytes = self.buffers.address(buffer);
        let more = if more { libc::MSG_MORE } else { 0 };
        let send = opcode::Send::new(types::Fd(socket.raw()), bytes, buffer.len)
            .flags(libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL | more);
        self.push(send.build(), token);
    }

    fn say(&mut self, socket: &Socket, bytes: &[u8]) -> bool {
        pipes::say(socket, bytes)
    }

    fn hear(&mut self, socket: &Socket, into: &mut [u8]) -> Result<usize, Errno> {
        pipes::hear(socket, into)
    }

    fn poll(&mut self, token: Token, socket: &Socket, interest: Interest) {
        let events = match interest {
            Interest::Read | Interest::Bytes => POLLIN | POLLRDHUP,
            Interest::Write | Interest::Room => POLLOUT,
            Interest::Fault => 0,
        };
        // Every poll reports POLLRDHUP, asked or not. What comes after it, room or the reset of a
        // side that had ended its own direction, is reported only by a poll that goes on.
        let goes_on = matches!(interest, Interest::Bytes | Interest::Room | Interest::Fault);
        let poll = opcode::PollAdd::new(types::Fd(socket.raw()), events);
        self.push(poll.multi(goes_on).build(), token);
    }

    fn cancel(&mut self, target: Token) {
        self.push_detached(opcode::AsyncCancel::new(target.raw()).build());
    }

    fn shutdown(&mut self, socket: &Socket) {
        // IORING_OP_SHUTDOWN always runs on a kernel thread, which looks the descriptor up when it
        // gets to it: by then the number may be another connection.
        sys::shutdown(socket);
    }

    fn close(&mut self, socket: Socket, manner: Manner) {
        if manner == Manner::Reset {
            sys::reset_on_close(&socket);
        }
        self.closed = true;
        self.push_detached(opcode::Close::new(types::Fd(socket.raw())).build());
    }

    fn hold(&mut self, socket: &Socket, silent: bool) {
        sys::hold(socket, silent);
    }

    fn open(&mut self, to: &Address, from: Origin) -> Result<Socket, Errno> {
        match sys::open_socket(to, from) {
            Err(errno) if Fault::of_connect(errno) == Fault::Resources => {
                // A spare descriptor's number becomes the socket's.
                sys::close_owned(self.spares.pop().ok_or(errno)?);
                sys::open_socket(to, from)
            }
            outcome => outcome,
        }
    }

    fn has_address_towards(&self, to: &Address) -> bool {
        sys::has_address_towards(to)
    }

    fn has_address(&self, ip: IpAddr) -> bool {
        sys::is_own_host(ip)
    }

    fn is_connected_to_itself(&self, socket: &Socket, to: &Address) -> bool {
        sys::is_connected_to_itself(socket, to)
    }

    fn peer(&self, socket: &Socket) -> Option<SocketAddr> {
        sys::peer_address(socket)
    }

    fn own_end(&self, socket: &Socket) -> Option<SocketAddr> {
        sys::own_end(socket)
    }

    fn acknowledge(&mut self, socket: &Socket) {
        sys::acknowledge(socket);
    }

    fn keep_alive(&mut self, socket: &Socket) {
        sys::keep_alive(socket);
    }

    fn unsent(&self, socket: &Socket) -> u32 {
        sys::unsent(socket)
    }

    fn tcp_info(&self, socket: &Socket) -> Option<TcpInfo> {
        sys::tcp_info(socket)
    }

    fn memory(&self, socket: &Socket) -> u32 {
        sys::socket_memory(socket)
    }

    fn pump(&mut self, from: &Socket, pipe: &mut Pipe, to: &Socket, most: u32) -> Pumped {
        pipes::pump(from, pipe, to, most)
    }

    fn unpipe(&mut self, _from: &Socket, pipe: &mut Pipe) -> Option<Buffer> {
        // One of those that are held back for it.
        let whole = self.buffers.take()?;
        let Some(len) = pipes::read(pipe, self.buffers.bytes_mut(whole)) else {
            self.buffers.give_back(whole.id);
            return None;
        };
        pipe.held -= len;
        Some(Buffer { len, ..whole })
    }

    fn lease_pipe(&mut self) -> Option<Pipe> {
        // What every leased pipe may hold fits into free buffers, so that each can be given up.
        let reserve = (self.pipes.leased() + 1) * BUFFERS_PER_PIPE;
        (self.buffers.free() >= reserve).then(|| self.pipes.lease())?
    }

    fn return_pipe(&mut self, pipe: Pipe) {
        self.pipes.give_back(pipe);
    }

    fn take_buffer(&mut self) -> Option<Buffer> {
        let reserve = self.pipes.leased() * BUFFERS_PER_PIPE;
        (self.buffers.free() > reserve).then(|| self.buffers.take())?
    }

    fn bytes_mut(&mut self, buffer: Buffer) -> &mut [u8] {
        self.buffers.bytes_mut(buffer)
    }

    fn bytes(&self, buffer: Buffer) -> &[u8] {
        self.buffers.bytes(buffer)
    }

    fn bytes_ahead(&mut self, buffer: Option<Buffer>, socket: &Socket) -> &[u8] {
        let held = buffer.map_or(&[][..], |buffer| self.buffers.bytes(buffer));
        self.scratch[..held.len()].copy_from_slice(held);
        let len = held.len() + pipes::look(socket, &mut self.scratch[held.len()..]);
        &self.scratch[..len]
    }

    fn append(&mut self, to: Buffer, from: Buffer) {
        self.buffers.append(to, from);
    }

    fn give_back(&mut self, id: BufferId) {
        self.buffers.give_back(id);
    }

    fn buffers_in_use(&self) -> u32 {
        self.buffers.in_use()
    }

    fn buffers_in_all(&self) -> u32 {
        self.buffers.in_all()
    }

    fn is_short_of_buffers(&self) -> bool {
        self.buffers.is_short()
    }

    fn pipes_in_use(&self) -> u32 {
        self.pipes.leased()
    }

    fn usage(&self) -> Usage {
        Usage {
            other_calls: sys::calls_of_thread(),
            ..self.usage
        }
    }
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ring")
            .field("buffers", &self.buffers)
            .field("pipes", &self.pipes)
            .finish_non_exhaustive()
    }
}

/// No fault: the wait timed out, a signal came, completions must go first, or memory is short.
fn is_passing(error: &std::io::Error) -> bool {
    use libc::{EAGAIN, EBUSY, EINTR, ENOMEM, ETIME};
    let errno = error.raw_os_error();
    matches!(errno, Some(ETIME | EINTR | EBUSY | EAGAIN | ENOMEM))
}

const POLLIN: u32 = libc::POLLIN as u32;
const POLLOUT: u32 = libc::POLLOUT as u32;
const POLLRDHUP: u32 = libc::POLLRDHUP as u32;
const ANY_BIT: u64 = libc::FUTEX_BITSET_MATCH_ANY.cast_unsigned() as u64;
/// `FUTEX2_SIZE_U32 | FUTEX2_PRIVATE`, which libc lacks (linux/futex.h).
const WORD_OF_32_BITS: u32 = 2 | 128;
/// For the bytes of a full pipe.
const BUFFERS_PER_PIPE: u32 = pipes::PIPE_BYTES / BUFFER_BYTES;
/// Descriptors held back.
const SPARES: usize = 16;
/// A wait of this length without a completion is idleness.
const TRIM_AFTER: Duration = Duration::from_millis(100);
/// Connects handed over at once.
const ADDRESSES_MAX: usize = 256;
