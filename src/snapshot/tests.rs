//! What a snapshot keeps of the one before.

use super::*;
use crate::config::parse;
use crate::guard::Access;

fn read(text: &str) -> Config {
    let (config, _) = parse("f".to_owned(), text.into()).unwrap();
    config
}

fn compose<'a>(
    before: Option<&'a Snapshot>,
    config: &'a Config,
    max_connections: u32,
    standing: impl Fn(&config::Pool, &config::Backend) -> Standing,
) -> Draft<'a> {
    let standings = |place: usize| {
        let (pool, standing) = (&config.pools[place], &standing);
        let backends = pool.backends.iter();
        backends.map(move |backend| standing(pool, backend))
    };
    let access = AccessFilters::new();
    Snapshot::compose(
        before,
        (config, &access, &TlsByOwner::default()),
        max_connections,
        standings,
        |_| true,
    )
}

fn publish(
    before: Option<&Snapshot>,
    config: &Config,
    max_connections: u32,
    standing: impl Fn(&config::Pool, &config::Backend) -> Standing,
) -> Snapshot {
    compose(before, config, max_connections, standing).take_effect()
}

const FIRST: &str = "(listeners: [(bind: \"127.0.0.1:1\", pool: \"a\")], pools: [
    (name: \"a\", persist: \"source_ip\", backends: [\"127.0.0.1:2\", \"127.0.0.1:3\"])])";

#[test]
fn what_is_counted_goes_on() {
    let up = |_: &config::Pool, _: &config::Backend| Standing::default();
    let first = publish(None, &read(FIRST), 100, up);
    let pool = first.pools[0].pool();
    assert!(pool.backends[1].try_acquire(0));
    let second = "(listeners: [(bind: \"127.0.0.1:1\", pool: \"a\", max_connections: 7)],
        pools: [(name: \"b\", backends: [\"127.0.0.1:9\"]), (name: \"a\", strategy: \"random\",
        persist: \"source_ip\", backends: [(address: \"127.0.0.1:3\", max_connections: 5),
        \"127.0.0.1:4\"])])";
    let second = publish(Some(&first), &read(second), 50, up);
    assert_eq!(second.version, 2);
    assert_eq!(second.connections.max(), 50);
    assert_eq!(second.listeners[0].connections.max(), 7);
    let listener = &first.listeners[0].connections;
    assert!(Arc::ptr_eq(listener, &second.listeners[0].connections));
    let next = second.listeners[0].plan.pool();
    assert_eq!(next.strategy.name(), "random");
    let counts = |index: usize| next.backends[index].tally.connections.used();
    assert_eq!([counts(0), counts(1)], [1, 0]);
    assert_eq!(next.backends[0].tally.connections.max(), 5);
    let table = |pool: &Pool| pool.sticky.clone().unwrap();
    assert!(Arc::ptr_eq(&table(pool), &table(next)));
}

#[test]
fn composing_changes_nothing_that_workers_see() {
    let first = "(max_connections: 90, listeners: [(bind: \"127.0.0.1:1\", pool: \"a\")],
        pools: [(name: \"a\", persist: \"source_ip\", backends: [\"127.0.0.1:2\",
        \"127.0.0.1:3\", \"127.0.0.1:4\"]), (name: \"b\", backends: [\"127.0.0.1:9\"])])";
    let next = "(listeners: [(bind: \"127.0.0.1:1\", pool: \"a\", max_connections: 7)],
        pools: [(name: \"a\", persist: (key: \"source_ip\", ttl: \"7s\"), max_connections: 9,
        queue: (max: 5), backends: [(address: \"127.0.0.1:3\", max_connections: 5)]),
        (name: \"b\", backends: [\"127.0.0.1:9\"])])";
    let up = |_: &config::Pool, _: &config::Backend| Standing::default();
    let first = publish(None, &read(first), 90, up);
    let pool = first.pools[0].pool();
    for backend in &pool.backends[..1] {
        assert!(backend.eject(crate::pool::Cause::Slow));
    }
    assert!(pool.backends[0].try_acquire(0));
    // Whatever of it is counted or limited.
    let seen = || format!("{first:?}");
    let before = seen();
    let config = read(next);
    for _ in 0..2 {
        drop(compose(Some(&first), &config, 50, up));
        assert_eq!(seen(), before);
    }
    // The only backend that is left can't be ejected, and one that left is so no longer.
    let other = Arc::clone(&first.pools[1]);
    other.pool().connections.set_max(3);
    let second = publish(Some(&first), &config, 50, up);
    assert!(!pool.backends[0].tally.is_ejected() && pool.ejections.used() == 0);
    assert_eq!((first.connections.max(), pool.connections.max()), (50, 9));
    assert_eq!(pool.backends[1].tally.connections.max(), 5);
    assert_eq!(first.listeners[0].connections.max(), 7);
    assert!(Arc::ptr_eq(&other, &second.pools[1]));
    assert_eq!(other.pool().connections.max(), 3, "as it is the same");
}

#[test]
fn a_session_keeps_no_access_list() {
    let text = FIRST.replace(
        "pool: \"a\")]",
        "pool: \"a\", access_list: \"office\")],
        access_lists: [(name: \"office\", others: \"allow\")]",
    );
    let config = read(&text);
    let own = Arc::default();
    let filter = Arc::new(AccessFilter::new(
        "office".to_owned(),
        own,
        None,
        Access::Allow,
    ));
    let access = AccessFilters::from([("office".to_owned(), Arc::clone(&filter))]);
    let standings = |_: usize| [Standing::default(); 2].into_iter();
    let draft = Snapshot::compose(
        None,
        (&config, &access, &TlsByOwner::default()),
        9,
        standings,
        |_| true,
    );
    drop(access);
    let first = draft.take_effect();
    assert!(first.access.contains_key(&first.listeners[0].id));
    let next = first.with_new_sockets(&[0]);
    assert!(next.access.contains_key(&next.listeners[0].id));
    let of_session = Arc::clone(&first.listeners[0]);
    drop((first, next));
    assert_eq!(
        (Arc::strong_count(&filter), &*of_session.name),
        (1, "127.0.0.1:1")
    );
}

/// So a change of one backend of many makes one, not all.
#[test]
fn backends_that_stay_as_they_are_are_not_made_again() {
    let up = |_: &config::Pool, _: &config::Backend| Standing::default();
    let first = publish(None, &read(FIRST), 100, up);
    let next = FIRST.replace("\"127.0.0.1:2\"", "(address: \"127.0.0.1:2\", weight: 7)");
    let second = publish(Some(&first), &read(&next), 100, up);
    let same = |one: &Snapshot, other: &Snapshot| -> Vec<bool> {
        let [one, other] = [one, other].map(|snapshot| &snapshot.pools[0].pool().backends);
        let both = one.iter().zip(other);
        both.map(|(one, other)| Arc::ptr_eq(one, other)).collect()
    };
    assert_eq!(same(&first, &second), [false, true]);
    assert_eq!(second.pools[0].pool().backends[0].weight, 7);
    // The pool panics: each is another one, and none of the pool before has changed.
    let down = |_: &config::Pool, backend: &config::Backend| Standing {
        health: crate::pool::Health::Down,
        ..up(&config::Pool::of("p", Vec::new()), backend)
    };
    let third = publish(Some(&second), &read(&next), 100, down);
    assert_eq!(same(&second, &third), [false, false]);
    let forced = |snapshot: &Snapshot| snapshot.pools[0].pool().backends[1].forced;
    assert!(forced(&third) && !forced(&second));
}

#[test]
fn a_listener_keeps_its_id_while_its_address_stays() {
    let config = |binds: &[&str]| {
        let listener = |(index, bind): (usize, &&str)| {
            format!("(name: \"l{index}\", bind: \"{bind}\", pool: \"a\"),")
        };
        let listeners: String = binds.iter().enumerate().map(listener).collect();
        let pool = "(name: \"a\", backends: [\"127.0.0.1:9\"])";
        read(&format!("(listeners: [{listeners}], pools: [{pool}])"))
    };
    let compose = |before: Option<&Snapshot>, binds: &[&str]| {
        let up = |_: &config::Pool, _: &config::Backend| Standing::default();
        publish(before, &config(binds), 100, up)
    };
    let ids = |snapshot: &Snapshot| -> Vec<u64> {
        snapshot
            .listeners
            .iter()
            .map(|listener| listener.id)
            .collect()
    };
    let first = compose(None, &["127.0.0.1:1", "127.0.0.1:2"]);
    assert_eq!(ids(&first), [0, 1]);
    let swapped = compose(Some(&first), &["127.0.0.1:3", "127.0.0.1:2"]);
    assert_eq!(ids(&swapped), [2, 1]);
    // One that comes back is another one.
    let back = compose(Some(&swapped), &["127.0.0.1:2", "127.0.0.1:1"]);
    assert_eq!(ids(&back), [1, 3]);
    let chosen = compose(None, &["127.0.0.1:0", "127.0.0.1:0"]);
    assert_eq!(ids(&compose(Some(&chosen), &["127.0.0.1:0"; 3])), [0, 1, 2]);
}

/// The backend is its name.
#[test]
fn what_is_counted_of_a_host_goes_on_when_its_address_changes() {
    let mut config = read(&FIRST.replace("127.0.0.1:2", "db.test:2"));
    let up = |_: &config::Pool, _: &config::Backend| Standing::default();
    let first = publish(None, &config, 100, up);
    assert!(
        !first.pools[0].pool().backends[0].is_ready(),
        "no address yet"
    );
    config.pools[0].backends[0].resolve([10, 0, 0, 1].into());
    let second = publish(Some(&first), &config, 100, up);
    let old = &second.pools[0].pool().backends[0];
    assert!(old.is_ready() && old.try_acquire(0));
    config.pools[0].backends[0].resolve([10, 0, 0, 2].into());
    let third = publish(Some(&second), &config, 100, up);
    let new = &third.pools[0].pool().backends[0];
    assert_eq!(
        [&old.address, &new.address].map(ToString::to_string),
        ["10.0.0.1:2", "10.0.0.2:2"]
    );
    assert_eq!(new.tally.connections.used(), 1);
    assert!(third.pools[0].pool().leaving.is_empty());
}

#[test]
fn a_plan_stays_until_its_pool_changes() {
    let config = read(FIRST);
    let known = |standing: Standing| move |_: &config::Pool, _: &config::Backend| standing;
    let up = Standing::default();
    let first = publish(None, &config, 100, known(up));
    let next = |before: &Snapshot, config: &Config, standing: Standing| {
        let next = publish(Some(before), config, 100, known(standing));
        let [old, new] = [before, &next].map(|snapshot| &snapshot.pools[0]);
        assert!(Arc::ptr_eq(new, &next.listeners[0].plan));
        (Arc::ptr_eq(old, new), next)
    };
    let (same, second) = next(&first, &config, up);
    assert!(same && second.version == 2);
    // An ejection is read at each selection; that all are is another pool.
    let backends = &second.pools[0].pool().backends;
    assert!(backends[0].eject(crate::pool::Cause::Slow));
    let (same, third) = next(&second, &config, up);
    assert!(same);
    let health = crate::pool::Health::Down;
    let (same, fourth) = next(&third, &config, Standing { health, ..up });
    assert!(!same && fourth.pools[0].pool().panic);
    let slow_start = Some(crate::pool::SlowStart { since: 1, over: 2 });
    let (same, fifth) = next(&fourth, &config, Standing { slow_start, ..up });
    assert!(!same && fifth.pools[0].pool().rising);
    let (same, sixth) = next(&fifth, &config, up);
    assert!(!same);
    let fewer = FIRST.replace(", \"127.0.0.1:3\"", "");
    assert!(sixth.pools[0].pool().backends[1].try_acquire(0));
    let (same, seventh) = next(&sixth, &read(&fewer), up);
    assert!(!same && seventh.pools[0].pool().leaving.len() == 1);
    let (same, eighth) = next(&seventh, &read(&fewer), up);
    assert!(same);
    sixth.pools[0].pool().backends[1].release(crate::pool::Ended::unanswered());
    assert!(
        !next(&eighth, &read(&fewer), up).0,
        "the last session has left"
    );
}
