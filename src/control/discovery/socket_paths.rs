//! What the paths of Unix sockets lead to. A file system may not answer, so other threads look; a
//! path is unknown until they have.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::path::{Path, PathBuf};

use tokio::sync::mpsc;

use crate::control::aside;
use crate::sys::SocketTarget;

/// The paths of a configuration's listeners and backends, if it has both on Unix sockets.
#[derive(Debug)]
pub(super) struct SocketPaths {
    known: RefCell<BTreeMap<PathBuf, Known>>,
    round: Cell<u64>,
    /// Paths to be looked at, by their directories.
    due: RefCell<BTreeMap<PathBuf, BTreeSet<PathBuf>>>,
    /// Directories whose paths are looked at now.
    busy: RefCell<BTreeSet<PathBuf>>,
    /// The last path that was looked at again.
    last: RefCell<Option<PathBuf>>,
    look: fn(&Path) -> SocketTarget,
    sender: mpsc::UnboundedSender<Answer>,
}

#[derive(Debug)]
struct Known {
    /// `None`: there is no answer yet.
    target: Option<SocketTarget>,
    /// When it was asked for.
    round: u64,
}

/// What a look at a directory has found: nothing where no thread can be created.
#[derive(Debug)]
pub(super) struct Answer {
    directory: PathBuf,
    found: Vec<(PathBuf, SocketTarget)>,
}

impl SocketPaths {
    /// The receiver gets what is to be taken in, not more than a few at a time.
    pub(super) fn new(look: fn(&Path) -> SocketTarget) -> (Self, mpsc::UnboundedReceiver<Answer>) {
        let (sender, answers) = mpsc::unbounded_channel();
        let paths = Self {
            known: RefCell::default(),
            round: Cell::new(0),
            due: RefCell::default(),
            busy: RefCell::default(),
            last: RefCell::default(),
            look,
            sender,
        };
        (paths, answers)
    }

    /// What a path leads to; `None`: that is not known yet.
    pub(super) fn target(&self, path: &Path) -> Option<SocketTarget> {
        let round = self.round.get();
        if let Some(known) = self.known.borrow_mut().get_mut(path) {
            known.round = round;
            return known.target.clone();
        }
        let target = None;
        let mut known = self.known.borrow_mut();
        known.insert(path.to_owned(), Known { target, round });
        self.add_due(path.to_owned());
        None
    }

    /// All paths of a configuration were asked for: others are forgotten. Looks at new ones. Call
    /// it inside the runtime.
    pub(super) fn end_round(&self) {
        let round = self.round.get();
        let mut known = self.known.borrow_mut();
        known.retain(|_, known| known.round == round);
        self.due.borrow_mut().retain(|_, paths| {
            paths.retain(|path| known.contains_key(path));
            !paths.is_empty()
        });
        self.round.set(round + 1);
        drop(known);
        self.begin_looks();
    }

    /// Looks at some paths again, in turn. Call it each second, inside the runtime.
    pub(super) fn look_again(&self) {
        let known = self.known.borrow();
        let looks = (known.len() / TURN_SECONDS).clamp(LOOKS_MIN, PATHS_MAX);
        let mut last = self.last.borrow_mut();
        let from = last.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let some = known.range::<PathBuf, _>((from, Bound::Unbounded));
        let some: Vec<_> = some.take(looks).map(|(path, _)| path.clone()).collect();
        // After the last of all the next turn begins with the first.
        *last = some.get(looks - 1).cloned();
        some.into_iter().for_each(|path| self.add_due(path));
        self.begin_looks();
    }

    fn add_due(&self, path: PathBuf) {
        let directory = aside::directory(&path).to_owned();
        let mut due = self.due.borrow_mut();
        due.entry(directory).or_default().insert(path);
    }

