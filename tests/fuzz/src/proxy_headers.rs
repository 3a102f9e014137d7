//! Headers of the PROXY protocol, against the crates `ppp` and `proxy-header`.
//!
//! Where they accept more than we do, the reason stands at the case.

use std::net::SocketAddr;

use mahoraga::peek::proxy_protocol::{
    CheckedTlvs, Endpoints, Header, HeaderError, HeaderVersion, HeaderWriter, LENGTH_MAX, TLVS_MAX,
    kind, parse, write_v1,
};
use ppp::PartialResult;

/// An answer stays, and is that of others; what is written again is read as the same.
pub fn proxy_headers(bytes: &[u8]) {
    let bytes = &bytes[..bytes.len().min(LENGTH_MAX)];
    let answer = parse(bytes);
    assert!(bytes.len() < LENGTH_MAX || answer != Ok(None));
    let mut before = Ok(None);
    for length in (0..bytes.len()).step_by(1 + bytes.len() / 256) {
        let parsed = parse(&bytes[..length]);
        assert!(before == Ok(None) || parsed == before, "{length} bytes");
        before = parsed;
    }
    assert!(before == Ok(None) || answer == before);
    compare_with_ppp(bytes);
    compare_with_proxy_header(bytes);
    if let Ok(Some(header)) = answer {
        write_again(&header);
    }
}

fn compare_with_ppp(bytes: &[u8]) {
    let (is_partial, theirs) = match ppp::HeaderResult::parse(bytes) {
        ppp::HeaderResult::V1(theirs) => (theirs.is_incomplete(), of_ppp_v1(theirs.ok())),
        ppp::HeaderResult::V2(theirs) => {
            let is_partial = theirs.is_incomplete();
            (is_partial, theirs.ok().map(|theirs| of_ppp_v2(&theirs)))
        }
    };
    match (parse(bytes), theirs) {
        (Ok(Some(ours)), Some(theirs)) => assert_same(&ours, &theirs),
        // The rest of a LOCAL header is ignored, also an unknown family or too few addresses; and
        // UNKNOWN any bytes.
        (Ok(Some(ours)), None) => {
            let endpoints = ours.endpoints;
            let is_v1 = ours.version == HeaderVersion::V1;
            let is_lax =
                endpoints == Endpoints::Local || (is_v1 && endpoints == Endpoints::Unknown);
            assert!(is_lax, "{ours:?}");
        }
        (Err(error), Some(theirs)) => {
            assert!(
                is_strict(error, &theirs) || is_signed(error, bytes),
                "{error}"
            );
        }
        // They look into a line that has not ended, and find the same mistake.
        (Ok(None), None) if !is_partial => {
            let is_local = bytes.get(12) == Some(&0x20);
            let ended = [bytes, b"\r\n"].concat();
            let error = parse(&ended);
            let is_unknown = bytes.starts_with(b"PROXY UNKNOWN");
            assert!(is_local || is_unknown || error.is_err(), "{error:?}");
        }
        (Ok(None), None) | (Err(_), None) => {}
        (Ok(None), Some(theirs)) => panic!("they have {theirs:?}"),
    }
}

/// What another parser has found, where it says so.
#[derive(Debug)]
struct Theirs {
    is_local: bool,
    addresses: Option<(SocketAddr, SocketAddr)>,
    length: usize,
    /// `None`: they are malformed.
    tlvs: Option<Vec<(u8, Vec<u8>)>>,
}

fn of_ppp_v1(header: Option<ppp::v1::Header<'_>>) -> Option<Theirs> {
    use ppp::v1::Addresses;
    let header = header?;
    let addresses = match header.addresses {
        Addresses::Unknown => None,
        Addresses::Tcp4(ip) => Some((
            (ip.source_address, ip.source_port).into(),
            (ip.destination_address, ip.destination_port).into(),
        )),
        Addresses::Tcp6(ip) => Some((
            (ip.source_address, ip.source_port).into(),
            (ip.destination_address, ip.destination_port).into(),
        )),
    };
    Some(Theirs {
        is_local: false,
        addresses,
        length: header.header.len(),
        tlvs: Some(Vec::new()),
    })
}

