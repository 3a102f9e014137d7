//! A network for one test: of the calling thread, and of all it starts from then on.

use std::fs;
use std::io;
use std::net::Ipv4Addr;
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

/// Gives the thread's network an address beside 127.0.0.1, or takes it away.
#[expect(unsafe_code, reason = "libc has no other way from one to the other")]
pub(crate) fn set_address(address: Ipv4Addr, there: bool) {
    if there {
        let address = libc::sockaddr_in {
            sin_family: u16::try_from(libc::AF_INET).expect("a small number"),
            sin_port: 0,
            sin_addr: libc::in_addr {
                s_addr: u32::from(address).to_be(),
            },
            sin_zero: [0; 8],
        };
        // SAFETY: both are plain bytes, and `sockaddr` is as long as `sockaddr_in`.
        let address = unsafe { std::mem::transmute::<libc::sockaddr_in, libc::sockaddr>(address) };
        let change = libc::__c_anonymous_ifr_ifru { ifru_addr: address };
        ask("lo:1", libc::SIOCSIFADDR, change).unwrap();
    } else {
        // netdevice(7): an alias that is taken down is deleted.
        let change = libc::__c_anonymous_ifr_ifru { ifru_flags: 0 };
        ask("lo:1", libc::SIOCSIFFLAGS, change).unwrap();
    }
}

fn raise_loopback() -> io::Result<()> {
    let up = libc::c_short::try_from(libc::IFF_UP).expect("a low bit");
    let change = libc::__c_anonymous_ifr_ifru { ifru_flags: up };
    ask("lo", libc::SIOCSIFFLAGS, change)
}

/// Changes something of a network device.
#[expect(unsafe_code, reason = "no crate at hand wraps it")]
fn ask(device: &str, request: libc::Ioctl, change: libc::__c_anonymous_ifr_ifru) -> io::Result<()> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
    let mut ifr_name = [0; libc::IFNAMSIZ];
    for (to, from) in ifr_name.iter_mut().zip(device.bytes()) {
        *to = libc::c_char::try_from(from).expect("ASCII");
    }
    let ifreq = libc::ifreq {
        ifr_name,
        ifr_ifru: change,
    };
    // SAFETY: `ifreq` is read during the call only.
    match unsafe { libc::ioctl(socket.as_raw_fd(), request, &raw const ifreq) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
