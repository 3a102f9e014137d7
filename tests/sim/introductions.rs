//! Backends that expect a PROXY header before the bytes of their client.

use std::net::SocketAddr;

use mahoraga::config::{HeaderPart, SendProxy};
use mahoraga::kernel::{Kernel, Socket};
use mahoraga::peek::proxy_protocol::{Endpoints, HeaderVersion, kind, parse};

use crate::headers;
use crate::kernel::{FakeKernel, OWN_END};

/// The header that the backend of this port expects, where some do.
pub(crate) fn expected_at(port: u16) -> Option<SendProxy> {
    let (version, tlvs) = match port % 5 {
        0 => (HeaderVersion::V1, vec![]),
        1 => (HeaderVersion::V2, vec![HeaderPart::UniqueId]),
        2 => (
            HeaderVersion::V2,
            vec![HeaderPart::Authority, HeaderPart::Crc32c],
        ),
        _ => return None,
    };
    Some(SendProxy {
        version,
        tlvs,
        relay: false,
    })
}

impl FakeKernel {
    /// A header goes to a backend without a buffer, or finds no memory: then that was no attempt.
    pub(crate) fn introduce_at_once(&mut self, fd: i32, bytes: &[u8]) -> bool {
        if self.conn(fd).is_gone() || self.random.permille(200) {
            self.part(fd);
            self.trace.see("no memory for a header");
            return false;
        }
        let taken = self.take_header(fd, bytes);
        assert_eq!(taken, bytes.len(), "{fd} gets more than a header");
        assert!(self.conn(fd).introduction.is_none(), "{fd} gets less");
        self.trace.see("a header without a buffer");
        self.on_header_sent(fd, false);
        true
    }

    /// A backend's connection is no client's: another one takes its place.
    fn part(&mut self, fd: i32) {
        let client = self.conn(fd).partner.expect("it has one");
        self.conn(client).partner = None;
        let mut pairs = self.pairs.values_mut();
        let pair = pairs.find(|pair| pair.backend == Some(fd));
        pair.expect("they are a pair").backend = None;
    }

    /// Bytes go to a peer. Returns how many of them belong to the header that it waits for, which
    /// must name its partner.
    pub(crate) fn take_header(&mut self, fd: i32, bytes: &[u8]) -> usize {
        let Some((expected, mut header)) = self.conn(fd).introduction.take() else {
            return 0;
        };
        let before = header.len();
        header.extend(bytes);
        let found = parse(&header).unwrap_or_else(|error| panic!("{fd} gets no header: {error}"));
        let Some(found) = found else {
            self.trace.see("a part of a header");
            self.conn(fd).introduction = Some((expected, header));
            return bytes.len();
        };
        let partner = self.conn(fd).partner.expect("it has one");
        let ends = Endpoints::Tcp {
            source: self.peer(&Socket::from_raw(partner)).expect("it has one"),
            destination: match self.conn(partner).header_pieces {
                0 => SocketAddr::from(OWN_END),
                _ => SocketAddr::from(headers::DESTINATION),
            },
        };
        assert_eq!((found.version, found.endpoints), (expected.version, ends));
        for (part, kind) in [
            (HeaderPart::UniqueId, kind::UNIQUE_ID),
            (HeaderPart::Crc32c, kind::CRC32C),
        ] {
            assert_eq!(found.tlvs.value(kind).is_some(), expected.says(part));
        }
        let alone = found.length == header.len();
        self.trace.see(match alone {
            true => "a header alone",
            false => "a header with the first bytes",
        });
        found.length - before
    }
}
