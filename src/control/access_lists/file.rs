//! The files of access lists: one prefix on each line. They are read on other threads.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::config::{Config, values};
use crate::control::file_watch::{FileWatch, Look, Version};
use crate::control::{StartError, aside};
use crate::guard::{self, Access, Prefixes};
use crate::prefix::Prefix;
use crate::sys;

use super::News;

/// A file that was read, and what was seen of it before.
pub(in crate::control) struct FileRead {
    pub(super) path: PathBuf,
    pub(super) version: Version,
    pub(super) table: Arc<Prefixes>,
}

/// Files that are followed: the version that is in force of each, and how many prefixes it has.
pub(in crate::control) type Known = BTreeMap<PathBuf, (Version, usize)>;

/// Reads the files of a configuration that are not known, or have changed. May take long.
///
/// # Errors
/// [`StartError::AccessList`]
pub(in crate::control) fn read_files(
    config: &Config,
    known: &Known,
) -> Result<Vec<FileRead>, StartError> {
    let files = config
        .access_lists
        .iter()
        .filter_map(|list| list.file.as_ref());
    let files: BTreeSet<_> = files.collect();
    let changed = files.into_iter().filter(|path| {
        let known = known.get(*path);
        known.is_none_or(|(version, _)| Look::at(path).version != Ok(*version))
    });
    let read = changed.map(|path| {
        let before = known.get(path).map_or(0, |(_, count)| *count);
        let read = read(path).and_then(|(version, table)| Ok((version, kept(table?, before)?)));
        let shown = |error| StartError::AccessList(about(path, &error));
        let (version, table) = read.map_err(shown)?;
        Ok(FileRead {
            path: path.clone(),
            version,
            table: Arc::new(table),
        })
    });
    read.collect()
}

/// The prefixes of a file that had so many before. One that suddenly has none was most likely
/// truncated.
pub(super) fn kept(table: Prefixes, before: usize) -> io::Result<Prefixes> {
    if table.is_empty() && before > 0 {
        return Err(mistake(format!(
            "expected at least one prefix, as it had {before}: if that is meant, take `file` out \
             of the list"
        )));
    }
    Ok(table)
}

/// Looks at a file each second, and sends what it has when it has changed.
pub(super) async fn follow_file(mut watch: FileWatch, number: u64, sender: mpsc::Sender<News>) {
    let path = watch.path().to_owned();
    // A file that stays away is reported once.
    let mut reported = None;
    loop {
        tokio::time::sleep(LOOK).await;
        let look = aside::look(&path, move || {
            let outcome = look(&mut watch);
            (watch, outcome)
        });
        let outcome = match look.await {
            Ok((back, outcome)) => {
                watch = back;
                outcome
            }
            Err(error) => {
                watch = FileWatch::new(path.clone());
                Some(Err(error))
            }
        };
        let Some(outcome) = outcome else { continue };
        let outcome = outcome.map_err(|error| about(&path, &error));
        let error = outcome.as_ref().err().cloned();
        if error.is_some() && error == reported {
            continue;
        }
        reported = error;
        let path = path.clone();
        let news = News {
            path,
            number,
            outcome,
        };
        // Without a receiver the balancer is ending, and this task with it.
        let _ = sender.send(news).await;
    }
}

/// The prefixes of a file, or what is wrong with it, if it has changed since it was last read.
fn look(watch: &mut FileWatch) -> Option<io::Result<(Version, Prefixes)>> {
    let seen = watch.look()?;
    match read(watch.path()) {
        // It has changed since the look: the next look reads it.
        Ok((version, _)) if seen != Ok(version) => None,
        Ok((version, table)) => {
            watch.set_read(seen);
            Some(table.map(|table| (version, table)))
        }
        // It may become readable without a change.
        Err(error) => {
            watch.set_unread();
            Some(Err(error))
        }
    }
}

/// Reads a file, with the version that was read; the inner error is a mistake in it.
fn read(path: &Path) -> io::Result<(Version, io::Result<Prefixes>)> {
    let file = sys::open_regular(path)?;
    let version = Version::of(&file.metadata()?);
    match parse(file) {
        Err(error) if error.kind() != io::ErrorKind::InvalidData => Err(error),
        outcome => Ok((version, outcome)),
    }
}

fn about(path: &Path, error: &io::Error) -> String {
    format!("{}: {error}", path.display())
}

/// What is wrong with the text of a file.
fn mistake(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}

/// Reads all lines, or reports the first mistake.
fn parse(file: impl Read) -> io::Result<Prefixes> {
    let mut lines = BufReader::with_capacity(1 << 16, file.take(BYTES_MAX + 1));
    let mut all = Vec::new();
    let (mut line, mut bytes) = (Vec::new(), 0);
    for number in 1u64.. {
        line.clear();
        let read = (&mut lines).take(LINE_MAX).read_until(b'\n', &mut line);
        bytes += read? as u64;
        if line.is_empty() {
            break;
        }
        let is_whole = line.ends_with(b"\n") || (line.len() as u64) < LINE_MAX;
        let comment = line.iter().position(|byte| matches!(byte, b'#' | b';'));
        match comment {
            None if !is_whole => {
                let long = format!("line {number}: it is longer than {LINE_MAX} bytes");
                return Err(mistake(long));
            }
            Some(_) if !is_whole => {
                let rest = lines.skip_until(b'\n');
                bytes += rest? as u64;
            }
            _ => {}
        }
        if bytes > BYTES_MAX {
            return Err(mistake("it is larger than 64 MiB"));
        }
        line.truncate(comment.unwrap_or(line.len()));
        let text = std::str::from_utf8(&line);
        let text = text.map_err(|_| mistake(format!("line {number}: it is not UTF-8")))?;
        let entry = entry(text).map_err(|error| mistake(format!("line {number}: {error}")))?;
        all.extend(entry);
        if all.len() > PREFIXES_MAX {
            let many = format!("line {number}: expected at most {PREFIXES_MAX} prefixes");
            return Err(mistake(many));
        }
    }
    let clash = |guard::Clash(prefix)| mistake(format!("{prefix} is allowed and denied"));
    Prefixes::new(all).map_err(clash)
}

