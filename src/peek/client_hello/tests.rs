//! Hellos of real clients, and constructed ones that keep or break a rule.

mod differential;
mod kinds;

use super::*;
use crate::peek::tests::{assert_from, found};
use crate::peek::{Field, NAME_MAX, Peeked, peek};

#[test]
fn real_hellos() {
    for capture in CAPTURES {
        let sni = capture
            .name
            .map_or(Peeked::Absent, |name| found(name.as_bytes()));
        let id = capture.session_id();
        let id = if id.is_empty() {
            Peeked::Absent
        } else {
            found(id)
        };
        for (field, answer) in [(Field::Sni, sni), (Field::TlsSessionId, id)] {
            assert_from(capture.bytes.len(), answer, &field, capture.bytes);
            // Bytes after the hello, another hello too, change nothing.
            let mut more = capture.bytes.to_vec();
            more.extend_from_slice(CAPTURES[0].bytes);
            assert_eq!(peek(&field, &more), answer);
        }
    }
}

#[test]
fn records_may_cut_it_anywhere() {
    for capture in CAPTURES {
        let message = message_of(capture.bytes);
        let hello = ClientHello::parse(capture.bytes).expect("a hello");
        for cut in 1..message.len() {
            let (one, two) = message.split_at(cut);
            let first = [record(one), record(two)].concat();
            assert_eq!(ClientHello::parse(&first), Ok(hello), "cut at {cut}");
        }
        for length in 1..=message.len() {
            let first = in_records(&message, length);
            assert_eq!(ClientHello::parse(&first), Ok(hello), "records of {length}");
        }
    }
}

#[test]
fn records_and_segments_may_cut_it_anywhere() {
    let message = message_of(CAPTURES[0].bytes);
    for length in [1, 2, 3, 4, 5, 64] {
        let first = in_records(&message, length);
        assert_from(first.len(), found(b"www.example.com"), &Field::Sni, &first);
    }
}

#[test]
fn a_broken_record_is_absent_at_its_first_broken_byte() {
    let message = hello(b"", &[sni(b"a.example")]);
    for (header, end) in [
        ([23, 3, 1, 0, 1], 1),
        ([22, 2, 1, 0, 1], 2),
        ([22, 3, 1, 0xff, 0xff], 5),
        ([22, 3, 1, 0x40, 1], 5),
        ([22, 3, 1, 0, 0], 5),
    ] {
        let mut first = header.to_vec();
        first.extend_from_slice(&message);
        assert_from(end, Peeked::Absent, &Field::Sni, &first);
        // Such a record within the hello is as bad: an alert, a change of cipher.
        let before = record(&message[..10]);
        let first = [&before, &first[..]].concat();
        assert_from(before.len() + end, Peeked::Absent, &Field::Sni, &first);
    }
    // The version's second byte is ignored, and a record may have any length up to the maximum.
    let mut first = record(&message);
    first[2] = 0xff;
    assert_eq!(peek(&Field::Sni, &first), found(b"a.example"));
    assert_eq!(
        peek(&Field::Sni, &[22, 3, 1, 0x40, 0, 1]),
        Peeked::Incomplete
    );
}

#[test]
fn another_message_or_too_long_a_one_is_absent_at_once() {
    let mut first = record(&hello(b"", &[]));
    first[5] = 2;
    assert_from(6, Peeked::Absent, &Field::Sni, &first);
    let longest = BYTES_MAX - RECORD_HEADER - MESSAGE_HEADER;
    assert_from(9, Peeked::Absent, &Field::Sni, &header(longest + 1));
    assert_eq!(peek(&Field::Sni, &header(longest)), Peeked::Incomplete);
    assert_from(9, Peeked::Absent, &Field::Sni, &header(0xff_ffff));
}

#[test]
fn the_longest_hello_is_read() {
    let padded = |padding| record(&hello(b"", &[(21, vec![0; padding]), sni(b"a.example")]));
    let padding = BYTES_MAX - padded(0).len();
    assert_eq!(peek(&Field::Sni, &padded(padding)), found(b"a.example"));
    assert_eq!(peek(&Field::Sni, &padded(padding + 1)), Peeked::Absent);
}

