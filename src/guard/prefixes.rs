//! A table of prefixes that are allowed or denied: the longest one that an address is in counts.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::Access;
use super::index::{Index, Start};
use super::ranges::Ranges;
use crate::prefix::Prefix;

/// Prefixes, each allowed or denied. A look-up touches a few cache lines, however many there are.
///
/// Whole addresses are in a hash table, which is asked first: no prefix is longer. The others are
/// in a tree of ranges: IPv6 prefixes by the first 64 bits, and those that are longer have a small
/// table for each network of 64 bits that they are in.
#[derive(Debug, Default)]
pub struct Prefixes {
    v4_hosts: Index<u32, Access, 12>,
    v6_hosts: Index<u128, Access, 3>,
    v4: Ranges,
    v6: Ranges,
    networks: Networks,
    count: usize,
}

/// The longest prefix that an address is in: how long it is, and what it says.
pub(super) type Found = Option<(u8, Access)>;

/// What is found by the last 64 bits of an address, for each network that has prefixes beyond /64.
#[derive(Debug, Default)]
struct Networks {
    /// What a network has.
    all: Index<u64, Network, 3>,
    /// The tables of networks with several prefixes, one behind the other. The first entry of each
    /// begins at 0.
    entries: Box<[(u64, Found)]>,
}

/// The prefixes of a network: nine bytes, so that three networks are in a cache line. Nearly each
/// has one prefix, which stands here: so a second line is seldom waited for.
#[derive(Clone, Copy, Debug)]
struct Network {
    /// The code of the only prefix, by its length beyond 64; 0: there are several.
    code: u8,
    /// Where the only prefix begins; or where the table begins, and how many entries it has.
    place: [u8; 8],
}

/// A prefix is both allowed and denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clash(pub Prefix);

impl Prefixes {
    /// A table of these prefixes, in any order. One may be there more than once.
    ///
    /// # Errors
    /// [`Clash`]
    pub fn new(mut all: Vec<(Prefix, Access)>) -> Result<Self, Clash> {
        // Wide ones before those within them.
        all.sort_unstable();
        all.dedup();
        if let Some(two) = all.windows(2).find(|two| two[0].0 == two[1].0) {
            return Err(Clash(two[0].0));
        }
        let count = all.len();
        let (mut v4_hosts, mut v6_hosts) = (Vec::new(), Vec::new());
        all.retain(|(prefix, access)| {
            match prefix.ip() {
                IpAddr::V4(ip) if prefix.is_whole() => v4_hosts.push((u32::from(ip), *access)),
                IpAddr::V6(ip) if prefix.is_whole() => v6_hosts.push((u128::from(ip), *access)),
                IpAddr::V4(_) | IpAddr::V6(_) => return true,
            }
            false
        });
        // IPv4 is sorted before IPv6.
        let v4 = all.partition_point(|(prefix, _)| prefix.ip().is_ipv4());
        let (v4, v6) = all.split_at(v4);
        let v4 = v4.iter().map(|(prefix, access)| {
            let first = u64::try_from(bits(prefix.ip())).unwrap_or(u64::MAX);
            let last = first | low_bits(32 - u32::from(prefix.length()));
            (first, last, Some((prefix.length(), *access)))
        });
        let v4 = flatten(v4);
        let (v6, networks) = split(v6);
        Ok(Self {
            v4_hosts: Index::new(&v4_hosts),
            v6_hosts: Index::new(&v6_hosts),
            v4: Ranges::new(&coded(&v4)),
            v6: Ranges::new(&coded(&v6)),
            networks,
            count,
        })
    }

    /// The longest prefix that an address is in. An IPv4 address is not written as an IPv6 one.
    ///
    /// All tables are asked, although the first answer may settle it: so they are waited for at the
    /// same time, and not one after the other.
    pub(super) fn longest(&self, ip: IpAddr) -> Found {
        match ip {
            IpAddr::V4(ip) => {
                let ip = u32::from(ip);
                let host = self.v4_hosts.begin(ip);
                let wide = self.v4.get(ip.into());
                let host = self.v4_hosts.get(host).map(|access| (32, access));
                host.or_else(|| decoded(wide))
            }
            IpAddr::V6(ip) => {
                let ip = u128::from(ip);
                let (high, low) = halves(ip);
                let host = self.v6_hosts.begin(ip);
                let network = self.networks.all.begin(high);
                let wide = self.v6.get(high);
                let host = self.v6_hosts.get(host).map(|access| (128, access));
                host.or_else(|| self.networks.get(network, low))
                    .or_else(|| decoded(wide))
            }
        }
    }

    /// How many prefixes there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The bytes that it takes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let networks = self.networks.all.bytes() + size_of_val(&*self.networks.entries);
        let hosts = self.v4_hosts.bytes() + self.v6_hosts.bytes();
        hosts + self.v4.bytes() + self.v6.bytes() + networks
    }
}

