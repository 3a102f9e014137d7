//! Regular expressions for host names.
//!
//! Each is compiled to all of its states at once: a name costs one step for each of its bytes,
//! whatever the expression, and nothing is allocated or shared while it is matched. Expressions
//! whose states do not fit are refused.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use regex_automata::dfa::dense::{BuildError, Builder, Config, DFA};
use regex_automata::dfa::{Automaton, StartKind};
use regex_automata::nfa::thompson;
use regex_automata::util::syntax;
use regex_automata::{Anchored, Input, MatchKind};

/// A regular expression that a whole name matches, in any case.
#[derive(Clone)]
pub struct NameRegex {
    written: Arc<str>,
    states: Arc<DFA<Vec<u32>>>,
}

impl NameRegex {
    /// Compiles an expression, in the syntax of the crate `regex`.
    ///
    /// # Errors
    /// Why it is none, or that it is too large, in a few words.
    pub fn new(written: &str) -> Result<Self, String> {
        if written.is_empty() || written.len() > PATTERN_MAX {
            return Err(format!("expected 1 to {PATTERN_MAX} bytes"));
        }
        // Names are ASCII.
        let syntax = syntax::Config::new()
            .unicode(false)
            .utf8(false)
            .case_insensitive(true);
        syntax::parse_with(written, &syntax).map_err(|error| in_words(&error.to_string()))?;
        let config = Config::new()
            .start_kind(StartKind::Anchored)
            .match_kind(MatchKind::All)
            .dfa_size_limit(Some(BYTES_MAX))
            .determinize_size_limit(Some(MAKING_MAX));
        let states = Builder::new()
            .syntax(syntax)
            .thompson(thompson::Config::new().nfa_size_limit(Some(STEPS_MAX)))
            .configure(config)
            .build(written)
            .map_err(|error| too_large(&error))?;
        Ok(Self {
            written: written.into(),
            states: Arc::new(states),
        })
    }

    /// Whether the whole name matches.
    #[must_use]
    pub fn matches(&self, name: &[u8]) -> bool {
        let input = Input::new(name).anchored(Anchored::Yes);
        let Ok(mut state) = self.states.start_state_forward(&input) else {
            return false;
        };
        for byte in name {
            state = self.states.next_state(state, *byte);
            if self.states.is_dead_state(state) {
                return false;
            }
        }
        let end = self.states.next_eoi_state(state);
        self.states.is_match_state(end)
    }
}

/// What is wrong, without the expression and its caret, which may have several lines.
fn in_words(error: &str) -> String {
    let last = error.lines().last().unwrap_or_default().trim();
    last.trim_start_matches("error: ").to_owned()
}

/// What is not supported was written; whatever else fails is for want of room.
fn too_large(error: &BuildError) -> String {
    let says = error.to_string();
    match says.starts_with("unsupported") {
        true => in_words(&says),
        false => "it is too large once compiled: expect less, or less often".to_owned(),
    }
}

impl PartialEq for NameRegex {
    fn eq(&self, other: &Self) -> bool {
        self.written == other.written
    }
}

impl Eq for NameRegex {}

impl Hash for NameRegex {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.written.hash(state);
    }
}

impl fmt::Debug for NameRegex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.written)
    }
}

impl fmt::Display for NameRegex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written)
    }
}

/// The most bytes of an expression.
const PATTERN_MAX: usize = 1_024;
/// The most bytes that one takes once compiled: 64 of a listener are 16 MiB.
const BYTES_MAX: usize = 256 * 1024;
/// The most bytes of the steps that its states are made from, and of the sets of steps that become
/// states: together they bound how long that takes. The worst known takes 20 ms.
const STEPS_MAX: usize = 64 * 1024;
const MAKING_MAX: usize = 96 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_name_matches_in_any_case() {
        let regex = |written: &str| NameRegex::new(written).unwrap();
        for (written, name, matches) in [
            (r"api-[0-9]+\.Example", "api-17.example", true),
            (r"api-[0-9]+\.example", "api-.example", false),
            (r"api-[0-9]+\.example", "api-1.example.com", false),
            (r"api-[0-9]+\.example", "my.api-1.example", false),
            (r"^a|ab$", "ab", true),
            (r"a|ab", "ab", true),
            (r"(?x) a b # c", "ab", true),
            (r".*", "a.example", true),
            (r"\w+\.b", "a.b", true),
            (r"a$.b", "a.b", false),
        ] {
            assert_eq!(
                regex(written).matches(name.as_bytes()),
                matches,
                "{written}"
            );
        }
        assert_eq!(regex("a").to_string(), "a");
        assert_ne!(regex("a"), regex("b"));
    }

    #[test]
    fn what_is_no_expression_or_too_large_is_refused() {
        let wrong = |written: &str| NameRegex::new(written).unwrap_err();
        assert_eq!(wrong("a("), "unclosed group");
        assert_eq!(wrong("a)"), "unopened group");
        assert_eq!(wrong(""), "expected 1 to 1024 bytes");
        assert_eq!(wrong(&"a".repeat(1_025)), "expected 1 to 1024 bytes");
        // Its states are as many as there are sets of the last 40 bytes.
        let large = "it is too large once compiled: expect less, or less often";
        assert_eq!(wrong("(.*)[ab].{40}"), large);
        assert_eq!(wrong(".{1000}{1000}"), large);
        // They would take 0.1 s, and more.
        assert_eq!(wrong("((.?){50}a){6}"), large);
        assert_eq!(wrong("([a-z]?[0-9]?b?c?d?){100}"), large);
        assert!(NameRegex::new(r"([a-z0-9-]{1,63}\.){1,4}example").is_ok());
    }
}