#[test]
fn server_names() {
    let long = vec![b'a'; NAME_MAX + 1];
    for (name, expected) in [
        (&b"a.example"[..], Some(&b"a.example"[..])),
        (b"A.Example.", Some(b"a.example")),
        (b"xn--bcher-kva.example", Some(b"xn--bcher-kva.example")),
        (b"a..example..", Some(b"a..example.")),
        (b"192.0.2.1", Some(b"192.0.2.1")),
        (b"2001:DB8::1", Some(b"2001:db8::1")),
        (&long[1..], Some(&long[1..])),
        (&long, None),
        (b"", None),
        (b".", None),
        (b"a.example\0", None),
        (b"a example", None),
        ("b\u{fc}cher.example".as_bytes(), None),
    ] {
        let first = record(&hello(b"", &[sni(name)]));
        let answer = expected.map_or(Peeked::Absent, found);
        assert_eq!(peek(&Field::Sni, &first), answer, "{name:?}");
    }
}

#[test]
fn lists_of_server_names() {
    let a = name_of_type(0, b"a.example");
    let other = name_of_type(7, b"x");
    let cases: [(Vec<u8>, bool); 7] = [
        (vector16(&[]), false),
        (Vec::new(), false),
        (vector16(&other), false),
        (vector16(&[other.clone(), a.clone()].concat()), true),
        (vector16(&[a.clone(), other].concat()), true),
        (vector16(&[a.clone(), a.clone()].concat()), false),
        ([vector16(&a), vec![0]].concat(), false),
    ];
    for (data, is_found) in cases {
        let first = record(&hello(b"", &[(0, data.clone())]));
        let is_found_by_us = peek(&Field::Sni, &first) == found(b"a.example");
        assert_eq!(is_found_by_us, is_found, "{data:?}");
    }
    // The same extension twice.
    let first = record(&hello(b"", &[sni(b"a.example"), sni(b"a.example")]));
    assert_eq!(peek(&Field::Sni, &first), Peeked::Absent);
}

#[test]
fn other_extensions_are_passed_over() {
    // GREASE (RFC 8701), an Encrypted ClientHello (RFC 9849), padding.
    let around = |name| {
        [
            (0x0a0a, vec![]),
            (0xfe0d, vec![0; 200]),
            name,
            (21, vec![0; 9]),
        ]
    };
    let first = record(&hello(b"", &around(sni(b"outer.example"))));
    assert_eq!(peek(&Field::Sni, &first), found(b"outer.example"));
}

#[test]
fn session_ids() {
    for length in 0..=SESSION_ID_MAX {
        let id = vec![7; length];
        let first = record(&hello(&id, &[sni(b"a.example")]));
        let answer = if length == 0 {
            Peeked::Absent
        } else {
            found(&id)
        };
        assert_eq!(peek(&Field::TlsSessionId, &first), answer);
        assert_eq!(peek(&Field::Sni, &first), found(b"a.example"));
    }
    let first = record(&hello(&[7; SESSION_ID_MAX + 1], &[sni(b"a.example")]));
    assert_eq!(peek(&Field::TlsSessionId, &first), Peeked::Absent);
    assert_eq!(peek(&Field::Sni, &first), Peeked::Absent);
}

#[test]
fn a_hello_may_have_no_extensions() {
    let with_none = body(b"id", b"\x13\x01", b"\0");
    let first = record(&message(&with_none));
    assert_eq!(peek(&Field::TlsSessionId, &first), found(b"id"));
    assert_eq!(peek(&Field::Sni, &first), Peeked::Absent);
}

#[test]
fn a_hello_that_ends_too_soon_or_too_late_is_none() {
    let whole = message_of(&record(&hello(
        b"id",
        &[sni(b"a.example"), (10, vec![0; 4])],
    )));
    let body = &whole[MESSAGE_HEADER..];
    let without_extensions = self::body(b"id", b"\x13\x01", b"\0").len();
    for length in 0..body.len() {
        let cut = ClientHello::parse(&record(&message(&body[..length])));
        assert_eq!(cut.is_ok(), length == without_extensions, "{length} bytes");
    }
    assert!(ClientHello::parse(&record(&whole)).is_ok());
    let longer = message(&[body, &[0]].concat());
    assert_eq!(ClientHello::parse(&record(&longer)), Err(Miss::Absent));
}

#[test]
fn a_hello_offers_something() {
    for (suites, methods, is_hello) in [
        (&b"\x13\x01\x13\x02"[..], &b"\x01\0"[..], true),
        (b"", b"\0", false),
        (b"\x13\x01\x13", b"\0", false),
        (b"\x13\x01", b"", false),
    ] {
        let first = record(&message(&body(b"id", suites, methods)));
        let parsed = ClientHello::parse(&first);
        assert_eq!(parsed.is_ok(), is_hello, "{suites:?} {methods:?}");
    }
}

/// A hello as a client sent it; tests/captures/README.md describes how.
struct Capture {
    bytes: &'static [u8],
    name: Option<&'static str>,
    session_id: usize,
}

