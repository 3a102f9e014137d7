//! How the values of settings are read, written and described.

use std::borrow::Borrow;
use std::marker::PhantomData;

use serde_json::{Value as Json, json};

use super::reader::{Around, At, Reader};
use super::syntax;
use super::table::{self, Settings};
use super::text::Text;
use super::tree::Kind;
use crate::shared::Shared;

mod leaf;

pub(super) use leaf::{
    Leaf, bytes, duration, memory, name, named, number, path, ratio, spelled, status, text, truth,
};

/// Reads and writes the value of a setting.
pub(super) trait Codec {
    type Value: Clone + PartialEq;

    /// The value, or none and a mistake.
    fn read<'a>(
        &self,
        at: At<'a>,
        reader: &mut Reader<'a>,
        default: &Self::Value,
    ) -> Option<Self::Value>;

    fn write(&self, value: &Self::Value, default: &Self::Value, around: &Around) -> Text;

    fn facts(&self) -> Facts;

    /// Whether the setting must be given.
    fn is_required(&self) -> bool {
        false
    }
}

/// What there is to know about the values of a setting.
pub(super) struct Facts {
    /// What may be written, in words.
    pub(super) expected: String,
    pub(super) schema: Json,
    /// A change takes effect with the next start.
    pub(super) waits: bool,
    /// The settings of the group that it is.
    pub(super) rows: fn(&str) -> Vec<super::reference::Row>,
}

impl Facts {
    pub(super) fn leaf(expected: String, schema: Json) -> Self {
        Self {
            expected,
            schema,
            waits: false,
            rows: |_| Vec::new(),
        }
    }
}

impl<L: Leaf> Codec for L {
    type Value = L::Value;

    fn read<'a>(&self, at: At<'a>, reader: &mut Reader<'a>, _: &L::Value) -> Option<L::Value> {
        reader.take(at, self.parse(at))
    }

    fn write(&self, value: &L::Value, _: &L::Value, _: &Around) -> Text {
        self.text(value)
    }

    fn facts(&self) -> Facts {
        Facts::leaf(self.expected(), self.schema())
    }
}

/// A setting that must be given.
pub(super) fn required<C: Codec>(codec: C) -> Noted<C> {
    Noted {
        codec,
        is_required: true,
        waits: false,
    }
}

/// A setting that takes effect with the next start.
pub(super) fn waits<C: Codec>(codec: C) -> Noted<C> {
    Noted {
        codec,
        is_required: false,
        waits: true,
    }
}

/// A setting of which there is more to know.
pub(super) struct Noted<C> {
    codec: C,
    is_required: bool,
    waits: bool,
}

impl<C: Codec> Codec for Noted<C> {
    type Value = C::Value;

    fn read<'a>(
        &self,
        at: At<'a>,
        reader: &mut Reader<'a>,
        default: &C::Value,
    ) -> Option<C::Value> {
        self.codec.read(at, reader, default)
    }

    fn write(&self, value: &C::Value, default: &C::Value, around: &Around) -> Text {
        self.codec.write(value, default, around)
    }

    fn facts(&self) -> Facts {
        Facts {
            waits: self.waits,
            ..self.codec.facts()
        }
    }

    fn is_required(&self) -> bool {
        self.is_required
    }
}

/// A setting that is kept as something else than the group that a file has.
pub(super) struct Via<F, T> {
    pub(super) expected: &'static str,
    pub(super) from: fn(F, At<'_>) -> Option<T>,
    pub(super) to: fn(&T) -> F,
}

impl<F: Settings, T: Clone + PartialEq> Codec for Via<F, T> {
    type Value = T;

    fn read<'a>(&self, at: At<'a>, reader: &mut Reader<'a>, _: &T) -> Option<T> {
        (self.from)(reader.group(at, &F::base())?, at)
    }

    fn write(&self, value: &T, _: &T, around: &Around) -> Text {
        table::text(&(self.to)(value), &F::base(), around)
    }

    fn facts(&self) -> Facts {
        Facts {
            expected: self.expected.to_owned(),
            ..group::<F>().facts()
        }
    }
}

/// A group of settings.
pub(super) fn group<T: Settings>() -> Group<T> {
    Group(PhantomData)
}

pub(super) struct Group<T>(PhantomData<T>);

impl<T: Settings> Codec for Group<T> {
    type Value = T;

    fn read<'a>(&self, at: At<'a>, reader: &mut Reader<'a>, default: &T) -> Option<T> {
        reader.group(at, default)
    }

    fn write(&self, value: &T, default: &T, around: &Around) -> Text {
        table::text(value, default, around)
    }

    fn facts(&self) -> Facts {
        Facts {
            expected: "a group".to_owned(),
            schema: table::schema::<T>(),
            waits: false,
            rows: super::reference::rows::<T>,
        }
    }
}

