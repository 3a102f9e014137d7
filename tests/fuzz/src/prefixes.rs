//! Files of prefixes, and the table that they become, against a search one by one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use mahoraga::control::{read_access_list, read_imported_bans};
use mahoraga::guard::{Access, AccessFilter, Clash, ImportedBan, Prefixes};
use mahoraga::prefix::Prefix;

use super::input::Input;

/// The text of the file of an access list, or of bans.
pub fn prefix_lists(bytes: &[u8]) {
    if let Ok(bans) = read_imported_bans(bytes) {
        for ImportedBan { prefix, reason, .. } in bans.iter() {
            let is_shown = !reason.chars().any(char::is_control) && reason.trim() == &**reason;
            assert!(is_shown && reason.chars().count() <= 200, "{reason:?}");
            assert!(bans.contains(*prefix), "{prefix}");
        }
    }
    let table = read_access_list(bytes);
    let modelled = modelled(bytes);
    match (table, modelled) {
        (Ok(table), Ok(all)) => compare(table, &all),
        (Err(error), Err(())) => assert_ne!(error.to_string(), ""),
        (Ok(table), Err(())) => panic!("{} prefixes of a list with a mistake", table.len()),
        (Err(error), Ok(all)) => {
            let text = error.to_string();
            let is_long = text.contains("longer than 256 bytes");
            assert!(is_long || clashes(&all).is_some(), "{text}");
        }
    }
}

/// A table of any prefixes.
pub fn prefix_tables(bytes: &[u8]) {
    let mut input = Input(bytes);
    let mut all = Vec::new();
    while !input.is_empty() && all.len() < PREFIXES_MAX {
        let access = [Access::Allow, Access::Deny][usize::from(input.byte() & 1)];
        let prefix = input.prefix();
        all.push((prefix, access));
    }
    match Prefixes::new(all.clone()) {
        Ok(table) => compare(table, &all),
        Err(Clash(prefix)) => {
            let says = |access| all.contains(&(prefix, access));
            assert!(says(Access::Allow) && says(Access::Deny), "{prefix}");
        }
    }
}

/// Looks at the edges of all prefixes, and at some addresses apart.
fn compare(table: Prefixes, all: &[(Prefix, Access)]) {
    assert!(clashes(all).is_none());
    let mut different: Vec<_> = all.to_vec();
    different.sort_unstable();
    different.dedup();
    assert_eq!(table.len(), different.len());
    let none = Arc::new(Prefixes::default());
    let list = AccessFilter::new("list".into(), none, Some(Arc::new(table)), Access::Allow);
    let apart = [
        Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::from(Ipv6Addr::UNSPECIFIED),
    ];
    let few = all.iter().take(PREFIXES_MAX);
    for ip in few.flat_map(|(prefix, _)| edges(*prefix)).chain(apart) {
        let within = all.iter().filter(|(prefix, _)| prefix.contains(ip));
        let longest = within.max_by_key(|(prefix, _)| prefix.length());
        let verdict = list.decide(ip);
        let expected = longest.map(|(prefix, _)| *prefix);
        assert_eq!(verdict.prefix, expected, "{ip}");
        let access = longest.map_or(Access::Allow, |(_, access)| *access);
        assert_eq!(verdict.access, access, "{ip}");
    }
}

/// A prefix that is both allowed and denied.
fn clashes(all: &[(Prefix, Access)]) -> Option<Prefix> {
    let mut sorted = all.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    let two = sorted.windows(2).find(|two| two[0].0 == two[1].0)?;
    Some(two[0].0)
}

/// The first and the last address of a prefix, and those beside them.
fn edges(prefix: Prefix) -> Vec<IpAddr> {
    let length = u32::from(prefix.length());
    let numbers: [Option<u128>; 4] = match prefix.ip() {
        IpAddr::V4(ip) => {
            let first = ip.to_bits();
            let last = first | u32::MAX.checked_shr(length).unwrap_or(0);
            let all = [
                first.checked_sub(1),
                Some(first),
                Some(last),
                last.checked_add(1),
            ];
            all.map(|its| its.map(u128::from))
        }
        IpAddr::V6(ip) => {
            let first = ip.to_bits();
            let last = first | u128::MAX.checked_shr(length).unwrap_or(0);
            [
                first.checked_sub(1),
                Some(first),
                Some(last),
                last.checked_add(1),
            ]
        }
    };
    let ip = |bits: u128| match prefix.ip() {
        IpAddr::V4(_) => Ipv4Addr::from_bits(bits.try_into().expect("32 bits")).into(),
        IpAddr::V6(_) => IpAddr::from(Ipv6Addr::from_bits(bits)),
    };
    numbers.into_iter().flatten().map(ip).collect()
}

/// The prefixes of a text, without regard to how long its lines are; `Err`: it has a mistake.
fn modelled(bytes: &[u8]) -> Result<Vec<(Prefix, Access)>, ()> {
    let mut all = Vec::new();
    for line in bytes.split(|byte| *byte == b'\n') {
        let comment = line.iter().position(|byte| b"#;".contains(byte));
        let line = str::from_utf8(&line[..comment.unwrap_or(line.len())]).map_err(drop)?;
        let words: Vec<_> = line
            .trim_start_matches('\u{feff}')
            .split_whitespace()
            .collect();
        let (access, prefix) = match words[..] {
            [] => continue,
            ["allow", prefix] => (Access::Allow, prefix),
            ["deny", prefix] | [prefix] => (Access::Deny, prefix),
            _ => return Err(()),
        };
        all.push((prefix.parse().map_err(drop)?, access));
    }
    Ok(all)
}

/// The search one by one takes time for each pair of them.
const PREFIXES_MAX: usize = 100;
