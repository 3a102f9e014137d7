//! A small process that keeps the privilege to listen on ports below 1024, which the balancer gives
//! up. It is forked before there are threads, rings and filters, and does one thing: it binds a
//! socket that the balancer sends to it, to an address that the configuration has. It looks there
//! itself, so that a balancer that runs foreign code gets no other one. To execute a program is
//! reserved, and refused.
//!
//! A request is a message of text, `NUMBER bind ADDRESS`, with the socket; the answer is `NUMBER
//! ERRNO`, where 0 is success. The helper reads no message longer than that, and answers none that
//! it does not understand. It ends when the balancer does.

use std::io::{self, IoSlice, IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;
use std::{fs, str};

use parking_lot::Mutex;
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use socket2::{Domain, SockAddr, SockRef, Socket, Type};

use super::privileges::{Capability, done_with_rings, drop_privileges};
use super::users::Account;
use super::{descriptor, process, socket};

/// The balancer's end of the channel to its helper.
struct Channel {
    socket: Socket,
    /// How many requests there were.
    requests: u64,
}

static CHANNEL: Mutex<Option<Channel>> = Mutex::new(None);

/// Starts the helper as this user, or as that of the calling process. It asks `may_bind` about each
/// address. Call it once, before there is a second thread: the helper is a copy of the calling one.
/// Children of this process leave no zombie from then on.
///
/// # Errors
/// What fork(2) says; the helper could not give up its other privileges.
pub fn start_helper(
    user: Option<&Account>,
    may_bind: &dyn Fn(SocketAddr) -> bool,
) -> io::Result<()> {
    let (near, far) = Socket::pair(Domain::UNIX, Type::SEQPACKET.cloexec(), None)?;
    // SAFETY: no handler is installed; no child's end is waited for.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
    // SAFETY: there is no other thread whose locks the child could miss.
    match unsafe { libc::fork() } {
        -1 => return Err(io::Error::last_os_error()),
        0 => {
            drop(near);
            help(&far.into(), user, may_bind);
            // SAFETY: no memory is handed over. What the balancer runs at its end is not run here.
            unsafe { libc::_exit(0) }
        }
        _ => drop(far),
    }
    near.set_read_timeout(Some(PATIENCE))?;
    let channel = Channel {
        socket: near,
        requests: 0,
    };
    channel.answer(READY)?;
    *CHANNEL.lock() = Some(channel);
    Ok(())
}

/// Ends the helper. No port below 1024 can be listened on from here on, unless this process may
/// itself.
pub fn dismiss_helper() {
    *CHANNEL.lock() = None;
}

/// Binds a socket, by the helper where this process may not.
///
/// # Errors
/// What bind(2) says, here or in the helper; `Other`: the helper does not answer.
pub(super) fn bind(socket: &Socket, to: SocketAddr) -> io::Result<()> {
    let refused = match socket.bind(&SockAddr::from(to)) {
        Err(error) if error.raw_os_error() == Some(libc::EACCES) => error,
        bound => return bound,
    };
    let mut channel = CHANNEL.lock();
    let Some(channel) = &mut *channel else {
        return Err(refused);
    };
    channel.request(&format!("bind {to}"), socket).map_err(|error| {
        if error.raw_os_error().is_some_and(|errno| !is_loss(errno)) {
            return error;
        }
        let sentence = "the helper process, which listens on ports below 1024, does not answer: \
                        restart the balancer";
        io::Error::other(sentence)
    })
}

/// Whether an error is that of the channel, not of the call that was asked for.
fn is_loss(errno: i32) -> bool {
    [libc::EPIPE, libc::ECONNRESET, libc::EAGAIN, libc::ENOTCONN].contains(&errno)
}

impl Channel {
    /// Asks for something about a socket, and waits for the answer, for a second at most.
    fn request(&mut self, what: &str, about: &Socket) -> io::Result<()> {
        self.requests += 1;
        let text = format!("{} {what}", self.requests);
        let descriptors = [about.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(SendAncillaryMessage::ScmRights(&descriptors));
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        let text = [IoSlice::new(text.as_bytes())];
        sendmsg(&self.socket, &text, &mut control, flags)?;
        let number = self.requests;
        self.answer(number)
    }

    /// Waits for a message. Work of the control thread's ring interrupts a read that has a timeout
    /// (signal(7)).
    fn receive(&self, text: &mut [u8]) -> io::Result<usize> {
        loop {
            match (&self.socket).read(text) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                received => return received,
            }
        }
    }

    /// Waits for the answer to the request of this number.
    fn answer(&self, number: u64) -> io::Result<()> {
        // Those before it are late answers to requests that were given up.
        for _ in 0..=number {
            let mut text = [0; MESSAGE_BYTES];
            let bytes = self.receive(&mut text)?;
            let text = str::from_utf8(&text[..bytes]).unwrap_or_default();
            let (to, errno) = text.split_once(' ').unwrap_or_default();
            if to.parse() != Ok(number) {
                continue;
            }
            return match errno.parse() {
                Ok(0) => Ok(()),
                Ok(errno) => Err(io::Error::from_raw_os_error(errno)),
                Err(_) => break,
            };
        }
        Err(io::ErrorKind::NotConnected.into())
    }
}

/// The life of the helper.
fn help(channel: &OwnedFd, user: Option<&Account>, may_bind: &dyn Fn(SocketAddr) -> bool) {
    // Those that a terminal sends to all its processes are for the balancer to answer.
    process::block_signals();
    let errno = match settle(channel, user) {
        Ok(()) => 0,
        Err(error) => error.raw_os_error().unwrap_or(libc::EIO),
    };
    reply(channel, READY, errno);
    while errno == 0 && serve(channel, may_bind) {}
}

/// Gives up what the helper does not need: descriptors and privileges.
fn settle(channel: &OwnedFd, user: Option<&Account>) -> io::Result<()> {
    let name = c"mahoraga-helper";
    rustix::thread::set_name(name)?;
    descriptor::own_descriptor_table(&[channel.as_raw_fd()])?;
    // The reader of an output must not wait for the helper's end.
    if let Ok(null) = fs::File::options().read(true).write(true).open("/dev/null") {
        rustix::stdio::dup2_stdin(&null)?;
        rustix::stdio::dup2_stdout(&null)?;
        rustix::stdio::dup2_stderr(&null)?;
    }
    drop_privileges(user, &[Capability::NetBindService])?;
    done_with_rings()?;
    // A change of the user clears it. The end of the channel says the same.
    let kill = rustix::process::Signal::KILL;
    rustix::process::set_parent_process_death_signal(Some(kill))?;
    Ok(())
}

/// Answers the next request. `false`: the balancer is gone.
fn serve(channel: &OwnedFd, may_bind: &dyn Fn(SocketAddr) -> bool) -> bool {
    let mut text = [0; MESSAGE_BYTES];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut into = [IoSliceMut::new(&mut text)];
    let received = match recvmsg(channel, &mut into, &mut control, RecvFlags::CMSG_CLOEXEC) {
        Ok(received) => received,
        Err(Errno::INTR) => return true,
        Err(_) => return false,
    };
    // Owned from here on, so that those of a message that is dropped are closed.
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(all) = message {
            descriptors.extend(all);
        }
    }
    if received.bytes == 0 {
        return !socket::has_ended(channel);
    }
    if received
        .flags
        .intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC)
    {
        return true;
    }
    let text = str::from_utf8(&text[..received.bytes]).unwrap_or_default();
    if let Some((number, what)) = text.split_once(' ')
        && let Ok(number) = number.parse()
    {
        let errno = match fulfil(what, descriptors.pop(), may_bind) {
            Ok(()) => 0,
            Err(error) => error.raw_os_error().unwrap_or(libc::EINVAL),
        };
        reply(channel, number, errno);
    }
    true
}

