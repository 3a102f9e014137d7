//! Descriptors from one table to another: messages over a Unix socket (unix(7), SCM_RIGHTS).

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use socket2::{Domain, Socket, Type};

/// The two ends of a channel for descriptors: neither ever waits.
///
/// # Errors
/// What socketpair(2) says.
pub fn descriptor_channel() -> io::Result<(OwnedFd, OwnedFd)> {
    // Messages come whole or not at all.
    let kind = Type::SEQPACKET.nonblocking().cloexec();
    let (one, other) = Socket::pair(Domain::UNIX, kind, None)?;
    Ok((one.into(), other.into()))
}

/// Hands over copies of descriptors, each with a number that says what it is.
///
/// # Errors
/// What sendmsg(2) says, such as EAGAIN when much waits to be received. The first ones may have
/// been sent then.
pub fn send_descriptors(channel: &OwnedFd, all: &[(u64, BorrowedFd<'_>)]) -> io::Result<()> {
    all.chunks(MESSAGE_MAX)
        .try_for_each(|some| send(channel, some))
}

/// Takes the next message, if there is one. A descriptor that found no place in this thread's
/// table is missing, and so is all of a message that is not of [`send_descriptors`]. `false`: no
/// message was there.
pub fn receive_descriptors(channel: &OwnedFd, into: &mut VecDeque<(u64, OwnedFd)>) -> bool {
    let mut numbers = [[0u8; 8]; MESSAGE_MAX];
    let mut control = [0u64; CONTROL_WORDS];
    let mut vector = libc::iovec {
        iov_base: numbers.as_mut_ptr().cast(),
        iov_len: size_of_val(&numbers),
    };
    let mut message = message(&mut vector, &mut control, CONTROL_WORDS * 8);
    // SAFETY: the message names `numbers`, `vector` and `control` with their sizes; they are
    // written during the call only.
    let received = unsafe {
        libc::recvmsg(
            channel.as_raw_fd(),
            &raw mut message,
            libc::MSG_CMSG_CLOEXEC | libc::MSG_DONTWAIT,
        )
    };
    let Ok(bytes @ 1..) = usize::try_from(received) else {
        return false;
    };
    // Owned from here on: whatever is not wanted is closed.
    let descriptors = take_descriptors(&message);
    let whole = bytes % 8 == 0 && message.msg_flags & libc::MSG_TRUNC == 0;
    if whole && descriptors.len() <= bytes / 8 {
        let numbers = numbers.into_iter().map(u64::from_ne_bytes);
        into.extend(numbers.zip(descriptors));
    }
    true
}

fn send(channel: &OwnedFd, all: &[(u64, BorrowedFd<'_>)]) -> io::Result<()> {
    let mut numbers: Vec<[u8; 8]> = all.iter().map(|(n, _)| n.to_ne_bytes()).collect();
    let descriptors: Vec<RawFd> = all.iter().map(|(_, fd)| fd.as_raw_fd()).collect();
    let mut control = [0u64; CONTROL_WORDS];
    let mut vector = libc::iovec {
        iov_base: numbers.as_mut_ptr().cast(),
        iov_len: size_of_val(&numbers[..]),
    };
    let bytes = u32::try_from(size_of_val(&descriptors[..])).expect("a message's few descriptors");
    // SAFETY: these only compute lengths.
    let (space, len) = unsafe { (libc::CMSG_SPACE(bytes), libc::CMSG_LEN(bytes)) };
    let message = message(&mut vector, &mut control, space as usize);
    // SAFETY: `control` is aligned as a header and has room for one with MESSAGE_MAX descriptors,
    // so CMSG_FIRSTHDR is its start and CMSG_DATA lies within it.
    unsafe {
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SCM_RIGHTS;
        (*header).cmsg_len = len as usize;
        let data = libc::CMSG_DATA(header);
        data.copy_from_nonoverlapping(descriptors.as_ptr().cast(), bytes as usize);
    }
    // SAFETY: the message names `numbers`, `vector` and `control`, which are read during the call.
    let sent = unsafe {
        let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
        libc::sendmsg(channel.as_raw_fd(), &raw const message, flags)
    };
    if sent < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

fn message(
    vector: &mut libc::iovec,
    control: &mut [u64; CONTROL_WORDS],
    control_bytes: usize,
) -> libc::msghdr {
    // SAFETY: a `msghdr` is plain data: zeroes name nothing.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_iov = vector;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = control_bytes;
    message
}

/// The descriptors of a received message, in their order.
fn take_descriptors(message: &libc::msghdr) -> Vec<OwnedFd> {
    let mut all = Vec::new();
    // SAFETY: recvmsg(2) has filled the control buffer that `message` names, which is borrowed
    // along with it: headers and data lie where these say. Each descriptor in it was made for this
    // thread by that call, and is taken once.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(message);
        while !header.is_null() {
            let is_rights =
                (*header).cmsg_level == libc::SOL_SOCKET && (*header).cmsg_type == libc::SCM_RIGHTS;
            if is_rights {
                let bytes = (*header)
                    .cmsg_len
                    .saturating_sub(libc::CMSG_LEN(0) as usize);
                let data: *const RawFd = libc::CMSG_DATA(header).cast();
                let fds = (0..bytes / size_of::<RawFd>()).map(|at| data.add(at).read_unaligned());
                all.extend(fds.map(|fd| OwnedFd::from_raw_fd(fd)));
            }
            header = libc::CMSG_NXTHDR(message, header);
        }
    }
    all
}

/// Descriptors of one message: the kernel takes up to 253 (SCM_MAX_FD).
const MESSAGE_MAX: usize = 64;
/// A control message's header of 16 bytes, and descriptors of 4.
const CONTROL_WORDS: usize = (16 + MESSAGE_MAX * 4) / 8;

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
        let fds = [inside.as_raw_fd(), inside.as_raw_fd()];
        let mut number = 1u64;
        let mut vector = libc::iovec {
            iov_base: (&raw mut number).cast(),
            iov_len: 8,
        };
        let mut control = [0u64; CONTROL_WORDS];
        let message = message(&mut vector, &mut control, 24);
        // SAFETY: as in `send`.
        unsafe {
            let header = libc::CMSG_FIRSTHDR(&raw const message);
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            (*header).cmsg_len = 24;
            libc::CMSG_DATA(header).copy_from_nonoverlapping(fds.as_ptr().cast(), 8);
            assert_eq!(libc::sendmsg(near.as_raw_fd(), &raw const message, 0), 8);
        }
        drop(inside);
        let mut received = VecDeque::new();
        for _ in 0..5 {
            assert!(receive_descriptors(&far, &mut received));
        }
        assert!(received.is_empty());
        assert!(!receive_descriptors(&far, &mut received));
        // Nobody holds the other end any more.
        let gone = send_descriptors(&outside, &[(1, far.as_fd())]);
        assert_eq!(gone.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        drop((near, plain));
        assert!(!receive_descriptors(&far, &mut received));
    }
}
