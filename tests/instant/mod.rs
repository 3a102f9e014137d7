//! A real worker on a kernel that answers at once, in memory, and an allocator that counts.

pub(crate) mod counting;
mod kernel;

use std::collections::HashMap;
use std::sync::Arc;

use crossbeam::channel::{Receiver, bounded, never};
use mahoraga::address::Address;
use mahoraga::config::{self, Strategy};
use mahoraga::guard::{Action, Admission, Bans, Gate, Limit, Pit, Rules, Sources};
use mahoraga::kernel::Socket;
use mahoraga::pool::Pool;
use mahoraga::route::Routes;
use mahoraga::select::{Plan, Seat};
use mahoraga::session::SessionLimits;
use mahoraga::snapshot::{LiveListener, Postgres, Snapshot};
use mahoraga::time::{MS, NEVER, SECOND};
use mahoraga::worker::{Inbox, Record, Setup, Stats, Worker};

use kernel::{Clients, InstantKernel};

/// A worker amid clients and backends who answer at once.
#[derive(Debug)]
pub(crate) struct Balancer {
    worker: Worker<InstantKernel>,
    /// The access log: every session that ends writes a line.
    records: Receiver<Record>,
    crowd: u64,
}

impl Balancer {
    /// This many clients, each of which sends request after request. Each turn takes `step`
    /// nanoseconds.
    pub(crate) fn keep_alive(crowd: u16, step: u64) -> Self {
        Self::new(Clients::KeepAlive, crowd, step)
    }

    /// This many clients at a time, each with one request.
    pub(crate) fn short(crowd: u16, step: u64) -> Self {
        Self::new(Clients::Short, crowd, step)
    }

    fn new(clients: Clients, crowd: u16, step: u64) -> Self {
        let (log, records) = bounded(4_096);
        let setup = Setup {
            seat: Seat {
                worker: 0,
                of: 1,
                pool: 0,
                seed: 0,
            },
            snapshot: snapshot(),
            sockets: vec![Socket::from_raw(LISTENER)],
            // Far from any limit: near one, the worker accepts one connection at a time.
            capacity: 10_000,
            backlog: 0,
            mailbox: never(),
            inboxes: [Inbox::default()].into(),
            log: Some(log.into()),
            idle_cuts: Arc::default(),
            stats: Arc::new(Stats::default()),
        };
        let kernel = InstantKernel::new(clients, usize::from(crowd), step);
        Self {
            worker: Worker::new(kernel, setup),
            records,
            crowd: u64::from(crowd),
        }
    }

    /// A request and its answer of each keep-alive client: 4 events, received and sent in both
    /// directions.
    pub(crate) fn exchange(&mut self) {
        self.turn();
        self.turn();
    }

    /// A connection of each short client, from accept to close: 8 events.
    pub(crate) fn connection(&mut self) {
        let served = self.worker.kernel_mut().served + self.crowd;
        while self.worker.kernel_mut().served < served {
            self.turn();
        }
    }

    /// Completions reported to the worker so far.
    pub(crate) fn events(&mut self) -> u64 {
        self.worker.kernel_mut().events
    }

    fn turn(&mut self) {
        self.worker.turn();
        for record in self.records.try_iter() {
            let reason = record.reason().expect("lines of ends alone");
            assert!(reason.is_orderly(), "{reason}");
        }
    }
}

fn snapshot() -> Arc<Snapshot> {
    let address = |number: u16| Address::Tcp(([127, 0, 0, 1], 9_000 + number).into());
    let pool = Pool::new(&config::Pool {
        strategy: Strategy::RoundRobin,
        persist: None,
        ..config::Pool::of("p", (0..2).map(address).map(config::Backend::at).collect())
    });
    let sources = Sources::new(0);
    let listener = LiveListener {
        id: 0,
        name: "l".into(),
        bind: "127.0.0.1:80".parse().expect("an address"),
        plan: Arc::new(Plan::new(Arc::new(pool))),
        routes: Routes::default(),
        connections: Arc::new(Limit::unbounded()),
        traffic: Arc::default(),
        file_gone_at: Arc::default(),
        proxies: None,
        rules: Rules::default(),
        ban: None,
        gate: Arc::new(Gate::new(&sources)),
        limits: LIMITS,
        bandwidth: Arc::default(),
        postgres: Postgres::default(),
        tls: None,
    };
    Arc::new(Snapshot {
        version: 1,
        pools: vec![Arc::clone(&listener.plan)],
        listeners: vec![Arc::new(listener)],
        connections: Arc::new(Limit::unbounded()),
        access: HashMap::new(),
        sources: Arc::new(sources),
        bans: Arc::new(Bans::new(10)),
        ban_action: Action::Reset,
        trusted: Arc::default(),
        pit: Pit {
            slots: Arc::new(Limit::unbounded()),
            time: 0,
        },
        admission: Admission::default(),
        listeners_made: 1,
        bandwidth: Arc::default(),
        has_bandwidth_limits: false,
    })
}

/// It only ever needs to accept.
const LISTENER: i32 = 3;
/// The timer of a busy session expires too early now and then, and is armed again.
const LIMITS: SessionLimits = SessionLimits {
    connect: 100 * MS,
    idle: 100 * MS,
    half_closed: SECOND,
    session: NEVER,
    attempts: 3,
    peek: None,
    server_first: NEVER,
    ends_half_sent: false,
    ends_together: false,
    watches_work: true,
    overhears: false,
    handshake: None,
};
