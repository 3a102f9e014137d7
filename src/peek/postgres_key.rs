//! The key by which a PostgreSQL client can cancel its queries, in its server's first answers
//! (PostgreSQL 18, "Message Formats", `BackendKeyData`).
//!
//! Answers come in pieces of any size. What is kept between two pieces is the beginning of a
//! message, and no more of one than its key may take.

use super::postgres::{CancelKey, KEY_MAX};

/// The search for the key in the answers of one session.
#[derive(Debug)]
pub struct KeySearch {
    /// The first bytes of the present message.
    held: [u8; HELD_MAX],
    /// How many of them have come.
    length: usize,
    /// How many bytes of messages without a key are still to come.
    skip: usize,
    /// Bytes that were searched.
    searched: usize,
    /// No message has begun: a request for encryption may have been refused before.
    is_begun: bool,
}

/// What a piece of the answers shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Searched {
    /// The key.
    Found(CancelKey),
    /// It may be in what follows.
    GoesOn,
    /// There will be none.
    Nothing,
}

impl Default for KeySearch {
    fn default() -> Self {
        Self {
            held: [0; HELD_MAX],
            length: 0,
            skip: 0,
            searched: 0,
            is_begun: false,
        }
    }
}

impl KeySearch {
    /// Searches the next piece of the answers.
    pub fn search(&mut self, mut piece: &[u8]) -> Searched {
        while !piece.is_empty() {
            if self.searched >= SEARCHED_MAX {
                return Searched::Nothing;
            }
            let skipped = self.skip.min(piece.len());
            if skipped > 0 {
                self.skip -= skipped;
                self.searched += skipped;
                piece = piece.get(skipped..).unwrap_or_default();
                continue;
            }
            let Some((byte, rest)) = piece.split_first() else {
                break;
            };
            piece = rest;
            self.searched += 1;
            if !self.is_begun && *byte == REFUSED {
                // The whole answer to a request for TLS or GSSAPI; the client goes on without.
                continue;
            }
            self.is_begun = true;
            match self.take(*byte) {
                Searched::GoesOn => {}
                end @ (Searched::Found(_) | Searched::Nothing) => return end,
            }
        }
        Searched::GoesOn
    }

    /// The next byte of the present message.
    fn take(&mut self, byte: u8) -> Searched {
        let Some(next) = self.held.get_mut(self.length) else {
            return Searched::Nothing;
        };
        *next = byte;
        self.length += 1;
        let [kind, length @ ..] = self.held.first_chunk::<HEAD>().copied().unwrap_or_default();
        if self.length == 1 && !BEFORE_THE_KEY.contains(&kind) && kind != KEY_DATA {
            return Searched::Nothing;
        }
        if self.length < HEAD {
            return Searched::GoesOn;
        }
        // The length counts itself.
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        let body = length.checked_sub(4);
        let Some(body) = body.filter(|body| *body < SEARCHED_MAX) else {
            return Searched::Nothing;
        };
        if kind != KEY_DATA {
            self.length = 0;
            self.skip = body;
            return Searched::GoesOn;
        }
        if !(4 + KEY_MIN..=4 + KEY_MAX).contains(&body) {
            return Searched::Nothing;
        }
        let whole = self.held.get(HEAD..self.length).unwrap_or_default();
        if whole.len() < body {
            return Searched::GoesOn;
        }
        let found = whole.split_first_chunk().map(|(process, key)| {
            let process = u32::from_be_bytes(*process);
            Searched::Found(CancelKey::new(process, key))
        });
        found.unwrap_or(Searched::Nothing)
    }
}

/// A message's kind and its length.
const HEAD: usize = 5;
const HELD_MAX: usize = HEAD + 4 + KEY_MAX;
/// The least bytes of a key.
const KEY_MIN: usize = 4;
const KEY_DATA: u8 = b'K';
/// `N`: no TLS, no GSSAPI.
const REFUSED: u8 = b'N';
/// Messages that may come before the key: authentication, parameters, notices, and the version that
/// is spoken. An error or the first `ReadyForQuery` ends the search.
const BEFORE_THE_KEY: [u8; 4] = [b'R', b'S', b'N', b'v'];
/// So many bytes are searched; authentication and parameters take some hundred.
const SEARCHED_MAX: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(4 + body.len()).unwrap();
        [&[kind], &length.to_be_bytes()[..], body].concat()
    }

    fn key_data(key: &[u8]) -> Vec<u8> {
        message(KEY_DATA, &[&12_345u32.to_be_bytes(), key].concat())
    }

    /// The result of a search in pieces of this size, and how many bytes it took.
    fn search(answers: &[u8], size: usize) -> Searched {
        let mut search = KeySearch::default();
        let mut pieces = answers.chunks(size).map(|piece| search.search(piece));
        pieces
            .find(|result| *result != Searched::GoesOn)
            .unwrap_or(Searched::GoesOn)
    }

    #[test]
    fn the_key_is_found_in_pieces_of_any_size() {
        let ok = message(b'R', &[0, 0, 0, 0]);
        let parameter = message(b'S', b"server_version\x0018.0\0");
        let notice = message(b'N', b"SWARNING\0Mold\0\0");
        let version = message(b'v', &[0, 3, 0, 2, 0, 0, 0, 0]);
        for key in [&[1, 2, 3, 4][..], &[7; 32], &[9; KEY_MAX]] {
            let found = Searched::Found(CancelKey::new(12_345, key));
            let whole = [
                &version,
                &ok,
                &parameter,
                &notice,
                &key_data(key),
                &message(b'Z', b"I"),
            ]
            .map(Vec::as_slice)
            .concat();
            for size in 1..=whole.len() {
                assert_eq!(search(&whole, size), found, "pieces of {size}");
            }
            let refused = [b"NN", &*whole].concat();
            for size in [1, 2, 3, 7, refused.len()] {
                assert_eq!(search(&refused, size), found);
            }
        }
    }

    #[test]
    fn other_answers_end_the_search() {
        let ok = message(b'R', &[0, 0, 0, 0]);
        for answers in [
            b"S\x16\x03\x03\0\x7a\x02".to_vec(),
            b"HTTP/1.1 200 OK\r\n".to_vec(),
            message(b'E', b"SFATAL\0\0"),
            [&*ok, &*message(b'Z', b"I")].concat(),
            [&*ok, b"R\0\0\0\x03"].concat(),
            [&*ok, &*key_data(&[1, 2, 3])].concat(),
            [&*ok, &*key_data(&[1; KEY_MAX + 1])].concat(),
            [&*ok, b"R\xff\xff\xff\xff", &vec![0; SEARCHED_MAX]].concat(),
            vec![REFUSED; SEARCHED_MAX + 1],
        ] {
            let mut sizes = [1, 5, 1_000, answers.len()].into_iter();
            assert!(sizes.all(|size| search(&answers, size) == Searched::Nothing));
        }
        assert_eq!(search(&ok, 3), Searched::GoesOn);
    }
}
