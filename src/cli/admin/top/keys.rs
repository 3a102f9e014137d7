//! The keys of `top`.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::super::find::BackendName;
use super::model::{Order, Sort};
use crate::config::AdminState;
use crate::wording::plural;

/// What the user has chosen to see.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Controls {
    pub(super) view: View,
    pub(super) order: Order,
    /// Only lines, and backends whose name or address contains this are shown.
    pub(super) filter: String,
    /// Whether keys go into the filter.
    pub(super) typing: bool,
    /// Whether new samples are ignored.
    pub(super) paused: bool,
    /// Whether the list of keys is shown.
    pub(super) help: bool,
    /// The line that is marked, of a table: a change is about its backend.
    pub(super) marked: usize,
    /// The change that waits for a yes.
    pub(super) proposal: Option<Proposal>,
    /// What has become of the last change.
    pub(super) notice: Option<String>,
}

/// What the table below shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum View {
    #[default]
    Backends,
    Pools,
    Listeners,
    Sessions,
    Bans,
}

impl View {
    pub(super) const ALL: [(Self, &'static str); 5] = [
        (Self::Backends, "backends"),
        (Self::Pools, "pools"),
        (Self::Listeners, "listeners"),
        (Self::Sessions, "sessions"),
        (Self::Bans, "bans"),
    ];

    fn next(self) -> Self {
        let place = Self::ALL.iter().position(|(view, _)| *view == self);
        let next = place.map_or(0, |place| (place + 1) % Self::ALL.len());
        Self::ALL[next].0
    }
}

/// A change of a backend that the user has asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Proposal {
    pub(super) backend: BackendName,
    /// Its connections when it was asked for.
    pub(super) connections: u64,
    pub(super) to: AdminState,
}

impl Proposal {
    /// What it does, as a question.
    pub(super) fn question(&self) -> String {
        let name = self.backend.written();
        let open = plural(self.connections, "connection");
        match self.to {
            AdminState::Ready => format!("make {name} ready: it gets new sessions"),
            AdminState::Drain => format!("drain {name}: no new sessions, {open} may end"),
            AdminState::Maint => {
                format!("maint {name}: no new sessions, no probes, {open} may end")
            }
        }
    }
}

/// What follows a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Stay,
    Quit,
    /// The view has changed: its figures are asked for.
    Show,
    /// A change of the marked backend is proposed.
    Propose(AdminState),
    /// The user has said yes to the proposal.
    Confirm,
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
        self.notice = None;
        if self.proposal.is_some() {
            if key.code == KeyCode::Char('y') {
                return Step::Confirm;
            }
            self.proposal = None;
            return Step::Stay;
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
            KeyCode::Up | KeyCode::Char('k') => self.marked = self.marked.saturating_sub(1),
            KeyCode::Down | KeyCode::Char('j') => self.marked = self.marked.saturating_add(1),
            KeyCode::PageUp => self.marked = self.marked.saturating_sub(PAGE),
            KeyCode::PageDown => self.marked = self.marked.saturating_add(PAGE),
            KeyCode::Home => self.marked = 0,
            KeyCode::Tab => return self.show(self.view.next()),
            KeyCode::Char(digit @ '1'..='5') => {
                let place = usize::try_from(u32::from(digit) - u32::from('1')).unwrap_or(0);
                return self.show(View::ALL[place].0);
            }
            KeyCode::Char(letter) if self.view == View::Backends => {
                if let Some((_, to, _)) = CHANGES.iter().find(|(known, ..)| *known == letter) {
                    return Step::Propose(*to);
                }
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

    fn show(&mut self, view: View) -> Step {
        self.view = view;
        self.marked = 0;
        Step::Show
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
        self.marked = 0;
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

/// The keys that change the marked backend, to what, and what that is.
pub(super) const CHANGES: [(char, AdminState, &str); 3] = [
    ('D', AdminState::Drain, "drain the marked backend"),
    ('R', AdminState::Ready, "make it ready"),
    ('M', AdminState::Maint, "take it out of service"),
];

/// Lines that a page key scrolls by.
const PAGE: usize = 10;
/// As long as the longest name.
const FILTER_BYTES_MAX: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::model::BackendStatus;

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
        assert_eq!(controls.marked, 1);
    }

    #[test]
    fn a_change_needs_a_yes() {
        let mut controls = Controls::default();
        assert_eq!(press(&mut controls, "D"), Step::Propose(AdminState::Drain));
        let backend = BackendStatus {
            pool: "web".to_owned(),
            name: "a".to_owned(),
            ..BackendStatus::default()
        };
        let proposal = Proposal {
            backend: BackendName::of(&backend),
            connections: 1,
            to: AdminState::Drain,
        };
        let question = "drain web/a: no new sessions, 1 connection may end";
        assert_eq!(proposal.question(), question);
        controls.proposal = Some(proposal.clone());
        // Any other key than y takes it back, and does nothing else.
        assert_eq!(press(&mut controls, "q"), Step::Stay);
        assert_eq!(controls, Controls::default());
        controls.proposal = Some(proposal);
        assert_eq!(press(&mut controls, "y"), Step::Confirm);
    }

    #[test]
    fn views_take_turns_and_have_numbers() {
        let mut controls = Controls::default();
        for (_, (view, _)) in "2345".chars().zip(View::ALL.into_iter().skip(1)) {
            let tab = KeyEvent::new(KeyCode::Tab, KeyModifiers::NONE);
            controls.marked = 3;
            assert_eq!(controls.on_key(tab), Step::Show);
            assert_eq!((controls.view, controls.marked), (view, 0));
        }
        // Only backends are sorted and changed.
        assert_eq!(press(&mut controls, "DwRM"), Step::Stay);
        assert_eq!(controls.order, Order::default());
        assert_eq!(press(&mut controls, "2"), Step::Show);
        assert_eq!(controls.view, View::Pools);
        assert_eq!(press(&mut controls, "1"), Step::Show);
        assert_eq!(controls.view, View::Backends);
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
