//! Why a probe failed, in one short sentence.

use std::fmt;
use std::io;
use std::time::Duration;

use thiserror::Error;

use crate::address::Address;
use crate::fault::Fault;
use crate::kernel::Errno;
use crate::origin::Origin;
use crate::sys;
use crate::wording::is_misleading;

/// Why a probe failed.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Failure {
    /// The connection failed, as in `connection refused`.
    #[error("{0}")]
    Broken(String),
    /// This machine lacks a descriptor, a port, memory or a right, or the backend has too many
    /// clients: it is not the backend's fault, as with sessions.
    #[error("not probed: {0}")]
    Lacking(String),
    /// The same of the origin alone: this machine does not have its address, or no port of it is
    /// free. Another may serve.
    #[error("not probed: {0}")]
    Originless(String),
    /// This process did not run meanwhile: that says nothing about the backend.
    #[error("not probed: this process was stopped, or its machine overloaded")]
    Stalled,
    /// The timeout expired, and not a byte of an answer had come.
    #[error("no {stage} within {}", humantime::format_duration(*.after))]
    Late {
        /// What was waited for.
        stage: ProbeStage,
        /// The timeout.
        after: Duration,
    },
    /// The backend closed the connection.
    #[error("it closed the connection {0}")]
    Closed(Closed),
    /// The answer is not the expected one.
    #[error("answered {answer}, expected {expected}{}", in_time(*.within))]
    Unexpected {
        /// Its first bytes, or its status code.
        answer: String,
        /// What the check expects.
        expected: String,
        /// The timeout, where it expired before it was sure that the answer is another.
        within: Option<Duration>,
    },
    /// The handshake failed, or its certificate is not trusted.
    #[error("TLS: {0}")]
    Tls(String),
    /// The backend accepted none of the offered protocols (RFC 7301).
    #[error("TLS: it accepts none of the offered protocols")]
    Alpn,
    /// The check can't be made as it is configured.
    #[error("{0}")]
    Unfit(String),
}

/// What a probe waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProbeStage {
    /// The connection.
    #[default]
    Connecting,
    /// The TLS handshake.
    Handshake,
    /// Room to send the request.
    Sending,
    /// The answer.
    Answer,
}

/// When a backend closed the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closed {
    /// Before a byte of an answer.
    Unanswered,
    /// Within the answer.
    Early,
    /// Within the TLS handshake.
    Handshake,
}

impl Failure {
    /// The failure for an error of socket(2) and bind(2).
    pub(super) fn opening(error: &io::Error, from: Origin) -> Self {
        match (error.kind(), from.address) {
            (io::ErrorKind::AddrNotAvailable, Some(address)) => {
                let why = "this machine does not have it";
                Self::Originless(format!("cannot connect from `source` {address}: {why}"))
            }
            _ => Self::by(error, Fault::of_connect(Fault::binding(errno(error)))),
        }
    }

    /// The failure for an error of connect(2).
    pub(super) fn connecting(error: &io::Error, to: &Address) -> Self {
        let fault = Fault::of_connect(errno(error));
        if fault == Fault::Ports && !sys::has_address_towards(to) {
            return Self::Broken("this machine has no address to reach it from".to_owned());
        }
        Self::by(error, fault)
    }

    /// The failure for an error of the connection.
    pub(super) fn broken(error: &io::Error) -> Self {
        Self::by(error, Fault::of_traffic(errno(error), Fault::Backend))
    }

    /// What a session would not blame the backend for says nothing about it here either.
    fn by(error: &io::Error, fault: Fault) -> Self {
        match (error.raw_os_error(), fault) {
            (_, Fault::Ports) => Self::Originless("no local port is free".to_owned()),
            // unix(7): connect does not wait for a full backlog when it is nonblocking.
            (_, Fault::Busy) => Self::Lacking("its backlog is full".to_owned()),
            (Some(libc::ENOENT), _) => Self::Broken("there is no such socket".to_owned()),
            (_, fault) if fault.blames_backend() => Self::Broken(short(error)),
            _ => Self::Lacking(short(error)),
        }
    }

    /// The sentence, without that no probe was made.
    pub(super) fn reason(&self) -> String {
        if let Self::Lacking(why) | Self::Originless(why) = self {
            why.clone()
        } else {
            self.to_string()
        }
    }

    /// Whether it says something about the backend, not about this process alone.
    #[must_use]
    pub fn is_telling(&self) -> bool {
        !matches!(self, Self::Lacking(_) | Self::Originless(_) | Self::Stalled)
    }
}

