//! The access log: one line per session, written through the control thread's ring.

use std::cell::{Cell, RefCell};
use std::fs::{self, TryLockError};
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crossbeam::channel::{Receiver, TryRecvError};
use tokio::sync::{Notify, oneshot};
use tokio_uring::fs::File;

use crate::config::{AccessLog, LogSink};
use crate::sys::{self, Doorbell};
use crate::time::SECOND;
use crate::wording::plural;
use crate::worker::{Record, Stats};

use super::{StartError, aside};

mod line;

use line::write_line;

/// Where lines go.
pub(super) struct Sink {
    log: AccessLog,
    file: fs::File,
}

impl Sink {
    fn path(&self) -> Option<PathBuf> {
        match &self.log.to {
            LogSink::Stdout => None,
            LogSink::File(path) => Some(path.clone()),
        }
    }

    /// Opens it, before anything listens: a mistake is reported at once.
    pub(super) fn open(log: &AccessLog) -> Result<Self, StartError> {
        let file = open(&log.to).map_err(|error| StartError::AccessLog {
            path: match &log.to {
                LogSink::Stdout => "-".to_owned(),
                LogSink::File(path) => path.display().to_string(),
            },
            error,
        })?;
        Ok(Self {
            log: log.clone(),
            file,
        })
    }

    /// Warns if another process writes this file: two balancers that start in one directory do.
    pub(super) fn warn_if_shared(&self) {
        if let Some(path) = self.path()
            && matches!(self.file.try_lock(), Err(TryLockError::WouldBlock))
        {
            log::warn!(
                "another process writes the access log {} too: give this balancer another file",
                path.display()
            );
        }
    }
}

fn open(to: &LogSink) -> io::Result<fs::File> {
    match to {
        LogSink::Stdout => Ok(io::stdout().as_fd().try_clone_to_owned()?.into()),
        LogSink::File(path) => sys::open_to_append(path, MODE),
    }
}

/// Requests to the running writer.
#[derive(Default)]
pub(super) struct Orders {
    /// The file that lines go to, if it is one.
    path: RefCell<Option<PathBuf>>,
    /// A task opens the file again.
    opening: Cell<bool>,
    /// The file was rotated since the task last opened it.
    rotated: Cell<bool>,
    /// Callers that wait for the outcome.
    asked: RefCell<Vec<Asked>>,
    /// The file was opened again: lines go there from now on.
    opened: RefCell<Option<Opened>>,
    /// The log that replaces this one after its last line.
    next: RefCell<Option<Log>>,
    /// Wakes the writer while it waits for a write.
    given: Notify,
    /// Writes that were given up and have not ended. Each keeps a thread of the kernel, a
    /// descriptor and its lines.
    stuck: Cell<usize>,
}

/// Where the outcome of opening the file again goes.
type Asked = oneshot::Sender<Result<(), String>>;

/// The file that was opened again, and the callers that wait until lines go there.
struct Opened {
    file: fs::File,
    asked: Vec<Asked>,
}

/// Where records arrive, and where their lines go; `None`: nowhere.
pub(super) struct Log {
    pub(super) sink: Option<Sink>,
    pub(super) records: Receiver<Record>,
}

impl Orders {
    /// Opens the file again. Until that succeeds, lines go to the old file, and it is tried each
    /// second. Answers once lines go to the new file, or with why the first try failed. If a reload
    /// replaces the log meanwhile, the sender is dropped.
    pub(super) fn reopen(
        self: &Rc<Self>,
        doorbell: &Arc<Doorbell>,
    ) -> oneshot::Receiver<Result<(), String>> {
        let (done, outcome) = oneshot::channel();
        let mut asked = self.asked.borrow_mut();
        // Earlier callers may have gone away, while the file system does not answer.
        asked.retain(|one| !one.is_closed());
        asked.push(done);
        drop(asked);
        self.rotated.set(true);
        if !self.opening.replace(true) {
            tokio_uring::spawn(Rc::clone(self).open_again(Arc::clone(doorbell)));
        }
        outcome
    }

