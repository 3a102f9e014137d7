//! One table for each group of settings: from it come its type, its defaults, reading, writing, the
//! names that an unknown one may have meant, the reference and the JSON schema.
//!
//! [`settings`] declares the type. A row is a field with its default and its [`Codec`]; a field
//! without a codec is computed. Where a setting is not a field of its own, `@name` gives the row
//! with a function to get the setting out of the group and another to put it in.

use serde_json::{Value as Json, json};

use super::codec::{Codec, Facts};
pub(super) use super::listener::Defaults;
use super::reader::{Around, At, Reader};
use super::text::{Fields, Text};

/// One setting of a group.
pub(super) struct Setting<G: 'static> {
    pub(super) name: &'static str,
    /// Reads it; a refused value leaves the group as it is.
    pub(super) read: for<'a> fn(At<'a>, &mut Reader<'a>, &mut G),
    /// Its text, where it differs from that of the second group.
    pub(super) write: fn(&G, &G, &Around) -> Option<Text>,
    /// Takes it from the second group.
    pub(super) copy: fn(&mut G, &G),
    /// Its text, unless it has no value in this group.
    pub(super) default: fn(&G, &Around) -> Option<String>,
    pub(super) is_required: fn() -> bool,
    pub(super) facts: fn() -> Facts,
}

/// A group of settings.
pub(super) trait Settings: Shape {
    /// In the order in which they are written.
    const TABLE: &'static [Setting<Self>];
    /// What each is, in lines.
    const ABOUT: &'static [(&'static str, &'static [&'static str])];

    /// Before anything is read. Required settings have values that nothing else has.
    fn base() -> Self;

    /// The names of the settings.
    fn names() -> Vec<&'static str> {
        Self::TABLE.iter().map(|setting| setting.name).collect()
    }
}

/// How a group may be written.
pub(super) trait Shape: Clone + PartialEq + Sized + 'static {
    /// The setting that a bare value in place of the group is.
    const SHORT: Option<&'static str> = None;
    /// What may stand in place of the group, where a bare value must be a string.
    const WANTED: Option<&'static str> = None;

    /// The group when only those settings are given that others follow from.
    fn implied(&self, default: &Self) -> Self {
        default.clone()
    }

    /// Refuses what does not go together with what is given.
    fn check(&self, _: At<'_>, _: &mut Reader<'_>) {}

    /// An item of a list before anything of it is read.
    fn within(base: Self, _: &Around) -> Self {
        base
    }
}

/// The settings that differ from what they are anyway.
pub(super) fn fields<T: Settings>(group: &T, default: &T, around: &Around) -> Fields {
    let implied = group.implied(default);
    let rows = T::TABLE.iter();
    let written = rows.map(|setting| (setting.name, (setting.write)(group, &implied, around)));
    written.fold(Fields::default(), |fields, (name, text)| {
        fields.some(name, text)
    })
}

/// The same, or the bare value that says it all.
pub(super) fn text<T: Settings>(group: &T, default: &T, around: &Around) -> Text {
    fields(group, default, around).or_bare(T::SHORT)
}

/// The JSON schema of a group.
pub(super) fn schema<T: Settings>() -> Json {
    let mut properties = serde_json::Map::new();
    let mut required = Vec::new();
    for setting in T::TABLE {
        let mut schema = (setting.facts)().schema;
        schema["description"] = setting.sentence().into();
        properties.insert(setting.name.to_owned(), schema);
        if (setting.is_required)() {
            required.push(setting.name);
        }
    }
    let group = json!({
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    });
    let short = T::TABLE.iter().find(|row| Some(row.name) == T::SHORT);
    match short {
        Some(row) => json!({ "anyOf": [(row.facts)().schema, group] }),
        None => group,
    }
}

