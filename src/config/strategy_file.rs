//! Strategies as a file has them: the settings of all together.

use std::num::NonZeroU16;
use std::time::Duration;

use serde_json::json;

use super::codec::{
    Codec, Facts, Leaf, Via, duration, group, groups, number, ratio, required, spelled,
};
use super::reader::{Around, At, Reader};
use super::strategy::SUBSET;
use super::table::{self, Settings, Shape, settings};
use super::text::Text;
use super::tree::Kind;
use super::values;
use super::{
    FirstTier, Group, Hash, Key, LeastTime, Persist, Predictive, SecondTier, Strategy, TwoTier,
};

settings! {
    /// A strategy with every setting that one of them has.
    #[derive(Clone, PartialEq)]
    struct StrategyFile {
        /// Which strategy.
        name: Option<Strategy> = None => required(spelled(
            "the name of a strategy",
            values::strategy,
            |strategy| strategy.name().to_owned(),
        ).given());
        /// hash, two_tier, sticky_round_robin: what of a client is hashed or remembered.
        key: Option<Key> = None
            => spelled("a key such as \"source_ip\"", |text| text.parse(), Key::to_string).given();
        /// hash: no backend takes more than this share of the pool's average load.
        max_load: Option<Option<u16>> = None => ratio(&values::MAX_LOAD).or("off").given();
        /// least_time, two_tier: how soon a slow answer is forgotten.
        decay: Option<Duration> = None => duration(values::DECAY).given();
        /// sticky_round_robin: how long a client is remembered after its last connection.
        ttl: Option<Duration> = None => duration(values::TTL).given();
        /// sticky_round_robin: how many clients are remembered.
        clients_max: Option<u32> = None => number(values::CLIENTS).given();
        /// two_tier: what picks the group or the subset.
        first: Option<FirstTier> = None => spelled(
            "\"hash\", \"weight\" or \"priority\"",
            |name| values::named("first tier", name, &FirstTier::all()),
            |tier| tier.name().to_owned(),
        ).given();
        /// two_tier: backends of a subset, while no groups are named.
        subset: Option<u16> = None => number(values::SUBSET).given();
        /// two_tier: what picks within the group or the subset.
        then: Option<SecondTier> = None => spelled(
            "\"least_connections\", \"least_time\" or \"power_of_two\"",
            |name| values::named("second tier", name, &SecondTier::all()),
            |tier| tier.name().to_owned(),
        ).given();
        /// two_tier: the groups that backends name, in order of priority.
        groups: Vec<Group> = Vec::new() => groups();
        /// predictive: how far ahead it looks.
        horizon: Option<Duration> = None => duration(values::HORIZON).given();
        /// predictive: the period that load repeats with.
        season: Option<Option<Duration>> = None => duration(values::SEASON).or("off").given();
    }
}

impl Shape for StrategyFile {
    const SHORT: Option<&'static str> = Some("name");
    const WANTED: Option<&'static str> =
        Some("a strategy: write \"NAME\" or (name: \"NAME\", ...) with settings");

    fn check(&self, at: At<'_>, reader: &mut Reader<'_>) {
        let Some(strategy) = &self.name else { return };
        let mut given = at
            .value
            .fields()
            .iter()
            .filter(|field| field.name != "name");
        for field in given
            .by_ref()
            .filter(|one| Self::names().contains(&&*one.name))
        {
            if let Err(error) = values::setting_of(strategy, &field.name) {
                reader.mistake(&field.value.span, format!("{}: {error}", field.name));
            }
        }
        let mut wrong = |name: &str, sentence: String| {
            if let Some(field) = at.value.field(name) {
                reader.mistake(&field.span, format!("{name}: {sentence}"));
            }
        };
        if *strategy == Strategy::StickyRoundRobin
            && let Some(Err(error)) = self.key.clone().map(values::lasting)
        {
            wrong("key", error.to_string());
        }
        let Strategy::TwoTier(_) = strategy else {
            return;
        };
        let first = self.first.clone().unwrap_or_default();
        if !matches!(first, FirstTier::Hash { .. }) {
            for name in ["key", "subset"] {
                let error = values::not_its_setting(("first tier", first.name()), &["hash"]);
                wrong(name, error.to_string());
            }
        } else if at.value.field("groups").is_some() {
            let sentence = "the key picks one of the groups: leave `subset` out";
            wrong("subset", sentence.to_owned());
        }
        let then = self.then.unwrap_or_default();
        if !matches!(then, SecondTier::LeastTime(_)) {
            let error = values::not_its_setting(("second tier", then.name()), &["least_time"]);
            wrong("decay", error.to_string());
        }
        if let Some(list) = at.value.field("groups")
            && list.items().is_empty()
        {
            reader.mistake(&list.start(), "groups: expected at least one".to_owned());
        }
    }
}

