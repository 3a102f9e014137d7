//! In a steady state nothing is allocated and nothing freed, under any kind of traffic.

#[path = "instant/mod.rs"]
mod instant;

use std::hint::black_box;

use instant::Balancer;
use instant::counting::{Count, Counting, count};

use mahoraga::time::MS;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn requests_and_answers_allocate_nothing() {
    let mut balancer = Balancer::keep_alive(CLIENTS, STEP);
    let exchanges = |balancer: &mut Balancer| (0..250).for_each(|_| balancer.exchange());
    exchanges(&mut balancer);
    let before = balancer.events();
    let counted = count(|| exchanges(&mut balancer));
    assert_eq!(balancer.events() - before, 10_000, "10 clients, 4 events");
    assert_eq!(counted, Count::NONE);
}

#[test]
fn whole_connections_allocate_nothing() {
    let mut balancer = Balancer::short(CLIENTS, STEP);
    let connections = |balancer: &mut Balancer| (0..125).for_each(|_| balancer.connection());
    connections(&mut balancer);
    let before = balancer.events();
    let counted = count(|| connections(&mut balancer));
    assert_eq!(balancer.events() - before, 10_000, "10 clients, 8 events");
    assert_eq!(counted, Count::NONE);
}

/// Shows that the counter counts: otherwise the tests above could not fail.
#[test]
fn what_is_allocated_is_counted() {
    let mut kept = Vec::with_capacity(1);
    let counted = count(|| {
        kept.extend(black_box([1, 2, 3]));
        drop(black_box(Box::new(4)));
    });
    assert_eq!(
        counted,
        Count {
            allocations: 2,
            deallocations: 2
        }
    );
}

const CLIENTS: u16 = 10;
/// A turn of 10 ms makes the timers of busy sessions come up several times: they count too.
const STEP: u64 = 10 * MS;
