//! Sockets of listeners and backends.

use std::io;
use std::mem::MaybeUninit;
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use socket2::{Domain, Protocol, SockAddr, SockFilter, SockRef, TcpKeepalive, Type};

use crate::address::Address;
use crate::kernel::{Errno, Socket};
use crate::origin::Origin;

use super::unix::SocketFile;
use super::{count_calls, helper, origin, ports};

/// The listening sockets of an address.
#[derive(Debug)]
pub struct Bound {
    /// Where they listen: the port that the kernel chose, where 0 was asked for.
    pub address: Address,
    /// One for each worker, or just one, which all workers accept from.
    pub sockets: Vec<OwnedFd>,
    /// The file of a Unix socket.
    pub file: Option<SocketFile>,
    /// Another process has made it and listens on it as well.
    pub handed_in: bool,
}

impl Bound {
    /// One Unix socket with its file.
    #[must_use]
    pub fn of_file(address: &Address, socket: OwnedFd, file: SocketFile) -> Self {
        Self {
            address: address.clone(),
            sockets: vec![socket],
            file: Some(file),
            handed_in: false,
        }
    }

    /// Takes the filter from sockets of the service manager, which outlive this process.
    pub fn unfilter(&self) {
        if self.handed_in {
            self.sockets.iter().for_each(super::detach_filter);
        }
    }

    /// The listening socket of a worker.
    #[must_use]
    pub fn of_worker(&self, worker: usize) -> BorrowedFd<'_> {
        let own = self.sockets.get(worker).or_else(|| self.sockets.first());
        own.expect("a listener has at least one socket").as_fd()
    }
}

/// How a TCP port is bound.
#[derive(Clone, Copy, Debug, Default)]
pub struct Binding {
    /// A socket that already listens there is this process's own, and about to close.
    pub may_join: bool,
    /// This machine need not have the address (ip(7), IP_FREEBIND).
    pub freebind: bool,
}

/// Listens on an address with `count` sockets, one per worker; on a Unix socket with one, which all
/// workers accept from, and the file system may block.
///
/// # Errors
/// As [`listen_port`] and [`listen_path`].
pub fn listen_all(to: &Address, count: usize, freebind: bool) -> io::Result<Bound> {
    let how = Binding {
        freebind,
        ..Binding::default()
    };
    match to {
        Address::Tcp(to) => listen_port(*to, count, how),
        Address::Unix(path) => listen_path(path),
    }
}

/// Listens on a TCP port with `count` sockets: a group among which the kernel spreads connections
/// (SO_REUSEPORT, socket(7)). The first is made alone, and the others join it.
///
/// # Errors
/// What the kernel says. An address in use is an error, although another process of the same user
/// could join the group.
pub fn listen_port(wanted: SocketAddr, count: usize, how: Binding) -> io::Result<Bound> {
    let listen = |to, group| listen_tcp(to, group, how.freebind);
    let first = match listen(wanted, Group::None) {
        Err(error) if how.may_join && error.kind() == io::ErrorKind::AddrInUse => {
            listen(wanted, Group::Member)?
        }
        first => first?,
    };
    let bound = first.local_addr()?.as_socket().unwrap_or(wanted);
    // No other socket listens there by now: the group begins with this one.
    first.set_reuse_port(true)?;
    let mut sockets = vec![first.into()];
    for _ in 1..count {
        sockets.push(listen(bound, Group::Member)?.into());
    }
    Ok(Bound {
        address: Address::Tcp(bound),
        sockets,
        file: None,
        handed_in: false,
    })
}

/// Listens on a TCP port with one socket, which accepts without waiting.
///
/// # Errors
/// What the kernel says.
pub fn listen_alone(to: SocketAddr) -> io::Result<TcpListener> {
    listen_tcp(to, Group::None, false).map(Into::into)
}

/// Listens on a Unix socket. Asks the file system, which may block.
///
/// # Errors
/// What the kernel says; a path that another process answers on is in use.
pub fn listen_path(path: &Path) -> io::Result<Bound> {
    let mut file = SocketFile::claim(path)?;
    let socket = file.listen(None)?;
    Ok(Bound::of_file(&Address::Unix(path.into()), socket, file))
}

