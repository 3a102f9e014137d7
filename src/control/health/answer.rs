//! What an answer must be, checked as its bytes arrive.

use std::cell::RefCell;
use std::ops::RangeInclusive;
use std::time::Duration;

use regex::bytes::Regex;
use regex_automata::Input;
use regex_automata::hybrid::dfa::{Cache, DFA};
use regex_automata::nfa::thompson;
use regex_automata::util::syntax;

use crate::config::{self, Probe, values};

use super::failure::{Closed, Failure, excerpt, excerpt_of_text};

/// What a probe expects.
#[derive(Debug)]
pub(super) enum Expectation {
    /// No answer: the connection is enough.
    Nothing,
    /// These bytes, anywhere in the answer; any byte at all where there are none.
    Bytes(Vec<u8>),
    /// A match.
    Match(Box<Pattern>),
    /// The status code of an HTTP/1 answer.
    Status(RangeInclusive<u16>),
}

impl Expectation {
    /// The expectation of a probe.
    pub(super) fn of(probe: &Probe) -> Result<Self, Failure> {
        Ok(match probe {
            Probe::Tcp => Self::Nothing,
            Probe::SendExpect { expect, .. } => match expect {
                config::Expect::Bytes(bytes) => Self::Bytes(bytes.clone()),
                config::Expect::Regex(pattern) => {
                    let pattern = Pattern::new(pattern);
                    let pattern = pattern.map_err(|error| Failure::Unfit(error.to_string()));
                    Self::Match(Box::new(pattern?))
                }
            },
            Probe::Http(request) => Self::Status(request.status.clone()),
        })
    }

    /// Whether an answer is as expected. `None`: that depends on bytes to come. `ended`: no more
    /// bytes will come.
    pub(super) fn verdict(&self, answer: &[u8], ended: bool) -> Option<Result<(), Failure>> {
        let is_met = match self {
            Self::Nothing => true,
            Self::Bytes(bytes) => contains(answer, bytes),
            Self::Match(pattern) => match pattern.search(answer) {
                Search::Found => true,
                Search::Impossible => return Some(Err(self.unexpected(answer, None))),
                Search::More => false,
            },
            Self::Status(good) => match status(answer) {
                Status::Is(code) if good.contains(&code) => true,
                Status::Is(_) | Status::None => return Some(Err(self.unexpected(answer, None))),
                Status::More => false,
            },
        };
        if is_met {
            return Some(Ok(()));
        }
        ended.then(|| Err(self.unmet(answer)))
    }

    fn unmet(&self, answer: &[u8]) -> Failure {
        match self {
            _ if answer.is_empty() => Failure::Closed(Closed::Unanswered),
            Self::Status(_) if answer.len() < ANSWER_MAX => Failure::Closed(Closed::Early),
            Self::Nothing | Self::Bytes(_) | Self::Match(_) | Self::Status(_) => {
                self.unexpected(answer, None)
            }
        }
    }

    /// The failure for an answer that is not as expected. `within`: the timeout, where it expired
    /// before that was sure.
    pub(super) fn unexpected(&self, answer: &[u8], within: Option<Duration>) -> Failure {
        let quoted = |bytes: &[u8]| format!("\"{}\"", excerpt(bytes));
        let (answer, expected) = match self {
            Self::Nothing => (quoted(answer), "no answer".to_owned()),
            Self::Bytes(bytes) => (quoted(answer), quoted(bytes)),
            Self::Match(pattern) => {
                let pattern = excerpt_of_text(pattern.regex.as_str());
                (quoted(answer), format!("a match of `{pattern}`"))
            }
            Self::Status(good) => {
                let answer = match status(answer) {
                    Status::Is(code) => format!("status {code}"),
                    Status::None | Status::More => quoted(answer),
                };
                let expected = match (good.start(), good.end()) {
                    (from, to) if from == to => format!("status {from}"),
                    (from, to) => format!("status {from}-{to}"),
                };
                (answer, expected)
            }
        };
        Failure::Unexpected {
            answer,
            expected,
            within,
        }
    }
}

/// A regular expression for a whole answer, which comes in pieces.
#[derive(Debug)]
pub(super) struct Pattern {
    regex: Regex,
    /// Finds out that no bytes to come can make a match, where the expression begins with `^`: any
    /// other may match further on.
    automaton: Option<(DFA, RefCell<Cache>)>,
}

/// What is known of a match before an answer has ended.
enum Search {
    Found,
    /// Whatever comes, it does not match.
    Impossible,
    More,
}

