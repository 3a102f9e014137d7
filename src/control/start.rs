//! Starting the workers: everything that can fail does so here, before the first client.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam::channel::{self, Receiver, SendTimeoutError, Sender};
use parking_lot::Mutex;
use tokio_uring::fs::File;

use crate::address::Address;
use crate::config::Config;
use crate::kernel::Socket;
use crate::pool::Standing;
use crate::ring::{Features, Ring, SetupError, Size};
use crate::select::Seat;
use crate::session::CloseReason;
use crate::snapshot::Snapshot;
use crate::sys::{self, Bound, SocketFile};
use crate::worker::{
    Command, Doorbell, Inbox, LogQueue, Record, SessionInfo, Setup, Sought, Stats, Worker,
};

use super::listening::{self, Inherited};
use super::{StartError, capacity};

/// The workers, seen from the control thread.
pub(super) struct Crew {
    workers: Vec<Handle>,
    /// What is listened on, by the listeners' ids.
    listening: RefCell<BTreeMap<u64, Listening>>,
    pub(super) stats: Vec<Arc<Stats>>,
    pub(super) records: Receiver<Record>,
    pub(super) doorbell: Arc<Doorbell>,
    /// Rung by workers when they have ejected a backend.
    pub(super) notices: Arc<Doorbell>,
    /// Client connections that the descriptors allow in all.
    pub(super) connections_possible: u32,
    /// What the workers began to route by.
    pub(super) snapshot: Arc<Snapshot>,
    /// Notified by each worker when it ends.
    ended: Arc<OwnedFd>,
}

/// Where a listener listens.
struct Listening {
    address: Address,
    /// Removed when nobody listens there any more.
    file: Option<SocketFile>,
}

