//! A file of backends: one on each line, `ADDR[,weight=N][,max_connections=N][,backup]`; `#` begins
//! a comment.
//!
//! A look is a stat(2), so that a file renamed over it, or a symbolic link that points elsewhere,
//! is a change too. A change is read once the file is the same at two looks: its writer may not be
//! done.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::Notify;

use crate::address::Address;
use crate::config::{Backend, values};
use crate::control::aside;
use crate::control::file_watch::{FileWatch, Version};
use crate::sys;

use super::{Found, Pace, Teller};

/// Looks at a file again and again, and sends each change; after a notification it sends what the
/// file has, changed or not.
pub(super) async fn follow(path: PathBuf, teller: Teller, pace: Pace, again: Arc<Notify>) {
    let mut watch = Watch::new(path.clone());
    loop {
        // While the file system does not answer, this task waits, and what was found stays.
        let look = aside::look(&path, move || {
            let outcome = watch.look();
            (watch, outcome)
        });
        let outcome = match look.await {
            Ok((back, outcome)) => {
                watch = back;
                outcome
            }
            Err(error) => {
                watch = Watch::new(path.clone());
                Some(Err(format!("{}: {error}", path.display())))
            }
        };
        match outcome {
            Some(Ok(found)) => teller.tell(Some(found), None, None).await,
            Some(Err(error)) => teller.tell(None, Some(error), None).await,
            None => {}
        }
        tokio::select! {
            () = tokio::time::sleep(pace.look) => {}
            () = again.notified() => watch = Watch::new(path.clone()),
        }
    }
}

/// A file of backends.
#[derive(Debug)]
pub(super) struct Watch(FileWatch);

impl Watch {
    pub(super) fn new(path: PathBuf) -> Self {
        Self(FileWatch::new(path))
    }

    /// The backends of the file, or what is wrong with it, if it has changed since it was last
    /// read.
    pub(super) fn look(&mut self) -> Option<Result<Found, String>> {
        let sight = self.0.look()?;
        let path = self.0.path();
        let wrong = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        let outcome = match read(path) {
            // It has changed since the look: the next look reads it.
            Ok((version, _)) if sight != Ok(version) => return None,
            Ok((_, text)) => parse(&text).map_err(|error| wrong(&error)),
            Err(error) => Err(wrong(&error)),
        };
        self.0.set_read(sight);
        Some(outcome)
    }
}

