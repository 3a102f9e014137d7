//! The watched file of bans: a network on each line, and why as its comment.
//!
//! It is read before the first client, and followed as the files of access lists are. What it has
//! the ban table follows it. A bad file leaves the last good one in force.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::admin::model::{BanImportStatus, EventKind};
use crate::config::{Config, shortest_ban, values};
use crate::control::StartError;
use crate::control::events::{Events, Severity};
use crate::control::list_files::{self, Followed, ListFile, ListFiles};
use crate::guard::{Ban, ImportOutcome, ImportedBans};
use crate::prefix::Prefix;
use crate::snapshot::Snapshot;
use crate::wording::plural;

use super::following::FollowedList;
use super::tell;

/// A file that was read, and what was seen of it before.
pub(in crate::control) type BansRead = list_files::FileRead<ImportedBans>;

/// The file that is followed.
pub(in crate::control) type KnownBans = list_files::Known<ImportedBans>;

/// What was read of a file that has changed.
pub(in crate::control) type BanFileNews = list_files::News<ImportedBans>;

/// Reads the file that a configuration imports, unless it is known. May take long.
///
/// # Errors
/// [`StartError::ImportedBans`]
pub(in crate::control) fn read_import(
    config: &Config,
    known: &KnownBans,
) -> Result<Vec<BansRead>, StartError> {
    let read = list_files::read_all::<BanFile>(&config.bans.import, known);
    read.map_err(StartError::ImportedBans)
}

/// The networks of a file of bans. May take long: 64 MiB at most.
///
/// # Errors
/// The first mistake, with its line.
pub fn read_imported_bans(text: impl io::Read) -> Result<ImportedBans, String> {
    list_files::parse_text::<BanFile>(text)
}

/// The networks of the lines that were read.
#[derive(Default)]
struct BanFile(Vec<(Prefix, Arc<str>)>);

impl ListFile for BanFile {
    type List = ImportedBans;
    /// Room for a million lines of 64 bytes.
    const BYTES_MAX: u64 = 64 << 20;
    /// With room for a long reason.
    const LINE_MAX: u64 = 1_024;
    const COMMENTS: &[u8] = b"#;";

    fn take(&mut self, line: &str, comment: &[u8]) -> Result<(), String> {
        let prefix = values::prefix(line).map_err(|error| error.about("prefix", line))?;
        let shortest = shortest_ban(prefix);
        if prefix.length() < shortest {
            return Err(format!(
                "invalid prefix `{prefix}`: expected /{shortest} or longer, as it bans a large \
                 part of the internet; `mahoraga ban --force` bans it all the same"
            ));
        }
        let comment = String::from_utf8_lossy(comment);
        let reason = values::shown_reason(comment.trim_start_matches(['#', ';']));
        // Lists have the same reason on many lines.
        let last = self.0.last().map(|(_, last)| last);
        let reason = match last.filter(|last| ***last == *reason) {
            Some(same) => Arc::clone(same),
            None => reason.into(),
        };
        self.0.push((prefix, reason));
        if self.0.len() > NETWORKS_MAX {
            return Err(format!("expected at most {NETWORKS_MAX} networks"));
        }
        Ok(())
    }

    fn finish(self) -> Result<ImportedBans, String> {
        Ok(ImportedBans::new(self.0))
    }
}

/// Follows the file, and has the ban table follow.
pub(in crate::control) struct BanImport {
    path: Option<PathBuf>,
    files: ListFiles<BanFile>,
    /// A file that was read for a configuration that is about to take effect.
    offered: Vec<BansRead>,
    table: FollowedList,
}

impl Default for BanImport {
    fn default() -> Self {
        Self {
            path: None,
            files: ListFiles::new(),
            offered: Vec::new(),
            table: FollowedList::default(),
        }
    }
}

impl BanImport {
    /// What [`read_import`] need not read again.
    pub(in crate::control) fn known(&self) -> KnownBans {
        self.files.known()
    }