impl Networks {
    /// What is found at these bits; `None`: what is around the network counts.
    fn get(&self, start: Start<u64>, low: u64) -> Found {
        let Network { code, place } = self.all.get(start)?;
        let place = u64::from_le_bytes(place);
        if let Some((beyond, access)) = decoded(code) {
            let is_within = (low ^ place) >> (64 - beyond) == 0;
            return is_within.then_some((64 + beyond, access));
        }
        let [first, count] = [place >> 32, place & u64::from(u32::MAX)];
        let [first, count] = [first, count].map(|number| usize::try_from(number).unwrap_or(0));
        let table = &self.entries[first..][..count];
        let at = table.partition_point(|(start, _)| *start <= low);
        table[at.checked_sub(1)?].1
    }
}

/// A range of numbers, its last one included, and what is found there.
type Range = (u64, u64, Found);

/// Where something else begins to hold, for ranges that are either apart or within each other, the
/// wider ones first. Behind a range what is around it goes on.
fn flatten(ranges: impl Iterator<Item = Range>) -> Vec<(u64, Found)> {
    let mut flat: Vec<(u64, Found)> = Vec::new();
    // The ranges that the present number is in, by their last numbers.
    let mut open: Vec<(u64, Found)> = Vec::new();
    for (first, last, found) in ranges {
        close(&mut open, Some(first), &mut flat);
        begin(&mut flat, first, found);
        open.push((last, found));
    }
    close(&mut open, None, &mut flat);
    flat
}

/// Closes the ranges that end before `next`; `None`: all.
fn close(open: &mut Vec<(u64, Found)>, next: Option<u64>, flat: &mut Vec<(u64, Found)>) {
    while let Some((last, _)) = open.pop_if(|(last, _)| next.is_none_or(|next| *last < next)) {
        if let Some(behind) = last.checked_add(1) {
            begin(flat, behind, open.last().and_then(|(_, found)| *found));
        }
    }
}

/// What was to begin at the same number has nothing left.
fn begin(flat: &mut Vec<(u64, Found)>, at: u64, found: Found) {
    flat.pop_if(|(start, _)| *start == at);
    flat.push((at, found));
}

/// IPv6 prefixes by their first 64 bits, and tables of the longer ones.
fn split(all: &[(Prefix, Access)]) -> (Vec<(u64, Found)>, Networks) {
    let mut wide = Vec::new();
    let mut within: BTreeMap<u64, Vec<Range>> = BTreeMap::new();
    for (prefix, access) in all {
        let (high, low) = halves(bits(prefix.ip()));
        let length = prefix.length();
        let found = Some((length, *access));
        if let Some(spare) = 64u8.checked_sub(length) {
            wide.push((high, high | low_bits(spare.into()), found));
        } else {
            let last = low | low_bits(u32::from(128 - length));
            within.entry(high).or_default().push((low, last, found));
        }
    }
    let flat = flatten(wide.into_iter());
    let (mut networks, mut entries) = (Vec::new(), Vec::new());
    for (high, ranges) in within {
        let network = if let [(low, _, Some((length, access)))] = ranges[..] {
            Network {
                code: code(Some((length - 64, access))),
                place: low.to_le_bytes(),
            }
        } else {
            let around = (0, u64::MAX, None);
            let first = entries.len() as u64;
            entries.extend(flatten([around].into_iter().chain(ranges)));
            // Of a file of 64 MiB: both are far below 2^32.
            let count = entries.len() as u64 - first;
            Network {
                code: 0,
                place: (first << 32 | count).to_le_bytes(),
            }
        };
        networks.push((high, network));
    }
    let networks = Networks {
        all: Index::new(&networks),
        entries: entries.into_boxed_slice(),
    };
    (flat, networks)
}

fn coded(flat: &[(u64, Found)]) -> Vec<(u64, u8)> {
    flat.iter()
        .map(|(start, found)| (*start, code(*found)))
        .collect()
}

/// A byte for what is found: 0 for nothing, else the length (64 at most) and what it says.
fn code(found: Found) -> u8 {
    found.map_or(0, |(length, access)| {
        1 + 2 * length + u8::from(access == Access::Allow)
    })
}

fn decoded(code: u8) -> Found {
    let code = code.checked_sub(1)?;
    let access = match code % 2 {
        0 => Access::Deny,
        _ => Access::Allow,
    };
    Some((code / 2, access))
}

fn bits(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u32::from(ip).into(),
        IpAddr::V6(ip) => ip.into(),
    }
}

/// The first and the last 64 bits.
fn halves(bits: u128) -> (u64, u64) {
    let [high, low] = [bits >> 64, bits & u128::from(u64::MAX)];
    let half = |half| u64::try_from(half).unwrap_or(u64::MAX);
    (half(high), half(low))
}

