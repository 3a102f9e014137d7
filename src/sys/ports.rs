//! The ports that the kernel takes for outgoing connections, and connections of a socket to itself.

use std::fs;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU32, Ordering};

/// `net.ipv4.ip_local_port_range` as it was last read: the first port in the upper half, the last
/// one in the lower. All ports until it is read.
static LOCAL_PORTS: AtomicU32 = AtomicU32::new(0xffff);

/// Reads which ports the kernel takes. Call it again from time to time, as they may change.
pub fn read_local_ports() {
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range");
    if let Some((first, last)) = text.ok().as_deref().and_then(range) {
        let packed = u32::from(first) << 16 | u32::from(last);
        LOCAL_PORTS.store(packed, Ordering::Relaxed);
    }
}

/// The ports that the kernel takes for outgoing connections.
#[must_use]
pub fn local_ports() -> RangeInclusive<u16> {
    let packed = LOCAL_PORTS.load(Ordering::Relaxed);
    let half = |half: u32| u16::try_from(half & 0xffff).unwrap_or(u16::MAX);
    half(packed >> 16)..=half(packed)
}

/// Whether a connection's two ends are one socket. That happens when connect(2) to a port without a
/// listener takes the same port as its own (a simultaneous open of TCP, RFC 9293, section 3.5).
#[must_use]
pub fn is_one_end(own: Option<SocketAddr>, peer: Option<SocketAddr>) -> bool {
    // Only one of the addresses may have a zone.
    let ends = own.zip(peer);
    ends.is_some_and(|(own, peer)| own.port() == peer.port() && own.ip() == peer.ip())
}

fn range(text: &str) -> Option<(u16, u16)> {
    let mut ports = text.split_whitespace().map(|port| port.parse().ok());
    Some((ports.next()??, ports.next()??))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_range_is_read_as_the_kernel_writes_it() {
        assert_eq!(range("32768\t60999\n"), Some((32_768, 60_999)));
        assert_eq!(range("1\n"), None);
        read_local_ports();
        let ports = local_ports();
        assert!(
            *ports.start() > 0 && ports.start() < ports.end(),
            "{ports:?}"
        );
    }

    #[test]
    fn one_end_has_one_address_and_one_port() {
        let at = |text: &str| Some(text.parse().unwrap());
        assert!(is_one_end(at("127.0.0.1:9"), at("127.0.0.1:9")));
        assert!(is_one_end(at("[fe80::1%2]:9"), at("[fe80::1]:9")));
        assert!(!is_one_end(at("127.0.0.1:9"), at("127.0.0.2:9")));
        assert!(!is_one_end(at("127.0.0.1:9"), at("127.0.0.1:8")));
        assert!(!is_one_end(at("127.0.0.1:9"), None));
    }
}
