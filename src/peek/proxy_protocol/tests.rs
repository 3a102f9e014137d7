//! Headers of both versions, cut anywhere, broken in each way, and written.

mod writing;

use super::*;

/// Every prefix shorter than `end` is incomplete; `end` bytes and all longer ones give the answer.
#[track_caller]
fn assert_from(end: usize, answer: Result<Header<'_>, HeaderError>, first: &[u8]) {
    for length in 0..=first.len() {
        let expected = match answer {
            _ if length < end => Ok(None),
            Ok(header) => Ok(Some(header)),
            Err(error) => Err(error),
        };
        let parsed = parse(&first[..length]);
        assert_eq!(
            parsed,
            expected,
            "{length} bytes of {}",
            first.escape_ascii()
        );
    }
}

fn tcp(source: &str, destination: &str) -> Endpoints<'static> {
    Endpoints::Tcp {
        source: source.parse().expect("an address"),
        destination: destination.parse().expect("an address"),
    }
}

#[test]
fn lines_of_version_1() {
    let longest = "PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff \
                   ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535";
    assert_eq!(longest.len() + v1::END.len(), v1::LINE_MAX);
    for (line, endpoints) in [
        (
            "PROXY TCP4 192.0.2.1 198.51.100.7 56324 443",
            tcp("192.0.2.1:56324", "198.51.100.7:443"),
        ),
        (
            "PROXY TCP6 2001:db8::1 2001:DB8:0:0:0:0:0:2 0 65535",
            tcp("[2001:db8::1]:0", "[2001:db8::2]:65535"),
        ),
        (
            "PROXY TCP6 ::ffff:192.0.2.1 ::1 1 2",
            tcp("[::ffff:192.0.2.1]:1", "[::1]:2"),
        ),
        ("PROXY UNKNOWN", Endpoints::Unknown),
        ("PROXY UNKNOWN ", Endpoints::Unknown),
        ("PROXY UNKNOWN any \0\t\u{e9} thing", Endpoints::Unknown),
        (longest, Endpoints::Unknown),
    ] {
        let header = Header {
            version: HeaderVersion::V1,
            endpoints,
            tlvs: CheckedTlvs::NONE,
            length: line.len() + v1::END.len(),
        };
        let first = format!("{line}\r\nGET / HTTP/1.1\r\n\r\n");
        assert_from(header.length, Ok(header), first.as_bytes());
    }
}

#[test]
fn broken_lines_of_version_1() {
    for (line, error) in [
        ("PROXY TCP5 192.0.2.1 192.0.2.2 1 2", HeaderError::Family),
        ("PROXY tcp4 192.0.2.1 192.0.2.2 1 2", HeaderError::Family),
        ("PROXY UNKNOWNS", HeaderError::Family),
        ("PROXY  UNKNOWN", HeaderError::Family),
        ("PROXY ", HeaderError::Family),
        ("PROXY TCP4", HeaderError::Address),
        ("PROXY TCP4 192.0.2.1", HeaderError::Address),
        ("PROXY TCP4 192.0.2.1  192.0.2.2 1 2", HeaderError::Address),
        ("PROXY TCP4 192.0.2.256 192.0.2.2 1 2", HeaderError::Address),
        ("PROXY TCP4 192.0.02.1 192.0.2.2 1 2", HeaderError::Address),
        ("PROXY TCP4 ::1 ::2 1 2", HeaderError::Address),
        ("PROXY TCP6 192.0.2.1 192.0.2.2 1 2", HeaderError::Address),
        ("PROXY TCP6 fe80::1%eth0 ::2 1 2", HeaderError::Address),
        ("PROXY TCP6 [::1] ::2 1 2", HeaderError::Address),
        ("PROXY TCP4 192.0.2.1 192.0.2.2", HeaderError::Port),
        ("PROXY TCP4 192.0.2.1 192.0.2.2 1", HeaderError::Port),
        ("PROXY TCP4 192.0.2.1 192.0.2.2 01 2", HeaderError::Port),
        ("PROXY TCP4 192.0.2.1 192.0.2.2 +1 2", HeaderError::Port),
        ("PROXY TCP4 192.0.2.1 192.0.2.2 1 65536", HeaderError::Port),
        ("PROXY TCP4 192.0.2.1 192.0.2.2 1 2 ", HeaderError::Port),
        ("PROXY TCP4 192.0.2.1 192.0.2.2 1 2 3", HeaderError::Port),
    ] {
        let first = format!("{line}\r\nGET /");
        assert_from(line.len() + v1::END.len(), Err(error), first.as_bytes());
    }
    for (first, error, end) in [
        ("PROXY UNKNOWN\nGET /", HeaderError::LineEnd, 14),
        ("PROXY UNKNOWN\r\rGET /", HeaderError::LineEnd, 15),
        (
            &*format!("PROXY UNKNOWN {:0200}", 0),
            HeaderError::LineTooLong,
            107,
        ),
        (
            &*format!("PROXY UNKNOWN {:092}\r\n", 0),
            HeaderError::LineTooLong,
            107,
        ),
        ("GET / HTTP/1.1\r\n", HeaderError::Missing, 1),
        ("PROXYTCP4 ", HeaderError::Missing, 6),
        ("POST / HTTP/1.1", HeaderError::Missing, 2),
        ("\r\n\r\n\0\r\nQUIX", HeaderError::Missing, 11),
    ] {
        assert_from(end, Err(error), first.as_bytes());
    }
}

