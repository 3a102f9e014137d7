//! The bytes of a TLS handshake message, wherever records cut it (RFC 8446, section 5.1).

use super::{BYTES_MAX, Miss};

/// A place in a handshake message, and how far it goes from there.
///
/// Records are not reassembled: a place steps from record to record. A read past the end of a part,
/// or past what TLS allows, is [`Miss::Absent`]; a read of bytes to come is [`Miss::Incomplete`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    /// What has come of this record from here on.
    record: &'a [u8],
    /// The records after it. Invariant: empty when this one has not come to its end.
    later: &'a [u8],
    /// Bytes of the message up to where this part of it ends.
    left: usize,
}

impl<'a> Place<'a> {
    /// The first handshake message of a connection.
    pub(super) fn first(bytes: &'a [u8]) -> Self {
        Self {
            record: &[],
            later: bytes,
            left: BYTES_MAX,
        }
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.left == 0
    }

    /// How many bytes this part still has.
    pub(super) fn left(&self) -> usize {
        self.left
    }

    pub(super) fn byte(&mut self) -> Result<u8, Miss> {
        self.left = self.left.checked_sub(1).ok_or(Miss::Absent)?;
        if self.record.is_empty() {
            self.next_record()?;
        }
        let (byte, after) = self.record.split_first().ok_or(Miss::Incomplete)?;
        self.record = after;
        Ok(*byte)
    }

    /// A number of two bytes.
    pub(super) fn two(&mut self) -> Result<usize, Miss> {
        Ok(usize::from(self.byte()?) << 8 | usize::from(self.byte()?))
    }

    /// A number of three bytes.
    pub(super) fn three(&mut self) -> Result<usize, Miss> {
        Ok(self.two()? << 8 | usize::from(self.byte()?))
    }

    pub(super) fn skip(&mut self, count: usize) -> Result<(), Miss> {
        self.left = self.left.checked_sub(count).ok_or(Miss::Absent)?;
        let mut missing = count;
        loop {
            if let Some(after) = self.record.get(missing..) {
                self.record = after;
                return Ok(());
            }
            missing -= self.record.len();
            self.next_record()?;
        }
    }

    /// The next bytes as a part of its own, all of which have come.
    pub(super) fn part(&mut self, length: usize) -> Result<Self, Miss> {
        let part = Self {
            left: length,
            ..*self
        };
        self.skip(length)?;
        Ok(part)
    }

    /// A vector whose length is in one byte (RFC 8446, section 3.4).
    pub(super) fn vector8(&mut self) -> Result<Self, Miss> {
        let length = usize::from(self.byte()?);
        self.part(length)
    }

    /// A vector whose length is in two bytes.
    pub(super) fn vector16(&mut self) -> Result<Self, Miss> {
        let length = self.two()?;
        self.part(length)
    }

    /// All bytes of a part.
    pub(super) fn bytes(mut self) -> impl Iterator<Item = u8> {
        std::iter::from_fn(move || self.byte().ok())
    }

    /// Checks each byte of the header as soon as it has come.
    fn next_record(&mut self) -> Result<(), Miss> {
        match *self.later {
            // "Handshake messages MUST NOT be interleaved with other record types."
            [kind, ..] if kind != HANDSHAKE => Err(Miss::Absent),
            // The second byte of the version "MUST be ignored for all purposes".
            [_, major, ..] if major != MAJOR => Err(Miss::Absent),
            [_, _, _, high, low, ref after @ ..] => {
                let length = usize::from(u16::from_be_bytes([high, low]));
                // "Implementations MUST NOT send zero-length fragments of Handshake types."
                if length == 0 || length > RECORD_MAX {
                    return Err(Miss::Absent);
                }
                (self.record, self.later) = after.split_at_checked(length).unwrap_or((after, &[]));
                Ok(())
            }
            _ => Err(Miss::Incomplete),
        }
    }
}

/// Of a record and of its content type.
pub(super) const RECORD_HEADER: usize = 5;
const HANDSHAKE: u8 = 22;
/// Of all versions from SSL 3.0 to TLS 1.3.
const MAJOR: u8 = 3;
/// Plain records are no longer.
const RECORD_MAX: usize = 1 << 14;
