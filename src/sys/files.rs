//! Files by paths that an operator chose: what stands there may be a FIFO, which open(2) waits at.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

/// Opens a file to append to, which is made with this mode where there is none. A FIFO that no
/// process reads is refused at once instead of waited at.
///
/// # Errors
/// What open(2) says.
pub fn open_to_append(path: &Path, mode: u32) -> io::Result<File> {
    let mut options = OpenOptions::new();
    let options = options.create(true).append(true).mode(mode);
    let file = options
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
        .map_err(|error| {
            if error.raw_os_error() == Some(libc::ENXIO) {
                let why = "no process reads this FIFO: start its reader first";
                io::Error::new(io::ErrorKind::NotConnected, why)
            } else {
                error
            }
        })?;
    // Whoever writes is ready to wait, or has a ring that is.
    if !file.metadata()?.file_type().is_file() {
        make_blocking(&file)?;
    }
    Ok(file)
}

/// Opens a file to read from, and nothing but a file: a FIFO or a terminal is waited at when it
/// is read.
///
/// # Errors
/// What open(2) says; `InvalidInput`: it is no regular file.
pub fn open_regular(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    let options = options.read(true);
    let file = options.custom_flags(libc::O_NONBLOCK).open(path)?;
    let found = file.metadata()?.file_type();
    if found.is_file() {
        return Ok(file);
    }
    let what = if found.is_fifo() {
        "this is a FIFO: expected a regular file"
    } else if found.is_dir() {
        return Err(io::Error::from_raw_os_error(libc::EISDIR));
    } else {
        "expected a regular file"
    };
    Err(io::Error::new(io::ErrorKind::InvalidInput, what))
}

fn make_blocking(file: &File) -> io::Result<()> {
    // SAFETY: no memory is handed over.
    let flags = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETFL) };
    // SAFETY: no memory is handed over; the description was opened just now and is not shared.
    let set = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFL, flags & !libc::O_NONBLOCK) };
    if flags < 0 || set < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
