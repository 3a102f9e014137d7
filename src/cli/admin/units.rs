//! Numbers for people: two or three digits, and a unit.

use std::time::Duration;

use crate::wording::harmless;

/// `0`, `999`, `1.2k`, `12M`.
pub(super) fn count(number: u64) -> String {
    scaled(number as f64, &["", "k", "M", "G", "T", "P", "E"])
}

/// `0.5`, `12`, `1.2k` a second.
pub(super) fn rate(per_s: f64) -> String {
    if per_s > 0.0 && per_s < 9.95 {
        return format!("{per_s:.1}");
    }
    scaled(per_s, &["", "k", "M", "G"])
}

/// `0 B`, `3.4 MB`: powers of 1000.
pub(super) fn bytes(number: f64) -> String {
    scaled(number, &[" B", " kB", " MB", " GB", " TB", " PB", " EB"])
}

/// `85 µs`, `1.2 ms`, `12 s`: how long something took.
pub(super) fn micros(us: f64) -> String {
    if us >= 99_500_000.0 {
        return span(us / 1e6);
    }
    scaled(us * 1e3, &[" ns", " µs", " ms", " s"])
}

/// `23s`, `2m 5s`, `3h 4m`, `12d 1h`: how long a state has lasted.
pub(super) fn span(seconds: f64) -> String {
    let s = Duration::try_from_secs_f64(seconds)
        .unwrap_or_default()
        .as_secs();
    match s {
        0..60 => format!("{s}s"),
        60..3_600 => format!("{}m {}s", s / 60, s % 60),
        3_600..86_400 => format!("{}h {}m", s / 3_600, s / 60 % 60),
        _ => format!("{}d {}h", s / 86_400, s / 3_600 % 24),
    }
}

/// A text from elsewhere without misleading characters, so that it is safe on a terminal.
pub(super) fn plain(text: &str) -> String {
    text.chars().map(harmless).collect()
}

fn scaled(number: f64, units: &[&str]) -> String {
    let mut number = number;
    let mut nth = 0;
    while number >= 999.5 && nth + 1 < units.len() {
        number /= 1000.0;
        nth += 1;
    }
    let digits = usize::from(nth > 0 && number < 9.95);
    format!("{number:.digits$}{}", units[nth])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let counts = [0, 999, 1_000, 1_249, 9_949, 9_950, 99_499, 999_499, 999_500];
        let want = [
            "0", "999", "1.0k", "1.2k", "9.9k", "10k", "99k", "999k", "1.0M",
        ];
        assert_eq!(counts.map(count), want);
        assert_eq!(count(u64::MAX), "18E");
        assert_eq!(
            [0.0, 0.26, 9.96, 12_300.0].map(rate),
            ["0", "0.3", "10", "12k"]
        );
        assert_eq!([0.0, 999.6, 3.4e6].map(bytes), ["0 B", "1.0 kB", "3.4 MB"]);
        let times = [0.4, 85.0, 1_240.0, 12_000.0, 2_500_000.0, 125_000_000.0];
        assert_eq!(
            times.map(micros),
            ["400 ns", "85 µs", "1.2 ms", "12 ms", "2.5 s", "2m 5s"]
        );
        let spans = [0.9, 23.0, 125.0, 11_040.0, 1_040_400.0, f64::NAN];
        assert_eq!(
            spans.map(span),
            ["0s", "23s", "2m 5s", "3h 4m", "12d 1h", "0s"]
        );
        assert_eq!(plain("a\u{1b}[2Jb\n"), "a\u{fffd}[2Jb\u{fffd}");
        assert_eq!(plain("a\u{202e}b"), "a\u{fffd}b");
    }
}
