//! The access log: one line per session, written through the control thread's ring.

use std::cell::{Cell, RefCell};
use std::fs::{self, TryLockError};
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crossbeam::channel::{Receiver, TryRecvError};
use tokio::sync::{Notify, oneshot};
use tokio_uring::buf::BoundedBuf;
use tokio_uring::fs::File;

use crate::config::{AccessLog, LogField, LogOnly, LogSink};
use crate::session::CloseReason;
use crate::sys::{self, Doorbell};
use crate::time::{SECOND, nanos};
use crate::wording::plural;
use crate::worker::{LogRule, Record, Stats};

use super::{StartError, aside};

mod line;
pub(super) mod socket;

use line::{Layout, write_line};

/// Where lines go.
pub(super) struct Sink {
    log: AccessLog,
    file: fs::File,
}

impl Sink {
    /// Which sessions get a line.
    pub(super) fn rule(&self) -> LogRule {
        rule(&self.log)
    }

    /// Opens it, before anything listens: a mistake is reported at once. A log server that is not
    /// there may come.
    pub(super) fn open(log: &AccessLog) -> Result<Self, StartError> {
        let file = match (open(&log.to), log.to.socket()) {
            (Err(error), Some(path)) if socket::is_absent(&error) => {
                log::warn!("{}", socket::absence(path, &error));
                socket::unconnected()
            }
            (opened, _) => opened,
        };
        let file = file.map_err(|error| StartError::AccessLog {
            path: log.to.to_string(),
            error,
        })?;
        Ok(Self {
            log: log.clone(),
            file,
        })
    }

    /// Warns if another process writes this file: two balancers that start in one directory do.
    pub(super) fn warn_if_shared(&self) {
        if let LogSink::File(path) = &self.log.to
            && matches!(self.file.try_lock(), Err(TryLockError::WouldBlock))
        {
            log::warn!(
                "another process writes the access log {} too: give this balancer another file",
                path.display()
            );
        }
    }
}

/// Which sessions get a line, and what workers ask for it.
pub(super) fn rule(log: &AccessLog) -> LogRule {
    let takes = |reason: &CloseReason| match &log.only {
        LogOnly::All => true,
        LogOnly::Errors => !reason.is_orderly(),
        LogOnly::Reasons(reasons) => reasons.contains(reason),
    };
    let reasons = CloseReason::ALL.into_iter().filter(takes);
    let fields = log.written_fields();
    let mut rule = LogRule::new(reasons, log.sample.get());
    rule.status = fields.contains(&LogField::Status);
    rule.server_name = fields.contains(&LogField::Sni);
    rule.ja4 = fields.contains(&LogField::TlsJa4);
    rule.tls = fields.iter().any(|field| field.is_of_tls());
    rule.tcp_info = fields.iter().any(|field| field.is_of_tcp());
    // A session with other lines has that of its end too.
    rule.proxy_checks = log.proxy_checks || log.start || log.progress.is_some();
    rule.start = log.start;
    rule.progress = log.progress.map(nanos);
    rule
}

fn open(to: &LogSink) -> io::Result<fs::File> {
    match to {
        LogSink::Stdout => Ok(io::stdout().as_fd().try_clone_to_owned()?.into()),
        LogSink::File(path) => sys::open_to_append(path, MODE),
        LogSink::Syslog(path) | LogSink::Journald(path) => socket::connect(path),
    }
}

