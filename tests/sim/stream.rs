//! The bytes of peers: each shows its stream and its place in it.
//!
//! A stream is cells of 16 bytes, each made of the stream's number and the cell's. A byte of
//! another stream, or a lost, repeated or displaced one, fails the check.

use crate::random::mix;

/// The number of a stream: one for each direction of each connection.
pub(crate) type StreamId = u64;

/// The stream of clients that send the first line of a request, which does not end. It hides
/// displaced bytes.
pub(crate) const REQUEST: StreamId = StreamId::MAX;

/// That of clients that ask for TLS, which is over once they are answered, and those of backends
/// that are asked for it.
pub(crate) const ASK: StreamId = StreamId::MAX - 1;
pub(crate) const ANSWER: StreamId = StreamId::MAX - 2;
pub(crate) const REFUSAL: StreamId = StreamId::MAX - 3;

/// That of clients that ask to cancel a query: the request of process 7, whose key is `key!`.
pub(crate) const CANCEL: StreamId = StreamId::MAX - 4;
pub(crate) const CANCEL_BYTES: u64 = CELL as u64;

/// Writes the stream's bytes from `offset` on.
pub(crate) fn fill(stream: StreamId, offset: u64, out: &mut [u8]) {
    walk(stream, offset, out.len(), |at, cell| {
        out[at..at + cell.len()].copy_from_slice(cell);
    });
}

/// Where `bytes` first differ from the stream's bytes from `offset` on.
pub(crate) fn mismatch(stream: StreamId, offset: u64, bytes: &[u8]) -> Option<usize> {
    let mut found = None;
    walk(stream, offset, bytes.len(), |at, cell| {
        if found.is_none() && &bytes[at..at + cell.len()] != cell {
            found = Some(at);
        }
    });
    found
}

fn walk(stream: StreamId, offset: u64, len: usize, mut visit: impl FnMut(usize, &[u8])) {
    let key = mix(stream);
    let mut at = 0;
    while at < len {
        let position = offset + at as u64;
        let cell = cell(key, position / CELL as u64);
        let skip = usize::try_from(position % CELL as u64).expect("within a cell");
        let take = (CELL - skip).min(len - at);
        visit(at, &cell[skip..skip + take]);
        at += take;
    }
}

fn cell(key: u64, index: u64) -> [u8; CELL] {
    if key == mix(REQUEST) {
        return *b"A AAAAAAAAAAAAAA";
    }
    for (stream, cell) in [
        (
            ASK,
            *b"\0\0\0\x08\x04\xd2\x16\x2f\0\0\0\x08\x04\xd2\x16\x2f",
        ),
        (CANCEL, *b"\0\0\0\x10\x04\xd2\x16\x2e\0\0\0\x07key!"),
        (ANSWER, [b'S'; CELL]),
        (REFUSAL, [b'N'; CELL]),
    ] {
        if key == mix(stream) {
            return cell;
        }
    }
    let low = mix(key ^ index);
    let both = u128::from(low) << 64 | u128::from(low.rotate_left(29) ^ key);
    both.to_le_bytes()
}

const CELL: usize = 16;

#[test]
fn foreign_lost_and_displaced_bytes_are_found() {
    let mut bytes = [0; 100];
    fill(7, 1_003, &mut bytes);
    assert_eq!(mismatch(7, 1_003, &bytes), None);
    assert_eq!(mismatch(7, 1_020, &bytes[17..]), None);
    assert!(mismatch(7, 1_019, &bytes).is_some());
    assert!(mismatch(8, 1_003, &bytes).is_some());
    bytes[60] ^= 1;
    assert!((45..=60).contains(&mismatch(7, 1_003, &bytes).unwrap()));
}
