//! The strategy of a pool.

use std::num::NonZeroU16;
use std::time::Duration;

use super::pool::Member;
use crate::config::judge::{Judge, duration, duration_or_off, number, ratio_or_off, text, text_or};
use crate::config::raw::RawStrategy;
use crate::config::spans::Node;
use crate::config::values;
use crate::config::{FirstTier, Hash, Key, LeastTime, Persist, Predictive, SecondTier, Strategy};

/// What strategies are told; none where nothing is, or nothing right.
pub(super) struct Told {
    pub(super) key: Option<Key>,
    pub(super) max_load: Option<Option<u16>>,
    pub(super) decay: Option<Duration>,
    pub(super) first: Option<FirstTier>,
    pub(super) subset: Option<NonZeroU16>,
    pub(super) then: Option<SecondTier>,
    pub(super) horizon: Option<Duration>,
    pub(super) season: Option<Option<Duration>>,
}

impl<'a> Judge<'a> {
    /// The strategy, and the persistence that is part of it. Without members it is judged alone.
    pub(in crate::config) fn strategy(
        &mut self,
        raw: &'a RawStrategy,
        at: &'a Node,
        members: Option<&[Member<'a>]>,
    ) -> (Strategy, Option<Persist>) {
        let name = self.leaf(&raw.name, at, "name");
        let name = self.require(&name, |leaf| {
            values::strategy(text_or(leaf, STRATEGY_WANTED)?)
        });
        let persists = name == Some(Strategy::StickyRoundRobin);
        let told = self.told(raw, at, persists);
        let persist = self.remembering(&raw.ttl, &raw.clients_max, at);
        let Some(strategy) = name else {
            return (Strategy::default(), None);
        };
        for setting in raw.settings() {
            if let Err(error) = values::setting_of(&strategy, setting) {
                self.mistake(&at.field(setting).span, format!("{setting}: {error}"));
            }
        }
        let persist = persists.then(|| Persist {
            key: told.key.clone().unwrap_or_default(),
            ..persist
        });
        let strategy = match strategy {
            Strategy::Hash(default) => Strategy::Hash(Hash {
                key: told.key.unwrap_or(default.key),
                max_load: told.max_load.unwrap_or(default.max_load),
            }),
            Strategy::LeastTime(default) => Strategy::LeastTime(LeastTime {
                decay: told.decay.unwrap_or(default.decay),
            }),
            Strategy::TwoTier(_) => Strategy::TwoTier(self.tiers((raw, at), told, members)),
            Strategy::Predictive(default) => Strategy::Predictive(Predictive {
                horizon: told.horizon.unwrap_or(default.horizon),
                season: told.season.unwrap_or(default.season),
            }),
            plain @ (Strategy::RoundRobin
            | Strategy::StickyRoundRobin
            | Strategy::LeastConnections
            | Strategy::Random
            | Strategy::PowerOfTwo
            | Strategy::First) => plain,
        };
        (strategy, persist)
    }

    fn told(&mut self, raw: &'a RawStrategy, at: &'a Node, persists: bool) -> Told {
        let key = self.leaf(&raw.key, at, "key");
        let load = self.leaf(&raw.max_load, at, "max_load");
        let decay = self.leaf(&raw.decay, at, "decay");
        let first = self.leaf(&raw.first, at, "first");
        let subset = self.leaf(&raw.subset, at, "subset");
        let then = self.leaf(&raw.then, at, "then");
        let horizon = self.leaf(&raw.horizon, at, "horizon");
        let season = self.leaf(&raw.season, at, "season");
        let subset = self.read(&subset, number(values::SUBSET));
        Told {
            key: self.read(&key, |leaf| match text(leaf)? {
                key if persists => values::persist_key(key),
                key => key.parse(),
            }),
            max_load: self.read(&load, ratio_or_off(&values::MAX_LOAD)),
            decay: self.read(&decay, duration(values::DECAY)),
            first: self.read(&first, |leaf| values::first_tier(text(leaf)?)),
            subset: subset
                .and_then(|subset| u16::try_from(subset).ok())
                .and_then(NonZeroU16::new),
            then: self.read(&then, |leaf| values::second_tier(text(leaf)?)),
            horizon: self.read(&horizon, duration(values::HORIZON)),
            season: self.read(&season, duration_or_off(values::SEASON)),
        }
    }
}

const STRATEGY_WANTED: &str = "a strategy: write \"NAME\" or (name: \"NAME\", ...) with settings";
