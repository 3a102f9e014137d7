//! What an operator can do about an error at a start, as the end of a sentence.

use std::io;

/// A listener can't listen on its address.
pub(super) fn of_bind(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EADDRINUSE) => "; stop the process that listens there (`ss -ltnp` shows it)",
        Some(libc::EADDRNOTAVAIL) => {
            "; expected an address of this machine (`ip address` shows them)"
        }
        Some(libc::EACCES) => {
            "; ports below 1024 need CAP_NET_BIND_SERVICE, and a Unix socket needs a directory \
             that this user may write to"
        }
        Some(libc::ENOENT) => "; create the directory first",
        _ => "",
    }
}

/// A log can't be opened.
pub(super) fn of_file(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::ENOENT) => "; create the directory first",
        Some(libc::EACCES) => "; allow the balancer's user to write to it and its directory",
        _ => "",
    }
}
