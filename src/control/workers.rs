//! The control thread's view of the running workers: commands to them, and the sockets that they
//! accept from.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam::channel::{self, Receiver, Sender};
use parking_lot::Mutex;
use tokio_uring::fs::File;

use crate::address::Address;
use crate::pool::Tally;
use crate::session::CloseReason;
use crate::snapshot::Snapshot;
use crate::sys::{self, Bound, Doorbell, SocketPlace};
use crate::time::{MS, NEVER, SECOND};
use crate::worker::{
    Command, Decided, DecisionFilter, LogFeed, LogRule, Preview, PreviewQuestion, Record,
    SessionFilter, SessionInfo, Stats,
};

use super::aside;
use super::replies::Replies;
use super::syn_filter::Attachment;
use super::unix_sockets::Present;

/// The workers, seen from the control thread.
pub(super) struct Workers {
    pub(super) handles: Vec<WorkerHandle>,
    /// Listening sockets by the listeners' ids.
    pub(super) listening: RefCell<BTreeMap<u64, Listening>>,
    pub(super) removed: RefCell<Removed>,
    /// What drops banned clients at the listening sockets.
    pub(super) syn_filter: RefCell<Attachment>,
    /// The balancer has left: listening sockets drop all new clients.
    pub(super) refuses_new: Cell<bool>,
    pub(super) stats: Vec<Arc<Stats>>,
    pub(super) records: Receiver<Record>,
    /// Wakes the writer of the access log.
    pub(super) log_bell: Arc<Doorbell>,
    /// Wakes the control thread when a worker ejects or readmits a backend.
    pub(super) bell: Arc<Doorbell>,
    /// Client connections that the descriptor limits of all workers allow.
    pub(super) connections_possible: u32,
    /// The first snapshot of the workers.
    pub(super) snapshot: Arc<Snapshot>,
    /// Notified by each worker when it ends.
    pub(super) ended: Arc<OwnedFd>,
    /// Random numbers start from it.
    pub(super) seed: u64,
}

/// The sockets of a listener.
pub(super) struct Listening {
    /// As configured: its port may be 0.
    bind: Address,
    pub(super) bound: Bound,
    /// That of the listener in the snapshots.
    file_gone_at: Arc<AtomicU64>,
}

/// Sockets of removed listeners. A reload may add the address again, or one that overlaps it,
/// before the last worker has closed them.
#[derive(Default)]
pub(super) struct Removed {
    /// Each with the time to close it here, in ns of the workers' clock.
    open: Vec<(Listening, u64)>,
    /// Addresses whose sockets were closed here, with the time. Workers may still hold them.
    closed: Vec<(Address, u64)>,
}

/// Sockets that this process has already.
#[derive(Clone, Copy)]
pub(super) enum HeldSockets {
    /// Of a listener that was removed.
    Removed,
    /// Of the listener of this id, which is about to be removed.
    Leaving(u64),
}

/// One worker's thread.
pub(super) struct WorkerHandle {
    pub(super) mailbox: Sender<Command>,
    pub(super) wake: Arc<OwnedFd>,
    /// Where listening sockets are sent to the worker.
    pub(super) outlet: OwnedFd,
    /// Where the worker receives them. It stays open as long as the thread, which knows it by
    /// number.
    pub(super) _inlet: Arc<OwnedFd>,
    /// Backends whose sessions it is to close, while its mailbox takes no more.
    pub(super) to_close: RefCell<Vec<Downed>>,
    /// It has missed a snapshot, which is published again.
    pub(super) missed: Cell<bool>,
    /// Taken by [`Workers::join`].
    pub(super) thread: Mutex<Option<JoinHandle<()>>>,
}

/// A backend that went down, and the time to spread the end of its sessions over.
pub(super) type Downed = (Arc<Tally>, Duration);

impl WorkerHandle {
    fn is_behind(&self) -> bool {
        self.mailbox.len() >= MAILBOX_COMMANDS
    }

    /// Has it take a command, unless it is behind. Answers whether it was.
    fn tell(&self, command: Command) -> bool {
        let must = matches!(command, Command::Stop(_) | Command::Log(_));
        let is_lost = !must && self.is_behind();
        if matches!(command, Command::Publish(_)) {
            self.missed.set(is_lost);
        }
        if !is_lost {
            // A mailbox is closed when its worker has ended.
            let _ = self.mailbox.send(command);
        }
        sys::notify(&self.wake);
        !is_lost
    }

    /// Whether its thread has come to its end, as without a session while the balancer stops.
    pub(super) fn has_ended(&self) -> bool {
        let thread = self.thread.lock();
        thread.as_ref().is_some_and(JoinHandle::is_finished)
    }