/// Takes over a socket that another process has made and listens on (sd_listen_fds(3)): all
/// workers accept from it. `to` is the address that the manager gave, because the kernel does not
/// tell it for every Unix socket.
///
/// # Errors
/// What the kernel says of it; [`io::ErrorKind::InvalidInput`] when it does not listen for
/// streams.
pub fn inherit(socket: OwnedFd, to: &Address) -> io::Result<Bound> {
    let socket = socket2::Socket::from(socket);
    let refused = |what| Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    if socket.r#type()? != Type::STREAM || !socket.is_listener()? {
        return refused("the socket that was handed in does not listen for streams");
    }
    if socket.domain()? != domain(to) {
        return refused("the socket that was handed in is of another family");
    }
    socket.set_nonblocking(true)?;
    socket.set_cloexec(true)?;
    let local = socket.local_addr()?.as_socket();
    if local.is_some() {
        socket.set_tcp_nodelay(true)?;
        socket.set_tcp_keepalive(&keepalive())?;
    }
    let bound = Bound {
        address: local.map_or_else(|| to.clone(), Address::Tcp),
        sockets: vec![socket.into()],
        // The process that made the file removes it.
        file: None,
        handed_in: true,
    };
    // A process that was killed may have left its filter.
    bound.unfilter();
    Ok(bound)
}

/// Drops the first segment of each new client of a listening socket. The client sends it again
/// after a second, and reaches the socket that listens then. Clients whose handshake is under way
/// still come in. (To close the socket would reset them, and those that wait to be accepted.)
///
/// # Errors
/// What setsockopt(2) says of SO_ATTACH_FILTER.
pub fn drop_new_clients(listener: &OwnedFd) -> io::Result<()> {
    let code = |parts: [u32; 3]| u16::try_from(parts[0] | parts[1] | parts[2]).unwrap_or(0);
    let load_byte = code([libc::BPF_LD, libc::BPF_B, libc::BPF_ABS]);
    let mask = code([libc::BPF_ALU, libc::BPF_AND, libc::BPF_K]);
    let is_equal = code([libc::BPF_JMP, libc::BPF_JEQ, libc::BPF_K]);
    let verdict = code([libc::BPF_RET, libc::BPF_K, 0]);
    // A filter sees a segment from its TCP header on: byte 13 holds SYN (2) and ACK (16).
    SockRef::from(listener).attach_filter(&[
        SockFilter::new(load_byte, 0, 0, 13),
        SockFilter::new(mask, 0, 0, 2 | 16),
        SockFilter::new(is_equal, 0, 1, 2),
        SockFilter::new(verdict, 0, 0, 0),
        SockFilter::new(verdict, 0, 0, u32::MAX),
    ])
}

/// Ends [`drop_new_clients`].
///
/// # Errors
/// What setsockopt(2) says of SO_DETACH_FILTER; there is none.
pub fn let_in_new_clients(listener: &OwnedFd) -> io::Result<()> {
    SockRef::from(listener).detach_filter()
}

/// Whether a socket shares its address with others of this user (SO_REUSEPORT).
#[derive(PartialEq, Eq)]
enum Group {
    /// It does not share. The kernel refuses it where any socket listens, and checks again when it
    /// begins to listen, so that two starts at the same moment can't both succeed.
    None,
    /// It shares.
    Member,
}

