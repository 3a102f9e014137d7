//! A file or stream that a thread of its own writes to, so that a slow disk or a pipe without a
//! reader blocks nothing else.
//!
//! Records wait in a bounded queue. When it is full, a record is given back, or dropped and
//! counted: the caller never blocks.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crossbeam::channel::{self, Receiver, RecvTimeoutError, Sender, TrySendError};
use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use crate::sys;
use crate::time::between;

/// The sending end of the queue. When the last one is dropped, the thread writes the records that
/// wait, and ends.
#[derive(Debug)]
pub struct Writer {
    jobs: Sender<Job>,
    shared: Arc<Shared>,
}

/// The callbacks of the thread that writes.
pub trait Outlet: Send + 'static {
    /// Opens the file again after a rotation. `None`: it is a stream, which stays open.
    ///
    /// # Errors
    /// The thread goes on writing to the old file.
    fn open_again(&mut self) -> io::Result<Option<File>> {
        Ok(None)
    }

    /// A record that could not be written.
    fn lost(&mut self, record: Vec<u8>, error: &io::Error);

    /// A record was written: there is room again.
    fn written(&mut self) {}

    /// [`Self::open_again`] failed, and is tried again each second.
    fn not_opened(&mut self, _error: &io::Error) {}

    /// [`Self::open_again`] succeeded after it had failed.
    fn opened_again(&mut self) {}
}

#[derive(Debug)]
enum Job {
    Record(Vec<u8>),
    OpenAgain(oneshot::Sender<Result<(), String>>),
}

#[derive(Debug, Default)]
struct Shared {
    /// Bytes that wait, and records that wait or are being written.
    bytes: AtomicUsize,
    records: AtomicUsize,
    dropped: AtomicU64,
    /// Whether to open the file again: the queue had no room for the request.
    open_again: AtomicBool,
    /// Held while [`Writer::flush`] looks at the count, and while `wrote` is notified.
    idle: Mutex<()>,
    /// Notified when the last record is written.
    wrote: Condvar,
}

impl Writer {
    /// Writes to `file` from a thread of this name.
    ///
    /// # Errors
    /// The thread can't be made.
    pub fn start(name: &str, file: File, outlet: impl Outlet) -> io::Result<Self> {
        let (jobs, waiting) = channel::bounded(RECORDS_MAX);
        let shared = Arc::new(Shared::default());
        let of_thread = Arc::clone(&shared);
        let thread = thread::Builder::new().name(name.to_owned());
        let work = move || {
            // A failure leaves a right that the thread has no use for.
            let _ = sys::done_with_rings();
            run(file, outlet, &waiting, &of_thread);
        };
        // Signals are the main thread's business, which changes what they do at times.
        sys::with_signals_blocked(|| thread.spawn(work))?;
        Ok(Self { jobs, shared })
    }

    /// Queues a record, which will be written whole.
    ///
    /// # Errors
    /// The record itself, when there is no room.
    pub fn push(&self, record: Vec<u8>) -> Result<(), Vec<u8>> {
        let length = record.len();
        let waiting = self.shared.bytes.fetch_add(length, Ordering::Relaxed);
        self.shared.records.fetch_add(1, Ordering::AcqRel);
        let refused = if waiting + length > BYTES_MAX {
            record
        } else {
            match self.jobs.try_send(Job::Record(record)) {
                Ok(()) => return Ok(()),
                Err(TrySendError::Full(Job::Record(record))) => record,
                Err(TrySendError::Disconnected(Job::Record(record))) => record,
                Err(_) => Vec::new(),
            }
        };
        self.shared.bytes.fetch_sub(length, Ordering::Relaxed);
        self.shared.records.fetch_sub(1, Ordering::AcqRel);
        Err(refused)
    }

