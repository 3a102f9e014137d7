//! The files of access lists: one prefix on each line. They are read on other threads.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc};

use crate::config::{Config, values};
use crate::control::file_watch::{FileVersion, FileWatch, Version};
use crate::control::{StartError, aside};
use crate::guard::{self, Access, Prefixes};
use crate::prefix::Prefix;
use crate::sys;

use super::News;

/// A file that was read, and what was seen of it before.
pub(in crate::control) struct FileRead {
    pub(super) path: PathBuf,
    pub(super) version: FileVersion,
    pub(super) table: Arc<Prefixes>,
}

/// Reads the files of a configuration that are not known. May take long.
///
/// # Errors
/// [`StartError::AccessList`]
pub(in crate::control) fn read_files(
    config: &Config,
    known: &BTreeSet<PathBuf>,
) -> Result<Vec<FileRead>, StartError> {
    let files = config
        .access_lists
        .iter()
        .filter_map(|list| list.file.as_ref());
    let files: BTreeSet<_> = files.filter(|path| !known.contains(*path)).collect();
    let read = files.into_iter().map(|path| {
        let outcome = read(path);
        let (version, table) = outcome.map_err(StartError::AccessList)?;
        Ok(FileRead {
            path: path.clone(),
            version: Ok(version),
            table: Arc::new(table),
        })
    });
    read.collect()
}

/// Looks at a file each second, and sends what it has when it has changed.
pub(super) async fn follow_file(
    mut watch: FileWatch,
    sender: mpsc::Sender<News>,
    again: Arc<Notify>,
) {
    let path = watch.path().to_owned();
    loop {
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = again.notified() => watch = FileWatch::new(path.clone()),
        }
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
                Some(Err(format!("{}: {error}", path.display())))
            }
        };
        if let Some(outcome) = outcome {
            let path = path.clone();
            // Without a receiver the balancer is ending, and this task with it.
            let _ = sender.send(News { path, outcome }).await;
        }
    }
}

/// The prefixes of a file, or what is wrong with it, if it has changed since it was last read.
fn look(watch: &mut FileWatch) -> Option<Result<Prefixes, String>> {
    let seen = watch.look()?;
    let outcome = match read(watch.path()) {
        // It has changed since the look: the next look reads it.
        Ok((version, _)) if seen != Ok(version) => return None,
        outcome => outcome.map(|(_, table)| table),
    };
    watch.set_read(seen);
    Some(outcome)
}

fn read(path: &Path) -> Result<(Version, Prefixes), String> {
    let wrong = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let file = sys::open_regular(path).map_err(|error| wrong(&error))?;
    let found = file.metadata().map_err(|error| wrong(&error))?;
    let table = parse(file).map_err(|error| wrong(&error))?;
    Ok((Version::of(&found), table))
}

/// Reads all lines, or reports the first mistake.
fn parse(file: impl Read) -> Result<Prefixes, String> {
    let mut lines = BufReader::with_capacity(1 << 16, file.take(BYTES_MAX + 1));
    let mut all = Vec::new();
    let (mut line, mut bytes) = (Vec::new(), 0);
    for number in 1u64.. {
        line.clear();
        let read = (&mut lines).take(LINE_MAX).read_until(b'\n', &mut line);
        bytes += read.map_err(|error| error.to_string())? as u64;
        if line.is_empty() {
            break;
        }
        let is_whole = line.ends_with(b"\n") || (line.len() as u64) < LINE_MAX;
        let comment = line.iter().position(|byte| matches!(byte, b'#' | b';'));
        match comment {
            None if !is_whole => {
                return Err(format!("line {number}: it is longer than {LINE_MAX} bytes"));
            }
            Some(_) if !is_whole => {
                let rest = lines.skip_until(b'\n');
                bytes += rest.map_err(|error| error.to_string())? as u64;
            }
            _ => {}
        }
        if bytes > BYTES_MAX {
            return Err("it is larger than 64 MiB".to_owned());
        }
        line.truncate(comment.unwrap_or(line.len()));
        let text = std::str::from_utf8(&line);
        let text = text.map_err(|_| format!("line {number}: it is not UTF-8"))?;
        let entry = entry(text).map_err(|error| format!("line {number}: {error}"))?;
        all.extend(entry);
        if all.len() > PREFIXES_MAX {
            return Err(format!(
                "line {number}: expected at most {PREFIXES_MAX} prefixes"
            ));
        }
    }
    Prefixes::new(all).map_err(|guard::Clash(prefix)| format!("{prefix} is allowed and denied"))
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
        parse(text.as_bytes()).unwrap_err()
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
        let endless = std::io::repeat(b'#');
        assert_eq!(parse(endless).unwrap_err(), "it is larger than 64 MiB");
        let endless = b"::1\n".chain(std::io::repeat(b' '));
        assert_eq!(
            parse(endless).unwrap_err(),
            "line 2: it is longer than 256 bytes"
        );
        let padded = format!("{:<255}\n::2", "::1");
        assert_eq!(parse(padded.as_bytes()).unwrap().len(), 2);
    }
}