/// Does what a request wants.
fn fulfil(
    what: &str,
    about: Option<OwnedFd>,
    may_bind: &dyn Fn(SocketAddr) -> bool,
) -> io::Result<()> {
    let refused = |errno| Err(io::Error::from_raw_os_error(errno));
    let Some(to) = what.strip_prefix("bind ") else {
        // `execute` is reserved for upgrades.
        return refused(libc::ENOSYS);
    };
    let to: SocketAddr = to.parse().map_err(|_| io::ErrorKind::InvalidInput)?;
    let socket = about.ok_or(io::ErrorKind::InvalidInput)?;
    let socket = SockRef::from(&socket);
    // What the balancer may do itself, it does not need the helper for.
    if !(1..1024).contains(&to.port()) || socket.r#type()? != Type::STREAM {
        return refused(libc::EACCES);
    }
    if !may_bind(to) {
        return refused(libc::EACCES);
    }
    socket.bind(&SockAddr::from(to))
}

/// An answer that there is no room for is dropped: the balancer does not wait for it any more.
fn reply(channel: &OwnedFd, number: u64, errno: i32) {
    let text = format!("{number} {errno}");
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    let _ = rustix::net::send(channel, text.as_bytes(), flags);
}

/// The number of the helper's first message, which says that it is ready.
const READY: u64 = 0;
/// A message at most: a number, a word and an IPv6 address with zone and port.
const MESSAGE_BYTES: usize = 128;
/// How long the control thread waits for an answer, which takes some µs.
const PATIENCE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    fn tcp() -> Socket {
        Socket::new(Domain::IPV4, Type::STREAM, None).unwrap()
    }

    /// A channel to a thread that answers as the helper does.
    fn channel() -> (Channel, thread::JoinHandle<()>) {
        let (near, far) = Socket::pair(Domain::UNIX, Type::SEQPACKET, None).unwrap();
        near.set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        let far = OwnedFd::from(far);
        let helper = thread::spawn(move || while serve(&far, &|to| to.port() != 1022) {});
        let channel = Channel {
            socket: near,
            requests: 0,
        };
        (channel, helper)
    }

    #[test]
    fn the_helper_binds_low_ports_of_streams_that_it_may_bind() {
        let (mut channel, helper) = channel();
        let errno = |outcome: io::Result<()>| outcome.err().and_then(|error| error.raw_os_error());
        // Port 1023 may be in use here, or forbidden: the call was made.
        let low = errno(channel.request("bind 127.0.0.1:1023", &tcp()));
        let made = [None, Some(libc::EADDRINUSE), Some(libc::EACCES)];
        assert!(made.contains(&low), "{low:?}");
        for (what, expected) in [
            ("bind 127.0.0.1:1022", libc::EACCES),
            ("bind 127.0.0.1:1024", libc::EACCES),
            ("bind 127.0.0.1:0", libc::EACCES),
            ("bind [::1]:1023", libc::EAFNOSUPPORT),
            ("bind localhost:80", libc::EINVAL),
            ("bind", libc::ENOSYS),
            ("execute", libc::ENOSYS),
            ("execute /bin/sh", libc::ENOSYS),
        ] {
            assert_eq!(
                errno(channel.request(what, &tcp())),
                Some(expected),
                "{what}"
            );
        }
        let datagrams = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
        let outcome = channel.request("bind 127.0.0.1:1023", &datagrams);
        assert_eq!(errno(outcome), Some(libc::EACCES));
        let file = fs::File::open("/dev/null").unwrap();
        let outcome = channel.request("bind 127.0.0.1:1023", &Socket::from(OwnedFd::from(file)));
        assert_eq!(errno(outcome), Some(libc::ENOTSOCK));
        drop(channel);
        helper.join().unwrap();
    }

    #[test]
    fn garbage_is_neither_answered_nor_fatal() {
        let (mut channel, helper) = channel();
        for garbage in [
            &b""[..],
            b" ",
            b"bind 127.0.0.1:80",
            b"-1 bind 127.0.0.1:80",
            b"1\0bind",
            &[0xff; 16],
            &[b'1'; 4_096],
        ] {
            channel.socket.send(garbage).unwrap();
        }
        // Many descriptors at once.
        let held = TcpListener::bind("127.0.0.1:0").unwrap();
        let all = [held.as_fd(); 8];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(control.push(SendAncillaryMessage::ScmRights(&all)));
        let text = [IoSlice::new(b"9 bind 127.0.0.1:80")];
        sendmsg(&channel.socket, &text, &mut control, SendFlags::empty()).unwrap();
        // A request without a socket is answered, and its answer is not taken for that of another.
        channel.socket.send(b"7 bind 127.0.0.1:80").unwrap();
        channel.requests = 7;
        let outcome = channel.request("execute", &tcp());
        assert_eq!(outcome.unwrap_err().raw_os_error(), Some(libc::ENOSYS));
        drop(channel);
        helper.join().unwrap();
    }
}