/// A group of settings, or `"off"`. The example is a group for messages.
pub(super) fn group_or_off<T: Settings>(example: &'static str) -> GroupOrOff<Group<T>> {
    or_off(example, group())
}

/// The same of a codec that reads groups.
pub(super) fn or_off<C: Codec>(example: &'static str, group: C) -> GroupOrOff<C> {
    GroupOrOff { example, group }
}

pub(super) struct GroupOrOff<C> {
    example: &'static str,
    group: C,
}

impl<C: Codec<Value: Based>> Codec for GroupOrOff<C> {
    type Value = Option<C::Value>;

    fn read<'a>(
        &self,
        at: At<'a>,
        reader: &mut Reader<'a>,
        default: &Self::Value,
    ) -> Option<Self::Value> {
        match (&at.value.kind, at.text()) {
            (Kind::Group(_), _) => {
                let default = default.clone().unwrap_or_else(C::Value::based);
                self.group.read(at, reader, &default).map(Some)
            }
            (_, Some("off")) => Some(None),
            _ => {
                let wanted = format!("\"off\" or a group such as {}", self.example);
                reader.take(at, Err(at.not(&wanted)))
            }
        }
    }

    fn write(&self, value: &Self::Value, default: &Self::Value, around: &Around) -> Text {
        let Some(value) = value else {
            return Text::quoted("off");
        };
        let default = default.clone().unwrap_or_else(C::Value::based);
        self.group.write(value, &default, around)
    }

    fn facts(&self) -> Facts {
        let facts = self.group.facts();
        Facts {
            expected: format!("\"off\" or a group such as {}", self.example),
            schema: json!({ "anyOf": [{ "const": "off" }, facts.schema] }),
            ..facts
        }
    }
}

/// What a group is before anything of it is read.
pub(super) trait Based {
    fn based() -> Self;
}

impl<T: Settings> Based for T {
    fn based() -> Self {
        T::base()
    }
}

/// A list of leaves.
pub(super) fn list<L: Leaf>(item: L) -> List<L> {
    List(item)
}

pub(super) struct List<L>(L);

impl<L: Leaf> Codec for List<L> {
    type Value = Vec<L::Value>;

    fn read<'a>(
        &self,
        at: At<'a>,
        reader: &mut Reader<'a>,
        _: &Self::Value,
    ) -> Option<Self::Value> {
        items(at, reader, |at, reader| reader.take(at, self.0.parse(at)))
    }

    fn write(&self, value: &Self::Value, _: &Self::Value, _: &Around) -> Text {
        Text::list(value.iter().map(|item| self.0.text(item)))
    }

    fn facts(&self) -> Facts {
        let expected = format!("a list: {}", self.0.expected());
        Facts::leaf(
            expected,
            json!({ "type": "array", "items": self.0.schema() }),
        )
    }
}

/// A list of groups.
pub(super) fn groups<T: Settings>() -> Groups<T, T> {
    Groups(PhantomData)
}

/// The same, of groups that copies of the configuration share.
pub(super) fn shared_groups<T: Settings + Eq>() -> Groups<T, Shared<T>> {
    Groups(PhantomData)
}

/// Groups of type `T`, kept as `I`.
pub(super) struct Groups<T, I>(PhantomData<(T, I)>);

impl<T: Settings, I: Clone + PartialEq + From<T> + Borrow<T>> Codec for Groups<T, I> {
    type Value = Vec<I>;

    fn read<'a>(&self, at: At<'a>, reader: &mut Reader<'a>, _: &Vec<I>) -> Option<Vec<I>> {
        let base = T::within(T::base(), &reader.around);
        items(at, reader, |at, reader| {
            // One that is refused keeps its place.
            let group = reader.group(at, &base).unwrap_or_else(|| base.clone());
            Some(group.into())
        })
    }

    fn write(&self, value: &Vec<I>, _: &Vec<I>, around: &Around) -> Text {
        let base = T::within(T::base(), around);
        let groups = value.iter().map(Borrow::borrow);
        Text::list(groups.map(|group| table::text(group, &base, around)))
    }

    fn facts(&self) -> Facts {
        Facts {
            expected: "a list of groups".to_owned(),
            schema: json!({ "type": "array", "items": table::schema::<T>() }),
            waits: false,
            rows: super::reference::rows::<T>,
        }
    }
}

/// The items of a list that are right.
fn items<'a, T>(
    at: At<'a>,
    reader: &mut Reader<'a>,
    mut read: impl FnMut(At<'a>, &mut Reader<'a>) -> Option<T>,
) -> Option<Vec<T>> {
    let Kind::List(items) = &at.value.kind else {
        reader.misshapen(&at.value.span, syntax::LIST.to_owned());
        return None;
    };
    let mut list = Vec::with_capacity(items.len());
    for item in items {
        let at = At {
            is_item: true,
            ..reader.at(item, at.name)
        };
        list.extend(read(at, reader));
    }
    Some(list)
}
