//! Checks in the control thread's runtime, against little servers.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::timeout;

use crate::config::{Backend, Initial, Listener, Pool, Probe};

use super::*;

mod probes;
mod secured;
mod servers;

use servers::{Server, refusing};

fn quick() -> Check {
    Check {
        interval: Duration::from_millis(20),
        timeout: Duration::from_secs(1),
        ..Check::default()
    }
}

fn backend(name: &str, address: SocketAddr) -> Backend {
    Backend {
        name: name.to_owned(),
        ..Backend::at(Address::Tcp(address))
    }
}

fn pool(name: &str, check: &Check, backends: Vec<Backend>) -> Pool {
    Pool {
        check: Some(check.clone()),
        ..Pool::of(name, backends)
    }
}

fn config(pools: Vec<Pool>) -> Config {
    Config::of(Vec::<Listener>::new(), pools)
}

/// The probes of a configuration, with the roster that they report to.
struct Probed {
    checks: Checks,
    roster: Roster,
}

impl Probed {
    fn new() -> Self {
        Self {
            checks: Checks::new(1),
            roster: Roster::default(),
        }
    }

    fn follow(&mut self, config: &Config) {
        self.roster.follow(config);
        self.checks.follow(config, &mut self.roster);
    }

    fn member(&self, pool: &str, backend: &Backend) -> Option<&Member> {
        let member = self.roster.member(pool, &backend.name);
        member.filter(|member| member.is(backend))
    }

    fn health(&self, pool: &str, backend: &Backend) -> Health {
        let member = self.member(pool, backend);
        member.map_or(Health::Up, Member::health)
    }

    fn report(&self, pool: &str, backend: &Backend) -> Option<Report> {
        self.checks.report(self.member(pool, backend)?)
    }

    /// Pools and backends that have turned, by name.
    fn names(&self, turned: &Turned) -> Vec<(String, String)> {
        let places = turned.members.iter().map(|id| self.roster.place(*id));
        let names = places.map(|place| {
            let (pool, index) = place.expect("it is there");
            let record = &self.roster.pools[pool];
            (
                record.config.name.clone(),
                record.members[index].name.clone(),
            )
        });
        names.collect()
    }
}

fn names(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    let pairs = pairs.iter();
    pairs
        .map(|(pool, backend)| ((*pool).to_owned(), (*backend).to_owned()))
        .collect()
}

async fn next(probed: &mut Probed) -> HealthNews {
    let news = timeout(Duration::from_secs(20), probed.checks.next()).await;
    let news = news.expect("news in time");
    if let HealthNews::Turned(turned) = &news {
        probed.roster.on_turned(turned);
    }
    news
}

async fn next_turn(checks: &mut Probed) -> Turned {
    loop {
        match next(checks).await {
            HealthNews::Turned(turned) => return turned,
            HealthNews::FirstRound => {}
        }
    }
}

/// Handles the targets' reports for a while, and expects no change of health.
async fn quiet(checks: &mut Probed, ms: u64) {
    let news = timeout(Duration::from_millis(ms), next_turn(checks)).await;
    assert!(news.is_err(), "{news:?}");
}

