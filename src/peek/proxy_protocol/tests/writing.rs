//! What is written is read as it was meant.

use super::*;

#[test]
fn what_is_written_is_read() {
    let unix = Endpoints::Unix {
        source: b"/run/client",
        destination: &[b'x'; v2::PATH],
    };
    for endpoints in [
        tcp("192.0.2.1:1", "192.0.2.2:65535"),
        tcp("[2001:db8::1]:1", "[2001:db8::2]:65535"),
        unix,
        Endpoints::Unknown,
        Endpoints::Local,
    ] {
        let mut memory = [0xaa; 300];
        let writer = HeaderWriter::new(&mut memory, &endpoints).expect("room");
        let length = writer.finish();
        let header = parse(&memory).expect("a header").expect("all of it");
        assert_eq!((header.endpoints, header.length), (endpoints, length));
        let length = write_v1(&mut memory, &endpoints).expect("room");
        let header = parse(&memory).expect("a header").expect("all of it");
        // One word stands for what version 1 can't say.
        let expected = match endpoints {
            Endpoints::Tcp { .. } => endpoints,
            Endpoints::Local | Endpoints::Unknown | Endpoints::Unix { .. } => Endpoints::Unknown,
        };
        assert_eq!((header.endpoints, header.length), (expected, length));
    }
}

#[test]
fn addresses_are_written_in_one_family() {
    for (source, destination, written) in [
        (
            "[::ffff:192.0.2.1]:1",
            "[::ffff:192.0.2.2]:2",
            tcp("192.0.2.1:1", "192.0.2.2:2"),
        ),
        (
            "192.0.2.1:1",
            "[2001:db8::2]:2",
            tcp("[::ffff:192.0.2.1]:1", "[2001:db8::2]:2"),
        ),
        (
            "[2001:db8::2]:2",
            "[::ffff:192.0.2.1]:1",
            tcp("[2001:db8::2]:2", "[::ffff:192.0.2.1]:1"),
        ),
    ] {
        let endpoints = tcp(source, destination);
        let mut memory = [0; 200];
        let writer = HeaderWriter::new(&mut memory, &endpoints).expect("room");
        let length = writer.finish();
        assert_eq!(endpoints_in(&memory[..length]), written);
        write_v1(&mut memory, &endpoints).expect("room");
        assert_eq!(endpoints_in(&memory), written);
    }
}

fn endpoints_in(memory: &[u8]) -> Endpoints<'_> {
    let header = parse(memory).expect("a header");
    header.expect("all of it").endpoints
}

#[test]
fn the_longest_line_fits() {
    let ip = "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535";
    let mut memory = [0; v1::LINE_MAX];
    let length = write_v1(&mut memory, &tcp(ip, ip)).expect("room");
    assert_eq!(length, v1::LINE_MAX - "UNKNOWN".len() + "TCP6".len());
    let short = write_v1(&mut memory[..length - 1], &tcp(ip, ip));
    assert_eq!(short, Err(Unwritable::NoRoom));
}

#[test]
fn a_probe_sends_the_shortest_headers() {
    let mut memory = [0; 50];
    let writer = HeaderWriter::new(&mut memory, &Endpoints::Local).expect("room");
    let length = writer.finish();
    assert_eq!(&memory[..length], LOCAL_V2);
    let length = write_v1(&mut memory, &Endpoints::Local).expect("room");
    assert_eq!(&memory[..length], LOCAL_V1);
}

/// Everything at once, with parts of a header that came before.
fn write(memory: &mut [u8], received: CheckedTlvs<'_>) -> Result<usize, Unwritable> {
    let endpoints = tcp("192.0.2.1:1", "192.0.2.2:2");
    let mut writer = HeaderWriter::new(memory, &endpoints)?;
    for (kind, value) in OURS {
        writer.tlv(Tlv { kind, value })?;
    }
    let parts = [(kind::SSL_VERSION, &b"TLSv1.3"[..]), (kind::SSL_CN, b"bob")];
    let parts = parts.map(|(kind, value)| Tlv { kind, value });
    writer.ssl(Ssl::OVER_TLS, 1, &parts)?;
    writer.relay(received)?;
    writer.finish_with_checksum()
}

const OURS: [(u8, &[u8]); 3] = [
    (kind::ALPN, b"h2"),
    (kind::AUTHORITY, b"a.example"),
    (kind::UNIQUE_ID, b"0-17"),
];

