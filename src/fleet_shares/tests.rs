//! Shares never add up to more than the limit: a simulation of balancers over a keeper of the
//! ledger with leases, where requests are late or lost and processes stop, end and come back.

mod keeper;

use std::collections::BTreeMap;

use super::*;
use crate::time::{MS, SECOND};
use keeper::{Keeper, LASTS, Request};

const LIMITS: [&str; 2] = ["connections", "rate"];
const PACE: u64 = SECOND;

fn other(share: u32, want: u32) -> Other {
    let share = FleetShare {
        limit: 100,
        share,
        base: share,
        want,
    };
    Other {
        share,
        is_live: true,
    }
}

fn next(mine: u32, others: &[Other], used: u32, want: u32) -> (u32, u32) {
    let limit = 100;
    let next = next_share(mine, others, Demand { limit, used, want });
    (next.share, next.base)
}

#[test]
fn a_balancer_alone_takes_all_and_two_take_halves() {
    assert_eq!(next(0, &[], 0, 0), (100, 100));
    assert_eq!(next(0, &[other(0, 0)], 0, 0), (50, 50));
    assert_eq!(
        next(0, &[other(80, 0)], 0, 0),
        (20, 20),
        "no more than is free"
    );
}

#[test]
fn one_that_needs_more_gets_what_others_do_not_need() {
    // The idle one keeps a quarter of its part.
    assert_eq!(next(50, &[other(50, 100)], 3, 5), (12, 12));
    assert_eq!(next(50, &[other(12, 0)], 50, 90), (88, 50));
    // Its part comes back where it needs it, but for what is in use.
    assert_eq!(next(88, &[other(12, 60)], 80, 100), (50, 50));
    assert_eq!(next(12, &[other(80, 100)], 12, 60), (20, 20));
}

#[test]
fn what_is_free_is_divided_among_those_who_need_it() {
    let others = [other(25, 60), other(25, 0)];
    assert_eq!(
        next(25, &others, 25, 100).0,
        25 + 8 + 5,
        "its part, and half of the rest"
    );
}

#[test]
fn a_lower_limit_of_another_balancer_holds() {
    let mut one = other(50, 0);
    one.share.limit = 60;
    assert_eq!(next(50, &[one], 50, 100), (30, 30));
    one.is_live = false;
    assert_eq!(next(50, &[one], 50, 100), (50, 50));
}

#[test]
fn a_limit_below_the_number_of_balancers_is_taken_by_the_first() {
    let limit = 2;
    let take = |mine, given, want| {
        let mut others = [other(0, 0); 3];
        others[0].share.share = given;
        let used = 0;
        next_share(mine, &others, Demand { limit, used, want }).share
    };
    assert_eq!(take(0, 0, 1), 1);
    assert_eq!(take(0, 2, 1), 0);
    assert_eq!(take(0, 0, 0), 0);
}

/// A process that takes part.
struct Process {
    member: FleetMember,
    demands: BTreeMap<String, Demand>,
    /// In force, as workers read them.
    bounds: Vec<ShareBound>,
    asked: Option<(u64, u64, Ask)>,
    waits_until: u64,
    stopped_until: u64,
    is_cut_off: bool,
}

impl Process {
    fn new(name: usize, instance: u64) -> Self {
        Self {
            member: FleetMember::new(&format!("lb-{name}"), &instance.to_string(), PACE),
            demands: BTreeMap::new(),
            bounds: vec![ShareBound::default(); LIMITS.len()],
            asked: None,
            waits_until: 0,
            stopped_until: 0,
            is_cut_off: false,
        }
    }

    fn apply(&mut self) {
        self.bounds = LIMITS.map(|limit| self.member.bound(limit)).to_vec();
    }
}

struct Fleet {
    rng: fastrand::Rng,
    now: u64,
    limit: u32,
    keeper: Keeper,
    processes: Vec<Process>,
    made: u64,
    /// How long requests and answers take, at most.
    latency: u64,
}

impl Fleet {
    fn new(seed: u64, count: usize, limit: u32) -> Self {
        let mut fleet = Self {
            rng: fastrand::Rng::with_seed(seed),
            now: SECOND,
            limit,
            keeper: Keeper::default(),
            processes: Vec::new(),
            made: 0,
            latency: 20 * MS,
        };
        for name in 0..count {
            let process = fleet.process(name);
            fleet.processes.push(process);
        }
        fleet
    }

    fn process(&mut self, name: usize) -> Process {
        self.made += 1;
        let mut process = Process::new(name, self.made);
        let quiet = Demand {
            limit: self.limit,
            ..Demand::default()
        };
        process.demands = LIMITS.map(|limit| (limit.to_owned(), quiet)).into();
        process
    }

    fn demand(&mut self, place: usize, used: u32, want: u32) {
        for demand in self.processes[place].demands.values_mut() {
            (demand.used, demand.want) = (used, want);
        }
    }

