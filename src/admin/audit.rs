//! The audit log: who changed what, as lines of JSON. They are written on a thread of their own,
//! as a disk may not answer and a pipe not be read.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use crossbeam::channel::{self, Receiver, Sender};
use serde_json::{Value, json};

use super::Author;

/// Where the lines go. What waits to be written when this is dropped has a second.
#[derive(Debug)]
pub struct Audit(Option<Writer>);

/// A change that was made, or refused.
#[derive(Clone, Debug)]
pub struct Entry<'a> {
    /// Who.
    pub author: Author,
    /// What was done: `add`, `remove`, `set`, `kill` or `reload`.
    pub action: &'a str,
    /// To what, such as `web/app-1`, `limits` or `config`.
    pub target: &'a str,
    /// What it was before, where that can be said.
    pub old: Option<Value>,
    /// What it is now, or would be.
    pub new: Option<Value>,
    /// The version that is in force since, or why nothing changed.
    pub outcome: Result<u64, String>,
}

#[derive(Debug)]
struct Writer {
    jobs: Option<Sender<Job>>,
    /// Closed when the thread has ended.
    ended: Receiver<()>,
}

#[derive(Debug)]
enum Job {
    Line(String),
    OpenAgain,
}

impl Audit {
    /// Lines go to this file, appended, or to the operational log (target `audit`).
    ///
    /// # Errors
    /// The file can't be opened, or the thread not be started.
    pub fn open(path: Option<&Path>) -> io::Result<Self> {
        let Some(path) = path else {
            return Ok(Self(None));
        };
        let file = append_to(path)?;
        let path = path.to_owned();
        let (jobs, waiting) = channel::bounded(LINES);
        let (ending, ended) = channel::bounded(0);
        std::thread::Builder::new()
            .name("audit".to_owned())
            .spawn(move || {
                write(file, &path, &waiting);
                drop(ending);
            })?;
        let jobs = Some(jobs);
        Ok(Self(Some(Writer { jobs, ended })))
    }

    /// Records a change. A line that the file does not take goes to the operational log.
    pub fn record(&self, entry: &Entry<'_>) {
        self.send(Job::Line(line(entry, SystemTime::now())));
    }

    /// Opens the file again, as it was rotated.
    pub fn reopen(&self) {
        self.send(Job::OpenAgain);
    }

    fn send(&self, job: Job) {
        let jobs = self.0.as_ref().and_then(|writer| writer.jobs.as_ref());
        let unsent = match jobs {
            Some(jobs) => jobs
                .try_send(job)
                .map_err(channel::TrySendError::into_inner),
            None => Err(job),
        };
        if let Err(Job::Line(line)) = unsent {
            log::info!(target: TARGET, "audit: {line}");
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.jobs = None;
        // Nothing is ever sent: this waits for the end.
        let _ = self.ended.recv_timeout(END_TIME);
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o640)
        .open(path)
}

fn write(mut file: File, path: &Path, jobs: &Receiver<Job>) {
    for job in jobs {
        match job {
            Job::Line(line) => {
                if let Err(error) = file.write_all(format!("{line}\n").as_bytes()) {
                    log::error!("{} can't be written: {error}", path.display());
                    log::info!(target: TARGET, "audit: {line}");
                }
            }
            Job::OpenAgain => match append_to(path) {
                Ok(opened) => file = opened,
                Err(error) => log::error!("{} can't be opened again: {error}", path.display()),
            },
        }
    }
}

/// Without its end.
fn line(entry: &Entry<'_>, now: SystemTime) -> String {
    let mut line = json!({
        "time": humantime::format_rfc3339_millis(now).to_string(),
        "author": entry.author.to_string(),
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

/// JSON in which all characters are escaped that a terminal or a reader of lines could take for
/// something else. Outside of strings there are none.
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

/// Control characters, breaks of lines, marks without a width, and what turns the direction of
/// text ("Trojan Source", CVE-2021-42574). All are below U+10000.
fn is_misleading(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// The log target of lines without a file: they are shown whatever the log's level.
pub(crate) const TARGET: &str = "audit";
/// Lines that wait to be written.
const LINES: usize = 1_024;
/// How long a stuck file delays the end.
const END_TIME: Duration = Duration::from_secs(1);

#[cfg(test)]
#[path = "tests/audit.rs"]
mod tests;
