//! Simulates limits of new connections under abuse, with the production code of [`crate::guard`].
//!
//! Crowds of good clients and of abusive ones connect to one listener, in virtual time, from a
//! seed. Each set of limits meets the same clients. What is counted says whom the limits refuse,
//! and how much abuse they let through.
//!
//! Left out: backends, retries of refused clients, and abuse that gives up.

mod crowd;
mod engine;
mod report;

use std::num::NonZeroU32;

use serde::Serialize;

use crate::config::values;
use crate::config::{BanAfter, Config, Listener, RateLimit, SourceLimits};
use crate::guard::{Action, BanRule, RateRule, Refusal, Rules, SourceRules};
use crate::session::CloseReason;

pub use crowd::{Abuse, Crowd};
pub use report::{json, table};

use engine::AbuseEngine;

/// Limits to try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Protection {
    /// What they are called in a table.
    pub name: String,
    /// For each source.
    pub source: Option<SourceLimits>,
    /// For the listener.
    pub listener: Option<RateLimit>,
    /// For all listeners.
    pub global: Option<RateLimit>,
    /// When a source that the limits refuse is banned.
    pub ban: Option<BanAfter>,
}

/// What limits did in the simulation.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AbuseOutcome {
    /// Always [`NAME`].
    pub scenario: &'static str,
    /// [`Protection::name`]
    pub limits: String,
    /// The seed of all random numbers.
    pub seed: u64,
    /// The length of the measurement, in simulated seconds.
    pub seconds: u64,
    /// The crowds, in the order of [`Crowd::all`].
    pub crowds: Vec<CrowdOutcome>,
    /// Connections that each limit, and bans, refused, of all crowds.
    pub refused_by: Vec<RefusedBy>,
}

/// What happened to a crowd.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CrowdOutcome {
    /// Its name.
    pub name: &'static str,
    /// What it takes too much of; `None`: its clients are good.
    pub abuse: Option<Abuse>,
    /// How many clients it has.
    pub clients: u32,
    /// How many of them connected.
    pub clients_seen: u32,
    /// How many of them were refused at least once.
    pub clients_refused: u32,
    /// Connections that they tried to open.
    pub connections: u64,
    /// Those that were refused.
    pub refused: u64,
    /// The most that were open at a time.
    pub open_max: u32,
}

/// Connections that a limit refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RefusedBy {
    /// The close reason.
    pub reason: &'static str,
    /// How many.
    pub connections: u64,
}

/// The name of the scenario.
pub const NAME: &str = "abuse";
/// What the scenario is, in one sentence.
pub const ABOUT: &str = "a flood, a holder of connections and rotating IPv6 addresses among good \
                         clients: whom do limits refuse?";

/// Runs the scenario under these limits. A dry run is simulated as if it refused.
#[must_use]
pub fn run(limits: &Protection, seed: u64) -> AbuseOutcome {
    let done = AbuseEngine::new((limits.rules(), limits.ban_rule()), seed).run();
    let refused_by = Refusal::ALL.map(|rule| RefusedBy {
        reason: rule.as_str(),
        connections: done.refused_by(rule),
    });
    let banned = RefusedBy {
        reason: CloseReason::Banned.as_str(),
        connections: done.banned(),
    };
    AbuseOutcome {
        scenario: NAME,
        limits: limits.name.clone(),
        seed,
        seconds: engine::MEASURED_SECONDS,
        crowds: done.crowds(),
        refused_by: refused_by.into_iter().chain([banned]).collect(),
    }
}