struct Handle {
    mailbox: Sender<Command>,
    wake: Arc<OwnedFd>,
    /// Where listening sockets are handed over,
    outlet: OwnedFd,
    /// and where the worker takes them: its number must stay as long as the thread.
    _inlet: Arc<OwnedFd>,
    /// Taken by the join.
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What a worker's thread is made with.
///
/// A worker has a descriptor table of its own, so it must never touch a descriptor of the control
/// thread, not even the one that hides in a waker of tokio's: the same number may be a client
/// there. The eventfds here, and the inlet, are older than the table and kept in it under their numbers.
struct Berth {
    /// To be pinned to.
    cpu: Option<usize>,
    features: Features,
    size: Size,
    /// Of every worker, as each may wake any other.
    wakes: Arc<[Arc<OwnedFd>]>,
    inlet: Arc<OwnedFd>,
    doorbell: Arc<Doorbell>,
    setup: Setup,
    ready: Sender<Result<(), SetupError>>,
    ended: Arc<OwnedFd>,
}

/// What the machine and the configuration allow.
struct Plan {
    features: Features,
    /// One worker on each.
    cpus: Vec<Option<usize>>,
    /// Sessions of one worker at most.
    sessions: u32,
    /// Client connections of all workers at most.
    in_all: u32,
    size: Size,
}

impl Plan {
    fn new(config: &Config, features: Features) -> Self {
        let descriptors = sys::raise_descriptor_limit();
        let cpus = capacity::worker_cpus(config.workers);
        let workers = u32::try_from(cpus.len()).unwrap_or(u32::MAX);
        let sessions = capacity::sessions_per_worker(descriptors);
        let in_all = capacity::connections_in_all(config.max_connections, workers, sessions);
        if config
            .max_connections
            .is_some_and(|wanted| wanted.get() > in_all)
        {
            log::warn!(
                "max_connections is cut to {in_all}: {workers} workers with {descriptors} \
                 descriptors each hold no more"
            );
        }
        log::info!(
            "{workers} worker(s){}: {sessions} sessions each, {in_all} connections in all; \
             {features:?}",
            match &cpus[..] {
                [Some(_), ..] =>
                    format!(" on CPUs {:?}", cpus.iter().flatten().collect::<Vec<_>>()),
                _ => " on any CPU".to_owned(),
            }
        );
        let size = Size {
            submissions: SUBMISSIONS,
            buffers: capacity::buffers(sessions),
            pipes: capacity::pipes(workers, sessions),
        };
        Self {
            features,
            cpus,
            sessions,
            in_all,
            size,
        }
    }
}

/// Binds every address that no inherited socket listens on and starts every worker; returns once
/// all of them accept.
pub(super) fn start(
    config: &Config,
    features: Features,
    inherited: Inherited,
) -> Result<Crew, StartError> {
    let plan = Plan::new(config, features);
    let workers = u32::try_from(plan.cpus.len()).unwrap_or(u32::MAX);
    let snapshot = Arc::new(Snapshot::compose(None, config, plan.in_all, |_, _| {
        Standing::default()
    }));
    // Closed at the end: every worker has its own copies by then.
    let bound = listening::bind_all(config, plan.cpus.len(), inherited)?;

    // Its memory is real from the start: nobody pays for a log that nobody asked for.
    let lines = config.access_log.as_ref().map_or(1, |_| LOG_QUEUE_LINES);
    let (record_sender, records) = channel::bounded(lines);
    let doorbell = Arc::new(Doorbell::new(eventfd(false)?));
    let notices = Arc::new(Doorbell::new(eventfd(false)?));
    let ended = Arc::new(eventfd(false)?);
    let (ready, readiness) = channel::bounded(plan.cpus.len());
    let mut crew = Crew {
        workers: Vec::new(),
        stats: Vec::new(),
        listening: RefCell::default(),
        records,
        doorbell,
        notices,
        connections_possible: workers.saturating_mul(plan.sessions),
        snapshot,
        ended,
    };
    // All of them before the first worker has a table of its own.
    let wakes = (0..workers).map(|_| eventfd(true).map(Arc::new));
    let wakes: Arc<[Arc<OwnedFd>]> = wakes.collect::<Result<_, _>>()?;
    let inboxes: Arc<[Inbox]> = wakes.iter().cloned().map(Inbox::new).collect();
    for (worker, cpu) in (0u32..).zip(plan.cpus) {
        let own = |bound: &Bound| bound.of_worker(worker as usize).as_raw_fd();
        let log = config.access_log.as_ref();
        let log = log.map(|_| LogQueue::new(record_sender.clone(), Arc::clone(&crew.doorbell)));
        let (mailbox, commands) = channel::bounded(MAILBOX_COMMANDS);
        let setup = Setup {
            seat: Seat {
                worker,
                of: workers,
            },
            snapshot: Arc::clone(&crew.snapshot),
            sockets: bound.iter().map(own).map(Socket::from_raw).collect(),
            capacity: plan.sessions as usize,
            backlog: sys::BACKLOG.unsigned_abs(),
            mailbox: commands,
            inboxes: Arc::clone(&inboxes),
            log,
            notices: Arc::clone(&crew.notices),
            stats: Arc::new(Stats::default()),
        };
        let (outlet, inlet) = descriptor_channel()?;
        let berth = Berth {
            cpu,
            features: plan.features,
            size: plan.size,
            wakes: Arc::clone(&wakes),
            inlet: Arc::new(inlet),
            doorbell: Arc::clone(&crew.doorbell),
            setup,
            ready: ready.clone(),
            ended: Arc::clone(&crew.ended),
        };
        crew.man(mailbox, outlet, berth)?;
    }
    drop(ready);
    for answer in readiness {
        answer?;
    }
    let snapshot = Arc::clone(&crew.snapshot);
    crew.note(&snapshot, bound);
    Ok(crew)
}

/// The life of a worker's thread.
fn work(berth: Berth) {
    sys::block_signals();
    sys::precise_timers();
    if let Some(Err(error)) = berth.cpu.map(sys::pin_to) {
        let worker = berth.setup.seat.worker;
        log::warn!("worker {worker} is not pinned to its CPU: {error}");
    }
    let listeners = berth.setup.sockets.iter().map(Socket::raw);
    let bells = [&berth.doorbell, &berth.setup.notices].map(|bell| bell.eventfd());
    let own = [&*berth.inlet, &*berth.ended].into_iter().chain(bells);
    let wakes = berth.wakes.iter().map(|wake| &**wake);
    let others = own.chain(wakes).map(AsRawFd::as_raw_fd);
    let keep: Vec<_> = listeners.chain(others).collect();
    let wake = Arc::clone(&berth.wakes[berth.setup.seat.worker as usize]);
    let ring = sys::own_descriptor_table(&keep)
        .map_err(SetupError::Other)
        .and_then(|()| Ring::new(berth.features, berth.size, wake, berth.inlet));
    match ring {
        Ok(ring) => {
            let mut worker = Worker::new(ring, berth.setup);
            // The receiver waits for every worker, so it is there.
            let _ = berth.ready.send(Ok(()));
            drop(berth.ready);
            worker.run();
        }
        Err(error) => {
            let _ = berth.ready.send(Err(error));
        }
    }
    sys::notify(&berth.ended);
}

impl Crew {
    /// Starts one worker's thread.
    fn man(
        &mut self,
        mailbox: Sender<Command>,
        outlet: OwnedFd,
        berth: Berth,
    ) -> Result<(), StartError> {
        let wake = Arc::clone(&berth.wakes[berth.setup.seat.worker as usize]);
        let inlet = Arc::clone(&berth.inlet);
        self.stats.push(Arc::clone(&berth.setup.stats));
        let thread = thread::Builder::new()
            .name(format!("worker-{}", berth.setup.seat.worker))
            .spawn(|| work(berth))
            .map_err(thread_error("a worker's thread can't be made"))?;
        self.workers.push(Handle {
            mailbox,
            wake,
            outlet,
            _inlet: inlet,
            thread: Mutex::new(Some(thread)),
        });
        Ok(())
    }

    /// Puts a command into every worker's mailbox and wakes it.
    pub(super) fn tell_all(&self, command: impl Fn() -> Command) {
        for worker in &self.workers {
            // A mailbox is full only when its worker hangs in a turn, and closed when it has ended.
            let sent = worker.mailbox.send_timeout(command(), MAILBOX_TIME);
            if let Err(SendTimeoutError::Timeout(_)) = sent {
                log::warn!("a worker does not read its mailbox");
            }
            sys::notify(&worker.wake);
        }
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
    fn note(&self, snapshot: &Snapshot, new: Vec<Bound>) {
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
#[expect(dead_code, reason = "asked by the control loop")]
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

fn eventfd(nonblocking: bool) -> Result<OwnedFd, StartError> {
    sys::eventfd(nonblocking).map_err(thread_error("an eventfd can't be made"))
}

fn descriptor_channel() -> Result<(OwnedFd, OwnedFd), StartError> {
    sys::descriptor_channel().map_err(thread_error("a pair of sockets can't be made"))
}

fn thread_error(what: &'static str) -> impl Fn(io::Error) -> StartError {
    move |error| StartError::Thread { what, error }
}

/// Lines that wait for the writer of the access log; more are dropped and counted.
const LOG_QUEUE_LINES: usize = 16_384;
const MAILBOX_COMMANDS: usize = 64;
const MAILBOX_TIME: Duration = Duration::from_millis(100);
const SUBMISSIONS: u32 = 1_024;
