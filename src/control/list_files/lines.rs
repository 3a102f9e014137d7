//! Reads a list file line by line.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use thiserror::Error;

use crate::control::file_watch::{FileVersion, Version};
use crate::sys;

use super::ListFile;

/// Why a file has no list.
#[derive(Debug, Error)]
pub(super) enum ReadError {
    /// It is to be read again later.
    #[error("it changed while it was read: try again")]
    Changed,
    /// It may become readable without a change.
    #[error(transparent)]
    Unread(#[from] io::Error),
    /// What is wrong with its text.
    #[error("{0}")]
    Mistake(String),
}

/// Reads a file of which this was seen, whole. May take long.
///
/// # Errors
/// [`ReadError`]
pub(super) fn read<F: ListFile>(
    path: &Path,
    seen: Option<FileVersion>,
) -> Result<(Version, F::List), ReadError> {
    let file = sys::open_regular(path)?;
    let version = Version::of(&file.metadata()?);
    if seen.is_some_and(|seen| seen != Ok(version)) {
        return Err(ReadError::Changed);
    }
    let list = parse::<F>(&file, version.size());
    // What looks like a mistake may be half of a change.
    if version_of(&file)? != version {
        return Err(ReadError::Changed);
    }
    Ok((version, list?))
}

fn version_of(file: &File) -> io::Result<Version> {
    Ok(Version::of(&file.metadata()?))
}

/// Reads all lines of a file of this size, or reports the first mistake.
pub(super) fn parse<F: ListFile>(file: impl Read, size: u64) -> Result<F::List, ReadError> {
    let mut lines = Lines {
        from: BufReader::with_capacity(1 << 16, file.take(F::BYTES_MAX + 1)),
        line: Vec::new(),
        number: 0,
        bytes: 0,
    };
    let mut list = F::default();
    while let Some(outcome) = lines.next::<F>()? {
        let taken = outcome.and_then(|(line, comment)| match line.is_empty() {
            true => Ok(()),
            false => list.take(line, comment),
        });
        if let Err(error) = taken {
            lines.check_end::<F>(size)?;
            return Err(mistake(format!("line {}: {error}", lines.number)));
        }
        if lines.bytes > F::BYTES_MAX {
            let mib = F::BYTES_MAX >> 20;
            return Err(mistake(format!("it is larger than {mib} MiB")));
        }
    }
    lines.check_end::<F>(size)?;
    list.finish().map_err(mistake)
}

fn mistake(what: String) -> ReadError {
    ReadError::Mistake(what)
}

struct Lines<R> {
    from: BufReader<R>,
    /// The last line, with its end.
    line: Vec<u8>,
    number: u64,
    /// Bytes that were read in all.
    bytes: u64,
}

/// A line without its comment and spaces, and the comment; or what is wrong with it.
type Line<'a> = Result<(&'a str, &'a [u8]), String>;

impl<R: Read> Lines<R> {
    /// The next line; `None` at the end.
    fn next<F: ListFile>(&mut self) -> io::Result<Option<Line<'_>>> {
        self.line.clear();
        let most = F::LINE_MAX;
        let read = (&mut self.from)
            .take(most)
            .read_until(b'\n', &mut self.line);
        self.bytes += read? as u64;
        if self.line.is_empty() {
            return Ok(None);
        }
        self.number += 1;
        let is_whole = self.line.ends_with(b"\n") || (self.line.len() as u64) < most;
        let comment = self.line.iter().position(|byte| F::COMMENTS.contains(byte));
        if !is_whole {
            if comment.is_none() {
                return Ok(Some(Err(format!("it is longer than {most} bytes"))));
            }
            self.bytes += self.from.skip_until(b'\n')? as u64;
        }
        let (line, comment) = self.line.split_at(comment.unwrap_or(self.line.len()));
        let Ok(line) = std::str::from_utf8(line) else {
            return Ok(Some(Err("it is not UTF-8".to_owned())));
        };
        // Some editors mark UTF-8 so.
        let line = line.trim_start_matches('\u{feff}').trim();
        Ok(Some(Ok((line, comment))))
    }

    /// Refuses a file that ends before its size: a file server may have truncated it.
    fn check_end<F: ListFile>(&mut self, size: u64) -> io::Result<()> {
        if self.bytes < size.min(F::BYTES_MAX) && self.from.fill_buf()?.is_empty() {
            let why = format!("it ends after {} of {size} bytes", self.bytes);
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, why));
        }
        Ok(())
    }
}