impl fmt::Display for ProbeStage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connecting => "connection",
            Self::Handshake => "TLS handshake",
            Self::Sending => "room for the request",
            Self::Answer => "answer",
        })
    }
}

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unanswered => "without an answer",
            Self::Early => "within its answer",
            Self::Handshake => "within the TLS handshake",
        })
    }
}

fn in_time(within: Option<Duration>) -> String {
    let within = within.map(humantime::format_duration);
    within.map_or_else(String::new, |within| format!(" within {within}"))
}

fn errno(error: &io::Error) -> Errno {
    Errno(error.raw_os_error().unwrap_or(libc::EIO))
}

/// `Connection refused (os error 111)` without the number, to be a part of a sentence.
fn short(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    let first = letters.next().map(|letter| letter.to_ascii_lowercase());
    first.into_iter().chain(letters).collect()
}

/// The first bytes of an answer, fit for a line.
pub(super) fn excerpt(answer: &[u8]) -> String {
    let shown = answer.get(..EXCERPT).unwrap_or(answer);
    let more = if answer.len() > EXCERPT { "..." } else { "" };
    format!("{}{more}", shown.escape_ascii())
}

/// The beginning of what the operator wrote, fit for a line.
pub(super) fn excerpt_of_text(text: &str) -> String {
    let shown: String = text.chars().take(EXCERPT).collect();
    let more = if shown.len() < text.len() { "..." } else { "" };
    let shown = shown.replace(is_misleading, "\u{fffd}");
    format!("{shown}{more}")
}

const EXCERPT: usize = 40;

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(errno: i32) -> Failure {
        let to = "127.0.0.1:9".parse().unwrap();
        Failure::connecting(&io::Error::from_raw_os_error(errno), &to)
    }

    #[test]
    fn errors_of_the_kernel_are_short() {
        let sentence = |errno| failed(errno).to_string();
        assert_eq!(sentence(libc::ECONNREFUSED), "connection refused");
        assert_eq!(sentence(libc::EHOSTUNREACH), "no route to host");
        assert_eq!(sentence(libc::EPROTO), "protocol error");
        assert_eq!(sentence(libc::ENOENT), "there is no such socket");
        let lacks = "not probed: no buffer space available";
        assert_eq!(sentence(libc::ENOBUFS), lacks);
        assert_eq!(sentence(libc::EAGAIN), "not probed: its backlog is full");
        let portless = "not probed: no local port is free";
        assert_eq!(sentence(libc::EADDRNOTAVAIL), portless);
    }

    /// For every error that the kernel has.
    #[test]
    fn a_probe_blames_a_backend_where_a_session_would() {
        for errno in 1..134 {
            let blames = |fault: Fault| fault.blames_backend();
            let session = blames(Fault::of_connect(Errno(errno)));
            assert_eq!(failed(errno).is_telling(), session, "{}", Errno(errno));
            let error = io::Error::from_raw_os_error(errno);
            let session = blames(Fault::of_connect(Fault::binding(Errno(errno))));
            let opening = Failure::opening(&error, Origin::default());
            assert_eq!(opening.is_telling(), session, "{}", Errno(errno));
            let session = blames(Fault::of_traffic(Errno(errno), Fault::Backend));
            let broken = Failure::broken(&error);
            assert_eq!(broken.is_telling(), session, "{}", Errno(errno));
        }
    }

    #[test]
    fn a_missing_source_address_is_named() {
        let from = Origin {
            address: Some("192.0.2.7".parse().unwrap()),
            ..Origin::default()
        };
        let missing = io::Error::from_raw_os_error(libc::EADDRNOTAVAIL);
        let failure = Failure::opening(&missing, from);
        assert!(!failure.is_telling());
        assert_eq!(
            failure.to_string(),
            "not probed: cannot connect from `source` 192.0.2.7: this machine does not have it"
        );
    }

    #[test]
    fn an_excerpt_is_one_short_line() {
        assert_eq!(excerpt(b"-ERR\r\n\xff"), "-ERR\\r\\n\\xff");
        assert_eq!(excerpt(&[b'x'; 100]).len(), EXCERPT + 3);
        assert_eq!(excerpt_of_text("^a\\d\n"), "^a\\d\u{fffd}");
        let long = excerpt_of_text(&"ä".repeat(100));
        assert_eq!(long.chars().count(), EXCERPT + 3);
    }
}
