//! Starting the workers: everything that can fail does so here, before the first client.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::thread;

use crossbeam::channel::{self, Sender};
use parking_lot::Mutex;

use crate::config::{self, Config, Initial};
use crate::guard::AccessFilters;
use crate::kernel::{BUFFER_BYTES, Socket};
use crate::pool::{Health, Standing};
use crate::ring::{Features, Ring, SetupError, Size, Wakes};
use crate::select::Seat;
use crate::snapshot::Snapshot;
use crate::sys::{self, Bound, Doorbell};
use crate::tls::TlsByOwner;
use crate::wording::plural;
use crate::worker::{Command, IdleCuts, Inbox, LogFeed, Record, Setup, Stats, Worker};

use super::bans::KeptBans;
use super::listening::{self, Patience};
use super::syn_filter::Attachment;
use super::workers::{LOG_QUEUE_LINES, WorkerHandle, Workers};
use super::{StartError, access_log, capacity, sandbox};

/// The arguments of a worker's thread.
///
/// A worker has a descriptor table of its own, so it must never touch a descriptor of the control
/// thread, not even the one that hides in a waker of tokio's: the same number may be a client
/// there. The eventfds here, and the inlet, are older than the table and kept in it under their
/// numbers.
struct WorkerArgs {
    /// The CPU to pin it to.
    cpu: Option<usize>,
    features: Features,
    size: Size,
    wakes: Wakes,
    inlet: Arc<OwnedFd>,
    setup: Setup,
    ready: Sender<Result<(), SetupError>>,
    ended: Arc<OwnedFd>,
}

/// What the machine and the configuration allow: workers, sessions and memory.
struct Plan {
    features: Features,
    /// Of each worker; `None`: it is not pinned.
    cpus: Vec<Option<usize>>,
    /// Sessions of one worker at most.
    sessions: u32,
    /// Client connections of all workers at most.
    in_all: u32,
    size: Size,
}

impl Plan {
    fn workers(&self) -> u32 {
        u32::try_from(self.cpus.len()).unwrap_or(u32::MAX)
    }

    fn new(config: &Config, features: Features) -> Result<Self, StartError> {
        let descriptors = sys::raise_descriptor_limit();
        let cpus = capacity::worker_cpus(config.workers);
        let count = u32::try_from(cpus.len()).unwrap_or(u32::MAX);
        let sessions = capacity::sessions_per_worker(descriptors);
        let in_all = capacity::connections_in_all(config.max_connections, count, sessions);
        if config
            .max_connections
            .is_some_and(|wanted| wanted.get() > in_all)
        {
            log::warn!(
                "max_connections is lowered to {in_all}: {} with {descriptors} descriptors \
                 each can hold no more",
                plural(count.into(), "worker")
            );
        }
        log::info!(
            "{} on {}: {} each, {} in all",
            plural(count.into(), "worker"),
            on_cpus(&cpus),
            plural(sessions.into(), "session"),
            plural(in_all.into(), "connection")
        );
        for sentence in features.lacking() {
            log::info!("{sentence}");
        }
        let memory = capacity::memory_of(config)?;
        let own = memory / u64::from(count.max(1));
        let (buffers, pipes) = capacity::buffers_and_pipes(own, count, sessions);
        log::info!(
            "memory of each worker: {} MiB in {buffers} buffers, and {pipes} pipes of 1 MiB",
            (u64::from(buffers) * u64::from(BUFFER_BYTES)) >> 20
        );
        let size = Size {
            submissions: SUBMISSIONS,
            buffers,
            pipes,
        };
        Ok(Self {
            features,
            cpus,
            sessions,
            in_all,
            size,
        })
    }
}

/// `CPUs 0, 2`, or that workers are not pinned.
fn on_cpus(cpus: &[Option<usize>]) -> String {
    let pinned: Vec<_> = cpus.iter().flatten().map(usize::to_string).collect();
    match &pinned[..] {
        [] => "any CPU".to_owned(),
        [one] => format!("CPU {one}"),
        all => format!("CPUs {}", all.join(", ")),
    }
}

