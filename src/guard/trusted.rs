//! Networks that are never banned.

use std::net::IpAddr;

use super::{Access, Prefixes};
use crate::prefix::Prefix;

/// Networks whose clients no ban refuses.
#[derive(Debug, Default)]
pub struct Trusted {
    prefixes: Vec<Prefix>,
    /// The same in the order of their first addresses.
    sorted: Vec<Prefix>,
    table: Prefixes,
}

impl Trusted {
    /// These networks.
    #[must_use]
    pub fn new(prefixes: &[Prefix]) -> Self {
        let all = prefixes.iter().map(|prefix| (*prefix, Access::Allow));
        // All say the same: no prefix can be both.
        let table = Prefixes::new(all.collect()).unwrap_or_default();
        let mut sorted = prefixes.to_owned();
        sorted.sort_unstable();
        Self {
            prefixes: prefixes.to_owned(),
            sorted,
            table,
        }
    }

    /// The networks, as they were given.
    #[must_use]
    pub fn prefixes(&self) -> &[Prefix] {
        &self.prefixes
    }

    /// Whether an address is in one of them.
    #[must_use]
    pub fn contains(&self, ip: IpAddr) -> bool {
        self.table.longest(ip.to_canonical()).is_some()
    }

    /// One that has all addresses of a network.
    #[must_use]
    pub fn around(&self, prefix: Prefix) -> Option<Prefix> {
        let mut all = self.prefixes.iter();
        all.find(|its| its.covers(prefix)).copied()
    }

    /// Whether a network has an address that is in one of them, or all its addresses are. The
    /// kernel must not drop the clients of such a network before anything looks at each.
    #[must_use]
    pub fn meets(&self, prefix: Prefix) -> bool {
        if self.contains(prefix.ip()) {
            return true;
        }
        // Its first address is in none. So one that it meets begins within it, and the next one to
        // begin does.
        let next = self.sorted.partition_point(|its| its.ip() < prefix.ip());
        self.sorted.get(next).is_some_and(|its| prefix.covers(*its))
    }

    /// Those within a network that is wider.
    pub fn within(&self, prefix: Prefix) -> impl Iterator<Item = Prefix> {
        let all = self.prefixes.iter().copied();
        all.filter(move |its| *its != prefix && prefix.covers(*its))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_contain_addresses_and_networks() {
        let prefix = |text: &str| -> Prefix { text.parse().unwrap() };
        let trusted = Trusted::new(&["10.1.0.0/16", "2001:db8::/32"].map(prefix));
        let ips = ["10.1.2.3", "::ffff:10.1.2.3", "10.2.0.1", "2001:db8::1"];
        let found = ips.map(|ip| trusted.contains(ip.parse().unwrap()));
        assert_eq!(found, [true, true, false, true]);
        let around = |text| trusted.around(prefix(text));
        assert_eq!(around("10.1.7.0/24"), Some(prefix("10.1.0.0/16")));
        assert_eq!(around("10.0.0.0/8"), None);
        let within: Vec<_> = trusted.within(prefix("10.0.0.0/8")).collect();
        assert_eq!(within, [prefix("10.1.0.0/16")]);
        assert_eq!(trusted.within(prefix("::/0")).count(), 1);
        assert!(!Trusted::default().contains("10.1.2.3".parse().unwrap()));
    }

    #[test]
    fn a_network_meets_trusted_ones_if_it_has_an_address_of_theirs() {
        let mut rng = fastrand::Rng::with_seed(11);
        // All addresses of a network of 8.
        let ip = |last: u8| IpAddr::from([10, 0, 0, last]);
        let prefix = |rng: &mut fastrand::Rng| Prefix::new(ip(rng.u8(..8)), rng.u8(28..=32));
        let mut met = 0;
        for _ in 0..1_000 {
            let some: Vec<_> = (0..rng.usize(..3))
                .filter_map(|_| prefix(&mut rng))
                .collect();
            let trusted = Trusted::new(&some);
            let network = prefix(&mut rng).unwrap();
            let mut own = (0..16).map(ip).filter(|ip| network.contains(*ip));
            let expected = own.any(|ip| trusted.contains(ip));
            assert_eq!(trusted.meets(network), expected, "{network} {some:?}");
            met += u32::from(expected);
        }
        assert!((100..900).contains(&met), "{met}");
    }
}
