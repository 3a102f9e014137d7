//! The shape of `config.ron`, before anything is judged.
//!
//! Serde checks what RON alone can: syntax, field names and nesting. Every leaf is a [`Scalar`], of
//! whatever type was written, so that a wrong leaf is reported beside all other wrong leaves.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// A leaf as it was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Scalar {
    /// The field is absent.
    #[default]
    Unset,
    /// A string.
    Text(String),
    /// A whole number, clamped to what `i64` holds.
    Number(i64),
    /// `true` or `false`.
    Truth(bool),
    /// Anything else; the source text shows what.
    Other,
}

impl Scalar {
    pub(super) fn is_set(&self) -> bool {
        *self != Self::Unset
    }
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(rename = "Config", default, deny_unknown_fields)]
pub(super) struct RawConfig {
    pub(super) workers: Scalar,
    pub(super) max_connections: Scalar,
    pub(super) shutdown_grace: Scalar,
    pub(super) access_log: Short<RawAccessLog>,
    pub(super) histogram_log: Scalar,
    pub(super) defaults: RawDefaults,
    pub(super) listeners: Vec<RawListener>,
    pub(super) pools: Vec<RawPool>,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(rename = "AccessLog", default, deny_unknown_fields)]
pub(super) struct RawAccessLog {
    pub(super) to: Scalar,
    pub(super) format: Scalar,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(rename = "Defaults", default, deny_unknown_fields)]
pub(super) struct RawDefaults {
    pub(super) attempts: Scalar,
    pub(super) timeouts: RawTimeouts,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(rename = "Listener", default, deny_unknown_fields)]
pub(super) struct RawListener {
    pub(super) name: Scalar,
    pub(super) bind: Scalar,
    pub(super) pool: Scalar,
    pub(super) max_connections: Scalar,
    pub(super) attempts: Scalar,
    pub(super) timeouts: RawTimeouts,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(rename = "Timeouts", default, deny_unknown_fields)]
pub(super) struct RawTimeouts {
    pub(super) connect: Scalar,
    pub(super) idle: Scalar,
    pub(super) half_closed: Scalar,
    pub(super) session: Scalar,
    pub(super) peek: Scalar,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(rename = "Pool", default, deny_unknown_fields)]
pub(super) struct RawPool {
    pub(super) name: Scalar,
    pub(super) strategy: Short<RawStrategy>,
    pub(super) persist: Short<RawPersist>,
    pub(super) queue: RawQueue,
    pub(super) backends: Vec<Short<RawBackend>>,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(rename = "Queue", default, deny_unknown_fields)]
pub(super) struct RawQueue {
    pub(super) max: Scalar,
    pub(super) timeout: Scalar,
}

/// The settings of all strategies together.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(rename = "Strategy", default, deny_unknown_fields)]
pub(super) struct RawStrategy {
    pub(super) name: Scalar,
    pub(super) key: Scalar,
    pub(super) max_load: Scalar,
    pub(super) decay: Scalar,
    pub(super) ttl: Scalar,
    pub(super) clients_max: Scalar,
    pub(super) first: Scalar,
    pub(super) subset: Scalar,
    pub(super) then: Scalar,
    pub(super) groups: Option<Vec<Short<RawGroup>>>,
    pub(super) horizon: Scalar,
    pub(super) season: Scalar,
}

impl RawStrategy {
    /// The settings that are there.
    pub(super) fn settings(&self) -> impl Iterator<Item = &'static str> {
        let Self {
            name: _,
            key,
            max_load,
            decay,
            ttl,
            clients_max,
            first,
            subset,
            then,
            groups,
            horizon,
            season,
        } = self;
        let groups = groups.as_ref().map(|_| "groups");
        let scalars = [
            ("key", key),
            ("max_load", max_load),
            ("decay", decay),
            ("ttl", ttl),
            ("clients_max", clients_max),
            ("first", first),
            ("subset", subset),
            ("then", then),
            ("horizon", horizon),
            ("season", season),
        ];
        let there = scalars.into_iter().filter(|(_, value)| value.is_set());
        there.map(|(name, _)| name).chain(groups)
    }
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(rename = "Group", default, deny_unknown_fields)]
pub(super) struct RawGroup {
    pub(super) name: Scalar,
    pub(super) weight: Scalar,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(rename = "Persist", default, deny_unknown_fields)]
