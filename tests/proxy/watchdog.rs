//! Nothing here may hang, and what loads the machine runs one at a time.

use std::panic;
use std::sync::{Once, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};

/// Runs a test body, which fails when it takes longer than any busy machine would need.
pub(crate) fn within(limit: Duration, test: impl FnOnce() + Send + 'static) {
    static ROOM_FOR_ALL: Once = Once::new();
    // Tests run side by side, one per CPU, in this one process: the common soft limit of 1,024
    // descriptors is not enough for many. A balancer would raise its own in any case.
    ROOM_FOR_ALL.call_once(|| {
        mahoraga::sys::raise_descriptor_limit();
    });
    let (done, watch) = mpsc::channel();
    let name = thread::current().name().unwrap_or("test").to_owned();
    let body = thread::Builder::new().name(name).spawn(move || {
        // Dropped by a panic too.
        let _done: mpsc::Sender<()> = done;
        test();
    });
    let body = body.unwrap();
    if watch.recv_timeout(limit) == Err(mpsc::RecvTimeoutError::Timeout) {
        panic!("the test hangs: it took longer than {limit:?}");
    }
    if let Err(payload) = body.join() {
        panic::resume_unwind(payload);
    }
}

/// [`within`] a minute.
pub(crate) fn watched(test: impl FnOnce() + Send + 'static) {
    within(Duration::from_secs(60), test);
}

/// [`within`] three minutes, and not beside another test that loads the machine.
pub(crate) fn heavy(test: impl FnOnce() + Send + 'static) {
    static ONE: Mutex<()> = Mutex::new(());
    let _one: MutexGuard<'_, ()> = ONE.lock();
    within(Duration::from_secs(180), test);
}

/// Waits until something holds, and fails when it does not within 20 s.
#[track_caller]
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "never happened: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}
