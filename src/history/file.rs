//! A store in a file: opening it, and setting it aside when it is damaged.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, OpenFlags};

use super::store::{APPLICATION, Keep, Store, StoreError, VERSION};
use crate::sys;

/// A store whose file was opened.
#[derive(Debug)]
pub struct Opened {
    /// The store.
    pub store: Store,
    /// Where a damaged file is now, and what is wrong with it.
    pub set_aside: Option<(PathBuf, String)>,
}

/// Opens a store to write to, and makes it if there is none: a file of this user's alone, not
/// through a symbolic link. Until the store is dropped no other process can read it. A damaged file
/// is renamed, and begun again.
///
/// # Errors
/// [`StoreError`]: the file stays as it is.
pub fn open(path: &Path, keep: Keep) -> Result<Opened, StoreError> {
    let path = &real(path)?;
    let set_aside = match open_whole(path, keep) {
        Err(StoreError::Corrupt(why)) => Some((set_aside(path)?, why)),
        Ok(store) => {
            return Ok(Opened {
                store,
                set_aside: None,
            });
        }
        Err(error) => return Err(error),
    };
    let store = open_whole(path, keep)?;
    Ok(Opened { store, set_aside })
}

/// Renames a damaged file, with what belongs to it. One that was set aside before is removed: there
/// is one at a time.
///
/// # Errors
/// What the kernel says.
pub fn set_aside(path: &Path) -> io::Result<PathBuf> {
    let path = &real(path)?;
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let marked = beside(path, ".corrupt-");
    for other in there(&marked)? {
        fs::remove_file(other)?;
    }
    let aside = beside(&marked, &now.as_secs().to_string());
    fs::rename(path, &aside)?;
    let log = beside(path, WAL);
    match fs::rename(&log, beside(&aside, WAL)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(aside),
    }
}

/// Files that begin with this path.
fn there(begin: &Path) -> io::Result<Vec<PathBuf>> {
    let directory = begin.parent().unwrap_or_else(|| Path::new("/"));
    let name = begin.file_name().unwrap_or_default().as_encoded_bytes();
    let mut found = Vec::new();
    for file in fs::read_dir(directory)? {
        let file = file?;
        if file.file_name().as_encoded_bytes().starts_with(name) {
            found.push(file.path());
        }
    }
    Ok(found)
}

/// Opens a store that this process has open to write to, to read from it.
///
/// # Errors
/// [`StoreError`]
pub fn open_beside(path: &Path) -> Result<Store, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | COMMON;
    let connection = Connection::open_with_flags_and_vfs(real(path)?, flags, EXCLUSIVE)?;
    connection.busy_timeout(Duration::ZERO)?;
    connection.execute_batch("PRAGMA query_only = ON; PRAGMA cache_size = -4096;")?;
    Store::on(connection, KEEP_ALL)
}

