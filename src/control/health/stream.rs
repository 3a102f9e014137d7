//! A nonblocking connection, which waits for readiness through the control thread's ring.
//!
//! tokio-uring's own connect can't be cancelled: dropped, it keeps its descriptor and its operation
//! until the kernel gives up, minutes later. A one-shot poll names no memory and ends at once when
//! its socket is shut down, so nothing outlives the probe. The operation holds the socket, hence
//! the number of its descriptor can't become another's before the kernel has let go of it.

use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::time::Duration;

use io_uring_06::{cqueue, opcode::PollAdd, types::Fd};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio_uring::{OneshotOutputTransform, UnsubmittedOneshot};

use crate::address::Address;
use crate::control::aside;
use crate::origin::Origin;
use crate::sys;

use super::failure::Failure;

/// A connection of a probe. Drop closes it by RST, so that neither end keeps a TIME-WAIT.
#[derive(Debug)]
pub(super) struct ProbeStream {
    socket: Rc<Socket>,
    /// A poll is under way.
    waiting: bool,
    /// How often it has waited.
    waits: u32,
}

impl ProbeStream {
    /// Connects, without a timeout: the caller drops the future when its timeout expires.
    pub(super) async fn connect(to: &Address, from: Origin) -> Result<Self, Failure> {
        let address = sys::socket_address(to);
        let socket = open(&address, from).map_err(|error| Failure::opening(&error, from))?;
        let mut stream = Self {
            socket: Rc::new(socket),
            waiting: false,
            waits: 0,
        };
        stream
            .finish_connect(to, &address)
            .await
            .map_err(|error| Failure::connecting(&error, to))?;
        let ends = [stream.socket.local_addr(), stream.socket.peer_addr()];
        let [own, peer] = ends.map(|end| end.ok().and_then(|end| end.as_socket()));
        if sys::is_one_end(own, peer) {
            // There is no listener, and the kernel took that very port.
            let refused = io::Error::from_raw_os_error(libc::ECONNREFUSED);
            return Err(Failure::broken(&refused));
        }
        Ok(stream)
    }

    async fn finish_connect(&mut self, to: &Address, address: &SockAddr) -> io::Result<()> {
        let connected = match to {
            Address::Tcp(_) => self.socket.connect(address),
            // The file system may not answer.
            Address::Unix(path) => {
                let (socket, address) = (self.socket.try_clone()?, address.clone());
                let connect = move || socket.connect(&address);
                aside::reach(aside::directory(path), connect).await?
            }
        };
        match connected {
            Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {
                self.ready(WRITABLE).await?;
                self.socket.take_error()?.map_or(Ok(()), Err)
            }
            other => other,
        }
    }

    /// Completes the handshake at once. Without this its last packet is held back: a probe that
    /// only connects sends RST in its place, and the backend's program never sees the connection.
    pub(super) fn talk(&self) {
        // Fails for Unix sockets, which have no handshake.
        let _ = self.socket.set_tcp_quickack(true);
    }

    /// Reads what has arrived, waiting for the first byte. 0: the end.
    pub(super) async fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.receive(|mut socket| socket.read(into)).await
    }

    pub(super) async fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let written = self.send(|mut socket| socket.write(bytes)).await?;
            bytes = bytes.get(written..).unwrap_or_default();
        }
        Ok(())
    }

    /// Calls again while the call would block, waiting for bytes in between.
    pub(super) async fn receive<T>(
        &mut self,
        call: impl FnMut(&Socket) -> io::Result<T>,
    ) -> io::Result<T> {
        self.attempt(READABLE, call).await
    }

    /// The same, waiting for room to send.
    pub(super) async fn send<T>(
        &mut self,
        call: impl FnMut(&Socket) -> io::Result<T>,
    ) -> io::Result<T> {
        self.attempt(WRITABLE, call).await
    }

    async fn attempt<T>(
        &mut self,
        events: u32,
        mut call: impl FnMut(&Socket) -> io::Result<T>,
    ) -> io::Result<T> {
        loop {
            match call(&self.socket) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.ready(events).await?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }

    async fn ready(&mut self, events: u32) -> io::Result<()> {
        let entry = PollAdd::new(Fd(self.socket.as_raw_fd()), events).build();
        self.waiting = true;
        let polled = UnsubmittedOneshot::new(Rc::clone(&self.socket), Polled, entry);
        let outcome = polled.submit().await;
        self.waiting = false;
        self.waits = self.waits.saturating_add(1);
        if self.waits > WAITS_AT_ONCE {
            // A server that sends byte by byte must not wake this thread for each.
            tokio::time::sleep(PACE).await;
        }
        outcome
    }
}

impl Drop for ProbeStream {
    fn drop(&mut self) {
        if self.waiting {
            // The poll ends, and with it the last hold on the socket. It may fail for a socket that
            // broke meanwhile, whose poll ends by that.
            let _ = self.socket.shutdown(std::net::Shutdown::Both);
        }
    }
}

/// A socket fit to be probed through.
fn open(to: &SockAddr, from: Origin) -> io::Result<Socket> {
    let is_unix = to.domain() == Domain::UNIX;
    let protocol = (!is_unix).then_some(Protocol::TCP);
    let socket = Socket::new(to.domain(), Type::STREAM.nonblocking().cloexec(), protocol)?;
    if !is_unix {
        socket.set_tcp_nodelay(true)?;
        socket.set_tcp_quickack(false)?;
        socket.set_linger(Some(Duration::ZERO))?;
        sys::begin_at(&socket, from)?;
    }
    Ok(socket)
}

/// A one-shot poll that has come to its end; until then it keeps the socket open.
struct Polled;

impl OneshotOutputTransform for Polled {
    type Output = io::Result<()>;
    type StoredData = Rc<Socket>;

    fn transform_oneshot_output(self, _: Rc<Socket>, entry: cqueue::Entry) -> io::Result<()> {
        // What is ready is not asked for: the next call tells.
        match entry.result() {
            errno @ ..0 => Err(io::Error::from_raw_os_error(-errno)),
            0.. => Ok(()),
        }
    }
}

const READABLE: u32 = libc::POLLIN.cast_unsigned() as u32;
const WRITABLE: u32 = libc::POLLOUT.cast_unsigned() as u32;
/// Waits of a probe without a pause.
const WAITS_AT_ONCE: u32 = 16;
/// The pause after each wait beyond those.
const PACE: Duration = Duration::from_millis(10);