fn listen_tcp(to: SocketAddr, group: Group, freebind: bool) -> io::Result<socket2::Socket> {
    let kind = Type::STREAM.nonblocking().cloexec();
    let socket = socket2::Socket::new(Domain::for_address(to), kind, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(group == Group::Member)?;
    // Accepted sockets inherit these.
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&keepalive())?;
    match to {
        _ if !freebind => {}
        SocketAddr::V4(_) => socket.set_freebind_v4(true)?,
        SocketAddr::V6(_) => socket.set_freebind_v6(true)?,
    }
    helper::bind(&socket, to)?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

/// A nonblocking socket that can connect to `to`. The kernel delays the last packet of a TCP
/// handshake for a moment, so that the first bytes can go with it (tcp(7), TCP_QUICKACK).
///
/// # Errors
/// What socket(2) says, and bind(2) where `from` has an address.
pub fn open_socket(to: &Address, from: Origin) -> Result<Socket, Errno> {
    let protocol = match to {
        Address::Tcp(_) => Some(Protocol::TCP),
        Address::Unix(_) => None,
    };
    let kind = Type::STREAM.nonblocking().cloexec();
    let errno = |error: io::Error| Errno(error.raw_os_error().unwrap_or(libc::EIO));
    count_calls(if protocol.is_some() { 3 } else { 1 });
    let socket = socket2::Socket::new(domain(to), kind, protocol).map_err(errno)?;
    if protocol.is_some() {
        socket.set_tcp_nodelay(true).map_err(errno)?;
        socket.set_tcp_quickack(false).map_err(errno)?;
        origin::begin_at(&socket, from).map_err(errno)?;
    }
    Ok(Socket::from_raw(socket.into_raw_fd()))
}

/// Connects a socket of [`open_socket`] to a Unix socket, which accepts or refuses it at once.
///
/// # Errors
/// What connect(2) says; `EAGAIN`: the backlog is full.
pub fn connect_now(socket: &Socket, to: &Address) -> Result<(), Errno> {
    with(socket, |socket| socket.connect(&socket_address(to)))
        .map_err(|error| Errno(error.raw_os_error().unwrap_or(libc::EIO)))
}

/// The kernel's form of an address.
#[must_use]
pub fn socket_address(address: &Address) -> SockAddr {
    match address {
        Address::Tcp(address) => SockAddr::from(*address),
        Address::Unix(path) => {
            SockAddr::unix(path).expect("an Address holds only paths that the kernel takes")
        }
    }
}

/// The peer's address of a TCP connection (getpeername(2)). An IPv4 client of a listener on `[::]`
/// has its IPv4 address, not one of `::ffff:0:0/96` (ipv6(7)): people look for that one.
#[must_use]
pub fn peer_address(socket: &Socket) -> Option<SocketAddr> {
    let address = with(socket, |socket| socket.peer_addr())
        .ok()?
        .as_socket()?;
    Some(match address.ip().to_canonical() {
        ip @ IpAddr::V4(_) => SocketAddr::new(ip, address.port()),
        IpAddr::V6(_) => address,
    })
}

/// Whether a socket that has connected to this address is connected to itself. Makes a system call
/// only if the port is in the range of local ports.
#[must_use]
pub fn is_connected_to_itself(socket: &Socket, to: &Address) -> bool {
    let Address::Tcp(to) = to else {
        return false;
    };
    let own = |socket: SockRef<'_>| socket.local_addr().ok()?.as_socket();
    ports::local_ports().contains(&to.port())
        && ports::is_one_end(with(socket, own), Some(SocketAddr::new(to.ip(), to.port())))
}

/// A connection that waits in the backlog, if there is one.
#[must_use]
pub fn accept(listener: &Socket) -> Option<Socket> {
    let (socket, _) = with(listener, |listener| listener.accept()).ok()?;
    count_calls(2);
    socket.set_nonblocking(true).ok()?;
    Some(Socket::from_raw(socket.into_raw_fd()))
}

/// Whether the other end has closed the connection. A TCP peer that only stopped sending looks the
/// same as one that is gone, a Unix one does not.
#[must_use]
pub fn is_hung_up(socket: &OwnedFd) -> bool {
    let is_tcp = SockRef::from(socket).domain().ok() != Some(Domain::UNIX);
    let seen = poll_now(socket, libc::POLLRDHUP);
    seen & (libc::POLLHUP | libc::POLLERR) != 0 || is_tcp && seen & libc::POLLRDHUP != 0
}

/// Whether the other end sends no more.
#[must_use]
pub fn has_ended(socket: &OwnedFd) -> bool {
    poll_now(socket, libc::POLLRDHUP) & libc::POLLRDHUP != 0
}

/// Whether the client of a connection that was just accepted is still there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// It may send more.
    There,
    /// It has sent something and sends no more. On TCP it may be gone.
    Ended,
    /// It is gone: it has sent nothing and sends no more, the connection has failed, or it has
    /// closed its Unix socket, whatever it has sent.
    Gone,
}

