//! Members keep their numbers, begin slowly when they join, and no ejection of theirs is missed.

use std::time::Duration;

use super::*;
use crate::config::{AdminState, Backend, Ejection, Listener, Pool, Scaling};
use crate::pool::{self, Cause};
use crate::time::SECOND;

fn backend(name: &str, port: u16) -> Backend {
    Backend {
        name: name.to_owned(),
        ..Backend::at(format!("127.0.0.1:{port}").parse().unwrap())
    }
}

fn config(pools: &[(&str, &[(&str, u16)])]) -> Config {
    let pools = pools.iter().map(|(name, backends)| Pool {
        slow_start: Some(Duration::from_secs(10)),
        ..Pool::of(
            (*name).to_owned(),
            backends
                .iter()
                .map(|(name, port)| backend(name, *port))
                .collect(),
        )
    });
    Config::of(Vec::<Listener>::new(), pools.collect())
}

fn ids(roster: &Roster) -> Vec<Vec<u64>> {
    let pools = roster.pools.iter();
    pools
        .map(|record| record.members.iter().map(|member| member.id.0).collect())
        .collect()
}

fn rising(roster: &Roster) -> Vec<&str> {
    let members = roster.pools.iter().flat_map(|record| &record.members);
    let rising = members.filter(|member| member.state.slow_start.is_some());
    rising.map(|member| &*member.name).collect()
}

#[test]
fn a_member_keeps_its_id_wherever_it_stands_and_none_gets_it_again() {
    let mut roster = Roster::default();
    roster.follow(&config(&[("p", &[("a", 1), ("b", 2)]), ("q", &[("a", 1)])]));
    assert_eq!(ids(&roster), [vec![1, 2], vec![3]]);
    roster.follow(&config(&[
        ("q", &[("a", 1)]),
        ("p", &[("c", 3), ("b", 2), ("a", 1)]),
    ]));
    assert_eq!(ids(&roster), [vec![3], vec![4, 2, 1]]);
    assert_eq!(roster.place(MemberId(2)), Some((1, 1)));
    assert_eq!(roster.find("p", "a"), Some((1, 2)));
    // The same name at another address is another backend; one that comes back is, too.
    roster.follow(&config(&[("p", &[("b", 9)])]));
    assert_eq!(ids(&roster), [vec![5]]);
    assert_eq!(roster.place(MemberId(2)), None);
    roster.follow(&config(&[("p", &[("b", 2)]), ("q", &[("a", 1)])]));
    assert_eq!(ids(&roster), [vec![6], vec![7]]);
}

#[test]
fn backends_that_join_others_or_come_back_begin_slowly() {
    let mut roster = Roster::default();
    let mut config = config(&[("p", &[("a", 1), ("b", 2)])]);
    roster.follow(&config);
    assert!(rising(&roster).is_empty(), "the first ones");
    config.pools[0].backends.push(backend("c", 3));
    roster.follow(&config);
    assert_eq!(rising(&roster), ["c"]);
    assert!(roster.end_slow_starts(u64::MAX) && !roster.end_slow_starts(u64::MAX));
    config.pools[0].backends[0].state = AdminState::Maint;
    config.pools[0].backends[1].state = AdminState::Drain;
    roster.follow(&config);
    for backend in &mut config.pools[0].backends {
        backend.state = AdminState::Ready;
    }
    roster.follow(&config);
    assert_eq!(rising(&roster), ["a"]);
    // It lasts until the backend answers.
    roster.pools[0].change(0).health = Health::Down;
    assert!(!roster.end_slow_starts(u64::MAX));
}

#[test]
fn what_was_brought_in_stays_in_while_it_is_of_the_reserve() {
    let mut roster = Roster::default();
    let mut config = config(&[("p", &[("a", 1), ("b", 2)])]);
    config.pools[0].backends[1].reserve = true;
    config.pools[0].scaling = Some(Scaling {
        by: config::ScaleBy::Connections,
        high: 10,
        low: 5,
        window: Duration::from_secs(1),
        cool_down: Duration::from_secs(5),
        min: 1,
        webhook: None,
    });
    roster.follow(&config);
    let waits = |roster: &Roster, config: &Config| -> Vec<bool> {
        let standings = roster.standings(&config.pools[0], 0);
        standings.map(|standing| standing.standby).collect()
    };
    assert_eq!(waits(&roster, &config), [false, true]);
    roster.pools[0].change(1).is_active = true;
    roster.follow(&config);
    assert_eq!(waits(&roster, &config), [false, false]);
    let scaling = config.pools[0].scaling.take();
    roster.follow(&config);
    config.pools[0].scaling = scaling;
    roster.follow(&config);
    assert_eq!(waits(&roster, &config), [false, true]);
}

/// The changes that a cycle reports: 'e' for ejected, 'r' for readmitted.
fn look(member: &mut Member, backend: &pool::Backend, now: u64) -> String {
    let changes = member.notice(&backend.tally, Some(&Ejection::default()), now);
    let letters = changes.iter().map(|change| match change {
        EjectionChange::Ejected(_) => 'e',
        EjectionChange::Readmitted => 'r',
    });
    letters.collect()
}

#[test]
fn no_ejection_is_missed_however_rare_the_looks_are() {
    let config = config(&[("p", &[("a", 1), ("b", 2)])]);
    let mut roster = Roster::default();
    roster.follow(&config);
    let pool = pool::Pool::new(&config.pools[0]);
    let (member, backend) = (&mut roster.pools[0].members[0], &pool.backends[0]);
    assert_eq!(look(member, backend, 0), "");
    assert!(backend.eject(Cause::Failed));
    assert_eq!(look(member, backend, 0), "e");
    assert_eq!(look(member, backend, 1), "");
    assert_eq!(member.ejection.until(), Some(30 * SECOND));
    // A worker readmits it, and another one ejects it again.
    assert!(backend.readmit() && backend.eject(Cause::Failed));
    assert_eq!(look(member, backend, SECOND), "re");
    assert_eq!(member.ejection.until(), Some(61 * SECOND), "twice as long");
    assert!(backend.readmit());
    assert_eq!(look(member, backend, SECOND), "r");
    for _ in 0..2 {
        assert!(backend.eject(Cause::Failed) && backend.readmit());
    }
    assert_eq!(look(member, backend, SECOND), "erer");
    assert_eq!(backend.tally.times_ejected(), 4);
}