#[test]
fn received_parts_are_relayed_behind_our_own() {
    let received = [
        tlv(kind::NOOP, b"\0"),
        tlv(kind::AUTHORITY, b"theirs.example"),
        tlv(0xe0, b"one"),
        tlv(kind::NETNS, b"blue"),
        tlv(0xe0, b"two"),
    ];
    let first = v2(1, 0x11, &[IPV4, &received.concat()].concat());
    let received = parse(&first).expect("a header").expect("all of it").tlvs;
    let mut memory = [0; 500];
    let length = write(&mut memory, received).expect("room");
    let header = parse(&memory[..length]).expect("a header").expect("all");
    let read: Vec<_> = header.tlvs.map(|tlv| (tlv.kind, tlv.value)).collect();
    assert_eq!(read[..3], OURS);
    assert_eq!(read[3].0, kind::SSL);
    let relayed = [(0xe0, &b"one"[..]), (kind::NETNS, b"blue"), (0xe0, b"two")];
    assert_eq!(read[4..7], relayed);
    assert_eq!((read[7].0, read.len()), (kind::CRC32C, 8));
    let ssl = header.tlvs.ssl().expect("SSL");
    assert_eq!((ssl.client, ssl.verify), (Ssl::OVER_TLS, 1));
    assert_eq!(ssl.parts.value(kind::SSL_CN), Some(&b"bob"[..]));
    // Relayed once more, nothing changes but the checksum's place in memory.
    let mut again = [0; 500];
    assert_eq!(write(&mut again, header.tlvs), Ok(length));
    assert_eq!(memory, again);
}

#[test]
fn memory_that_is_too_short_is_said() {
    let mut memory = [0; 500];
    let length = write(&mut memory, CheckedTlvs::NONE).expect("room");
    for short in 0..length {
        let written = write(&mut memory[..short], CheckedTlvs::NONE);
        assert_eq!(written, Err(Unwritable::NoRoom), "{short} bytes");
    }
    assert_eq!(write(&mut memory[..length], CheckedTlvs::NONE), Ok(length));
}

#[test]
fn what_no_header_may_have_is_refused() {
    let path = [b'a'; v2::PATH + 1];
    let unix = Endpoints::Unix {
        source: b"",
        destination: &path,
    };
    let mut memory = [0; 2 * LENGTH_MAX];
    let refused = HeaderWriter::new(&mut memory, &unix).map(HeaderWriter::finish);
    assert_eq!(refused, Err(Unwritable::Path));
    let mut writer = HeaderWriter::new(&mut memory, &Endpoints::Unknown).expect("room");
    let id = |value| Tlv {
        kind: kind::UNIQUE_ID,
        value,
    };
    assert_eq!(
        writer.tlv(id(&[0; UNIQUE_ID_MAX + 1])),
        Err(Unwritable::UniqueId)
    );
    assert_eq!(writer.tlv(id(b"a")), Ok(()));
    assert_eq!(writer.tlv(id(b"a")), Err(Unwritable::Repeated));
    let long = Tlv {
        kind: 0xe0,
        value: &[0; LENGTH_MAX],
    };
    assert_eq!(writer.tlv(long), Err(Unwritable::NoRoom));
    // What was refused is not in it.
    let length = writer.finish();
    let header = parse(&memory).expect("a header").expect("all of it");
    assert_eq!((header.length, header.tlvs.count()), (length, 1));
}

/// Else the next balancer would refuse what this one has passed on.
#[test]
fn relayed_parts_leave_places_for_our_own() {
    let parts = tlv(0xe0, b"").repeat(TLVS_MAX);
    let first = v2(1, 0x11, &[IPV4, &parts].concat());
    let received = parse(&first).expect("a header").expect("all of it").tlvs;
    let mut memory = [0; 1_200];
    let ends = tcp("192.0.2.1:1", "192.0.2.2:2");
    let mut writer = HeaderWriter::new(&mut memory, &ends).expect("room");
    let (kind, value) = (kind::ALPN, &b"h2"[..]);
    writer.tlv(Tlv { kind, value }).expect("room");
    let left_out = writer.relay_within(received, 1_190);
    assert!((1..10).contains(&left_out), "{left_out}");
    writer.finish_with_checksum().expect("room");
    let passed_on = parse(&memory).expect("a header").expect("all of it").tlvs;
    assert_eq!(passed_on.count() as u64 + left_out, TLVS_MAX as u64 + 2);
}