/// A header of version 2 with the right length.
fn v2(command: u8, transport: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).expect("a short header");
    let fixed = [v2::VERSION << 4 | command, transport];
    [v2::SIGNATURE, &fixed, &length.to_be_bytes(), rest].concat()
}

fn tlv(kind: u8, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(value.len()).expect("a short value");
    [&[kind], &length.to_be_bytes()[..], value].concat()
}

const IPV4: &[u8] = b"\xc0\x00\x02\x01\xc6\x33\x64\x07\xdc\x04\x01\xbb";

fn unix(source: &[u8], destination: &[u8]) -> Vec<u8> {
    let mut block = vec![0; 2 * v2::PATH];
    block[..source.len()].copy_from_slice(source);
    block[v2::PATH..][..destination.len()].copy_from_slice(destination);
    block
}

#[test]
fn endpoints_of_version_2() {
    let v6 = [
        &[0x20][..],
        &[0; 14],
        &[1],
        &[0x20],
        &[0; 14],
        &[2],
        &[0, 7, 1, 0xbb],
    ]
    .concat();
    let long = unix(&[b'a'; v2::PATH], &[b'b'; v2::PATH]);
    let paths = unix(b"/run/a", b"\0abstract");
    for (command, transport, block, endpoints) in [
        (1, 0x11, IPV4, tcp("192.0.2.1:56324", "198.51.100.7:443")),
        (1, 0x21, &v6, tcp("[2000::1]:7", "[2000::2]:443")),
        (1, 0, b"", Endpoints::Unknown),
        // Datagrams, with their addresses.
        (1, 0x12, IPV4, Endpoints::Unknown),
        (1, 0x22, &v6, Endpoints::Unknown),
        (1, 0x32, &paths, Endpoints::Unknown),
        (
            1,
            0x31,
            &paths,
            Endpoints::Unix {
                source: b"/run/a",
                destination: b"\0abstract",
            },
        ),
        (
            1,
            0x31,
            &long,
            Endpoints::Unix {
                source: &[b'a'; v2::PATH],
                destination: &[b'b'; v2::PATH],
            },
        ),
        (0, 0, b"", Endpoints::Local),
        // All that follows is ignored, and so is the family.
        (0, 0x11, IPV4, Endpoints::Local),
        (0, 0xff, b"\x01\xff", Endpoints::Local),
    ] {
        let mut first = v2(command, transport, block);
        let header = Header {
            version: HeaderVersion::V2,
            endpoints,
            tlvs: CheckedTlvs::NONE,
            length: first.len(),
        };
        first.extend_from_slice(b"SSH-2.0-x\r\n");
        assert_from(header.length, Ok(header), &first);
    }
}

#[test]
fn broken_fixed_parts_of_version_2() {
    let with = |at: usize, byte: u8| {
        let mut first = v2(1, 0x11, IPV4);
        first[at] = byte;
        first.resize(100, 0);
        first
    };
    for (first, error, end) in [
        (with(12, 0x11), HeaderError::Version, 13),
        (with(12, 0x31), HeaderError::Version, 13),
        (with(12, 0x22), HeaderError::Command, 13),
        (with(13, 0x10), HeaderError::Transport, 14),
        (with(13, 0x01), HeaderError::Transport, 14),
        (with(13, 0x13), HeaderError::Transport, 14),
        (with(13, 0x41), HeaderError::Transport, 14),
        (with(15, 11), HeaderError::TooShort, 16),
        (with(14, 0xff), HeaderError::TooLong, 16),
        (v2(0, 0, &[0; LENGTH_MAX - 15]), HeaderError::TooLong, 16),
    ] {
        assert_from(end, Err(error), &first);
    }
    let longest = v2(0, 0, &[0; LENGTH_MAX - v2::FIXED]);
    let header = parse(&longest).expect("a header").expect("all of it");
    assert_eq!(header.length, LENGTH_MAX);
    assert_eq!(parse(&longest[..LENGTH_MAX - 1]), Ok(None));
}

