//! The audit log: who changed what, as lines of JSON. Another thread writes them, as a disk may not
//! answer, and a pipe may have no reader.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::admin::Author;
use crate::history::PastEvent;
use crate::sys;
use crate::wording::is_misleading;
use crate::writer::{Outlet, Writer};

use super::history::{self, Notes};

/// Where the lines go. Drop waits for up to a second until all lines are written.
#[derive(Debug)]
pub(super) struct Audit {
    file: Option<(PathBuf, Writer)>,
    /// Puts entries into the history, too.
    notes: Option<Notes>,
}

/// A change that was made, or refused.
#[derive(Clone, Debug)]
pub(super) struct Entry<'a> {
    /// Who made the change.
    pub(super) author: Author,
    /// What was done: the name of the change, such as `set_backend`, or `kill` or `reload`.
    pub(super) action: &'a str,
    /// The subject, such as `web/app-1`, `limits` or `config`.
    pub(super) target: &'a str,
    /// The values before, if the subject has values.
    pub(super) old: Option<Value>,
    /// The values now.
    pub(super) new: Option<Value>,
    /// The version in force since, or why the change was refused.
    pub(super) outcome: Result<u64, String>,
}

impl Audit {
    /// Lines go to this file, appended, or to the operational log (target `audit`).
    ///
    /// # Errors
    /// The file can't be opened, or the thread can't be started.
    pub(super) fn open(path: Option<&Path>, notes: Option<Notes>) -> io::Result<Self> {
        let Some(path) = path else {
            return Ok(Self { file: None, notes });
        };
        let file = sys::open_to_append(path, MODE)?;
        let outlet = AuditFile(path.to_owned());
        let writer = Writer::start("audit", file, outlet)?;
        let file = Some((path.to_owned(), writer));
        Ok(Self { file, notes })
    }

    /// Records a change. A line that the file does not take goes to the operational log. Without a
    /// file all lines go there, except those of reloads, whose events are logged already.
    pub(super) fn record(&self, entry: &Entry<'_>) {
        let now = SystemTime::now();
        let line = line(entry, now);
        if let Some(notes) = &self.notes {
            notes.push(PastEvent {
                at_ms: history::ms(now),
                kind: TARGET.to_owned(),
                message: sentence(entry),
                ..PastEvent::default()
            });
        }
        let unsent = match &self.file {
            Some((_, writer)) => writer.push(format!("{line}\n").into_bytes()).is_err(),
            None => entry.action != RELOAD,
        };
        if unsent {
            log::info!(target: TARGET, "audit: {line}");
        }
    }

    /// The file.
    #[must_use]
    pub(super) fn path(&self) -> Option<&Path> {
        self.file.as_ref().map(|(path, _)| &**path)
    }

    /// Opens the file again after it was rotated, and answers with the outcome. `None`: there is no
    /// file.
    pub(super) fn reopen(&self) -> Option<oneshot::Receiver<Result<(), String>>> {
        self.file.as_ref().map(|(_, writer)| writer.open_again())
    }
}

impl Drop for Audit {
    fn drop(&mut self) {
        if let Some((_, writer)) = &self.file
            && !writer.flush(END_TIME)
        {
            log::error!("cannot write the last lines of the audit log in time");
        }
    }
}

/// The file of the audit log.
struct AuditFile(PathBuf);

impl Outlet for AuditFile {
    fn open_again(&mut self) -> io::Result<Option<File>> {
        sys::open_to_append(&self.0, MODE).map(Some)
    }

    fn not_opened(&mut self, error: &io::Error) {
        let path = self.0.display();
        log::error!(
            "cannot open the audit log {path} again: {error}; lines go to the old file, and \
             opening is tried again each second"
        );
    }

    fn opened_again(&mut self) {
        log::info!("the audit log {} is open again", self.0.display());
    }

    fn lost(&mut self, line: Vec<u8>, error: &io::Error) {
        let line = String::from_utf8_lossy(&line);
        log::error!("cannot write {}: {error}", self.0.display());
        log::info!(target: TARGET, "audit: {}", line.trim_end());
    }
}

/// An entry in short, for readers who may not see all values.
fn sentence(entry: &Entry<'_>) -> String {
    let (action, target, author) = (entry.action, entry.target, entry.author);
    match &entry.outcome {
        Ok(snapshot) => format!("{action} {target}, {author}: done, snapshot {snapshot}"),
        Err(why) => format!("{action} {target}, {author}: refused: {why}"),
    }
}

/// The line without its line break.
fn line(entry: &Entry<'_>, now: SystemTime) -> String {
    let mut line = json!({
        "time": humantime::format_rfc3339_millis(now).to_string(),
        "author": entry.author.as_str(),
        "action": entry.action,
        "target": entry.target,
        "old": entry.old,
        "new": entry.new,
    });
    match &entry.outcome {
        Ok(snapshot) => {
            line["outcome"] = "done".into();
            line["snapshot"] = (*snapshot).into();
        }
        Err(error) => {
            line["outcome"] = "refused".into();
            line["error"] = error.as_str().into();
        }
    }
    escaped(&line.to_string())
}

/// Escapes all characters of JSON that a terminal or a reader of lines could misinterpret. They
/// occur in strings only.
fn escaped(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        if is_misleading(c) {
            out += &format!("\\u{:04x}", u32::from(c));
        } else {
            out.push(c);
        }
    }
    out
}

/// The action of a reload.
pub(super) const RELOAD: &str = "reload";
/// The log target of lines without a file: they are shown whatever the log's level.
pub(crate) const TARGET: &str = "audit";
/// Of the file: other users can't read who did what.
const MODE: u32 = 0o640;
/// How long the end waits for a file that is stuck.
const END_TIME: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
