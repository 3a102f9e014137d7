//! What a backend gets before the client's bytes: the header that says who the client is.

use crate::config::{HeaderPart, SendProxy};
use crate::kernel::{Buffer, Errno, Kernel};
use crate::peek::client_hello::each_offer;
use crate::peek::proxy_protocol::{
    CheckedTlvs, Endpoints, HeaderVersion, HeaderWriter, Ssl, Tlv, UNIQUE_ID_MAX, Unwritable, kind,
    write_v1,
};
use crate::peek::{ClientHello, Miss, Name, Short};
use crate::session::{Event, Links, Opening};
use crate::tls::openssl_name;
use crate::token::Side;

use super::slot::Slot;
use super::tls::TlsEnd;
use super::{SessionId, Worker};

impl<K: Kernel> Worker<K> {
    /// The answer to a connect that stands, with what the backend is to get first. Where there is
    /// no buffer for that, it has gone out already.
    pub(super) fn introduce(&mut self, key: usize) -> Event {
        let mut backend = self.slots[key].target.iter();
        match backend.any(|backend| backend.send_proxy.is_some()) {
            true => self.write_header(key),
            false => Event::Connected(Opening::Bare),
        }
    }

    #[inline(never)]
    fn write_header(&mut self, key: usize) -> Event {
        let slot = &self.slots[key];
        let backend = slot.target.as_ref();
        let Some(header) = backend.and_then(|backend| backend.send_proxy.as_ref()) else {
            return Event::Connected(Opening::Bare);
        };
        let hello = match header.reads_hello() {
            true => hello_of(&mut self.kernel, slot, &self.links),
            false => Hello::default(),
        };
        let said = Said {
            endpoints: self.endpoints(slot),
            hello,
            id: SessionId {
                worker: self.id,
                number: slot.number,
            },
            received: slot.named.as_ref().map(|named| &*named.tlvs),
            // A request to cancel may have come in the clear.
            tls: slot
                .tls(Side::Client)
                .filter(|tls| tls.agreed().version.is_some()),
        };
        let mut bytes = [0; LENGTH_MAX];
        let written = match header.version {
            HeaderVersion::V1 => write_v1(&mut bytes, &said.endpoints).map(|length| (length, 0)),
            HeaderVersion::V2 => write_v2(&mut bytes, header, &said),
        };
        let (length, left_out) = written.expect("there is room for all but what is relayed");
        self.stats.proxy_tlvs_dropped.add(left_out);
        let bytes = &bytes[..length];
        let Some(buffer) = self.kernel.take_buffer() else {
            // Sessions go on without buffers, and so they begin.
            let is_sent = self.kernel.say(slot.socket(Side::Backend), bytes);
            return match is_sent {
                true => Event::Connected(Opening::Bare),
                false => Event::ConnectFailed(Errno::NOBUFS),
            };
        };
        let len = u32::try_from(length).expect("a header is shorter than a buffer");
        let made = Buffer { len, ..buffer };
        self.kernel.bytes_mut(made).copy_from_slice(bytes);
        Event::Connected(Opening::Header(made))
    }

    /// The ends of the client's connection: those of the header that it came with, where that says
    /// them.
    fn endpoints(&self, slot: &Slot) -> Endpoints<'static> {
        if slot.is_own() {
            return Endpoints::Local;
        }
        let destination = slot.named.as_deref().and_then(|named| named.destination);
        let destination = destination.or_else(|| self.kernel.own_end(&slot.client));
        // Receivers refuse clients without an IP address: to them the connection is our own.
        match (slot.peer, destination) {
            (Some(source), Some(destination)) => Endpoints::Tcp {
                source,
                destination,
            },
            _ => Endpoints::Local,
        }
    }
}

