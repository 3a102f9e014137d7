//! A network for one test: of the calling thread, and of all it starts from then on.

use std::fs;
use std::io;
use std::os::fd::AsRawFd;

use socket2::{Domain, Socket, Type};

/// Moves the calling thread to a network that has a loopback device and nothing else, where the
/// kernel takes local ports from this range. That needs root, as CI has.
pub(crate) fn own(ports: &str) {
    leave().expect("a network namespace: run the tests as root");
    raise_loopback().unwrap();
    set_ports(ports);
}

/// `net.ipv4.ip_local_port_range` of the thread's network.
pub(crate) fn set_ports(ports: &str) {
    // The file shows the network of the process that opens it.
    fs::write("/proc/sys/net/ipv4/ip_local_port_range", ports).unwrap();
}

#[expect(unsafe_code, reason = "no crate at hand wraps it")]
fn leave() -> io::Result<()> {
    // SAFETY: no memory is handed over; only the calling thread goes over.
    match unsafe { libc::unshare(libc::CLONE_NEWNET) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[expect(unsafe_code, reason = "no crate at hand wraps it")]
fn raise_loopback() -> io::Result<()> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
    // SAFETY: zeroes are an `ifreq` without a name.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(*b"lo") {
        *to = libc::c_char::try_from(from).expect("ASCII");
    }
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(libc::IFF_UP).expect("a low bit");
    // SAFETY: `request` is read during the call only.
    match unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
