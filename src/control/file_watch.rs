//! Watches a file by looks, which also notice renames and links that point elsewhere; the file
//! itself has no events for those.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// A watched file, and what was seen of it.
#[derive(Clone, Debug)]
pub(super) struct FileWatch {
    path: PathBuf,
    /// At the last look.
    seen: Option<FileVersion>,
    /// When it was last read.
    read: Option<FileVersion>,
}

/// What tells one version of a file from another, or why it can't be looked at.
pub(super) type FileVersion = Result<Version, io::ErrorKind>;

/// A version of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Version {
    device: u64,
    inode: u64,
    size: u64,
    /// Seconds and nanoseconds.
    modified: (i64, i64),
}

impl FileWatch {
    /// A file that was not read yet.
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path,
            seen: None,
            read: None,
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// A version that was not read yet, once it is the same at two looks. Asks the file system,
    /// which may block.
    pub(super) fn look(&mut self) -> Option<FileVersion> {
        self.consider(Look::at(&self.path))
    }

    /// The same after a look on another thread.
    pub(super) fn consider(&mut self, look: Look) -> Option<FileVersion> {
        let version = look.version;
        let before = self.seen.replace(version);
        // At the first look a file that was not written just now needs no second look.
        let has_settled = before.map_or(look.is_old, |before| before == version);
        (has_settled && self.read != Some(version)).then_some(version)
    }

    /// Notes what was seen just before the file was read.
    pub(super) fn mark_read(&mut self, version: FileVersion) {
        (self.seen, self.read) = (Some(version), Some(version));
    }

    /// It could not be read: the next look gives it again.
    pub(super) fn set_unread(&mut self) {
        self.read = None;
    }

    /// Notes that this version was read.
    pub(super) fn set_read(&mut self, version: FileVersion) {
        self.read = Some(version);
    }
}

/// A look at a file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    pub(super) version: FileVersion,
    /// It was last written more than a second ago.
    is_old: bool,
}

impl Look {
    /// Asks the file system, which may block.
    pub(super) fn at(path: &Path) -> Self {
        let found = fs::metadata(path);
        Self {
            version: version(&found),
            is_old: found.as_ref().is_ok_and(is_old),
        }
    }
}

impl Version {
    pub(super) fn of(found: &Metadata) -> Self {
        Self {
            device: found.dev(),
            inode: found.ino(),
            size: found.size(),
            modified: (found.mtime(), found.mtime_nsec()),
        }
    }

    /// In bytes.
    pub(super) fn size(&self) -> u64 {
        self.size
    }
}

fn version(found: &io::Result<Metadata>) -> FileVersion {
    found.as_ref().map(Version::of).map_err(io::Error::kind)
}

/// Whether it was last written more than a second ago.
fn is_old(found: &Metadata) -> bool {
    let age = found.modified().ok();
    let age = age.and_then(|at| SystemTime::now().duration_since(at).ok());
    age.is_some_and(|age| age.as_secs() >= 1)
}
