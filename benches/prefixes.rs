//! The cost of asking an access list of a million prefixes about a client: a listener with a list
//! pays it at each accept.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use divan::Bencher;
use mahoraga::guard::{Access, AccessFilter, Prefixes};
use mahoraga::prefix::Prefix;

fn main() {
    divan::main();
}

/// IPv4 addresses. Every second client is one of them.
#[divan::bench(sample_size = LOOKS, min_time = MIN_SECONDS)]
fn hosts_v4(bencher: Bencher<'_, '_>) {
    ask(bencher, |rng| (v4(rng), 32));
}

/// IPv6 addresses.
#[divan::bench(sample_size = LOOKS, min_time = MIN_SECONDS)]
fn hosts_v6(bencher: Bencher<'_, '_>) {
    ask(bencher, |rng| (v6(rng), 128));
}

/// IPv4 prefixes of all lengths from /12 on.
#[divan::bench(sample_size = LOOKS, min_time = MIN_SECONDS)]
fn prefixes_v4(bencher: Bencher<'_, '_>) {
    ask(bencher, |rng| (v4(rng), rng.u8(12..=32)));
}

/// IPv6 prefixes of up to 64 bits, as networks have them.
#[divan::bench(sample_size = LOOKS, min_time = MIN_SECONDS)]
fn networks_v6(bencher: Bencher<'_, '_>) {
    ask(bencher, |rng| (v6(rng), rng.u8(32..=64)));
}

/// IPv6 prefixes beyond 64 bits.
#[divan::bench(sample_size = LOOKS, min_time = MIN_SECONDS)]
fn within_networks_v6(bencher: Bencher<'_, '_>) {
    ask(bencher, |rng| (v6(rng), rng.u8(65..128)));
}

/// Both families: addresses, networks, and a few in between.
#[divan::bench(sample_size = LOOKS, min_time = MIN_SECONDS)]
fn mixed(bencher: Bencher<'_, '_>) {
    ask(bencher, |rng| match rng.u8(..8) {
        0..=2 => (v4(rng), 32),
        3 => (v4(rng), rng.u8(16..32)),
        4 | 5 => (v6(rng), 128),
        6 => (v6(rng), rng.u8(32..=64)),
        _ => (v6(rng), rng.u8(65..128)),
    });
}

/// Asks a list of a million prefixes. Every second client is in one of them.
fn ask(bencher: Bencher<'_, '_>, any: impl Fn(&mut fastrand::Rng) -> (IpAddr, u8)) {
    let mut rng = fastrand::Rng::with_seed(1);
    let some: Vec<_> = (0..PREFIXES).map(|_| any(&mut rng)).collect();
    let all = some.iter().map(|(ip, length)| {
        let prefix = Prefix::new(*ip, *length).expect("a length of its family");
        (prefix, Access::Deny)
    });
    let table = Prefixes::new(all.collect()).expect("nothing is allowed");
    eprintln!("{} prefixes take {} bytes", table.len(), table.bytes());
    let list = AccessFilter::new(
        "list".into(),
        Arc::default(),
        Some(Arc::new(table)),
        Access::Allow,
    );
    let clients: Vec<IpAddr> = (0..CLIENTS)
        .map(|number| match number % 2 {
            0 => some[rng.usize(..some.len())].0,
            _ => any(&mut rng).0,
        })
        .collect();
    let mut next = 0;
    bencher.bench_local(|| {
        next = (next + 1) % CLIENTS;
        list.allows(clients[next])
    });
}

fn v4(rng: &mut fastrand::Rng) -> IpAddr {
    Ipv4Addr::from(rng.u32(..)).into()
}

/// Of the addresses that are in use (2000::/3).
fn v6(rng: &mut fastrand::Rng) -> IpAddr {
    Ipv6Addr::from(rng.u128(..) >> 3 | 1 << 125).into()
}

const PREFIXES: usize = 1_000_000;
/// So many that the clock does not count.
const LOOKS: u32 = 10_000;
const CLIENTS: usize = 1 << 20;
/// Long enough to average out other work of the machine.
const MIN_SECONDS: u64 = 1;
