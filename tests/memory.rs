//! The table of sources takes the memory that it was given, however many sources come. Alone in its
//! process, as it looks at the memory of all of it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU32;

use mahoraga::guard::{Action, Gate, Held, Rate, Rules, SourceRules, Sources};

/// Bytes of memory that this process has in RAM.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib = line.unwrap().split_whitespace().nth(1).unwrap();
    kib.parse::<u64>().unwrap() << 10
}

/// As a flood with rotating addresses brings them: half IPv4, half IPv6.
fn source(number: u32) -> IpAddr {
    if number.is_multiple_of(2) {
        Ipv4Addr::from_bits(number).into()
    } else {
        Ipv6Addr::from_bits(0x2001 << 112 | u128::from(number) << 64).into()
    }
}

#[test]
fn five_million_sources_take_what_the_table_may_take() {
    let before = resident();
    let sources = Sources::new(TABLE);
    let gate = Gate::new(&sources);
    let one = |number| NonZeroU32::new(number).unwrap();
    let rules = Rules {
        source: Some(SourceRules {
            action: Action::Reset,
            connections: Some(one(2)),
            rate: Some(Rate::new(one(1), one(5))),
            prefix_v4: 32,
            prefix_v6: 64,
            dry_run: false,
            is_paced: false,
        }),
        ..Rules::default()
    };
    let admit = |number, now: u32| {
        let pass = gate.admit(&sources, &rules, Some(source(number)), now.into());
        pass.map(|pass| pass.held.unwrap())
    };
    let guests: Vec<Held> = (0..GUESTS)
        .map(|number| admit(number, 0).unwrap())
        .collect();
    let empty = resident() - before;
    for number in GUESTS..GUESTS + SOURCES {
        let held = admit(number, number).unwrap();
        gate.release(&sources, held);
    }
    let taken = resident() - before;
    println!("{taken} bytes for {SOURCES} sources, of {TABLE}; {empty} with {GUESTS}");
    assert_eq!(sources.len(), sources.capacity() as usize);
    assert_eq!(sources.overflowed(), 0);
    // Beside the table the process has what it measures with, and pages are whole.
    assert!((TABLE * 9 / 10..TABLE + SLACK).contains(&taken), "{taken}");
    // Those with connections are still there, with their counts.
    assert_eq!(sources.connections(), u64::from(GUESTS));
    for number in 0..GUESTS {
        assert!(admit(number, SOURCES).is_ok(), "{number} has one of two");
        assert!(admit(number, SOURCES).is_err(), "{number} has two");
    }
    drop(guests);
}

/// `source_table` as it is by default.
const TABLE: u64 = 64 << 20;
const SLACK: u64 = 4 << 20;
const SOURCES: u32 = 5_000_000;
/// Sources with a connection that lasts.
const GUESTS: u32 = 1_000;