    /// Takes a file that was read for the next configuration, and lets go of that of another.
    pub(in crate::control) fn offer(&mut self, read: Vec<BansRead>) {
        let old = std::mem::replace(&mut self.offered, read);
        self.table.retire(old.into_iter().map(|its| its.list));
    }

    /// Follows the file of a configuration. To be called inside the control thread's runtime.
    pub(in crate::control) fn follow(&mut self, config: &Config) {
        let path = &config.bans.import;
        let offered = std::mem::take(&mut self.offered);
        if offered.is_empty() && self.path == *path {
            return;
        }
        self.path.clone_from(path);
        self.table.retire(self.files.follow(offered, path.clone()));
        let file = path.as_ref().and_then(|path| self.files.get(path));
        let list = file.map_or_else(Arc::default, |file| Arc::clone(&file.list));
        self.table.set(list);
    }

    /// Waits until the file has changed. The future can be dropped without loss.
    pub(in crate::control) async fn changed(&mut self) -> BanFileNews {
        self.files.changed().await
    }

    /// Takes the new networks of the file, or what is wrong with it, and reports that.
    pub(in crate::control) fn take(
        &mut self,
        news: BanFileNews,
        snapshot: &Snapshot,
        events: &Events,
    ) {
        let Some(taken) = self.files.take(news) else {
            return;
        };
        match taken.replaced {
            Some(old) => {
                self.table.set(Arc::clone(&taken.file.list));
                self.table.retire([old]);
                self.table.run(snapshot);
            }
            None => {
                if let Some(why) = problem(taken.file) {
                    tell(events, Severity::Warn, EventKind::BansImportFailed, why);
                }
            }
        }
    }

    /// Whether the file bans exactly this network.
    pub(super) fn has(&self, prefix: Prefix) -> Option<&PathBuf> {
        let path = self.path.as_ref();
        path.filter(|_| self.table.has(prefix))
    }

    /// These bans have ended, or were lifted: the file may have them too.
    pub(super) fn on_ended(&mut self, ended: &[Arc<Ban>]) {
        self.table.on_ended(ended);
    }

    /// Others have lifted bans: the file may have them too.
    pub(super) fn set_due(&mut self) {
        self.table.set_due();
    }

    /// What is wrong with the file, and what of it is not in force: a sentence each.
    pub(super) fn problems(&self) -> impl Iterator<Item = String> {
        self.files.all().filter_map(problem).chain(self.no_room())
    }

    /// As the API shows it.
    pub(super) fn status(&self) -> Option<BanImportStatus> {
        let path = self.path.as_ref()?;
        let file = self.files.get(path);
        Some(BanImportStatus {
            file: path.display().to_string(),
            networks: self.table.list().len() as u64,
            trusted: self.table.last().trusted,
            no_room: self.table.last().no_room,
            error: file.and_then(|file| file.error.clone()),
        })
    }

    /// To be called each second.
    pub(super) fn tick(&mut self, snapshot: &Snapshot, events: &Events) {
        if let Some([before, now]) = self.table.tick(snapshot) {
            self.on_imported(before, now, events);
        }
    }

    /// Has another thread change the table if that is due, one at a time.
    pub(in crate::control) fn run(&mut self, snapshot: &Snapshot) {
        self.table.run(snapshot);
    }

    fn on_imported(&self, before: ImportOutcome, outcome: ImportOutcome, events: &Events) {
        if outcome.new + outcome.lifted > 0 {
            let message = self.sentence(outcome);
            tell(events, Severity::Info, EventKind::BansImported, message);
        }
        if before.no_room == 0
            && let Some(why) = self.no_room()
        {
            tell(events, Severity::Warn, EventKind::BansFull, why);
        }
    }

