//! A file of backends: one on each line, `ADDR[,weight=N][,max_connections=N][,backup]`; `#` begins
//! a comment.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::Notify;

use crate::address::Address;
use crate::config::{Backend, values};
use crate::control::list_files::{self, Follower, ListFile};

use super::{Found, Pace, Teller};

/// Looks at a file again and again, and sends each change; after a notification it sends what the
/// file has, changed or not.
pub(super) async fn follow(path: PathBuf, teller: Teller, pace: Pace, again: Arc<Notify>) {
    let mut file = Follower::<Backends>::new(path);
    loop {
        tokio::select! {
            outcome = file.changed(pace.look) => match outcome {
                Ok((_, found)) => teller.tell(Some(found), None, None).await,
                Err(error) => teller.tell(None, Some(error), None).await,
            },
            () = again.notified() => file.look_again(),
        }
    }
}

/// What is wrong with a file of backends, in a sentence, if anything.
pub(in crate::control) fn mistake_in(path: &Path) -> Option<String> {
    list_files::mistake_in::<Backends>(path, "the file of the backends")
}

/// The backends of the lines that were read.
#[derive(Default)]
pub(super) struct Backends(HashMap<Address, Backend>);

impl ListFile for Backends {
    type List = Found;
    /// Room for a thousand long lines.
    const BYTES_MAX: u64 = 1 << 20;
    const LINE_MAX: u64 = 1024;
    const COMMENTS: &[u8] = b"#";

    fn take(&mut self, line: &str, _comment: &[u8]) -> Result<(), String> {
        let backend = backend(line)?;
        match self.0.entry(backend.address.clone()) {
            Entry::Vacant(place) => drop(place.insert(backend)),
            Entry::Occupied(other) if *other.get() == backend => {}
            Entry::Occupied(other) => {
                let address = other.key();
                return Err(format!(
                    "{address} is in an earlier line with other options"
                ));
            }
        }
        Ok(())
    }

    fn finish(self) -> Result<Found, String> {
        if self.0.is_empty() {
            return Err("expected at least one backend".to_owned());
        }
        Ok(Found::of(self.0.into_values().collect()))
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::list_files::parse_text;

    fn parse(text: &str) -> Result<Found, String> {
        parse_text::<Backends>(text.as_bytes())
    }

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
}