/// The prefix of a line without its comment, if it has one.
fn entry(line: &str) -> Result<Option<(Prefix, Access)>, String> {
    // Some editors mark UTF-8 so.
    let line = line.trim_start_matches('\u{feff}');
    let text = line.trim();
    if text.is_empty() {
        return Ok(None);
    }
    let (access, prefix) = match text.split_once(char::is_whitespace) {
        Some(("allow", prefix)) => (Access::Allow, prefix.trim_start()),
        Some(("deny", prefix)) => (Access::Deny, prefix.trim_start()),
        _ => (Access::Deny, text),
    };
    let prefix_of = values::prefix(prefix).map_err(|error| error.about("prefix", prefix));
    Ok(Some((prefix_of?, access)))
}

/// From one look at a file to the next.
const LOOK: Duration = Duration::from_secs(1);
/// Prefixes of a file.
const PREFIXES_MAX: usize = 1_000_000;
/// Bytes of a line before its comment: a file that has no lines is not a list.
const LINE_MAX: u64 = 256;
/// Room for a million long lines.
const BYTES_MAX: u64 = 64 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        parse(text.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn lines_comments_and_blanks() {
        let text = "\u{feff}# from a feed\n\n192.0.2.0/24 ; SBL1\r\nallow  192.0.2.7 # ours\n\
                    deny 2001:db8::/32\n192.0.2.0/24\n";
        let table = parse(text.as_bytes()).unwrap();
        assert_eq!(table.len(), 3);
        assert!(parse(&b""[..]).unwrap().is_empty());
        assert_eq!(parse(&b"allow 10.0.0.0/8"[..]).unwrap().len(), 1);
        // Comments may have other encodings, and be long.
        let text = [&b"10.0.0.0/8 ; \xe9"[..], &b"x".repeat(1000), b"\n::1\n"].concat();
        assert_eq!(parse(&*text).unwrap().len(), 2);
    }

    #[test]
    fn a_mistake_is_reported_with_its_line() {
        assert_eq!(
            error("10.0.0.0/8\nwhat is this?\n"),
            "line 2: invalid prefix `what is this?`: expected an IP address or a prefix, such as \
             \"10.0.0.0/8\" or \"2001:db8::/32\""
        );
        assert_eq!(
            error("permit 10.0.0.0/8"),
            "line 1: invalid prefix `permit 10.0.0.0/8`: expected an IP address or a prefix, such \
             as \"10.0.0.0/8\" or \"2001:db8::/32\""
        );
        let beyond = error("allow 10.1.0.0/8");
        assert!(
            beyond.ends_with("the address has bits beyond the /8: write `10.0.0.0/8`"),
            "{beyond}"
        );
        assert_eq!(
            error("10.0.0.0/8\nallow 10.0.0.0/8\n"),
            "10.0.0.0/8 is allowed and denied"
        );
    }

    #[test]
    fn a_file_that_suddenly_has_no_prefix_is_a_mistake() {
        let dir = std::env::temp_dir().join(format!("mahoraga-access-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("office.txt");
        let text = format!(
            "(access_lists: [(name: \"a\", file: {path:?}, others: \"deny\")],
            listeners: [(bind: \"127.0.0.1:1\", pool: \"p\")],
            pools: [(name: \"p\", backends: [\"unix:/b\"])])"
        );
        let (config, _) = crate::config::parse(String::new(), text.into()).unwrap();
        let read = |known: &Known| read_files(&config, known).map_err(|error| error.to_string());
        assert!(read(&Known::new()).is_err(), "it is not there");
        std::fs::write(&path, "# none yet\n").unwrap();
        assert!(read(&Known::new()).unwrap()[0].table.is_empty());
        std::fs::write(&path, "allow ::1\nallow ::2\n").unwrap();
        let first = read(&Known::new()).unwrap().pop().unwrap();
        let known = Known::from([(path.clone(), (first.version, first.table.len()))]);
        assert!(read(&known).unwrap().is_empty(), "it is as before");
        std::fs::write(&path, "# 127.0.0.1\n").unwrap();
        let why = read(&known).err().unwrap();
        assert!(
            why.contains("expected at least one prefix, as it had 2"),
            "{why}"
        );
        std::fs::remove_file(&path).unwrap();
        assert!(read(&known).err().unwrap().contains("No such file"));
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_file_is_bounded() {
        let many = |count: u32| -> String {
            (0..count)
                .map(|n| format!("{}\n", std::net::Ipv4Addr::from(n)))
                .collect()
        };
        assert_eq!(parse(many(1_000_000).as_bytes()).unwrap().len(), 1_000_000);
        assert_eq!(
            error(&many(1_000_001)),
            "line 1000001: expected at most 1000000 prefixes"
        );
        let endless = io::repeat(b'#');
        assert_eq!(
            parse(endless).unwrap_err().to_string(),
            "it is larger than 64 MiB"
        );
        let endless = b"::1\n".chain(io::repeat(b' '));
        assert_eq!(
            parse(endless).unwrap_err().to_string(),
            "line 2: it is longer than 256 bytes"
        );
        let padded = format!("{:<255}\n::2", "::1");
        assert_eq!(parse(padded.as_bytes()).unwrap().len(), 2);
    }
}
