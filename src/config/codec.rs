//! How the values of settings are read, written and described.

use std::borrow::Borrow;
use std::sync::Arc;

use serde_json::{Value as Json, json};

use super::reader::{Around, At, Reader};
use super::syntax;
use super::table::{self, Settings};
use super::text::Text;
use super::tree::Kind;
use crate::shared::Shared;

mod leaf;

pub(super) use leaf::{
    Leaf, LeafError, bytes, duration, memory, name, named, number, parsed, path, ratio, spelled,
    status, truth,
};

/// Reads, writes and describes the value of a setting.
pub(super) struct Codec<T> {
    read: Box<Read<T>>,
    write: Box<Write<T>>,
    pub(super) facts: Facts,
}

/// Reads the value. Reports a mistake and returns `None` if it is invalid.
type Read<T> = dyn for<'a> Fn(At<'a>, &mut Reader<'a>, &T) -> Option<T> + Send + Sync;
/// Writes a value; the second value is the default.
type Write<T> = dyn Fn(&T, &T, &Around) -> Text + Send + Sync;

/// Facts about the values of a setting.
pub(super) struct Facts {
    /// The expected values, in words.
    pub(super) expected: String,
    pub(super) schema: Json,
    pub(super) is_required: bool,
    /// It is written even where it is the default: without it, its group says too little.
    pub(super) is_telling: bool,
    /// A change takes effect with the next start.
    pub(super) waits: bool,
    /// The settings of the group that it is.
    pub(super) rows: fn(&str) -> Vec<super::reference::SettingInfo>,
}

impl Facts {
    /// Whether values are groups of settings.
    pub(super) fn are_groups(&self) -> bool {
        !(self.rows)("").is_empty()
    }
}

impl<T: 'static> Codec<T> {
    pub(super) fn new(
        expected: impl Into<String>,
        schema: Json,
        read: impl for<'a> Fn(At<'a>, &mut Reader<'a>, &T) -> Option<T> + Send + Sync + 'static,
        write: impl Fn(&T, &T, &Around) -> Text + Send + Sync + 'static,
    ) -> Self {
        Self {
            read: Box::new(read),
            write: Box::new(write),
            facts: Facts {
                expected: expected.into(),
                schema,
                is_required: false,
                is_telling: false,
                waits: false,
                rows: |_| Vec::new(),
            },
        }
    }

    pub(super) fn read<'a>(&self, at: At<'a>, reader: &mut Reader<'a>, default: &T) -> Option<T> {
        (self.read)(at, reader, default)
    }

    pub(super) fn write(&self, value: &T, default: &T, around: &Around) -> Text {
        (self.write)(value, default, around)
    }

    /// This codec, whose value is shown with the settings of a group.
    pub(super) fn of<G: Settings>(mut self) -> Self {
        self.facts.rows = super::reference::rows::<G>;
        self
    }
}

impl<T: 'static> From<Leaf<T>> for Codec<T> {
    fn from(leaf: Leaf<T>) -> Self {
        let leaf = Arc::new(leaf);
        let writer = Arc::clone(&leaf);
        Self::new(
            leaf.expected.clone(),
            leaf.schema.clone(),
            move |at, reader, _| reader.take(at, leaf.read(at)),
            move |value, _, _| (writer.text)(value),
        )
    }
}

/// A setting that must be given.
pub(super) fn required<T>(codec: impl Into<Codec<T>>) -> Codec<T> {
    let mut codec = codec.into();
    codec.facts.is_required = true;
    codec
}

/// A setting that is written even where it is the default.
pub(super) fn telling<T>(codec: impl Into<Codec<T>>) -> Codec<T> {
    let mut codec = codec.into();
    codec.facts.is_telling = true;
    codec
}

/// A setting that takes effect with the next start.
pub(super) fn waits<T>(codec: impl Into<Codec<T>>) -> Codec<T> {
    let mut codec = codec.into();
    codec.facts.waits = true;
    codec
}