fn read(path: &Path) -> io::Result<(Version, String)> {
    let file = sys::open_regular(path)?;
    let found = file.metadata()?;
    let refuse = |why: &str| Err(io::Error::new(io::ErrorKind::InvalidData, why));
    let mut bytes = Vec::new();
    file.take(BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > BYTES_MAX {
        return refuse("it is larger than 1 MiB");
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok((Version::of(&found), text)),
        Err(_) => refuse("it is not UTF-8"),
    }
}

/// Reads all lines, or reports the first mistake.
fn parse(text: &str) -> Result<Found, String> {
    // Some editors mark UTF-8 so.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut found: HashMap<Address, Backend> = HashMap::new();
    for (number, line) in (1..).zip(text.lines()) {
        let (line, _) = line.split_once('#').unwrap_or((line, ""));
        if line.trim().is_empty() {
            continue;
        }
        let backend = backend(line.trim()).map_err(|error| format!("line {number}: {error}"))?;
        match found.entry(backend.address.clone()) {
            Entry::Vacant(place) => drop(place.insert(backend)),
            Entry::Occupied(other) if *other.get() == backend => {}
            Entry::Occupied(other) => {
                let address = other.key();
                return Err(format!(
                    "line {number}: {address} is in an earlier line with other options"
                ));
            }
        }
    }
    if found.is_empty() {
        return Err("expected at least one backend".to_owned());
    }
    Ok(Found::of(found.into_values().collect()))
}

/// Reads one line. Host names are refused, as no task resolves them.
fn backend(line: &str) -> Result<Backend, String> {
    let (address, _) = line.split_once(',').unwrap_or((line, ""));
    if !address.starts_with("unix:") && address.parse::<SocketAddr>().is_err() {
        return Err(format!(
            "invalid address `{address}`: expected IPv4:port, [IPv6]:port or unix:/path; \
             names are for discovery by `dns`"
        ));
    }
    values::backend(line).map_err(|error| error.to_string())
}

/// Room for a thousand long lines.
const BYTES_MAX: u64 = 1024 * 1024;

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn addresses(text: &str) -> Vec<String> {
        let found = parse(text).unwrap().backends;
        found.iter().map(|b| b.address.to_string()).collect()
    }

    #[test]
    fn lines_comments_and_blanks() {
        let text = "# all of them\n\n  127.0.0.1:1,weight=3 # old\n[::1]:2,backup\r\n\
                    unix:/a,max_connections=7\n127.0.0.1:1,weight=3\n";
        assert_eq!(addresses(text), ["127.0.0.1:1", "unix:/a", "[::1]:2"]);
        let found = parse(text).unwrap().backends;
        assert_eq!((found[0].weight, found[2].backup), (3, true));
        assert_eq!(found[1].max_connections.map(u32::from), Some(7));
    }

    #[test]
    fn a_byte_order_mark_and_other_ends_of_lines_are_read() {
        let all = addresses("\u{feff}127.0.0.1:1\r\n127.0.0.1:2\r\n");
        assert_eq!(all, ["127.0.0.1:1", "127.0.0.1:2"]);
    }

    #[test]
    fn a_mistake_is_reported_with_its_line() {
        let error = |text: &str| parse(text).unwrap_err();
        assert_eq!(error(""), "expected at least one backend");
        assert_eq!(error("# none\n"), "expected at least one backend");
        assert_eq!(
            error("127.0.0.1:1\nlocalhost:2\n"),
            "line 2: invalid address `localhost:2`: expected IPv4:port, [IPv6]:port or unix:/path; \
             names are for discovery by `dns`"
        );
        assert_eq!(
            error("127.0.0.1:1,weight=999"),
            "line 1: invalid weight `999`: expected a whole number, 0 to 256"
        );
        assert_eq!(
            error("127.0.0.1:1\n127.0.0.1:1,backup"),
            "line 2: 127.0.0.1:1 is in an earlier line with other options"
        );
        assert!(error("127.0.0.1:0").starts_with("line 1: "));
        assert_eq!(
            error("127.0.0.1:1\n0.0.0.0:2,backup"),
            "line 2: invalid address `0.0.0.0:2`: expected the address of a server, \
             not the unspecified address; write 127.0.0.1:2 for this machine"
        );
    }

    /// A fresh directory for one test.
    fn directory(test: &str) -> PathBuf {
        let name = format!("mahoraga-{test}-{}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir_all(&directory).unwrap();
        directory
    }

    #[test]
    fn a_change_is_read_once_it_has_settled() {
        let directory = directory("discovery-file");
        let path = directory.join("backends");
        let mut watch = Watch::new(path.clone());
        assert_eq!(watch.look(), None);
        let error = watch.look().unwrap().unwrap_err();
        assert!(error.contains("No such file"), "{error}");
        assert_eq!(watch.look(), None);

        fs::write(&path, "127.0.0.1:1\n").unwrap();
        assert_eq!(watch.look(), None);
        assert_eq!(watch.look().unwrap().unwrap().backends.len(), 1);
        assert_eq!(watch.look(), None);

        // As long as the other, and renamed over it.
        fs::write(directory.join("new"), "127.0.0.1:2\n").unwrap();
        fs::rename(directory.join("new"), &path).unwrap();
        assert_eq!(watch.look(), None);
        let found = watch.look().unwrap().unwrap().backends;
        assert_eq!(found[0].address.to_string(), "127.0.0.1:2");

        // What goes on changing is waited for.
        fs::write(&path, "127.0.0.1:2\n127.0").unwrap();
        assert_eq!(watch.look(), None);
        fs::write(&path, "127.0.0.1:2\n127.0.0.1:30\n").unwrap();
        assert_eq!(watch.look(), None);
        assert_eq!(watch.look().unwrap().unwrap().backends.len(), 2);
        fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn a_link_that_points_elsewhere_is_a_change() {
        let directory = directory("discovery-link");
        let path = directory.join("backends");
        fs::write(directory.join("a"), "127.0.0.1:1\n").unwrap();
        fs::write(directory.join("b"), "127.0.0.1:2\n").unwrap();
        std::os::unix::fs::symlink("a", &path).unwrap();
        let mut watch = Watch::new(path.clone());
        assert_eq!(watch.look(), None);
        assert!(watch.look().unwrap().is_ok());
        std::os::unix::fs::symlink("b", directory.join("next")).unwrap();
        fs::rename(directory.join("next"), &path).unwrap();
        assert_eq!(watch.look(), None);
        let found = watch.look().unwrap().unwrap().backends;
        assert_eq!(found[0].address.to_string(), "127.0.0.1:2");
        fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn what_is_no_file_is_refused() {
        let directory = directory("discovery-none");
        let mut watch = Watch::new(directory.clone());
        let mut looks = std::iter::repeat_with(|| watch.look());
        let error = looks.find_map(|look| look).unwrap().unwrap_err();
        assert!(error.contains("directory"), "{error}");
        fs::write(directory.join("large"), " ".repeat(2 << 20)).unwrap();
        let mut watch = Watch::new(directory.join("large"));
        assert_eq!(watch.look(), None);
        let error = watch.look().unwrap().unwrap_err();
        assert!(error.ends_with("it is larger than 1 MiB"), "{error}");
        fs::remove_dir_all(&directory).unwrap();
    }
}
