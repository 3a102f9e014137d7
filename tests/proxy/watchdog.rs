//! No test may hang, and tests that load the machine run one at a time.

use std::sync::{Once, OnceLock, mpsc};
use std::time::{Duration, Instant};
use std::{env, panic, thread};

use parking_lot::{Mutex, MutexGuard};

/// The longest wait for an event that is immediate on a quiet machine: 20 s, in proportion.
pub(crate) fn patience() -> Duration {
    patient(Duration::from_secs(20))
}

/// A limit of time, multiplied by [`slowness`].
pub(crate) fn patient(limit: Duration) -> Duration {
    limit * slowness()
}

/// A time in a configuration, in proportion to [`patient`]: a time within which work on a quiet
/// machine ends, or the pace of probes, which would fill an emulated machine.
pub(crate) fn time(ms: u64) -> String {
    format!("{}ms", patient(Duration::from_millis(ms)).as_millis())
}

/// How much slower this machine is than a common one, such as an emulated one
/// (scripts/old-kernels.sh): the variable `MAHORAGA_TEST_PATIENCE` (default 1).
pub(crate) fn slowness() -> u32 {
    static FACTOR: OnceLock<u32> = OnceLock::new();
    let read = || env::var("MAHORAGA_TEST_PATIENCE").map_or(1, |factor| factor.parse().unwrap());
    *FACTOR.get_or_init(read)
}

/// Runs a test body, and fails it when it takes longer than any busy machine would need.
pub(crate) fn within(limit: Duration, test: impl FnOnce() + Send + 'static) {
    let limit = patient(limit);
    static ROOM_FOR_ALL: Once = Once::new();
    // Tests run side by side, one per CPU, in this one process: the common soft limit of 1,024
    // descriptors is too low for many. A balancer would raise its own in any case.
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

/// Waits until something holds, and fails when it does not within [`patience`].
#[track_caller]
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + patience();
    while !holds() {
        assert!(Instant::now() < deadline, "never happened: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}
