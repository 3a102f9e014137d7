//! Amounts of memory: `512MiB`.

use std::ops::RangeInclusive;

use super::units::Units;

/// Reads an amount of memory, in bytes.
pub(in crate::config) fn memory(text: &str) -> Option<u64> {
    UNITS.read(text).filter(|bytes| RANGE.contains(bytes))
}

/// An amount of memory in the largest unit that says it exactly.
#[must_use]
pub fn memory_text(bytes: u64) -> String {
    UNITS.write(bytes)
}

/// The amounts that are read, in words.
pub(in crate::config) fn memory_range() -> String {
    let (min, max) = (memory_text(*RANGE.start()), memory_text(*RANGE.end()));
    format!("{min} to {max}")
}

const UNITS: Units = Units(&[("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)]);
const RANGE: RangeInclusive<u64> = 4 << 20..=1 << 40;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_and_written() {
        for (text, bytes) in [
            ("8192KiB", 8 << 20),
            ("512MiB", 512 << 20),
            ("2GiB", 2 << 30),
        ] {
            assert_eq!(memory(text), Some(bytes));
            assert_eq!(memory(&memory_text(bytes)), Some(bytes));
        }
        assert_eq!(memory_text(1536 << 20), "1536MiB");
        for bad in [
            "",
            "5",
            "MiB",
            "5MB",
            "-5MiB",
            "5 MiB",
            "1.5GiB",
            "99999999999999999999GiB",
            "4095KiB",
            "1025GiB",
            "18446744073709551615GiB",
        ] {
            assert_eq!(memory(bad), None, "{bad}");
        }
    }
}
