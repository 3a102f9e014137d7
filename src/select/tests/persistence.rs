//! Clients that come back.

use super::*;
use crate::peek::Field;
use crate::pool::Standing;

fn persisting(persist: Persist, weights: &[u16]) -> Bench {
    let mut config = config(Strategy::RoundRobin, &backends(weights));
    config.persist = Some(persist);
    Bench::with(config)
}

fn minute() -> Persist {
    Persist {
        ttl: Duration::from_secs(60),
        ..Persist::default()
    }
}

fn by_cookie() -> Persist {
    Persist {
        key: Key::Peeked(Field::HttpCookie("session".into())),
        ..minute()
    }
}

#[test]
fn a_client_comes_back_to_its_backend_on_any_worker() {
    let config = config(Strategy::StickyRoundRobin(minute()), &backends(&[1; 7]));
    let pool = Arc::new(Pool::new(&config));
    let mut workers = [0, 1].map(|worker| selector_of(&pool, worker, 2));
    let request = |client: u64| Request {
        now: SECOND,
        keys: Keys {
            persist: client,
            ..Keys::default()
        },
        tried: &[],
    };
    let first: Vec<_> = (0..70)
        .map(|client| workers[0].select(&request(client)))
        .collect();
    let again: Vec<_> = (0..70)
        .map(|client| workers[1].select(&request(client)))
        .collect();
    assert_eq!(first, again);
    for index in 0..7 {
        let count = first
            .iter()
            .filter(|&&choice| choice == Choice::Backend(index))
            .count();
        assert_eq!(count, 10, "the first connections go round robin");
    }
}

#[test]
fn it_is_remembered_for_the_ttl_since_its_last_use() {
    let mut bench = persisting(minute(), &[1; 50]);
    let own = bench.of_key(1);
    for _ in 0..5 {
        bench.now += 59 * SECOND;
        assert_eq!(bench.of_key(1), own);
    }
    bench.now += 61 * SECOND;
    assert_ne!(bench.of_key(1), own, "the round has gone on");
}

#[test]
fn a_long_session_keeps_its_client() {
    let mut bench = persisting(minute(), &[1; 50]);
    let own = bench.of_key(1);
    bench.now += 3_600 * SECOND;
    let keys = Keys {
        select: crate::hash::mix(2),
        persist: 2,
        source: 2,
    };
    bench
        .selector
        .plan
        .on_left(bench.backend(own), &keys, bench.now);
    bench.now += 59 * SECOND;
    assert_eq!(bench.of_key(1), own);
}

#[test]
fn whose_backend_is_out_moves_and_stays_moved() {
    type Change = fn(&mut Backend);
    let changes: [Change; 4] = [
        |backend| backend.health = Health::Down,
        |backend| backend.admin = AdminState::Drain,
        |backend| backend.weight = 0,
        |backend| backend.tally.connections.set_max(0),
    ];
    for out in changes {
        let mut bench = persisting(minute(), &[1; 5]);
        let own = bench.of_key(1);
        let name = bench.backend(own).name.clone();
        let on_own = |change: Change| {
            let name = name.clone();
            move |backend: &mut Backend| {
                if backend.name == name {
                    change(backend);
                }
            }
        };
        bench.change(on_own(out));
        let next = bench.of_key(1);
        assert_ne!(next, own);
        bench.change(on_own(|backend| {
            backend.health = Health::Up;
            backend.admin = AdminState::Ready;
            backend.weight = 1;
            backend.tally.connections.set_max(u32::MAX);
        }));
        assert_eq!(bench.of_key(1), next);
    }
}

#[test]
fn a_backend_that_failed_loses_its_client() {
    let mut bench = persisting(minute(), &[1; 5]);
    let own = bench.of_key(1);
    let keys = Keys {
        select: crate::hash::mix(2),
        persist: 2,
        source: 2,
    };
    let next = picked(bench.select(keys, &[own]));
    assert_ne!(next, own);
    assert_eq!(bench.of_key(1), next);
}