    fn limit_to(&mut self, place: usize, limit: u32) {
        let demands = self.processes[place].demands.values_mut();
        demands.for_each(|demand| demand.limit = limit);
    }

    /// The settings of the keeper change. What was asked before may still be done.
    fn begin_again(&mut self, place: usize) {
        let process = &mut self.processes[place];
        process.asked = None;
        process.member = process.member.clone().again(PACE);
        process.apply();
    }

    fn step(&mut self) {
        self.now += 10 * MS;
        self.keeper.run(self.now);
        for place in 0..self.processes.len() {
            self.turn(place);
        }
        for (number, limit) in LIMITS.iter().enumerate() {
            let acts = self
                .processes
                .iter()
                .map(|its| u64::from(its.bounds[number].at(self.now)));
            let (acts, said) = (acts.sum::<u64>(), self.keeper.ledger().sum(limit));
            assert!(acts <= u64::from(self.limit), "{acts} are acted on");
            assert!(said <= u64::from(self.limit), "{said} are in the ledger");
        }
    }

    fn turn(&mut self, place: usize) {
        let now = self.now;
        let process = &mut self.processes[place];
        if now < process.stopped_until {
            return;
        }
        if let Some((id, asked_at, ask)) = process.asked.take() {
            let is_late = now >= asked_at + 2 * SECOND;
            let answer = match self.keeper.answer(id, now) {
                Some(answer) => answer,
                None if is_late => Answer::Failed,
                None => {
                    process.asked = Some((id, asked_at, ask));
                    return;
                }
            };
            if answer == Answer::Failed || process.member.has_rival() {
                process.waits_until = now + SECOND / 4;
            }
            process.member.answered(ask, answer, asked_at, now);
            process.apply();
        }
        if now < process.waits_until {
            return;
        }
        process.member.plan(&process.demands, now);
        process.apply();
        for (limit, bound) in LIMITS.iter().zip(&process.bounds) {
            let whole = process.demands[*limit].limit;
            assert!(bound.at(now) <= whole, "{bound:?} of {whole}");
        }
        let Some(ask) = process.member.ask(&process.demands, now) else {
            process.waits_until = now + SECOND / 4;
            return;
        };
        let delays = [0; 2].map(|_| self.rng.u64(0..self.latency));
        let is_lost = process.is_cut_off;
        let (name, instance) = process.member.identity();
        let request = Request {
            ask: ask.clone(),
            name: name.to_owned(),
            instance: instance.to_owned(),
            at: now + delays[0],
            answered_at: now + delays[0] + delays[1],
        };
        // One that is cut off may have sent it before.
        let is_lost = is_lost && self.rng.u8(0..4) > 0;
        let id = self.keeper.take(request, is_lost, process.is_cut_off);
        process.asked = Some((id, now, ask));
    }

    fn run(&mut self, time: u64) {
        let end = self.now + time;
        while self.now < end {
            self.step();
        }
    }

    fn shares(&self) -> Vec<u32> {
        self.processes
            .iter()
            .map(|its| its.bounds[0].at(self.now))
            .collect()
    }

    /// Something goes wrong, or well again.
    fn disturb(&mut self) {
        let place = self.rng.usize(..self.processes.len());
        let later = self.now + self.rng.u64(0..4 * LASTS);
        match self.rng.u8(0..15) {
            0 => self.processes[place].stopped_until = later,
            1 => self.processes[place].is_cut_off = true,
            2..=3 => self
                .processes
                .iter_mut()
                .for_each(|its| its.is_cut_off = false),
            4 => {
                let process = self.process(place);
                self.processes[place] = process;
            }
            5 => self.keeper.stopped_until = later,
            6 => self.latency = [20 * MS, 400 * MS, 3 * SECOND][self.rng.usize(..3)],
            7 => {
                let limit = self.rng.u32(1..=self.limit);
                self.limit_to(place, limit);
            }
            8 => {
                let limit = self.rng.u32(1..=self.limit);
                (0..self.processes.len()).for_each(|place| self.limit_to(place, limit));
            }
            9 if self.now >= self.processes[place].stopped_until => self.begin_again(place),
            _ => {
                let used = self.rng.u32(..=self.limit);
                let bound = self.processes[place].bounds[0].at(self.now);
                let want = self.rng.u32(..=2 * self.limit);
                self.demand(place, used.min(bound), want);
            }
        }
    }
}

#[test]
fn shares_never_exceed_the_limit_whatever_happens() {
    for seed in 0..150 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let (count, limit) = (rng.usize(1..6), rng.u32(1..200));
        let mut fleet = Fleet::new(seed, count, limit);
        for _ in 0..60 {
            fleet.disturb();
            let time = rng.u64(0..2 * SECOND);
            fleet.run(time);
        }
    }
}