#[test]
fn parts_are_read_in_their_order() {
    let parts = [
        (kind::ALPN, &b"h2"[..]),
        (kind::AUTHORITY, b"a.example"),
        (kind::NOOP, b"\0\0"),
        (kind::NOOP, b""),
        (kind::UNIQUE_ID, &[7; UNIQUE_ID_MAX]),
        (kind::NETNS, b"blue"),
        (0xe0, b"an application's"),
        (0xe0, b"once more"),
        (
            kind::SSL,
            b"\x07\0\0\0\x01\x21\0\x07TLSv1.3\x22\0\x03bob\x21\0\0",
        ),
    ];
    let bytes = parts.map(|(kind, value)| tlv(kind, value)).concat();
    for (transport, block) in [(0x11, IPV4), (0, b"")] {
        let first = v2(1, transport, &[block, &bytes].concat());
        let header = parse(&first).expect("a header").expect("all of it");
        let read: Vec<_> = header.tlvs.map(|tlv| (tlv.kind, tlv.value)).collect();
        assert_eq!(read, parts);
        assert_eq!(header.tlvs.value(kind::AUTHORITY), Some(&b"a.example"[..]));
        assert_eq!(header.tlvs.value(0xe0), Some(&b"an application's"[..]));
        assert_eq!(header.tlvs.value(kind::CRC32C), None);
        let ssl = header.tlvs.ssl().expect("SSL");
        assert_eq!((ssl.client, ssl.verify), (7, 1));
        assert_eq!(ssl.parts.value(kind::SSL_VERSION), Some(&b"TLSv1.3"[..]));
        assert_eq!(ssl.parts.value(kind::SSL_CN), Some(&b"bob"[..]));
        assert_eq!(ssl.parts.count(), 3);
    }
}

#[test]
fn broken_parts() {
    for (bytes, error) in [
        (b"\x01".to_vec(), HeaderError::Overrun),
        (b"\x01\0".to_vec(), HeaderError::Overrun),
        (b"\x04\0\x01".to_vec(), HeaderError::Overrun),
        (b"\x01\0\x03h2".to_vec(), HeaderError::Overrun),
        (b"\x01\xff\xffh2".to_vec(), HeaderError::Overrun),
        ([tlv(1, b"h2"), vec![9]].concat(), HeaderError::Overrun),
        (
            [tlv(1, b"h2"), tlv(1, b"h2")].concat(),
            HeaderError::Repeated,
        ),
        (
            [tlv(2, b"a"), tlv(4, b""), tlv(2, b"b")].concat(),
            HeaderError::Repeated,
        ),
        (
            tlv(kind::UNIQUE_ID, &[0; UNIQUE_ID_MAX + 1]),
            HeaderError::UniqueId,
        ),
        (tlv(kind::SSL, b"\x01\0\0\0"), HeaderError::Ssl),
        (
            tlv(kind::SSL, b"\x01\0\0\0\0\x21\0\x08TLSv1.3"),
            HeaderError::Ssl,
        ),
        (tlv(kind::CRC32C, b"\0\0\0"), HeaderError::Checksum),
        (tlv(kind::CRC32C, b"\0\0\0\0"), HeaderError::Checksum),
    ] {
        let mut first = v2(1, 0x11, &[IPV4, &bytes].concat());
        let end = first.len();
        first.extend_from_slice(b"more");
        assert_from(end, Err(error), &first);
        // Before a connection of the proxy's own all of it is ignored.
        first[12] = 0x20;
        let header = parse(&first).expect("a header").expect("all of it");
        assert_eq!((header.length, header.tlvs.count()), (end, 0));
    }
}

/// Those within SSL count too.
#[test]
fn a_header_has_256_parts_at_most() {
    let version = tlv(kind::SSL_VERSION, b"");
    let within = |parts: usize| tlv(kind::SSL, &[&[0; 5][..], &version.repeat(parts)].concat());
    for (bytes, fits) in [
        (tlv(0xe0, b"").repeat(TLVS_MAX), true),
        (tlv(kind::NOOP, b"").repeat(TLVS_MAX + 1), false),
        (within(TLVS_MAX - 1), true),
        (within(TLVS_MAX), false),
        ([within(200), tlv(0xe0, b"").repeat(56)].concat(), false),
    ] {
        let first = v2(1, 0x11, &[IPV4, &bytes].concat());
        let parsed = parse(&first);
        assert!(
            parsed == Err(HeaderError::TooMany) && !fits
                || parsed.is_ok_and(|header| header.is_some()) && fits,
            "{parsed:?}"
        );
    }
}