/// By a field of their first bytes. Behind one address there may be thousands of clients.
#[test]
fn clients_of_one_address_spread_by_what_they_show() {
    let fields = [
        Field::HttpHost,
        Field::Sni,
        Field::HttpCookie("session".into()),
    ];
    for field in fields {
        let persist = Persist {
            key: Key::Peeked(field),
            ..minute()
        };
        let mut bench = persisting(persist, &[1; 4]);
        let mut counts = [0; 4];
        for shown in 1_000..1_040 {
            let keys = Keys {
                persist: shown,
                source: 77,
                ..Keys::default()
            };
            let index = picked(bench.select(keys, &[]));
            assert_eq!(picked(bench.select(keys, &[])), index);
            counts[usize::from(index)] += 1;
        }
        assert_eq!(counts, [10; 4]);
    }
}

/// The first new cookie takes over from the address; the next new client is another one.
#[test]
fn an_address_is_forgotten_once_its_cookie_is_known() {
    let mut bench = persisting(by_cookie(), &[1; 9]);
    let without = Keys {
        persist: 77,
        source: 77,
        ..Keys::default()
    };
    for cookie in 1_000..1_009 {
        let with = Keys {
            persist: cookie,
            ..without
        };
        let own = picked(bench.select(without, &[]));
        assert_eq!(picked(bench.select(with, &[])), own);
        bench
            .selector
            .plan
            .on_left(bench.backend(own), &without, bench.now);
        assert_eq!(u64::from(own), cookie - 1_000, "the round goes on");
    }
}

/// A login changes the cookie.
#[test]
fn a_changed_cookie_follows_the_client_that_just_left() {
    let mut bench = persisting(by_cookie(), &[1; 9]);
    let with = |cookie| Keys {
        persist: cookie,
        source: 77,
        ..Keys::default()
    };
    let own = picked(bench.select(with(1_000), &[]));
    let leave = |bench: &Bench, keys| {
        let backend = bench.backend(own);
        bench.selector.plan.on_left(backend, &keys, bench.now);
    };
    leave(&bench, with(1_000));
    bench.now += 5 * SECOND;
    assert_eq!(picked(bench.select(with(2_000), &[])), own);
    // That was one client; other clients of the address are not it, nor are later ones.
    assert_ne!(picked(bench.select(with(3_000), &[])), own);
    leave(&bench, with(2_000));
    bench.now += 11 * SECOND;
    assert_ne!(picked(bench.select(with(4_000), &[])), own);
}

/// The first connection lasts longer than the time for which a client is remembered.
#[test]
fn a_long_first_session_keeps_its_client() {
    let mut bench = persisting(by_cookie(), &[1; 9]);
    let without = Keys {
        persist: 77,
        source: 77,
        ..Keys::default()
    };
    let own = picked(bench.select(without, &[]));
    bench.now += 600 * SECOND;
    let backend = bench.backend(own);
    bench.selector.plan.on_left(backend, &without, bench.now);
    let with = Keys {
        persist: 1_000,
        ..without
    };
    assert_eq!(picked(bench.select(with, &[])), own);
}

#[test]
fn where_all_fail_clients_keep_their_backends() {
    let mut bench = persisting(minute(), &[1; 5]);
    let before: Vec<_> = (0..20).map(|client| bench.of_key(client)).collect();
    for index in 0..5 {
        for _ in 0..9 {
            bench.backend(index).on_failed();
        }
    }
    let after: Vec<_> = (0..20).map(|client| bench.of_key(client)).collect();
    assert_eq!(before, after);
}