/// Binds every address that no inherited socket listens on, and starts every worker. Returns once
/// all workers accept.
pub(super) async fn start(
    by: (&Config, &AccessFilters, &TlsByOwner),
    (features, kept): (Features, &KeptBans),
    inherited: BTreeMap<usize, OwnedFd>,
    patience: &Patience,
    seed: u64,
) -> Result<Workers, StartError> {
    let (config, ..) = by;
    sys::read_local_ports();
    sys::read_bind_rules();
    let plan = Plan::new(config, features)?;
    listening::probe_origins(config, None)?;
    let snapshot = first_snapshot(by, plan.in_all);
    kept.fill(&snapshot.bans, &snapshot.trusted);
    // Every worker gets copies of its own.
    let bound = listening::bind_all(config, plan.cpus.len(), inherited, patience).await?;
    let (mut workers, record_sender) = before_threads(config, &plan, snapshot, seed)?;
    let log = config.access_log.as_ref().map(|log| LogFeed {
        records: record_sender,
        rule: access_log::rule(log),
    });
    spawn_workers(&mut workers, plan, &bound, log)?;
    sys::done_with_rings().map_err(SetupError::Other)?;
    workers.note(&Arc::clone(&workers.snapshot), bound);
    Ok(workers)
}

/// Starts every worker, and returns once all of them accept. `log` takes records of sessions.
fn spawn_workers(
    workers: &mut Workers,
    plan: Plan,
    bound: &[Bound],
    log: Option<LogFeed>,
) -> Result<(), StartError> {
    let count = plan.workers();
    let (ready, readiness) = channel::bounded(plan.cpus.len());
    // All of them before the first worker has a table of its own.
    let wakes = (0..count).map(|_| eventfd(true).map(Arc::new));
    let wakes: Arc<[Arc<OwnedFd>]> = wakes.collect::<Result<_, _>>()?;
    let idle_cuts = Arc::new(IdleCuts::default());
    let inboxes: Arc<[Inbox]> = wakes.iter().map(|_| Inbox::default()).collect();
    for (worker, cpu) in (0u32..).zip(plan.cpus) {
        let own = |bound: &Bound| bound.of_worker(worker as usize).as_raw_fd();
        let (mailbox, commands) = channel::unbounded();
        let setup = Setup {
            seat: Seat {
                worker,
                of: count,
                pool: 0,
                seed: workers.seed,
            },
            snapshot: Arc::clone(&workers.snapshot),
            sockets: bound.iter().map(own).map(Socket::from_raw).collect(),
            capacity: plan.sessions as usize,
            backlog: sys::BACKLOG.unsigned_abs(),
            mailbox: commands,
            inboxes: Arc::clone(&inboxes),
            log: log.clone(),
            idle_cuts: Arc::clone(&idle_cuts),
            stats: Arc::new(Stats::default()),
        };
        let (outlet, inlet) = descriptor_channel()?;
        let args = WorkerArgs {
            cpu,
            features: plan.features,
            size: plan.size,
            wakes: Wakes {
                worker,
                workers: Arc::clone(&wakes),
                control: Arc::clone(&workers.bell),
                log_writer: Arc::clone(&workers.log_bell),
            },
            inlet: Arc::new(inlet),
            setup,
            ready: ready.clone(),
            ended: Arc::clone(&workers.ended),
        };
        spawn_worker(workers, mailbox, outlet, args)?;
    }
    drop(ready);
    Ok(readiness.into_iter().collect::<Result<(), _>>()?)
}

/// The first snapshot of the workers.
fn first_snapshot(
    by: (&Config, &AccessFilters, &TlsByOwner),
    max_connections: u32,
) -> Arc<Snapshot> {
    let (config, ..) = by;
    let standings = |place: usize| {
        let pool = &config.pools[place];
        let backends = pool.backends.iter();
        backends.map(move |backend| unknown(pool, backend))
    };
    let draft = Snapshot::compose(None, by, max_connections, standings, |_| true);
    Arc::new(draft.take_effect())
}

