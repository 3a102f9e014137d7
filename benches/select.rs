//! Selecting a backend: once per connect attempt.

use divan::Bencher;
use mahoraga::config::{self, Strategy};
use mahoraga::pool::Pool;
use mahoraga::select::{Request, Seat, Selector};

fn main() {
    divan::main();
}

/// Weighted round robin looks at each backend.
#[divan::bench(args = [2, 100, 10_000], min_time = MIN_SECONDS)]
fn round_robin(bencher: Bencher<'_, '_>, backends: u16) {
    let mut selector = Selector::new(&pool(backends), Seat { worker: 0, of: 1 });
    bencher.bench_local(|| selector.select(Request { tried: &[] }));
}

/// After a failed attempt.
#[divan::bench(args = [2, 100, 10_000], min_time = MIN_SECONDS)]
fn round_robin_retry(bencher: Bencher<'_, '_>, backends: u16) {
    let mut selector = Selector::new(&pool(backends), Seat { worker: 0, of: 1 });
    bencher.bench_local(|| selector.select(Request { tried: &[1] }));
}

fn pool(backends: u16) -> Pool {
    let backend = |number: u16| config::Backend {
        name: format!("b{number}"),
        // Weights that differ, as a plain round would need no credits.
        weight: 1 + number % 3,
        ..config::Backend::at(
            format!("10.0.{}.{}:80", number / 256, number % 256)
                .parse()
                .expect("an address"),
        )
    };
    Pool::new(&config::Pool {
        name: "p".into(),
        strategy: Strategy::RoundRobin,
        persist: None,
        backends: (0..backends).map(backend).collect(),
    })
}

/// Long enough for a machine's other work to even out.
const MIN_SECONDS: u64 = 1;