impl StrategyFile {
    /// The strategy, and the persistence that is part of it.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the other strategies have no settings"
    )]
    fn strategy(mut self) -> (Strategy, Option<Persist>) {
        let strategy = match self.name.take().unwrap_or_default() {
            Strategy::Hash(default) => Strategy::Hash(Hash {
                key: self.key.unwrap_or(default.key),
                max_load: self.max_load.unwrap_or(default.max_load),
            }),
            Strategy::LeastTime(default) => Strategy::LeastTime(LeastTime {
                decay: self.decay.unwrap_or(default.decay),
            }),
            Strategy::TwoTier(_) => Strategy::TwoTier(self.two_tier()),
            Strategy::Predictive(default) => Strategy::Predictive(Predictive {
                horizon: self.horizon.unwrap_or(default.horizon),
                season: self.season.unwrap_or(default.season),
            }),
            Strategy::StickyRoundRobin => {
                let default = Persist::default();
                let persist = Persist {
                    key: self.key.unwrap_or(default.key),
                    ttl: self.ttl.unwrap_or(default.ttl),
                    clients_max: self.clients_max.unwrap_or(default.clients_max),
                };
                return (Strategy::StickyRoundRobin, Some(persist));
            }
            plain => plain,
        };
        (strategy, None)
    }

    fn two_tier(self) -> TwoTier {
        let first = match self.first.unwrap_or_default() {
            FirstTier::Hash { key, subset } => FirstTier::Hash {
                key: self.key.unwrap_or(key),
                subset: self.subset.and_then(NonZeroU16::new).unwrap_or(subset),
            },
            first @ (FirstTier::Weight | FirstTier::Priority) => first,
        };
        let then = match self.then.unwrap_or_default() {
            SecondTier::LeastTime(default) => SecondTier::LeastTime(LeastTime {
                decay: self.decay.unwrap_or(default.decay),
            }),
            then @ (SecondTier::LeastConnections | SecondTier::PowerOfTwo) => then,
        };
        TwoTier {
            first,
            then,
            groups: self.groups,
        }
    }

    /// What a file says of a strategy: what differs from what it has anyway.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the other strategies have no settings"
    )]
    fn of((strategy, persist): &(Strategy, Option<Persist>)) -> Self {
        let base = Self {
            name: Some(strategy.clone()),
            ..Self::base()
        };
        let key = |key: &Key| differing(key, &Key::default());
        let decay = |time: &LeastTime| differing(&time.decay, &LeastTime::default().decay);
        match strategy {
            Strategy::Hash(hash) => Self {
                key: key(&hash.key),
                max_load: hash.max_load.map(Some),
                ..base
            },
            Strategy::LeastTime(settings) => Self {
                decay: decay(settings),
                ..base
            },
            Strategy::TwoTier(tiers) => {
                let (first, key, subset) = match &tiers.first {
                    FirstTier::Hash { key: by, subset } => {
                        (None, key(by), differing(subset, &SUBSET))
                    }
                    first @ (FirstTier::Weight | FirstTier::Priority) => {
                        (Some(first.clone()), None, None)
                    }
                };
                let decay = match &tiers.then {
                    SecondTier::LeastTime(settings) => decay(settings),
                    SecondTier::LeastConnections | SecondTier::PowerOfTwo => None,
                };
                Self {
                    first,
                    key,
                    subset: subset.map(NonZeroU16::get),
                    then: differing(&tiers.then, &SecondTier::default()),
                    decay,
                    groups: tiers.groups.clone(),
                    ..base
                }
            }
            Strategy::Predictive(its) => {
                let default = Predictive::default();
                Self {
                    horizon: differing(&its.horizon, &default.horizon),
                    season: differing(&its.season, &default.season),
                    ..base
                }
            }
            Strategy::StickyRoundRobin => {
                let default = Persist::default();
                let its = persist.as_ref().unwrap_or(&default);
                Self {
                    key: key(&its.key),
                    ttl: differing(&its.ttl, &default.ttl),
                    clients_max: differing(&its.clients_max, &default.clients_max),
                    ..base
                }
            }
            _ => base,
        }
    }
}

fn differing<T: Clone + PartialEq>(value: &T, default: &T) -> Option<T> {
    (value != default).then(|| value.clone())
}

/// A strategy, and the persistence that is part of it.
pub(super) fn strategy() -> impl Codec<Value = (Strategy, Option<Persist>)> {
    Via {
        expected: "a name or a group such as (name: \"hash\", key: \"sni\")",
        from: |file: StrategyFile, _| Some(file.strategy()),
        to: StrategyFile::of,
    }
}

/// Persistence, or none.
pub(super) struct PersistCodec;

impl Codec for PersistCodec {
    type Value = Option<Persist>;

    fn read<'a>(
        &self,
        at: At<'a>,
        reader: &mut Reader<'a>,
        _: &Self::Value,
    ) -> Option<Self::Value> {
        let key = at.value.field("key").unwrap_or(at.value);
        if key.kind == Kind::Text("off".to_owned()) {
            return Some(None);
        }
        group().read(at, reader, &Persist::base()).map(Some)
    }

    fn write(&self, value: &Self::Value, _: &Self::Value, around: &Around) -> Text {
        let Some(persist) = value else {
            return Text::quoted("off");
        };
        let fields = table::fields(persist, &Persist::base(), around);
        if fields.is_empty() {
            return Text::quoted(&persist.key.to_string());
        }
        fields.or_bare(Persist::SHORT)
    }

    fn facts(&self) -> Facts {
        let facts = group::<Persist>().facts();
        Facts {
            expected: "\"off\", a key or a group such as (key: \"sni\", ttl: \"1h\")".to_owned(),
            schema: json!({ "anyOf": [{ "const": "off" }, facts.schema] }),
            ..facts
        }
    }
}
