//! Properties of all fields.

use super::*;
use crate::hash;

/// One of each kind of field, each of which some samples have.
pub(super) fn fields() -> [Field; 9] {
    [
        Field::Sni,
        Field::TlsSessionId,
        Field::HttpPath,
        Field::HttpHost,
        Field::HttpCookie("sid".into()),
        Field::RdpCookie,
        Field::MqttClientId,
        Field::PostgresUser,
        Field::PostgresDatabase,
    ]
}

/// Every prefix shorter than `end` is incomplete; `end` bytes and all longer ones give the answer.
pub(super) fn assert_from(end: usize, answer: Peeked, field: &Field, first: &[u8]) {
    for length in 0..=first.len() {
        let expected = if length < end {
            Peeked::Incomplete
        } else {
            answer
        };
        let peeked = peek(field, &first[..length]);
        assert_eq!(peeked, expected, "{field:?} in {length} bytes of {first:?}");
    }
}

pub(super) fn found(value: &[u8]) -> Peeked {
    Peeked::Found(hash::of(value))
}

/// An answer does not change with further bytes.
fn assert_settles(field: &Field, first: &[u8]) {
    let answer = peek(field, first);
    let is_incomplete = |length: &usize| peek(field, &first[..*length]) == Peeked::Incomplete;
    let end = (0..=first.len()).take_while(is_incomplete).count();
    for length in end..=first.len() {
        let peeked = peek(field, &first[..length]);
        assert_eq!(peeked, answer, "{field:?} in {length} bytes of {first:?}");
    }
}

#[test]
fn an_answer_stays_whatever_the_bytes() {
    let mut random = fastrand::Rng::with_seed(1);
    for round in 0..ROUNDS {
        let sample = SAMPLES[round % SAMPLES.len()];
        let mut first = sample.to_vec();
        // Some samples are left unchanged.
        for _ in 0..random.usize(0..4) {
            mutate(&mut first, &mut random);
        }
        for field in fields() {
            assert_settles(&field, &first);
        }
    }
}

#[test]
fn no_bytes_at_all_make_it_panic() {
    let mut random = fastrand::Rng::with_seed(2);
    // Valid starts, or nearly every look would end at the first byte.
    let starts: [&[u8]; 7] = [
        b"",
        b"\x16\x03\x01",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET ",
        b"GET / HTTP/1.1\r\n",
        b"GET / HTTP/1.1\r\nCookie: ",
        b"\x03\x00\x00\x2c\x27\xe0\x00\x00\x00\x00\x00",
    ];
    for round in 0..20 * ROUNDS {
        let mut first = starts[round % starts.len()].to_vec();
        let length = random.usize(0..700);
        let is_text = random.bool();
        first.extend((0..length).map(|_| {
            if is_text {
                *random.choice(b"aZ0/:;=\"[]?#@. \t\r\n").expect("a byte")
            } else {
                random.u8(..)
            }
        }));
        for field in fields() {
            let _ = peek(&field, &first);
        }
    }
}

#[test]
fn past_the_most_bytes_nothing_is_incomplete() {
    // Each of these could go on for ever.
    let mut request = b"GET / HTTP/1.1\r\nX: ".to_vec();
    request.resize(2 * BYTES_MAX, b'a');
    let mut path = b"GET /".to_vec();
    path.resize(2 * BYTES_MAX, b'a');
    let mut headers = b"GET / HTTP/1.1\r\n".to_vec();
    while headers.len() < 2 * BYTES_MAX {
        headers.extend_from_slice(b"a:b\r\n");
    }
    // Each byte of a hello in a record of its own.
    let mut hello = Vec::new();
    for byte in [1, 0, 0x3f, 0].into_iter().chain([0; BYTES_MAX]) {
        hello.extend_from_slice(&[22, 3, 1, 0, 1, byte]);
    }
    let hosts = [Field::HttpHost, Field::HttpCookie("sid".into())];
    for (first, fields) in [
        (&request, &hosts[..]),
        (&path, &[Field::HttpPath]),
        (&headers, &hosts),
        (&hello, &[Field::Sni]),
    ] {
        for field in fields {
            let below = peek(field, &first[..BYTES_MAX - 1]);
            assert_eq!(below, Peeked::Incomplete, "{field:?}");
            assert_eq!(peek(field, &first[..BYTES_MAX]), Peeked::Absent);
            assert_eq!(peek(field, first), Peeked::Absent);
        }
    }
    // Later bytes are not read, however many came at once.
    headers.extend_from_slice(b"Host: late\r\n\r\n");
    assert_eq!(peek(&Field::HttpHost, &headers), Peeked::Absent);
}

