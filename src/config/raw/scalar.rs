//! A value of whatever type was written, and groups that a bare value may stand for.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// A leaf as it was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::config) enum Scalar {
    /// The field is absent.
    #[default]
    Unset,
    /// A string.
    Text(String),
    /// A whole number, clamped to what `i64` holds.
    Number(i64),
    /// `true` or `false`.
    Truth(bool),
    /// A byte string.
    Bytes(Vec<u8>),
    /// Anything else; the source text shows what.
    Other,
}

impl Scalar {
    pub(in crate::config) fn is_set(&self) -> bool {
        *self != Self::Unset
    }
}

/// Fields in parentheses, or a bare value that stands for the most telling of them.
#[derive(Debug, Default)]
pub(in crate::config) struct Short<T>(pub(in crate::config) T);

/// Says which field a bare value is; no other is then set.
macro_rules! short {
    ($($group:ident { $bare:ident }),* $(,)?) => {
        $(impl From<Scalar> for Short<$group> {
            fn from($bare: Scalar) -> Self {
                Self($group { $bare, ..$group::default() })
            }
        })*
    };
}
pub(super) use short;

/// What is made of `(field: value, ...)`.
trait FromFields: From<Scalar> {
    /// Of `()`.
    fn from_none() -> Self;

    fn from_fields<'de, A: MapAccess<'de>>(map: A) -> Result<Self, A::Error>;
}

impl FromFields for Scalar {
    fn from_none() -> Self {
        Self::Other
    }

    fn from_fields<'de, A: MapAccess<'de>>(mut map: A) -> Result<Self, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Self::Other)
    }
}

impl<T> FromFields for Short<T>
where
    Self: From<Scalar>,
    T: Default + serde::de::DeserializeOwned,
{
    fn from_none() -> Self {
        Self(T::default())
    }

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
        Ok(T::from_none())
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

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<T, E> {
        Ok(Scalar::Bytes(bytes.to_vec()).into())
    }
}
