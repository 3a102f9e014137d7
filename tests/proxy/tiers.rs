//! Backups, weights in a file, and two tiers.

use std::collections::HashSet;
use std::thread;

use crate::balancer::Launch;
use crate::fleet::Fleet;
use crate::stage::{Stage, leave_all, proxy, source, spread, tally, with_one_and_two_workers};
use crate::watchdog::{eventually, watched};

#[test]
fn a_backup_is_used_when_all_others_refuse() {
    watched(|| {
        thread::scope(|scope| {
            for strategy in ["round_robin", "least_connections", "hash", "least_time"] {
                scope.spawn(move || with_a_backup(strategy));
            }
        });
    });
}

fn with_a_backup(strategy: &str) {
    let fleet = Fleet::of(3);
    let launch = proxy(strategy, &fleet, &["", ",backup", ""]).workers(2);
    let stage = Stage::start(launch, strategy, fleet);
    let used = |clients: u32| {
        let visits = (0..clients).map(|n| stage.visit_from(source(n)));
        tally(3, visits)
    };
    assert_eq!(used(40)[1], 0, "{strategy}");
    stage.fleet.stop(0);
    // Too few failures to eject it.
    assert_eq!(used(2), [0, 0, 2], "{strategy}");
    stage.fleet.stop(2);
    assert_eq!(used(2), [0, 2, 0], "{strategy}");
    // It gets no more clients once another backend is up again.
    stage.fleet.start(0);
    assert_eq!(used(10), [10, 0, 0], "{strategy}");
    stage.finish();
}

#[test]
fn a_backup_is_used_when_all_others_are_full() {
    with_one_and_two_workers(|workers| {
        let fleet = Fleet::of(2);
        let extras = [",backup", ",max_connections=3"];
        let launch = proxy("round_robin", &fleet, &extras).workers(workers);
        let stage = Stage::start(launch, "round_robin", fleet);
        let guests = stage.hold_all(5);
        assert_eq!(stage.fleet.held(), [2, 3]);
        leave_all(guests);
        assert_eq!(stage.visits(4), [1; 4]);
        stage.finish();
    });
}

/// A stage whose pool has other fields, and each of whose backends has these.
fn in_file(strategy: &str, settings: &str, backends: &[&str], workers: usize) -> Stage {
    let fleet = Fleet::of(backends.len());
    let pool = format!(
        "strategy: (name: \"{strategy}\"{settings}), backends: [{}]",
        fleet.ron(backends)
    );
    Stage::start(Launch::with_pool(&pool).workers(workers), strategy, fleet)
}

#[test]
fn a_file_gives_weights_limits_and_backups() {
    watched(|| {
        let backends = ["weight: 3", "weight: 1, max_connections: 2", "backup: true"];
        let stage = in_file("round_robin", "", &backends, 1);
        assert_eq!(tally(3, stage.visits(16)), [12, 4, 0]);
        let guests = stage.hold_all(16);
        assert_eq!(stage.fleet.held(), [14, 2, 0], "full before its turn");
        leave_all(guests);
        stage.finish();
    });
}

const BLUE: &str = "group: \"blue\"";
const GREEN: &str = "group: \"green\"";

#[test]
fn priority_spills_when_the_first_group_is_full() {
    with_one_and_two_workers(|workers| {
        let blue = "group: \"blue\", max_connections: 2";
        let settings = ", first: \"priority\", groups: [\"blue\", \"green\"]";
        let stage = in_file("two_tier", settings, &[GREEN, blue, GREEN, blue], workers);
        let mut guests = stage.hold_all(4);
        assert_eq!(stage.fleet.held(), [0, 2, 0, 2]);
        guests.extend(stage.hold_all(4));
        assert_eq!(stage.fleet.held(), [2, 2, 2, 2]);
        // A place in the first group is taken again.
        let left = guests.remove(1).leave();
        let next = stage.hold();
        assert_eq!(next.backend, left);
        leave_all(guests.into_iter().chain([next]));
        // Too few failures to eject it.
        stage.fleet.stop(1);
        assert_eq!(stage.visits(2), [3; 2]);
        stage.fleet.stop(3);
        assert!(stage.visits(2).iter().all(|backend| backend % 2 == 0));
        // Clients whose connect to the dead backend fails go to backends that never failed, until
        // this one is tried.
        stage.fleet.start(1);
        eventually("the first group is back", || stage.visit() == 1);
        assert_eq!(stage.visits(5), [1; 5]);
        stage.finish();
    });
}

#[test]
fn groups_take_their_weights() {
    with_one_and_two_workers(|workers| {
        let settings = ", first: \"weight\", groups: [(name: \"blue\", weight: 4), \"green\"]";
        let stage = in_file("two_tier", settings, &[GREEN, BLUE, BLUE], workers);
        let guests = stage.hold_all(40);
        let [green, one, two] = stage.fleet.held()[..] else {
            unreachable!("there are three backends");
        };
        // Each worker has a round of its own.
        assert!(green.abs_diff(8) < workers, "{green} of 40");
        assert!(one.abs_diff(two) <= 1, "{one} and {two}");
        leave_all(guests);
        stage.finish();
    });
}

#[test]
fn a_hash_keeps_a_source_in_its_group() {
    with_one_and_two_workers(|workers| {
        let stage = in_file("two_tier", "", &[BLUE, GREEN, BLUE, GREEN], workers);
        let mut guests = Vec::new();
        let mut groups = HashSet::new();
        for n in 0..40 {
            let of_source: Vec<_> = (0..2).map(|_| stage.call(source(n), b"")).collect();
            let group = of_source[0].backend % 2;
            assert_eq!(of_source[1].backend % 2, group);
            groups.insert(group);
            guests.extend(of_source);
        }
        assert_eq!(groups.len(), 2);
        // The second tier keeps each group even.
        let held = stage.fleet.held();
        let differences = [held[0].abs_diff(held[2]), held[1].abs_diff(held[3])];
        assert!(differences.iter().all(|by| *by <= 1), "{held:?}");
        leave_all(guests);
        stage.finish();
    });
}

/// Holds for every balancer and every order of its backends.
#[test]
fn without_groups_a_source_has_a_subset() {
    watched(|| {
        let stage = Stage::plain("two_tier", 2, Fleet::of(6));
        let mut shuffled = stage.fleet.addresses();
        shuffled.reverse();
        let other = Launch::to(&shuffled).flag("--strategy", "two_tier").start();
        let mut all = HashSet::new();
        for n in 0..60 {
            let at_one: Vec<_> = (0..4).map(|_| stage.call(source(n), b"")).collect();
            let connect = |_| crate::peers::connect_from(source(n), other.address());
            let at_other = (0..4).map(connect).map(crate::stage::Guest::welcome);
            let at_other: Vec<_> = at_other.collect();
            let subset = |guests: &[crate::stage::Guest]| -> HashSet<_> {
                guests.iter().map(|guest| guest.backend).collect()
            };
            assert_eq!(subset(&at_one).len(), 2);
            assert_eq!(subset(&at_one), subset(&at_other));
            let counts = tally(6, at_one.iter().map(|guest| guest.backend));
            assert_eq!(spread(&counts), 2, "each has two: {counts:?}");
            all.extend(subset(&at_one));
            leave_all(at_one.into_iter().chain(at_other));
        }
        assert_eq!(all.len(), 6);
        other.finish();
        stage.balancer.finish();
    });
}
