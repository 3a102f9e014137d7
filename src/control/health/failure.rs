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
    /// The connection failed, as in `connection refused`.
    #[error("{0}")]
    Broken(String),
    /// This process lacks a descriptor, a port or memory: that says nothing about the backend.
    #[error("not probed: {0}")]
    Lacking(String),
    /// This process did not run meanwhile: that says nothing about the backend.
    #[error("not probed: this process was stopped, or its machine overloaded")]
    Stalled,
    /// The timeout expired.
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
    /// The answer does not match; its first bytes.
    #[error("unexpected answer `{0}`")]
    Unexpected(String),
    /// The status code is not one of those that the check accepts.
    #[error("status {0}")]
    Status(u16),
    /// The answer is not HTTP/1; its first bytes.
    #[error("no HTTP answer: `{0}`")]
    NotHttp(String),
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeStage {
    /// The connection.
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
    /// The failure for an error of the connection.
    pub(super) fn broken(error: &io::Error) -> Self {
        let errno = error.raw_os_error();
        match (errno, errno.map(|errno| Fault::of_connect(Errno(errno)))) {
            (_, Some(Fault::Ports)) => Self::Lacking("no local port is free".to_owned()),
            (_, Some(Fault::Resources)) => Self::Lacking(short(error)),
            // unix(7): connect does not wait for a full backlog when it is nonblocking.
            (_, Some(Fault::Busy)) => Self::Broken("its backlog is full".to_owned()),
            (Some(libc::ENOENT), _) => Self::Broken("there is no such socket".to_owned()),
            // Whatever the cause is, the backend can't be reached from here.
            _ => Self::Broken(short(error)),
        }
    }

    /// Whether it says something about the backend, not about this process alone.
    #[must_use]
    pub fn is_telling(&self) -> bool {
        !matches!(self, Self::Lacking(_) | Self::Stalled)
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

const EXCERPT: usize = 40;

#[cfg(test)]
mod tests {
    use super::*;

    fn sentence(errno: i32) -> String {
        Failure::broken(&io::Error::from_raw_os_error(errno)).to_string()
    }

    #[test]
    fn errors_of_the_kernel_are_short() {
        assert_eq!(sentence(libc::ECONNREFUSED), "connection refused");
        assert_eq!(sentence(libc::EHOSTUNREACH), "no route to host");
        assert_eq!(sentence(libc::EPROTO), "protocol error");
        assert_eq!(sentence(libc::ENOENT), "there is no such socket");
        assert_eq!(
            sentence(libc::ENOBUFS),
            "not probed: no buffer space available"
        );
    }

    #[test]
    fn what_this_process_lacks_says_nothing_about_the_backend() {
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
