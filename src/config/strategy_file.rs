//! Strategies in a file: one group has the settings of all strategies.

use super::codec::{Codec, duration, group_or_short, groups, number, parsed, ratio, required};
use super::reader::{At, Reader};
use super::strategy::{NO_SUBSET, SUBSET};
use super::table::{self, Shape, settings};
use super::values::{self, DAY, MINUTE, between};
use super::{
    FirstTier, Group, Hash, Key, LeastTime, Persist, Predictive, SecondTier, Strategy, TwoTier,
};

settings! {
    /// A strategy. A setting that it does not have is not put, and is a mistake.
    #[derive(Clone, PartialEq)]
    pub(super) struct StrategyFile: Shape {
        pub(super) strategy: Strategy = Strategy::default();
            @name
            /// The strategy by its name.
            => required(parsed(
                    "the name of a strategy",
                    values::strategy,
                    |strategy| strategy.name().to_owned(),
                )),
                |file: &Self| file.strategy.clone(),
                |file: &mut Self, strategy| file.strategy = strategy;
            @first of ["two_tier"]
            /// what picks the group or the subset.
            => parsed(
                    "\"hash\", \"weight\" or \"priority\"",
                    |name| values::named("first tier", name, &FirstTier::all()),
                    |tier| tier.name().to_owned(),
                ),
                |file: &Self| if let Strategy::TwoTier(its) = &file.strategy {
                    its.first.clone()
                } else {
                    FirstTier::default()
                },
                |file: &mut Self, first: FirstTier| if let Strategy::TwoTier(its)
                    = &mut file.strategy && its.first.name() != first.name()
                {
                    its.first = first;
                };
            @then of ["two_tier"]
            /// what picks within the group or the subset.
            [if let Strategy::TwoTier(its) = strategy { its.then } else { SecondTier::default() }]
            => parsed(
                    "\"least_connections\", \"least_time\" or \"power_of_two\"",
                    |name| values::named("second tier", name, &SecondTier::all()),
                    |tier| tier.name().to_owned(),
                );
            @key of ["sticky_round_robin", "hash", "two_tier"]
            /// the property of a client that is hashed or remembered.
            [if let Strategy::Hash(Hash { key, .. })
                | Strategy::StickyRoundRobin(Persist { key, .. })
                | Strategy::TwoTier(TwoTier { first: FirstTier::Hash { key, .. }, .. }) = strategy
                { *key } else { Key::default() }]
            => parsed("a key such as \"source_ip\"", |text| text.parse(), Key::to_string);
            @subset of ["two_tier"]
            /// backends of a subset, while no groups are named.
            [if let Strategy::TwoTier(TwoTier { first: FirstTier::Hash { subset, .. }, .. })
                = strategy { *subset } else { SUBSET }]
            => number(1..=16);
            @max_load of ["hash"]
            /// no backend takes more than this share of the pool's average load.
            [if let Strategy::Hash(its) = strategy { its.max_load } else { None }]
            => ratio(101..=1000).or("off");
            @decay of ["least_time", "two_tier"]
            /// how soon a slow answer is forgotten.
            [if let Strategy::LeastTime(time)
                | Strategy::TwoTier(TwoTier { then: SecondTier::LeastTime(time), .. }) = strategy
                { time.decay } else { LeastTime::default().decay }]
            => duration(values::DECAY);
            @groups of ["two_tier"]
            /// the groups that backends name, in order of priority.
            [if let Strategy::TwoTier(its) = strategy { its.groups } else { Vec::new() }]
            => groups::<Group>();
            @horizon of ["predictive"]
            /// how far ahead it looks.
            [if let Strategy::Predictive(its) = strategy { its.horizon }
                else { Predictive::default().horizon }]
            => duration(values::HORIZON);
            @season of ["predictive"]
            /// the period that load repeats with.
            [if let Strategy::Predictive(its) = strategy { its.season }
                else { Predictive::default().season }]
            => duration(between(10 * MINUTE, 30 * DAY)).or("off");
            @ttl of ["sticky_round_robin"]
            /// how long a client is remembered after its last connection.
            [if let Strategy::StickyRoundRobin(its) = strategy { its.ttl }
                else { Persist::default().ttl }]
            => duration(values::TTL);
            @clients_max of ["sticky_round_robin"]
            /// how many clients are remembered.
            [if let Strategy::StickyRoundRobin(its) = strategy { its.clients_max }
                else { Persist::default().clients_max }]
            => number(values::CLIENTS);
    }
}

impl Shape for StrategyFile {
    const SHORT: Option<&'static str> = Some("name");

    fn implied(&self, _: &Self) -> Self {
        let name = self.strategy.name();
        let strategy = values::named("strategy", name, &Strategy::all());
        Self {
            strategy: strategy.unwrap_or_default(),
        }
    }

    fn check(&self, at: At<'_>, reader: &mut Reader<'_>) {
        // If the strategy was refused, its settings can't be checked.
        if !at.says("name", self.strategy.name()) {
            return;
        }
        table::refuse_others::<Self>(at, reader, ("strategy", self.strategy.name()));
        if let Strategy::StickyRoundRobin(persist) = &self.strategy
            && let Err(error) = values::lasting(persist.key.clone())
        {
            reader.wrong(at, "key", error);
        }
        let Strategy::TwoTier(tiers) = &self.strategy else {
            return;
        };
        if !matches!(tiers.first, FirstTier::Hash { .. }) {
            for name in ["key", "subset"] {
                let error = values::not_its_setting(("first tier", tiers.first.name()), &["hash"]);
                reader.wrong(at, name, error);
            }
        } else if at.value.field("groups").is_some() {
            reader.wrong(at, "subset", NO_SUBSET);
        }
        if !matches!(tiers.then, SecondTier::LeastTime(_)) {
            let second = ("second tier", tiers.then.name());
            let error = values::not_its_setting(second, &["least_time"]);
            reader.wrong(at, "decay", error);
        }
        if let Some(list) = at.value.field("groups")
            && list.items().is_empty()
        {
            reader.mistake(&list.start(), "groups: expected at least one".to_owned());
        }
    }
}

/// A strategy with its settings.
pub(super) fn strategy() -> Codec<StrategyFile> {
    group_or_short("a name or a group such as (name: \"hash\", key: \"sni\")")
}
