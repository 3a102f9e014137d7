//! The timer wheel with [`ARMED`] deadlines, one per session.

use divan::Bencher;
use divan::counter::ItemsCount;
use mahoraga::time::SECOND;
use mahoraga::worker::timers::Timers;

fn main() {
    divan::main();
}

/// Brings one armed timer after the other forward.
#[divan::bench(min_time = MIN_SECONDS)]
fn set(bencher: Bencher<'_, '_>) {
    let mut timers = armed();
    let mut slots = (0..ARMED).cycle();
    let mut forward = 0;
    bencher.bench_local(|| {
        let slot = slots.next().expect("a cycle has no end");
        forward += u64::from(slot == 0) << 22;
        timers.set(slot, deadline(slot).saturating_sub(forward));
    });
}

/// Clears all timers, in another order than they were armed. An item is a timer.
#[divan::bench(min_time = MIN_SECONDS)]
fn clear(bencher: Bencher<'_, '_>) {
    bencher
        .counter(ItemsCount::new(ARMED))
        .with_inputs(armed)
        .bench_local_refs(|timers| {
            for number in 0..ARMED {
                timers.clear(scattered(number));
            }
            assert_eq!(timers.next(), None);
        });
}

/// All expire one after the other, each time that the wheel asks for. An item is a timer.
#[divan::bench(min_time = MIN_SECONDS)]
fn expire(bencher: Bencher<'_, '_>) {
    bencher
        .counter(ItemsCount::new(ARMED))
        .with_inputs(|| (armed(), Vec::with_capacity(ARMED as usize)))
        .bench_local_refs(|(timers, due)| {
            while let Some(now) = timers.next() {
                timers.expire(now, due);
            }
            assert_eq!(due.len(), ARMED as usize);
        });
}

/// One turn of a worker, 50 µs after the last: it arms every expired timer again.
#[divan::bench(min_time = MIN_SECONDS)]
fn turn(bencher: Bencher<'_, '_>) {
    let mut timers = armed();
    let mut due = Vec::new();
    let mut now = 0;
    bencher.bench_local(|| {
        now += 50_000;
        timers.expire(now, &mut due);
        for slot in due.drain(..) {
            timers.set(slot, now + MINUTE);
        }
        timers.next()
    });
}

fn armed() -> Timers {
    let mut timers = Timers::new(0);
    (0..ARMED).for_each(|slot| timers.set(slot, deadline(slot)));
    timers
}

/// Within the second minute.
fn deadline(slot: u32) -> u64 {
    MINUTE + u64::from(scattered(slot)) * (MINUTE / u64::from(ARMED))
}

/// A permutation of the slots.
fn scattered(slot: u32) -> u32 {
    slot * 7_919 % ARMED
}

/// Long enough to average out other work of the machine.
const MIN_SECONDS: u64 = 1;
const ARMED: u32 = 10_000;
const MINUTE: u64 = 60 * SECOND;
