//! Selecting a backend: once per connect attempt.

use std::sync::Arc;

use divan::Bencher;
use mahoraga::config::{self, Strategy};
use mahoraga::pool::{Ended, Pool};
use mahoraga::select::{Keys, Plan, Request, Seat, Selector};
use mahoraga::time::{MS, SECOND, US};

fn main() {
    divan::main();
}

const SIZES: [u16; 3] = [2, 100, 10_000];

/// One selection per strategy, over backends with 0 to 2 connections each.
#[divan::bench(args = names(), consts = SIZES, min_time = MIN_SECONDS)]
fn pick<const BACKENDS: u16>(bencher: Bencher<'_, '_>, strategy: &str) {
    measure(bencher, strategy, BACKENDS, &[]);
}

/// One selection after a failed attempt.
#[divan::bench(args = names(), consts = [100], min_time = MIN_SECONDS)]
fn retry<const BACKENDS: u16>(bencher: Bencher<'_, '_>, strategy: &str) {
    measure(bencher, strategy, BACKENDS, &[1]);
}

fn measure(bencher: Bencher<'_, '_>, strategy: &str, backends: u16, tried: &[u16]) {
    let plan = Arc::new(Plan::new(Arc::new(pool(strategy, backends))));
    for (number, backend) in plan.pool().backends.iter().enumerate() {
        let answer = MS + number as u64 * US;
        assert!(backend.try_acquire(0));
        backend.tally.on_answered(answer, 0, plan.decay());
        backend.release(Ended::default());
        for _ in 0..number % 3 {
            assert!(backend.try_acquire(0));
        }
    }
    let mut selector = Selector::new(
        plan,
        Seat {
            worker: 0,
            of: 1,
            pool: 0,
            seed: 0,
        },
    );
    let mut request = Request {
        now: SECOND,
        keys: Keys::default(),
        tried,
    };
    bencher.bench_local(|| {
        // Another client each time, of 50,000.
        request.keys.select = mahoraga::hash::mix(request.keys.select) % 50_000 + 1;
        request.keys.persist = request.keys.select;
        request.now += 1_000;
        selector.select(&request)
    });
}

fn names() -> impl Iterator<Item = &'static str> {
    Strategy::all().into_iter().map(|(name, _)| name)
}

fn pool(strategy: &str, backends: u16) -> Pool {
    let backend = |number: u16| config::Backend {
        name: format!("b{number}"),
        // Different weights: with equal ones a round would need no credits.
        weight: 1 + number % 3,
        ..config::Backend::at(
            format!("10.0.{}.{}:80", number / 256, number % 256)
                .parse()
                .expect("an address"),
        )
    };
    let all = Strategy::all();
    let found = all.into_iter().find(|(name, _)| *name == strategy);
    let (_, strategy) = found.expect("a strategy of this name");
    Pool::new(&config::Pool {
        strategy,
        ..config::Pool::of("p", (0..backends).map(backend).collect())
    })
}

/// Long enough to average out other work of the machine.
const MIN_SECONDS: u64 = 1;
