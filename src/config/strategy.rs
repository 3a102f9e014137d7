//! The balancing strategies and their settings.

use std::collections::HashMap;
use std::fmt;
use std::num::NonZeroU16;
use std::time::Duration;

use super::codec::{duration, name, number, parsed, required};
use super::reader::{At, Reader};
use super::table::{Shape, settings};
use super::values::{self, name_of_kind};
use super::{Backend, Key};

/// Declares [`Strategy`]. A row is a strategy: its variant with the type of its settings if it has
/// any, its name, and what it selects by.
macro_rules! strategies {
    ($(
        $(#[$meta:meta])+
        $variant:ident $(($Settings:ty))? = $name:literal, $by:ident;
    )+) => {
        /// How a backend is selected.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub enum Strategy {
            $($(#[$meta])+ $variant $(($Settings))?,)+
        }

        impl Strategy {
            /// The names of all, as configuration and command line know them, each with its default
            /// settings.
            #[must_use]
            pub fn all() -> [(&'static str, Self); [$($name),+].len()] {
                [$(($name, Self::$variant $((<$Settings>::default()))?)),+]
            }

            /// Its name.
            #[must_use]
            pub fn name(&self) -> &'static str {
                match self {
                    $(Self::$variant { .. } => $name,)+
                }
            }

            /// What it selects by.
            #[must_use]
            pub fn by(&self) -> SelectsBy {
                match self {
                    $(Self::$variant { .. } => SelectsBy::$by,)+
                }
            }
        }
    };
}

strategies! {
    /// Each in turn, by weight, smoothly.
    #[default]
    RoundRobin = "round_robin", Turn;
    /// Each in turn, by weight, for a client's first connection; later ones follow it.
    StickyRoundRobin(Persist) = "sticky_round_robin", Turn;
    /// By a key of the client, the same on every balancer.
    Hash(Hash) = "hash", Key;
    /// The one with the fewest connections for its weight.
    LeastConnections = "least_connections", Load;
    /// The one that answers soonest, by its answers so far and the connections in flight.
    LeastTime(LeastTime) = "least_time", Load;
    /// By chance, by weight.
    Random = "random", Chance;
    /// The less loaded of two that are drawn by chance.
    PowerOfTwo = "power_of_two", Load;
    /// The first that is not full, in the order of the configuration.
    First = "first", Order;
    /// A group or subset first, then the least loaded within.
    TwoTier(TwoTier) = "two_tier", Tiers;
    /// The one with the most headroom in the near future.
    Predictive(Predictive) = "predictive", Load;
}

/// What a strategy with default settings selects by. Tests derive their expectations from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SelectsBy {
    /// Each backend in turn.
    Turn,
    /// The client's key.
    Key,
    /// The load of the backends; by chance among equals.
    Load,
    /// Chance alone.
    Chance,
    /// One strategy among groups or subsets, then another one within.
    Tiers,
    /// The order in the configuration.
    Order,
}

/// Settings of [`Strategy::Hash`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hash {
    /// What is hashed.
    pub key: Key,
    /// No backend takes more than this share of the pool's average load, in percent, 101 to 1000;
    /// `None`: any.
    pub max_load: Option<u16>,
}

settings! {
    /// Settings of [`Strategy::LeastTime`].
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct LeastTime {
        /// How soon a slow answer is forgotten: the time constant of the average.
        pub decay: Duration = Duration::from_secs(10);
    }
}

/// Settings of [`Strategy::TwoTier`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TwoTier {
    /// What picks the group.
    pub first: FirstTier,
    /// What picks within the group.
    pub then: SecondTier,
    /// The groups that the strategy lists, in order of priority. Empty: [`Group::of`] the backends
    /// of the pool.
    pub groups: Vec<Group>,
}

/// The static tier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FirstTier {
    /// The client's key picks a group, or, without groups, a subset of `subset` backends.
    Hash {
        /// What is hashed.
        key: Key,
        /// Backends of a subset, 1 to 16, while no groups are named. If the pool has fewer, a
        /// subset is the whole pool.
        subset: NonZeroU16,
    },
    /// Each group takes its share.
    Weight,
    /// The first group takes all clients while it is usable.
    Priority,
}

/// The dynamic tier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SecondTier {
    /// As [`Strategy::LeastConnections`].
    #[default]
    LeastConnections,
    /// As [`Strategy::LeastTime`].
    LeastTime(LeastTime),
    /// As [`Strategy::PowerOfTwo`].
    PowerOfTwo,
}

