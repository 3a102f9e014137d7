//! Closes that are spread over a time: at its moment a session is closed only if it is still
//! meant. Written out, as chance hardly brings it about.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crossbeam::channel::{bounded, unbounded};
use mahoraga::address::Address;
use mahoraga::config::{self, Strategy};
use mahoraga::guard::Limit;
use mahoraga::pool::Pool;
use mahoraga::select::{Plan, Seat};
use mahoraga::session::{CloseReason, Limits, NEVER};
use mahoraga::snapshot::{Listener, Snapshot};
use mahoraga::worker::{Command, LogQueue, Setup, Sought};

use crate::kernel::{FIRST_PORT, FakeKernel};
use crate::neighbour::Neighbour;
use crate::pools::Pools;
use crate::random::{MS, Random};
use crate::scenario::{Scenario, silent_bell, socket};
use crate::trace::Trace;
use crate::world::{Event, Temper, World};

/// Clients wait for a backend that does not answer; it is told to be down, and its sessions are
/// to be closed within two seconds. Meanwhile they give it up and go to another one.
fn run(seed: u64) -> Trace {
    let at = |port| config::Backend::at(Address::Tcp(([127, 0, 0, 1], port).into()));
    let pool = Arc::new(Pool::new(&config::Pool {
        strategy: Strategy::First,
        ..config::Pool::of("p", vec![at(FIRST_PORT), at(FIRST_PORT + 1)])
    }));
    let tallies: Vec<_> = pool
        .backends
        .iter()
        .map(|backend| Arc::clone(&backend.tally))
        .collect();
    let snapshot = snapshot(Arc::clone(&pool));
    let silent = Sought {
        tally: Some(Arc::clone(&tallies[0])),
        ..Sought::default()
    };
    let spread = Duration::from_secs(2);
    let close = Command::Close(silent, CloseReason::BackendDown, spread, bounded(1).0);
    let stop = Command::Stop(Duration::from_secs(1));
    let (mailbox, commands) = unbounded();
    let world = World {
        mailbox,
        commands: VecDeque::from([close, stop]),
        backends: vec![Temper::Silent, Temper::Good],
        descriptors: 1_000,
        famine: false,
        in_all: Arc::clone(&snapshot.connections),
        per_listener: vec![Arc::clone(&snapshot.listeners[0].connections)],
        others: 0,
        neighbour: Neighbour::new(1),
        limits: vec![LIMITS],
        routes: vec![vec![Arc::clone(&pool)]],
        known: 0..=0,
        in_force: vec![vec![0]],
        lost: BTreeSet::new(),
        closes: Vec::new(),
        lists: Vec::new(),
        beat: 0,
        over_at: None,
    };
    let inboxes = Arc::clone(&world.neighbour.inboxes);
    let mut kernel = FakeKernel::new(Random::new(seed), Trace::default(), world);
    for client in 0..8 {
        kernel.after(client * MS, Event::Arrive(0));
    }
    kernel.after(15 * MS, Event::Command);
    kernel.after(3_000 * MS, Event::Command);
    let (log, records) = bounded(100);
    let setup = Setup {
        seat: Seat { worker: 0, of: 1 },
        sockets: vec![socket(0)],
        snapshot,
        capacity: 100,
        backlog: 0,
        mailbox: commands,
        inboxes,
        log: Some(LogQueue::new(log, silent_bell())),
        notices: silent_bell(),
        stats: Arc::default(),
    };
    let pools = Pools {
        tallies,
        present: vec![pool],
        ..Pools::default()
    };
    Scenario::of(kernel, setup, records, pools).run()
}

fn snapshot(pool: Arc<Pool>) -> Arc<Snapshot> {
    let listener = Listener {
        id: 0,
        name: "l0".into(),
        bind: "127.0.0.1:80".parse().expect("an address"),
        plan: Arc::new(Plan::new(pool)),
        connections: Arc::new(Limit::unbounded()),
        limits: LIMITS,
    };
    Arc::new(Snapshot {
        version: 1,
        pools: vec![Arc::clone(&listener.plan)],
        listeners: vec![Arc::new(listener)],
        connections: Arc::new(Limit::unbounded()),
        listeners_made: 1,
    })
}

/// The oracle knows whom an order meant at its end.
#[test]
fn who_has_another_backend_by_its_moment_is_spared() {
    let mut closed = 0;
    for seed in 0..20 {
        closed += run(seed).seen.get("backend_down").copied().unwrap_or(0);
    }
    // At least the first of each order.
    assert!(closed >= 15, "{closed}");
}

const LIMITS: Limits = Limits {
    connect: 50 * MS,
    idle: NEVER,
    half_closed: 10_000 * MS,
    session: NEVER,
    attempts: 2,
    peek: None,
    watches_work: false,
};
