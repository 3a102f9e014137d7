//! TLS that ends at a listener, in virtual time: a real worker on a kernel of bytes, whose pieces,
//! short sends and lacks are decided by a seed. Clients speak a cipher of the tests' own, whose
//! every step is plain to see, or TLS by rustls; backends speak bytes.
//!
//! `MAHORAGA_SIM_SEED=n` runs one seed, `MAHORAGA_SIM_SEEDS=n` more or fewer of them.

mod cipher;
mod kernel;
mod peers;
mod real;
mod run;

use std::env;

use run::{Kind, Outcome};

fn variable(name: &str) -> Option<u64> {
    let value = env::var(name).ok()?;
    Some(value.parse().expect("a number"))
}

/// Runs all seeds of a kind, and answers with how often each reason ended a session.
fn run_all(kind: Kind) -> Vec<Outcome> {
    if let Some(seed) = variable("MAHORAGA_SIM_SEED") {
        return run::seed(kind, seed);
    }
    let seeds = 0..variable("MAHORAGA_SIM_SEEDS").unwrap_or(SEEDS);
    let all = seeds.flat_map(|seed| {
        let _replay = Replay(seed);
        run::seed(kind, seed)
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
    let all = run_all(Kind::Cipher);
    let ends = [
        "client_closed",
        "backend_closed",
        "client_reset",
        "backend_reset",
    ];
    expect_reached(
        &all,
        &[&ends[..], &["tls_failed", "tls_truncated"]].concat(),
    );
}

#[test]
fn every_byte_comes_through_tls() {
    for kind in [Kind::Tls12, Kind::Tls13] {
        let all = run_all(kind);
        let ends = [
            "client_closed",
            "backend_closed",
            "client_reset",
            "backend_reset",
        ];
        expect_reached(
            &all,
            &[&ends[..], &["tls_failed", "tls_truncated"]].concat(),
        );
    }
}

const SEEDS: u64 = 80;