impl Pattern {
    fn new(pattern: &str) -> Result<Self, values::ValueError> {
        let regex = values::expect_regex(pattern)?;
        Ok(Self {
            regex,
            automaton: automaton(pattern),
        })
    }

    fn search(&self, answer: &[u8]) -> Search {
        if answer.is_empty() {
            return Search::More;
        }
        if self.regex.is_match(answer) {
            return Search::Found;
        }
        if self.is_impossible(answer) == Some(true) {
            return Search::Impossible;
        }
        Search::More
    }

    /// Whether no match begins like this. `None`: that can't be found out.
    fn is_impossible(&self, answer: &[u8]) -> Option<bool> {
        let (automaton, cache) = self.automaton.as_ref()?;
        let mut cache = cache.borrow_mut();
        let input = Input::new(answer);
        let mut state = automaton.start_state_forward(&mut cache, &input).ok()?;
        for byte in answer {
            state = automaton.next_state(&mut cache, state, *byte).ok()?;
            if state.is_dead() {
                return Some(true);
            }
        }
        Some(false)
    }
}

/// The states that lead to a match. `None`: there are too many, or none is ever without hope.
fn automaton(pattern: &str) -> Option<(DFA, RefCell<Cache>)> {
    // As `values::expect_regex` reads it.
    let syntax = syntax::Config::new().unicode(false).utf8(false);
    let nfa = thompson::Compiler::new()
        .syntax(syntax)
        .configure(thompson::Config::new().nfa_size_limit(Some(AUTOMATON_BYTES_MAX)))
        .build(pattern)
        .ok()?;
    if !nfa.is_always_start_anchored() {
        return None;
    }
    let config = DFA::config().cache_capacity(AUTOMATON_BYTES_MAX);
    let automaton = DFA::builder().configure(config).build_from_nfa(nfa).ok()?;
    let cache = RefCell::new(automaton.create_cache());
    Some((automaton, cache))
}

const AUTOMATON_BYTES_MAX: usize = 1 << 20;

fn contains(answer: &[u8], wanted: &[u8]) -> bool {
    if wanted.is_empty() {
        return !answer.is_empty();
    }
    answer.windows(wanted.len()).any(|window| window == wanted)
}

enum Status {
    Is(u16),
    /// It is not an HTTP/1 answer.
    None,
    More,
}

/// The status code of the final answer (RFC 9112, section 4). It skips interim answers, of which a
/// server may send any number (RFC 9110, section 15.2).
fn status(mut answer: &[u8]) -> Status {
    loop {
        let code = match status_line(answer) {
            Status::Is(code) => code,
            other @ (Status::None | Status::More) => return other,
        };
        // 101 is final: the request asks for no other protocol.
        if !(100..200).contains(&code) || code == 101 {
            return Status::Is(code);
        }
        let end = answer.windows(4).position(|window| window == b"\r\n\r\n");
        let Some(end) = end else {
            return Status::More;
        };
        answer = answer.get(end + 4..).unwrap_or_default();
    }
}

/// `HTTP/1.1 200` and what must follow it. The reason phrase and its space are often left out.
fn status_line(answer: &[u8]) -> Status {
    const SHAPE: &[u8; 13] = b"HTTP/1.d ddd.";
    let fits = |(byte, shape): (&u8, &u8)| match shape {
        b'd' => byte.is_ascii_digit(),
        // The version's own dot, and the end of the code.
        b'.' => b". \r\n".contains(byte),
        shape => byte == shape,
    };
    if !answer.iter().zip(SHAPE).all(fits) {
        return Status::None;
    }
    let code = answer.get(9..12).filter(|_| answer.len() >= SHAPE.len());
    code.map_or(Status::More, |code| {
        let digit = |code: u16, byte: &u8| code * 10 + u16::from(byte - b'0');
        Status::Is(code.iter().fold(0, digit))
    })
}

