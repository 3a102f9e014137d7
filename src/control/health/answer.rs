//! What an answer must be, checked as its bytes arrive.

use std::ops::RangeInclusive;

use regex::bytes::Regex;

use crate::config::{self, Probe, values};

use super::failure::{Closed, Failure, excerpt};

/// What a probe expects.
#[derive(Debug)]
pub(super) enum Expectation {
    /// No answer: the connection is enough.
    Nothing,
    /// These bytes, anywhere in the answer; any byte at all where there are none.
    Bytes(Vec<u8>),
    /// A match.
    Match(Regex),
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
                    let regex = values::expect_regex(pattern);
                    Self::Match(regex.map_err(|error| Failure::Unfit(error.to_string()))?)
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
            Self::Match(regex) => !answer.is_empty() && regex.is_match(answer),
            Self::Status(good) => match status(answer) {
                Status::Is(code) if good.contains(&code) => true,
                Status::Is(code) => return Some(Err(Failure::Status(code))),
                Status::None => return Some(Err(Failure::NotHttp(excerpt(answer)))),
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
            Self::Status(_) => Failure::NotHttp(excerpt(answer)),
            Self::Nothing | Self::Bytes(_) | Self::Match(_) => Failure::Unexpected(excerpt(answer)),
        }
    }
}

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

    #[test]
    fn a_status_decides_as_soon_as_it_is_complete() {
        let answer = b"HTTP/1.1 204 No Content\r\n\r\n";
        for length in 0..13 {
            assert_eq!(http(&answer[..length]), None, "{length}");
        }
        assert_eq!(http(&answer[..13]), Some(Ok(())));
        assert_eq!(http(b"HTTP/1.0 301\r\n"), Some(Ok(())));
        let failed = http(b"HTTP/1.1 503 Service Unavailable\r\n");
        assert_eq!(failed, Some(Err(Failure::Status(503))));
    }

    #[test]
    fn an_interim_answer_is_skipped() {
        let interim = b"HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n";
        assert_eq!(http(interim), None);
        let both = [&interim[..], &interim[..], b"HTTP/1.1 500 \r\n"].concat();
        assert_eq!(http(&both), Some(Err(Failure::Status(500))));
        assert_eq!(
            http(b"HTTP/1.1 101 Switching\r\n\r\n"),
            Some(Err(Failure::Status(101)))
        );
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
            let judged = http(answer);
            assert!(
                matches!(judged, Some(Err(Failure::NotHttp(_)))),
                "{answer:?}: {judged:?}"
            );
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
            bytes.verdict(b"-LOADING\r\n", true),
            Some(Err(Failure::Unexpected("-LOADING\\r\\n".to_owned())))
        );
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
