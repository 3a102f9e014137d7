//! The own end of a connection.

use std::net::SocketAddr;

use crate::kernel::Socket;

use super::socket::with;

/// The own address of a TCP connection (getsockname(2)); `None` for a Unix socket.
#[must_use]
pub fn own_end(socket: &Socket) -> Option<SocketAddr> {
    let address = with(socket, |socket| socket.local_addr());
    address.ok()?.as_socket()
}
