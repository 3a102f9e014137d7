//! The pools of the workers: any strategy, backends that come, go, fail and recover.

use std::num::{NonZeroU16, NonZeroU32};
use std::sync::Arc;
use std::time::Duration;

use mahoraga::address::Address;
use mahoraga::config::{self, AllDown, BackendHeader, Ejection, FirstTier, Hash, Key, Persist};
use mahoraga::config::{SecondTier, Strategy, TwoTier};
use mahoraga::peek::Field;
use mahoraga::pool::{AdminState, Backend, Health, Pool, SlowStart, Standing, Tally};
use mahoraga::select::Plan;
use mahoraga::time::MS;

use crate::introductions;
use crate::kernel::{FIRST_PORT, START};
use crate::random::Random;
use crate::world::Temper;

/// All backends of a run, and the pool that each listener has now.
#[derive(Debug, Default)]
pub(crate) struct Pools {
    pub(crate) known: Vec<config::Backend>,
    pub(crate) tempers: Vec<Temper>,
    /// The tallies of every backend of every pool so far.
    pub(crate) tallies: Vec<Arc<Tally>>,
    pub(crate) present: Vec<Arc<Pool>>,
    /// Some backends expect a header.
    pub(crate) introduces: bool,
}

/// Whether a pool's sessions may be connected to a port now. As a last resort this includes ejected
/// backends, and those that are down if the pool fails open.
pub(crate) fn leads_to(pool: &Pool, port: u16) -> bool {
    let is_it = |backend: &Backend| port_of(&backend.address) == port;
    let open = pool.config.fails_open();
    let last_resort = |one: &Backend| one.is_in_rotation() || open && one.is_ready();
    let mut all = pool.backends.iter();
    pool.reachable().any(|one| is_it(one)) || all.any(|one| is_it(one) && last_resort(one))
}

/// The number of a backend; for a Unix socket it is the path.
pub(crate) fn port_of(address: &Address) -> u16 {
    match address {
        Address::Tcp(address) => address.port(),
        Address::Unix(path) => {
            let number = path.to_str().and_then(|path| path.parse().ok());
            number.expect("a number")
        }
    }
}

impl Pools {
    /// The pool that replaces a listener's pool.
    pub(crate) fn next(&mut self, listener: usize, random: &mut Random) -> Plan {
        let config = self.config(random);
        let over = random.pick(&[0, 100 * MS, 5_000 * MS]);
        let since = START + random.below(1_000 * MS);
        let slow_start = (over > 0).then_some(SlowStart { since, over });
        let known = |backend: &config::Backend| Standing {
            slow_start: slow_start.filter(|_| backend.weight == 1),
            standby: backend.reserve,
            ..Standing::default()
        };
        let before = self.present.get(listener).map(Arc::as_ref);
        let pool = Pool::build(&config, before, known);
        let pool = Arc::new(pool.with(|backend| {
            backend.admin = random.pick(&[
                AdminState::Ready,
                AdminState::Ready,
                AdminState::Ready,
                AdminState::Ready,
                AdminState::Drain,
                AdminState::Maint,
            ]);
            backend.health = random.pick(&[Health::Up, Health::Up, Health::Up, Health::Down]);
        }));
        pool.take_effect(before);
        for backend in &pool.backends {
            let seen = |tally: &Arc<Tally>| Arc::ptr_eq(tally, &backend.tally);
            if !self.tallies.iter().any(seen) {
                self.tallies.push(Arc::clone(&backend.tally));
            }
        }
        if let Some(present) = self.present.get_mut(listener) {
            *present = Arc::clone(&pool);
        } else {
            self.present.push(Arc::clone(&pool));
        }
        Plan::new(pool)
    }