    /// Has it close the sessions of these backends, and of those that it was too busy for before.
    /// By a snapshot that it has missed, new sessions of them would follow: that comes first.
    fn close_downed(&self, downed: &[Downed]) {
        let mut all = self.to_close.borrow_mut();
        all.retain(|(old, _)| !downed.iter().any(|(new, _)| Arc::ptr_eq(old, new)));
        all.extend_from_slice(downed);
        if !all.is_empty() && !self.is_behind() && !self.missed.get() {
            // A mailbox is closed when its worker has ended.
            let _ = self
                .mailbox
                .send(Command::CloseDowned(std::mem::take(&mut all)));
            sys::notify(&self.wake);
        }
    }
}

impl Workers {
    /// Puts a command into every worker's mailbox and wakes it. Where a worker hangs, its mailbox
    /// takes a bounded number of commands, and beyond them only those that must not be lost.
    pub(super) fn tell_all(&self, command: impl Fn() -> Command) {
        for worker in &self.handles {
            if !worker.tell(command()) {
                warn_of_lost();
            }
        }
    }

    /// Wakes every worker: something that they share has changed.
    pub(super) fn wake_all(&self) {
        for worker in &self.handles {
            sys::notify(&worker.wake);
        }
    }

    /// Has every worker close the sessions of these backends. One that takes no commands gets them
    /// by [`Self::repeat_closing`].
    pub(super) fn close_downed(&self, downed: &[Downed]) {
        for worker in &self.handles {
            worker.close_downed(downed);
        }
    }

    /// Has workers close what they were too busy for, unless the sessions are to stay by now.
    pub(super) fn repeat_closing(&self, snapshot: &Snapshot) {
        for worker in &self.handles {
            let closes = |(tally, _): &Downed| snapshot.closes_or_lacks(tally);
            worker.to_close.borrow_mut().retain(closes);
            worker.close_downed(&[]);
        }
    }

    /// Asks every worker that still runs: one that has ended has nothing to tell. One that takes no
    /// commands will not answer.
    pub(super) fn ask<T>(&self, command: impl Fn(Sender<T>) -> Command) -> Replies<T> {
        let (reply, receiver) = channel::bounded(self.len());
        let (mut asked, mut lost) = (0, 0);
        for worker in self.handles.iter().filter(|worker| !worker.has_ended()) {
            asked += 1;
            if !worker.tell(command(reply.clone())) {
                lost += 1;
                warn_of_lost();
            }
        }
        Replies::new(receiver, asked, lost)
    }

    /// How many workers there are.
    pub(super) fn len(&self) -> usize {
        self.handles.len()
    }

    /// Has every worker route by another snapshot. `new` are the sockets of its new listeners, in
    /// its order. Copies of them stay here while the listeners exist, and a little longer.
    pub(super) fn publish(&self, snapshot: &Arc<Snapshot>, new: Vec<Bound>) {
        let first_new = snapshot.listeners_made - new.len() as u64;
        if let Some(error) = new.iter().find_map(|bound| self.filter(bound).err()) {
            log::warn!("a new listener accepts banned clients, to reset them: {error}");
        }
        for (number, worker) in self.handles.iter().enumerate() {
            let own = (first_new..).zip(new.iter().map(|bound| bound.of_worker(number)));
            let own: Vec<_> = own.collect();
            // First the sockets: a worker looks for them when it receives the snapshot.
            if let Err(error) = sys::send_descriptors(&worker.outlet, &own) {
                log::error!("cannot send listening sockets to worker {number}: {error}");
            }
        }
        self.note(snapshot, new);
        self.tell_all(|| Command::Publish(Arc::clone(snapshot)));
    }

    /// Takes note of the listeners of a snapshot. No client is to connect to a socket that is about
    /// to be closed: of a removed listener the file of a Unix socket is removed, and a TCP socket
    /// takes no more clients. For 100 ms workers go on with those that came before that; the file
    /// may take longer to go.
    pub(super) fn note(&self, snapshot: &Snapshot, new: Vec<Bound>) {
        let mut listening = self.listening.borrow_mut();
        let stay = snapshot.listeners.iter().map(|its| (its.id, its));
        let stay: HashMap<u64, _> = stay.collect();
        let gone = listening.extract_if(.., |id, _| !stay.contains_key(id));
        let gone = gone.filter_map(|(_, its)| self.removed.borrow_mut().add(its));
        close_aside(gone.collect());
        let first_new = snapshot.listeners_made - new.len() as u64;
        let new = (first_new..).zip(new).filter_map(|(id, bound)| {
            let listener = stay.get(&id)?;
            let its = Listening {
                bind: listener.bind.clone(),
                bound,
                file_gone_at: Arc::clone(&listener.file_gone_at),
            };
            Some((id, its))
        });
        listening.extend(new);
    }