    async fn open_again(self: Rc<Self>, doorbell: Arc<Doorbell>) {
        let mut failed = false;
        while self.rotated.replace(false) {
            let Some(path) = self.path.borrow().clone() else {
                break;
            };
            let its = path.clone();
            let mut asked = self.asked.take();
            let opened = aside::begin(move || sys::open_to_append(&its, MODE)).await;
            let opened =
                opened.unwrap_or_else(|_| Err(io::Error::other("no thread can be created")));
            // A reload may have replaced the log.
            if self.path.borrow().as_ref() != Some(&path) {
                self.rotated.set(true);
                self.asked.borrow_mut().append(&mut asked);
                continue;
            }
            match opened {
                Ok(file) => {
                    if std::mem::take(&mut failed) {
                        log::info!("the access log {} is open again", path.display());
                    }
                    if let Some(mut before) = self.opened.take() {
                        asked.append(&mut before.asked);
                    }
                    self.opened.replace(Some(Opened { file, asked }));
                    self.wake(&doorbell);
                }
                Err(error) => {
                    answer(asked, &Err(error.to_string()));
                    if !std::mem::replace(&mut failed, true) {
                        let path = path.display();
                        log::error!(
                            "cannot open the access log {path} again: {error}; lines go to the \
                             old file, and opening is tried again each second"
                        );
                    }
                    self.rotated.set(true);
                    tokio::time::sleep(REOPEN_PAUSE).await;
                }
            }
        }
        self.asked.take();
        self.opening.set(false);
    }

    /// The file that lines go to, if it is one.
    pub(super) fn path(&self) -> Option<PathBuf> {
        self.path.borrow().clone()
    }

    /// Switches to another log, which the workers send records to from now on, or are about to.
    pub(super) fn switch(&self, log: Log, doorbell: &Doorbell) {
        self.path.replace(log.sink.as_ref().and_then(Sink::path));
        self.opened.take();
        self.next.replace(Some(log));
        self.wake(doorbell);
    }

    fn wake(&self, doorbell: &Doorbell) {
        self.given.notify_one();
        doorbell.wake();
    }

    /// Waits for a write that was given up.
    fn give_up(self: &Rc<Self>, write: impl Future + 'static) {
        self.stuck.set(self.stuck.get() + 1);
        let orders = Rc::clone(self);
        tokio_uring::spawn(async move {
            drop(write.await);
            orders.stuck.set(orders.stuck.get() - 1);
        });
    }

    /// Waits until a write that takes so long may be given up, as there is a request.
    async fn may_give_up(&self, patience: Duration) {
        self.given().await;
        tokio::time::sleep(patience).await;
        while self.stuck.get() >= STUCK_MAX {
            tokio::time::sleep(patience).await;
        }
    }

    /// Waits until there is a request to the writer.
    async fn given(&self) {
        while self.opened.borrow().is_none() && self.next.borrow().is_none() {
            self.given.notified().await;
        }
    }
}

/// Answers the callers that still wait.
fn answer(asked: Vec<Asked>, outcome: &Result<(), String>) {
    for asked in asked {
        let _ = asked.send(outcome.clone());
    }
}

/// Writes the lines of all workers, in batches.
pub(super) struct AccessLogWriter {
    log: Option<(AccessLog, File)>,
    records: Receiver<Record>,
    doorbell: Arc<Doorbell>,
    orders: Rc<Orders>,
    stats: Vec<Arc<Stats>>,
    /// The worker of each line of the batch.
    workers: Vec<u32>,
    /// Lines that were reported as lost so far.
    reported: u64,
    /// When they were reported, in ns of the workers' clock.
    reported_at: u64,
    /// How long a write may take once lines are to go elsewhere.
    patience: Duration,
}