#[test]
fn no_client_stays_with_a_backend_that_answers_none() {
    let mut bench = persisting(minute(), &[1; 5]);
    let own = bench.of_key(1);
    let mut stays = 0;
    while bench.of_key(1) == own {
        bench.backend(own).on_failed();
        stays += 1;
        assert!(stays < 10);
    }
    let next = bench.of_key(1);
    bench.answers(own, MS);
    assert_eq!(bench.of_key(1), next);
}

#[test]
fn memory_survives_other_snapshots_and_another_order() {
    let mut bench = persisting(minute(), &[1; 6]);
    let before: Vec<_> = (0..60)
        .map(|client| {
            let index = bench.of_key(client);
            bench.backend(index).name.clone()
        })
        .collect();
    let mut config = config(Strategy::Random, &backends(&[1; 6]));
    config.persist = Some(minute());
    // The reload also extends the time.
    config.persist = Some(Persist {
        ttl: Duration::from_secs(120),
        ..minute()
    });
    config.backends.reverse();
    config
        .backends
        .push(config::Backend::at("127.0.0.1:1".parse().unwrap()));
    let mut bench = Bench {
        now: bench.now,
        ..Bench::over(Pool::build(&config, Some(&bench.pool), |_| {
            Standing::default()
        }))
    };
    bench.now += 100 * SECOND;
    for (client, name) in (0..).zip(before) {
        let index = bench.of_key(client);
        assert_eq!(bench.backend(index).name, name);
    }
}

#[test]
fn the_least_recent_client_is_forgotten_first() {
    let mut bench = persisting(
        Persist {
            clients_max: 10,
            ..minute()
        },
        &[1; 100],
    );
    let first: Vec<_> = (0..10).map(|client| bench.of_key(client)).collect();
    assert_eq!(bench.of_key(0), first[0]);
    bench.of_key(10);
    assert_eq!(bench.of_key(0), first[0]);
    assert_ne!(bench.of_key(1), first[1]);
}

#[test]
fn a_client_that_gets_its_cookie_stays_where_it_got_it() {
    let mut bench = persisting(by_cookie(), &[1; 9]);
    let source = 77;
    // Its first request has no cookie: its address identifies it.
    let without = Keys {
        persist: source,
        source,
        ..Keys::default()
    };
    let with = |cookie| Keys {
        persist: cookie,
        source,
        ..Keys::default()
    };
    let own = picked(bench.select(without, &[]));
    assert_eq!(picked(bench.select(with(5), &[])), own);
    // From another address the cookie alone identifies the client.
    let elsewhere = Keys {
        source: 78,
        ..with(5)
    };
    assert_eq!(picked(bench.select(elsewhere, &[])), own);
    // Holds also at addresses with other clients, which stay where they are.
    for source in 100..120 {
        let other = Keys {
            persist: source,
            source,
            ..Keys::default()
        };
        let others = picked(bench.select(other, &[]));
        let among_them = Keys { source, ..with(5) };
        assert_eq!(picked(bench.select(among_them, &[])), own);
        assert_eq!(picked(bench.select(other, &[])), others);
    }
}

#[test]
fn two_workers_that_meet_a_client_at_once_agree() {
    let mut config = config(Strategy::Random, &backends(&[1; 64]));
    config.persist = Some(minute());
    let pool = Arc::new(Pool::new(&config));
    let choices = |worker| {
        let mut selector = selector_of(&pool, worker, 4);
        let choices = (0..2_000).map(|client| {
            let keys = Keys {
                persist: client,
                ..Keys::default()
            };
            let request = Request {
                now: SECOND,
                keys,
                tried: &[],
            };
            picked(selector.select(&request))
        });
        choices.collect::<Vec<_>>()
    };
    let all: Vec<Vec<_>> = std::thread::scope(|scope| {
        let choices = &choices;
        let workers: Vec<_> = (0..4).map(|n| scope.spawn(move || choices(n))).collect();
        workers
            .into_iter()
            .map(|worker| worker.join().unwrap())
            .collect()
    });
    assert!(all.iter().all(|choices| *choices == all[0]));
}