#[test]
fn another_protocol_does_not_wait() {
    let others: [&[u8]; 8] = [
        // A MySQL server, an SSH client, PostgreSQL's SSLRequest, Redis.
        b"\x20\x00\x00\x01\x85\xa6\x3f\x20",
        b"SSH-2.0-OpenSSH_9.2p1\r\n",
        b"\x00\x00\x00\x08\x04\xd2\x16\x2f",
        b"*1\r\n$4\r\nPING\r\n",
        // SMTP, HTTP/2 with prior knowledge, RTSP; a TLS hello of SSL 2.0's form.
        b"EHLO example.com\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"OPTIONS rtsp://example.com RTSP/1.0\r\n\r\n",
        b"\x80\x2e\x01\x03\x01\x00\x15\x00\x00\x00\x10",
    ];
    for first in others {
        for field in fields() {
            assert_eq!(peek(&field, first), Peeked::Absent, "{field:?} {first:?}");
        }
    }
}

#[test]
fn the_first_byte_distinguishes_the_protocols() {
    for byte in 0..=u8::MAX {
        let may_be = |field: Field| peek(&field, &[byte]) == Peeked::Incomplete;
        assert_eq!(may_be(Field::Sni), byte == 22, "{byte}");
        assert_eq!(may_be(Field::RdpCookie), byte == 3, "{byte}");
        assert_eq!(may_be(Field::MqttClientId), byte == 16, "{byte}");
        assert_eq!(may_be(Field::PostgresUser), byte == 0, "{byte}");
        let is_http = byte.is_ascii_alphanumeric() || b"\r\n!#$%&'*+-.^_`|~".contains(&byte);
        assert_eq!(may_be(Field::HttpPath), is_http, "{byte}");
    }
}

#[test]
fn a_server_name_and_a_host_are_one_key() {
    let hello = include_bytes!("../../tests/captures/openssl.bin");
    let request = b"GET / HTTP/1.1\r\nHost: www.example.com:8443\r\n\r\n";
    let sni = peek(&Field::Sni, hello);
    assert_eq!(sni, found(b"www.example.com"));
    assert_eq!(sni, peek(&Field::HttpHost, request));
}

#[test]
fn keys_of_mqtt_and_postgres() {
    let connect = b"\x10\x0e\0\x04MQTT\x04\x02\0\x3c\0\x02id";
    assert_from(16, found(b"id"), &Field::MqttClientId, connect);
    // A client that leaves it to the broker to choose an id.
    let connect = b"\x10\x0c\0\x04MQTT\x04\x02\0\x3c\0\0";
    assert_from(14, Peeked::Absent, &Field::MqttClientId, connect);
    let start = include_bytes!("../../tests/captures/psql.bin");
    assert_from(57, found(b"shop_user"), &Field::PostgresUser, start);
    assert_from(57, found(b"shop"), &Field::PostgresDatabase, start);
    // Before TLS they are not known.
    let request = include_bytes!("../../tests/captures/psql_require.bin");
    assert_from(8, Peeked::Absent, &Field::PostgresUser, request);
    assert_from(8, Peeked::Absent, &Field::PostgresDatabase, request);
}

/// Changes one thing somewhere.
pub(super) fn mutate(bytes: &mut Vec<u8>, random: &mut fastrand::Rng) {
    if bytes.is_empty() {
        return;
    }
    let at = random.usize(0..bytes.len());
    match random.u8(0..6) {
        0 => bytes[at] = random.u8(..),
        1 => bytes[at] ^= 1 << random.u8(0..8),
        2 => bytes[at] = bytes[at].wrapping_add(1),
        3 => bytes.insert(at, random.u8(..)),
        4 => drop(bytes.remove(at)),
        _ => bytes.truncate(at),
    }
}

const SAMPLES: [&[u8]; 9] = [
    include_bytes!("../../tests/captures/openssl.bin"),
    b"GET /a?b=c HTTP/1.1\r\nHost: example.com:80\r\nCookie: a=b; sid=\"x\"\r\n\r\n",
    include_bytes!("../../tests/captures/rustls_records.bin"),
    b"\r\nGET http://example.com HTTP/1.0\nA: b\nCookie: a=b\nCookie: sid=7\n\n",
    b"CONNECT [::1]:443 HTTP/1.1\r\nHost: [::1]:443\r\n\r\n",
    b"\x03\x00\x00\x2c\x27\xe0\x00\x00\x00\x00\x00Cookie: mstshash=eltons\r\n\
      \x01\x00\x08\x00\x00\x00\x00\x00",
    b"OPTIONS * HTTP/1.1\r\nA:b\r\n\r\n",
    b"\x10\x0e\0\x04MQTT\x04\x02\0\x3c\0\x02id",
    include_bytes!("../../tests/captures/psql.bin"),
];
const ROUNDS: usize = 350;