/// Requests to the running writer.
#[derive(Default)]
pub(super) struct Orders {
    /// Where lines go, if it can be opened again.
    to: RefCell<Option<LogSink>>,
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
            let Some(to) = self.to.borrow().clone() else {
                break;
            };
            let its = to.clone();
            let mut asked = self.asked.take();
            let opened = aside::begin(move || open(&its)).await;
            let opened =
                opened.unwrap_or_else(|_| Err(io::Error::other("no thread can be created")));
            // A reload may have replaced the log.
            if self.to.borrow().as_ref() != Some(&to) {
                self.rotated.set(true);
                self.asked.borrow_mut().append(&mut asked);
                continue;
            }
            match opened {
                Ok(file) => {
                    if std::mem::take(&mut failed) {
                        log::info!("the access log {} is open again", shown(&to));
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
                        let lines = match to.socket() {
                            Some(_) => "are lost until its server is there",
                            None => "go to the old file",
                        };
                        log::error!(
                            "cannot open the access log {} again: {error}; lines {lines}, and \
                             opening is tried again each second",
                            shown(&to)
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

    /// The file or the socket that lines go to, if it is one.
    pub(super) fn path(&self) -> Option<PathBuf> {
        let to = self.to.borrow();
        to.as_ref().and_then(LogSink::path).map(Path::to_owned)
    }

    /// Switches to another log, which the workers send records to from now on, or are about to.
    pub(super) fn switch(&self, log: Log, doorbell: &Doorbell) {
        self.to.replace(to_open_again(&log));
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

/// Where the lines of a log go, if it can be opened again.
fn to_open_again(log: &Log) -> Option<LogSink> {
    let to = log.sink.as_ref().map(|sink| &sink.log.to);
    to.filter(|to| **to != LogSink::Stdout).cloned()
}

/// The path of a log that is opened again.
fn shown(to: &LogSink) -> String {
    let path = to.path().map(|path| path.display().to_string());
    path.unwrap_or_else(|| "-".to_owned())
}

/// Answers the callers that still wait.
fn answer(asked: Vec<Asked>, outcome: &Result<(), String>) {
    for asked in asked {
        let _ = asked.send(outcome.clone());
    }
}

/// Writes the lines of all workers, in batches.
pub(super) struct AccessLogWriter {
    log: Option<(Layout, File)>,
    records: Receiver<Record>,
    doorbell: Arc<Doorbell>,
    orders: Rc<Orders>,
    stats: Vec<Arc<Stats>>,
    /// The worker of each line of the batch, and where the line ends.
    lines: Vec<(u32, usize)>,
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
        orders.to.replace(to_open_again(&log));
        Self {
            log: log.sink.map(begin),
            records: log.records,
            doorbell: Arc::clone(doorbell),
            orders: Rc::clone(orders),
            stats,
            lines: Vec::new(),
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
                    if let Some((layout, _)) = &self.log {
                        write_line(batch, &record, layout);
                        self.lines.push((record.worker, batch.len()));
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
        let log = next.sink.map(begin);
        if let Some((_, old)) = std::mem::replace(&mut self.log, log) {
            close(old);
        }
    }

    /// Writes the whole batch, and returns its memory for the next one.
    async fn write(&mut self, batch: String) -> String {
        let mut bytes = batch.into_bytes();
        let lines = std::mem::take(&mut self.lines);
        let Some((layout, file)) = &self.log else {
            return String::new();
        };
        // The lines that end behind the one place, and not behind the other.
        let lose = |from: usize, to: usize| {
            for (worker, end) in &lines {
                if (from + 1..=to).contains(end) {
                    self.stats[*worker as usize].log_unwritten.increment();
                }
            }
        };
        let (mut at, all) = (0, bytes.len());
        while at < all {
            // A file takes all lines at once, a socket one.
            let next = lines.partition_point(|(_, end)| *end <= at);
            let next = lines.get(next).filter(|_| layout.is_for_socket());
            let end = next.map_or(all, |(_, end)| *end);
            // At the file's own position, which is its end, as it is opened to append.
            let write = file.write_at(bytes.slice(at..end), u64::MAX);
            let mut write = Box::pin(write.submit());
            let (outcome, slice) = tokio::select! {
                biased;
                written = &mut write => written,
                // The reader of the old file may never read again.
                () = self.orders.may_give_up(self.patience) => {
                    lose(at, all);
                    self.orders.give_up(write);
                    return String::new();
                }
            };
            bytes = slice.into_inner();
            match outcome {
                Ok(written) if written > 0 => at += written,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // A full pipe that another process made nonblocking.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    tokio::time::sleep(BATCH_WAIT).await;
                }
                Err(error) if socket::is_too_long(&error) => {
                    lose(at, end);
                    at = end;
                }
                Ok(_) => {
                    lose(at, all);
                    at = all;
                }
                Err(error) => {
                    lose(at, all);
                    at = all;
                    if layout.is_for_socket() && socket::has_gone(&error) {
                        // It reports its failures; no caller waits for the outcome.
                        drop(self.orders.reopen(&self.doorbell));
                    }
                }
            }
        }
        bytes.clear();
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

/// How lines look from now on, and where they go.
fn begin(sink: Sink) -> (Layout, File) {
    (Layout::of(&sink.log), File::from_std(sink.file))
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
                ..AccessLog::default()
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
