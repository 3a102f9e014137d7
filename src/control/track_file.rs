//! The track file, which follows `/readyz` for keepalived: `0` while it holds, else `1`. Other
//! threads write it, as a disk may not answer. A write that fails is tried again each second, and a
//! file that hangs holds up no other one.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::watch;

use super::aside;
use crate::sys;

/// The file, and what it is to say.
pub(super) struct TrackFile {
    wanted: watch::Sender<Wanted>,
    state: Rc<RefCell<State>>,
}

/// What the file is to say; `None`: there is no file.
type Wanted = Option<(PathBuf, bool)>;

#[derive(Default)]
struct State {
    written: Wanted,
    /// Why the last write failed, in a sentence.
    problem: Option<String>,
}

impl TrackFile {
    /// Nothing is written yet. To be called inside the control thread's runtime.
    pub(super) fn begin() -> Self {
        let (wanted, changed) = watch::channel(None);
        let state = Rc::default();
        tokio_uring::spawn(follow(changed, Rc::clone(&state)));
        Self { wanted, state }
    }

    /// Has the file say whether the balancer is ready.
    pub(super) fn follow(&self, path: Option<&Path>, is_ready: bool) {
        self.wanted.send_if_modified(|wanted| {
            let is_same = match (&*wanted, path) {
                (Some((old, said)), Some(path)) => old == path && *said == is_ready,
                (None, None) => true,
                _ => false,
            };
            if !is_same {
                *wanted = path.map(|path| (path.to_owned(), is_ready));
            }
            !is_same
        });
    }

    /// What is wrong with the file, in a sentence.
    pub(super) fn problem(&self) -> Option<String> {
        self.state.borrow().problem.clone()
    }

    /// Waits until the file says what it is to say, for a second at most: the process ends.
    pub(super) async fn finish(&self) {
        let written = async {
            while self.state.borrow().written != *self.wanted.borrow() {
                tokio::time::sleep(END_PAUSE).await;
            }
        };
        // After that the health script of keepalived finds out.
        let _ = tokio::time::timeout(RETRY, written).await;
    }
}

async fn follow(mut changed: watch::Receiver<Wanted>, state: Rc<RefCell<State>>) {
    while changed.changed().await.is_ok() {
        loop {
            let wanted = changed.borrow_and_update().clone();
            let path = path(&wanted).map(Path::to_owned);
            let mut later = changed.clone();
            let is_done = tokio::select! {
                Ok(_) = later.wait_for(|new| self::path(new) != path.as_deref()) => continue,
                is_done = attempt(wanted, &state) => is_done,
            };
            if is_done {
                break;
            }
        }
    }
}

fn path(wanted: &Wanted) -> Option<&Path> {
    wanted.as_ref().map(|(path, _)| &**path)
}

/// Writes the state that the file must have. `false`: that failed a while ago.
async fn attempt(wanted: Wanted, state: &RefCell<State>) -> bool {
    let outcome = match wanted.clone() {
        Some((path, is_ready)) => put(path, is_ready).await,
        None => Ok(()),
    };
    let problem = outcome.err().map(|error| {
        let path = path(&wanted).map(|path| path.display().to_string());
        format!(
            "cannot write the track file {}: {error}; keepalived does not learn whether this \
             balancer is ready",
            path.unwrap_or_default()
        )
    });
    let is_done = problem.is_none();
    note(&mut state.borrow_mut(), wanted, problem);
    if !is_done {
        tokio::time::sleep(RETRY).await;
    }
    is_done
}

/// Writes the file on another thread. A write that hangs may end later: the next one to this file
/// waits for it, so the newest word is the last.
async fn put(path: PathBuf, is_ready: bool) -> io::Result<()> {
    let file = path.clone();
    let written = aside::look(&path, move || write(&file, is_ready));
    match tokio::time::timeout(ANSWER, written).await {
        Ok(outcome) => outcome.flatten(),
        Err(_) => Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "it does not answer",
        )),
    }
}

/// Logs a problem once, and its end.
fn note(state: &mut State, wanted: Wanted, problem: Option<String>) {
    match (&state.problem, &problem) {
        (old, Some(new)) if old.as_ref() != Some(new) => log::error!("{new}"),
        (Some(_), None) => log::info!("the track file is written again"),
        _ => {}
    }
    if problem.is_none() {
        state.written = wanted;
    }
    state.problem = problem;
}

/// Whether the file could be written, without a change to it.
///
/// # Errors
/// What open(2) says; `InvalidInput`: it is not a regular file, or has something else than a
/// number.
pub(super) fn can_write(path: &Path) -> io::Result<()> {
    sys::can_rewrite(path)?;
    match sys::open_regular(path) {
        Ok(mut file) => refuse_foreign(&mut file),
        // It is made later.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Writes over what is there, in one call: at no time is the file empty, which keepalived takes as
/// 0.
fn write(path: &Path, is_ready: bool) -> io::Result<()> {
    let mut file = sys::open_to_rewrite(path)?;
    refuse_foreign(&mut file)?;
    let word = if is_ready { b"0\n" } else { b"1\n" };
    file.write_all_at(word, 0)?;
    // A person may have written a longer number.
    file.set_len(word.len() as u64)
}

/// A file with anything but a number is not a track file: the setting names it by mistake.
fn refuse_foreign(file: &mut File) -> io::Result<()> {
    let mut begin = [0; NUMBER_MAX];
    let read = file.read(&mut begin)?;
    let is_number = |byte: &u8| byte.is_ascii_digit() || matches!(byte, b'-' | b'+' | b'\n' | b' ');
    if read < NUMBER_MAX && begin[..read].iter().all(is_number) {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidInput,
        "it has something else than a number: expected a file of keepalived, or none",
    ))
}

/// More bytes than the longest number has.
const NUMBER_MAX: usize = 32;
/// From a failed write to the next: 1 s.
const RETRY: Duration = Duration::from_secs(1);
/// How long a write may take until it is a problem.
const ANSWER: Duration = Duration::from_secs(2);
/// From one look at the last write to the next, at the end.
const END_PAUSE: Duration = Duration::from_millis(2);

#[cfg(test)]
mod tests;