/// So many bits at the end.
fn low_bits(count: u32) -> u64 {
    u64::MAX.checked_shr(64 - count).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The longest prefix of all, looked for one by one.
    fn naive(all: &[(Prefix, Access)], ip: IpAddr) -> Found {
        let within = all.iter().filter(|(prefix, _)| prefix.contains(ip));
        let longest = within.max_by_key(|(prefix, _)| prefix.length());
        longest.map(|(prefix, access)| (prefix.length(), *access))
    }

    fn any_ip(rng: &mut fastrand::Rng) -> IpAddr {
        // Few bits differ, so that prefixes are within each other.
        let few = |rng: &mut fastrand::Rng| match rng.u8(..4) {
            0 => 0,
            1 => u8::MAX,
            _ => rng.u8(..2) << rng.u8(..8),
        };
        if rng.bool() {
            let ip: [u8; 4] = std::array::from_fn(|_| few(rng));
            ip.into()
        } else {
            let ip: [u8; 16] = std::array::from_fn(|at| match at {
                0 => 0x20,
                1..=5 | 8..=13 => 0,
                _ => few(rng),
            });
            let ip = match rng.u8(..20) {
                0 => [u8::MAX; 16],
                _ => ip,
            };
            ip.into()
        }
    }

    #[test]
    fn the_longest_prefix_is_that_of_a_naive_search() {
        let mut rng = fastrand::Rng::with_seed(11);
        for round in 0..400 {
            let mut all: Vec<(Prefix, Access)> = Vec::new();
            for _ in 0..rng.usize(..80) {
                let ip = any_ip(&mut rng);
                let whole = if ip.is_ipv4() { 32 } else { 128 };
                let length = if rng.bool() { whole } else { rng.u8(..=whole) };
                let prefix = Prefix::new(ip, length).unwrap();
                let access = [Access::Allow, Access::Deny][rng.usize(..2)];
                if !all.iter().any(|(known, _)| *known == prefix) {
                    all.push((prefix, access));
                }
            }
            let table = Prefixes::new(all.clone()).unwrap();
            assert_eq!(table.len(), all.len());
            let edges: Vec<_> = all.iter().flat_map(|(prefix, _)| around(*prefix)).collect();
            let others = (0..100).map(|_| any_ip(&mut rng));
            for ip in edges.into_iter().chain(others) {
                assert_eq!(table.longest(ip), naive(&all, ip), "{ip} in round {round}");
            }
        }
    }

    /// The first and the last address of a prefix, and those beside them.
    fn around(prefix: Prefix) -> Vec<IpAddr> {
        let first = bits(prefix.ip());
        let all = if prefix.ip().is_ipv4() { 32 } else { 128 };
        let spare = all - u32::from(prefix.length());
        let last = first | u128::MAX.checked_shr(128 - spare).unwrap_or(0);
        let numbers = [first.wrapping_sub(1), first, last, last.wrapping_add(1)];
        let ip = |number: u128| match prefix.ip() {
            IpAddr::V4(_) => u32::try_from(number).ok().map(|ip| IpAddr::V4(ip.into())),
            // One that stands for an IPv4 address is looked up as that.
            IpAddr::V6(_) => Some(IpAddr::V6(number.into())).filter(|ip| ip.to_canonical() == *ip),
        };
        numbers.into_iter().filter_map(ip).collect()
    }

    #[test]
    fn a_prefix_may_be_there_twice_but_not_with_another_word() {
        let prefix: Prefix = "10.0.0.0/8".parse().unwrap();
        let twice = vec![(prefix, Access::Deny); 2];
        assert_eq!(Prefixes::new(twice).unwrap().len(), 1);
        let both = vec![(prefix, Access::Deny), (prefix, Access::Allow)];
        assert_eq!(Prefixes::new(both).unwrap_err(), Clash(prefix));
    }

    /// As ranges of their own, each took 18 bytes, and 110 where it was one of IPv6.
    #[test]
    fn a_list_of_hosts_takes_few_bytes() {
        let mut rng = fastrand::Rng::with_seed(5);
        let mut bytes = |is_v4: bool| {
            let all = (0..20_000).map(|_| {
                let ip = match is_v4 {
                    true => IpAddr::V4(rng.u32(..).into()),
                    false => IpAddr::V6((rng.u128(..) >> 3 | 1 << 125).into()),
                };
                (
                    Prefix::new(ip, if is_v4 { 32 } else { 128 }).unwrap(),
                    Access::Deny,
                )
            });
            let table = Prefixes::new(all.collect()).unwrap();
            table.bytes() / table.len()
        };
        assert_eq!((bytes(true), bytes(false)), (10, 42));
    }

    #[test]
    fn an_empty_table_finds_nothing() {
        let table = Prefixes::new(Vec::new()).unwrap();
        assert!(table.is_empty());
        assert_eq!(table.longest("::1".parse().unwrap()), None);
        assert_eq!(table.longest("10.0.0.1".parse().unwrap()), None);
    }
}
