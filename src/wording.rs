//! Text that a person reads.

#![forbid(unsafe_code)]

/// Control characters, line breaks, marks without a width, and marks that change the direction of
/// text ("Trojan Source", CVE-2021-42574). All are below U+10000.
pub(crate) fn is_misleading(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// `1 session`, `2 sessions`.
pub(crate) fn plural(number: u64, of: &str) -> String {
    let s = if number == 1 { "" } else { "s" };
    format!("{number} {of}{s}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_no_plural() {
        let sessions = [0, 1, 2].map(|number| plural(number, "session"));
        assert_eq!(sessions, ["0 sessions", "1 session", "2 sessions"]);
    }
}