    fn sentence(&self, outcome: ImportOutcome) -> String {
        let ImportOutcome { new, lifted, .. } = outcome;
        let trusted = match outcome.trusted {
            0 => String::new(),
            some => format!("; {some} of it are `trusted` and not banned"),
        };
        match &self.path {
            Some(path) => format!(
                "bans of {}: {}, {new} new, {lifted} lifted{trusted}",
                path.display(),
                plural(self.table.list().len() as u64, "network")
            ),
            None => format!("bans are no longer imported: {lifted} lifted"),
        }
    }

    fn no_room(&self) -> Option<String> {
        let (path, count) = (self.path.as_ref()?, self.table.last().no_room);
        (count > 0).then(|| {
            format!(
                "the ban table is full: {} of {} not banned; raise `bans: (max: ...)`",
                plural(count, "network"),
                path.display()
            )
        })
    }
}

/// What is wrong with the file, and what holds meanwhile.
fn problem(file: &Followed<ImportedBans>) -> Option<String> {
    let (error, count) = (
        file.error.as_ref()?,
        plural(file.list.len() as u64, "network"),
    );
    Some(format!(
        "imported bans: {error}; the last good file stays in force, with {count}"
    ))
}

/// Networks of a file: as many as the ban table may have.
const NETWORKS_MAX: usize = 1_000_000;

#[cfg(test)]
mod tests {
    use super::read_imported_bans as parse;
    use super::*;
    use crate::guard::ImportedBan;

    fn read(text: &[u8]) -> Vec<(String, String)> {
        let all = parse(text).unwrap();
        let shown = |its: &ImportedBan| (its.prefix.to_string(), its.reason.to_string());
        all.iter().map(shown).collect()
    }

    #[test]
    fn a_line_is_a_network_with_its_reason() {
        let text = "\u{feff}# a feed\n\n192.0.2.7 # floods the login\r\n198.51.100.0/24 ; SBL1\n\
                    2001:db8::/48\n192.0.2.7 # again\n";
        let pair = |prefix: &str, reason: &str| (prefix.to_owned(), reason.to_owned());
        let want = [
            pair("192.0.2.7", "floods the login"),
            pair("198.51.100.0/24", "SBL1"),
            pair("2001:db8::/48", ""),
        ];
        assert_eq!(read(text.as_bytes()), want);
        assert!(parse(&b""[..]).unwrap().is_empty());
        // Comments may have other encodings, be long, and try to draw on a terminal.
        let text = [
            &b"10.0.0.1 # \x1b[2J \xe9"[..],
            &b"x".repeat(3_000),
            b"\n::1\n",
        ]
        .concat();
        let found = read(&text);
        let reason = &found[0].1;
        assert_eq!((found.len(), reason.chars().count()), (2, 200));
        assert!(reason.starts_with("[2J \u{fffd}xx"), "{reason}");
    }

    #[test]
    fn a_mistake_is_reported_with_its_line() {
        let error = |text: &str| parse(text.as_bytes()).unwrap_err();
        let malformed = error("10.0.0.1\nallow 10.0.0.2\n");
        let begin = "line 2: invalid prefix `allow 10.0.0.2`: expected an IP address or a prefix";
        assert!(malformed.starts_with(begin), "{malformed}");
        // A list with it would ban everybody.
        let wide = error("0.0.0.0/0 # oops");
        let begin = "line 1: invalid prefix `0.0.0.0/0`: expected /8 or longer";
        assert!(wide.starts_with(begin), "{wide}");
        assert!(error("2000::/18").contains("expected /19 or longer"));
        assert_eq!(
            error(&format!("{:<1100}", "::1")),
            "line 1: it is longer than 1024 bytes"
        );
    }

    #[test]
    fn a_file_is_bounded() {
        let prefix: Prefix = "192.0.2.1".parse().unwrap();
        let mut full = BanFile(vec![(prefix, "".into()); NETWORKS_MAX - 1]);
        assert_eq!(full.take("192.0.2.2", b""), Ok(()));
        let error = full.take("192.0.2.3", b"").unwrap_err();
        assert_eq!(error, "expected at most 1000000 networks");
    }
}