fn of_ppp_v2(header: &ppp::v2::Header<'_>) -> Theirs {
    use ppp::v2::{Addresses, Command, Protocol, TypeLengthValues};
    let is_stream = header.protocol == Protocol::Stream;
    let addresses = match header.addresses {
        Addresses::IPv4(ip) if is_stream => Some((
            (ip.source_address, ip.source_port).into(),
            (ip.destination_address, ip.destination_port).into(),
        )),
        Addresses::IPv6(ip) if is_stream => Some((
            (ip.source_address, ip.source_port).into(),
            (ip.destination_address, ip.destination_port).into(),
        )),
        Addresses::Unspecified | Addresses::IPv4(_) | Addresses::IPv6(_) | Addresses::Unix(_) => {
            None
        }
    };
    // Without a family all of it would be the address.
    let tlvs = if header.addresses == Addresses::Unspecified {
        TypeLengthValues::from(&header.as_bytes()[16..])
    } else {
        header.tlvs()
    };
    let tlvs: Result<Vec<_>, _> = tlvs
        .map(|tlv| tlv.map(|tlv| (tlv.kind, tlv.value.into_owned())))
        .collect();
    Theirs {
        is_local: header.command == Command::Local,
        addresses,
        length: header.as_bytes().len(),
        tlvs: tlvs.ok(),
    }
}

fn compare_with_proxy_header(bytes: &[u8]) {
    use proxy_header::{ParseConfig, Protocol, ProxyHeader};
    let theirs = ProxyHeader::parse(bytes, ParseConfig::default());
    match (parse(bytes), theirs) {
        (Ok(Some(ours)), Ok((theirs, length))) => {
            assert_eq!(ours.length, length);
            let addresses = theirs.proxied_address();
            let addresses = addresses.filter(|its| its.protocol == Protocol::Stream);
            let addresses = addresses.map(|its| (its.source, its.destination));
            assert_eq!(of_tcp(ours.endpoints), addresses, "{ours:?}");
            compare_values(&ours, &theirs);
        }
        // As above.
        (Ok(Some(ours)), Err(_)) => {
            assert_eq!(ours.endpoints, Endpoints::Local, "{ours:?}");
        }
        // They read a port as Rust does, with zeros and a sign before it, and more before CR LF.
        (Err(_), Ok(_)) | (Ok(None) | Err(_), Err(_)) => {}
        (ours, theirs) => panic!("{ours:?} and {theirs:?}"),
    }
}

fn compare_values(ours: &Header<'_>, theirs: &proxy_header::ProxyHeader<'_>) {
    if ours.endpoints == Endpoints::Local {
        return;
    }
    for (kind, value) in [
        (kind::ALPN, theirs.alpn()),
        (kind::UNIQUE_ID, theirs.unique_id()),
    ] {
        // They stop at a text that is not in UTF-8.
        let value = value.map_or_else(|| ours.tlvs.value(kind), Some);
        assert_eq!(ours.tlvs.value(kind), value);
    }
    if let (Some(ours), Some(theirs)) = (ours.tlvs.ssl(), theirs.ssl()) {
        assert_eq!(ours.client & 1 != 0, theirs.client_ssl());
        assert_eq!(ours.verify, theirs.verify());
        if let Some(version) = theirs.version() {
            let our_version = ours.parts.value(kind::SSL_VERSION);
            assert_eq!(our_version, Some(version.as_bytes()));
        }
    }
}

fn assert_same(ours: &Header<'_>, theirs: &Theirs) {
    assert_eq!(ours.length, theirs.length);
    assert_eq!(ours.endpoints == Endpoints::Local, theirs.is_local);
    if !theirs.is_local {
        assert_eq!(of_tcp(ours.endpoints), theirs.addresses);
        let tlvs = ours.tlvs.map(|tlv| (tlv.kind, tlv.value.to_vec()));
        assert_eq!(Some(tlvs.collect()), theirs.tlvs);
    }
}