impl<G: Settings> Setting<G> {
    /// What it is, in one line.
    pub(super) fn sentence(&self) -> String {
        let found = G::ABOUT.iter().find(|(name, _)| *name == self.name);
        let lines = found.map_or(&[][..], |(_, lines)| *lines);
        let lines: Vec<_> = lines.iter().map(|line| line.trim()).collect();
        lines.join(" ")
    }
}

/// Declares a group of settings, see [`self`].
macro_rules! settings {
    (
        $(#[$meta:meta])*
        $vis:vis struct $Group:ident {
            $(
                $(#[doc = $doc:literal])*
                $field_vis:vis $field:ident : $Type:ty = $default:expr $(=> $codec:expr)?;
                $(@ $row:ident $(#[doc = $row_doc:literal])*
                    => $row_codec:expr, $get:expr, $put:expr;)*
            )*
        }
    ) => {
        $(#[$meta])*
        $vis struct $Group {
            $($(#[doc = $doc])* $field_vis $field: $Type,)*
        }

        impl $crate::config::table::Settings for $Group {
            const TABLE: &'static [$crate::config::table::Setting<Self>] = &[
                $(
                    $($crate::config::table::setting!(
                        Self, stringify!($field), $codec,
                        |group: &Self| group.$field.clone(),
                        |group: &mut Self, value| group.$field = value
                    ),)?
                    $($crate::config::table::setting!(
                        Self, stringify!($row), $row_codec, $get, $put
                    ),)*
                )*
            ];

            const ABOUT: &'static [(&'static str, &'static [&'static str])] = &[
                $(
                    ($crate::config::table::plain(stringify!($field)), &[$($doc),*]),
                    $((stringify!($row), &[$($row_doc),*]),)*
                )*
            ];

            fn base() -> Self {
                Self { $($field: $default,)* }
            }
        }
    };
}

/// Groups that need nothing to be given.
macro_rules! defaults {
    ($($Group:ty),*) => {
        $(impl Default for $Group {
            fn default() -> Self {
                <Self as $crate::config::table::Settings>::base()
            }
        })*
    };
}

/// A row.
macro_rules! setting {
    ($Group:ty, $name:expr, $codec:expr, $get:expr, $put:expr) => {
        $crate::config::table::Setting::<$Group> {
            name: $crate::config::table::plain($name),
            read: |at, reader, group| {
                let codec = $crate::config::table::typed::<$Group, _>($codec, $get);
                let default = ($get)(group);
                if let Some(value) =
                    $crate::config::codec::Codec::read(&codec, at, reader, &default)
                {
                    ($put)(group, value);
                }
            },
            write: |group, default, around| {
                let codec = $crate::config::table::typed::<$Group, _>($codec, $get);
                let (value, default) = (($get)(group), ($get)(default));
                let differs = value != default;
                differs
                    .then(|| $crate::config::codec::Codec::write(&codec, &value, &default, around))
            },
            copy: |group, from| ($put)(group, ($get)(from)),
            default: |group, around| {
                let codec = $crate::config::table::typed::<$Group, _>($codec, $get);
                let value = ($get)(group);
                let text = $crate::config::codec::Codec::write(&codec, &value, &value, around);
                text.shown()
            },
            is_required: || {
                let codec = $crate::config::table::typed::<$Group, _>($codec, $get);
                $crate::config::codec::Codec::is_required(&codec)
            },
            facts: || {
                let codec = $crate::config::table::typed::<$Group, _>($codec, $get);
                $crate::config::codec::Codec::facts(&codec)
            },
        }
    };
}

/// A codec whose values are those that the function gets.
pub(super) fn typed<G, C: Codec>(codec: C, _: impl Fn(&G) -> C::Value) -> C {
    codec
}

/// The name without the mark of names that are words of Rust.
pub(super) const fn plain(name: &'static str) -> &'static str {
    match name.as_bytes() {
        [b'r', b'#', ..] => name.split_at(2).1,
        _ => name,
    }
}

pub(super) use {defaults, setting, settings};