    /// Queues a record, or drops and counts it.
    pub fn push_or_drop(&self, record: Vec<u8>) {
        if self.push(record).is_err() {
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Opens the file again once the records that wait are written. Answers when that is done, or
    /// with why the first attempt failed. There is no answer while the file accepts no records.
    #[must_use]
    pub fn open_again(&self) -> oneshot::Receiver<Result<(), String>> {
        let (done, outcome) = oneshot::channel();
        if let Err(refused) = self.jobs.try_send(Job::OpenAgain(done)) {
            self.shared.open_again.store(true, Ordering::Release);
            if let Job::OpenAgain(done) = refused.into_inner() {
                let _ = done.send(Err("its queue is full".to_owned()));
            }
        }
        outcome
    }

    /// Records that [`Self::push_or_drop`] dropped.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }

    /// Waits until all records are written, for at most `within`. Returns whether they are.
    pub fn flush(&self, within: Duration) -> bool {
        let shared = &*self.shared;
        let has_records = |(): &mut ()| shared.records.load(Ordering::Acquire) > 0;
        let mut idle = shared.idle.lock();
        let _ = shared.wrote.wait_while_for(&mut idle, has_records, within);
        !has_records(&mut idle)
    }
}

fn run(mut file: File, mut outlet: impl Outlet, jobs: &Receiver<Job>, shared: &Shared) {
    let mut failed = false;
    let mut tried = sys::monotonic();
    loop {
        let job = if failed {
            jobs.recv_timeout(REOPEN_PAUSE.saturating_sub(since(tried)))
        } else {
            jobs.recv().map_err(|_| RecvTimeoutError::Disconnected)
        };
        // Also where records come more often than that.
        let due = failed && since(tried) >= REOPEN_PAUSE;
        if shared.open_again.swap(false, Ordering::AcqRel) || due {
            let _ = open_again(&mut file, &mut outlet, &mut failed);
            tried = sys::monotonic();
        }
        match job {
            Ok(Job::Record(record)) => {
                shared.bytes.fetch_sub(record.len(), Ordering::Relaxed);
                match write(&mut file, &record) {
                    Ok(()) => outlet.written(),
                    Err(error) => outlet.lost(record, &error),
                }
                if shared.records.fetch_sub(1, Ordering::AcqRel) == 1 {
                    let _idle = shared.idle.lock();
                    shared.wrote.notify_all();
                }
            }
            Ok(Job::OpenAgain(done)) => {
                // The receiver may be gone.
                let _ = done.send(open_again(&mut file, &mut outlet, &mut failed));
                tried = sys::monotonic();
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

fn since(earlier: u64) -> Duration {
    between(earlier, sys::monotonic())
}

/// Opens the file again. `failed`: whether the previous attempt failed.
fn open_again(file: &mut File, outlet: &mut impl Outlet, failed: &mut bool) -> Result<(), String> {
    match outlet.open_again() {
        Ok(opened) => {
            if let Some(opened) = opened {
                *file = opened;
            }
            if std::mem::take(failed) {
                outlet.opened_again();
            }
            Ok(())
        }
        Err(error) => {
            if !std::mem::replace(failed, true) {
                outlet.not_opened(&error);
            }
            Err(error.to_string())
        }
    }
}

/// Writes a whole record. Waits at a nonblocking pipe too: another process may have made it so.
fn write(file: &mut File, mut record: &[u8]) -> io::Result<()> {
    while !record.is_empty() {
        match file.write(record) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(written) => record = &record[written..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::park_timeout(ROOM),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The most records that wait.
pub(crate) const RECORDS_MAX: usize = 8_192;
/// The most bytes that wait.
const BYTES_MAX: usize = 4 << 20;
/// The pause between two attempts to open a rotated file.
const REOPEN_PAUSE: Duration = Duration::from_secs(1);
/// The pause between two attempts to write to a full nonblocking pipe.
const ROOM: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::fd::OwnedFd;

    use super::*;

    struct Counting(Sender<Vec<u8>>);

    impl Outlet for Counting {
        fn lost(&mut self, record: Vec<u8>, _error: &io::Error) {
            let _ = self.0.send(record);
        }
    }

    #[test]
    fn a_pipe_without_a_reader_blocks_no_caller() {
        let (mut reader, writer) = io::pipe().unwrap();
        let (lost, _) = channel::unbounded();
        let file = File::from(OwnedFd::from(writer));
        let queue = Writer::start("test", file, Counting(lost)).unwrap();
        let record = vec![b'x'; 16 << 10];
        for _ in 0..1_000 {
            queue.push_or_drop(record.clone());
        }
        assert!(!queue.flush(Duration::from_millis(20)));
        let dropped = usize::try_from(queue.dropped()).unwrap();
        assert!((1..1_000).contains(&dropped), "{dropped}");
        drop(queue);
        let mut all = Vec::new();
        reader.read_to_end(&mut all).unwrap();
        assert_eq!(all.len(), (1_000 - dropped) * record.len());
    }

    /// Can't be opened again the first time.
    struct Stubborn {
        tries: u32,
        opened: Sender<()>,
    }

    impl Outlet for Stubborn {
        fn open_again(&mut self) -> io::Result<Option<File>> {
            self.tries += 1;
            match self.tries {
                1 => Err(ErrorKind::NotFound.into()),
                _ => Ok(None),
            }
        }

        fn lost(&mut self, _record: Vec<u8>, _error: &io::Error) {}

        fn opened_again(&mut self) {
            let _ = self.opened.send(());
        }
    }

    #[test]
    fn a_file_is_opened_again_while_records_keep_coming() {
        let (_reader, writer) = io::pipe().unwrap();
        let (opened, openings) = channel::unbounded();
        let file = File::from(OwnedFd::from(writer));
        let outlet = Stubborn { tries: 0, opened };
        let queue = Writer::start("test", file, outlet).unwrap();
        let failed = queue.open_again().blocking_recv().unwrap();
        assert!(failed.is_err());
        let often = REOPEN_PAUSE / 10;
        let found = (0..300).any(|_| {
            queue.push_or_drop(b"x".to_vec());
            openings.recv_timeout(often).is_ok()
        });
        assert!(found, "never opened again");
    }

    #[test]
    fn a_record_that_the_other_end_refuses_is_handed_to_the_outlet() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let (lost, losses) = channel::unbounded();
        let file = File::from(OwnedFd::from(writer));
        let queue = Writer::start("test", file, Counting(lost)).unwrap();
        queue.push(b"hello".to_vec()).unwrap();
        assert!(queue.flush(Duration::from_secs(5)));
        assert_eq!(losses.try_recv().unwrap(), b"hello");
    }
}