    fn config(&mut self, random: &mut Random) -> config::Pool {
        let barren = random.permille(60);
        let mut backends: Vec<config::Backend> = Vec::new();
        for _ in 0..random.between(1, 4) {
            let backend = self.backend(random, barren);
            if backends.iter().all(|other| other.name != backend.name) {
                backends.push(backend);
            }
        }
        let strategies = Strategy::all();
        let (_, strategy) = &strategies[index(random, strategies.len())];
        config::Pool {
            strategy: settings(strategy.clone(), random),
            persist: random.permille(400).then(|| persist(random)),
            max_connections: random.pick(&[None, None, NonZeroU32::new(3)]),
            ejection: random.permille(800).then(|| Ejection {
                failures: random.pick(&[1, 2, 5]),
                share: random.pick(&[0, 50, 100]),
                ..Ejection::default()
            }),
            panic_below: random.pick(&[Some(0), None]),
            all_down: random.pick(&[None, Some(AllDown::Closed)]),
            queue: config::QueueLimits {
                max: random.pick(&[0, 1, 3, 100, 100]),
                timeout: Duration::from_millis(random.pick(&[20, 300, 5_000])),
            },
            ..config::Pool::of("p", backends)
        }
    }

    fn backend(&mut self, random: &mut Random, barren: bool) -> config::Backend {
        let known = self.known.len() as u64;
        let again = known > 0 && !barren && random.permille(500);
        let mut backend = if again {
            self.known[index(random, self.known.len())].clone()
        } else {
            let port = FIRST_PORT + u16::try_from(known).expect("few backends");
            let address = if random.permille(200) {
                Address::Unix(port.to_string().into())
            } else {
                Address::Tcp(([127, 0, 0, 1], port).into())
            };
            let mut backend = config::Backend::at(address);
            if let Some(header) = introductions::expected_at(port).filter(|_| self.introduces) {
                backend.send_proxy = BackendHeader::Own(header);
            }
            self.known.push(backend.clone());
            self.tempers.push(match random.below(10) {
                0 => Temper::Refusing,
                1 => Temper::Silent,
                2..=3 => Temper::Moody,
                _ => Temper::Good,
            });
            backend
        };
        backend.weight = if barren {
            0
        } else {
            random.pick(&[0, 1, 1, 1, 5])
        };
        backend.max_connections =
            random.pick(&[None, None, NonZeroU32::new(1), NonZeroU32::new(3)]);
        backend.reserve = random.permille(50);
        backend.backup = random.permille(200);
        let group = random.pick(&["blue", "green"]);
        backend.group = random.permille(700).then(|| group.to_owned());
        backend
    }
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the other strategies keep their default settings"
)]
fn settings(strategy: Strategy, random: &mut Random) -> Strategy {
    match strategy {
        Strategy::Hash(_) => Strategy::Hash(Hash {
            key: key(random),
            max_load: random.pick(&[None, Some(125)]),
        }),
        Strategy::TwoTier(_) => {
            let group = |name: &str, weight| config::Group {
                name: name.to_owned(),
                weight,
            };
            let groups = [vec![], vec![group("blue", 3), group("green", 1)]];
            let first = [
                FirstTier::Hash {
                    key: key(random),
                    subset: random.pick(&[NonZeroU16::MIN, NonZeroU16::MIN.saturating_add(1)]),
                },
                FirstTier::Weight,
                FirstTier::Priority,
            ];
            let then = [
                SecondTier::LeastConnections,
                SecondTier::LeastTime(config::LeastTime::default()),
                SecondTier::PowerOfTwo,
            ];
            Strategy::TwoTier(TwoTier {
                first: first[index(random, 3)].clone(),
                then: random.pick(&then),
                groups: groups[index(random, 2)].clone(),
            })
        }
        simple => simple,
    }
}

fn persist(random: &mut Random) -> Persist {
    Persist {
        key: key(random),
        ttl: Duration::from_millis(random.pick(&[10, 60_000])),
        clients_max: random.pick(&[1, 100]),
    }
}

fn key(random: &mut Random) -> Key {
    match random.below(5) {
        0 => Key::SourceIp { v4: 32, v6: 64 },
        1 => Key::SourceIpPort,
        2 => Key::Peeked(Field::Sni),
        3 => Key::Peeked(Field::RdpCookie),
        _ => Key::Peeked(Field::HttpPath),
    }
}

fn index(random: &mut Random, below: usize) -> usize {
    usize::try_from(random.below(below as u64)).expect("an index")
}
