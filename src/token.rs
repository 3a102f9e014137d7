//! Tokens: they tie a completion to its operation.

#![forbid(unsafe_code)]

/// `user_data` of an operation: purpose in 8 bits, the slot's generation in 24, the slot in 32.
///
/// The generation distinguishes one tenant of a slot from the next. A slot is freed only when
/// nothing is in flight on it, so a mismatch is a bug: it is asserted, never handled.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Token(u64);

/// What an operation is for. An operation of the kernel names the side whose socket it acts on, a
/// visit the source of the direction that it goes on with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Multishot accept; the slot is the listener's number.
    Accept,
    /// The mailbox's eventfd became readable; no slot.
    Wake,
    /// An operation without a reported completion: cancel, shutdown, close; no slot.
    Detached,
    /// Connect to the backend.
    Connect,
    /// Receive from this side.
    Recv(Side),
    /// Send to this side.
    Send(Side),
    /// Wait until this side, a spliced source, has bytes.
    PollSource(Side),
    /// Wait until this side, a sink, has room.
    PollSink(Side),
    /// Wait for a fault of this side while nothing is read from it.
    Watch(Side),
    /// Wait for more of a header that names the client; the slot is that of the header.
    Header,
    /// A visit, to connect again. Visits are no operations of the kernel.
    Retry,
    /// A visit: the direction from this side found no room, no bytes or no memory, and looks again.
    Starvation(Side),
    /// A visit: the stream from this side is spliced at a pace.
    Pace(Side),
}

/// One end of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Side {
    /// The client, which connected to the listener.
    Client,
    /// The backend, which was selected from the pool.
    Backend,
}

impl Side {
    /// Both, the client first.
    pub const BOTH: [Self; 2] = [Self::Client, Self::Backend];

    /// The opposite end.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::Client => Self::Backend,
            Self::Backend => Self::Client,
        }
    }
}

/// Generations wrap at 24 bits.
pub const GENERATION_MASK: u32 = (1 << 24) - 1;

impl Token {
    /// A token for an operation of one tenant of a slot.
    #[must_use]
    pub fn new(purpose: Purpose, generation: u32, slot: u32) -> Self {
        debug_assert!(generation <= GENERATION_MASK);
        Self(u64::from(purpose.code()) << 56 | u64::from(generation) << 32 | u64::from(slot))
    }

    /// A token with neither slot nor generation.
    #[must_use]
    pub fn of(purpose: Purpose) -> Self {
        Self::new(purpose, 0, 0)
    }

    /// Reads a token back from `user_data`; `None` when no token has this value.
    #[must_use]
    pub fn from_raw(raw: u64) -> Option<Self> {
        Purpose::from_code(raw.to_be_bytes()[0]).map(|_| Self(raw))
    }

    /// The value for `user_data`.
    #[must_use]
    pub fn raw(self) -> u64 {
        self.0
    }

    /// What the operation is for.
    #[must_use]
    pub fn purpose(self) -> Purpose {
        Purpose::from_code(self.0.to_be_bytes()[0]).expect("a Token is only made with a purpose")
    }

    /// The slot's generation when the operation was asked.
    #[must_use]
    pub fn generation(self) -> u32 {
        let [_, a, b, c, ..] = self.0.to_be_bytes();
        u32::from_be_bytes([0, a, b, c])
    }

    /// The slot.
    #[must_use]
    pub fn slot(self) -> u32 {
        let [_, _, _, _, a, b, c, d] = self.0.to_be_bytes();
        u32::from_be_bytes([a, b, c, d])
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{:?}@{}.{}",
            self.purpose(),
            self.slot(),
            self.generation()
        )
    }
}

impl Purpose {
    /// Its number, below 32.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Accept => 1,
            Self::Wake => 2,
            Self::Detached => 3,
            Self::Connect => 4,
            Self::Recv(side) => 8 | side as u8,
            Self::Send(side) => 10 | side as u8,
            Self::PollSource(side) => 12 | side as u8,
            Self::PollSink(side) => 14 | side as u8,
            Self::Watch(side) => 16 | side as u8,
            Self::Retry => 5,
            Self::Header => 6,
            Self::Pace(side) => 18 | side as u8,
            Self::Starvation(side) => 20 | side as u8,
        }
    }

    fn from_code(code: u8) -> Option<Self> {
        let side = if code & 1 == 0 {
            Side::Client
        } else {
            Side::Backend
        };
        Some(match code {
            1 => Self::Accept,
            2 => Self::Wake,
            3 => Self::Detached,
            4 => Self::Connect,
            8 | 9 => Self::Recv(side),
            10 | 11 => Self::Send(side),
            12 | 13 => Self::PollSource(side),
            14 | 15 => Self::PollSink(side),
            16 | 17 => Self::Watch(side),
            5 => Self::Retry,
            6 => Self::Header,
            18 | 19 => Self::Pace(side),
            20 | 21 => Self::Starvation(side),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips() {
        let sides = [Side::Client, Side::Backend];
        let sided = sides.into_iter().flat_map(|side| {
            [
                Purpose::Recv(side),
                Purpose::Send(side),
                Purpose::PollSource(side),
                Purpose::PollSink(side),
                Purpose::Watch(side),
                Purpose::Pace(side),
                Purpose::Starvation(side),
            ]
        });
        let plain = [
            Purpose::Accept,
            Purpose::Wake,
            Purpose::Detached,
            Purpose::Connect,
            Purpose::Retry,
            Purpose::Header,
        ];
        for purpose in plain.into_iter().chain(sided) {
            for generation in [0, 1, 0xabcdef, GENERATION_MASK] {
                for slot in [0, 1, 0x1234_5678, u32::MAX] {
                    let token = Token::new(purpose, generation, slot);
                    assert_eq!(Token::from_raw(token.raw()), Some(token));
                    assert_eq!(token.purpose(), purpose);
                    assert_eq!(token.generation(), generation);
                    assert_eq!(token.slot(), slot);
                }
            }
        }
    }

    #[test]
    fn foreign_values_are_no_tokens() {
        for code in (0..=u8::MAX).filter(|code| !matches!(code, 1..=6 | 8..=21)) {
            assert_eq!(Token::from_raw(u64::from(code) << 56 | 7), None);
        }
    }
}
