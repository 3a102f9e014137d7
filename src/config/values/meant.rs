//! What a value in the form of other programs means in ours. It is proposed, and not read.

use super::memory::memory;

/// The whole number that a text means which is quoted, or ends with `k` for thousands or `%`.
pub(in crate::config) fn plain_number(text: &str) -> Option<u32> {
    let thousands = text.strip_suffix('k').map(|digits| (digits, 1_000));
    let (digits, scale) = thousands.unwrap_or_else(|| (text.trim_end_matches('%'), 1));
    let is_number = digits.bytes().all(|b| b.is_ascii_digit());
    let number = digits.parse::<u32>().ok().filter(|_| is_number)?;
    number.checked_mul(scale)
}

/// The amount of memory that a text means whose unit is decimal, short, or in other letters.
pub(in crate::config) fn binary_memory(text: &str) -> Option<String> {
    let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let letters = text[number.len()..].to_ascii_lowercase();
    let unit = ["KiB", "MiB", "GiB"].into_iter().find(|unit| {
        let unit = unit.to_ascii_lowercase();
        let short = [&unit[..], &unit[..1], &unit[..2]].contains(&&letters[..]);
        short || letters == format!("{}b", &unit[..1])
    })?;
    let meant = format!("{}{unit}", number.trim_end());
    memory(&meant).map(|_| meant)
}

/// The truth that a word means.
pub(in crate::config) fn truth(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" => Some(true),
        "false" | "no" | "off" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_proposed_would_be_read() {
        for (text, number) in [("10k", Some(10_000)), ("4", Some(4)), ("9999999k", None)] {
            assert_eq!(plain_number(text), number, "{text}");
        }
        for text in ["", "k", "4s", "+4", "1.5"] {
            assert_eq!(plain_number(text), None, "{text}");
        }
        for (text, amount) in [
            ("1GB", Some("1GiB")),
            ("512M", Some("512MiB")),
            ("8192 kib", Some("8192KiB")),
            ("1KB", None),
            ("10m", Some("10MiB")),
            ("5ms", None),
            ("5min", None),
            ("5", None),
        ] {
            assert_eq!(binary_memory(text).as_deref(), amount, "{text}");
        }
    }
}