/// Whether a client is still there.
#[must_use]
pub fn presence(client: &impl AsFd) -> Presence {
    let seen = poll_now(client, libc::POLLRDHUP);
    if seen & (libc::POLLHUP | libc::POLLERR) != 0 {
        return Presence::Gone;
    }
    if seen & libc::POLLRDHUP == 0 {
        return Presence::There;
    }
    // It is not nonblocking yet, but where the end has come a look never waits.
    match SockRef::from(client).peek(&mut [MaybeUninit::uninit()]) {
        Ok(bytes) if bytes > 0 => Presence::Ended,
        Ok(_) | Err(_) => Presence::Gone,
    }
}

/// Whether bytes of the other end, or its end, wait to be read.
#[must_use]
pub fn has_unread(socket: &OwnedFd) -> bool {
    poll_now(socket, libc::POLLIN) & libc::POLLIN != 0
}

/// Which of these events have happened to a socket, by poll(2), errors and hang-ups besides.
fn poll_now(socket: &impl AsFd, events: libc::c_short) -> libc::c_short {
    let mut asked = libc::pollfd {
        fd: socket.as_fd().as_raw_fd(),
        events,
        revents: 0,
    };
    // SAFETY: `asked` is read and written during the call only.
    unsafe { libc::poll(&raw mut asked, 1, 0) };
    asked.revents
}

/// Ends the sending direction (shutdown(2), SHUT_WR). Errors are ignored: receiving reports a
/// broken connection.
pub fn shutdown(socket: &Socket) {
    let _ = with(socket, |socket| socket.shutdown(Shutdown::Write));
}

/// Lets the close of this socket send RST and drop what is unsent (socket(7), SO_LINGER).
pub fn reset_on_close(socket: &Socket) {
    // A Unix socket ignores it, as it has no reset.
    let _ = with(socket, |socket| socket.set_linger(Some(Duration::ZERO)));
}

/// Closes a client's connection by a reset; what it has sent is dropped.
pub fn reset_client(client: TcpStream) {
    let _ = SockRef::from(&client).set_linger(Some(Duration::ZERO));
}

/// Makes an accepted socket fit to be held unread: it takes a few KiB at most from now on, and
/// drops what has come. `silent`: what this end sends, acknowledgements and the end too, ends at
/// the first router, so that only a peer on the same network hears of it; and where a filter may be
/// attached (CAP_NET_ADMIN, Linux 6.18), all that comes is dropped before TCP sees it.
pub fn hold(socket: &Socket, silent: bool) {
    // A failure changes what a client may send, or sees at the end. A Unix socket has none of it.
    count_calls(if silent { 4 } else { 1 });
    let _ = with(socket, |socket| {
        if silent {
            let verdict = u16::try_from(libc::BPF_RET | libc::BPF_K).unwrap_or(0);
            let _ = socket.attach_filter(&[SockFilter::new(verdict, 0, 0, 0)]);
            let _ = socket.set_ttl_v4(1);
            let _ = socket.set_unicast_hops_v6(1);
        }
        socket.set_recv_buffer_size(1)?;
        let mut unread = [MaybeUninit::uninit(); DROPPED_AT_ONCE];
        // With MSG_TRUNC the kernel drops the bytes, and copies none (tcp(7)).
        let flags = libc::MSG_TRUNC | libc::MSG_DONTWAIT;
        socket.recv_with_flags(&mut unread, flags).map(|_| ())
    });
}

/// Sends the delayed acknowledgement now, and further ones without delay.
pub fn acknowledge(socket: &Socket) {
    // A Unix socket has none.
    let _ = with(socket, |socket| socket.set_tcp_quickack(true));
}

/// Lets the kernel probe a silent peer: after 60 s, every 10 s, 6 times (tcp(7)).
pub fn keep_alive(socket: &Socket) {
    // A Unix socket has no keepalive and needs none.
    let set = with(socket, |socket| socket.set_tcp_keepalive(&keepalive()));
    count_calls(if set.is_ok() { 3 } else { 1 });
}

