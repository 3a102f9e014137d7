//! The fuzz targets of tests/fuzz without libFuzzer: on their seeds, and on random changes of them.
//!
//! `MAHORAGA_FUZZ_SECONDS=60 cargo test --test fuzz` looks longer, for so long at each target.
//! `scripts/fuzz.sh` looks where no seed leads to.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "fuzz/src/lib.rs"]
mod targets;

use std::path::Path;
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use fastrand::Rng;

/// Prints the input of a target that panics.
struct Shown<'a>(&'a [u8]);

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("the input is b\"{}\"", self.0.escape_ascii());
        }
    }
}

/// Runs a target on all its seeds, and then on changed ones. `more` is a directory or a file with
/// further seeds.
#[expect(clippy::disallowed_methods, reason = "it looks for a given time")]
fn fuzz(target: fn(&[u8]), name: &str, more: Option<&str>) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut seeds = vec![Vec::new()];
    let own = format!("tests/fuzz/seeds/{name}");
    for path in [Some(&*own), more].into_iter().flatten() {
        let path = root.join(path);
        if path.is_file() {
            seeds.push(fs::read(&path).unwrap());
            continue;
        }
        let mut paths: Vec<_> = fs::read_dir(&path)
            .unwrap()
            .map(|its| its.unwrap().path())
            .collect();
        paths.sort();
        seeds.extend(paths.iter().map(|path| fs::read(path).unwrap()));
    }
    assert!(seeds.len() > 1, "{name} has no seed");
    let run = |bytes: &[u8]| {
        let _shown = Shown(bytes);
        target(bytes);
    };
    seeds.iter().for_each(|seed| run(seed));
    let seconds = env::var("MAHORAGA_FUZZ_SECONDS").map_or(0, |all| all.parse().unwrap());
    let until = Instant::now() + Duration::from_secs(seconds);
    for round in 0.. {
        if round >= ROUNDS && Instant::now() >= until {
            break;
        }
        let mut rng = Rng::with_seed(round);
        let mut bytes = rng.choice(&seeds).unwrap().clone();
        for _ in 0..rng.usize(1..6) {
            change(&mut bytes, &seeds, &mut rng);
        }
        bytes.truncate(BYTES_MAX);
        run(&bytes);
    }
}

/// Makes one change at random.
fn change(bytes: &mut Vec<u8>, seeds: &[Vec<u8>], rng: &mut Rng) {
    let (from, to) = part(bytes, rng);
    match rng.u8(..7) {
        0 if from < bytes.len() => bytes[from] ^= 1 << rng.u8(..8),
        1 if from < bytes.len() => bytes[from] = *rng.choice(b"\0\x01\x7F\xFF0\"(),:/\n").unwrap(),
        2 => {
            bytes.drain(from..to);
        }
        3 => {
            let again = bytes[from..to].to_vec();
            bytes.splice(to..to, again);
        }
        4 => {
            let random: Vec<u8> = (0..rng.usize(..24)).map(|_| rng.u8(..)).collect();
            bytes.splice(from..to, random);
        }
        _ => {
            let other = rng.choice(seeds).unwrap();
            let (first, last) = part(other, rng);
            bytes.splice(from..to, other[first..last].iter().copied());
        }
    }
}

/// A part of some bytes, which is mostly short.
fn part(bytes: &[u8], rng: &mut Rng) -> (usize, usize) {
    let from = rng.usize(..=bytes.len());
    let length_max = if rng.u8(..4) == 0 { bytes.len() } else { 32 };
    (from, bytes.len().min(from + rng.usize(..=length_max)))
}

#[test]
fn the_ban_table_does_what_a_list_does() {
    fuzz(targets::bans, "bans", None);
}

#[test]
fn configurations_are_read_as_they_are_written() {
    fuzz(targets::configuration, "configuration", Some("config.ron"));
}

#[test]
fn an_answer_about_first_bytes_stays() {
    fuzz(targets::first_bytes, "first_bytes", Some("tests/captures"));
}

#[test]
fn hellos_are_read_as_others_read_them() {
    fuzz(targets::hellos, "hellos", Some("tests/captures"));
}

#[test]
fn lists_of_prefixes_are_read_as_lines() {
    fuzz(targets::prefix_lists, "prefix_lists", None);
}

#[test]
fn tables_find_the_longest_prefix() {
    fuzz(targets::prefix_tables, "prefix_tables", None);
}

#[test]
fn proxy_headers_are_read_as_others_read_them() {
    fuzz(
        targets::proxy_headers,
        "proxy_headers",
        Some("tests/captures"),
    );
}

#[test]
fn bans_survive_any_number_of_restarts() {
    fuzz(targets::kept_bans, "kept_bans", None);
}

#[test]
fn requests_are_read_as_they_are_written() {
    fuzz(targets::requests, "requests", None);
}

#[test]
fn the_table_of_sources_does_what_a_list_does() {
    fuzz(targets::sources, "sources", None);
}

/// Some seconds for all targets where nothing is optimised.
const ROUNDS: u64 = 4_000;
/// Longer inputs take longer, and show no more.
const BYTES_MAX: usize = 8 << 10;

#[test]
fn records_bring_what_their_client_sent() {
    fuzz(targets::records, "records", None);
}
