//! The thread that talks to servers of shared state.

use std::future::pending;
use std::thread;

use parking_lot::Mutex;
use tokio::runtime::{Builder, Handle};
use tokio::task::AbortHandle;

use crate::sys;

/// The runtime of the thread, once there is one.
static THREAD: Mutex<Option<Handle>> = Mutex::new(None);

/// Runs a task on the thread that talks to servers, which the first one makes. Where no thread can
/// be made, the caller's runtime runs the task.
pub(in crate::control) fn spawn(task: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
    let mut thread = THREAD.lock();
    if thread.is_none() {
        *thread = begin();
    }
    match &*thread {
        Some(runtime) => runtime.spawn(task).abort_handle(),
        None => tokio::spawn(task).abort_handle(),
    }
}

fn begin() -> Option<Handle> {
    let runtime = Builder::new_current_thread().enable_all().build().ok()?;
    let handle = runtime.handle().clone();
    let run = move || {
        // Keeping it would change nothing about what the thread can do.
        let _ = sys::done_with_rings();
        runtime.block_on(pending::<()>());
    };
    let thread = thread::Builder::new().name("remote".to_owned());
    thread.spawn(run).ok().map(|_| handle)
}