/// The example of RFC 3720, appendix B.4, and a header with its checksum in the middle.
#[test]
fn the_checksum_covers_the_whole_header() {
    assert_eq!(tlv::crc32c(&[0; 32], 4), 0x8a91_36aa);
    let bytes = [
        tlv(1, b"h2"),
        tlv(kind::CRC32C, &[0; 4]),
        tlv(2, b"a.example"),
    ]
    .concat();
    let mut first = v2(1, 0x11, &[IPV4, &bytes].concat());
    let at = 16 + IPV4.len() + tlv(1, b"h2").len() + 3;
    let sum = tlv::crc32c(&first, at);
    first[at..at + 4].copy_from_slice(&sum.to_be_bytes());
    assert!(parse(&first).is_ok_and(|header| header.is_some()));
    // Of another kind it would be no checksum.
    for bit in (0..8 * first.len()).filter(|bit| bit / 8 != at - 3) {
        let mut changed = first.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        // All of the connection's own is ignored; a longer header waits for its end.
        let is_local = changed[12] == 0x20;
        let is_longer = changed[15] > first[15] || (1..0x40).contains(&changed[14]);
        assert_eq!(parse(&changed).is_ok(), is_local || is_longer, "bit {bit}");
    }
}

#[test]
fn a_second_header_is_seen_behind_the_first() {
    let one = v2(1, 0x11, IPV4);
    for (second, version) in [
        (&one[..], Ok(HeaderVersion::V2)),
        (LOCAL_V1, Ok(HeaderVersion::V1)),
        (b"PROXY", Err(Miss::Incomplete)),
        (b"\r\n\r\n", Err(Miss::Incomplete)),
        (b"", Err(Miss::Incomplete)),
        (b"\r\n\r\nGET", Err(Miss::Absent)),
        (b"PROXYING", Err(Miss::Absent)),
        (b"\x16\x03\x01", Err(Miss::Absent)),
    ] {
        let first = [&one, second].concat();
        let header = parse(&first).expect("a header").expect("all of it");
        assert_eq!(version_of(&first[header.length..]), version);
    }
}

/// tests/captures/README.md describes how they were made.
#[test]
fn headers_of_real_proxies() {
    let local = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
    let mut all = CAPTURES.map(|(capture, data)| {
        let length = capture.len() - data.len();
        let header = parse(capture).expect("a header").expect("all of it");
        assert_from(length, Ok(header), capture);
        assert_eq!(header.length, length);
        header
    });
    for header in &mut all {
        if let Endpoints::Tcp { source, .. } = &mut header.endpoints {
            // The client's port is of no meaning.
            source.set_port(0);
        }
    }
    let [nginx, haproxy, with_sum, v6, check, ssl] = all;
    for (header, port) in [(nginx, 34_929), (haproxy, 54_401), (with_sum, 44_383)] {
        let endpoints = Endpoints::Tcp {
            source: local(0),
            destination: local(port),
        };
        assert_eq!(header.endpoints, endpoints);
    }
    assert_eq!(v6.endpoints, tcp("[::1]:0", "[::1]:43681"));
    assert_eq!(check.endpoints, Endpoints::Local);
    let id = with_sum.tlvs.value(kind::UNIQUE_ID);
    assert_eq!(id, Some(&b"09377c9a-f855-4c4d-8af0-bbf29752a555"[..]));
    assert_eq!(ssl.tlvs.value(kind::ALPN), Some(&b"h2"[..]));
    assert_eq!(ssl.tlvs.value(kind::AUTHORITY), Some(&b"shop.example"[..]));
    let ssl = ssl.tlvs.ssl().expect("SSL");
    assert_eq!((ssl.client, ssl.verify), (7, 0));
    let parts: Vec<_> = ssl.parts.map(|tlv| (tlv.kind, tlv.value)).collect();
    let expected: [(u8, &[u8]); 5] = [
        (kind::SSL_VERSION, b"TLSv1.3"),
        (kind::SSL_CN, b"bob"),
        (kind::SSL_KEY_ALG, b"RSA2048"),
        (kind::SSL_SIG_ALG, b"RSA-SHA256"),
        (kind::SSL_CIPHER, b"TLS_AES_256_GCM_SHA384"),
    ];
    assert_eq!(parts, expected);
}

/// With the data behind the header.
const CAPTURES: [(&[u8], &[u8]); 6] = [
    (
        include_bytes!("../../../tests/captures/nginx_v1.bin"),
        b"hello",
    ),
    (
        include_bytes!("../../../tests/captures/haproxy_v1.bin"),
        b"hello",
    ),
    (
        include_bytes!("../../../tests/captures/haproxy_v2.bin"),
        b"hello",
    ),
    (
        include_bytes!("../../../tests/captures/haproxy_v2_ipv6.bin"),
        b"hello",
    ),
    (
        include_bytes!("../../../tests/captures/haproxy_check.bin"),
        b"",
    ),
    (
        include_bytes!("../../../tests/captures/haproxy_v2_ssl.bin"),
        b"hello",
    ),
];