#[test]
fn no_more_probes_are_under_way_than_there_are_places() {
    tokio_uring::start(async {
        let server = Server::silent();
        let mut probed = Probed::new();
        let places = Places::new(3);
        probed.checks.places = places.clone();
        // Each of these checks has a target of its own, which gets no answer.
        let pools = (0..12).map(|n| {
            let expect = config::Expect::Bytes(b"answer".to_vec());
            let probe = Probe::SendExpect {
                send: vec![n],
                expect,
            };
            let check = Check { probe, ..quick() };
            pool(&format!("p{n}"), &check, vec![backend("b", server.address)])
        });
        probed.follow(&config(pools.collect()));
        let all_taken = async {
            while places.free() > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(Duration::from_secs(20), all_taken).await.unwrap();
        drop(probed);
        let all_free = async {
            while places.free() < 3 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(Duration::from_secs(20), all_free).await.unwrap();
    });
}

#[test]
fn a_backend_falls_and_rises_with_its_server() {
    tokio_uring::start(async {
        let server = Server::silent();
        let address = server.address;
        let a = backend("a", address);
        let config = config(vec![pool("web", &quick(), vec![a.clone()])]);
        let mut checks = Probed::new();
        checks.follow(&config);
        assert_eq!(checks.health("web", &a), Health::Up);
        assert!(!checks.checks.first_round_done());
        assert_eq!(next(&mut checks).await, HealthNews::FirstRound);
        assert!(checks.checks.first_round_done());

        server.stop();
        let down = next_turn(&mut checks).await;
        assert_eq!(down.address, Address::Tcp(address));
        assert_eq!((down.turn.to, down.turn.first), (Health::Down, false));
        let failure = down.failure.clone().expect("a reason");
        assert_eq!(failure.to_string(), "connection refused");
        assert_eq!(checks.names(&down), names(&[("web", "a")]));
        assert_eq!(checks.health("web", &a), Health::Down);
        let report = checks.report("web", &a).expect("it is probed");
        assert_eq!((report.against, report.needed), (0, 2));
        assert_eq!(report.last.and_then(|last| last.failure), Some(failure));
        assert!(report.failures >= 3 && report.probes > report.failures);

        let _server = Server::silent_at(address);
        let up = next_turn(&mut checks).await;
        assert_eq!((up.turn.to, up.failure), (Health::Up, None));
        assert_eq!(checks.health("web", &a), Health::Up);
    });
}

#[test]
fn pools_share_the_probe_of_a_backend() {
    tokio_uring::start(async {
        let (refusing, server) = (refusing(), Server::silent());
        let check = Check {
            port: Some(refusing.port()),
            ..quick()
        };
        let other = Check {
            fall: 1,
            ..check.clone()
        };
        // Only the port differs, and the check sets it.
        let pools = vec![
            pool("one", &check, vec![backend("a", refusing)]),
            pool("two", &check, vec![backend("b", server.address)]),
            pool("three", &other, vec![backend("c", refusing)]),
        ];
        let mut checks = Probed::new();
        checks.follow(&config(pools));
        assert_eq!(checks.checks.targets(), 2);
        let mut turned = Vec::new();
        for _ in 0..2 {
            let next = next_turn(&mut checks).await;
            turned.push(checks.names(&next));
        }
        turned.sort();
        let shared = names(&[("one", "a"), ("two", "b")]);
        assert_eq!(turned, [shared, names(&[("three", "c")])]);
        assert_eq!(
            checks.health("two", &backend("b", server.address)),
            Health::Down
        );
    });
}

#[test]
fn what_stays_keeps_its_state_and_what_goes_is_not_probed() {
    tokio_uring::start(async {
        let refusing = refusing();
        let (a, b) = (backend("a", refusing), backend("b", refusing));
        let with = |backends| config(vec![pool("web", &quick(), backends)]);
        let mut checks = Probed::new();
        checks.follow(&with(vec![a.clone()]));
        next_turn(&mut checks).await;

        checks.follow(&with(vec![a.clone(), b.clone()]));
        assert_eq!(checks.checks.targets(), 1);
        assert_eq!(checks.health("web", &a), Health::Down);
        assert_eq!(checks.health("web", &b), Health::Down, "the same target");
        quiet(&mut checks, 200).await;

        let mut away = a.clone();
        away.state = AdminState::Maint;
        checks.follow(&with(vec![away.clone()]));
        assert_eq!(checks.checks.targets(), 0);
        assert_eq!(checks.report("web", &away), None);
        assert_eq!(checks.health("web", &away), Health::Up);
        quiet(&mut checks, 200).await;

        // The backend comes back as a new one.
        checks.follow(&with(vec![a.clone()]));
        assert_eq!(checks.health("web", &a), Health::Up);
        assert!(next_turn(&mut checks).await.turn.first);
    });
}

#[test]
fn another_check_takes_over_what_was_known_and_another_address_does_not() {
    tokio_uring::start(async {
        let refusing = refusing();
        let a = backend("a", refusing);
        let mut checks = Probed::new();
        checks.follow(&config(vec![pool("web", &quick(), vec![a.clone()])]));
        next_turn(&mut checks).await;

        let patient = Check { fall: 9, ..quick() };
        checks.follow(&config(vec![pool("web", &patient, vec![a.clone()])]));
        assert_eq!(checks.health("web", &a), Health::Down);
        quiet(&mut checks, 100).await;

        let moved = backend("a", servers::refusing());
        assert_eq!(checks.health("web", &moved), Health::Up, "another backend");
        checks.follow(&config(vec![pool("web", &patient, vec![moved.clone()])]));
        assert_eq!(checks.health("web", &moved), Health::Up);
        assert_eq!(checks.checks.specs.len(), 1);
    });
}

#[test]
fn the_first_probe_decides_where_it_is_to() {
    tokio_uring::start(async {
        let server = Server::silent();
        let (good, bad) = (backend("good", server.address), backend("bad", refusing()));
        let check = Check {
            initial: Initial::Probe,
            ..quick()
        };
        let mut checks = Probed::new();
        let pools = vec![pool("web", &check, vec![good.clone(), bad.clone()])];
        checks.follow(&config(pools));
        assert_eq!(checks.health("web", &good), Health::Down);
        for _ in 0..2 {
            let turned = next_turn(&mut checks).await;
            assert!(turned.turn.first);
            let report = checks.report("web", &good).expect("it is probed");
            assert!(report.probes <= 1 || checks.names(&turned) != names(&[("web", "good")]));
        }
        assert_eq!(checks.health("web", &good), Health::Up);
        assert_eq!(checks.health("web", &bad), Health::Down);
    });
}

#[test]
fn a_reserve_is_probed_and_a_pool_without_a_check_is_not() {
    tokio_uring::start(async {
        let mut spare = backend("spare", refusing());
        spare.reserve = true;
        let idle = Pool::of("idle", vec![spare.clone()]);
        let pools = vec![pool("web", &quick(), vec![spare.clone()]), idle];
        let mut checks = Probed::new();
        checks.follow(&config(pools));
        let turned = next_turn(&mut checks).await;
        assert_eq!(checks.names(&turned), names(&[("web", "spare")]));
        assert_eq!(checks.health("idle", &spare), Health::Up);
    });
}

#[test]
fn there_is_no_first_round_to_wait_for_without_targets() {
    tokio_uring::start(async {
        let mut checks = Probed::new();
        checks.follow(&config(Vec::new()));
        assert!(checks.checks.first_round_done());
        // A target that joins later does not undo it.
        let pools = vec![pool("web", &quick(), vec![backend("a", refusing())])];
        checks.follow(&config(pools));
        assert!(checks.checks.first_round_done());
        assert!(matches!(next(&mut checks).await, HealthNews::Turned(_)));
    });
}

#[test]
fn the_pace_follows_the_state() {
    tokio_uring::start(async {
        let a = backend("a", refusing());
        let rare = Check {
            interval_down: Some(Duration::from_secs(3_600)),
            ..quick()
        };
        let mut checks = Probed::new();
        checks.follow(&config(vec![pool("web", &rare, vec![a.clone()])]));
        next_turn(&mut checks).await;
        let probes = |checks: &Probed| checks.report("web", &a).map(|report| report.probes);
        assert_eq!(probes(&checks), Some(3));
        quiet(&mut checks, 200).await;
        assert_eq!(probes(&checks), Some(3), "once an hour while it is down");
    });
}

#[test]
fn a_probe_that_hangs_delays_no_other() {
    tokio_uring::start(async {
        let server = Server::silent();
        let hanging = Check {
            timeout: Duration::from_secs(60),
            probe: Probe::SendExpect {
                send: Vec::new(),
                expect: config::Expect::Bytes(b"never".to_vec()),
            },
            ..quick()
        };
        let pools = vec![
            pool("hangs", &hanging, vec![backend("a", server.address)]),
            pool("goes", &quick(), vec![backend("b", server.address)]),
        ];
        let mut checks = Probed::new();
        checks.follow(&config(pools));
        let report = |checks: &Probed, pool: &str, name: &str| {
            let report = checks.report(pool, &backend(name, server.address));
            report.expect("it is probed").probes
        };
        while report(&checks, "goes", "b") < 20 {
            quiet(&mut checks, 50).await;
        }
        assert_eq!(report(&checks, "hangs", "a"), 0);
        assert_eq!(server.open(), 1, "one at a time");
    });
}

#[test]
fn what_this_process_lacks_changes_no_verdict() {
    let check = quick();
    let lacking = Failure::Lacking("too many open files".to_owned());
    let mut verdict = Verdict::new(Initial::Up);
    for _ in 0..10 {
        assert_eq!(count(&mut verdict, Some(&lacking), &check), None);
    }
    assert_eq!((verdict.health(), verdict.against()), (Health::Up, 0));
    let refused = Failure::Broken("connection refused".to_owned());
    count(&mut verdict, Some(&refused), &check);
    assert_eq!(verdict.against(), 1);
}
