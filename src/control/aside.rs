//! Calls that may wait for a disk or another process, or that compute for long, on threads of their
//! own: the control thread awaits the outcome, or goes on without it.
//!
//! Threads are kept for the next call. A call hangs when its file is on a server that does not
//! answer; its thread then stays until the kernel returns. The number of threads is bounded. Files
//! that are looked at again and again have threads of their own ([`look`]), and each file one at
//! most: however many hang, the calls of operators find a thread.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use crate::sys;

/// Begins a call that an operator asked for, once a thread is free. The receiver gets its outcome.
/// The end of the process does not wait for it.
pub(super) fn begin<T: Send + 'static>(
    call: impl FnOnce() -> T + Send + 'static,
) -> oneshot::Receiver<T> {
    ASKED.begin(call)
}

/// The same for what takes long and waits for nothing, such as the text of a long answer. Calls
/// that hang can't delay it.
pub(crate) fn compute<T: Send + 'static>(
    call: impl FnOnce() -> T + Send + 'static,
) -> oneshot::Receiver<T> {
    COMPUTING.begin(call)
}

/// The same for requests that take long to read, one after the other. It takes no thread from
/// answers.
pub(crate) fn read_request<T: Send + 'static>(
    call: impl FnOnce() -> T + Send + 'static,
) -> oneshot::Receiver<T> {
    REQUESTS.begin(call)
}

/// The same for questions to the history: its file may not answer.
pub(super) fn consult<T: Send + 'static>(
    call: impl FnOnce() -> T + Send + 'static,
) -> oneshot::Receiver<T> {
    CONSULTED.begin(call)
}

/// The same for files that are closed and removed, one after the other. It takes no thread from
/// operators' calls.
pub(crate) fn close<T: Send + 'static>(
    call: impl FnOnce() -> T + Send + 'static,
) -> oneshot::Receiver<T> {
    CLOSING.begin(call)
}

/// The same for what is read again and again. It takes no thread from operators' calls.
pub(super) fn read<T: Send + 'static>(
    call: impl FnOnce() -> T + Send + 'static,
) -> oneshot::Receiver<T> {
    WATCHED.threads.begin(call)
}

/// Looks at a watched file, once no other look at it is under way.
///
/// # Errors
/// No thread can be made.
pub(super) async fn look<T: Send + 'static>(
    path: &Path,
    call: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    WATCHED.look(path, call).await
}

/// Looks at paths of Unix sockets, or connects to one, once no other such call in their directory
/// is under way: a file system that hangs holds one thread for each directory.
///
/// # Errors
/// No thread can be made.
pub(super) async fn reach<T: Send + 'static>(
    directory: &Path,
    call: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    REACHED.look(directory, call).await
}

/// The directory of a path, as it is written.
pub(super) fn directory(path: &Path) -> &Path {
    path.parent().unwrap_or(path)
}

/// Watched files, and the threads that look at them.
struct Watched {
    threads: Threads,
    /// Files that are looked at now.
    busy: Mutex<BTreeSet<PathBuf>>,
}

impl Watched {
    const fn new(max: usize) -> Self {
        Self {
            threads: Threads::new(max),
            busy: Mutex::new(BTreeSet::new()),
        }
    }

    async fn look<T: Send + 'static>(
        &'static self,
        path: &Path,
        call: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<T> {
        let mut pause = BUSY_PAUSE_MIN;
        let busy = loop {
            if let Some(busy) = self.mark_busy(path) {
                break busy;
            }
            tokio::time::sleep(pause).await;
            pause = BUSY_PAUSE_MAX.min(pause * 2);
        };
        let outcome = self.threads.begin(move || {
            let _busy = busy;
            call()
        });
        let no_thread = |_| io::Error::other("no thread can be created");
        outcome.await.map_err(no_thread)
    }

    /// `None`: another look at the file is under way.
    fn mark_busy(&'static self, path: &Path) -> Option<Busy> {
        let path = path.to_owned();
        let is_first = self.busy.lock().insert(path.clone());
        // Lazily: the drop of a `Busy` ends the other look's mark.
        is_first.then(|| Busy { of: self, path })
    }
}

/// A look at a file is under way, until this is dropped.
struct Busy {
    of: &'static Watched,
    path: PathBuf,
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.of.busy.lock().remove(&self.path);
    }
}

type Call = Box<dyn FnOnce() + Send>;

/// A bounded number of threads, each made when a call finds none idle.
struct Threads {
    max: usize,
    state: Mutex<State>,
    /// A call waits.
    called: Condvar,
}

struct State {
    calls: VecDeque<Call>,
    threads: usize,
    /// Threads that wait for a call.
    idle: usize,
}

impl Threads {
    const fn new(max: usize) -> Self {
        Self {
            max,
            state: Mutex::new(State {
                calls: VecDeque::new(),
                threads: 0,
                idle: 0,
            }),
            called: Condvar::new(),
        }
    }