impl Capture {
    /// Where it is when the first record holds it.
    fn session_id(&self) -> &'static [u8] {
        let start = RECORD_HEADER + MESSAGE_HEADER + VERSION + RANDOM + 1;
        &self.bytes[start..][..self.session_id]
    }
}

const CAPTURES: [Capture; 12] = [
    Capture {
        bytes: include_bytes!("../../../tests/captures/openssl.bin"),
        name: Some("www.example.com"),
        session_id: 32,
    },
    Capture {
        bytes: include_bytes!("../../../tests/captures/openssl_tls12_no_name.bin"),
        name: None,
        session_id: 0,
    },
    Capture {
        bytes: include_bytes!("../../../tests/captures/openssl_tls12_resumed.bin"),
        name: Some("old.example.com"),
        session_id: 32,
    },
    Capture {
        bytes: include_bytes!("../../../tests/captures/curl.bin"),
        name: Some("shop.example.com"),
        session_id: 32,
    },
    Capture {
        bytes: include_bytes!("../../../tests/captures/node.bin"),
        name: Some("node.example.com"),
        session_id: 32,
    },
    Capture {
        bytes: include_bytes!("../../../tests/captures/wget_gnutls.bin"),
        name: Some("localhost"),
        session_id: 32,
    },
    Capture {
        bytes: include_bytes!("../../../tests/captures/rustls_ml_kem.bin"),
        name: Some("pq.example.com"),
        session_id: 32,
    },
    Capture {
        bytes: include_bytes!("../../../tests/captures/rustls_records.bin"),
        name: Some("records.example.com"),
        session_id: 32,
    },
    Capture {
        bytes: include_bytes!("../../../tests/captures/chromium.bin"),
        name: Some("shop.example"),
        session_id: 32,
    },
    Capture {
        bytes: include_bytes!("../../../tests/captures/go.bin"),
        name: Some("go.example.com"),
        session_id: 32,
    },
    Capture {
        bytes: include_bytes!("../../../tests/captures/tlslite.bin"),
        name: Some("tlslite.example.com"),
        session_id: 32,
    },
    Capture {
        bytes: include_bytes!("../../../tests/captures/node_ml_kem.bin"),
        name: Some("pq.example.org"),
        session_id: 32,
    },
];

fn hello(id: &[u8], extensions: &[(u16, Vec<u8>)]) -> Vec<u8> {
    let each = |(kind, data): &(u16, Vec<u8>)| [&kind.to_be_bytes(), &*vector16(data)].concat();
    let extensions: Vec<u8> = extensions.iter().flat_map(each).collect();
    message(&[body(id, b"\x13\x01", b"\0"), vector16(&extensions)].concat())
}

/// Without extensions.
fn body(id: &[u8], suites: &[u8], methods: &[u8]) -> Vec<u8> {
    let start = [3; VERSION + RANDOM];
    [&start, &*vector8(id), &vector16(suites), &vector8(methods)].concat()
}

fn sni(name: &[u8]) -> (u16, Vec<u8>) {
    (0, vector16(&name_of_type(0, name)))
}

fn name_of_type(kind: u8, name: &[u8]) -> Vec<u8> {
    [&[kind], &*vector16(name)].concat()
}

fn message(body: &[u8]) -> Vec<u8> {
    [&message_header(body.len()), body].concat()
}

fn message_header(length: usize) -> [u8; MESSAGE_HEADER] {
    let [.., a, b, c] = length.to_be_bytes();
    [CLIENT_HELLO, a, b, c]
}

/// A record that begins a message of this length.
fn header(length: usize) -> Vec<u8> {
    record(&message_header(length))
}

fn record(fragment: &[u8]) -> Vec<u8> {
    [&[22, 3, 1], &*vector16(fragment)].concat()
}

fn in_records(message: &[u8], length: usize) -> Vec<u8> {
    message.chunks(length).flat_map(record).collect()
}

/// Joins the message that records have cut.
fn message_of(mut records: &[u8]) -> Vec<u8> {
    let mut message = Vec::new();
    while let [_, _, _, high, low, after @ ..] = records {
        let length = u16::from_be_bytes([*high, *low]).into();
        let (fragment, later) = after.split_at_checked(length).unwrap_or((after, &[]));
        message.extend_from_slice(fragment);
        records = later;
    }
    message
}

fn vector8(bytes: &[u8]) -> Vec<u8> {
    let length = u8::try_from(bytes.len()).expect("a short vector");
    [&[length], bytes].concat()
}

fn vector16(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).expect("a short vector");
    [&length.to_be_bytes(), bytes].concat()
}
