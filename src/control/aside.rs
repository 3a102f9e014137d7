//! Calls that may wait for a disk or another process, on threads of their own: the control thread
//! awaits the outcome, or goes on without it.
//!
//! Threads are kept for the next call. One that hangs, as its file is on a server that is away,
//! stays until the kernel lets go of it; so many may hang and no more.

use std::collections::VecDeque;
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

/// Begins a call; its outcome comes as soon as it ends. Without a free thread it waits for one.
/// The process does not wait for it at its end.
pub(super) fn begin<T: Send + 'static>(
    call: impl FnOnce() -> T + Send + 'static,
) -> oneshot::Receiver<T> {
    let (done, outcome) = oneshot::channel();
    let pool = POOL.get_or_init(Pool::default);
    pool.take(Box::new(move || {
        // The receiver may be gone.
        let _ = done.send(call());
    }));
    outcome
}

type Call = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct Pool {
    state: Mutex<State>,
    /// A call waits.
    called: Condvar,
}

#[derive(Default)]
struct State {
    calls: VecDeque<Call>,
    threads: usize,
    /// Threads that wait for a call.
    idle: usize,
}

impl Pool {
    fn take(&'static self, call: Call) {
        let mut state = self.state.lock();
        state.calls.push_back(call);
        if state.idle >= state.calls.len() {
            self.called.notify_one();
            return;
        }
        if state.threads == THREADS_MAX {
            return;
        }
        let thread = thread::Builder::new().name("aside".to_owned());
        if thread.spawn(|| self.work()).is_ok() {
            state.threads += 1;
        } else if state.threads == 0 {
            // Dropped calls tell those who wait for them.
            state.calls.clear();
        }
    }

    fn work(&self) {
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

static POOL: OnceLock<Pool> = OnceLock::new();
/// More than files that may hang at a time: each follower of a file has one call under way.
const THREADS_MAX: usize = 64;
/// How long a thread waits for another call: longer than from one look at a file to the next.
const KEPT: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    fn run<T>(future: impl Future<Output = T>) -> T {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_time().build().unwrap().block_on(future)
    }

    #[test]
    fn a_call_that_hangs_delays_no_other() {
        run(async {
            let (release, held) = std::sync::mpsc::channel::<()>();
            let hanging = begin(move || held.recv().is_err());
            for n in 0..100 {
                assert_eq!(begin(move || n).await, Ok(n));
            }
            drop(release);
            assert_eq!(hanging.await, Ok(true));
        });
    }

    #[test]
    fn calls_wait_while_all_threads_hang() {
        run(async {
            let (release, held) = crossbeam::channel::bounded::<()>(0);
            let calls = (0..THREADS_MAX + 10).map(|_| {
                let held = held.clone();
                begin(move || held.recv().is_err())
            });
            let calls: Vec<_> = calls.collect();
            drop(release);
            for call in calls {
                assert_eq!(call.await, Ok(true));
            }
        });
    }
}
