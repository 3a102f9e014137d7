//! The control thread's view of the workers that run: commands to them, and what they listen on.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam::channel::{self, Receiver, Sender};
use parking_lot::Mutex;
use tokio_uring::fs::File;

use crate::address::Address;
use crate::session::CloseReason;
use crate::snapshot::Snapshot;
use crate::sys::{self, Bound, SocketFile};
use crate::worker::{Command, Doorbell, LogQueue, Record, SessionFilter, SessionInfo, Stats};

/// The workers, seen from the control thread.
pub(super) struct Workers {
    pub(super) handles: Vec<Handle>,
    /// What is listened on, by the listeners' ids.
    pub(super) listening: RefCell<BTreeMap<u64, Listening>>,
    pub(super) left: RefCell<Left>,
    pub(super) stats: Vec<Arc<Stats>>,
    pub(super) records: Receiver<Record>,
    pub(super) doorbell: Arc<Doorbell>,
    /// Rung by a worker that ejects a backend.
    pub(super) notices: Arc<Doorbell>,
    /// Client connections that the descriptors allow in all.
    pub(super) connections_possible: u32,
    /// What the workers began to route by.
    pub(super) snapshot: Arc<Snapshot>,
    /// Notified by each worker when it ends.
    pub(super) ended: Arc<OwnedFd>,
    /// What chance begins with.
    pub(super) seed: u64,
}

/// Where a listener listens.
pub(super) struct Listening {
    /// As configured: its port may be 0.
    bind: Address,
    bound: Bound,
}

/// Sockets of listeners that were removed. Their address may come back, or be a part of another
/// one, before the last worker has closed them.
#[derive(Default)]
pub(super) struct Left {
    /// With when they are closed here, in ns of the workers' clock.
    open: Vec<(Listening, u64)>,
    /// Those that were closed here recently, with when. Workers may hold them still.
    closed: Vec<(Address, u64)>,
}

/// Sockets that this process has already.
#[derive(Clone, Copy)]
pub(super) enum Held {
    /// Of a listener that was removed.
    Left,
    /// Of one that is about to be.
    Gone(u64),
}

/// One worker's thread.
pub(super) struct Handle {
    pub(super) mailbox: Sender<Command>,
    pub(super) wake: Arc<OwnedFd>,
    /// Where listening sockets are handed over,
    pub(super) outlet: OwnedFd,
    /// and where the worker takes them: its number must stay as long as the thread.
    pub(super) _inlet: Arc<OwnedFd>,
    /// Taken by the join.
    pub(super) thread: Mutex<Option<JoinHandle<()>>>,
}

impl Workers {
    /// Puts a command into every worker's mailbox and wakes it. One that hangs in a turn is asked
    /// no more than it can catch up with; what must not be missed is told all the same.
    pub(super) fn tell_all(&self, command: impl Fn() -> Command) {
        for worker in &self.handles {
            let command = command();
            let must = matches!(command, Command::Stop(_) | Command::Log(_));
            if must || worker.mailbox.len() < MAILBOX_COMMANDS {
                // A mailbox is closed when its worker has ended.
                let _ = worker.mailbox.send(command);
            } else {
                log::warn!("a worker does not read its mailbox");
            }
            sys::notify(&worker.wake);
        }
    }

    /// What workers answer, of those that do so in time. They must not touch what wakes this
    /// thread, so it looks again and again.
    pub(super) async fn gather<T>(&self, replies: &Receiver<T>) -> Vec<T> {
        let mut answers = Vec::new();
        for _ in 0..ANSWER_POLLS {
            answers.extend(replies.try_iter());
            if answers.len() == self.len() {
                break;
            }
            tokio::time::sleep(ANSWER_POLL).await;
        }
        answers
    }

    /// How many workers there are.
    pub(super) fn len(&self) -> usize {
        self.handles.len()
    }

    /// Has every worker route by another snapshot. `new` are its new listeners, in its order.
    /// Copies of their sockets stay here, for as long as the listeners do and a little longer.
    pub(super) fn publish(&self, snapshot: &Arc<Snapshot>, new: Vec<Bound>) {
        let first_new = snapshot.listeners_made - new.len() as u64;
        for (number, worker) in self.handles.iter().enumerate() {
            let own = (first_new..).zip(new.iter().map(|bound| bound.of_worker(number)));
            let own: Vec<_> = own.collect();
            // They must be there when the worker hears of the snapshot: then it looks for them.
            if let Err(error) = sys::send_descriptors(&worker.outlet, &own) {
                log::error!("worker {number} does not get its listening sockets: {error}");
            }
        }
        self.note(snapshot, new);
        self.tell_all(|| Command::Publish(Arc::clone(snapshot)));
    }

