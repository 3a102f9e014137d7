//! What a worker's turn costs without the kernel: sessions, timers, selection and the access log,
//! on a kernel that answers at once.

#[path = "../tests/instant/mod.rs"]
mod instant;

use divan::counter::ItemsCount;
use divan::{AllocProfiler, Bencher};

use instant::Balancer;
use instant::counting::{Count, Counting, count};

#[global_allocator]
static ALLOCATOR: AllocProfiler<Counting> = AllocProfiler::new(Counting);

fn main() {
    divan::main();
}

/// A request and its answer, of this many clients at once. An item is an event.
#[divan::bench(args = [1, 16, 256], sample_size = 64, min_time = MIN_SECONDS)]
fn keep_alive_exchange(bencher: Bencher<'_, '_>, clients: u16) {
    let balancer = Balancer::keep_alive(clients, STEP);
    measure(bencher, 4 * clients, balancer, Balancer::exchange);
}

/// A connection from accept to close, of this many clients at once. An item is an event.
#[divan::bench(args = [1, 16, 256], sample_size = 64, min_time = MIN_SECONDS)]
fn short_connection(bencher: Bencher<'_, '_>, clients: u16) {
    let balancer = Balancer::short(clients, STEP);
    measure(bencher, 8 * clients, balancer, Balancer::connection);
}

fn measure(bencher: Bencher<'_, '_>, events: u16, mut balancer: Balancer, call: fn(&mut Balancer)) {
    let calls = |balancer: &mut Balancer| (0..CALLS).for_each(|_| call(balancer));
    calls(&mut balancer);
    let before = balancer.events();
    let counted = count(|| calls(&mut balancer));
    assert_eq!(balancer.events() - before, CALLS * u64::from(events));
    assert_eq!(counted, Count::NONE, "a steady state allocates nothing");
    bencher
        .counter(ItemsCount::new(events))
        .bench_local(|| call(&mut balancer));
}

/// Runs to warm up, until timers expire too; then to count allocations.
const CALLS: u64 = 3_000;
/// A turn of 50 µs.
const STEP: u64 = 50_000;
/// Long enough to average out other work of the machine.
const MIN_SECONDS: u64 = 1;