fn of_tcp(endpoints: Endpoints<'_>) -> Option<(SocketAddr, SocketAddr)> {
    match endpoints {
        Endpoints::Tcp {
            source,
            destination,
        } => Some((source, destination)),
        Endpoints::Local | Endpoints::Unknown | Endpoints::Unix { .. } => None,
    }
}

/// Whether they have a header that we refuse with reason.
fn is_strict(error: HeaderError, theirs: &Theirs) -> bool {
    match error {
        HeaderError::Overrun => theirs.tlvs.is_none(),
        // They take a line feed within the line or at its end; a half combination of family and
        // transport.
        HeaderError::LineEnd
        | HeaderError::Transport
        | HeaderError::TooLong
        | HeaderError::TooMany
        | HeaderError::Repeated
        | HeaderError::UniqueId
        | HeaderError::Ssl
        | HeaderError::Checksum => true,
        HeaderError::Missing
        | HeaderError::Family
        | HeaderError::Address
        | HeaderError::Port
        | HeaderError::LineTooLong
        | HeaderError::Version
        | HeaderError::Command
        | HeaderError::TooShort => false,
    }
}

/// They read a port of a line as Rust does, with a sign before it.
fn is_signed(error: HeaderError, bytes: &[u8]) -> bool {
    error == HeaderError::Port && bytes.windows(2).any(|two| two == b" +")
}

/// Written with its own parts, with a checksum, and as a line: others read it too.
fn write_again(header: &Header<'_>) {
    let mut memory = [0; LENGTH_MAX];
    let mut writer = HeaderWriter::new(&mut memory, &header.endpoints).unwrap();
    // With a checksum the longest one does not fit any more, nor the one of most TLVs.
    let nested = header.tlvs.ssl().map_or(0, |ssl| ssl.parts.count());
    let has_room = header.tlvs.count() + nested < TLVS_MAX;
    let is_relayed = writer.relay(header.tlvs).is_ok() && has_room;
    if let Ok(length) = writer.finish_with_checksum()
        && is_relayed
    {
        let again = parse(&memory).unwrap().unwrap();
        assert_eq!(again.length, length);
        compare_with_ppp(&memory[..length]);
        compare_with_proxy_header(&memory[..length]);
        assert_eq!(
            of_one_family(again.endpoints),
            of_one_family(header.endpoints)
        );
        let others = |tlvs: CheckedTlvs<'_>| -> Vec<_> {
            let others = tlvs.filter(|tlv| ![kind::NOOP, kind::CRC32C].contains(&tlv.kind));
            others.map(|tlv| (tlv.kind, tlv.value.to_vec())).collect()
        };
        if header.endpoints != Endpoints::Local {
            assert_eq!(others(again.tlvs), others(header.tlvs));
        }
    }
    let length = write_v1(&mut memory, &header.endpoints).unwrap();
    let line = parse(&memory[..length]).unwrap().unwrap();
    assert_eq!(line.length, length);
    compare_with_ppp(&memory[..length]);
    compare_with_proxy_header(&memory[..length]);
    let endpoints = of_one_family(header.endpoints);
    assert_eq!(of_tcp(line.endpoints), of_tcp(endpoints));
}

/// Mapped addresses are written as what they stand for.
fn of_one_family(endpoints: Endpoints<'_>) -> Endpoints<'_> {
    let Some((source, destination)) = of_tcp(endpoints) else {
        return endpoints;
    };
    let canonical = |its: SocketAddr| SocketAddr::new(its.ip().to_canonical(), its.port());
    let [source, destination] = [source, destination].map(canonical);
    if source.is_ipv4() != destination.is_ipv4() {
        return endpoints;
    }
    Endpoints::Tcp {
        source,
        destination,
    }
}
