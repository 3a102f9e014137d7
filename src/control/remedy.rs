//! What an operator can do about an error at a start, as the end of a sentence.

use std::io;

use crate::address::Address;
use crate::sys;

use super::sandbox;

/// A listener can't listen on this address.
pub(super) fn of_bind(error: &io::Error, at: &Address) -> String {
    let remedy = match error.raw_os_error() {
        Some(libc::EADDRINUSE) => "; stop the process that listens there (`ss -ltnp` shows it)",
        Some(libc::EADDRNOTAVAIL) => {
            "; expected an address of this machine (`ip address` shows them); for one that moves \
             from machine to machine add freebind: true"
        }
        Some(libc::EACCES) => match at {
            Address::Unix(_) => return format!("; {}", of_denial("its directory")),
            Address::Tcp(at) if at.port() >= PRIVILEGED => "",
            Address::Tcp(_) if sandbox::gave_up_ports() => {
                "; restart the balancer: with --no-helper only a start can listen on ports below \
                 1024"
            }
            Address::Tcp(_) => "; ports below 1024 need CAP_NET_BIND_SERVICE",
        },
        Some(libc::ENOENT) => "; create the directory first",
        _ => "",
    };
    remedy.to_owned()
}

/// Connections to backends can't begin at the addresses of clients.
pub(super) fn of_transparency(error: &io::Error) -> &'static str {
    if error.raw_os_error() != Some(libc::EPERM) {
        return "";
    }
    if sandbox::gave_up_transparency() {
        return "; restart the balancer: it gave up the right to do so at its start, when no pool \
                needed it";
    }
    "; that needs CAP_NET_RAW or CAP_NET_ADMIN: start it as root, or give it one of them \
     (AmbientCapabilities of systemd)"
}

/// A log, a socket or the like can't be opened.
pub(super) fn of_file(error: &io::Error) -> String {
    let kind = error.kind();
    if kind == io::ErrorKind::PermissionDenied {
        return format!("; {}", of_denial("it and its directory"));
    }
    let is_missing = kind == io::ErrorKind::NotFound;
    let remedy = if is_missing {
        "; create the directory first"
    } else {
        ""
    };
    remedy.to_owned()
}

/// The balancer's user may not write something.
pub(super) fn of_denial(what: &str) -> String {
    match sandbox::user() {
        _ if sys::user_id() == 0 => format!("{AS_ROOT}: `chown root` {what}, {OTHER}"),
        user if user.is_empty() => format!("allow this user to write to {what}"),
        user => format!("allow user `{user}` to write to {what}"),
    }
}

/// The balancer's user may not read a file.
pub(super) fn of_unreadable() -> String {
    if sys::user_id() == 0 {
        return format!("{AS_ROOT}: `chown root` it, {OTHER}");
    }
    format!("allow that by chown or chmod, {OTHER}")
}

const AS_ROOT: &str = "the balancer stays root, but without the right to open all files \
                       (CAP_DAC_OVERRIDE)";
const OTHER: &str = "or name another user by `user`";

/// The first port that any user may listen on, unless the machine says otherwise (ip(7),
/// `ip_unprivileged_port_start`).
const PRIVILEGED: u16 = 1_024;
