//! Streams, messages and workers against a virtual clock.

use std::num::NonZeroU64;
use std::thread;

use super::*;
use crate::guard::Limit;
use crate::guard::bandwidth::Taken;
use crate::time::MS;

const MB: u64 = 1_000_000;

fn rate(per_second: u64) -> ByteRate {
    ByteRate::new(NonZeroU64::new(per_second).unwrap())
}

/// Sessions that share a limit, on one clock.
struct Crowd {
    own: Meters,
    shared: Meters,
    users: Limit,
    lanes: Vec<[Lane; 2]>,
    rests: u64,
    now: u64,
}

impl Crowd {
    /// `own`: the rate of each session; `shared`: that of all. 0: none.
    fn new(sessions: u32, own: u64, shared: u64) -> Self {
        let limit = |meters: &Meters, per_second| {
            let rate = NonZeroU64::new(per_second).map(ByteRate::new);
            meters.set([None, rate]);
        };
        let crowd = Self {
            own: Meters::default(),
            shared: Meters::default(),
            users: Limit::unbounded(),
            lanes: vec![Default::default(); sessions as usize],
            rests: 0,
            now: 7_000 * MS,
        };
        limit(&crowd.own, own);
        limit(&crowd.shared, shared);
        (0..sessions).for_each(|_| assert!(crowd.users.try_acquire()));
        crowd
    }

