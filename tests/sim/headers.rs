//! Proxies in front of the balancer: the headers that they send, in pieces and broken.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use mahoraga::guard::PeerStage;
use mahoraga::prefix::Prefix;
use mahoraga::snapshot::Proxies;
use mahoraga::time::MS;

use crate::kernel::FakeKernel;
use crate::orders::client_ip;
use crate::peer::Act;
use crate::random::Random;

/// A header on its way: what has come of it stands before all other bytes.
#[derive(Debug)]
pub(crate) struct Header {
    pub(crate) bytes: Vec<u8>,
    pub(crate) come: usize,
    /// What was taken of it.
    taken: usize,
    /// Whether it is one, and nothing else.
    pub(crate) is_whole: bool,
    /// Where a second one begins.
    second: Option<usize>,
}

impl Header {
    /// What can be looked at of it.
    pub(crate) fn seen(&self) -> &[u8] {
        &self.bytes[self.taken..self.come]
    }

    /// All of it is there, so that other bytes may follow.
    pub(crate) fn is_there(&self) -> bool {
        self.come == self.bytes.len()
    }
}

/// The address that a header names for a connection: that of its proxy, so that what is known of
/// clients by their sockets holds.
pub(crate) fn named(fd: i32) -> SocketAddr {
    let port = u16::try_from(fd).expect("few connections");
    SocketAddr::new(client_ip(u64::from(port)), port)
}

/// The proxies of a listener: all but those of one address.
pub(crate) fn proxies(unfinished_max: u32, timeout: u64) -> Proxies {
    let trusted = [client_ip(1), client_ip(2)].map(|ip| Prefix::new(ip, 32).expect("an address"));
    Proxies {
        stage: Arc::new(PeerStage::new(&trusted, true, unfinished_max)),
        timeout,
    }
}

impl FakeKernel {
    /// A client of a proxy: before all that it does itself comes a header, which most often is one.
    pub(crate) fn begin_with_header(&mut self, fd: i32) {
        let header = header(named(fd), &mut self.random);
        let peer = &mut self.conn(fd).peer;
        if !header.is_whole {
            // Nothing of it reaches a backend.
            peer.script.clear();
        }
        peer.script.push_front(Act::Header);
        if !header.is_whole {
            let end = self.random.pick(&[Act::Pause(0), Act::Fin, Act::Reset]);
            self.conn(fd).peer.script.push_back(end);
        }
        self.conn(fd).header = Some(header);
    }

    /// The balancer takes the header of a proxy, and nothing else. `None`: it has none, or not any
    /// more.
    pub(crate) fn hear_header(&mut self, fd: i32, into: &mut [u8]) -> Option<usize> {
        let now = self.now;
        let conn = self.conn(fd);
        let header = conn.header.as_mut()?;
        assert!(header.is_whole && header.is_there(), "{header:?}");
        let left = header.seen();
        assert!(
            into.len() <= left.len(),
            "{fd} loses bytes behind its header"
        );
        into.copy_from_slice(&left[..into.len()]);
        header.taken += into.len();
        if header.seen().is_empty() {
            conn.header = None;
            conn.moved_at = now;
            self.trace.see("a client that a proxy has named");
        }
        Some(into.len())
    }

    /// A piece of a header comes; the time until the next one, if that is not all.
    pub(crate) fn header_comes(&mut self, fd: i32) -> Option<u64> {
        let now = self.now;
        let all_at_once = self.random.permille(400);
        let piece = self.random.between(1, 40);
        let header = self.conn(fd).header.as_mut().expect("it is on its way");
        let left = header.bytes.len() - header.come;
        let piece = usize::try_from(piece).expect("a few bytes").min(left);
        header.come += if all_at_once { left } else { piece };
        // A second one whose rest comes later than the first is the client's own bytes.
        if header.second.is_some_and(|second| header.come >= second) {
            header.come = header.bytes.len();
        }
        let is_there = header.is_there();
        let conn = self.conn(fd);
        conn.header_pieces += 1;
        conn.moved_at = now;
        self.trace.fact("a piece of a header", fd, 0);
        self.wake_ops(fd);
        if is_there {
            return None;
        }
        self.trace.see("a header in pieces");
        Some(self.random.pick(&[MS / 10, MS, 20 * MS, 90 * MS]))
    }
}

fn header(of: SocketAddr, random: &mut Random) -> Header {
    let IpAddr::V4(ip) = of.ip() else {
        unreachable!("clients have addresses of IPv4");
    };
    let v1 = format!("PROXY TCP4 {ip} 198.51.100.7 {} 443\r\n", of.port()).into_bytes();
    let padding = vec![0; usize::try_from(random.below(200)).expect("few")];
    let length = u8::try_from(12 + 3 + padding.len()).expect("short");
    let padded = u8::try_from(padding.len()).expect("short");
    let v2 = [
        &b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0"[..],
        &[length],
        &ip.octets(),
        &[198, 51, 100, 7],
        &of.port().to_be_bytes(),
        &[1, 0xbb, 4, 0, padded],
        &padding,
    ]
    .concat();
    let first = random.pick(&[true, false]);
    let whole = if first { &v1 } else { &v2 };
    let (bytes, is_whole) = match random.below(10) {
        0 => (whole[..whole.len() - 1].to_vec(), false),
        1 => (vec![b'G'; 30], false),
        2 => ([whole, &v1[..]].concat(), false),
        _ => (whole.clone(), true),
    };
    Header {
        second: (bytes.len() > whole.len()).then_some(whole.len()),
        bytes,
        come: 0,
        taken: 0,
        is_whole,
    }
}

/// What clients of proxies have connected to.
pub(crate) const DESTINATION: ([u8; 4], u16) = ([198, 51, 100, 7], 443);