/// Bytes of an answer that are looked at.
pub(super) const ANSWER_MAX: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn http(answer: &[u8]) -> Option<Result<(), Failure>> {
        Expectation::Status(200..=399).verdict(answer, false)
    }

    fn sentence(verdict: Option<Result<(), Failure>>) -> String {
        let failure = verdict.and_then(Result::err);
        failure.map_or_else(String::new, |failure| failure.to_string())
    }

    #[test]
    fn a_status_decides_as_soon_as_it_is_complete() {
        let answer = b"HTTP/1.1 204 No Content\r\n\r\n";
        for length in 0..13 {
            assert_eq!(http(&answer[..length]), None, "{length}");
        }
        assert_eq!(http(&answer[..13]), Some(Ok(())));
        assert_eq!(http(b"HTTP/1.0 301\r\n"), Some(Ok(())));
        let failed = http(b"HTTP/1.1 503 Service Unavailable\r\n");
        let wrong = "answered status 503, expected status 200-399";
        assert_eq!(sentence(failed), wrong);
    }

    #[test]
    fn an_interim_answer_is_skipped() {
        let interim = b"HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n";
        assert_eq!(http(interim), None);
        let both = [&interim[..], &interim[..], b"HTTP/1.1 500 \r\n"].concat();
        let wrong = |code| format!("answered status {code}, expected status 200-399");
        assert_eq!(sentence(http(&both)), wrong(500));
        let switches = http(b"HTTP/1.1 101 Switching\r\n\r\n");
        assert_eq!(sentence(switches), wrong(101));
    }

    #[test]
    fn another_protocol_is_recognised_by_its_first_bytes() {
        for answer in [
            &b"SSH-2.0-OpenSSH"[..],
            b"HTTP/2.0 200 ",
            b"HTTP/1.1 2x0 ",
            b"HTTP/1.1 2000 ",
            b"\0",
        ] {
            let quoted = format!("answered \"{}\", ", answer.escape_ascii());
            let said = sentence(http(answer));
            assert!(said.starts_with(&quoted), "{said}");
        }
    }

    #[test]
    fn an_unexpected_answer_is_quoted() {
        let status = Expectation::Status(200..=299);
        let end = |answer: &[u8]| status.verdict(answer, true).and_then(Result::err);
        assert_eq!(end(b""), Some(Failure::Closed(Closed::Unanswered)));
        assert_eq!(end(b"HTTP/1.1"), Some(Failure::Closed(Closed::Early)));
        let bytes = Expectation::Bytes(b"PONG".to_vec());
        assert_eq!(bytes.verdict(b"-LOADING\r\n", false), None);
        assert_eq!(
            sentence(bytes.verdict(b"-LOADING\r\n", true)),
            r#"answered "-LOADING\r\n", expected "PONG""#
        );
    }

    #[test]
    fn an_expression_fails_as_soon_as_no_bytes_to_come_can_help() {
        let verdict = |pattern: &str, answer: &[u8]| {
            let pattern = Pattern::new(pattern).expect("it compiles");
            Expectation::Match(Box::new(pattern)).verdict(answer, false)
        };
        assert_eq!(
            sentence(verdict(r"^\+PONG", b"-NOAUTH ")),
            r#"answered "-NOAUTH ", expected a match of `^\+PONG`"#
        );
        assert_eq!(verdict(r"^\+PONG", b"+PO"), None);
        assert_eq!(verdict("^220 .*ready", b"220 mail"), None);
        // `.` is no line feed.
        assert_ne!(verdict("^220 .*ready", b"220 mail\n"), None);
        assert_eq!(verdict("(?s)^220 .*ready", b"220 mail\n"), None);
        assert_ne!(verdict("^(?:a|b)c$", b"bcd"), None);
        // Each of these may match further on.
        for pattern in [r"\+PONG", "(?m)^PONG", "^a|b"] {
            assert_eq!(verdict(pattern, b"x"), None, "{pattern}");
        }
        assert_eq!(verdict("^a", b""), None);
    }

    #[test]
    fn bytes_and_expressions_match_anywhere() {
        let bytes = Expectation::Bytes(b"PONG".to_vec());
        assert_eq!(bytes.verdict(b"..+PONG\r\n", false), Some(Ok(())));
        let any = Expectation::Bytes(Vec::new());
        assert_eq!(any.verdict(b"", false), None);
        assert_eq!(any.verdict(b"x", false), Some(Ok(())));
        let regex = Expectation::of(&Probe::SendExpect {
            send: Vec::new(),
            expect: config::Expect::Regex(r"^220 .*\bESMTP\b".to_owned()),
        });
        let regex = regex.expect("it compiles");
        assert_eq!(regex.verdict(b"220 mail ESM", false), None);
        assert_eq!(regex.verdict(b"220 mail ESMTP ready", false), Some(Ok(())));
    }

    #[test]
    fn an_invalid_or_too_large_expression_fails_the_probe() {
        for pattern in ["(", r"\w{10000}{10000}"] {
            let probe = Probe::SendExpect {
                send: Vec::new(),
                expect: config::Expect::Regex(pattern.to_owned()),
            };
            assert!(matches!(Expectation::of(&probe), Err(Failure::Unfit(_))));
        }
    }
}