impl Protection {
    /// The limits that are compared, from none to tight ones, and by the width of an IPv6 source.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let per_source = [
            source(Some(20), None),
            source(Some(1_500), None),
            source(None, Some((10, 20))),
            source(None, Some((100, 500))),
        ];
        let both = [
            source(Some(1_500), Some((100, 500))),
            source(Some(100), Some((50, 200))),
        ];
        let by_width = both.iter().flat_map(|limits| {
            [64, 56, 48].map(|prefix_v6| SourceLimits {
                prefix_v6,
                ..*limits
            })
        });
        let rate = RateLimit {
            rate: number(1_000),
            burst: number_of(2_000),
            fleet: false,
            dry_run: false,
            action: Action::Reset,
        };
        let of_source = per_source.into_iter().chain(by_width);
        let mut all = vec![Self::of(None, None), Self::of(None, Some(rate))];
        all.extend(of_source.map(|limits| Self::of(Some(limits), None)));
        let banning = both.iter().flat_map(|limits| {
            [64, 56].map(|prefix_v6| SourceLimits {
                prefix_v6,
                ..*limits
            })
        });
        let banning = banning.map(|limits| Self::of(Some(limits), None));
        all.extend(banning.map(|limits| limits.banning(BanAfter::default())));
        all
    }

    /// The limits of each listener of a configuration that has some.
    #[must_use]
    pub fn configured(config: &Config) -> Vec<Self> {
        let of = |listener: &Listener| Self {
            name: format!("listener {}", listener.name),
            source: listener.source_limits,
            listener: listener.rate_limit,
            global: config.rate_limit,
            ban: listener.ban,
        };
        let all = config.listeners.iter().map(of);
        all.filter(|limits| !limits.rules().is_empty()).collect()
    }

    fn of(source: Option<SourceLimits>, listener: Option<RateLimit>) -> Self {
        let of_source = source.iter().flat_map(written);
        let of_listener = listener.iter().map(|limit| {
            let burst = limit.burst.unwrap_or(limit.rate);
            format!("rate_limit {}, burst {burst}", limit.rate)
        });
        let parts: Vec<_> = of_source.chain(of_listener).collect();
        Self {
            name: match parts.is_empty() {
                true => "no limits".to_owned(),
                false => parts.join(", "),
            },
            source,
            listener,
            global: None,
            ban: None,
        }
    }

    fn banning(self, ban: BanAfter) -> Self {
        let [within, time] = [ban.within, ban.r#for].map(values::written);
        Self {
            name: format!("{}, ban after {}/{within} for {time}", self.name, ban.after),
            ban: Some(ban),
            ..self
        }
    }

    /// What bans a source.
    fn ban_rule(&self) -> Option<BanRule> {
        let limits = self.source.unwrap_or_default();
        let rule = self.ban.map(|ban| ban.rule(&limits));
        rule.map(|rule| BanRule {
            dry_run: false,
            ..rule
        })
    }

    /// What a gate applies.
    fn rules(&self) -> Rules {
        let in_force = |limit: RateLimit| RateRule {
            dry_run: false,
            ..limit.rule()
        };
        Rules {
            source: self.source.map(|limits| SourceRules {
                dry_run: false,
                ..limits.rules()
            }),
            listener: self.listener.map(in_force),
            global: self.global.map(in_force),
        }
    }
}

/// The settings of a source that are not the default ones, such as `rate 10`.
fn written(limits: &SourceLimits) -> Vec<String> {
    let default = SourceLimits::default();
    let [connections, rate, burst] = [
        ("connections", limits.connections),
        ("rate", limits.rate),
        ("burst", limits.burst),
    ]
    .map(|(name, value)| value.map(|value| format!("{name} {value}")));
    let width = (limits.prefix_v6 != default.prefix_v6).then_some(limits.prefix_v6);
    let width = width.map(|bits| format!("prefix_v6 {bits}"));
    [connections, rate, burst, width]
        .into_iter()
        .flatten()
        .collect()
}

fn source(connections: Option<u32>, rate: Option<(u32, u32)>) -> SourceLimits {
    SourceLimits {
        connections: connections.and_then(number_of),
        rate: rate.and_then(|(rate, _)| number_of(rate)),
        burst: rate.and_then(|(_, burst)| number_of(burst)),
        ..SourceLimits::default()
    }
}

const fn number_of(number: u32) -> Option<NonZeroU32> {
    NonZeroU32::new(number)
}

const fn number(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).expect("above 0")
}

#[cfg(test)]
mod tests;
