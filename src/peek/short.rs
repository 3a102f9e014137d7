//! Short values that are held where they are, without an allocation.

use std::fmt;

/// Up to `MAX` bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Short<const MAX: usize> {
    /// Invariant: zeros from `length` on.
    bytes: [u8; MAX],
    /// Invariant: at most `MAX`.
    length: usize,
}

impl<const MAX: usize> Short<MAX> {
    /// No bytes.
    pub const EMPTY: Self = Self {
        bytes: [0; MAX],
        length: 0,
    };

    /// All of these bytes; `None` when there are more than `MAX`.
    pub fn read(bytes: impl Iterator<Item = u8>) -> Option<Self> {
        let mut short = Self::EMPTY;
        for byte in bytes {
            *short.bytes.get_mut(short.length)? = byte;
            short.length += 1;
        }
        Some(short)
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }

    fn pop(&mut self) {
        self.length = self.length.saturating_sub(1);
        if let Some(byte) = self.bytes.get_mut(self.length) {
            *byte = 0;
        }
    }
}

impl<const MAX: usize> fmt::Debug for Short<MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.as_bytes().escape_ascii())
    }
}

/// The name of a host, the same for all ways to write it: lower case (RFC 4343), without the dot
/// that may end it (RFC 1034, section 3.1). Not empty.
///
/// Any graphic ASCII is taken: an international name comes as A-labels (RFC 5890), and whether the
/// rest is a valid name in the DNS does not matter for selection.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Name(Short<NAME_MAX>);

impl Name {
    /// The name in these bytes; `None` when they are no name.
    pub fn read(bytes: impl Iterator<Item = u8>) -> Option<Self> {
        let mut is_graphic = true;
        let mut name = Short::read(bytes.map(|byte| {
            is_graphic &= byte.is_ascii_graphic();
            byte.to_ascii_lowercase()
        }))?;
        if name.as_bytes().ends_with(b".") {
            name.pop();
        }
        (is_graphic && !name.as_bytes().is_empty()).then_some(Self(name))
    }

    /// The name as it is compared.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The most bytes of a name (RFC 1035, section 2.3.4).
pub const NAME_MAX: usize = 255;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_the_same_however_it_is_written() {
        for written in ["example.com", "EXAMPLE.com", "example.com.", "Example.Com."] {
            let name = name(written).expect("a name");
            assert_eq!(name.as_bytes(), b"example.com");
            assert_eq!(Some(name), self::name("example.com"));
        }
    }

    #[test]
    fn invalid_names_are_refused() {
        let long = "a".repeat(NAME_MAX + 1);
        for written in [
            "",
            ".",
            "a b",
            "a\0",
            "a\r\n",
            "a\x7f",
            "b\u{fc}cher.example",
            &long,
        ] {
            assert_eq!(name(written), None, "{written:?}");
        }
        assert!(name(&long[1..]).is_some());
        assert!(name("xn--bcher-kva.example").is_some());
        assert!(name("127.0.0.1").is_some());
    }

    #[test]
    fn debug_shows_the_bytes() {
        assert_eq!(format!("{:?}", name("a.b")), "Some(\"a.b\")");
    }

    fn name(written: &str) -> Option<Name> {
        Name::read(written.bytes())
    }
}
