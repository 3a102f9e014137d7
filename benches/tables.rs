//! Lookups by key: Maglev tables, rendezvous candidates, the sticky table.

use divan::Bencher;
use mahoraga::hash;
use mahoraga::pool::StickyTable;
use mahoraga::select::{Candidate, Maglev, Rendezvous};

fn main() {
    divan::main();
}

/// Built once per new snapshot and pool.
#[divan::bench(args = [10, 100, 10_000], min_time = MIN_SECONDS)]
fn maglev_build(bencher: Bencher<'_, '_>, backends: u16) {
    let names = names(backends);
    let entries = entries(&names);
    bencher.bench_local(|| Maglev::new(&entries));
}

#[divan::bench(min_time = MIN_SECONDS)]
fn maglev_get(bencher: Bencher<'_, '_>) {
    let names = names(100);
    let table = Maglev::new(&entries(&names));
    let mut keys = keys();
    bencher.bench_local(|| table.get(keys()));
}

#[divan::bench(min_time = MIN_SECONDS)]
fn maglev_probe(bencher: Bencher<'_, '_>) {
    let names = names(100);
    let table = Maglev::new(&entries(&names));
    let mut keys = keys();
    bencher.bench_local(|| table.probe(keys(), 1));
}

/// Two of equal candidates.
#[divan::bench(args = [10, 100, 10_000], min_time = MIN_SECONDS)]
fn rendezvous_best_2(bencher: Bencher<'_, '_>, candidates: u16) {
    best_2(bencher, candidates, 1);
}

/// Two of candidates of different weights: with logarithms.
#[divan::bench(args = [10, 100, 10_000], min_time = MIN_SECONDS)]
fn rendezvous_best_2_weighted(bencher: Bencher<'_, '_>, candidates: u16) {
    best_2(bencher, candidates, 5);
}

fn best_2(bencher: Bencher<'_, '_>, candidates: u16, weights: u32) {
    let names = names(candidates);
    let weighted = (0..).map(|number| 1 + number % weights);
    let rendezvous = Rendezvous::new(names.iter().map(String::as_str).zip(weighted));
    let mut keys = keys();
    bencher.bench_local(|| {
        let mut best = [0; 2];
        rendezvous.best(keys(), &mut best);
        best
    });
}

/// A client that is in the table.
#[divan::bench(min_time = MIN_SECONDS)]
fn sticky_get(bencher: Bencher<'_, '_>) {
    let table = sticky();
    let mut number = 0;
    bencher.bench_local(|| {
        number += 1;
        table.get(scattered(number) % STICKY_CLIENTS, number)
    });
}

/// A new client on a full table: the table forgets another one.
#[divan::bench(min_time = MIN_SECONDS)]
fn sticky_insert(bencher: Bencher<'_, '_>) {
    let table = sticky();
    let mut number = STICKY_CLIENTS;
    bencher.bench_local(|| {
        number += 1;
        table.insert(number, 7, None, number)
    });
}

/// A full table.
fn sticky() -> StickyTable {
    let table = StickyTable::new(STICKY_ENTRIES, u64::MAX);
    for key in (0..2 * STICKY_CLIENTS).chain(0..STICKY_CLIENTS) {
        table.insert(key, key % 10, None, 0);
    }
    table
}

fn names(count: u16) -> Vec<String> {
    (0..count).map(|number| format!("b{number}")).collect()
}

fn entries(names: &[String]) -> Vec<Candidate<'_>> {
    let entry = |(backend, name)| Candidate {
        backend,
        name,
        weight: 1,
    };
    let names = names.iter().map(String::as_str);
    (0..=u16::MAX).zip(names).map(entry).collect()
}

/// Another key each time, as different clients have.
fn keys() -> impl FnMut() -> u64 {
    let mut number = 0;
    move || {
        number += 1;
        scattered(number)
    }
}

fn scattered(number: u64) -> u64 {
    hash::mix(number)
}

/// The number of clients that the table surely holds: its shards fill unevenly.
const STICKY_CLIENTS: u64 = 90_000;
const STICKY_ENTRIES: u32 = 100_000;
/// Long enough to average out other work of the machine.
const MIN_SECONDS: u64 = 1;
