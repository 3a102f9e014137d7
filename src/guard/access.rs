//! Access lists: which clients may connect, by the prefixes of their addresses.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use crossbeam::utils::CachePadded;

use super::prefixes::Found;
use super::{Action, Prefixes};
use crate::prefix::Prefix;

/// What a list says of a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Access {
    /// Its clients may connect.
    Allow,
    /// Its clients are refused.
    Deny,
}

impl Access {
    /// Both with their names.
    pub const ALL: [(&'static str, Self); 2] = [
        (Self::Allow.as_str(), Self::Allow),
        (Self::Deny.as_str(), Self::Deny),
    ];

    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }
}

/// An access list as workers ask it. It never changes: a change makes another one, and shares the
/// table of the file.
#[derive(Clone, Debug)]
pub struct AccessFilter {
    /// Its name.
    pub name: String,
    /// The prefixes of the configuration.
    own: Arc<Prefixes>,
    /// The prefixes of its file.
    file: Option<Arc<Prefixes>>,
    /// What holds for addresses in no prefix.
    others: Access,
    /// Whether it only counts the clients that it would refuse.
    pub dry_run: bool,
    /// What is done with clients that it refuses.
    pub action: Action,
    /// Clients that it refused, over all workers.
    pub refused: Refused,
}

/// A count of refused clients, which outlives the lists that count with it.
pub type Refused = Arc<CachePadded<AtomicU64>>;

/// What a list says of an address, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccessVerdict {
    /// Whether its client may connect.
    pub access: Access,
    /// The longest prefix that it is in; `None`: it is in none.
    pub prefix: Option<Prefix>,
    /// Whether the file has that prefix, and the configuration does not.
    pub is_in_file: bool,
}

/// The access lists of a configuration by name.
pub type AccessFilters = BTreeMap<String, Arc<AccessFilter>>;

impl AccessFilter {
    /// A list. `others` is what holds for addresses in no prefix.
    #[must_use]
    pub fn new(
        name: String,
        own: Arc<Prefixes>,
        file: Option<Arc<Prefixes>>,
        others: Access,
    ) -> Self {
        Self {
            name,
            own,
            file,
            others,
            dry_run: false,
            action: Action::Reset,
            refused: Refused::default(),
        }
    }

    /// The same prefixes, which count refused clients here.
    #[must_use]
    pub fn counting(self, refused: Refused, dry_run: bool) -> Self {
        Self {
            dry_run,
            refused,
            ..self
        }
    }

    /// The same prefixes, with this done to clients that they refuse.
    #[must_use]
    pub fn acting(self, action: Action) -> Self {
        Self { action, ..self }
    }

    /// Whether a client of this address may connect. The longest prefix counts. Where the
    /// configuration and the file have the same one, that of the configuration counts: an operator
    /// can let in an address that a public list has.
    #[must_use]
    pub fn allows(&self, ip: IpAddr) -> bool {
        let (found, _) = self.longest(ip);
        found.map_or(self.others, |(_, access)| access) == Access::Allow
    }

    /// What it says of an address, and why.
    #[must_use]
    pub fn decide(&self, ip: IpAddr) -> AccessVerdict {
        let ip = ip.to_canonical();
        let (found, is_in_file) = self.longest(ip);
        AccessVerdict {
            access: found.map_or(self.others, |(_, access)| access),
            prefix: found.and_then(|(length, _)| Prefix::new(ip, length)),
            is_in_file,
        }
    }

    /// The longest prefix that an address is in, and whether the file has it.
    fn longest(&self, ip: IpAddr) -> (Found, bool) {
        let own = self.own.longest(ip);
        let file = self.file.as_ref().and_then(|file| file.longest(ip));
        let length = |found: Found| found.map(|(length, _)| length);
        let is_in_file = length(file) > length(own);
        (if is_in_file { file } else { own }, is_in_file)
    }

