//! PostgreSQL clients that ask to cancel a query, on connections of their own.

use std::collections::BTreeMap;
use std::sync::Arc;

use mahoraga::config;
use mahoraga::guard::Admission;
use mahoraga::peek::CancelKey;
use mahoraga::pool::{CancelPlace, CanceledBy, Cancels, Pool};
use mahoraga::session::SessionLimits;
use mahoraga::time::MS;

use crate::kernel::{FIRST_PORT, FakeKernel};
use crate::moments::{LIMITS, Moment, STOP, backend, snapshots_with};
use crate::peer::Act;
use crate::stream::{self, CANCEL_BYTES};
use crate::trace::Trace;
use crate::world::Temper;

impl FakeKernel {
    /// A client that has just come asks to cancel a query, and closes when the server has.
    pub(crate) fn let_cancel(&mut self, fd: i32) {
        let ends = [Act::AwaitEnd, Act::AwaitEnd, Act::Fin, Act::Reset];
        let then = self.random.pick(&ends);
        let conn = self.conn(fd);
        conn.inbound.stream = stream::CANCEL;
        conn.peer.script = [Act::Send(CANCEL_BYTES), then, Act::AwaitEnd, Act::Close].into();
    }

    /// A server that is asked reads the request and closes.
    pub(crate) fn begin_cancel(&mut self, fd: i32, port: u16) {
        let Some(its) = self.world.cancels else {
            return;
        };
        assert_eq!(port, its, "a request to cancel goes astray");
        self.conn(fd).peer.script = [Act::Await(CANCEL_BYTES), Act::Close].into();
    }

    /// So much went to such a server in all.
    pub(crate) fn on_cancel_sent(&mut self, bytes: u64) {
        assert!(bytes <= CANCEL_BYTES, "more than a request");
        if bytes == CANCEL_BYTES {
            self.trace.see("a request to cancel");
        }
    }
}

/// Clients ask to cancel a query of a session that the backend of this place has.
fn cancels(seed: u64, place: u16) -> Trace {
    let backends = (0..3).map(|place| backend(FIRST_PORT + place));
    let pool = Pool::new(&config::Pool::of("p", backends.collect()));
    let cancels = Cancels::default();
    let to = CancelPlace {
        pool: pool.number,
        backend: pool.backends[usize::from(place)].number,
    };
    cancels.note(CanceledBy::Key(CancelKey::new(7, b"key!")), to);
    let limits = SessionLimits {
        peek: Some(100 * MS),
        ..LIMITS
    };
    let mut snapshots = snapshots_with((limits, Admission::default()), vec![pool]);
    let snapshot = Arc::get_mut(&mut snapshots[0]).expect("it is new");
    let listener = Arc::get_mut(&mut snapshot.listeners[0]).expect("it is new");
    listener.postgres.cancels = Some(Arc::new(cancels));
    let moment = Moment {
        tempers: vec![Temper::Good, Temper::Moody, Temper::Good],
        snapshots,
        commands: vec![(1_000 * MS, STOP)],
        clients: (0..20).map(|client| client * MS).collect(),
        drought: 0,
        drip: 0,
        asks: false,
        cancels: Some(FIRST_PORT + place),
    };
    moment.run(seed)
}

/// The oracle checks that the requests, and no other byte, go to that backend and to no other one.
#[test]
fn requests_to_cancel_go_to_the_backend_of_the_session() {
    let mut seen: BTreeMap<_, u64> = BTreeMap::new();
    for seed in 0..12 {
        let place = u16::try_from(seed % 3).expect("small");
        for (what, times) in cancels(seed, place).seen {
            *seen.entry(what).or_default() += times;
        }
    }
    for (what, least) in [
        ("a request to cancel", 80),
        ("backend_closed", 40),
        ("client_reset", 10),
        ("first bytes in several pieces", 10),
        ("first bytes looked at where they wait", 1),
        ("retry on the only backend", 1),
    ] {
        let times = seen.get(what).copied().unwrap_or(0);
        assert!(times >= least, "{what}: {times} of {seen:#?}");
    }
}