/// The text of a group. Where it is the default itself, what its settings say without one.
fn text_of<T: Settings>(group: &T, default: &T, around: &Around) -> Text {
    match group == default {
        true => table::text(group, &T::base(), around),
        false => table::text(group, default, around),
    }
}

/// A group of settings.
pub(super) fn group<T: Settings>() -> Codec<T> {
    Codec::new(
        match T::SHORT {
            Some(short) => format!("a group, or its `{short}` alone"),
            None => format!("a group such as {}", table::example::<T>()),
        },
        table::schema::<T>(),
        |at, reader, default| reader.group(at, default),
        text_of,
    )
    .of::<T>()
}

/// A group of settings that may be left out.
pub(super) fn group_if_given<T: Settings>() -> Codec<Option<T>> {
    let group = group::<T>();
    Codec::new(
        group.facts.expected,
        group.facts.schema,
        |at, reader, _| reader.group(at, &T::base()).map(Some),
        |value, _, around| match value {
            None => Text::Leaf("None".to_owned()),
            Some(value) => table::text(value, &T::base(), around),
        },
    )
    .of::<T>()
}

/// A group of settings, or `true` for its defaults, or `false` for none.
pub(super) fn truth_or_group<T: Settings + PartialEq>(expected: &'static str) -> Codec<Option<T>> {
    Codec::new(
        expected,
        json!({ "anyOf": [{ "type": "boolean" }, table::schema::<T>()] }),
        move |at, reader, _| {
            if let Kind::Bool(is_on) = at.value.kind {
                Some(is_on.then(T::base))
            } else if let Kind::Group(_) = at.value.kind {
                reader.group(at, &T::base()).map(Some)
            } else {
                reader.unexpected(at, expected)
            }
        },
        |value, _, around| match value {
            None => Text::Leaf("false".to_owned()),
            Some(value) if *value == T::base() => Text::Leaf("true".to_owned()),
            Some(value) => table::text(value, &T::base(), around),
        },
    )
    .of::<T>()
}

/// A group of settings, or a string that stands for it.
pub(super) fn group_or_short<T: Settings>(expected: &'static str) -> Codec<T> {
    Codec::new(
        expected,
        table::schema::<T>(),
        move |at, reader, default| {
            if at.is_group() || at.text().is_some() {
                reader.group(at, default)
            } else {
                reader.unexpected(at, expected)
            }
        },
        table::text,
    )
    .of::<T>()
}

/// A group of settings, or `"off"`.
pub(super) fn group_or_off<T: Settings>(expected: &'static str) -> Codec<Option<T>> {
    let group = group::<T>();
    let base = |default: &Option<T>| default.clone().unwrap_or_else(T::base);
    Codec::new(
        expected,
        json!({ "anyOf": [{ "const": "off" }, group.facts.schema] }),
        move |at, reader, default| {
            if T::is_off(at, reader) {
                return Some(None);
            }
            if !(at.is_group() || T::SHORT.is_some() && at.text().is_some()) {
                return reader.unexpected(at, expected);
            }
            reader.group(at, &base(default)).map(Some)
        },
        move |value, default, around| match value {
            None => Text::quoted("off"),
            Some(value) => text_of(value, &base(default), around),
        },
    )
    .of::<T>()
}

/// A group of settings that limit nothing by default, or `"off"` for that.
pub(super) fn group_or_none<T: Settings>() -> Codec<T> {
    let expected = format!("\"off\" or a group such as {}", table::example::<T>());
    let words = expected.clone();
    Codec::new(
        expected,
        json!({ "anyOf": [{ "const": "off" }, table::schema::<T>()] }),
        move |at, reader, default| match at.text() {
            Some("off") => Some(T::base()),
            None if at.is_group() => reader.group(at, default),
            _ => reader.unexpected(at, &words),
        },
        |value, default, around| match *value == T::base() {
            true => Text::quoted("off"),
            false => text_of(value, default, around),
        },
    )
    .of::<T>()
}

