//! Tests of requests for TLS.

use super::*;
use crate::peek::postgres::SSL_REQUEST;

/// Records that are their bytes.
#[derive(Debug)]
struct Bare;

impl Records for Bare {
    fn open(&mut self, incoming: &mut [u8], plain: &mut Vec<u8>, _: &mut Vec<u8>) -> Taken {
        plain.extend_from_slice(incoming);
        let (used, standing) = (incoming.len(), Ok(TlsStanding::Open));
        Taken { used, standing }
    }

    fn seal(&mut self, _: &[u8], _: &mut [u8], sealed: &mut Vec<u8>) -> Result<(), TlsFailure> {
        sealed.extend_from_slice(b"sealed");
        Ok(())
    }

    fn close(&mut self, _: &mut [u8], sealed: &mut Vec<u8>) {
        sealed.extend_from_slice(b"closed");
    }

    fn agreed(&self) -> Agreed<'_> {
        Agreed::default()
    }
}

const GSS_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 48];
const CANCEL: [u8; 16] = [0, 0, 0, 16, 4, 210, 22, 46, 0, 0, 0, 1, 0, 0, 0, 2];

/// What came of a client's bytes, of which each piece follows what was left of those before.
struct Seen {
    records: PostgresRecords,
    plain: Vec<u8>,
    reply: Vec<u8>,
    standing: Result<TlsStanding, FailureKind>,
}

fn send(pieces: &[&[u8]]) -> Seen {
    let (mut plain, mut reply, mut waiting) = (Vec::new(), Vec::new(), Vec::new());
    let mut records = PostgresRecords::new(Box::new(Bare));
    let mut standing = Ok(TlsStanding::Handshake);
    for piece in pieces {
        waiting.extend_from_slice(piece);
        let taken = records.open(&mut waiting, &mut plain, &mut reply);
        waiting.drain(..taken.used);
        standing = taken.standing.map_err(|failure| failure.kind);
        if standing.is_err() {
            break;
        }
    }
    Seen {
        records,
        plain,
        reply,
        standing,
    }
}

#[test]
fn a_request_is_answered_and_records_follow() {
    let hello: &[u8] = b"\x16\x03\x01";
    for cut in 0..SSL_REQUEST.len() {
        let (first, second) = SSL_REQUEST.split_at(cut);
        for (pieces, reply) in [
            (vec![first, second], &b"S"[..]),
            (vec![&GSS_REQUEST[..], first, second], b"NS"),
        ] {
            let seen = send(&pieces);
            assert_eq!((&*seen.reply, &*seen.plain), (reply, &b""[..]), "{cut}");
            assert_eq!(seen.standing, Ok(TlsStanding::Handshake));
            assert!(seen.records.are_records(hello));
            let seen = send(&[&pieces[..], &[hello]].concat());
            assert_eq!((&*seen.reply, &*seen.plain), (reply, hello), "{cut}");
        }
    }
    // Direct TLS.
    let seen = send(&[hello]);
    assert_eq!((&*seen.reply, &*seen.plain), (&b""[..], hello));
    let fresh = PostgresRecords::new(Box::new(Bare));
    assert!(fresh.are_records(hello) && !fresh.are_records(&SSL_REQUEST));
    assert!(!fresh.are_records(&[]));
}

#[test]
fn bytes_in_the_clear_are_never_taken_for_decrypted_ones() {
    let select: &[u8] = b"Q\0\0\0\x0eselect 1;\0";
    let startup: &[u8] = b"\0\0\0\x13\0\x03\0\0user\0me\0\0\0";
    let early = Err(FailureKind::EarlyBytes);
    let not_tls = Err(FailureKind::NotTls);
    for (pieces, expected) in [
        ([&SSL_REQUEST[..], select].concat(), early),
        ([&SSL_REQUEST[..], b"\x16"].concat(), early),
        ([&GSS_REQUEST[..], &SSL_REQUEST].concat(), early),
        (startup.to_vec(), not_tls),
        (b"\0\0\0\x09\x04\xd2\x16\x2f\0".to_vec(), not_tls),
        (b"\0\xff".to_vec(), not_tls),
    ] {
        let seen = send(&[&pieces]);
        assert_eq!(seen.standing, expected, "{pieces:?}");
        assert_eq!(seen.plain, b"", "{pieces:?}");
    }
    let seen = send(&[&GSS_REQUEST, &GSS_REQUEST]);
    assert_eq!(seen.standing, not_tls);
    assert!(seen.reply.starts_with(b"NE"), "{:?}", seen.reply);
}

#[test]
fn a_client_without_tls_hears_why_it_is_refused() {
    let seen = send(&[b"\0\0\0\x13\0\x03\0\0user\0me\0\0\0"]);
    let (kind, rest) = seen.reply.split_first().expect("an answer");
    assert_eq!(*kind, b'E');
    let length = rest.first_chunk().copied().map(u32::from_be_bytes);
    assert_eq!(length, u32::try_from(rest.len()).ok());
    let text = seen.reply.escape_ascii().to_string();
    assert!(text.contains("C28000\\x00MTLS is required here"), "{text}");
}

#[test]
fn a_server_is_asked_first_and_one_byte_grants_it() {
    let ask = || {
        let mut records = AskingRecords::new(Box::new(Bare));
        let mut reply = Vec::new();
        let taken = records.open(&mut [], &mut Vec::new(), &mut reply);
        assert_eq!(taken.standing, Ok(TlsStanding::Handshake));
        assert_eq!(reply, SSL_REQUEST);
        records
    };
    let (mut records, mut plain) = (ask(), Vec::new());
    for (answer, expected) in [(&b"S"[..], &b""[..]), (b"inside", b"inside")] {
        let mut bytes = answer.to_vec();
        let taken = records.open(&mut bytes, &mut plain, &mut Vec::new());
        assert_eq!((taken.used, &*plain), (answer.len(), expected));
        assert!(taken.standing.is_ok());
    }
    for (answer, kind, why) in [
        (
            &b"S\x16"[..],
            FailureKind::EarlyBytes,
            "bytes came in the clear behind",
        ),
        (b"N", FailureKind::NotTls, "the server has no TLS"),
        (
            b"EFATAL\0",
            FailureKind::NotTls,
            "the server answered `EFATAL\\x00`",
        ),
    ] {
        let mut plain = Vec::new();
        let taken = ask().open(&mut answer.to_vec(), &mut plain, &mut Vec::new());
        let failure = taken.standing.expect_err("it is no grant");
        assert_eq!((failure.kind, &*plain), (kind, &b""[..]));
        assert!(failure.why.starts_with(why), "{failure}");
    }
}

#[test]
fn a_request_to_cancel_comes_through_and_nothing_behind_it() {
    for cut in 0..CANCEL.len() {
        let (first, second) = CANCEL.split_at(cut);
        let second = [second, b"Q\0\0\0\x04"].concat();
        let mut seen = send(&[first, &second, b"more"]);
        assert_eq!(seen.standing, Ok(TlsStanding::Open));
        assert_eq!((&*seen.plain, &*seen.reply), (&CANCEL[..], &b""[..]));
        let mut sealed = Vec::new();
        let answer = seen.records.seal(b"as it is", &mut [], &mut sealed);
        assert_eq!(answer, Ok(()));
        seen.records.close(&mut [], &mut sealed);
        assert_eq!(sealed, b"as it is");
    }
}