/// What the control thread shares with the workers, before there is a thread; and where they put
/// records of the access log.
fn before_threads(
    config: &Config,
    plan: &Plan,
    snapshot: Arc<Snapshot>,
    seed: u64,
) -> Result<(Workers, Sender<Record>), StartError> {
    // A bounded channel takes its memory at once: without a log it is as small as can be.
    let lines = config.access_log.as_ref().map_or(1, |_| LOG_QUEUE_LINES);
    let (record_sender, records) = channel::bounded(lines);
    let workers = Workers {
        handles: Vec::new(),
        stats: Vec::new(),
        listening: RefCell::default(),
        removed: RefCell::default(),
        syn_filter: RefCell::new(Attachment::None),
        refuses_new: Cell::new(false),
        records,
        log_bell: doorbell()?,
        bell: doorbell()?,
        connections_possible: plan.workers().saturating_mul(plan.sessions),
        snapshot,
        ended: Arc::new(eventfd(false)?),
        seed,
    };
    Ok((workers, record_sender))
}

/// What is known of a backend before its first probe.
fn unknown(pool: &config::Pool, backend: &config::Backend) -> Standing {
    let initial = pool.check.as_ref().map(|check| check.initial);
    Standing {
        health: match initial {
            Some(Initial::Down | Initial::Probe) => Health::Down,
            Some(Initial::Up) | None => Health::Up,
        },
        slow_start: None,
        standby: backend.reserve,
    }
}

/// The life of a worker's thread.
fn work(args: WorkerArgs) {
    sys::block_signals();
    sys::precise_timers();
    if let Some(Err(error)) = args.cpu.map(sys::pin_to) {
        let worker = args.setup.seat.worker;
        log::warn!("worker {worker} is not pinned to its CPU: {error}");
    }
    let listeners = args.setup.sockets.iter().map(Socket::raw);
    let own = [&*args.inlet, &*args.ended].map(AsRawFd::as_raw_fd);
    let keep: Vec<_> = listeners
        .chain(own)
        .chain(args.wakes.descriptors())
        .collect();
    let ring = sys::own_descriptor_table(&keep)
        .map_err(SetupError::Other)
        .and_then(|()| Ring::new(args.features, args.size, args.wakes, args.inlet))
        .and_then(|ring| {
            let done = sys::done_with_rings().map_err(SetupError::Other);
            done.map(|()| ring)
        });
    match ring {
        Ok(ring) => {
            let mut worker = Worker::new(ring, args.setup);
            let confined = sandbox::confine_worker().map_err(SetupError::Other);
            let serves = confined.is_ok();
            // The receiver waits for every worker.
            let _ = args.ready.send(confined);
            drop(args.ready);
            if serves {
                sandbox::misbehave();
                worker.run();
            }
        }
        Err(error) => {
            let _ = args.ready.send(Err(error));
        }
    }
    sys::notify(&args.ended);
}

/// Starts the thread of one worker.
fn spawn_worker(
    workers: &mut Workers,
    mailbox: Sender<Command>,
    outlet: OwnedFd,
    args: WorkerArgs,
) -> Result<(), StartError> {
    let wake = Arc::clone(args.wakes.own());
    let inlet = Arc::clone(&args.inlet);
    workers.stats.push(Arc::clone(&args.setup.stats));
    let thread = thread::Builder::new()
        .name(format!("worker-{}", args.setup.seat.worker))
        .spawn(|| work(args))
        .map_err(thread_error("start a worker's thread"))?;
    workers.handles.push(WorkerHandle {
        mailbox,
        wake,
        outlet,
        _inlet: inlet,
        to_close: RefCell::default(),
        missed: Cell::default(),
        thread: Mutex::new(Some(thread)),
    });
    Ok(())
}

fn doorbell() -> Result<Arc<Doorbell>, StartError> {
    let bell = Doorbell::new().map_err(thread_error("make an eventfd"))?;
    Ok(Arc::new(bell))
}

fn eventfd(nonblocking: bool) -> Result<OwnedFd, StartError> {
    sys::eventfd(nonblocking).map_err(thread_error("make an eventfd"))
}

fn descriptor_channel() -> Result<(OwnedFd, OwnedFd), StartError> {
    sys::descriptor_channel().map_err(thread_error("make a pair of sockets"))
}

fn thread_error(what: &'static str) -> impl Fn(io::Error) -> StartError {
    move |error| StartError::Thread { what, error }
}

const SUBMISSIONS: u32 = 1_024;
