//! Amounts of memory: `512MiB`.

use std::ops::RangeInclusive;

use super::ValueError;

/// Reads an amount of memory, in bytes.
pub fn memory(text: &str) -> Result<u64, ValueError> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit = UNITS.iter().find(|(name, _)| *name == unit);
    let Some((number, (_, unit))) = number.parse::<u64>().ok().zip(unit) else {
        return Err(ValueError::Not {
            value: text.to_owned(),
            wanted: "an amount of memory: write a whole number with KiB, MiB or GiB, \
                     such as \"512MiB\""
                .to_owned(),
        });
    };
    let bytes = number.checked_mul(*unit);
    let bytes = bytes.filter(|bytes| RANGE.contains(bytes));
    bytes.ok_or_else(|| ValueError::OutOfRange {
        value: text.to_owned(),
        range: range_text(),
    })
}

/// The same in the largest unit that says it exactly.
#[must_use]
pub fn memory_text(bytes: u64) -> String {
    let exact = UNITS
        .iter()
        .rev()
        .find(|(_, unit)| bytes.is_multiple_of(*unit));
    exact.map_or_else(
        || format!("{bytes}"),
        |(name, unit)| format!("{}{name}", bytes / unit),
    )
}

fn range_text() -> String {
    let (min, max) = (memory_text(*RANGE.start()), memory_text(*RANGE.end()));
    format!("{min} to {max}")
}

const UNITS: [(&str, u64); 3] = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];
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
            assert_eq!(memory(text), Ok(bytes));
            assert_eq!(memory(&memory_text(bytes)), Ok(bytes));
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
        ] {
            assert!(matches!(memory(bad), Err(ValueError::Not { .. })), "{bad}");
        }
        for bad in ["4095KiB", "1025GiB", "18446744073709551615GiB"] {
            assert!(
                matches!(memory(bad), Err(ValueError::OutOfRange { .. })),
                "{bad}"
            );
        }
    }
}
