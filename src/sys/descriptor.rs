//! Descriptors other than sockets, and descriptor tables.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use crate::kernel::{Pipe, Socket};

use super::count_calls;

/// A pipe of `bytes` where the per-user quota allows, else of the kernel's default (pipe(7)).
///
/// # Errors
/// What pipe2(2) says; `QuotaExceeded` where the pipe would hold fewer than `least` bytes: over the
/// quota it has two pages.
pub fn pipe(bytes: u32, least: u32) -> io::Result<Pipe> {
    let mut ends = [0; 2];
    count_calls(1);
    // SAFETY: `ends` is written during the call only.
    if unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_NONBLOCK | libc::O_CLOEXEC) } < 0 {
        return Err(io::Error::last_os_error());
    }
    let pipe = Pipe {
        read: ends[0],
        write: ends[1],
        held: 0,
        pull: least,
    };
    count_calls(1);
    // SAFETY: no memory is handed over.
    let grown = unsafe { libc::fcntl(pipe.write, libc::F_SETPIPE_SZ, bytes) };
    let capacity = if grown >= 0 {
        grown
    } else {
        count_calls(1);
        // SAFETY: no memory is handed over.
        unsafe { libc::fcntl(pipe.write, libc::F_GETPIPE_SZ) }
    };
    if u32::try_from(capacity).is_ok_and(|capacity| capacity >= least) {
        return Ok(pipe);
    }
    close_pipe(&pipe);
    Err(io::ErrorKind::QuotaExceeded.into())
}

/// Another number of the calling thread for the same file.
///
/// # Errors
/// What fcntl(2) says of F_DUPFD_CLOEXEC.
pub fn duplicate(fd: &OwnedFd) -> io::Result<OwnedFd> {
    count_calls(1);
    fd.try_clone()
}

/// Closes a descriptor at once, and counts that.
pub fn close_owned(fd: OwnedFd) {
    count_calls(1);
    drop(fd);
}

/// Closes a socket of a thread that has no ring.
pub fn close(socket: Socket) {
    // SAFETY: the socket was handed over and is not used again.
    unsafe { libc::close(socket.raw()) };
}

/// Closes both ends; the bytes inside are lost.
pub fn close_pipe(pipe: &Pipe) {
    for end in [pipe.read, pipe.write] {
        count_calls(1);
        // SAFETY: the pool passes each pipe once, when no operation uses its ends any more.
        unsafe { libc::close(end) };
    }
}

/// A counter that wakes the thread that polls or reads it (eventfd(2)). A read without a
/// notification blocks, or fails when `nonblocking`.
///
/// # Errors
/// What eventfd(2) says.
pub fn eventfd(nonblocking: bool) -> io::Result<OwnedFd> {
    let flags = if nonblocking { libc::EFD_NONBLOCK } else { 0 };
    // SAFETY: no memory is handed over.
    let fd = unsafe { libc::eventfd(0, flags | libc::EFD_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was made just now and has no other owner.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Wakes the thread that polls the eventfd. A write can only fail at the counter's maximum, where
/// the eventfd is readable already.
pub fn notify(eventfd: &OwnedFd) {
    let one = 1u64;
    count_calls(1);
    // SAFETY: `one` is read during the call only.
    unsafe {
        libc::write(
            eventfd.as_raw_fd(),
            (&raw const one).cast(),
            size_of::<u64>(),
        )
    };
}

/// Makes a nonblocking eventfd unreadable until the next [`notify`].
pub fn clear_eventfd(eventfd: &OwnedFd) {
    let mut count = 0u64;
    count_calls(1);
    // SAFETY: `count` is written during the call only.
    unsafe {
        libc::read(
            eventfd.as_raw_fd(),
            (&raw mut count).cast(),
            size_of::<u64>(),
        )
    };
}

/// The descriptors that the service manager handed to this process, with their names
/// (sd_listen_fds(3)); none where it did not. Removes them from the environment.
///
/// Call it once, and while no other thread reads the environment, which it changes.
///
/// # Errors
/// The environment describes them wrongly, or a descriptor is not open.
pub fn handed_descriptors() -> io::Result<Vec<(OwnedFd, String)>> {
    // SAFETY: no other thread reads the environment: the only one so far writes the log's lines.
    let handed = unsafe { sd_notify::listen_fds_with_names_and_unset_env() }?;
    let owned = |(fd, name): (RawFd, String)| {
        // SAFETY: the manager opened it for this process. The environment does not name it any
        // more, so no second call finds it: the caller is its only owner from here on.
        (unsafe { OwnedFd::from_raw_fd(fd) }, name)
    };
    Ok(handed.map(owned).collect())
}

/// Gives the calling thread a descriptor table of its own with just the standard streams and
/// `keep`: its limit then counts for this thread alone, and nothing that is closed elsewhere lives
/// on here (close_range(2), CLOSE_RANGE_UNSHARE: unlike unshare(2), containers allow it).
///
/// # Errors
/// What the call says.
pub fn own_descriptor_table(keep: &[RawFd]) -> io::Result<()> {
    let mut keep: Vec<u32> = keep
        .iter()
        .filter_map(|&fd| u32::try_from(fd).ok())
        .collect();
    keep.extend([0, 1, 2, u32::MAX]);
    keep.sort_unstable();
    // The first call makes the table this thread's own, for the calls after it too. There is at
    // least one call, since the highest numbers are always unused.
    let mut flags = libc::CLOSE_RANGE_UNSHARE;
    for pair in keep.windows(2) {
        if pair[1] - pair[0] < 2 {
            continue;
        }
        // SAFETY: nothing in this thread uses these numbers of its own table: the owners of those
        // descriptors live in other threads, with the table that was copied.
        if unsafe { libc::close_range(pair[0] + 1, pair[1] - 1, flags.cast_signed()) } < 0 {
            return Err(io::Error::last_os_error());
        }
        flags = 0;
    }
    Ok(())
}
