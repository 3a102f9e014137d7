//! Pipes for splice(2), and the one place where bytes go through them; and how bytes go on without
//! a pipe or a buffer.
//!
//! `splice` is called on the worker's own thread and never waits: `IORING_OP_SPLICE` would run on
//! the kernel's worker threads at twice to four times the cost (MEASURED.md).

use std::io;
use std::ptr;

use crate::kernel::{Errno, Pipe, Pumped, SinkState, Socket, SourceState};
use crate::sys;

/// A bounded stack of empty pipes.
#[derive(Debug)]
pub(super) struct Pipes {
    idle: Vec<Pipe>,
    leased: u32,
    max: u32,
}

impl Pipes {
    pub(super) fn new(max: u32) -> Self {
        Self {
            idle: Vec::new(),
            leased: 0,
            max,
        }
    }

    /// The pipe that was used last, or a new one while the bound, the descriptors and the
    /// per-user quota allow.
    pub(super) fn lease(&mut self) -> Option<Pipe> {
        if self.leased == self.max {
            return None;
        }
        let open = || sys::pipe(PIPE_BYTES, PIPE_BYTES_USEFUL).ok();
        let mut pipe = self.idle.pop().or_else(open)?;
        pipe.pull = PULL_BYTES_FIRST;
        self.leased += 1;
        Some(pipe)
    }

    /// Bytes left inside would reach the next lessee's peer: such a pipe is closed.
    pub(super) fn give_back(&mut self, pipe: Pipe) {
        self.leased -= 1;
        if pipe.held == 0 {
            self.idle.push(pipe);
        } else {
            sys::close_pipe(&pipe);
        }
    }

    /// Gives unused pipes back: they count against the quota of the whole user.
    pub(super) fn close_idle(&mut self) {
        self.idle.drain(..).for_each(|pipe| sys::close_pipe(&pipe));
    }

    pub(super) fn leased(&self) -> u32 {
        self.leased
    }
}

impl Drop for Pipes {
    fn drop(&mut self) {
        self.idle.iter().for_each(sys::close_pipe);
    }
}

/// Empties the pipe into the sink, fills it from the source once, and empties it again: what a
/// visit may move is bounded by the pipe, and by `most`. The source is read only into an empty
/// pipe, as `EAGAIN` would otherwise mean "nothing to read" or "pipe full" alike, and not beyond
/// the sink's room: a sink that stops taking leaves next to nothing in the pipe.
pub(super) fn pump(from: &Socket, pipe: &mut Pipe, to: &Socket, most: u32) -> Pumped {
    let mut pumped = Pumped {
        pulled: 0,
        pushed: 0,
        source: SourceState::Ready,
        sink: SinkState::Ready,
    };
    if pipe.held > 0 {
        drain(pipe, to, &mut pumped);
        if pumped.sink != SinkState::Ready {
            return pumped;
        }
    }
    if most == 0 {
        return pumped;
    }
    let room = sys::send_room(to);
    if room == 0 {
        pumped.sink = SinkState::Full;
        return pumped;
    }
    let most = room.clamp(PULL_BYTES_MIN, pipe.pull).min(most);
    match splice(from.raw(), pipe.write, most) {
        Ok(0) => pumped.source = SourceState::Stopped,
        Ok(bytes) => {
            on_pulled(pipe, bytes);
            pumped.pulled = bytes;
            drain(pipe, to, &mut pumped);
            if bytes >= room && pumped.sink == SinkState::Ready {
                pumped.sink = SinkState::Full;
            }
        }
        Err(Errno(libc::EAGAIN | libc::EINTR)) => pumped.source = SourceState::Empty,
        // The bytes are there, and the kernel's memory is not.
        Err(Errno(libc::ENOMEM | libc::ENOBUFS)) => {}
        Err(errno) => pumped.source = SourceState::Broken(errno),
    }
    pumped
}

fn on_pulled(pipe: &mut Pipe, bytes: u32) {
    pipe.held = bytes;
    if bytes >= pipe.pull / 2 {
        pipe.pull = PIPE_BYTES;
    }
}

fn drain(pipe: &mut Pipe, to: &Socket, pumped: &mut Pumped) {
    while pipe.held > 0 {
        match splice(pipe.read, to.raw(), pipe.held) {
            // An end of file on a pipe that holds bytes and has its writer: no kernel does this.
            Ok(0) => return pumped.sink = SinkState::Broken(Errno(libc::EPIPE)),
            Ok(bytes) => {
                pipe.held -= bytes;
                pumped.pushed += bytes;
            }
            Err(Errno(libc::EINTR)) => {}
            Err(Errno(libc::EAGAIN | libc::ENOMEM | libc::ENOBUFS)) => {
                return pumped.sink = SinkState::Full;
            }
            Err(errno) => return pumped.sink = SinkState::Broken(errno),
        }
    }
}