    /// Keeps sockets that the service manager passed, for listeners that a reload may add.
    pub(super) fn keep_spare(&self, sockets: Vec<(Address, OwnedFd)>) {
        for (bind, socket) in sockets {
            match sys::inherit(socket, &bind) {
                Ok(bound) => {
                    let file_gone_at = Arc::default();
                    let spare = Listening {
                        bind,
                        bound,
                        file_gone_at,
                    };
                    self.removed.borrow_mut().add(spare);
                }
                Err(error) => {
                    log::warn!("cannot keep the socket on {bind} that was passed: {error}");
                }
            }
        }
    }

    /// Whether this process still has the sockets of a removed listener of this address.
    pub(super) fn has_removed(&self, bind: &Address) -> bool {
        self.removed.borrow().position(bind).is_some()
    }

    /// Takes the sockets that were found, with the clients that wait in them.
    pub(super) fn reuse(&self, held: HeldSockets, bind: &Address) -> Option<Bound> {
        match held {
            HeldSockets::Removed => {
                let mut removed = self.removed.borrow_mut();
                // Its index may have changed since.
                let place = removed.position(bind)?;
                let (Listening { bound, .. }, _) = removed.open.swap_remove(place);
                if !bound.handed_in {
                    // Fails where the socket has no filter that refuses clients.
                    let open = |socket| drop(sys::let_in_new_clients(socket));
                    bound.sockets.iter().for_each(open);
                }
                Some(bound)
            }
            HeldSockets::Leaving(id) => {
                let Listening { bound, .. } = self.listening.borrow_mut().remove(&id)?;
                let address = bind.clone();
                Some(Bound { address, ..bound })
            }
        }
    }

    /// The Unix sockets that this process has; `admin` is where that of the API is.
    pub(super) fn unix_sockets(&self, admin: Option<SocketPlace>) -> Present {
        let (listening, removed) = (self.listening.borrow(), self.removed.borrow());
        let places = listening.iter().filter_map(|(&id, its)| {
            let file = its.bound.file.as_ref()?;
            Some((id, its.bind.clone(), file.place()))
        });
        let removed = removed.open.iter().map(|(its, _)| its);
        let all = listening.values().chain(removed).map(|its| &its.bind);
        let unix = all.filter(|bind| matches!(bind, Address::Unix(_)));
        Present {
            listeners: places.collect(),
            admin,
            held: unix.cloned().collect(),
        }
    }

    /// Whether sockets of this process may block this address: of listeners that are about to be
    /// removed, or were removed recently.
    pub(super) fn may_block(&self, bind: &Address, gone: &[u64]) -> bool {
        let removed = self.removed.borrow();
        let gone = gone.iter().filter_map(|id| self.address(*id));
        let open = removed
            .open
            .iter()
            .map(|(its, _)| its.bound.address.clone());
        let now = sys::monotonic();
        let closed = removed.closed.iter();
        let closed = closed.filter(|(_, at)| now.saturating_sub(*at) < KNOWN_FOR);
        let closed = closed.map(|(address, _)| address.clone());
        let mut all = gone.chain(open).chain(closed);
        all.any(|other| other.overlap(bind).is_some())
    }

    /// When the next sockets of removed listeners are to be closed, in ns of the workers' clock.
    pub(super) fn next_to_close(&self) -> Option<u64> {
        let removed = self.removed.borrow();
        let all = removed.open.iter().map(|(_, until)| *until);
        all.filter(|until| *until < u64::MAX).min()
    }

    /// Closes the sockets of listeners that were removed some time ago.
    pub(super) fn close_removed(&self) {
        self.removed.borrow_mut().close(sys::monotonic());
    }

    /// Closes this thread's copies of all listening sockets; the workers close theirs.
    pub(super) fn close_listeners(&self) {
        for its in self.listening.borrow_mut().values_mut() {
            its.bound.unfilter();
            its.bound.sockets.clear();
        }
        self.removed.borrow_mut().open.clear();
    }

    /// Sessions that are open now.
    pub(super) fn sessions(&self) -> u64 {
        self.stats.iter().map(|stats| stats.sessions.get()).sum()
    }

    /// Waits until every worker has ended.
    pub(super) async fn finished(&self) -> io::Result<()> {
        let ended = File::from_std(fs::File::from(self.ended.try_clone()?));
        let mut running = self.handles.len() as u64;
        while running > 0 {
            let (read, count) = ended.read_at(vec![0; 8], 0).await;
            read?;
            let count: [u8; 8] = count.try_into().unwrap_or_default();
            running = running.saturating_sub(u64::from_ne_bytes(count));
        }
        Ok(())
    }

