//! Text that a person reads.

#![forbid(unsafe_code)]

use std::fmt::Display;

/// Control characters, line breaks, marks without a width, and marks that change the direction of
/// text ("Trojan Source", CVE-2021-42574). All are below U+10000.
pub(crate) fn is_misleading(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// The character, or U+FFFD in place of a misleading one.
pub(crate) fn harmless(c: char) -> char {
    if is_misleading(c) { '\u{fffd}' } else { c }
}

/// `1 session`, `2 sessions`, `2 prefixes`.
pub(crate) fn plural(number: u64, of: &str) -> String {
    counted(number, number, of)
}

/// The same with the number as it is shown, such as `1.2k sessions`.
pub(crate) fn counted(number: u64, shown: impl Display, of: &str) -> String {
    let ending = match (number, of.as_bytes().last()) {
        (1, _) => "",
        (_, Some(b'x' | b's')) => "es",
        _ => "s",
    };
    format!("{shown} {of}{ending}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_no_plural() {
        let sessions = [0, 1, 2].map(|number| plural(number, "session"));
        assert_eq!(sessions, ["0 sessions", "1 session", "2 sessions"]);
        let prefixes = [1, 2].map(|number| plural(number, "prefix"));
        assert_eq!(prefixes, ["1 prefix", "2 prefixes"]);
        assert_eq!(counted(1_200, "1.2k", "address"), "1.2k addresses");
    }
}
