//! The queue by itself, with a clock of its own, and between threads.

use std::collections::BTreeSet;
use std::sync::atomic::AtomicUsize;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use fastrand::Rng;

use crate::guard::Limit;
use crate::time::MS;

use super::*;

fn queue(max: u32, timeout_ms: u64) -> Queue {
    let timeout = Duration::from_millis(timeout_ms);
    Queue::new(config::QueueLimits { max, timeout })
}

fn ticket(slot: u32, since: u64) -> Ticket {
    Ticket {
        worker: slot % 2,
        slot,
        generation: 7,
        since,
    }
}

fn join(queue: &Queue, slot: u32, now: u64) -> u64 {
    queue.join(ticket(slot, now), now).unwrap().0
}

/// Calls until a client comes. Returns the slots of all calls, negative for refused clients.
fn call(queue: &Queue, now: u64) -> Vec<i64> {
    let mut called = Vec::new();
    while let Some(call) = queue.call(now, u32::MAX) {
        let slot = i64::from(call.ticket.slot);
        called.push(if call.comes { slot } else { -slot });
        if call.comes {
            break;
        }
    }
    called
}

#[test]
fn first_come_first_served() {
    let queue = queue(3, 1_000);
    assert!(queue.is_empty());
    assert!(call(&queue, 0).is_empty());
    let numbers = [1, 2, 3].map(|slot| join(&queue, slot, u64::from(slot)));
    assert_eq!(queue.len(), 3);
    assert_eq!(queue.join(ticket(4, 4), 4), None, "no room");
    for (slot, number) in [1, 2, 3].into_iter().zip(numbers) {
        assert_eq!(call(&queue, 10), [slot]);
        assert!(queue.leave(number), "it was called");
    }
    assert!(queue.is_empty());
}

#[test]
fn a_called_client_counts_until_it_is_served() {
    let queue = queue(1, 1_000);
    let number = join(&queue, 1, 0);
    assert_eq!(call(&queue, 0), [1]);
    assert!(!queue.is_empty(), "no client overtakes it");
    assert_eq!(queue.join(ticket(2, 0), 0), None);
    assert!(queue.leave(number));
    assert!(!queue.leave(number), "once");
    assert!(queue.is_empty());
}

#[test]
fn no_more_are_called_than_there_are_places() {
    let queue = queue(10, 1_000);
    let numbers = [1, 2, 3].map(|slot| join(&queue, slot, 0));
    assert!(queue.call(0, 0).is_none());
    assert!(
        queue
            .call(0, 1)
            .is_some_and(|call| call.number == numbers[0])
    );
    assert!(
        queue.call(0, 1).is_none(),
        "the place is for the called client"
    );
    assert!(
        queue
            .call(0, 2)
            .is_some_and(|call| call.number == numbers[1])
    );
    assert!(queue.leave(numbers[0]));
    assert!(
        queue.step_back(numbers[1]),
        "there was one when it was called"
    );
    assert!(
        queue
            .call(0, 1)
            .is_some_and(|call| call.number == numbers[1])
    );
}

#[test]
fn a_called_client_without_a_place_keeps_its_position() {
    let queue = queue(10, 1_000);
    let numbers = [1, 2, 3].map(|slot| join(&queue, slot, 0));
    assert_eq!([call(&queue, 0), call(&queue, 0)], [[1], [2]]);
    // The clients come back in any order.
    assert!(!queue.step_back(numbers[1]));
    assert!(!queue.step_back(numbers[0]));
    assert_eq!(queue.len(), 3);
    let all = [(); 3].map(|()| call(&queue, 0));
    assert_eq!(all, [[1], [2], [3]]);
}

#[test]
fn a_place_that_came_free_while_all_were_called_is_not_forgotten() {
    let queue = queue(10, 1_000);
    let number = join(&queue, 1, 0);
    assert_eq!(call(&queue, 0), [1]);
    assert!(call(&queue, 0).is_empty());
    assert!(queue.step_back(number), "call again");
    assert_eq!(call(&queue, 0), [1]);
    assert!(!queue.step_back(number));
}

#[test]
fn a_client_that_leaves_is_not_called() {
    let queue = queue(10, 1_000);
    let numbers = [1, 2, 3].map(|slot| join(&queue, slot, 0));
    assert!(!queue.leave(numbers[0]));
    assert!(!queue.leave(numbers[1]));
    assert_eq!(queue.len(), 1);
    assert_eq!(call(&queue, 0), [3]);
}