/// Sends what waits at one socket to the other, as much as that takes, and only then takes it off
/// the first: nothing is held in between.
pub(super) fn pass_on(from: &Socket, to: &Socket, scratch: &mut [u8]) -> Pumped {
    let mut moved = Pumped {
        pulled: 0,
        pushed: 0,
        source: SourceState::Ready,
        sink: SinkState::Ready,
    };
    let waiting = match receive(from, scratch, libc::MSG_PEEK) {
        Ok(0) => {
            moved.source = SourceState::Stopped;
            return moved;
        }
        Ok(waiting) => &mut scratch[..waiting],
        Err(errno) if is_passing(errno) => {
            moved.source = SourceState::Empty;
            return moved;
        }
        Err(errno) => {
            moved.source = SourceState::Broken(errno);
            return moved;
        }
    };
    let sent = match send(to, waiting) {
        Ok(sent) => sent,
        Err(errno) if is_passing(errno) => 0,
        Err(errno) => {
            moved.sink = SinkState::Broken(errno);
            return moved;
        }
    };
    if sent < waiting.len() {
        moved.sink = SinkState::Full;
    }
    let mut left = &mut waiting[..sent];
    while !left.is_empty() {
        match receive(from, left, 0) {
            Ok(bytes) if bytes > 0 => left = &mut left[bytes..],
            Err(Errno(libc::EINTR)) => {}
            // It was reset just now. What was sent had come before.
            Ok(_) | Err(_) => break,
        }
    }
    moved.pushed = u32::try_from(sent).unwrap_or(0);
    moved.pulled = moved.pushed;
    moved
}

/// Copies what waits at a socket, where it stays. Returns how many bytes: 0 if that can't be seen.
pub(super) fn look(at: &Socket, into: &mut [u8]) -> usize {
    receive(at, into, libc::MSG_PEEK).unwrap_or(0)
}

/// Sends these bytes at once; whether the socket took them all.
pub(super) fn say(to: &Socket, bytes: &[u8]) -> bool {
    send(to, bytes) == Ok(bytes.len())
}

/// Takes what has come off a socket.
pub(super) fn hear(from: &Socket, into: &mut [u8]) -> Result<usize, Errno> {
    receive(from, into, 0)
}

/// Nothing moves now; the connection is whole.
fn is_passing(errno: Errno) -> bool {
    let passing = [libc::EAGAIN, libc::EINTR, libc::ENOMEM, libc::ENOBUFS];
    passing.contains(&errno.0)
}

fn receive(from: &Socket, into: &mut [u8], flags: i32) -> Result<usize, Errno> {
    let flags = flags | libc::MSG_DONTWAIT;
    sys::count_calls(1);
    // SAFETY: the kernel writes at most `into.len()` bytes to `into`, which is borrowed for this
    // call only; the `Socket` that is borrowed owns the descriptor.
    let read = unsafe { libc::recv(from.raw(), into.as_mut_ptr().cast(), into.len(), flags) };
    usize::try_from(read).map_err(|_| last_errno())
}

fn send(to: &Socket, bytes: &[u8]) -> Result<usize, Errno> {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    sys::count_calls(1);
    // SAFETY: the kernel reads at most `bytes.len()` bytes of `bytes`, which is borrowed for this
    // call only; the `Socket` that is borrowed owns the descriptor.
    let sent = unsafe { libc::send(to.raw(), bytes.as_ptr().cast(), bytes.len(), flags) };
    usize::try_from(sent).map_err(|_| last_errno())
}

/// Reads what is in a pipe; how many bytes.
pub(super) fn read(pipe: &Pipe, into: &mut [u8]) -> Option<u32> {
    sys::count_calls(1);
    // SAFETY: the kernel writes at most `into.len()` bytes to `into`, which is borrowed for this
    // call only; the `Pipe` that is borrowed owns the descriptor.
    let read = unsafe { libc::read(pipe.read, into.as_mut_ptr().cast(), into.len()) };
    u32::try_from(read).ok().filter(|read| *read > 0)
}

/// Nothing here may wait: `SPLICE_F_NONBLOCK` speaks for the pipe, `O_NONBLOCK` of the sockets,
/// set when they were made, for the other end.
fn splice(from: i32, to: i32, bytes: u32) -> Result<u32, Errno> {
    let flags = libc::SPLICE_F_MOVE | libc::SPLICE_F_NONBLOCK;
    sys::count_calls(1);
    // SAFETY: no memory is handed over but two null offsets; the descriptors belong to the session
    // and the pool, which keep them open across this call.
    let moved = unsafe {
        libc::splice(
            from,
            ptr::null_mut(),
            to,
            ptr::null_mut(),
            bytes as usize,
            flags,
        )
    };
    u32::try_from(moved).map_err(|_| last_errno())
}

fn last_errno() -> Errno {
    let error = io::Error::last_os_error();
    Errno(error.raw_os_error().unwrap_or(libc::EIO))
}

/// What a paced stream finds waiting must fit: 1 MiB, the most an unprivileged process gets
/// (`/proc/sys/fs/pipe-max-size`).
pub(super) const PIPE_BYTES: u32 = 1 << 20;
/// Splicing with a smaller pipe costs more than copying.
const PIPE_BYTES_USEFUL: u32 = 64 * 1024;
/// By what is taken in one round-trip the kernel predicts what will be, and makes room for it
/// (`tcp_rcvbuf_grow`). A first pull of 1 MiB is a leap, after which up to 22 MB wait at the source
/// if the sink stops; 2 MB do with this one (docs/design/session.md).
const PULL_BYTES_FIRST: u32 = PIPE_BYTES / 2;
/// Four buffers' worth: so much is pulled however little room the sink has.
const PULL_BYTES_MIN: u32 = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_begins_with_half_a_pipe_and_goes_on_with_the_whole() {
        let mut pipes = Pipes::new(1);
        for _ in 0..2 {
            let mut pipe = pipes.lease().unwrap();
            for (bytes, next) in [(200 << 10, 512 << 10), (256 << 10, 1 << 20), (1, 1 << 20)] {
                on_pulled(&mut pipe, bytes);
                assert_eq!((pipe.held, pipe.pull), (bytes, next));
            }
            pipe.held = 0;
            pipes.give_back(pipe);
        }
    }
}
