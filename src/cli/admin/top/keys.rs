//! The keys of `top`.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::model::{Order, Sort};

/// What the user has chosen to see.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Controls {
    pub(super) order: Order,
    /// Only backends whose name or address contains this are shown.
    pub(super) filter: String,
    /// Whether keys go into the filter.
    pub(super) typing: bool,
    /// Whether new samples are ignored.
    pub(super) paused: bool,
    /// Whether the list of keys is shown.
    pub(super) help: bool,
    /// Backends above the first visible one.
    pub(super) skipped: usize,
}

/// What follows a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Stay,
    Quit,
}

impl Controls {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "most keys of a keyboard do nothing"
    )]
    pub(super) fn on_key(&mut self, key: KeyEvent) -> Step {
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return match key.code {
                KeyCode::Char('c') => Step::Quit,
                _ => Step::Stay,
            };
        }
        if self.typing {
            self.on_typed(key.code);
            return Step::Stay;
        }
        if self.help {
            self.help = false;
            return Step::Stay;
        }
        match key.code {
            KeyCode::Esc if !self.filter.is_empty() => self.filter.clear(),
            KeyCode::Esc | KeyCode::Char('q') => return Step::Quit,
            KeyCode::Char('?' | 'h') => self.help = true,
            KeyCode::Char(' ') => self.paused = !self.paused,
            KeyCode::Char('/') => self.typing = true,
            KeyCode::Char('r') => self.order.reverse = !self.order.reverse,
            KeyCode::Up | KeyCode::Char('k') => self.skipped = self.skipped.saturating_sub(1),
            KeyCode::Down | KeyCode::Char('j') => self.skipped = self.skipped.saturating_add(1),
            KeyCode::PageUp => self.skipped = self.skipped.saturating_sub(PAGE),
            KeyCode::PageDown => self.skipped = self.skipped.saturating_add(PAGE),
            KeyCode::Home => self.skipped = 0,
            KeyCode::Char(letter) => {
                if let Some((_, by, _)) = SORTS.iter().find(|(known, ..)| *known == letter) {
                    self.order = Order {
                        by: *by,
                        reverse: false,
                    };
                }
            }
            _ => {}
        }
        Step::Stay
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "most keys of a keyboard do nothing"
    )]
    fn on_typed(&mut self, code: KeyCode) {
        match code {
            KeyCode::Enter => self.typing = false,
            KeyCode::Esc => {
                self.typing = false;
                self.filter.clear();
            }
            KeyCode::Backspace => {
                self.filter.pop();
            }
            KeyCode::Char(letter) if self.filter.len() < FILTER_BYTES_MAX => {
                self.filter.push(letter);
            }
            _ => {}
        }
        self.skipped = 0;
    }
}

/// The keys that sort, and by what.
pub(super) const SORTS: [(char, Sort, &str); 7] = [
    ('p', Sort::Place, "place in the configuration"),
    ('w', Sort::Weight, "weight"),
    ('c', Sort::Connections, "connections"),
    ('n', Sort::New, "new connections a second"),
    ('b', Sort::Bytes, "bytes a second"),
    ('a', Sort::Answer, "answer time"),
    ('f', Sort::Failures, "failures"),
];

/// Backends that a page key scrolls by.
const PAGE: usize = 10;
/// As long as the longest name.
const FILTER_BYTES_MAX: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    fn press(controls: &mut Controls, keys: &str) -> Step {
        let mut step = Step::Stay;
        for key in keys.chars() {
            let code = match key {
                '\n' => KeyCode::Enter,
                '\u{1b}' => KeyCode::Esc,
                '\u{8}' => KeyCode::Backspace,
                other => KeyCode::Char(other),
            };
            step = controls.on_key(KeyEvent::new(code, KeyModifiers::NONE));
        }
        step
    }

    #[test]
    fn keys_sort_and_filter() {
        let mut controls = Controls::default();
        assert_eq!(press(&mut controls, "cr"), Step::Stay);
        let order = |by, reverse| Order { by, reverse };
        assert_eq!(controls.order, order(Sort::Connections, true));
        press(&mut controls, "a");
        assert_eq!(controls.order, order(Sort::Answer, false));
        assert_eq!(press(&mut controls, "/qc\u{8}?\n"), Step::Stay);
        assert_eq!((controls.filter.as_str(), controls.typing), ("q?", false));
        assert_eq!(press(&mut controls, "\u{1b}"), Step::Stay);
        assert_eq!(
            controls,
            Controls {
                order: order(Sort::Answer, false),
                ..Controls::default()
            }
        );
        press(&mut controls, "/x\u{1b}");
        assert_eq!((controls.filter.as_str(), controls.typing), ("", false));
        press(&mut controls, "jjk");
        assert_eq!(controls.skipped, 1);
    }

    #[test]
    fn three_keys_quit() {
        let mut controls = Controls::default();
        assert_eq!(press(&mut controls, "q"), Step::Quit);
        assert_eq!(press(&mut controls, "\u{1b}"), Step::Quit);
        let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        press(&mut controls, "/");
        assert_eq!(controls.on_key(interrupt), Step::Quit);
        press(&mut controls, "\u{1b} ?");
        assert!(controls.paused && controls.help);
        assert_eq!(press(&mut controls, "q"), Step::Stay);
        assert!(!controls.help);
    }
}
