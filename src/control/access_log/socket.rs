//! Local sockets that take a datagram for each line: those of a syslog server and of journald.
//!
//! A server that is not there, or has gone, is looked for again each second; until then lines are
//! lost and counted. It is no reason not to start: clients can be served without it.

use std::fmt::{Display, Write as _};
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::SystemTime;

use crate::sys;

use super::line::Fields;

/// Connects to the socket of a server, which does not notice that.
///
/// # Errors
/// What connect(2) says.
pub(in crate::control) fn connect(path: &Path) -> io::Result<fs::File> {
    let socket = UnixDatagram::unbound()?;
    socket.connect(path)?;
    Ok(OwnedFd::from(socket).into())
}

/// A socket that is connected to no server: a write fails as if the server had gone.
pub(super) fn unconnected() -> io::Result<fs::File> {
    Ok(OwnedFd::from(UnixDatagram::unbound()?).into())
}

/// Whether a connect failed because no server is there now. One may come.
pub(in crate::control) fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
    )
}

/// Whether a write failed because the server has gone. Another one may be there.
pub(super) fn has_gone(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotConnected
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::BrokenPipe
    )
}

/// Whether a write failed because the line is longer than a datagram may be.
pub(super) fn is_too_long(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EMSGSIZE)
}

/// Sentence about a server that is not there.
pub(in crate::control) fn absence(path: &Path, error: &io::Error) -> String {
    let path = path.display();
    format!(
        "no log server is at {path}: {error}; lines of the access log are lost and counted until \
         one is, which is looked for each second"
    )
}

/// What stands before each line for a syslog server, but for its priority and time (RFC 5424).
pub(super) struct SyslogHead(String);

impl SyslogHead {
    pub(super) fn new() -> Self {
        // APP-NAME, PROCID, MSGID; no structured data.
        let pid = std::process::id();
        Self(format!("{} mahoraga {pid} session - ", sys::host_name()))
    }

    pub(super) fn write(&self, out: &mut String, ended: SystemTime, level: Level) {
        let priority = FACILITY * 8 + level as u32;
        let time = humantime::format_rfc3339_millis(ended);
        // Writing to a string does not fail.
        let _ = write!(out, "<{priority}>1 {time} {}", self.0);
    }
}

/// How much a line deserves a look, as syslog(3) and journald number that.
#[derive(Clone, Copy)]
pub(super) enum Level {
    /// The session ended for another reason.
    Notice = 5,
    /// Both sides closed in order.
    Info = 6,
}

/// Writes fields in the native format of journald
/// (<https://systemd.io/JOURNAL_NATIVE_PROTOCOL>). Those without a value are left out.
pub(super) struct JournalFields<'a> {
    out: &'a mut String,
}

impl<'a> JournalFields<'a> {
    /// Ends the message, which stands in `out` behind [`JOURNAL_HEAD`].
    pub(super) fn begin(out: &'a mut String, level: Level) -> Self {
        let level = level as u32;
        let _ = write!(
            out,
            "SYSLOG_IDENTIFIER=mahoraga\nSYSLOG_FACILITY={FACILITY}\n"
        );
        let _ = writeln!(out, "PRIORITY={level}");
        Self { out }
    }
}

impl Fields for JournalFields<'_> {
    fn text(&mut self, key: &str, value: impl Display) {
        let value = value.to_string();
        let key = key.to_ascii_uppercase();
        // The end of a line would end the field.
        let value = value.replace('\n', " ");
        let _ = writeln!(self.out, "MAHORAGA_{key}={value}");
    }

    fn number(&mut self, key: &str, value: Option<u64>) {
        if let Some(value) = value {
            self.text(key, value);
        }
    }
}

/// What a datagram for journald begins with: the line follows.
pub(super) const JOURNAL_HEAD: &str = "MESSAGE=";
/// `local0`: the first of those that belong to no part of the system.
const FACILITY: u32 = 16;