    fn begin<T: Send + 'static>(
        &'static self,
        call: impl FnOnce() -> T + Send + 'static,
    ) -> oneshot::Receiver<T> {
        let (done, outcome) = oneshot::channel();
        self.take(Box::new(move || {
            // The receiver may be gone.
            let _ = done.send(call());
        }));
        outcome
    }

    fn take(&'static self, call: Call) {
        let mut state = self.state.lock();
        state.calls.push_back(call);
        if state.idle >= state.calls.len() {
            self.called.notify_one();
            return;
        }
        if state.threads == self.max {
            return;
        }
        let thread = thread::Builder::new().name("aside".to_owned());
        if thread.spawn(|| self.work()).is_ok() {
            state.threads += 1;
        } else if state.threads == 0 {
            // Their receivers get an error.
            state.calls.clear();
        }
    }

    fn work(&self) {
        // Keeping it would change nothing about what a call can do.
        let _ = sys::done_with_rings();
        let mut state = self.state.lock();
        loop {
            if let Some(call) = state.calls.pop_front() {
                drop(state);
                call();
                state = self.state.lock();
                continue;
            }
            state.idle += 1;
            let timed_out = self.called.wait_for(&mut state, KEPT).timed_out();
            state.idle -= 1;
            if timed_out && state.calls.is_empty() {
                state.threads -= 1;
                return;
            }
        }
    }
}

/// Runs what operators ask for: each kind of call is under way a few times at most.
static ASKED: Threads = Threads::new(ASKED_MAX);
/// Runs looks at watched files.
static WATCHED: Watched = Watched::new(WATCHED_MAX);
/// Reaches for Unix sockets.
static REACHED: Watched = Watched::new(REACHED_MAX);
/// Answers from the history.
static CONSULTED: Threads = Threads::new(CONSULTED_MAX);
/// Closes and removes files.
static CLOSING: Threads = Threads::new(1);
/// Reads requests.
static REQUESTS: Threads = Threads::new(1);
/// Runs what computes for long.
static COMPUTING: Threads = Threads::new(COMPUTING_MAX);
const ASKED_MAX: usize = 16;
/// Workers need the CPUs more.
const COMPUTING_MAX: usize = 2;
/// One goes on where the file hangs for others.
const CONSULTED_MAX: usize = 3;
/// When so many files hang, others are looked at late.
const WATCHED_MAX: usize = 48;
/// When Unix sockets hang in so many directories, others are looked at late, and probed late.
const REACHED_MAX: usize = 48;
/// From one check whether another look at the same file has ended to the next: short at first, as a
/// probe may wait for its certificates, then ever longer, as the file may hang.
const BUSY_PAUSE_MIN: Duration = Duration::from_millis(2);
const BUSY_PAUSE_MAX: Duration = Duration::from_millis(200);
/// How long a thread waits for another call: longer than from one look at a file to the next.
const KEPT: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    fn run<T>(future: impl Future<Output = T>) -> T {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_time().build().unwrap().block_on(future)
    }

    /// Threads that no other test uses.
    fn own<T>(threads: T) -> &'static T {
        Box::leak(Box::new(threads))
    }

    #[test]
    fn a_call_that_hangs_delays_no_other() {
        let threads = own(Threads::new(2));
        run(async {
            let (release, held) = std::sync::mpsc::channel::<()>();
            let hanging = threads.begin(move || held.recv().is_err());
            for n in 0..100 {
                assert_eq!(threads.begin(move || n).await, Ok(n));
            }
            drop(release);
            assert_eq!(hanging.await, Ok(true));
        });
    }

    #[test]
    fn a_file_that_hangs_holds_one_thread_and_delays_no_other_file() {
        let watched = own(Watched::new(WATCHED_MAX));
        run(async {
            let (release, held) = crossbeam::channel::bounded::<()>(0);
            let path = Path::new("/hangs");
            let hang = || {
                let held = held.clone();
                move || held.recv().is_err()
            };
            // Each is given up, as by a task that ends.
            for _ in 0..3 {
                let hanging = watched.look(path, hang());
                let given_up = tokio::time::timeout(Duration::from_millis(20), hanging).await;
                assert!(given_up.is_err());
            }
            assert_eq!(watched.threads.state.lock().threads, 1);
            assert_eq!(watched.look(Path::new("/other"), || 1).await.unwrap(), 1);
            drop(release);
            assert_eq!(watched.look(path, || 3).await.unwrap(), 3);
        });
    }

    #[test]
    fn calls_wait_while_all_threads_hang() {
        let threads = own(Threads::new(ASKED_MAX));
        run(async {
            let (release, held) = crossbeam::channel::bounded::<()>(0);
            let calls = (0..ASKED_MAX + 10).map(|_| {
                let held = held.clone();
                threads.begin(move || held.recv().is_err())
            });
            let calls: Vec<_> = calls.collect();
            assert_eq!(threads.state.lock().threads, ASKED_MAX);
            drop(release);
            for call in calls {
                assert_eq!(call.await, Ok(true));
            }
        });
    }
}
