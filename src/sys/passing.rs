//! Passes descriptors from one table to another, by messages over a Unix socket (unix(7),
//! SCM_RIGHTS).

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use socket2::{Domain, Socket, Type};

/// The two ends of a channel for descriptors. Neither ever blocks.
///
/// # Errors
/// What socketpair(2) says.
pub fn descriptor_channel() -> io::Result<(OwnedFd, OwnedFd)> {
    // Messages come whole or not at all.
    let kind = Type::SEQPACKET.nonblocking().cloexec();
    let (one, other) = Socket::pair(Domain::UNIX, kind, None)?;
    Ok((one.into(), other.into()))
}

/// Sends copies of descriptors, each with a number that identifies it.
///
/// # Errors
/// What sendmsg(2) says, such as EAGAIN when the channel is full. The first descriptors may have
/// been sent by then.
pub fn send_descriptors(channel: &OwnedFd, all: &[(u64, BorrowedFd<'_>)]) -> io::Result<()> {
    all.chunks(MESSAGE_MAX)
        .try_for_each(|some| send(channel, some))
}

/// Takes the next message. `false`: there was none. Descriptors that did not fit in this thread's
/// table are missing. A message that did not come from [`send_descriptors`] is dropped.
pub fn receive_descriptors(channel: &OwnedFd, into: &mut VecDeque<(u64, OwnedFd)>) -> bool {
    let mut numbers = [[0u8; 8]; MESSAGE_MAX];
    let mut control = Control::of(&[]);
    let mut vector = libc::iovec {
        iov_base: numbers.as_mut_ptr().cast(),
        iov_len: size_of_val(&numbers),
    };
    let mut message = message(&mut vector, &mut control, size_of::<Control>());
    let flags = libc::MSG_CMSG_CLOEXEC | libc::MSG_DONTWAIT;
    super::count_calls(1);
    // SAFETY: the message names `numbers`, `vector` and `control` with their sizes; they are
    // written during the call only.
    let received = unsafe { libc::recvmsg(channel.as_raw_fd(), &raw mut message, flags) };
    let Ok(bytes @ 1..) = usize::try_from(received) else {
        return false;
    };
    let (flags, control_bytes) = (message.msg_flags, message.msg_controllen);
    // Owned from here on, so that those of a message that is dropped are closed.
    let descriptors: Vec<OwnedFd> = control
        .descriptors(control_bytes)
        // SAFETY: the kernel has made each of these for this thread by that call.
        .map(|fd| unsafe { OwnedFd::from_raw_fd(fd) })
        .collect();
    let whole = bytes % 8 == 0 && flags & libc::MSG_TRUNC == 0;
    if whole && descriptors.len() <= bytes / 8 {
        let numbers = numbers.into_iter().map(u64::from_ne_bytes);
        into.extend(numbers.zip(descriptors));
    }
    true
}

/// A control message with descriptors (cmsg(3)), which follow the header directly.
#[repr(C)]
struct Control {
    header: libc::cmsghdr,
    descriptors: [RawFd; MESSAGE_MAX],
}

impl Control {
    /// Of the first MESSAGE_MAX of these.
    fn of(all: &[BorrowedFd<'_>]) -> Self {
        const {
            assert!(size_of::<libc::cmsghdr>() == HEADER_BYTES && HEADER_BYTES.is_multiple_of(8));
        }
        let mut descriptors = [-1; MESSAGE_MAX];
        for (place, fd) in descriptors.iter_mut().zip(all) {
            *place = fd.as_raw_fd();
        }
        Self {
            header: libc::cmsghdr {
                cmsg_len: HEADER_BYTES + all.len().min(MESSAGE_MAX) * size_of::<RawFd>(),
                cmsg_level: libc::SOL_SOCKET,
                cmsg_type: libc::SCM_RIGHTS,
            },
            descriptors,
        }
    }

    /// The descriptors in a message whose control part has this many bytes.
    fn descriptors(&self, bytes: usize) -> impl Iterator<Item = RawFd> {
        let header = &self.header;
        let is_rights = bytes >= HEADER_BYTES
            && header.cmsg_level == libc::SOL_SOCKET
            && header.cmsg_type == libc::SCM_RIGHTS;
        let bytes = if is_rights {
            header.cmsg_len.min(bytes)
        } else {
            0
        };
        let count = bytes.saturating_sub(HEADER_BYTES) / size_of::<RawFd>();
        self.descriptors.iter().copied().take(count)
    }
}

fn send(channel: &OwnedFd, all: &[(u64, BorrowedFd<'_>)]) -> io::Result<()> {
    let mut numbers: Vec<[u8; 8]> = all.iter().map(|(n, _)| n.to_ne_bytes()).collect();
    let descriptors: Vec<BorrowedFd<'_>> = all.iter().map(|(_, fd)| *fd).collect();
    let mut control = Control::of(&descriptors);
    let control_bytes = control.header.cmsg_len;
    let mut vector = libc::iovec {
        iov_base: numbers.as_mut_ptr().cast(),
        iov_len: size_of_val(&numbers[..]),
    };
    let message = message(&mut vector, &mut control, control_bytes);
    let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
    // SAFETY: the message names `numbers`, `vector` and `control` with their sizes; they are read
    // during the call only.
    if unsafe { libc::sendmsg(channel.as_raw_fd(), &raw const message, flags) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

fn message(vector: &mut libc::iovec, control: &mut Control, control_bytes: usize) -> libc::msghdr {
    // SAFETY: a `msghdr` is plain data: zeroes name nothing.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_iov = vector;
    message.msg_iovlen = 1;
    message.msg_control = (&raw mut *control).cast();
    message.msg_controllen = control_bytes;
    message
}

/// Descriptors of one message: the kernel takes up to 253 (SCM_MAX_FD).
const MESSAGE_MAX: usize = 64;
const HEADER_BYTES: usize = 16;

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;
    use std::os::fd::AsFd;
    use std::os::unix::fs::MetadataExt;

    use super::*;

    /// What file a descriptor is of.
    fn inode(fd: &impl AsFd) -> u64 {
        let file = File::from(fd.as_fd().try_clone_to_owned().unwrap());
        file.metadata().unwrap().ino()
    }

    fn sockets(count: usize) -> Vec<OwnedFd> {
        (0..count)
            .map(|_| {
                Socket::new(Domain::UNIX, Type::STREAM, None)
                    .unwrap()
                    .into()
            })
            .collect()
    }

    #[test]
    fn descriptors_arrive_in_order_with_their_numbers() {
        let (near, far) = descriptor_channel().unwrap();
        let sent = sockets(MESSAGE_MAX + 3);
        let all: Vec<_> = (5..).zip(sent.iter().map(AsFd::as_fd)).collect();
        send_descriptors(&near, &all).unwrap();
        send_descriptors(&near, &[]).unwrap();
        send_descriptors(&near, &all[..1]).unwrap();
        let mut received = VecDeque::new();
        let mut messages = 0;
        while receive_descriptors(&far, &mut received) {
            messages += 1;
        }
        assert_eq!(messages, 3);
        let again = all.iter().chain(&all[..1]);
        assert_eq!(received.len(), again.clone().count());
        for ((number, fd), (number_sent, fd_sent)) in received.iter().zip(again) {
            assert_eq!((number, inode(fd)), (number_sent, inode(fd_sent)));
            // SAFETY: no memory is handed over.
            let flags = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFD) };
            assert_eq!(flags & libc::FD_CLOEXEC, libc::FD_CLOEXEC);
        }
    }

    #[test]
    fn foreign_messages_are_dropped_and_their_descriptors_closed() {
        let (near, far) = descriptor_channel().unwrap();
        let (outside, inside) = descriptor_channel().unwrap();
        let mut plain = File::from(near.try_clone().unwrap());
        // No descriptor; a number cut short; a number and a half; far too many numbers.
        for bytes in [8, 3, 12, MESSAGE_MAX * 8 + 8] {
            plain.write_all(&vec![7; bytes]).unwrap();
        }
        // More descriptors than numbers.
        let mut number = 1u64;
        let mut vector = libc::iovec {
            iov_base: (&raw mut number).cast(),
            iov_len: 8,
        };
        let mut control = Control::of(&[inside.as_fd(), inside.as_fd()]);
        let bytes = control.header.cmsg_len;
        let message = message(&mut vector, &mut control, bytes);
        // SAFETY: as in `send`.
        let sent = unsafe { libc::sendmsg(near.as_raw_fd(), &raw const message, 0) };
        assert_eq!(sent, 8);
        drop(inside);
        let mut received = VecDeque::new();
        for _ in 0..5 {
            assert!(receive_descriptors(&far, &mut received));
        }
        assert!(received.is_empty());
        assert!(!receive_descriptors(&far, &mut received));
        // The other end is closed.
        let gone = send_descriptors(&outside, &[(1, far.as_fd())]);
        assert_eq!(gone.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        drop((near, plain));
        assert!(!receive_descriptors(&far, &mut received));
    }
}