/// What a header can say.
struct Said<'a> {
    endpoints: Endpoints<'static>,
    hello: Hello,
    id: SessionId,
    /// The TLVs of the header that the client came with.
    received: Option<&'a [u8]>,
    /// The client's TLS, where it ends here.
    tls: Option<&'a TlsEnd>,
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
    if let Some(around) = slot.around() {
        let protocol = around.protocol;
        return Hello {
            server_name: ClientHello::parse(around.hello).map_or(None, |hello| hello.server_name),
            alpn: protocol.and_then(|its| Short::read(its.iter().copied())),
        };
    }
    let first = slot.session.first_bytes(links);
    let held = first.map_or(&[][..], |first| kernel.bytes(first));
    let hello = match Hello::read(held) {
        Err(Miss::Incomplete) => Hello::read(kernel.bytes_ahead(first, &slot.client)),
        read => read,
    };
    hello.unwrap_or_default()
}

/// Writes a header of version 2. Returns its length, and how many received TLVs had no room.
fn write_v2(
    into: &mut [u8],
    header: &SendProxy,
    said: &Said<'_>,
) -> Result<(usize, u64), Unwritable> {
    let mut writer = HeaderWriter::new(into, &said.endpoints)?;
    let name = said.hello.server_name.as_ref().map(Name::as_bytes);
    let alpn = said.hello.alpn.as_ref().map(Short::as_bytes);
    let mut text = [0; UNIQUE_ID_MAX];
    let id = said.id.write(&mut text);
    for (part, kind, value) in [
        (HeaderPart::Authority, kind::AUTHORITY, name),
        (HeaderPart::Alpn, kind::ALPN, alpn),
        (HeaderPart::UniqueId, kind::UNIQUE_ID, Some(id)),
    ] {
        if let Some(value) = value.filter(|_| header.says(part)) {
            writer.tlv(Tlv { kind, value })?;
        }
    }
    if let Some(tls) = said.tls.filter(|_| header.says(HeaderPart::Ssl)) {
        write_ssl(&mut writer, tls)?;
    }
    let received = said.received.filter(|_| header.relay);
    let received = CheckedTlvs::of_checked(received.unwrap_or_default());
    let left_out = writer.relay_within(received, LENGTH_MAX - CHECKSUM);
    let length = match header.says(HeaderPart::Crc32c) {
        true => writer.finish_with_checksum()?,
        false => writer.finish(),
    };
    Ok((length, left_out))
}

/// Writes what is known of the TLS that has ended here.
fn write_ssl(writer: &mut HeaderWriter<'_>, tls: &TlsEnd) -> Result<(), Unwritable> {
    let (agreed, identity) = (tls.agreed(), tls.identity());
    let mut client = Ssl::OVER_TLS;
    if identity.is_some() {
        client |= Ssl::CERTIFICATE_IN_SESSION;
        if !agreed.resumed {
            client |= Ssl::CERTIFICATE_IN_CONNECTION;
        }
    }
    let version = match agreed.version {
        Some("1.3") => Some("TLSv1.3"),
        Some("1.2") => Some("TLSv1.2"),
        _ => None,
    };
    let name = identity.and_then(|its| its.common_name.as_deref());
    let parts = [
        (kind::SSL_VERSION, version),
        (kind::SSL_CIPHER, agreed.cipher.map(openssl_name)),
        (kind::SSL_CN, name),
    ];
    let parts = parts.map(|(kind, value)| Tlv {
        kind,
        value: value.unwrap_or_default().as_bytes(),
    });
    let known = if name.is_some() {
        &parts[..]
    } else {
        &parts[..2]
    };
    // 0 stands for a certificate that was verified, and for nothing else.
    let verify = u32::from(identity.is_none());
    writer.ssl(client, verify, known)
}

/// The most bytes of a header: with the headers of IPv6 and TCP it fits the smallest MTU that IPv6
/// allows, 1,280 (RFC 8200, section 5), and so one segment.
const LENGTH_MAX: usize = 1_200;
/// The bytes of a checksum's TLV.
const CHECKSUM: usize = 7;
/// The most bytes of an offered protocol (RFC 7301, section 3.1).
const ALPN_MAX: usize = 255;