    /// Takes note of what is listened on. The file of a Unix listener that is gone goes first, so
    /// that no client finds a socket which is about to be closed; to those of TCP no new one comes.
    pub(super) fn note(&self, snapshot: &Snapshot, new: Vec<Bound>) {
        let mut listening = self.listening.borrow_mut();
        let stays = |id: &u64| snapshot.listeners.iter().any(|listener| listener.id == *id);
        let gone: Vec<_> = listening.keys().filter(|id| !stays(id)).copied().collect();
        let gone = gone.iter().filter_map(|id| listening.remove(id));
        gone.for_each(|its| self.left.borrow_mut().add(its));
        let first_new = snapshot.listeners_made - new.len() as u64;
        let new = (first_new..).zip(new).filter_map(|(id, bound)| {
            let mut listeners = snapshot.listeners.iter();
            let bind = listeners.find(|listener| listener.id == id)?.bind.clone();
            Some((id, Listening { bind, bound }))
        });
        listening.extend(new);
    }

    /// Keeps sockets that were handed in for listeners to come.
    pub(super) fn keep_spare(&self, sockets: Vec<(Address, OwnedFd)>) {
        for (bind, socket) in sockets {
            match sys::inherit(socket, &bind) {
                Ok(bound) => self.left.borrow_mut().add(Listening { bind, bound }),
                Err(error) => log::warn!("the socket on {bind} that was handed in: {error}"),
            }
        }
    }

    /// Sockets of this address that are here already, though no listener that stays has them.
    /// `gone` are the listeners that are about to be removed.
    pub(super) fn find_held(&self, bind: &Address, gone: &[u64]) -> Option<Held> {
        if self.left.borrow().position(bind).is_some() {
            return Some(Held::Left);
        }
        // The same file by another path.
        let Address::Unix(path) = bind else {
            return None;
        };
        let listening = self.listening.borrow();
        let is_there = |id: &&u64| {
            let its = listening.get(id);
            let file = its.and_then(|its| its.bound.file.as_ref());
            file.is_some_and(|file| file.is_at(path))
        };
        gone.iter().find(is_there).copied().map(Held::Gone)
    }

    /// The sockets that were found, with the clients that wait in them.
    pub(super) fn take_over(&self, held: Held, bind: &Address) -> Option<Bound> {
        match held {
            Held::Left => {
                let mut left = self.left.borrow_mut();
                // Others may have been taken since it was found.
                let place = left.position(bind)?;
                let (Listening { bound, .. }, _) = left.open.swap_remove(place);
                if !bound.handed_in {
                    // Where there is no filter nothing keeps clients away.
                    let open = |socket| drop(sys::let_clients_in(socket));
                    bound.sockets.iter().for_each(open);
                }
                Some(bound)
            }
            Held::Gone(id) => {
                let Listening { bound, .. } = self.listening.borrow_mut().remove(&id)?;
                let address = bind.clone();
                Some(Bound { address, ..bound })
            }
        }
    }

    /// Unix sockets that are here already.
    pub(super) fn unix_sockets(&self) -> HashSet<Address> {
        let (listening, left) = (self.listening.borrow(), self.left.borrow());
        let left = left.open.iter().map(|(its, _)| its);
        let all = listening.values().chain(left).map(|its| &its.bind);
        let unix = all.filter(|bind| matches!(bind, Address::Unix(_)));
        unix.cloned().collect()
    }

    /// Whether sockets of our own may be in the way of this address: of listeners that are about to
    /// be removed, or were of late.
    pub(super) fn is_in_the_way(&self, bind: &Address, gone: &[u64]) -> bool {
        let left = self.left.borrow();
        let gone = gone.iter().filter_map(|id| self.address(*id));
        let open = left.open.iter().map(|(its, _)| its.bound.address.clone());
        let now = sys::monotonic();
        let closed = left.closed.iter();
        let closed = closed.filter(|(_, at)| now.saturating_sub(*at) < KNOWN_FOR);
        let closed = closed.map(|(address, _)| address.clone());
        let mut all = gone.chain(open).chain(closed);
        all.any(|other| other.overlap(bind).is_some())
    }