#[test]
fn a_busy_balancer_gets_more_and_gives_it_back() {
    let mut fleet = Fleet::new(1, 3, 99);
    fleet.run(5 * SECOND);
    assert_eq!(fleet.shares(), [33, 33, 33]);
    fleet.demand(0, 33, 99);
    fleet.run(4 * SECOND);
    assert_eq!(fleet.shares(), [99 - 16, 8, 8]);
    // It is as busy as before, and others need their parts: no session of it is replaced.
    fleet.demand(0, 70, 99);
    fleet.demand(1, 8, 40);
    fleet.run(4 * SECOND);
    assert!(fleet.shares()[0] < 70, "{:?}", fleet.shares());
    fleet.demand(0, 58, 99);
    fleet.run(4 * SECOND);
    assert_eq!(fleet.shares()[1], 33);
}

#[test]
fn without_the_keeper_each_has_its_part_once_its_lease_is_over() {
    let mut fleet = Fleet::new(2, 2, 100);
    fleet.demand(0, 50, 100);
    fleet.run(8 * SECOND);
    assert_eq!(fleet.shares(), [88, 12]);
    fleet.keeper.stopped_until = fleet.now + 60 * SECOND;
    fleet.run(LASTS / 2);
    assert_eq!(fleet.shares(), [88, 12], "while the leases last");
    fleet.run(LASTS);
    assert_eq!(fleet.shares(), [50, 12]);
    fleet.run(60 * SECOND);
    assert_eq!(fleet.shares(), [88, 12], "it is there again");
}

#[test]
fn one_that_was_stopped_acts_on_its_base_from_the_first_moment() {
    let mut fleet = Fleet::new(3, 2, 100);
    fleet.demand(0, 50, 100);
    fleet.run(8 * SECOND);
    assert_eq!(fleet.shares(), [88, 12]);
    fleet.processes[0].stopped_until = fleet.now + 30 * SECOND;
    fleet.demand(1, 12, 100);
    fleet.run(29 * SECOND);
    assert_eq!(
        fleet.shares(),
        [50, 50],
        "the other one has what its lease had"
    );
    assert_eq!(
        fleet.processes[0].bounds[0].share, 88,
        "it does not know yet"
    );
    fleet.run(10 * SECOND);
    assert_eq!(fleet.shares(), [50, 50]);
}

#[test]
fn a_balancer_that_is_gone_keeps_its_base_for_an_hour() {
    let mut fleet = Fleet::new(4, 2, 100);
    fleet.run(5 * SECOND);
    fleet.processes[1].stopped_until = u64::MAX;
    fleet.demand(0, 50, 100);
    fleet.run(60 * SECOND);
    assert_eq!(fleet.shares()[0], 50);
    assert_eq!(
        fleet.processes[0].member.gone().collect::<Vec<_>>(),
        ["lb-1"]
    );
    // It has ended, and will not come back.
    fleet.processes.truncate(1);
    fleet.now += 3_600 * SECOND;
    fleet.run(10 * SECOND);
    assert_eq!(fleet.shares(), [100]);
}

#[test]
fn a_second_process_of_the_same_name_waits_for_the_first() {
    let mut fleet = Fleet::new(5, 1, 100);
    fleet.run(3 * SECOND);
    let second = fleet.process(0);
    fleet.processes.push(second);
    fleet.run(30 * SECOND);
    assert_eq!(fleet.shares(), [100, 0]);
    assert!(fleet.processes[1].member.has_rival());
    fleet.processes.remove(0);
    fleet.run(2 * LASTS);
    assert_eq!(fleet.shares(), [100]);
}

/// The first one was stopped meanwhile, and its lease has ended.
#[test]
fn of_two_with_one_name_one_has_a_share() {
    let mut fleet = Fleet::new(7, 1, 100);
    fleet.run(3 * SECOND);
    fleet.processes[0].stopped_until = fleet.now + 3 * LASTS;
    fleet.run(2 * LASTS);
    let second = fleet.process(0);
    fleet.processes.push(second);
    // Until the first one is told, it acts on its base.
    fleet.limit = 200;
    fleet.run(4 * LASTS);
    assert_eq!(fleet.shares(), [0, 100]);
}

#[test]
fn a_ledger_that_was_deleted_is_written_again() {
    let mut fleet = Fleet::new(6, 3, 99);
    fleet.demand(0, 33, 99);
    fleet.run(8 * SECOND);
    let before = fleet.shares();
    fleet.keeper.forget();
    let end = fleet.now + 10 * SECOND;
    while fleet.now < end {
        fleet.step();
        assert!(
            fleet.shares().iter().all(|share| *share >= 8),
            "{:?}",
            fleet.shares()
        );
    }
    fleet.run(20 * SECOND);
    assert_eq!(fleet.shares(), before);
}