settings! {
    /// Some backends of a pool.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Group: Shape {
        /// The name that backends use, unique within the pool.
        pub name: String = String::new() => required(name());
        /// Its share. Not given (0): the weights of its backends together, without backups and
        /// reserve.
        pub weight: u32 = 0 => number(1..=1 << 16);
    }
}

settings! {
    /// Settings of [`Strategy::Predictive`].
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Predictive {
        /// How far ahead it looks, in whole seconds.
        pub horizon: Duration = Duration::from_secs(10);
        /// The period that load repeats with. Off: none.
        pub season: Option<Duration> = Some(Duration::from_secs(86_400));
    }
}

settings! {
    /// Persistence: clients return to their last backend.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Persist: Shape {
        /// The key that identifies a client.
        pub key: Key = Key::default()
            => parsed("a key such as \"source_ip\"", values::persist_key, Key::to_string);
        /// How long a client is remembered after its last connection.
        pub ttl: Duration = Duration::from_secs(30 * 60) => duration(values::TTL);
        /// The most clients that are remembered; beyond it the least recent one is forgotten.
        pub clients_max: u32 = 100_000 => number(values::CLIENTS);
    }
}

impl Shape for Group {
    const SHORT: Option<&'static str> = Some("name");
}

impl Shape for Persist {
    const SHORT: Option<&'static str> = Some("key");

    fn is_off(at: At<'_>, _: &mut Reader<'_>) -> bool {
        at.says("key", "off")
    }
}

super::table::defaults!(LeastTime, Predictive, Persist);

impl Strategy {
    /// How answer times are averaged.
    #[must_use]
    pub fn averages_over(&self) -> LeastTime {
        self.least_time().unwrap_or_default()
    }

    /// The horizon of the load forecast, for strategies that use one.
    #[must_use]
    pub fn looks_ahead(&self) -> Option<Predictive> {
        if let Self::Predictive(settings) = self {
            return Some(*settings);
        }
        self.least_time().map(|_| Predictive {
            horizon: Duration::from_secs(1),
            season: None,
        })
    }

    /// The settings of `least_time`, alone or as a second tier.
    fn least_time(&self) -> Option<LeastTime> {
        if let Self::LeastTime(settings)
        | Self::TwoTier(TwoTier {
            then: SecondTier::LeastTime(settings),
            ..
        }) = self
        {
            Some(*settings)
        } else {
            None
        }
    }

    /// The key that it selects by, if it selects by one.
    #[must_use]
    pub fn key(&self) -> Option<&Key> {
        if let Self::Hash(Hash { key, .. })
        | Self::TwoTier(TwoTier {
            first: FirstTier::Hash { key, .. },
            ..
        }) = self
        {
            Some(key)
        } else {
            None
        }
    }
}

impl Group {
    /// The groups that backends name, in the order of their first, each with the weight of its
    /// backends. Backups and the reserve add no weight, but each group weighs at least 1.
    pub fn of<'a>(backends: impl IntoIterator<Item = &'a Backend>) -> Vec<Self> {
        let mut groups: Vec<Self> = Vec::new();
        let mut places = HashMap::new();
        for backend in backends {
            let Some(name) = &backend.group else {
                continue;
            };
            let place = *places.entry(name).or_insert_with(|| {
                groups.push(Self {
                    name: name.clone(),
                    weight: 0,
                });
                groups.len() - 1
            });
            if !backend.backup && !backend.reserve {
                groups[place].weight += u32::from(backend.weight);
            }
        }
        for group in &mut groups {
            group.weight = group.weight.max(1);
        }
        groups
    }
}

impl FirstTier {
    /// Every name with its default settings.
    #[must_use]
    pub fn all() -> [(&'static str, Self); 3] {
        [
            ("hash", Self::default()),
            ("weight", Self::Weight),
            ("priority", Self::Priority),
        ]
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        name_of_kind(&Self::all(), self)
    }
}

impl SecondTier {
    /// Every name with its default settings.
    #[must_use]
    pub fn all() -> [(&'static str, Self); 3] {
        [
            ("least_connections", Self::LeastConnections),
            ("least_time", Self::LeastTime(LeastTime::default())),
            ("power_of_two", Self::PowerOfTwo),
        ]
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        name_of_kind(&Self::all(), self)
    }
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Default for FirstTier {
    fn default() -> Self {
        Self::Hash {
            key: Key::default(),
            subset: SUBSET,
        }
    }
}

/// Why `subset` stands beside no groups.
pub(super) const NO_SUBSET: &str = "the key picks one of the groups: leave `subset` out";
/// The default size of a subset.
pub(super) const SUBSET: NonZeroU16 = NonZeroU16::new(2).unwrap();