#[test]
fn a_queue_of_size_0_takes_none() {
    let queue = queue(1, 1_000);
    let number = join(&queue, 1, 0);
    queue.set(config::QueueLimits {
        max: 0,
        timeout: Duration::from_secs(1),
    });
    assert_eq!(queue.join(ticket(2, 0), 0), None);
    // A client that waits already keeps waiting.
    assert_eq!(call(&queue, 0), [1]);
    assert!(queue.leave(number));
    assert_eq!(queue.join(ticket(2, 0), 0), None);
}

#[test]
fn a_client_that_waited_too_long_is_refused() {
    let queue = queue(10, 1_000);
    let (_, until) = queue.join(ticket(1, 0), 0).unwrap();
    assert_eq!(until, 1_000 * MS);
    join(&queue, 2, 10 * MS);
    join(&queue, 3, 990 * MS);
    // Earlier waiting counts, too.
    let (_, until) = queue.join(ticket(4, 500 * MS), 995 * MS).unwrap();
    assert_eq!(until, 1_500 * MS);
    assert_eq!(call(&queue, 1_011 * MS), [-1, -2, 3]);
    // 3 does not answer, and waits no more.
    assert_eq!(queue.len(), 2);
}

#[test]
fn a_queue_that_stays_gives_each_a_twentieth() {
    let queue = queue(100, 1_000);
    let mut now = 0;
    let mut slot = 1;
    join(&queue, slot, now);
    // A client each 30 ms, a place each 40 ms: within the timeout, every client waits for it.
    while now < 990 * MS {
        now += 10 * MS;
        if now.is_multiple_of(30 * MS) {
            slot += 1;
            let (_, until) = queue.join(ticket(slot, now), now).unwrap();
            assert_eq!(until, now + 1_000 * MS);
        }
        if now.is_multiple_of(40 * MS) {
            let call = queue.call(now, u32::MAX).unwrap();
            assert!(call.comes && queue.leave(call.number));
        }
    }
    // The queue has never been empty: from now on the limit is 50 ms.
    now = 1_000 * MS;
    let (_, until) = queue.join(ticket(1_000, now), now).unwrap();
    assert_eq!(until, now + 50 * MS);
    let called = call(&queue, now);
    let (last, refused) = called.split_last().unwrap();
    assert!(refused.len() > 5 && refused.iter().all(|slot| *slot < 0));
    // The call takes a client that came within 50 ms; those behind it wait.
    assert!(*last > 30 && queue.len() > 1, "{called:?}");
}

#[test]
fn the_last_client_is_not_refused_a_free_place() {
    let queue = queue(100, 1_000);
    let one = join(&queue, 1, 0);
    join(&queue, 2, 900 * MS);
    assert!(!queue.leave(one));
    // The queue was not empty for a second, and the client waited longer than 50 ms in it.
    assert_eq!(call(&queue, 1_200 * MS), [2]);
}

#[test]
fn an_empty_queue_starts_a_new_busy_period() {
    let queue = queue(100, 1_000);
    let number = join(&queue, 1, 0);
    assert_eq!(call(&queue, 900 * MS), [1]);
    // A client that is called and steps back leaves the queue non-empty throughout.
    assert!(!queue.step_back(number));
    let (two, until) = queue.join(ticket(2, 1_000 * MS), 1_000 * MS).unwrap();
    assert_eq!(until, 1_050 * MS);
    assert!(!queue.leave(number) && !queue.leave(two));
    let (_, until) = queue.join(ticket(3, 1_100 * MS), 1_100 * MS).unwrap();
    assert_eq!(until, 2_100 * MS);
}

/// Events in any order: each client joins once, and is exactly once served, refused or gone. No
/// client is called before one that is ahead of it.
#[test]
fn no_client_is_lost_or_called_twice() {
    for seed in 0..500 {
        let mut rng = Rng::with_seed(seed);
        let max = rng.u32(0..20);
        let queue = queue(max, rng.u64(1..100));
        let (mut waiting, mut called) = (Vec::<u64>::new(), Vec::<u64>::new());
        let (mut now, mut joined, mut ended) = (0, 0, 0);
        for slot in 0..400 {
            now += rng.u64(0..10) * MS;
            match rng.u8(0..6) {
                0..=2 => match queue.join(ticket(slot, now), now) {
                    Some((number, until)) => {
                        assert!(until >= now && waiting.last().is_none_or(|last| *last < number));
                        waiting.push(number);
                        joined += 1;
                    }
                    None => assert!(waiting.len() + called.len() >= max as usize),
                },
                3 => {
                    while let Some(call) = queue.call(now, u32::MAX) {
                        assert_eq!(waiting.remove(0), call.number, "in order");
                        if call.comes {
                            called.push(call.number);
                            break;
                        }
                        ended += 1;
                    }
                }
                4 if !called.is_empty() => {
                    let number = called.swap_remove(rng.usize(0..called.len()));
                    if rng.bool() {
                        queue.step_back(number);
                        waiting.insert(waiting.partition_point(|other| *other < number), number);
                    } else {
                        assert!(queue.leave(number));
                        ended += 1;
                    }
                }
                _ if !waiting.is_empty() => {
                    let number = waiting.remove(rng.usize(0..waiting.len()));
                    assert!(!queue.leave(number));
                    ended += 1;
                }
                _ => {}
            }
            assert_eq!(queue.len() as usize, waiting.len() + called.len());
            assert_eq!(joined, ended + waiting.len() + called.len());
        }
    }
}