pub(super) struct RawPersist {
    pub(super) key: Scalar,
    pub(super) ttl: Scalar,
    pub(super) clients_max: Scalar,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(rename = "Backend", default, deny_unknown_fields)]
pub(super) struct RawBackend {
    pub(super) address: Scalar,
    pub(super) name: Scalar,
    pub(super) weight: Scalar,
    pub(super) max_connections: Scalar,
    pub(super) backup: Scalar,
    pub(super) group: Scalar,
}

/// Fields in parentheses, or a bare value that stands for the most telling of them.
#[derive(Debug, Default)]
pub(super) struct Short<T>(pub(super) T);

impl From<Scalar> for Short<RawAccessLog> {
    fn from(to: Scalar) -> Self {
        Self(RawAccessLog {
            to,
            format: Scalar::Unset,
        })
    }
}

impl From<Scalar> for Short<RawStrategy> {
    fn from(name: Scalar) -> Self {
        Self(RawStrategy {
            name,
            ..RawStrategy::default()
        })
    }
}

impl From<Scalar> for Short<RawGroup> {
    fn from(name: Scalar) -> Self {
        Self(RawGroup {
            name,
            weight: Scalar::Unset,
        })
    }
}

impl From<Scalar> for Short<RawPersist> {
    fn from(key: Scalar) -> Self {
        Self(RawPersist {
            key,
            ..RawPersist::default()
        })
    }
}

impl From<Scalar> for Short<RawBackend> {
    fn from(address: Scalar) -> Self {
        Self(RawBackend {
            address,
            ..RawBackend::default()
        })
    }
}

/// What is made of `(field: value, ...)`.
trait FromFields: From<Scalar> {
    fn from_fields<'de, A: MapAccess<'de>>(map: A) -> Result<Self, A::Error>;
}

impl FromFields for Scalar {
    fn from_fields<'de, A: MapAccess<'de>>(mut map: A) -> Result<Self, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Self::Other)
    }
}

impl<T> FromFields for Short<T>
where
    Self: From<Scalar>,
    T: serde::de::DeserializeOwned,
{
    fn from_fields<'de, A: MapAccess<'de>>(map: A) -> Result<Self, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(Self)
    }
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Written(PhantomData))
    }
}

impl<'de, T> Deserialize<'de> for Short<T>
where
    Self: FromFields,
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Written(PhantomData))
    }
}

/// Takes a value of any type.
struct Written<T>(PhantomData<T>);

impl<'de, T: FromFields> Visitor<'de> for Written<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_str<E>(self, text: &str) -> Result<T, E> {
        Ok(Scalar::Text(text.to_owned()).into())
    }

    fn visit_i64<E>(self, number: i64) -> Result<T, E> {
        Ok(Scalar::Number(number).into())
    }

    fn visit_u64<E>(self, number: u64) -> Result<T, E> {
        Ok(Scalar::Number(i64::try_from(number).unwrap_or(i64::MAX)).into())
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<T, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        T::from_fields(map)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<T, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Scalar::Other.into())
    }

    fn visit_none<E>(self) -> Result<T, E> {
        Ok(Scalar::Other.into())
    }

    fn visit_unit<E>(self) -> Result<T, E> {
        Ok(Scalar::Other.into())
    }

    fn visit_bool<E>(self, truth: bool) -> Result<T, E> {
        Ok(Scalar::Truth(truth).into())
    }

    fn visit_char<E>(self, _: char) -> Result<T, E> {
        Ok(Scalar::Other.into())
    }

    fn visit_f64<E>(self, _: f64) -> Result<T, E> {
        Ok(Scalar::Other.into())
    }

    fn visit_bytes<E>(self, _: &[u8]) -> Result<T, E> {
        Ok(Scalar::Other.into())
    }
}
