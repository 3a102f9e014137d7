//! Why a probe failed, in one short sentence.

use std::fmt;
use std::io;
use std::time::Duration;

use thiserror::Error;

use crate::fault::Fault;
use crate::kernel::Errno;

/// Why a probe failed.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Failure {
    /// The backend, or the way to it, says no: `connection refused`.
    #[error("{0}")]
    Broken(String),
    /// This process lacks a descriptor, a port or memory: nothing was learned of the backend.
    #[error("not probed: {0}")]
    Lacking(String),
    /// This process did not run meanwhile: nothing was learned of the backend.
    #[error("not probed: this process was stopped, or its machine overloaded")]
    Stalled,
    /// The time was over.
    #[error("no {stage} within {}", humantime::format_duration(*.after))]
    Late {
        /// What was waited for.
        stage: Stage,
        /// The timeout.
        after: Duration,
    },
    /// It hung up.
    #[error("it closed the connection {0}")]
    Closed(Closed),
    /// It said something else: the first bytes.
    #[error("unexpected answer `{0}`")]
    Unexpected(String),
    /// The status code is not of those that are good.
    #[error("status {0}")]
    Status(u16),
    /// What came is no HTTP/1 answer: the first bytes.
    #[error("no HTTP answer: `{0}`")]
    NotHttp(String),
    /// The handshake failed, or its certificate is not trusted.
    #[error("TLS: {0}")]
    Tls(String),
    /// It took none of the protocols that it was offered (RFC 7301).
    #[error("TLS: it takes none of the protocols offered")]
    Alpn,
    /// The check itself can't be done as it is configured.
    #[error("{0}")]
    Unfit(String),
}

/// What a probe waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The connection.
    Connecting,
    /// The TLS handshake.
    Handshake,
    /// That the backend takes what is sent.
    Sending,
    /// The answer.
    Answer,
}

/// When a backend hung up.
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
    /// What the kernel said of the connection.
    pub(super) fn broken(error: &io::Error) -> Self {
        let errno = error.raw_os_error();
        match (errno, errno.map(|errno| Fault::of_connect(Errno(errno)))) {
            (_, Some(Fault::Ports)) => Self::Lacking("no local port is free".to_owned()),
            (_, Some(Fault::Resources)) => Self::Lacking(short(error)),
            // unix(7): connect does not wait for a full backlog when it is nonblocking.
            (_, Some(Fault::Busy)) => Self::Broken("its backlog is full".to_owned()),
            (Some(libc::ENOENT), _) => Self::Broken("there is no such socket".to_owned()),
            // That it can't be reached from here is what a check finds out, whatever the cause.
            _ => Self::Broken(short(error)),
        }
    }

    /// Whether it tells something of the backend.
    #[must_use]
    pub fn is_telling(&self) -> bool {
        !matches!(self, Self::Lacking(_) | Self::Stalled)
    }
}

impl fmt::Display for Stage {
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

/// `Connection refused (os error 111)` as a part of a sentence, and without the number.
fn short(error: &io::Error) -> String {
    let said = error.to_string();
    let said = said.split(" (os error").next().unwrap_or_default();
    let mut letters = said.chars();
    let first = letters.next().map(|letter| letter.to_ascii_lowercase());
    first.into_iter().chain(letters).collect()
}

/// The first bytes of an answer, fit for a line.
pub(super) fn excerpt(answer: &[u8]) -> String {
    let shown = answer.get(..EXCERPT).unwrap_or(answer);
    let more = if answer.len() > EXCERPT { "..." } else { "" };
    format!("{}{more}", shown.escape_ascii())
}

const EXCERPT: usize = 40;

#[cfg(test)]
mod tests {
    use super::*;

    fn said(errno: i32) -> String {
        Failure::broken(&io::Error::from_raw_os_error(errno)).to_string()
    }

    #[test]
    fn what_the_kernel_says_is_short() {
        assert_eq!(said(libc::ECONNREFUSED), "connection refused");
        assert_eq!(said(libc::EHOSTUNREACH), "no route to host");
        assert_eq!(said(libc::EPROTO), "protocol error");
        assert_eq!(said(libc::ENOENT), "there is no such socket");
        assert_eq!(said(libc::ENOBUFS), "not probed: no buffer space available");
    }

    #[test]
    fn an_own_lack_is_no_failure_of_the_backend() {
        let lack = |errno| Failure::broken(&io::Error::from_raw_os_error(errno));
        assert!(!lack(libc::EADDRNOTAVAIL).is_telling());
        for errno in [libc::EADDRINUSE, libc::ENOBUFS, libc::EMFILE, libc::ENFILE] {
            assert!(!lack(errno).is_telling());
        }
        assert!(lack(libc::EACCES).is_telling());
        assert!(lack(libc::ECONNREFUSED).is_telling());
    }

    #[test]
    fn an_excerpt_is_one_short_line() {
        assert_eq!(excerpt(b"-ERR\r\n\xff"), "-ERR\\r\\n\\xff");
        assert_eq!(excerpt(&[b'x'; 100]).len(), EXCERPT + 3);
    }
}
