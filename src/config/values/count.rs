//! Counts: `50k`, `1M`.

use std::ops::RangeInclusive;

use super::ValueError;
use super::units::Units;

/// Reads a count, or bits in a second, with the prefix of thousands, millions and so on.
///
/// # Errors
/// It is none, or out of range.
pub fn count(text: &str, range: RangeInclusive<u64>) -> Result<u64, ValueError> {
    let read = UNITS.read(text).filter(|count| range.contains(count));
    read.ok_or_else(|| {
        let [min, max] = [*range.start(), *range.end()].map(|count| UNITS.write(count));
        ValueError::Unexpected(format!(
            "a whole number such as 500, 50k or 2M, {min} to {max}"
        ))
    })
}

const UNITS: Units = Units(&[
    ("", 1),
    ("k", 1_000),
    ("M", 1_000_000),
    ("G", 1_000 * 1_000_000),
    ("T", 1_000_000 * 1_000_000),
]);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_read_with_a_prefix_or_without() {
        for (text, number) in [
            ("1", 1),
            ("500", 500),
            ("50k", 50_000),
            ("2M", 2_000_000),
            ("20G", 20_000_000_000),
        ] {
            assert_eq!(count(text, 1..=u64::MAX), Ok(number), "{text}");
        }
        for bad in ["", "k", "-1", "1.5M", "1m", "1 k", "20GB", "0", "3G"] {
            let why = count(bad, 1..=2_000_000_000).unwrap_err().to_string();
            let want = "expected a whole number such as 500, 50k or 2M, 1 to 2G";
            assert_eq!(why, want, "{bad}");
        }
        assert!(count("99999999999999999999T", 1..=1_000_000).is_err());
        let why = count("2k", 0..=1_000).unwrap_err().to_string();
        assert!(why.ends_with(", 0 to 1k"), "{why}");
    }
}
