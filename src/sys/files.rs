//! Files at paths that an operator chose: there may be a FIFO, at which open(2) would block.

use std::ffi::CString;
use std::fs::{self, File, FileType, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use super::unix::can_lock;

/// Opens a file to append to, and creates it with this mode if there is none. Refuses a FIFO
/// without a reader, instead of waiting for one.
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
    // The thread that writes may block, or its ring waits for it.
    if !file.metadata()?.file_type().is_file() {
        make_blocking(&file)?;
    }
    Ok(file)
}

/// Opens a regular file to read from. Refuses others: to read from a FIFO or a terminal may block.
///
/// # Errors
/// What open(2) says; `InvalidInput`: it is not a regular file.
pub fn open_regular(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    let options = options.read(true);
    let file = options.custom_flags(libc::O_NONBLOCK).open(path)?;
    refuse_irregular(file.metadata()?.file_type())?;
    Ok(file)
}

/// Whether anybody on this machine may read or change a file, by its mode.
///
/// # Errors
/// What stat(2) says.
pub fn is_open_to_others(path: &Path) -> io::Result<bool> {
    Ok(fs::metadata(path)?.permissions().mode() & 0o007 != 0)
}

/// Opens a regular file to read it and to write over it, and makes it if there is none. Refuses
/// others.
///
/// # Errors
/// What open(2) says; `InvalidInput`: it is not a regular file.
pub fn open_to_rewrite(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    let options = options.read(true).write(true).create(true).truncate(false);
    let opened = options.custom_flags(libc::O_NONBLOCK).open(path);
    let file = opened.map_err(|error| match error.raw_os_error() {
        Some(libc::ENXIO) => io::Error::new(
            io::ErrorKind::InvalidInput,
            "this is a FIFO or a socket: expected a regular file",
        ),
        _ => error,
    })?;
    refuse_irregular(file.metadata()?.file_type())?;
    Ok(file)
}

/// Whether [`open_to_rewrite`] would open a file, without a change to it.
///
/// # Errors
/// What that would say.
pub fn can_rewrite(path: &Path) -> io::Result<()> {
    if let Ok(found) = fs::metadata(path) {
        refuse_irregular(found.file_type())?;
    }
    can_append_to(path)
}

fn refuse_irregular(found: FileType) -> io::Result<()> {
    if found.is_file() {
        return Ok(());
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

/// Opens a regular file that no other user may read, and creates it if there is none. Takes the
/// rights of others away, and follows no symbolic link.
///
/// # Errors
/// What open(2) and fchmod(2) say; `InvalidInput`: it is a link, or not a regular file.
pub fn open_private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    let options = options
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600);
    let opened = options
        .custom_flags(libc::O_NONBLOCK | libc::O_NOFOLLOW)
        .open(path);
    let refused = |what| io::Error::new(io::ErrorKind::InvalidInput, what);
    let file = opened.map_err(|error| match error.raw_os_error() {
        Some(libc::ELOOP) => refused("this is a symbolic link: name the file that it leads to"),
        _ => error,
    })?;
    let found = file.metadata()?;
    if !found.file_type().is_file() {
        return Err(refused("expected a regular file"));
    }
    if found.permissions().mode() & 0o077 != 0 {
        file.set_permissions(fs::Permissions::from_mode(0o600))?;
    }
    Ok(file)
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

/// Whether a file can be opened to append, or made where there is none.
///
/// # Errors
/// What opening it would say.
pub fn can_append_to(path: &Path) -> io::Result<()> {
    match fs::metadata(path) {
        // To open and close it would look to its reader like the end of the log.
        Ok(found) if found.file_type().is_fifo() => Ok(()),
        Ok(_) => {
            let mut options = OpenOptions::new();
            options.append(true).custom_flags(libc::O_NONBLOCK);
            options.open(path).map(drop)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // Opening through a link creates its target. A circle of links is another error.
            match fs::read_link(path) {
                Ok(target) => {
                    let directory = path.parent().unwrap_or_else(|| Path::new(""));
                    can_append_to(&directory.join(target))
                }
                Err(_) => can_make_in(path.parent()),
            }
        }
        Err(error) => Err(error),
    }
}

/// Whether a file can be read, if there is one, and another one can take its place.
///
/// # Errors
/// What reading it, or making a file in its directory, would say.
pub fn can_replace(path: &Path) -> io::Result<()> {
    match open_regular(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(_) | Err(_) => can_make_in(path.parent()),
    }
}

/// Whether a Unix socket can be made at a path. There may be one already, left behind or in use.
///
/// # Errors
/// What listening there would say.
pub fn can_listen_at(path: &Path) -> io::Result<()> {
    can_lock(path)?;
    match fs::symlink_metadata(path) {
        // A service manager may pass it to this process, even where this user could not make it.
        Ok(found) if found.file_type().is_socket() => Ok(()),
        Ok(_) => {
            let sentence = "address in use: another file is there";
            Err(io::Error::new(io::ErrorKind::AddrInUse, sentence))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => can_make_in(path.parent()),
        Err(error) => Err(error),
    }
}

/// Whether a file can be made at a path, if there is none.
///
/// # Errors
/// What making it would say.
pub fn can_make(path: &Path) -> io::Result<()> {
    can_make_in(path.parent())
}

/// Whether files can be made in a directory (access(2), by the effective user).
fn can_make_in(directory: Option<&Path>) -> io::Result<()> {
    // The parent of a bare file name.
    let directory = directory.filter(|path| !path.as_os_str().is_empty());
    let directory = directory.unwrap_or_else(|| Path::new("."));
    if !fs::metadata(directory)?.is_dir() {
        return Err(io::Error::from_raw_os_error(libc::ENOTDIR));
    }
    let path = CString::new(directory.as_os_str().as_bytes())?;
    let access = libc::W_OK | libc::X_OK;
    // SAFETY: `path` is read during the call only.
    let answer =
        unsafe { libc::faccessat(libc::AT_FDCWD, path.as_ptr(), access, libc::AT_EACCESS) };
    match answer {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
