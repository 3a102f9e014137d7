//! Starting the workers: everything that can fail does so here, before the first client.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam::channel::{self, Receiver, SendTimeoutError, Sender};
use parking_lot::Mutex;
use tokio_uring::fs::File;

use crate::config::Config;
use crate::kernel::Socket;
use crate::pool::Standing;
use crate::ring::{Features, Ring, SetupError, Size};
use crate::select::Seat;
use crate::snapshot::Snapshot;
use crate::sys::{self, SocketFile};
use crate::worker::{Command, Doorbell, Inbox, LogQueue, Record, Setup, Stats, Worker};

use super::{StartError, capacity};

/// The workers, seen from the control thread.
pub(super) struct Crew {
    workers: Vec<Handle>,
    /// Removed at the end.
    files: Vec<SocketFile>,
    pub(super) stats: Vec<Arc<Stats>>,
    pub(super) records: Receiver<Record>,
    pub(super) doorbell: Arc<Doorbell>,
    /// Client connections that the descriptors allow in all.
    pub(super) connections_possible: u32,
    /// What the workers began to route by.
    pub(super) snapshot: Arc<Snapshot>,
    /// Notified by each worker when it ends.
    ended: Arc<OwnedFd>,
}

struct Handle {
    mailbox: Sender<Command>,
    wake: Arc<OwnedFd>,
    /// Taken by the join.
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What a worker's thread is made with.
///
/// A worker has a descriptor table of its own, so it must never touch a descriptor of the control
/// thread, not even the one that hides in a waker of tokio's: the same number may be a client
/// there. The eventfds here are older than the table and kept in it under their numbers.
struct Berth {
    /// To be pinned to.
    cpu: Option<usize>,
    features: Features,
    size: Size,
    /// Of every worker, as each may wake any other.
    wakes: Arc<[Arc<OwnedFd>]>,
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

/// Binds every address and starts every worker; returns once all of them accept.
pub(super) fn start(config: &Config, features: Features) -> Result<Crew, StartError> {
    let plan = Plan::new(config, features);
    let workers = u32::try_from(plan.cpus.len()).unwrap_or(u32::MAX);
    let snapshot = Arc::new(Snapshot::compose(None, config, plan.in_all, |_, _| {
        Standing::default()
    }));
    let (sockets, files) = bind_all(config, plan.cpus.len())?;
    // A Unix socket is the same for all workers.
    let ours: BTreeSet<_> = sockets.iter().flatten().map(Socket::raw).collect();

    // Its memory is real from the start: nobody pays for a log that nobody asked for.
    let lines = config.access_log.as_ref().map_or(1, |_| LOG_QUEUE_LINES);
    let (record_sender, records) = channel::bounded(lines);
    let doorbell = Arc::new(Doorbell::new(eventfd(false)?));
    let ended = Arc::new(eventfd(false)?);
    let (ready, readiness) = channel::bounded(plan.cpus.len());
    let mut crew = Crew {
        workers: Vec::new(),
        stats: Vec::new(),
        files,
        records,
        doorbell,
        connections_possible: workers.saturating_mul(plan.sessions),
        snapshot,
        ended,
    };
    // All of them before the first worker has a table of its own.
    let wakes = (0..workers).map(|_| eventfd(true).map(Arc::new));
    let wakes: Arc<[Arc<OwnedFd>]> = wakes.collect::<Result<_, _>>()?;
    let inboxes: Arc<[Inbox]> = wakes.iter().cloned().map(Inbox::new).collect();
    for ((worker, cpu), sockets) in (0u32..).zip(plan.cpus).zip(sockets) {
        let log = config.access_log.as_ref();
        let log = log.map(|_| LogQueue::new(record_sender.clone(), Arc::clone(&crew.doorbell)));
        let (mailbox, commands) = channel::bounded(MAILBOX_COMMANDS);
        let setup = Setup {
            seat: Seat {
                worker,
                of: workers,
            },
            snapshot: Arc::clone(&crew.snapshot),
            sockets,
            capacity: plan.sessions as usize,
            backlog: sys::BACKLOG.unsigned_abs(),
            mailbox: commands,
            inboxes: Arc::clone(&inboxes),
            log,
            stats: Arc::new(Stats::default()),
        };
        let berth = Berth {
            cpu,
            features: plan.features,
            size: plan.size,
            wakes: Arc::clone(&wakes),
            doorbell: Arc::clone(&crew.doorbell),
            setup,
            ready: ready.clone(),
            ended: Arc::clone(&crew.ended),
        };
        crew.man(mailbox, berth)?;
    }
    drop(ready);
    for answer in readiness {
        answer?;
    }
    // Every worker has its own copies by now.
    ours.into_iter()
        .for_each(|fd| sys::close(Socket::from_raw(fd)));
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
    let eventfds = [berth.doorbell.eventfd(), &*berth.ended].map(AsRawFd::as_raw_fd);
    let wakes = berth.wakes.iter().map(AsRawFd::as_raw_fd);
    let keep: Vec<_> = listeners.chain(eventfds).chain(wakes).collect();
    let wake = Arc::clone(&berth.wakes[berth.setup.seat.worker as usize]);
    let ring = sys::own_descriptor_table(&keep)
        .map_err(SetupError::Other)
        .and_then(|()| Ring::new(berth.features, berth.size, wake));
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
    fn man(&mut self, mailbox: Sender<Command>, berth: Berth) -> Result<(), StartError> {
        let wake = Arc::clone(&berth.wakes[berth.setup.seat.worker as usize]);
        self.stats.push(Arc::clone(&berth.setup.stats));
        let thread = thread::Builder::new()
            .name(format!("worker-{}", berth.setup.seat.worker))
            .spawn(|| work(berth))
            .map_err(thread_error("a worker's thread can't be made"))?;
        self.workers.push(Handle {
            mailbox,
            wake,
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
        self.files.iter().for_each(SocketFile::remove);
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

/// The listening sockets of each worker, in the order of the listeners.
fn bind_all(
    config: &Config,
    workers: usize,
) -> Result<(Vec<Vec<Socket>>, Vec<SocketFile>), StartError> {
    let mut sockets: Vec<Vec<Socket>> = (0..workers).map(|_| Vec::new()).collect();
    let mut files = Vec::new();
    for listener in &config.listeners {
        let bound = sys::listen_all(&listener.bind, workers).map_err(|error| StartError::Bind {
            listener: listener.name.clone(),
            bind: listener.bind.clone(),
            error,
        })?;
        log::info!("listener `{}` on {}", listener.name, bound.address);
        files.extend(bound.file);
        for (of_worker, socket) in sockets.iter_mut().zip(bound.sockets) {
            of_worker.push(socket);
        }
    }
    Ok((sockets, files))
}

fn eventfd(nonblocking: bool) -> Result<OwnedFd, StartError> {
    sys::eventfd(nonblocking).map_err(thread_error("an eventfd can't be made"))
}

fn thread_error(what: &'static str) -> impl Fn(io::Error) -> StartError {
    move |error| StartError::Thread { what, error }
}

/// Lines that wait for the writer of the access log; more are dropped and counted.
const LOG_QUEUE_LINES: usize = 16_384;
const MAILBOX_COMMANDS: usize = 64;
const MAILBOX_TIME: Duration = Duration::from_millis(100);
const SUBMISSIONS: u32 = 1_024;