/// Opens a store that no process writes to, to read from it.
///
/// # Errors
/// [`StoreError`]
pub fn open_to_read(path: &Path) -> Result<Store, StoreError> {
    let path = real(path)?;
    drop(sys::open_regular(&path)?);
    if !may_be_ours(&path)? {
        return Err(StoreError::Foreign);
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | COMMON;
    let mut uri = OsString::from("file:");
    uri.push(escaped(&path));
    // Without a log nothing need be made beside the file: its directory may not be writable.
    if fs::metadata(beside(&path, WAL)).map_or(0, |log| log.len()) == 0 {
        uri.push("?immutable=1");
    }
    let connection = Connection::open_with_flags(Path::new(&uri), flags)?;
    connection.busy_timeout(Duration::ZERO)?;
    if check(&connection)? {
        return Err(StoreError::Foreign);
    }
    Store::on(connection, KEEP_ALL)
}

/// A path as a part of an URI.
fn escaped(path: &Path) -> OsString {
    let text = path.to_string_lossy();
    let escaped = text.chars().map(|c| match c {
        '%' => "%25".to_owned(),
        '?' => "%3f".to_owned(),
        '#' => "%23".to_owned(),
        other => other.to_string(),
    });
    escaped.collect::<String>().into()
}

/// The path without links in its directory: of a link, SQLite opens nothing.
fn real(path: &Path) -> io::Result<PathBuf> {
    let directory = path.parent().filter(|its| !its.as_os_str().is_empty());
    let directory = fs::canonicalize(directory.unwrap_or_else(|| Path::new(".")))?;
    let name = path.file_name();
    let name = name.ok_or_else(|| io::Error::from(io::ErrorKind::IsADirectory))?;
    Ok(directory.join(name))
}

fn open_whole(path: &Path, keep: Keep) -> Result<Store, StoreError> {
    // Before SQLite opens it: to close a file gives up the locks that this process has on it.
    if !may_be_ours(path)? {
        return Err(StoreError::Foreign);
    }
    drop(sys::open_private(path)?);
    let log = beside(path, WAL);
    if fs::symlink_metadata(&log).is_ok() {
        drop(sys::open_private(&log)?);
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | COMMON;
    let connection = Connection::open_with_flags_and_vfs(path, flags, EXCLUSIVE)?;
    connection.busy_timeout(Duration::ZERO)?;
    let is_new = check(&connection)?;
    let ask = |sql: &str| connection.execute_batch(sql);
    if is_new {
        ask("PRAGMA auto_vacuum = INCREMENTAL;")?;
    }
    // A batch is in the log once it was written, and survives this process. The disk is waited for
    // when the log is copied into the file, at most each few MiB.
    ask(&format!(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA cache_size = -2048;
         PRAGMA journal_size_limit = {LOG_BYTES}; PRAGMA temp_store = MEMORY;
         PRAGMA mmap_size = 0; PRAGMA cell_size_check = ON; PRAGMA trusted_schema = OFF;"
    ))?;
    if is_new {
        Store::make(&connection)?;
    }
    // The log takes its part.
    let bytes = keep.bytes.saturating_sub(2 * LOG_BYTES).max(keep.bytes / 2);
    Store::on(connection, Keep { bytes, ..keep })
}

/// Whether a file is a history, be it damaged: it has the beginning of a database, or our mark
/// (<https://www.sqlite.org/fileformat.html>, section 1.3). All others are left as they are, such
/// as a file that was named by mistake. One that is not there, or empty, may become one.
///
/// # Errors
/// What the kernel says.
pub fn may_be_ours(path: &Path) -> io::Result<bool> {
    let file = match sys::open_regular(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        outcome => outcome?,
    };
    let mut head = Vec::new();
    file.take(HEAD).read_to_end(&mut head)?;
    let mark = APPLICATION.to_be_bytes();
    Ok(head.is_empty() || head.starts_with(MAGIC) || head.get(68..72) == Some(&mark))
}

/// Whether a database has nothing yet.
///
/// # Errors
/// It has something that is no history.
fn check(connection: &Connection) -> Result<bool, StoreError> {
    let number = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i32>(0));
    let count = "SELECT count(*) FROM sqlite_schema";
    let tables: i64 = connection.query_row(count, [], |row| row.get(0))?;
    match (number("application_id")?, number("user_version")?) {
        (APPLICATION, VERSION) => Ok(false),
        (APPLICATION, _) => Err(StoreError::Later),
        _ if tables == 0 => Ok(true),
        _ => Err(StoreError::Foreign),
    }
}

/// The path with something behind its name.
fn beside(path: &Path, behind: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(behind);
    name.into()
}

/// What a database begins with.
const MAGIC: &[u8] = b"SQLite format 3\0";
/// Bytes of the head of a database.
const HEAD: u64 = 100;
const COMMON: OpenFlags = OpenFlags::SQLITE_OPEN_NO_MUTEX.union(OpenFlags::SQLITE_OPEN_NOFOLLOW);
/// The system interface of SQLite that locks a file for as long as it is open, and so needs no
/// shared memory: a file that is mapped could end this process where its disk is full.
const EXCLUSIVE: &std::ffi::CStr = c"unix-excl";
/// What SQLite puts behind the name of its log.
const WAL: &str = "-wal";
/// Bytes of the log that are kept.
const LOG_BYTES: u64 = 4 << 20;
/// Of a store that is only read.
const KEEP_ALL: Keep = Keep {
    seconds: u64::MAX,
    minutes: u64::MAX,
    hours: u64::MAX,
    bytes: u64::MAX,
};