    /// Removes files of Unix listeners and of made tokens as the process is about to end, which it
    /// does also where the file system does not answer.
    pub(super) fn remove_files(&self, tokens: Option<PathBuf>) {
        let all = std::mem::take(&mut *self.listening.borrow_mut());
        let (done, closed) = channel::bounded(1);
        drop(aside::close(move || {
            drop((all, tokens.map(fs::remove_file)));
            // The receiver may be gone.
            let _ = done.send(());
        }));
        let _ = closed.recv_timeout(REMOVAL_TIME);
    }

    /// Waits for the threads, which have ended or are about to.
    pub(super) fn join(&self) {
        for worker in &self.handles {
            if let Some(thread) = worker.thread.lock().take() {
                // A panic aborts the process, so a thread that ended did so in order.
                let _ = thread.join();
            }
        }
    }
}

fn warn_of_lost() {
    log::warn!("a worker takes no commands: it is stuck, or has too much to do");
}

impl Removed {
    /// Keeps the sockets of a removed listener, or returns those that are to be closed.
    fn add(&mut self, its: Listening) -> Option<Listening> {
        let is_tcp = matches!(its.bind, Address::Tcp(_));
        let until = match (its.bound.handed_in, is_tcp) {
            // The service manager listens on: no other socket can bind the address.
            (true, _) => {
                its.bound.unfilter();
                u64::MAX
            }
            (false, true) => {
                let closing = its.bound.sockets.iter().map(sys::drop_new_clients);
                if let Err(error) = closing.collect::<io::Result<()>>() {
                    log::warn!("clients of {} may be reset: {error}", its.bound.address);
                }
                sys::monotonic() + OPEN_FOR
            }
            // The file is removed with it, and another socket can have the path.
            (false, false) => return Some(its),
        };
        self.open.push((its, until));
        None
    }

    /// The index of the sockets of this address. A listener with port 0 gets another port each
    /// time.
    fn position(&self, bind: &Address) -> Option<usize> {
        let is_free = |address: &Address| matches!(address, Address::Tcp(to) if to.port() == 0);
        let is_it = |its: &Listening| its.bind == *bind && (its.bound.handed_in || !is_free(bind));
        self.open.iter().position(|(its, _)| is_it(its))
    }

    fn close(&mut self, now: u64) {
        self.closed.retain(|(_, at)| now - at < KNOWN_FOR);
        let due = self.open.extract_if(.., |(_, until)| *until <= now);
        let addresses = due.map(|(its, _)| (its.bound.address, now));
        self.closed.extend(addresses);
    }
}

/// Closes Unix sockets and removes their files, on another thread: the file system may not answer.
/// Workers accept until then.
fn close_aside(gone: Vec<Listening>) {
    let note = |its: &Listening, at| its.file_gone_at.store(at, Ordering::Relaxed);
    gone.iter().for_each(|its| note(its, NEVER));
    if !gone.is_empty() {
        drop(aside::close(move || {
            for mut its in gone {
                drop(its.bound.file.take());
                note(&its, sys::monotonic());
            }
        }));
    }
}

/// Requests to the running workers.
impl Workers {
    /// Where a listener listens, with the port that the kernel chose for port 0.
    pub(super) fn address(&self, listener: u64) -> Option<Address> {
        let listening = self.listening.borrow();
        listening
            .get(&listener)
            .map(|its| its.bound.address.clone())
    }

    /// Has every worker log the sessions that the rule takes, or none; answers with where the
    /// records arrive.
    pub(super) fn log(&self, rule: Option<LogRule>) -> Option<Receiver<Record>> {
        let (sender, records) = channel::bounded(LOG_QUEUE_LINES);
        let feed = |rule| LogFeed {
            records: sender.clone(),
            rule,
        };
        self.tell_all(|| Command::Log(rule.map(feed)));
        rule.map(|_| records)
    }

    /// Lists the matching sessions: one list arrives from each worker.
    pub(super) fn list(&self, filter: &SessionFilter) -> Replies<Vec<SessionInfo>> {
        self.ask(|reply| Command::Sessions(filter.clone(), reply))
    }

    /// Lists the matching decisions: one list arrives from each worker.
    pub(super) fn decisions(&self, filter: DecisionFilter) -> Replies<Vec<Decided>> {
        self.ask(|reply| Command::Decisions(filter, reply))
    }

