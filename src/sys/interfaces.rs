//! The addresses on this machine's interfaces.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ptr;

/// All addresses on interfaces, loopback included. An address that only a route of type `local`
/// makes this machine's own is on none. The kernel may let this wait while others change
/// interfaces (rtnetlink(7)): it is no call for the control thread.
///
/// # Errors
/// What getifaddrs(3) says.
pub fn interface_addresses() -> io::Result<Vec<IpAddr>> {
    let mut first = ptr::null_mut();
    // SAFETY: it writes the head of a list, which this function owns until freeifaddrs(3) below.
    if unsafe { libc::getifaddrs(&raw mut first) } < 0 {
        return Err(io::Error::last_os_error());
    }
    let mut all = Vec::new();
    let mut next: *const libc::ifaddrs = first;
    // SAFETY: `next` is null or an element of the list, which is freed after this loop.
    while let Some(element) = unsafe { next.as_ref() } {
        all.extend(ip(element.ifa_addr));
        next = element.ifa_next;
    }
    // SAFETY: the list is the one of getifaddrs(3), and nothing refers to it any more.
    unsafe { libc::freeifaddrs(first) };
    Ok(all)
}

/// The address of an element of the list; `None`: it is of another family, or there is none.
fn ip(address: *const libc::sockaddr) -> Option<IpAddr> {
    // SAFETY: it is null or points into the list, which the caller holds.
    let family = unsafe { address.as_ref() }?.sa_family;
    match libc::c_int::from(family) {
        libc::AF_INET => {
            // SAFETY: of this family the kernel gives this type, which needs no alignment here.
            let its = unsafe { ptr::read_unaligned(address.cast::<libc::sockaddr_in>()) };
            Some(Ipv4Addr::from(its.sin_addr.s_addr.to_ne_bytes()).into())
        }
        libc::AF_INET6 => {
            // SAFETY: as above.
            let its = unsafe { ptr::read_unaligned(address.cast::<libc::sockaddr_in6>()) };
            Some(Ipv6Addr::from(its.sin6_addr.s6_addr).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_on_an_interface_and_its_other_addresses_are_on_none() {
        let all = interface_addresses().unwrap();
        assert!(all.contains(&Ipv4Addr::LOCALHOST.into()), "{all:?}");
        // It is this machine's by the local route of 127.0.0.0/8.
        assert!(
            !all.contains(&Ipv4Addr::new(127, 9, 9, 9).into()),
            "{all:?}"
        );
    }
}