impl AccessLogWriter {
    pub(super) fn new(
        log: Log,
        doorbell: &Arc<Doorbell>,
        orders: &Rc<Orders>,
        stats: Vec<Arc<Stats>>,
    ) -> Self {
        orders.path.replace(log.sink.as_ref().and_then(Sink::path));
        Self {
            log: log.sink.map(|sink| (sink.log, File::from_std(sink.file))),
            records: log.records,
            doorbell: Arc::clone(doorbell),
            orders: Rc::clone(orders),
            stats,
            workers: Vec::new(),
            reported: 0,
            reported_at: 0,
            patience: PATIENCE,
        }
    }

    /// Writes until the doorbell is closed and the queue empty.
    pub(super) async fn run(mut self) {
        let bell = match self.doorbell.eventfd().try_clone() {
            Ok(eventfd) => File::from_std(fs::File::from(eventfd)),
            Err(error) => return log::error!("cannot write the access log: {error}"),
        };
        let mut batch = String::new();
        loop {
            let closing = self.doorbell.is_closed();
            let drained = self.fill(&mut batch);
            if !batch.is_empty() {
                batch = self.write(batch).await;
                self.report_lost(false);
                continue;
            }
            if let Some(opened) = self.orders.opened.take()
                && let Some((_, file)) = &mut self.log
            {
                close(std::mem::replace(file, File::from_std(opened.file)));
                answer(opened.asked, &Ok(()));
            }
            self.report_lost(closing);
            if closing {
                return;
            }
            if self.orders.next.borrow().is_some() {
                if drained {
                    self.switch();
                } else {
                    // A worker still sends records to the old log.
                    tokio::time::sleep(BATCH_WAIT).await;
                }
                continue;
            }
            self.doorbell.sleep();
            if !self.records.is_empty() {
                continue;
            }
            // Whatever the outcome is, the queue is looked at again.
            let mut rung = pin!(bell.read_at(vec![0; 8], 0));
            loop {
                tokio::select! {
                    _ = &mut rung => break,
                    () = tokio::time::sleep(REPORT_PAUSE), if self.has_lost() => {
                        self.report_lost(true);
                    }
                }
            }
            // Lines are collected: to wake the writer for each line would cost the workers a system
            // call.
            tokio::time::sleep(BATCH_WAIT).await;
        }
    }

    /// Takes the waiting lines. `true`: no worker sends any more.
    fn fill(&mut self, batch: &mut String) -> bool {
        while batch.len() < BATCH_BYTES {
            match self.records.try_recv() {
                Ok(record) => {
                    if let Some((log, _)) = &self.log {
                        write_line(batch, &record, log.format);
                        self.workers.push(record.worker);
                    }
                }
                Err(error) => return error == TryRecvError::Disconnected,
            }
        }
        false
    }

    /// Switches to the next log.
    fn switch(&mut self) {
        let Some(next) = self.orders.next.take() else {
            return;
        };
        self.records = next.records;
        let log = next.sink.map(|sink| (sink.log, File::from_std(sink.file)));
        if let Some((_, old)) = std::mem::replace(&mut self.log, log) {
            close(old);
        }
    }

    /// Writes the whole batch, and returns its memory for the next one.
    async fn write(&mut self, batch: String) -> String {
        let mut bytes = batch.into_bytes();
        let workers = std::mem::take(&mut self.workers);
        let Some((_, file)) = &self.log else {
            return String::new();
        };
        // The last lines of the batch.
        let lose = |lines: usize| {
            for &worker in workers.iter().rev().take(lines) {
                self.stats[worker as usize].log_unwritten.increment();
            }
        };
        let lines = |bytes: &[u8]| bytes.iter().filter(|&&byte| byte == b'\n').count();
        while !bytes.is_empty() {
            let left = lines(&bytes);
            // At the file's own position, which is its end, as it is opened to append.
            let mut write = Box::pin(file.write_at(bytes, u64::MAX).submit());
            let (outcome, rest) = tokio::select! {
                biased;
                written = &mut write => written,
                // The reader of the old file may never read again.
                () = self.orders.may_give_up(self.patience) => {
                    lose(left);
                    self.orders.give_up(write);
                    return String::new();
                }
            };
            bytes = rest;
            match outcome {
                Ok(written) if written > 0 => {
                    bytes.drain(..written);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // A full pipe that another process made nonblocking.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    tokio::time::sleep(BATCH_WAIT).await;
                }
                Ok(_) | Err(_) => {
                    lose(left);
                    bytes.clear();
                }
            }
        }
        String::from_utf8(bytes).unwrap_or_default()
    }

