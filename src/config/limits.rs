//! Limits of new connections: for each source of a listener, for a listener, and for all listeners.

use std::num::NonZeroU32;
use std::time::Duration;

use super::Listener;
use super::codec::{duration, named, number, required, truth};
use super::table::settings;
use super::values::{self, MINUTE, SECOND, between};
use crate::guard::{Action, FleetRule, Rate, RateRule, Shed, SourceRules};
use crate::time::nanos;

settings! {
    /// What one source of a listener may take: an address, or a network of addresses. A client
    /// beyond it is refused.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct SourceLimits {
        /// The most connections of a source at a time. Off: any number.
        pub connections: Option<NonZeroU32> = None => number(values::CONNECTIONS).or("off");
        /// The most new connections of a source in a second. Off: any number.
        pub rate: Option<NonZeroU32> = None => number(values::RATE).or("off");
        /// How many new connections of a source may come at once. Auto: as many as `rate`.
        pub burst: Option<NonZeroU32> = None => number(values::RATE).or("auto");
        /// How many bits of an IPv4 address make a source. 32: each address is one.
        pub prefix_v4: u8 = 32 => number(1..=32);
        /// How many bits of an IPv6 address make a source. 64 is what one customer has at least.
        pub prefix_v6: u8 = 64 => number(1..=128);
        /// Whether clients beyond the limits are only counted and logged.
        pub dry_run: bool = false => truth();
        /// What is done with clients beyond the limits: "reset", "drop" without a word, or
        /// "tarpit", which lets them wait.
        pub action: Action = Action::Reset => named("action", &Action::ALL);
    }
}

settings! {
    /// How many new connections may come, of all clients together. A client beyond it is refused.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct RateLimit {
        /// The most new connections in a second.
        pub rate: NonZeroU32 = NonZeroU32::MIN => required(number(values::RATE));
        /// How many new connections may come at once. Auto: as many as `rate`.
        pub burst: Option<NonZeroU32> = None => number(values::RATE).or("auto");
        /// Whether it is one limit over all balancers of the `fleet`: this one has a share of it.
        pub fleet: bool = false => truth();
        /// Whether clients beyond the limit are only counted and logged.
        pub dry_run: bool = false => truth();
        /// What is done with clients beyond the limit, as in `source_limits`.
        pub action: Action = Action::Reset => named("action", &Action::ALL);
    }
}

settings! {
    /// Where refused clients are held whose rule says "drop" or "tarpit".
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Tarpit {
        /// The most clients that are held, over all workers. For one more, the oldest is let go.
        pub slots: NonZeroU32 = SLOTS => number(1..=1 << 20);
        /// How long a refused client is held.
        pub time: Duration = Duration::from_secs(60) => duration(values::DEADLINE);
    }
}

settings! {
    /// When accepted clients that wait for a worker are refused, so that others don't wait as long.
    /// Sessions that are open come first in any case.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Overload {
        /// How long a client may wait while its worker is overloaded.
        pub wait: Duration = Duration::from_millis(50) => duration(between(1, 10 * SECOND));
        /// A worker is overloaded when each client has waited for longer than `wait` during this
        /// time. A burst that is over sooner costs no client a connection.
        pub after: Duration = Duration::from_secs(1) => duration(between(10, MINUTE));
        /// The part of a worker's receive buffers in use, in percent, from which on new clients are
        /// refused, once that has lasted for `after`. Up to half of them, none is missed. Off: they
        /// come in, and their bytes are passed on without a buffer.
        pub memory: Option<u8> = None => number(50..=100).or("off");
        /// Whether clients that wait for too long are only counted.
        pub dry_run: bool = false => truth();
    }
}

super::table::defaults!(Overload, SourceLimits, Tarpit);

impl SourceLimits {
    /// What workers apply.
    #[must_use]
    pub fn rules(&self) -> SourceRules {
        SourceRules {
            connections: self.connections,
            rate: self
                .rate
                .map(|rate| Rate::new(rate, self.burst.unwrap_or(rate))),
            prefix_v4: self.prefix_v4,
            prefix_v6: self.prefix_v6,
            dry_run: self.dry_run,
            action: self.action,
            is_paced: false,
        }
    }
}

impl Overload {
    /// What workers apply.
    #[must_use]
    pub fn rules(&self) -> Shed {
        Shed {
            wait: nanos(self.wait),
            after: nanos(self.after),
            memory: self.memory,
            dry_run: self.dry_run,
        }
    }
}

impl Listener {
    /// What sources may take, where they are counted.
    #[must_use]
    pub fn source_rules(&self) -> Option<SourceRules> {
        let is_paced = self.bandwidth.limits_sources();
        let limits = self.source_limits;
        (limits.is_some() || is_paced).then(|| SourceRules {
            is_paced,
            ..limits.unwrap_or_default().rules()
        })
    }
}

impl RateLimit {
    /// What workers apply.
    #[must_use]
    pub fn rule(&self) -> RateRule {
        let (rate, burst) = (self.rate, self.burst.unwrap_or(self.rate));
        RateRule {
            rate: Rate::new(rate, burst),
            fleet: self.fleet.then_some(FleetRule { rate, burst }),
            dry_run: self.dry_run,
            action: self.action,
        }
    }
}

pub(super) const SOURCE_LIMITS: &str = "\"off\" or a group such as (connections: 20, rate: 50)";
pub(super) const OVERLOAD: &str = "\"off\" or a group such as (wait: \"50ms\", after: \"1s\")";
pub(super) const RATE_LIMIT: &str = "\"off\" or a group such as (rate: 1000, burst: 2000)";
/// The default size of the table of sources: more than 700,000 of them.
pub(super) const SOURCE_TABLE: u64 = 64 << 20;
/// The default of held clients.
const SLOTS: NonZeroU32 = NonZeroU32::new(1_000).expect("not 0");