/// A list of leaves.
pub(super) fn list<T: 'static>(item: Leaf<T>) -> Codec<Vec<T>> {
    list_of(Arc::new(item))
}

fn list_of<T: 'static>(item: Arc<Leaf<T>>) -> Codec<Vec<T>> {
    let writer = Arc::clone(&item);
    Codec::new(
        format!("a list: {}", item.expected),
        json!({ "type": "array", "items": item.schema }),
        move |at, reader, _| {
            items(at, reader, true, |at, reader| {
                reader.take(at, item.read(at))
            })
        },
        move |value: &Vec<T>, _, _| Text::List(value.iter().map(&writer.text).collect()),
    )
}

/// A list of leaves, or a word such as `client` in its place.
pub(super) fn list_or<T: 'static>(item: Leaf<T>, word: &'static str) -> Codec<Option<Vec<T>>> {
    let item = Arc::new(item);
    let list = Arc::new(list_of(Arc::clone(&item)));
    let writer = Arc::clone(&list);
    let expected = format!("\"{word}\", or {}", list.facts.expected);
    let words = expected.clone();
    Codec::new(
        expected,
        json!({ "anyOf": [{ "const": word }, list.facts.schema] }),
        move |at, reader, _| match at.text() {
            Some(text) if text == word => Some(None),
            // An item that stands alone is told how a list is written.
            Some(text) if item.read(at).is_err() && !text.contains(',') => {
                reader.unexpected(at, &words)
            }
            _ => list.read(at, reader, &Vec::new()).map(Some),
        },
        move |value, _, around| match value {
            None => Text::quoted(word),
            Some(items) => writer.write(items, &Vec::new(), around),
        },
    )
}

/// A list of groups.
pub(super) fn groups<T: Settings>() -> Codec<Vec<T>> {
    groups_as::<T, T>()
}

/// A list of groups that copies of the configuration share.
pub(super) fn shared_groups<T: Settings + Eq>() -> Codec<Vec<Shared<T>>> {
    groups_as::<T, Shared<T>>()
}

/// A list of groups of type `T`, kept as `I`.
fn groups_as<T: Settings, I: From<T> + Borrow<T> + 'static>() -> Codec<Vec<I>> {
    Codec::new(
        match T::SHORT {
            Some(short) => format!("a list of groups, or of their `{short}` alone"),
            None => "a list of groups".to_owned(),
        },
        json!({ "type": "array", "items": table::schema::<T>() }),
        |at, reader, _| {
            let base = T::within(T::base(), &reader.around);
            items(at, reader, T::SHORT.is_some(), |at, reader| {
                // A refused item keeps its place.
                let group = reader.group(at, &base).unwrap_or_else(|| base.clone());
                Some(group.into())
            })
        },
        |groups: &Vec<I>, _, around| {
            let base = T::within(T::base(), around);
            let groups = groups.iter().map(Borrow::borrow);
            Text::List(
                groups
                    .map(|group| table::text(group, &base, around))
                    .collect(),
            )
        },
    )
    .of::<T>()
}

/// The valid items of a list. `may_be_text`: a string may be an item.
fn items<'a, T>(
    at: At<'a>,
    reader: &mut Reader<'a>,
    may_be_text: bool,
    mut read: impl FnMut(At<'a>, &mut Reader<'a>) -> Option<T>,
) -> Option<Vec<T>> {
    let Kind::List(items) = &at.value.kind else {
        let meant = at.text().filter(|_| may_be_text).map(|text| {
            let items = text.split(',').map(|item| format!("{:?}", item.trim()));
            format!(": write [{}]", items.collect::<Vec<_>>().join(", "))
        });
        let sentence = syntax::LIST.to_owned() + &meant.unwrap_or_default();
        reader.misshapen(&at.value.span, sentence);
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
