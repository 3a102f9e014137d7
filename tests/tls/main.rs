//! TLS that ends at a listener, and TLS with backends, in virtual time: a real worker on a kernel
//! of bytes, whose pieces, short sends and lacks are decided by a seed. Clients, backends or both
//! speak a cipher of the tests' own, whose every step is plain to see, or TLS by rustls.
//!
//! `MAHORAGA_SIM_SEED=n` runs one seed, `MAHORAGA_SIM_SEEDS=n` more or fewer of them.

mod cipher;
mod kernel;
mod peers;
mod real;
mod run;
mod served;

use std::env;

use run::{Outcome, Speaks};

fn variable(name: &str) -> Option<u64> {
    let value = env::var(name).ok()?;
    Some(value.parse().expect("a number"))
}

/// Runs all seeds, and answers with how their sessions ended.
fn run_all(speaks: Speaks) -> Vec<Outcome> {
    if let Some(seed) = variable("MAHORAGA_SIM_SEED") {
        return run::seed(speaks, seed);
    }
    let seeds = 0..variable("MAHORAGA_SIM_SEEDS").unwrap_or(SEEDS);
    let all = seeds.flat_map(|seed| {
        let _replay = Replay(seed);
        run::seed(speaks, seed)
    });
    all.collect()
}

/// Says how to replay a failure.
struct Replay(u64);

impl Drop for Replay {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "replay it with MAHORAGA_SIM_SEED={} cargo test --test tls",
                self.0
            );
        }
    }
}

#[track_caller]
fn expect_reached(all: &[Outcome], reasons: &[&str]) {
    if variable("MAHORAGA_SIM_SEED").is_some() {
        return;
    }
    let seen: Vec<_> = all.iter().map(|its| its.reason.as_str()).collect();
    for reason in reasons {
        assert!(seen.contains(reason), "no seed has reached {reason}");
    }
    assert!(
        all.iter()
            .any(|its| its.delivered[0] > 20_000 && its.delivered[1] > 20_000)
    );
}

#[test]
fn every_byte_comes_through_a_cipher_of_our_own() {
    expect_reached(&run_all(Speaks::Cipher), &REASONS);
}

#[test]
fn every_byte_comes_through_tls() {
    for speaks in [Speaks::Tls12, Speaks::Tls13] {
        expect_reached(&run_all(speaks), &REASONS);
    }
}

const SEEDS: u64 = 120;
/// What ends sessions of some seed.
const REASONS: [&str; 9] = [
    "client_closed",
    "backend_closed",
    "client_reset",
    "backend_reset",
    "connect_failed",
    "tls_failed",
    "tls_truncated",
    "backend_tls_failed",
    "backend_tls_truncated",
];