/// Bytes in the socket's send buffer. On TCP: those that the peer has not acknowledged (tcp(7),
/// SIOCOUTQ). On a Unix socket: those that the peer has not read, the kernel's overhead included.
#[must_use]
pub fn unsent(socket: &Socket) -> u32 {
    let mut bytes: libc::c_int = 0;
    count_calls(1);
    // SAFETY: the kernel writes one integer, into `bytes`, before the call returns; the `Socket`
    // that is borrowed for it owns the descriptor.
    let done = unsafe { libc::ioctl(socket.raw(), libc::TIOCOUTQ, &raw mut bytes) };
    if done == 0 { bytes.unsigned_abs() } else { 0 }
}

/// About how many bytes the socket's send buffer has room for: the kernel counts its overhead too.
#[must_use]
pub fn send_room(socket: &Socket) -> u32 {
    let Some(memory) = memory_of(socket) else {
        return u32::MAX;
    };
    // A Unix socket's queue is counted as allocated only.
    let used = memory[WMEM_ALLOC].max(memory[WMEM_QUEUED]);
    memory[SNDBUF].saturating_sub(used)
}

/// How many segments the kernel has dropped at a listening socket since it was made: of clients
/// for which there was no room, or which a filter refused. 0 where the kernel does not tell.
#[must_use]
pub fn dropped_clients(listener: &Socket) -> u32 {
    memory_of(listener).map_or(0, |memory| memory[DROPS])
}

/// How many clients the kernel connects ahead of accept at a listening socket of this process
/// (listen(2) once more). One that was handed in stays as its owner made it, and so does a Unix
/// socket, whose clients would fail instead of trying again.
pub fn set_backlog(listener: &Socket, most: u32) {
    let most = i32::try_from(most).unwrap_or(i32::MAX);
    // What fails leaves the backlog as it was.
    if let Ok(true) = with(listener, |listener| listener.reuse_port()) {
        let _ = with(listener, |listener| listener.listen(most));
    }
}

/// Bytes that the buffers of a TCP socket hold, the kernel's overhead included.
#[must_use]
pub fn socket_memory(socket: &Socket) -> u32 {
    memory_of(socket).map_or(0, |memory| {
        memory[RMEM_ALLOC].saturating_add(memory[WMEM_QUEUED])
    })
}

/// What the kernel counts of a socket (socket(7), SO_MEMINFO).
fn memory_of(socket: &Socket) -> Option<[u32; MEMINFO_WORDS]> {
    let mut memory = [0u32; MEMINFO_WORDS];
    count_calls(1);
    let mut len = libc::socklen_t::try_from(size_of_val(&memory)).unwrap_or(0);
    // SAFETY: the kernel writes at most `len` bytes, the size of `memory`, before the call
    // returns; the `Socket` that is borrowed for it owns the descriptor.
    let done = unsafe {
        libc::getsockopt(
            socket.raw(),
            libc::SOL_SOCKET,
            SO_MEMINFO,
            memory.as_mut_ptr().cast(),
            &raw mut len,
        )
    };
    (done == 0).then_some(memory)
}

fn keepalive() -> TcpKeepalive {
    TcpKeepalive::new()
        .with_time(Duration::from_secs(60))
        .with_interval(Duration::from_secs(10))
        .with_retries(6)
}

fn domain(address: &Address) -> Domain {
    match address {
        Address::Tcp(address) => Domain::for_address(*address),
        Address::Unix(_) => Domain::UNIX,
    }
}

pub(super) fn with<T>(socket: &Socket, call: impl FnOnce(SockRef<'_>) -> T) -> T {
    count_calls(1);
    // SAFETY: the `Socket` that is borrowed for this call owns the descriptor and keeps it open.
    let fd = unsafe { BorrowedFd::borrow_raw(socket.raw()) };
    call(SockRef::from(&fd))
}

/// More than a client can have sent before it is accepted, where nothing has grown its window.
const DROPPED_AT_ONCE: usize = 64 * 1024;
/// The option SO_MEMINFO, and the words of its answer (linux/sock_diag.h).
const SO_MEMINFO: libc::c_int = 55;
const MEMINFO_WORDS: usize = 9;
const RMEM_ALLOC: usize = 0;
const WMEM_ALLOC: usize = 2;
const SNDBUF: usize = 3;
const WMEM_QUEUED: usize = 5;
const DROPS: usize = 8;

/// Connections that the kernel completes ahead of accept. net.core.somaxconn limits it further.
pub const BACKLOG: i32 = 4_096;

#[cfg(test)]
mod tests;