#[test]
fn after_a_wipe_no_share_grows_before_all_know() {
    let mut fleet = Fleet::new(6, 3, 99);
    fleet.demand(0, 33, 99);
    fleet.run(8 * SECOND);
    let before = fleet.shares();
    fleet.keeper.wipe();
    fleet.demand(1, 8, 99);
    assert_eq!(before, [83, 8, 8]);
    let end = fleet.now + LASTS;
    while fleet.now < end {
        fleet.step();
        let shares = fleet.shares();
        let has_grown = shares.iter().zip(&before).any(|(now, before)| now > before);
        assert!(!has_grown, "{shares:?}");
    }
    assert_eq!(fleet.shares(), [33, 8, 8]);
    assert!(fleet.processes[1].member.is_held_back(fleet.now));
    fleet.run(50 * SECOND);
    assert_eq!(fleet.shares().iter().sum::<u32>(), 99);
}

#[test]
fn a_lower_limit_holds_while_the_keeper_is_away() {
    let mut fleet = Fleet::new(8, 2, 100);
    fleet.demand(0, 50, 100);
    fleet.run(8 * SECOND);
    assert_eq!(fleet.shares(), [88, 12]);
    fleet.keeper.stopped_until = u64::MAX;
    fleet.run(SECOND);
    (0..2).for_each(|place| fleet.limit_to(place, 10));
    fleet.run(3 * SECOND);
    assert_eq!(fleet.shares(), [10, 10], "while the leases last");
    fleet.run(2 * LASTS);
    assert_eq!(fleet.shares(), [5, 5]);
    fleet.keeper.stopped_until = 0;
    fleet.run(10 * SECOND);
    assert!(fleet.shares().iter().sum::<u32>() <= 10);
}

#[test]
fn one_that_begins_again_without_the_keeper_has_its_base() {
    let mut fleet = Fleet::new(9, 2, 100);
    fleet.demand(0, 50, 100);
    fleet.run(8 * SECOND);
    assert_eq!(fleet.shares(), [88, 12]);
    fleet.keeper.stopped_until = fleet.now + 5 * SECOND;
    fleet.run(SECOND);
    fleet.begin_again(0);
    fleet.run(SECOND);
    assert_eq!(fleet.shares(), [50, 12]);
    fleet.run(30 * SECOND);
    assert_eq!(fleet.shares(), [88, 12]);
}

#[test]
fn one_that_leaves_gives_all_back_at_once() {
    let mut fleet = Fleet::new(10, 2, 100);
    fleet.run(5 * SECOND);
    assert_eq!(fleet.shares(), [50, 50]);
    let mut leaves = fleet.processes.pop().unwrap();
    leaves.member.leave();
    assert_eq!(leaves.member.bound("rate").share, 0);
    let (name, instance) = leaves.member.identity();
    let (name, instance) = (name.to_owned(), instance.to_owned());
    let mut ask = |ask: Ask| {
        let (name, instance) = (name.clone(), instance.clone());
        let [at, answered_at] = [fleet.now; 2];
        let request = Request {
            ask,
            name,
            instance,
            at,
            answered_at,
        };
        fleet.keeper.obey(&request, at)
    };
    let view = ask(Ask::Read);
    let now = 6 * SECOND;
    leaves.member.answered(Ask::Read, view, now, now);
    let write = leaves.member.farewell(now).unwrap();
    assert_eq!(ask(Ask::Write(write)), Answer::Written(true));
    fleet.run(2 * SECOND);
    assert_eq!(fleet.shares(), [100]);
}

#[test]
fn many_that_are_gone_are_cut_and_left_out_in_several_writes() {
    let mut fleet = Fleet::new(11, 1, 1_000);
    let share = FleetShare {
        limit: 1_000,
        share: 4,
        base: 2,
        want: 0,
    };
    fleet.keeper.bury(200, LIMITS, share);
    fleet.demand(0, 0, 1_000);
    fleet.run(10 * SECOND);
    assert_eq!(fleet.shares(), [600]);
    fleet.now += 3_600 * SECOND;
    fleet.run(20 * SECOND);
    assert_eq!(fleet.shares(), [1_000]);
}

#[test]
fn a_full_ledger_takes_another_balancer_once_one_is_left_out() {
    let mut fleet = Fleet::new(12, 1, 1_000);
    let share = FleetShare {
        limit: 1_000,
        ..FleetShare::default()
    };
    fleet.keeper.bury(255, LIMITS, share);
    fleet.demand(0, 0, 1_000);
    fleet.run(10 * SECOND);
    assert_eq!(fleet.shares(), [0]);
    assert!(fleet.processes[0].member.is_left_out());
    assert_eq!(fleet.keeper.ledger().members.len(), 255);
    fleet.now += 3_600 * SECOND;
    fleet.run(20 * SECOND);
    assert_eq!(fleet.shares(), [1_000]);
}
