//! Text that others wrote, where a person reads it.

#![forbid(unsafe_code)]

/// Control characters, line breaks, marks without a width, and marks that change the direction of
/// text ("Trojan Source", CVE-2021-42574). All are below U+10000.
pub(crate) fn is_misleading(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}
