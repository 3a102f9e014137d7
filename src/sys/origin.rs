//! Where a connection begins: its own address, and the ports that the kernel may take for it.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::address::Address;
use crate::origin::{Origin, Ports};

use super::count_calls;

/// Sets where an unconnected socket begins. connect(2) chooses the port, since it knows the peer: a
/// port is then in use towards that peer only (ip(7), IP_BIND_ADDRESS_NO_PORT). A kernel without
/// IP_LOCAL_PORT_RANGE (before 6.3) takes any local port; newer ones apply it within
/// `net.ipv4.ip_local_port_range`.
///
/// A client's address is one of another machine mostly: the socket becomes transparent for it.
///
/// # Errors
/// What bind(2) says: this machine has no such address (EADDRNOTAVAIL); of a client's address what
/// setsockopt(2) says: this thread has neither CAP_NET_RAW nor CAP_NET_ADMIN (EPERM).
pub fn begin_at(socket: &Socket, from: Origin) -> io::Result<()> {
    if let Some(ports) = from.ports
        && has_port_range()
    {
        set(socket, IP_LOCAL_PORT_RANGE, packed(ports))?;
    }
    if let Some(address) = from.address {
        if from.is_clients {
            make_transparent(socket, address.is_ipv4())?;
        }
        set(socket, libc::IP_BIND_ADDRESS_NO_PORT, 1)?;
        count_calls(1);
        socket.bind(&SockAddr::from(SocketAddr::new(address, 0)))?;
    }
    Ok(())
}

/// Whether connections can begin at this address: this machine has it.
///
/// # Errors
/// What socket(2) and bind(2) say.
pub fn probe_address(address: IpAddr) -> io::Result<()> {
    let domain = Domain::for_address(SocketAddr::new(address, 0));
    let socket = Socket::new(domain, Type::STREAM.cloexec(), Some(Protocol::TCP))?;
    let from = Origin {
        address: Some(address),
        ..Origin::default()
    };
    begin_at(&socket, from)
}

/// Whether connections can begin at clients' addresses.
///
/// # Errors
/// What socket(2) and setsockopt(2) say: EPERM without CAP_NET_RAW and CAP_NET_ADMIN.
pub fn probe_transparency() -> io::Result<()> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM.cloexec(), Some(Protocol::TCP))?;
    make_transparent(&socket, true)
}

/// Lets an unconnected socket be bound to addresses that this machine does not have, and take
/// packets to them (ip(7), IP_TRANSPARENT).
fn make_transparent(socket: &Socket, is_ipv4: bool) -> io::Result<()> {
    count_calls(1);
    if is_ipv4 {
        socket.set_ip_transparent_v4(true)
    } else {
        socket.set_ip_transparent_v6(true)
    }
}

/// Whether this machine has an address from which it can reach `to`. Otherwise connect(2) fails by
/// EADDRNOTAVAIL, as it does when no port is free. A datagram socket tells them apart: it has other
/// ports, and its connect sends nothing.
#[must_use]
pub fn has_address_towards(to: &Address) -> bool {
    let Address::Tcp(to) = to else {
        return true;
    };
    let error = datagrams_to(to).err();
    error.and_then(|error| error.raw_os_error()) != Some(libc::EADDRNOTAVAIL)
}

/// A socket for datagrams to an address; none is sent.
pub(super) fn datagrams_to(to: &SocketAddr) -> io::Result<Socket> {
    let kind = Type::DGRAM.cloexec();
    // It is made, connected and closed.
    count_calls(3);
    let socket = Socket::new(Domain::for_address(*to), kind, Some(Protocol::UDP))?;
    socket.connect(&SockAddr::from(*to))?;
    Ok(socket)
}

/// Whether a socket can restrict its local ports: the kernel can (6.3), and [`disable_port_range`]
/// was not called.
#[must_use]
pub fn has_port_range() -> bool {
    if DISABLED.load(Ordering::Relaxed) {
        return false;
    }
    let known = PORT_RANGE.get().copied();
    // After a failure to find out, try again at the next call.
    let found = known.or_else(|| asks_for_port_range().map(|has| *PORT_RANGE.get_or_init(|| has)));
    found.unwrap_or(true)
}

/// Whether the kernel can restrict the local ports of a socket.
#[must_use]
pub fn finds_port_range() -> bool {
    asks_for_port_range().unwrap_or(true)
}

/// `None`: something else went wrong, such as a lack of descriptors.
fn asks_for_port_range() -> Option<bool> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM.cloexec(), Some(Protocol::TCP)).ok()?;
    // 0 is the default.
    match set(&socket, IP_LOCAL_PORT_RANGE, 0) {
        Ok(()) => Some(true),
        Err(error) => (error.raw_os_error() == Some(libc::ENOPROTOOPT)).then_some(false),
    }
}

/// Treats the kernel from now on as if it could not restrict ports, to test that.
pub fn disable_port_range() {
    DISABLED.store(true, Ordering::Relaxed);
}

/// The kernel's form: the last port in the upper half, the first one in the lower.
fn packed(ports: Ports) -> u32 {
    u32::from(ports.last()) << 16 | u32::from(ports.first())
}

/// Sets an option of the level IPPROTO_IP, which sockets of IPv6 have too.
fn set(socket: &Socket, option: libc::c_int, value: u32) -> io::Result<()> {
    count_calls(1);
    // SAFETY: `value` is read during the call only; the descriptor is the socket's own.
    let failed = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            option,
            (&raw const value).cast(),
            libc::socklen_t::try_from(size_of::<u32>()).unwrap_or(4),
        )
    };
    match failed {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Whether the kernel has IP_LOCAL_PORT_RANGE, once that is known.
static PORT_RANGE: OnceLock<bool> = OnceLock::new();
/// Whether it is treated as if it had not.
static DISABLED: AtomicBool = AtomicBool::new(false);

/// Of linux/in.h; the libc crate has no name for it.
const IP_LOCAL_PORT_RANGE: libc::c_int = 51;

#[cfg(test)]
mod tests {
    use super::super::ports;
    use super::*;

    #[test]
    fn a_socket_begins_at_its_origin() {
        let there = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let to = SockAddr::from(there.local_addr().unwrap());
        ports::read_local_ports();
        let first = *ports::local_ports().start() + 100;
        let ports = Ports::new(first, first + 899).unwrap();
        for _ in 0..20 {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            let from = Origin {
                address: Some("127.0.0.7".parse().unwrap()),
                ports: Some(ports),
                ..Origin::default()
            };
            begin_at(&socket, from).unwrap();
            socket.connect(&to).unwrap();
            let own = socket.local_addr().unwrap().as_socket().unwrap();
            assert_eq!(own.ip().to_string(), "127.0.0.7");
            assert!(!has_port_range() || ports.contains(own.port()), "{own}");
        }
    }

    #[test]
    fn this_machine_can_reach_itself_and_sockets_of_paths() {
        for to in ["127.0.0.1:9", "192.0.2.1:9", "unix:/run/x"] {
            assert!(has_address_towards(&to.parse().unwrap()), "{to}");
        }
    }

    #[test]
    fn an_address_of_another_machine_is_refused() {
        assert!(probe_address("127.0.0.1".parse().unwrap()).is_ok());
        let error = probe_address("192.0.2.1".parse().unwrap()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrNotAvailable);
    }
}
