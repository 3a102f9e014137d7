//! A store in a file: opening it, and setting it aside when it is damaged.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, OpenFlags};

use super::store::{APPLICATION, Keep, PAGE, Store, StoreError, VERSION};
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
/// is one at a time. Where a name is taken by what is no such file, the next one is used.
///
/// # Errors
/// What the kernel says, with the name of the file.
pub fn set_aside(path: &Path) -> io::Result<PathBuf> {
    let path = &real(path)?;
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let marked = beside(path, MARK);
    for other in set_aside_before(&marked)? {
        fs::remove_file(&other).map_err(|error| about("remove", &other, &error))?;
    }
    let names = (now.as_secs()..).map(|seconds| beside(&marked, &seconds.to_string()));
    let is_free = |aside: &PathBuf| {
        let both = [aside.clone(), beside(aside, WAL)];
        both.iter().all(|its| fs::symlink_metadata(its).is_err())
    };
    let aside = names.take(NAMES_MAX).find(is_free);
    let aside = aside.ok_or_else(|| io::Error::from(io::ErrorKind::AlreadyExists));
    let aside = aside.map_err(|error| about("rename a damaged file to", &marked, &error))?;
    fs::rename(path, &aside).map_err(|error| about("rename it to", &aside, &error))?;
    let log = beside(path, WAL);
    match fs::rename(&log, beside(&aside, WAL)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(about("rename", &log, &error)),
        _ => Ok(aside),
    }
}

/// Files that were set aside before: this name with a number, and their logs. Others may be an
/// operator's own.
fn set_aside_before(marked: &Path) -> io::Result<Vec<PathBuf>> {
    let directory = marked.parent().unwrap_or_else(|| Path::new("/"));
    let begin = marked.file_name().unwrap_or_default().as_encoded_bytes();
    let mut found = Vec::new();
    for file in fs::read_dir(directory)? {
        let file = file?;
        let name = file.file_name();
        let Some(number) = name.as_encoded_bytes().strip_prefix(begin) else {
            continue;
        };
        let number = number.strip_suffix(WAL.as_bytes()).unwrap_or(number);
        let is_ours = !number.is_empty() && number.iter().all(u8::is_ascii_digit);
        if is_ours && file.file_type()?.is_file() {
            found.push(file.path());
        }
    }
    Ok(found)
}

/// What can't be done with a file, for an operator who may think of another one.
fn about(what: &str, path: &Path, error: &io::Error) -> io::Error {
    let path = path.display();
    io::Error::new(error.kind(), format!("cannot {what} {path}: {error}"))
}

/// How a file and its log are: what the next batch must find as the last one left it, as no other
/// process can have them open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Left {
    file: Option<LeftFile>,
    log: Option<LeftFile>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct LeftFile {
    device: u64,
    number: u64,
    bytes: u64,
}

/// What happened to a file, or its log, that another program has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meddling {
    /// The file was removed, or another one has its name.
    Removed,
    /// It has another length.
    Cut,
    /// The log was removed: all that it had is still open.
    LogRemoved,
    /// The log is shorter, or another one.
    LogCut,
}

impl Left {
    /// How a file and its log are now.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn of(path: &Path) -> io::Result<Self> {
        let path = &real(path)?;
        Ok(Self {
            file: LeftFile::at(path)?,
            log: LeftFile::at(&beside(path, WAL))?,
        })
    }

    /// What has happened to them, if they were like this before.
    #[must_use]
    pub fn meddling_since(&self, before: &Self) -> Option<Meddling> {
        let is_same = |now: &LeftFile, before: &LeftFile| {
            (now.device, now.number) == (before.device, before.number)
        };
        let was = before.file?;
        match self.file {
            Some(now) if !is_same(&now, &was) => return Some(Meddling::Removed),
            Some(now) if now.bytes != was.bytes => return Some(Meddling::Cut),
            Some(_) => {}
            None => return Some(Meddling::Removed),
        }
        let was = before.log?;
        match self.log {
            None => Some(Meddling::LogRemoved),
            Some(now) if !is_same(&now, &was) || now.bytes < was.bytes => Some(Meddling::LogCut),
            Some(_) => None,
        }
    }

    /// Bytes of the log.
    #[must_use]
    pub fn log_bytes(&self) -> u64 {
        self.log.map_or(0, |log| log.bytes)
    }

    /// Whether the log is still the same one.
    fn has_log_of(&self, before: &Self) -> bool {
        let number = |its: &Self| its.log.map(|log| (log.device, log.number));
        self.log.is_some() && number(self) == number(before)
    }
}

impl LeftFile {
    fn at(path: &Path) -> io::Result<Option<Self>> {
        match fs::symlink_metadata(path) {
            Ok(there) => Ok(Some(Self {
                device: there.dev(),
                number: there.ino(),
                bytes: there.len(),
            })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Removes the log of a store that was given up: it fits no other file. `left` is how it was.
///
/// # Errors
/// What the kernel says.
pub fn remove_log(path: &Path, left: &Left) -> io::Result<()> {
    if Left::of(path)?.has_log_of(left) {
        let log = beside(&real(path)?, WAL);
        fs::remove_file(&log).map_err(|error| about("remove", &log, &error))?;
    }
    Ok(())
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
    let log = log_bytes(keep.bytes);
    let pages = log / PAGE;
    ask(&format!(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA cache_size = -2048;
         PRAGMA journal_size_limit = {log}; PRAGMA wal_autocheckpoint = {pages};
         PRAGMA temp_store = MEMORY;
         PRAGMA mmap_size = 0; PRAGMA cell_size_check = ON; PRAGMA trusted_schema = OFF;"
    ))?;
    if is_new {
        Store::make(&connection)?;
    }
    // The log takes its part: what it has when it is copied, and a batch beyond.
    let bytes = keep.bytes.saturating_sub(2 * log);
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

/// Bytes of the log that are kept, of a history that has so many in all. One batch at most comes
/// beyond, and has no more.
#[must_use]
pub fn log_bytes(all: u64) -> u64 {
    (all / 4).min(4 << 20)
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
/// What a damaged file has behind its name, before the time.
const MARK: &str = ".corrupt-";
/// Names that are tried for it.
const NAMES_MAX: usize = 100;
/// Of a store that is only read.
const KEEP_ALL: Keep = Keep {
    seconds: u64::MAX,
    minutes: u64::MAX,
    hours: u64::MAX,
    bytes: u64::MAX,
};
