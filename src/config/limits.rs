//! Limits of new connections: for each source of a listener, for a listener, and for all listeners.

use std::num::NonZeroU32;
use std::time::Duration;

use super::codec::{duration, number, required, truth};
use super::table::{Shape, settings};
use super::values;
use crate::guard::{Rate, RateRule, Shed, SourceRules};
use crate::time::nanos;

settings! {
    /// What one source of a listener may take: an address, or a network of addresses. A client
    /// beyond it is reset.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct SourceLimits {
        /// The most connections of a source at a time. Off: any number.
        pub connections: Option<NonZeroU32> = None => number(values::CONNECTIONS).or("off");
        /// The most new connections of a source in a second. Off: any number.
        pub rate: Option<NonZeroU32> = None => number(values::RATE).or("off");
        /// How many new connections of a source may come at once. Auto: as many as `rate`.
        pub burst: Option<NonZeroU32> = None => number(values::RATE).or("auto");
        /// How many bits of an IPv4 address make a source. 32: each address is one.
        pub prefix_v4: u8 = 32 => number(values::PREFIX_V4);
        /// How many bits of an IPv6 address make a source. 64 is what one customer has at least.
        pub prefix_v6: u8 = 64 => number(values::PREFIX_V6);
        /// Whether clients beyond the limits are only counted and logged.
        pub dry_run: bool = false => truth();
    }
}

settings! {
    /// How many new connections may come, of all clients together. A client beyond it is reset.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct RateLimit {
        /// The most new connections in a second.
        pub rate: NonZeroU32 = NonZeroU32::MIN => required(number(values::RATE));
        /// How many may come at once. Auto: as many as `rate`.
        pub burst: Option<NonZeroU32> = None => number(values::RATE).or("auto");
        /// Whether clients beyond the limit are only counted and logged.
        pub dry_run: bool = false => truth();
    }
}

settings! {
    /// When accepted clients that wait for a worker are refused, so that others don't wait as long.
    /// Sessions that are open come first in any case.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Overload {
        /// How long a client may wait while its worker is overloaded.
        pub wait: Duration = Duration::from_millis(50) => duration(values::SHED_WAIT);
        /// A worker is overloaded when each client has waited for longer than `wait` during this
        /// time. A burst that is over sooner costs nobody a connection.
        pub after: Duration = Duration::from_secs(1) => duration(values::SHED_AFTER);
        /// Whether clients that wait for too long are only counted.
        pub dry_run: bool = false => truth();
    }
}

impl Shape for Overload {}
impl Shape for SourceLimits {}
impl Shape for RateLimit {}

super::table::defaults!(Overload, SourceLimits);

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
            dry_run: self.dry_run,
        }
    }
}

impl RateLimit {
    /// What workers apply.
    #[must_use]
    pub fn rule(&self) -> RateRule {
        RateRule {
            rate: Rate::new(self.rate, self.burst.unwrap_or(self.rate)),
            dry_run: self.dry_run,
        }
    }
}

pub(super) const SOURCE_LIMITS: &str = "\"off\" or a group such as (connections: 20, rate: 50)";
pub(super) const OVERLOAD: &str = "\"off\" or a group such as (wait: \"50ms\", after: \"1s\")";
pub(super) const RATE_LIMIT: &str = "\"off\" or a group such as (rate: 1000, burst: 2000)";
/// The default size of the table of sources: more than a million of them.
pub(super) const SOURCE_TABLE: u64 = 64 << 20;