    /// Looks at paths that are due, at those of one directory one after the other: where it hangs,
    /// that holds one thread.
    fn begin_looks(&self) {
        let (mut due, mut busy) = (self.due.borrow_mut(), self.busy.borrow_mut());
        while busy.len() < LOOKS_MAX {
            let mut free = due.keys().filter(|directory| !busy.contains(*directory));
            let Some(directory) = free.next().cloned() else {
                return;
            };
            let mut paths = due.remove(&directory).unwrap_or_default();
            if let Some(first_left) = paths.iter().nth(PATHS_MAX).cloned() {
                due.insert(directory.clone(), paths.split_off(&first_left));
            }
            busy.insert(directory.clone());
            let (look, sender) = (self.look, self.sender.clone());
            tokio::spawn(async move {
                let found = aside::reach(&directory, move || {
                    let found = paths.into_iter().map(|path| {
                        let target = look(&path);
                        (path, target)
                    });
                    found.collect()
                });
                let found = found.await.unwrap_or_default();
                // Nothing is left to know it when the receiver is gone.
                let _ = sender.send(Answer { directory, found });
            });
        }
    }

    /// Takes an answer in. `true`: something has changed.
    pub(super) fn take(&self, Answer { directory, found }: Answer) -> bool {
        self.busy.borrow_mut().remove(&directory);
        let mut known = self.known.borrow_mut();
        let mut has_changed = false;
        for (path, target) in found {
            if let Some(known) = known.get_mut(&path) {
                let before = known.target.replace(target);
                has_changed |= before != known.target;
            }
        }
        drop(known);
        self.begin_looks();
        has_changed
    }
}

/// In how many seconds all paths are looked at again, unless there are very many.
const TURN_SECONDS: usize = 16;
/// Paths that are looked at again in a second, at least.
const LOOKS_MIN: usize = 16;
/// The same at most, and paths of one look.
const PATHS_MAX: usize = 256;
/// Looks under way.
const LOOKS_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn run<T>(future: impl Future<Output = T>) -> T {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_time().build().unwrap().block_on(future)
    }

    /// Paths in a directory called `hangs` have no answer while the test lasts.
    fn look(path: &Path) -> SocketTarget {
        while path.parent().is_some_and(|its| its.ends_with("hangs")) {
            thread::park();
        }
        SocketTarget::Path(Path::new("/found").join(path.file_name().unwrap()))
    }

    #[test]
    fn a_path_that_hangs_is_unknown_and_delays_no_other() {
        run(async {
            let (paths, mut answers) = SocketPaths::new(look);
            let hanging: Vec<_> = (0..3_000)
                .map(|n| PathBuf::from(format!("/socket_paths/hangs/{n}")))
                .collect();
            let good = Path::new("/socket_paths/good/1");
            for path in hanging.iter().map(PathBuf::as_path).chain([good]) {
                assert_eq!(paths.target(path), None);
            }
            paths.end_round();
            assert_eq!(paths.busy.borrow().len(), 2, "a look for each directory");
            assert!(paths.take(answers.recv().await.unwrap()));
            let found = Some(SocketTarget::Path("/found/1".into()));
            assert_eq!(paths.target(good), found);
            // However often they are due, they wait.
            for _ in 0..40 {
                assert!(hanging.iter().all(|path| paths.target(path).is_none()));
                paths.look_again();
                while let Ok(answer) = answers.try_recv() {
                    assert!(!paths.take(answer), "what is known has not changed");
                }
            }
            let due: usize = paths.due.borrow().values().map(BTreeSet::len).sum();
            assert!(due <= 3_001);
            assert_eq!(paths.target(good), found);
            // Another configuration without them.
            paths.end_round();
            paths.target(good);
            paths.end_round();
            assert_eq!(paths.known.borrow().len(), 1);
        });
    }

    #[test]
    fn directories_beyond_the_limit_wait_for_others() {
        run(async {
            let (paths, mut answers) = SocketPaths::new(look);
            let all: Vec<_> = (0..100)
                .map(|n| PathBuf::from(format!("/socket_paths/many-{n}/a")))
                .collect();
            all.iter().for_each(|path| drop(paths.target(path)));
            paths.end_round();
            assert_eq!(paths.busy.borrow().len(), LOOKS_MAX);
            while all.iter().any(|path| paths.target(path).is_none()) {
                paths.take(answers.recv().await.unwrap());
                assert!(paths.busy.borrow().len() <= LOOKS_MAX);
            }
        });
    }
}