    /// Asks each worker where a client would go.
    pub(super) fn preview(&self, question: &PreviewQuestion) -> Replies<Vec<Preview>> {
        self.ask(|reply| Command::Preview(question.clone(), reply))
    }

    /// Closes the matching sessions, each worker's evenly spread over this time. How many there are
    /// arrives from each worker; `None`: it refuses.
    pub(super) fn close(
        &self,
        filter: &SessionFilter,
        reason: CloseReason,
        spread: Duration,
    ) -> Replies<Option<u64>> {
        self.ask(|reply| Command::Close(filter.clone(), reason, spread, reply))
    }

    /// When the last worker began to route by this version or a later one, in ns of the workers'
    /// clock; `None`: one does not yet.
    pub(super) fn adopted_at(&self, version: u64) -> Option<u64> {
        let mut latest = 0;
        for stats in &self.stats {
            if stats.progress.snapshot() < version {
                return None;
            }
            latest = latest.max(stats.progress.adopted_at());
        }
        Some(latest)
    }
}

/// How long the end of the process waits for the removal of socket files: longer than a busy
/// machine takes.
const REMOVAL_TIME: Duration = Duration::from_secs(1);
/// Lines that wait for the writer of the access log; more are dropped and counted.
pub(super) const LOG_QUEUE_LINES: usize = 16_384;
/// Commands that a worker may be behind with.
const MAILBOX_COMMANDS: usize = 64;
/// How long the sockets of a removed listener stay: 200 ms, twice as long as workers accept from
/// them.
const OPEN_FOR: u64 = 200 * MS;
/// How long a removed address is known as our own afterwards: 2 s, as a worker that hangs in a turn
/// closes its sockets late. Not longer: another process may listen there from then on, and to join
/// it would share its clients.
const KNOWN_FOR: u64 = 2 * SECOND;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Listener, Pool};
    use crate::guard::AccessFilters;
    use crate::tls::TlsByOwner;

    /// A worker whose mailbox is full.
    fn busy() -> (WorkerHandle, Receiver<Command>) {
        let (mailbox, commands) = channel::unbounded();
        let wake = Arc::new(sys::eventfd(true).unwrap());
        let (outlet, inlet) = sys::descriptor_channel().unwrap();
        let worker = WorkerHandle {
            mailbox,
            wake,
            outlet,
            _inlet: Arc::new(inlet),
            to_close: RefCell::default(),
            missed: Cell::default(),
            thread: Mutex::new(None),
        };
        for beat in 0..MAILBOX_COMMANDS as u64 {
            assert!(worker.tell(Command::Beat(beat)));
        }
        assert!(!worker.tell(Command::Beat(0)));
        (worker, commands)
    }

    #[test]
    fn sessions_of_a_backend_that_went_down_are_closed_once_a_busy_worker_takes_commands() {
        let (worker, commands) = busy();
        let tallies = [Arc::new(Tally::default()), Arc::new(Tally::default())];
        for tally in [&tallies[0], &tallies[1], &tallies[0]] {
            worker.close_downed(&[(Arc::clone(tally), Duration::ZERO)]);
        }
        let taken = commands.try_iter();
        assert!(taken.into_iter().all(|its| matches!(its, Command::Beat(_))));
        for _ in 0..2 {
            worker.close_downed(&[]);
        }
        let told: Vec<_> = commands.try_iter().collect();
        let [Command::CloseDowned(downed)] = &told[..] else {
            panic!("expected one command");
        };
        let closes = |tally| downed.iter().any(|(its, _)| Arc::ptr_eq(its, tally));
        assert!(downed.len() == 2 && tallies.iter().all(closes));
    }

    #[test]
    fn a_worker_that_missed_a_snapshot_gets_it_before_it_closes_sessions() {
        let (worker, commands) = busy();
        let config = Config::of(Vec::<Listener>::new(), Vec::<Pool>::new());
        let lists = AccessFilters::new();
        let nothing = |_| std::iter::empty();
        let none = TlsByOwner::default();
        let by = (&config, &lists, &none);
        let draft = Snapshot::compose(None, by, 1, nothing, |_| true);
        let snapshot = Arc::new(draft.take_effect());
        assert!(!worker.tell(Command::Publish(Arc::clone(&snapshot))));
        commands.try_iter().for_each(drop);
        worker.close_downed(&[(Arc::default(), Duration::ZERO)]);
        assert!(commands.is_empty());
        assert!(worker.tell(Command::Publish(snapshot)));
        worker.close_downed(&[]);
        let told: Vec<_> = commands.try_iter().collect();
        assert!(matches!(
            &told[..],
            [Command::Publish(_), Command::CloseDowned(_)]
        ));
    }
}