    /// When sockets of removed listeners are to be closed, in ns of the workers' clock.
    pub(super) fn next_to_close(&self) -> Option<u64> {
        let left = self.left.borrow();
        let all = left.open.iter().map(|(_, until)| *until);
        all.filter(|until| *until < u64::MAX).min()
    }

    /// Closes the sockets of listeners that were removed some time ago.
    pub(super) fn close_left(&self) {
        self.left.borrow_mut().close(sys::monotonic());
    }

    /// Listens no more: the workers close their own sockets.
    pub(super) fn close_listeners(&self) {
        for its in self.listening.borrow_mut().values_mut() {
            its.bound.sockets.clear();
        }
        self.left.borrow_mut().open.clear();
    }

    /// Sessions that are open now.
    pub(super) fn sessions(&self) -> u64 {
        self.stats.iter().map(|stats| stats.sessions.get()).sum()
    }

    /// Ends when every worker has announced its end.
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

    /// Removes the files of Unix listeners: no process listens on them any more.
    pub(super) fn remove_socket_files(&self) {
        let listening = self.listening.borrow();
        let files = listening.values().filter_map(|its| its.bound.file.as_ref());
        files.for_each(SocketFile::remove);
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

impl Left {
    fn add(&mut self, its: Listening) {
        let is_tcp = matches!(its.bind, Address::Tcp(_));
        let until = match (its.bound.handed_in, is_tcp) {
            // Its maker listens on: no other socket can bind the address.
            (true, _) => u64::MAX,
            (false, true) => {
                let closing = its.bound.sockets.iter().map(sys::let_nobody_in);
                if let Err(error) = closing.collect::<io::Result<()>>() {
                    log::warn!("clients of {} may be lost: {error}", its.bound.address);
                }
                sys::monotonic() + OPEN_FOR
            }
            // Its path is gone, and another socket can have it.
            (false, false) => return,
        };
        self.open.push((its, until));
    }

    /// A listener with port 0 comes back at another port.
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

/// What is asked of the workers while they run.
impl Workers {
    /// Where a listener listens: the port that the kernel chose, where 0 was asked for.
    pub(super) fn address(&self, listener: u64) -> Option<Address> {
        let listening = self.listening.borrow();
        listening
            .get(&listener)
            .map(|its| its.bound.address.clone())
    }

    /// Has every worker write lines of the access log, or none. Where the lines come out.
    pub(super) fn log(&self, on: bool) -> Option<Receiver<Record>> {
        let (sender, records) = channel::bounded(LOG_QUEUE_LINES);
        let queue = || LogQueue::new(sender.clone(), Arc::clone(&self.doorbell));
        self.tell_all(|| Command::Log(on.then(queue)));
        on.then_some(records)
    }

    /// Lists the sessions of all workers that match: one list of each worker comes in.
    pub(super) fn list(&self, filter: &SessionFilter) -> Receiver<Vec<SessionInfo>> {
        let (reply, replies) = channel::bounded(self.len());
        self.tell_all(|| Command::Sessions(filter.clone(), reply.clone()));
        replies
    }

    /// Closes the sessions of all workers that match, each worker's evenly spread over this time.
    /// How many there are comes in, a number of each worker that does not refuse.
    pub(super) fn close(
        &self,
        filter: &SessionFilter,
        reason: CloseReason,
        spread: Duration,
    ) -> Receiver<Option<u64>> {
        let (reply, replies) = channel::bounded(self.len());
        self.tell_all(|| Command::Close(filter.clone(), reason, spread, reply.clone()));
        replies
    }

    /// Since when, in ns of the workers' clock, every worker routes by this version or a later
    /// one; `None` while one does not yet.
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

/// Lines that wait for the writer of the access log; more are dropped and counted.
pub(super) const LOG_QUEUE_LINES: usize = 16_384;
/// Commands that a worker may be behind with.
const MAILBOX_COMMANDS: usize = 64;
const ANSWER_POLL: Duration = Duration::from_millis(1);
/// Half a second: a worker that takes longer has a loop turn that long.
const ANSWER_POLLS: u32 = 500;
/// How long the sockets of a removed listener stay: 200 ms, twice as long as workers accept from
/// them.
const OPEN_FOR: u64 = 200_000_000;
/// How long a removed address is known as our own afterwards: 2 s, as a worker that hangs in a turn
/// closes its sockets late. Not longer: another process may listen there from then on, and to join
/// it would share its clients.
const KNOWN_FOR: u64 = 2_000_000_000;