/// Threads as workers: each client takes a place as a session does, holds it for a moment, gives
/// it back and calls the next. All are served, and no client waits while there is a place.
#[test]
fn no_call_is_lost_between_threads() {
    for round in 0..20 {
        let (queue, limit) = (queue(u32::MAX, 3_600_000), Limit::new(2));
        let (inboxes, mailboxes): (Vec<_>, Vec<_>) =
            (0..4).map(|_| mpsc::channel::<Called>()).unzip();
        let served = AtomicUsize::new(0);
        thread::scope(|scope| {
            for (worker, mailbox) in (0..).zip(mailboxes) {
                let model = Model {
                    queue: &queue,
                    limit: &limit,
                    inboxes: inboxes.clone(),
                    served: &served,
                };
                scope.spawn(move || model.work(worker, &mailbox, round));
            }
        });
        assert_eq!(served.into_inner(), 4 * CLIENTS);
        assert_eq!((limit.used(), queue.len()), (0, 0));
    }
}

const CLIENTS: usize = 300;

struct Model<'a> {
    queue: &'a Queue,
    limit: &'a Limit,
    inboxes: Vec<mpsc::Sender<Called>>,
    served: &'a AtomicUsize,
}

impl Model<'_> {
    fn work(&self, worker: u32, mailbox: &mpsc::Receiver<Called>, seed: u64) {
        let mut rng = Rng::with_seed(seed << 8 | u64::from(worker));
        let (mut to_come, mut at_work, mut waits) = (CLIENTS, 0, BTreeSet::new());
        while to_come + at_work + waits.len() > 0 {
            // A worker without other work depends on a call: none may be lost.
            let idle = to_come + at_work == 0;
            let call = if idle {
                let patience = Duration::from_secs(30);
                Some(mailbox.recv_timeout(patience).expect("a call"))
            } else {
                mailbox.try_recv().ok()
            };
            if let Some(call) = call {
                assert!(waits.remove(&call.number), "it waits, and is called once");
                if self.limit.try_acquire() {
                    assert!(self.queue.leave(call.number));
                    self.call_next();
                    at_work += 1;
                } else {
                    waits.insert(call.number);
                    if self.queue.step_back(call.number) {
                        self.call_next();
                    }
                }
            } else if to_come > 0 && rng.bool() {
                to_come -= 1;
                if self.queue.is_empty() && self.limit.try_acquire() {
                    at_work += 1;
                } else {
                    let ticket = Ticket {
                        worker,
                        ..ticket(0, 0)
                    };
                    waits.insert(self.queue.join(ticket, 0).unwrap().0);
                    self.call_next();
                }
            } else if at_work > 0 {
                at_work -= 1;
                self.limit.release();
                self.served.fetch_add(1, Ordering::Relaxed);
                self.call_next();
            }
        }
    }

    fn call_next(&self) {
        if self.queue.is_empty() {
            return;
        }
        if let Some(call) = self.queue.call(0, self.limit.places()) {
            self.inboxes[call.ticket.worker as usize]
                .send(call)
                .unwrap();
        }
    }
}

#[test]
fn a_refusal_is_regretted_once_for_each_place_that_comes_free_soon() {
    let queue = Queue::new(config::QueueLimits::default());
    assert_eq!(queue.take_missed(1_000), None);
    queue.note_missed(Missed::Full, 1_000);
    queue.note_missed(Missed::Late, 1_050);
    assert_eq!(queue.take_missed(1_150), Some(Missed::Full));
    assert_eq!(queue.take_missed(1_150), Some(Missed::Late));
    assert_eq!(queue.take_missed(1_150), None);
    queue.note_missed(Missed::Late, 2_000);
    assert_eq!(queue.take_missed(2_101), None);
    // Those of long ago are forgotten, and their number has a limit.
    for _ in 0..10_000 {
        queue.note_missed(Missed::Late, 3_000);
    }
    let taken = (0..10_000).filter(|_| queue.take_missed(3_000).is_some());
    assert_eq!(taken.count(), 4_095);
    let regrets = [Missed::Full, Missed::Late].map(|why| queue.regrets(why));
    assert_eq!(regrets, [1, 4_096]);
}