    /// Lines that came too fast, and lines that could not be written.
    fn lost(&self) -> (u64, u64) {
        let sum = |number: fn(&Stats) -> u64| self.stats.iter().map(|its| number(its)).sum();
        (
            sum(|its| its.log_dropped.get()),
            sum(|its| its.log_unwritten.get()),
        )
    }

    /// Whether lines were lost that were not reported.
    fn has_lost(&self) -> bool {
        let (dropped, unwritten) = self.lost();
        dropped + unwritten != self.reported
    }

    /// Logs how many lines were lost, once per second at most.
    fn report_lost(&mut self, at_once: bool) {
        let (dropped, unwritten) = self.lost();
        let lost = dropped + unwritten;
        let now = sys::monotonic();
        if lost == self.reported || !at_once && now - self.reported_at < REPORT_EVERY {
            return;
        }
        log::warn!(
            "access log: {} lost, {lost} in all: {dropped} came too fast, {} could not be written",
            plural(lost - self.reported, "line"),
            unwritten
        );
        (self.reported, self.reported_at) = (lost, now);
    }
}

/// Closes a file once its last operation has ended, which may be never.
fn close(file: File) {
    // A failure here is about lines that were written long ago.
    tokio_uring::spawn(async move { drop(file.close().await) });
}

const BATCH_BYTES: usize = 64 * 1024;
const REPORT_EVERY: u64 = SECOND;
/// How long after the last line a loss is reported.
const REPORT_PAUSE: Duration = Duration::from_secs(1);
const BATCH_WAIT: Duration = Duration::from_millis(5);
/// Of a file that is made: the umask takes away what others may not do.
const MODE: u32 = 0o666;
/// From one try to open a rotated file to the next.
const REOPEN_PAUSE: Duration = Duration::from_secs(1);
/// How long a write may take once lines are to go elsewhere.
const PATIENCE: Duration = Duration::from_secs(1);
/// Writes that were given up at a time. Beyond them the file stays, and lines wait.
const STUCK_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use super::*;
    use crate::config::LogFormat;

    /// A log whose reader never reads is opened again and again.
    #[test]
    fn few_writes_are_given_up_at_a_time() {
        tokio_uring::start(async {
            let (mut reader, file) = io::pipe().expect("a pipe");
            let file = fs::File::from(OwnedFd::from(file));
            let orders = Rc::new(Orders::default());
            let again = file.try_clone().expect("a descriptor");
            orders.opened.replace(Some(Opened {
                file: again,
                asked: Vec::new(),
            }));
            let log = AccessLog {
                to: LogSink::Stdout,
                format: LogFormat::Json,
            };
            let sink = Some(Sink { log, file });
            let (_sender, records) = crossbeam::channel::bounded(1);
            let doorbell = Arc::new(Doorbell::new().expect("an eventfd"));
            let log = Log { sink, records };
            let mut writer = AccessLogWriter::new(log, &doorbell, &orders, Vec::new());
            writer.patience = Duration::from_millis(2);
            // More than a pipe takes.
            let lines = "x".repeat(100_000);
            for stuck in 1..=STUCK_MAX {
                writer.write(lines.clone()).await;
                assert_eq!(orders.stuck.get(), stuck);
            }
            let one_more = writer.write(lines.clone());
            let one_more = tokio::time::timeout(Duration::from_millis(50), one_more);
            assert!(one_more.await.is_err());
            assert_eq!(orders.stuck.get(), STUCK_MAX);
            // Its reader reads after all.
            std::thread::spawn(move || io::copy(&mut reader, &mut io::sink()));
            while orders.stuck.get() > 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
    }
}
