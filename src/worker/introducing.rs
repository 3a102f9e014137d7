//! What a backend gets before the client's bytes: the header that says who the client is.

use crate::config::{HeaderPart, SendProxy};
use crate::kernel::{Buffer, Errno, Kernel};
use crate::peek::client_hello::each_offer;
use crate::peek::proxy_protocol::{
    Endpoints, HeaderVersion, HeaderWriter, Tlv, UNIQUE_ID_MAX, Unwritable, kind, write_v1,
};
use crate::peek::{ClientHello, Miss, Name, Short};
use crate::session::{Event, Links};

use super::slot::Slot;
use super::{SessionId, Worker};

impl<K: Kernel> Worker<K> {
    /// The answer to a connect that stands, with what the backend is to get first. Where there is
    /// no buffer for that, the attempt has failed by a lack of this machine.
    pub(super) fn introduce(&mut self, key: usize) -> Event {
        let slot = &self.slots[key];
        let backend = slot.target.as_ref();
        let Some(header) = backend.and_then(|backend| backend.send_proxy.as_ref()) else {
            return Event::Connected(None);
        };
        let hello = match header.reads_hello() {
            true => hello_of(&mut self.kernel, slot, &self.links),
            false => Hello::default(),
        };
        let ends = slot.peer.zip(self.kernel.own_end(&slot.client));
        // Receivers refuse clients without an IP address: to them the connection is our own.
        let endpoints = ends.map_or(Endpoints::Local, |(source, destination)| Endpoints::Tcp {
            source,
            destination,
        });
        let id = SessionId {
            worker: self.id,
            number: slot.number,
        };
        let Some(buffer) = self.kernel.take_buffer() else {
            return Event::ConnectFailed(Errno::NOBUFS);
        };
        let into = self.kernel.bytes_mut(buffer);
        let length = match header.version {
            HeaderVersion::V1 => write_v1(into, &endpoints),
            HeaderVersion::V2 => write_v2(into, &endpoints, header, &hello, id),
        };
        let length = length.expect("a buffer has room for a header");
        let len = u32::try_from(length).expect("a header is shorter than a buffer");
        Event::Connected(Some(Buffer { len, ..buffer }))
    }
}

/// What a header says of a client's TLS hello.
#[derive(Debug, Default)]
struct Hello {
    server_name: Option<Name>,
    /// The protocol that it offers, where that is one alone: then the server can choose no other.
    alpn: Option<Short<ALPN_MAX>>,
}

impl Hello {
    fn read(first: &[u8]) -> Result<Self, Miss> {
        let server_name = ClientHello::parse(first)?.server_name;
        let (mut alpn, mut offers) = (None, 0);
        each_offer(first, |offer| {
            offers += 1;
            alpn = Short::read(offer.iter().copied());
        })?;
        Ok(Self {
            server_name,
            alpn: alpn.filter(|_| offers == 1),
        })
    }
}

/// What the client's hello says. Without a buffer for all of it the rest waits at the socket.
fn hello_of<K: Kernel>(kernel: &mut K, slot: &Slot, links: &Links) -> Hello {
    let first = slot.session.first_bytes(links);
    let held = first.map_or(&[][..], |first| kernel.bytes(first));
    let hello = match Hello::read(held) {
        Err(Miss::Incomplete) => Hello::read(kernel.bytes_ahead(first, &slot.client)),
        read => read,
    };
    hello.unwrap_or_default()
}

fn write_v2(
    into: &mut [u8],
    endpoints: &Endpoints<'_>,
    header: &SendProxy,
    hello: &Hello,
    id: SessionId,
) -> Result<usize, Unwritable> {
    let mut writer = HeaderWriter::new(into, endpoints)?;
    let name = hello.server_name.as_ref().map(Name::as_bytes);
    let alpn = hello.alpn.as_ref().map(Short::as_bytes);
    let mut text = [0; UNIQUE_ID_MAX];
    let id = id.write(&mut text);
    for (part, kind, value) in [
        (HeaderPart::Authority, kind::AUTHORITY, name),
        (HeaderPart::Alpn, kind::ALPN, alpn),
        (HeaderPart::UniqueId, kind::UNIQUE_ID, Some(id)),
    ] {
        if let Some(value) = value.filter(|_| header.says(part)) {
            writer.tlv(Tlv { kind, value })?;
        }
    }
    if header.says(HeaderPart::Crc32c) {
        writer.finish_with_checksum()
    } else {
        Ok(writer.finish())
    }
}

/// The most bytes of an offered protocol (RFC 7301, section 3.1).
const ALPN_MAX: usize = 255;
