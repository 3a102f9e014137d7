//! The workers, as the control thread deals with them once they run.

use std::cell::RefCell;
use std::collections::BTreeMap;
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
use crate::worker::{Command, Doorbell, LogQueue, Record, SessionInfo, Sought, Stats};

/// The workers, seen from the control thread.
pub(super) struct Crew {
    pub(super) workers: Vec<Handle>,
    /// What is listened on, by the listeners' ids.
    pub(super) listening: RefCell<BTreeMap<u64, Listening>>,
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
}

/// Where a listener listens.
pub(super) struct Listening {
    address: Address,
    /// Removed when nobody listens there any more.
    file: Option<SocketFile>,
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

impl Crew {
    /// Puts a command into every worker's mailbox and wakes it. One that hangs in a turn is asked
    /// no more than it can catch up with; what must not be missed is told all the same.
    pub(super) fn tell_all(&self, command: impl Fn() -> Command) {
        for worker in &self.workers {
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
        self.workers.len()
    }

    /// Has every worker route by another snapshot. `new` are its new listeners, in its order; no
    /// copy of their sockets is kept here.
    pub(super) fn publish(&self, snapshot: &Arc<Snapshot>, new: Vec<Bound>) {
        let first_new = snapshot.listeners_made - new.len() as u64;
        for (number, worker) in self.workers.iter().enumerate() {
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
    /// that nobody finds a socket which is about to be closed.
    pub(super) fn note(&self, snapshot: &Snapshot, new: Vec<Bound>) {
        let mut listening = self.listening.borrow_mut();
        listening.retain(|id, _| snapshot.listeners.iter().any(|listener| listener.id == *id));
        let first_new = snapshot.listeners_made - new.len() as u64;
        listening.extend((first_new..).zip(new).map(|(id, bound)| {
            let Bound { address, file, .. } = bound;
            (id, Listening { address, file })
        }));
    }

    /// Sessions that are open now.
    pub(super) fn sessions(&self) -> u64 {
        self.stats.iter().map(|stats| stats.sessions.get()).sum()
    }

    /// Ends when every worker has announced its end.
    pub(super) async fn finished(&self) -> io::Result<()> {
        let ended = File::from_std(fs::File::from(self.ended.try_clone()?));
        let mut running = self.workers.len() as u64;
        while running > 0 {
            let (read, count) = ended.read_at(vec![0; 8], 0).await;
            read?;
            let count: [u8; 8] = count.try_into().unwrap_or_default();
            running = running.saturating_sub(u64::from_ne_bytes(count));
        }
        Ok(())
    }

    /// Removes the files of Unix listeners: nobody will listen on them any more.
    pub(super) fn remove_socket_files(&self) {
        let listening = self.listening.borrow();
        let files = listening.values().filter_map(|there| there.file.as_ref());
        files.for_each(SocketFile::remove);
    }

    /// Waits for the threads, which have ended or are about to.
    pub(super) fn join(&self) {
        for worker in &self.workers {
            if let Some(thread) = worker.thread.lock().take() {
                // A panic aborts the process, so a thread that ended did so in order.
                let _ = thread.join();
            }
        }
    }
}

/// What is asked of the workers while they run.
impl Crew {
    /// Where a listener listens: the port that the kernel chose, where 0 was asked for.
    pub(super) fn address(&self, listener: u64) -> Option<Address> {
        let listening = self.listening.borrow();
        listening.get(&listener).map(|there| there.address.clone())
    }

    /// Has every worker write lines of the access log, or none. Where the lines come out.
    pub(super) fn log(&self, on: bool) -> Option<Receiver<Record>> {
        let (sender, records) = channel::bounded(LOG_QUEUE_LINES);
        let queue = || LogQueue::new(sender.clone(), Arc::clone(&self.doorbell));
        self.tell_all(|| Command::Log(on.then(queue)));
        on.then_some(records)
    }

    /// Sessions of all workers that are meant, as their lists come in: one of each worker.
    pub(super) fn list(&self, sought: &Sought, limit: usize) -> Receiver<Vec<SessionInfo>> {
        let (reply, replies) = channel::bounded(self.len());
        self.tell_all(|| Command::Sessions(sought.clone(), limit, reply.clone()));
        replies
    }

    /// Closes sessions of all workers that are meant, each worker's evenly spread over this time.
    /// How many there are comes in, a number of each worker.
    pub(super) fn close(
        &self,
        sought: &Sought,
        reason: CloseReason,
        spread: Duration,
    ) -> Receiver<u64> {
        let (reply, replies) = channel::bounded(self.len());
        self.tell_all(|| Command::Close(sought.clone(), reason, spread, reply.clone()));
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
