//! Connects and their results.

use mahoraga::address::Address;
use mahoraga::kernel::{Done, Errno};
use mahoraga::time::MS;
use mahoraga::token::Token;

use crate::introductions;
use crate::kernel::{FIRST_PORT, FakeKernel};
use crate::ops::Kind;
use crate::pools;
use crate::random::Random;
use crate::world::Temper;

/// The result of a connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Accepted,
    Failed(i32),
    Unanswered,
    /// Nothing listens, and the kernel took that very port for the connect.
    Itself,
}

impl Fate {
    fn draw(temper: Temper, random: &mut Random) -> Self {
        let errnos = [
            libc::ECONNREFUSED,
            libc::EHOSTUNREACH,
            libc::ECONNRESET,
            libc::ETIMEDOUT,
            libc::EPERM,
        ];
        match temper {
            Temper::Good => Self::Accepted,
            Temper::Refusing if random.permille(100) => Self::Itself,
            Temper::Refusing => Self::Failed(libc::ECONNREFUSED),
            Temper::Silent => Self::Unanswered,
            Temper::Moody => match random.below(6) {
                0..=2 => Self::Accepted,
                3..=4 => Self::Failed(random.pick(&errnos)),
                _ => Self::Unanswered,
            },
        }
    }

    fn delay(self, random: &mut Random) -> Option<u64> {
        match self {
            Self::Unanswered => None,
            Self::Failed(libc::EADDRNOTAVAIL | libc::ENOBUFS) => Some(random.lag()),
            Self::Failed(libc::ETIMEDOUT) => Some(random.between(MS, 400 * MS)),
            Self::Itself => Some(random.lag()),
            Self::Accepted | Self::Failed(_) if random.permille(50) => {
                Some(random.between(MS, 400 * MS))
            }
            Self::Accepted | Self::Failed(_) => Some(random.lag()),
        }
    }
}

impl FakeKernel {
    pub(crate) fn begin_connect(
        &mut self,
        token: Token,
        fd: i32,
        to: &Address,
    ) -> Option<Result<(), Errno>> {
        let port = pools::port_of(to);
        let key = (token.slot(), token.generation());
        let pair = self.pairs.entry(key).or_default();
        pair.backend = None;
        let again_same = pair.ports.last() == Some(&port);
        let again = !pair.ports.is_empty() && pair.ports.last() != Some(&port);
        pair.ports.push(port);
        let client = pair.client;
        if again || again_same {
            let loaded = client.is_some_and(|client| self.conn(client).buffers > 0);
            if loaded {
                self.trace.see("retry with bytes of the client");
            }
        }
        if again {
            self.trace.see("retry on another backend");
        } else if again_same {
            self.trace.see("retry on the only backend");
        }
        let client = client.expect("a client is received from while its backend is connected to");
        if let Some(header) = introductions::expected_at(port).filter(|_| self.world.introduces) {
            self.conn(fd).introduction = Some((header, Vec::new()));
        }
        let listener = self.conn(client).listener;
        let routes = &self.world.routes[self.world.known.clone()];
        let mut pools = routes.iter().filter_map(|routes| routes.get(listener));
        let routed = pools.any(|pool| pools::leads_to(pool, port));
        assert!(routed, "{to} is connected to, but not routed to");
        self.begin_cancel(fd, port);
        let backend = usize::from(port - FIRST_PORT);
        if let Address::Unix(_) = to {
            self.conn(fd).local = true;
            let fate = Fate::draw(self.world.backends[backend], &mut self.random);
            return Some(self.connect_at_once(token, fd, fate, (listener, port)));
        }
        let fate = self.draw_fate(backend);
        self.start(token, fd, Kind::Connect(fate));
        if let Some(delay) = fate.delay(&mut self.random) {
            self.schedule_after(token.raw(), delay);
        }
        None
    }

    fn draw_fate(&mut self, backend: usize) -> Fate {
        if self.world.drought {
            self.trace.see("no local port");
            return Fate::Failed(libc::EADDRNOTAVAIL);
        }
        if self.random.permille(10) {
            return Fate::Failed(libc::ENOBUFS);
        }
        Fate::draw(self.world.backends[backend], &mut self.random)
    }

    pub(crate) fn step_connect(&mut self, token: Token, fd: i32, fate: Fate) {
        let cancelled = self.ops[&token.raw()].cancelled.is_some();
        let outcome = match fate {
            Fate::Unanswered if cancelled => return self.end_cancelled(token),
            Fate::Unanswered => return,
            Fate::Failed(errno) => Err(Errno(errno)),
            Fate::Itself => {
                self.trace.see("a socket connected to itself");
                // Any use of it is detected: it is not `connected`.
                self.conn(fd).own = true;
                return self.complete(token, Ok(Done::Count(0)), false);
            }
            Fate::Accepted => Ok(Done::Count(0)),
        };
        if cancelled {
            self.trace.see("connect went its way in spite of a cancel");
        }
        if outcome.is_ok() {
            self.on_connected(token, fd);
        }
        self.complete(token, outcome, false);
    }

    fn on_connected(&mut self, token: Token, fd: i32) {
        self.conn(fd).connected = true;
        if !self.world.asks {
            self.pair(token, fd);
        }
        self.conn(fd).owed_since = Some(self.now);
        self.doom(fd);
    }

    /// A Unix socket accepts or refuses a connection at once. A silent one has a full backlog.
    fn connect_at_once(
        &mut self,
        token: Token,
        fd: i32,
        fate: Fate,
        of: (usize, u16),
    ) -> Result<(), Errno> {
        let (now, full) = (self.now, self.world.full_backlogs.entry(of).or_default());
        match fate {
            Fate::Accepted => {
                *full = (0, 0);
                self.on_connected(token, fd);
                Ok(())
            }
            Fate::Failed(errno) => Err(Errno(errno)),
            Fate::Itself => Err(Errno::CONNREFUSED),
            Fate::Unanswered => {
                if full.0 == 0 {
                    full.1 = now;
                }
                full.0 += 1;
                let most = ASKED_AT_ONCE + (now - full.1) / ASKED_EVERY;
                assert!(full.0 <= most, "a full backlog is tried {} times", full.0);
                self.trace.see("a full backlog");
                Err(Errno::AGAIN)
            }
        }
    }
}

/// A full backlog may be tried this often before the waits have grown, over all pools so far.
const ASKED_AT_ONCE: u64 = 60;
/// The time for each further try.
const ASKED_EVERY: u64 = 25 * MS;