    fn session<T>(&mut self, number: usize, call: impl FnOnce(&mut Pacing<'_>, u64) -> T) -> T {
        let shared = SharedLimit {
            meters: &self.shared,
            buckets: Buckets::Own(&self.users),
        };
        let mut pacing = Pacing {
            lanes: &mut self.lanes[number],
            session: &self.own,
            shared: [None, Some(shared), None, None],
            is_connected: true,
            rests: &mut self.rests,
        };
        call(&mut pacing, self.now)
    }

    /// A stream takes what it is granted, of `there` bytes; returns how many that are, and when it
    /// asks again.
    fn stream(&mut self, number: usize, streams: bool, there: u32) -> (u32, u64) {
        self.session(number, |pacing, now| match pacing.ask(1, streams, now) {
            Some(at) => {
                assert!(at > now);
                (0, at)
            }
            None => {
                let bytes = pacing.lanes[1].granted().min(there);
                assert!(bytes > 0);
                pacing.charge(1, bytes, now);
                (bytes, now)
            }
        })
    }

    /// Lets streams run for a while, each visited at its time; returns what each has moved.
    fn run(&mut self, time: u64, streams: impl Fn(usize) -> bool) -> Vec<u64> {
        let end = self.now + time;
        let mut due: Vec<_> = vec![self.now; self.lanes.len()];
        let mut moved = vec![0; due.len()];
        let began = self.now;
        loop {
            let next = due.iter().copied().enumerate().min_by_key(|(_, at)| *at);
            let (number, at) = next.unwrap();
            if at >= end {
                self.now = end;
                return moved;
            }
            self.now = at;
            let (bytes, again) = self.stream(number, streams(number), u32::MAX);
            moved[number] += u64::from(bytes);
            due[number] = again;
            // At no time have more bytes moved than the limit allows.
            if let Some(rate) = self.shared.way(1).rate() {
                let most = rate.burst() * 2 + rate.per_second() * (at - began) / SECOND;
                let unpaid = u64::from(BUFFER_BYTES) * due.len() as u64;
                assert!(moved.iter().sum::<u64>() <= most + unpaid);
            }
        }
    }
}

#[track_caller]
fn assert_within(moved: u64, expected: u64, percent: u64) {
    let (low, high) = (expected * (100 - percent), expected * (100 + percent));
    assert!(
        (low..=high).contains(&(moved * 100)),
        "{moved} of {expected}"
    );
}

#[test]
fn a_stream_moves_at_the_rate_of_its_session() {
    for per_second in [2_000, 20_000, 100_000, MB, 50 * MB, 1_000 * MB, 10_000 * MB] {
        for streams in [false, true] {
            let mut crowd = Crowd::new(1, per_second, 0);
            let moved = crowd.run(10 * SECOND, |_| streams);
            assert_within(moved[0], 10 * per_second, 5);
            assert!(crowd.own.way(1).rests() > 0 && crowd.own.way(1).rested() > 0);
            assert_eq!(crowd.own.way(0).rests(), 0);
        }
    }
}

#[test]
fn streams_share_a_limit_equally() {
    for per_second in [100_000, MB, 50 * MB] {
        for sessions in [2, 10, 100] {
            let mut crowd = Crowd::new(sessions, 0, per_second);
            let moved = crowd.run(10 * SECOND, |number| number % 2 == 0);
            let unpaid = u64::from(BUFFER_BYTES * sessions);
            let all: u64 = moved.iter().sum();
            let bound = 10 * per_second;
            assert!(all >= bound / 100 * 97, "{all}");
            assert!(all <= bound / 100 * 103 + unpaid, "{all}");
            let [least, most] = [moved.iter().min(), moved.iter().max()].map(|it| *it.unwrap());
            // The burst is for those that come first.
            let apart = rate(per_second).burst() + u64::from(3 * BUFFER_BYTES);
            assert!(most - least <= apart, "{least} to {most}");
        }
    }
}

/// The stream began long before: it has used up the bucket and reserved more.
#[test]
fn small_messages_pass_at_once_beside_streams() {
    for streams in [1, 50] {
        let mut crowd = Crowd::new(streams + 1, 0, MB);
        let small = streams as usize;
        let mut due = vec![crowd.now; small];
        let (mut passed, mut moved) = (0, 0);
        // A quarter of what half of an equal share is.
        let message = MB / 8 / u64::from(streams + 1) / 100;
        let message = u32::try_from(message).unwrap();
        let began = crowd.now;
        for tick in 0..1_000 {
            crowd.now = began + tick * 10 * MS;
            for (number, due) in due.iter_mut().enumerate() {
                while *due <= crowd.now {
                    let (bytes, at) = crowd.stream(number, true, u32::MAX);
                    moved += u64::from(bytes);
                    *due = at.max(crowd.now);
                    if bytes == 0 {
                        break;
                    }
                }
            }
            let (bytes, _) = crowd.stream(small, false, message);
            assert_eq!(bytes, message, "in tick {tick}");
            passed += u64::from(bytes);
        }
        assert_within(moved + passed, 10 * MB, 5);
    }
}

/// Five hundred streams begin at one moment, and clients come that send one byte each.
#[test]
fn new_clients_pass_at_once_beside_any_number_of_streams() {
    for streams in [2, 50, 500] {
        let mut crowd = Crowd::new(streams, 0, MB);
        // A receive waits at each before the first bytes come.
        for number in 0..streams as usize {
            let asked = crowd.session(number, |pacing, now| pacing.ask(1, false, now));
            assert_eq!(asked, None);
        }
        let mut due = vec![crowd.now; streams as usize];
        let (mut moved, began) = (0, crowd.now);
        for tick in 0..4_000 {
            crowd.now = began + tick * 10 * MS;
            for (number, due) in due.iter_mut().enumerate() {
                while *due <= crowd.now {
                    let (bytes, at) = crowd.stream(number, false, u32::MAX);
                    moved += u64::from(bytes);
                    *due = at.max(crowd.now + u64::from(bytes > 0));
                }
            }
            if tick % 50 == 0 {
                crowd.lanes.push(Default::default());
                assert!(crowd.users.try_acquire());
                let number = crowd.lanes.len() - 1;
                let (bytes, _) = crowd.stream(number, false, 1);
                crowd.session(number, |pacing, now| pacing.end(now));
                crowd.lanes.pop();
                crowd.users.release();
                // What all took at their beginning is paid for first, at half of the rate.
                let settles = tick < 200;
                assert!(settles || bytes == 1, "{streams} streams, in tick {tick}");
            }
        }
        assert_within(moved, 40 * MB, 5);
    }
}

/// Sessions that come and go take no more than the limit either: a new one has no credit that its
/// source or listener lacks.
#[test]
fn new_sessions_bring_no_bytes_of_their_own() {
    let mut crowd = Crowd::new(1, 0, MB);
    let began = crowd.now;
    let mut moved = 0;
    for tick in 0..100_000 {
        crowd.now = began + tick * MS / 10;
        let (bytes, _) = crowd.stream(0, false, u32::MAX);
        moved += u64::from(bytes);
        crowd.session(0, |pacing, now| pacing.end(now));
    }
    assert!(moved <= 10 * MB + 2 * rate(MB).burst(), "{moved}");
    assert!(moved >= 4 * MB, "{moved}");
}

#[test]
fn bytes_that_did_not_move_are_given_back() {
    let mut crowd = Crowd::new(2, 0, MB);
    let full = |crowd: &Crowd| {
        let burst = u32::try_from(rate(MB).burst()).unwrap();
        let taken = crowd.shared.way(1).taken();
        taken.has(rate(MB), burst, crowd.now)
    };
    assert!(full(&crowd));
    // Granted and not taken, and reserved.
    crowd.session(0, |pacing, now| assert_eq!(pacing.ask(1, true, now), None));
    assert!(!full(&crowd));
    crowd.session(0, |pacing, now| pacing.end(now));
    assert!(full(&crowd));
    while crowd.stream(1, true, u32::MAX).0 > 0 {}
    let before = crowd.shared.way(1).taken();
    crowd.session(0, |pacing, now| assert!(pacing.ask(1, true, now).is_some()));
    crowd.session(0, |pacing, now| pacing.end(now));
    assert_eq!(crowd.shared.way(1).taken(), before);
}

#[test]
fn an_idle_session_takes_nothing() {
    let mut crowd = Crowd::new(1_000, 0, MB);
    for number in 0..1_000 {
        crowd.session(number, |pacing, now| {
            assert_eq!(pacing.ask(1, false, now), None)
        });
    }
    assert_eq!(crowd.shared.way(1).taken(), Taken::default());
}

#[test]
fn a_new_limit_holds_at_once() {
    let mut crowd = Crowd::new(1, 2_000, 0);
    while crowd.stream(0, true, u32::MAX).0 > 0 {}
    crowd.own.set([None, Some(rate(MB))]);
    crowd.lanes[0][1].reconsider();
    let moved = crowd.run(SECOND, |_| true);
    assert_within(moved[0], MB, 15);
    // And none.
    crowd.own.set([None, None]);
    assert_eq!(crowd.stream(0, true, u32::MAX).0, UNBOUNDED);
    crowd.own.set([None, Some(rate(2_000))]);
    assert!(crowd.run(SECOND, |_| true)[0] <= 3_000);
}

#[test]
fn a_direction_without_a_limit_is_not_held() {
    let mut crowd = Crowd::new(1, MB, MB);
    let granted = crowd.session(0, |pacing, now| {
        assert_eq!(pacing.ask(0, false, now), None);
        pacing.charge(0, 1 << 20, now);
        assert_eq!(pacing.ask(0, true, now), None);
        pacing.lanes[0].granted()
    });
    assert_eq!(granted, UNBOUNDED);
}

/// Each reservation is for a time of its own, whatever the workers do at the same moment.
#[test]
fn a_bucket_is_exact_over_threads() {
    let meter = Meter::default();
    let rate = rate(MB);
    meter.set(Some(rate));
    let now = 5_000 * MS;
    let take = || -> Vec<u64> { (0..1_000).map(|_| meter.take(rate, 1_000, now)).collect() };
    let mut all: Vec<u64> = thread::scope(|scope| {
        let takers = [(); 4].map(|()| scope.spawn(take));
        takers.map(|taker| taker.join().unwrap()).concat()
    });
    all.sort_unstable();
    let at_once = all.iter().filter(|at| **at <= now).count() as u64;
    assert_eq!(at_once, rate.burst() / 1_000);
    assert!(all.windows(2).all(|pair| pair[1] - pair[0] == MS));
    assert_eq!(all[3_999], now + (4_000 - at_once) * MS);
}