    /// What the file says of this very prefix; `None` also where the file has a longer one that
    /// begins at the same address.
    #[must_use]
    pub fn in_file(&self, prefix: Prefix) -> Option<Access> {
        let found = self.file.as_ref()?.longest(prefix.ip())?;
        let (length, access) = found;
        (length == prefix.length()).then_some(access)
    }

    /// The prefixes of the configuration, to be shared with the next list.
    #[must_use]
    pub fn own(&self) -> &Arc<Prefixes> {
        &self.own
    }

    /// How many prefixes it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.own.len() + self.file.as_ref().map_or(0, |file| file.len())
    }

    /// Whether it has no prefix.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What holds for addresses in no prefix.
    #[must_use]
    pub fn others(&self) -> Access {
        self.others
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(allow: &[&str], deny: &[&str]) -> Arc<Prefixes> {
        let both = [(allow, Access::Allow), (deny, Access::Deny)];
        let all = both
            .iter()
            .flat_map(|(texts, access)| texts.iter().map(|text| (text.parse().unwrap(), *access)));
        Arc::new(Prefixes::new(all.collect()).unwrap())
    }

    fn allowed(list: &AccessFilter, ips: &[&str]) -> Vec<bool> {
        ips.iter()
            .map(|ip| list.allows(ip.parse().unwrap()))
            .collect()
    }

    #[test]
    fn what_holds_for_others_does_not_depend_on_the_prefixes() {
        let of = |allow: &[&str], deny: &[&str], others| {
            AccessFilter::new("a".into(), table(allow, deny), None, others)
        };
        let ips = ["10.1.2.3", "10.6.0.1", "192.0.2.1", "2001:db8::1"];
        let (ten, six) = (["10.0.0.0/8"], ["10.6.0.0/16"]);
        let both = of(&ten, &six, Access::Deny);
        assert_eq!(allowed(&both, &ips), [true, false, false, false]);
        let both = of(&ten, &six, Access::Allow);
        assert_eq!(allowed(&both, &ips), [true, false, true, true]);
        assert_eq!(allowed(&of(&[], &six, Access::Deny), &ips), [false; 4]);
        assert_eq!(allowed(&of(&ten, &[], Access::Allow), &ips), [true; 4]);
        assert_eq!(allowed(&of(&[], &[], Access::Deny), &ips), [false; 4]);
        assert_eq!(allowed(&of(&[], &[], Access::Allow), &ips), [true; 4]);
    }

    #[test]
    fn the_longest_prefix_of_configuration_and_file_counts() {
        let file = Some(table(&["10.6.6.0/24"], &["10.0.0.0/8", "10.7.0.0/16"]));
        let own = table(&["10.7.0.0/16", "10.6.0.0/16"], &["10.6.6.6"]);
        let list = AccessFilter::new("a".into(), own, file, Access::Allow);
        let ips = [
            "10.1.1.1", "10.6.1.1", "10.6.6.1", "10.6.6.6", "10.7.0.1", "11.0.0.1",
        ];
        assert_eq!(allowed(&list, &ips), [false, true, true, false, true, true]);
        assert_eq!(list.len(), 6);
    }

    #[test]
    fn a_decision_names_its_prefix() {
        let file = Some(table(&[], &["10.7.0.0/16", "10.6.6.0/24"]));
        let own = table(&["10.7.0.0/16"], &[]);
        let list = AccessFilter::new("a".into(), own, file, Access::Allow);
        let decide = |ip: &str| {
            let AccessVerdict {
                access,
                prefix,
                is_in_file,
            } = list.decide(ip.parse().unwrap());
            (access, prefix.map(|its| its.to_string()), is_in_file)
        };
        let allowed = Some("10.7.0.0/16".to_owned());
        assert_eq!(decide("10.7.1.1"), (Access::Allow, allowed.clone(), false));
        assert_eq!(decide("::ffff:10.7.1.1"), (Access::Allow, allowed, false));
        let denied = Some("10.6.6.0/24".to_owned());
        assert_eq!(decide("10.6.6.1"), (Access::Deny, denied, true));
        assert_eq!(decide("::1"), (Access::Allow, None, false));
    }
}
