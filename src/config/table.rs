//! One table for each group of settings: from it come its type, its defaults, reading, writing, the
//! names that an unknown one may have meant, the reference and the JSON schema.
//!
//! [`settings`] declares the type. A row is a field with its default and its [`Codec`]; a field
//! without a codec is computed. Where a setting is not a field of its own, `@name` gives the row
//! with its place in brackets, a path or an `if let` for what is there only sometimes, or with a
//! function to get the setting out of the group and another to put it in. `of` names the kinds of
//! the group that have it, where others do not. `: Shape` behind the name of a group says that an
//! implementation of [`Shape`] follows.

use std::sync::Arc;

use serde_json::{Value as Json, json};

use super::codec::{Codec, Facts};
use super::flags;
pub(super) use super::listener::Defaults;
use super::reader::{Around, At, Reader};
use super::source::Source;
use super::text::{Fields, Text};
use super::values::{self, ValueError};

/// One setting of a group.
pub(super) struct Setting<G> {
    pub(super) name: &'static str,
    /// Its description, in lines.
    pub(super) about: &'static [&'static str],
    /// The kinds of the group that have it; all where none is named.
    pub(super) owners: &'static [&'static str],
    pub(super) row: Arc<dyn Row<G>>,
}

/// The operations on a setting of any type.
pub(super) trait Row<G>: Send + Sync {
    /// Reads it; a refused value leaves the group as it is.
    fn read<'a>(&self, at: At<'a>, reader: &mut Reader<'a>, group: &mut G);
    /// Its text, where it must be given, is telling, or differs from that of the second group.
    fn write(&self, group: &G, default: &G, around: &Around) -> Option<Text>;
    /// The text of its value, written as in a file.
    fn text(&self, group: &G, around: &Around) -> Text;
    /// Sets it to its value in the second group.
    fn copy(&self, group: &mut G, from: &G);
    /// Whether both groups have the same value of it.
    fn is_same(&self, one: &G, other: &G) -> bool;
    fn facts(&self) -> &Facts;
}

/// A setting of this type: its codec, and how to get it out of the group and put it in.
struct Typed<G, T> {
    codec: Codec<T>,
    get: fn(&G) -> T,
    put: fn(&mut G, T),
}

impl<G, T: PartialEq + 'static> Row<G> for Typed<G, T> {
    fn read<'a>(&self, at: At<'a>, reader: &mut Reader<'a>, group: &mut G) {
        if let Some(value) = self.codec.read(at, reader, &(self.get)(group)) {
            (self.put)(group, value);
        }
    }

    fn write(&self, group: &G, default: &G, around: &Around) -> Option<Text> {
        let (value, default) = ((self.get)(group), (self.get)(default));
        let facts = &self.codec.facts;
        let is_written = facts.is_required || facts.is_telling || value != default;
        is_written.then(|| self.codec.write(&value, &default, around))
    }

    fn text(&self, group: &G, around: &Around) -> Text {
        let value = (self.get)(group);
        self.codec.write(&value, &value, around)
    }

    fn copy(&self, group: &mut G, from: &G) {
        (self.put)(group, (self.get)(from));
    }

    fn is_same(&self, one: &G, other: &G) -> bool {
        (self.get)(one) == (self.get)(other)
    }

    fn facts(&self) -> &Facts {
        &self.codec.facts
    }
}

/// A setting of a group, by its name.
pub(super) fn setting<G: Settings>(name: &str) -> Setting<G> {
    let found = G::table().iter().find(|setting| setting.name == name);
    let found = found.expect("the table has this setting");
    Setting {
        row: Arc::clone(&found.row),
        ..*found
    }
}

/// The settings of a group in the order in which they are read and written.
pub(super) struct TableBuilder<G> {
    pub(super) settings: Vec<Setting<G>>,
    /// What the field of the next rows is.
    pub(super) about: &'static [&'static str],
}

impl<G: 'static> TableBuilder<G> {
    pub(super) fn new(about: &'static [&'static str]) -> Self {
        let settings = Vec::new();
        Self { settings, about }
    }

    pub(super) fn add<T: PartialEq + 'static>(
        &mut self,
        (name, about): (&'static str, &'static [&'static str]),
        codec: impl Into<Codec<T>>,
        get: fn(&G) -> T,
        put: fn(&mut G, T),
    ) {
        let codec = codec.into();
        self.settings.push(Setting {
            // Without the mark of names that are words of Rust.
            name: name.trim_start_matches("r#"),
            about: if about.is_empty() { self.about } else { about },
            owners: &[],
            row: Arc::new(Typed { codec, get, put }),
        });
    }

    /// Only these kinds of the group have the setting that was added last.
    pub(super) fn of(&mut self, owners: &'static [&'static str]) {
        if let Some(setting) = self.settings.last_mut() {
            setting.owners = owners;
        }
    }
}

/// A group of settings.
pub(super) trait Settings: Shape {
    /// Its table.
    fn table() -> &'static [Setting<Self>];

    /// The group before anything is read.
    fn base() -> Self;
}

/// How a group may be written.
pub(super) trait Shape: Clone + PartialEq + Sized + 'static {
    /// The setting that a bare value in place of the group is.
    const SHORT: Option<&'static str> = None;

    /// The group when only those settings are given that others follow from.
    fn implied(&self, default: &Self) -> Self {
        default.clone()
    }

    /// Whether `off` is written in place of the group.
    fn is_off(at: At<'_>, _: &mut Reader<'_>) -> bool {
        at.text() == Some("off")
    }

    /// Refuses settings that do not go together.
    fn check(&self, _: At<'_>, _: &mut Reader<'_>) {}

    /// An item of a list before anything of it is read.
    fn within(base: Self, _: &Around) -> Self {
        base
    }
}

/// Refuses settings that other kinds of the group have: what kinds are, and the name of this one.
pub(super) fn refuse_others<G: Settings>(
    at: At<'_>,
    reader: &mut Reader<'_>,
    kind: (&'static str, &'static str),
) {
    for setting in G::table() {
        if !setting.owners.is_empty() && !setting.owners.contains(&kind.1) {
            let error = values::not_its_setting(kind, setting.owners);
            reader.wrong(at, setting.name, error);
        }
    }
}

/// The settings that differ from what they are anyway.
pub(super) fn fields<T: Settings>(group: &T, default: &T, around: &Around) -> Fields {
    let implied = group.implied(default);
    let written = T::table().iter().filter_map(|setting| {
        let text = setting.row.write(group, &implied, around)?;
        Some((setting.name, text))
    });
    Fields(written.collect())
}

/// The settings of a group that differ from what they are anyway, or the bare value that is
/// equivalent.
pub(super) fn text<T: Settings>(group: &T, default: &T, around: &Around) -> Text {
    fields(group, default, around).or_bare(T::SHORT)
}

/// An example of a group: the settings that it must have, or else the first one.
pub(super) fn example<T: Settings>() -> String {
    let base = T::base();
    let is_required = |setting: &&Setting<T>| setting.row.facts().is_required;
    let required = T::table().iter().filter(is_required).count();
    let shown = T::table().iter();
    let shown = shown.filter(|setting| required == 0 || is_required(setting));
    let fields = shown.take(required.max(1)).map(|setting| {
        let (name, value) = (setting.name, setting.example(&base));
        format!("{name}: {value}")
    });
    format!("({})", fields.collect::<Vec<_>>().join(", "))
}

/// The JSON schema of a group.
pub(super) fn schema<T: Settings>() -> Json {
    let group = object(&T::base(), T::table());
    let short = T::table().iter().find(|row| Some(row.name) == T::SHORT);
    match short {
        Some(setting) => json!({ "anyOf": [setting.row.facts().schema, group] }),
        None => group,
    }
}

/// The JSON schema of an object with these settings.
pub(super) fn object<G>(base: &G, settings: &[Setting<G>]) -> Json {
    let properties = settings.iter();
    let properties = properties.map(|its| (its.name.to_owned(), its.schema(base)));
    let required = settings.iter().filter(|its| its.row.facts().is_required);
    let required: Vec<_> = required.map(|setting| setting.name).collect();
    json!({
        "type": "object",
        "properties": properties.collect::<serde_json::Map<_, _>>(),
        "required": required,
        "additionalProperties": false,
    })
}

impl<G> Setting<G> {
    /// Whether `off` is one of its values.
    pub(super) fn may_be_off(&self) -> bool {
        let choices = self.row.facts().schema["anyOf"].as_array();
        choices.is_some_and(|all| all.iter().any(|one| one["const"] == "off"))
    }

    /// The JSON schema of its values, with its description and its default.
    pub(super) fn schema(&self, base: &G) -> Json {
        let mut schema = self.row.facts().schema.clone();
        schema["description"] = self.sentence().into();
        // A default that is a group has no text in JSON.
        let default = self
            .default(base)
            .and_then(|text| serde_json::from_str::<Json>(&text).ok());
        if let Some(default) = default {
            schema["default"] = default;
        }
        schema
    }

    /// The text of its default, if it has one.
    pub(super) fn default(&self, base: &G) -> Option<String> {
        let default = self.row.text(base, &Around::default()).shown();
        default.filter(|_| !self.row.facts().is_required)
    }

    /// An example of its values, as a file has it: the one that its words name, its default where
    /// that is more than a word such as `off`, or else what its schema allows.
    fn example(&self, base: &G) -> String {
        let facts = self.row.facts();
        let choices = facts.schema["anyOf"].as_array();
        let schema = choices.and_then(|all| all.last()).unwrap_or(&facts.schema);
        let is_text = schema["type"] == "string";
        let is_word = |text: &str| matches!(text, "\"off\"" | "\"auto\"" | "false");
        let default = || self.default(base).filter(|text| !is_word(text));
        let allowed = || match (&schema["minimum"], &schema["enum"][0]) {
            (Json::Null, Json::Null) => format!("\"{}\"", self.name.to_uppercase()),
            (Json::Null, first) => first.to_string(),
            (least, _) => least.to_string(),
        };
        let fits = |text: &str| schema["type"] != "array" || text.starts_with('[');
        let named = such_as(&facts.expected, is_text);
        let named = named.map(|text| match fits(&text) {
            true => text,
            false => format!("[{text}]"),
        });
        named.or_else(default).unwrap_or_else(allowed)
    }

    /// Reads its value as a flag has it: a group as in a file, all else without quotes. The caller
    /// names the setting.
    pub(super) fn read_flag(&self, text: &str, group: &mut G) -> Result<(), ValueError> {
        let value = flags::value_of(text, 0, self.row.facts().are_groups())?;
        let source = Source::new(String::new(), text.to_owned());
        let mut reader = Reader::new(&source, Around::default());
        let at = reader.at(&value, "");
        self.row.read(at, &mut reader, group);
        let read = reader.finish(());
        read.map_err(|error| {
            if text.starts_with('(') {
                error
            } else {
                error.of_flag()
            }
        })
    }

    /// Its description, in one line.
    pub(super) fn sentence(&self) -> String {
        let lines: Vec<_> = self.about.iter().map(|line| line.trim()).collect();
        match self.owners {
            [] => lines.join(" "),
            owners => format!("{}: {}", owners.join(", "), lines.join(" ")),
        }
    }
}

/// The example in a sentence that says what is expected, as a file has it.
fn such_as(expected: &str, is_text: bool) -> Option<String> {
    let (_, example) = expected.split_once("such as ")?;
    let length = match example.strip_prefix('"') {
        Some(text) => text.find('"')? + 2,
        None if example.starts_with('(') => example.rfind(')')? + 1,
        None if example.starts_with('[') => example.rfind(']')? + 1,
        None => example.find([' ', ',']).unwrap_or(example.len()),
    };
    let example = &example[..length];
    let is_quoted = !is_text || example.starts_with('"');
    Some(match is_quoted {
        true => example.to_owned(),
        false => format!("{example:?}"),
    })
}

/// Declares a group of settings, see [`self`].
macro_rules! settings {
    (
        $(#[$meta:meta])*
        $vis:vis struct $Group:ident $(: $shape:ident)? {
            $(
                $(#[doc = $doc:literal])*
                $field_vis:vis $field:ident : $Type:ty = $default:expr $(=> $codec:expr)?;
                $(@ $row:ident $(of [$($owner:literal),+])? $(#[doc = $row_doc:literal])*
                    $([$($place:tt)+])?
                    => $row_codec:expr $(, $get:expr, $put:expr)?;)*
            )*
        }
    ) => {
        $(#[$meta])*
        $vis struct $Group {
            $($(#[doc = $doc])* $field_vis $field: $Type,)*
        }

        $crate::config::table::shape!($Group $(, $shape)?);

        impl $crate::config::table::Settings for $Group {
            fn table() -> &'static [$crate::config::table::Setting<Self>] {
                static TABLE: std::sync::LazyLock<Vec<$crate::config::table::Setting<$Group>>> =
                    std::sync::LazyLock::new($Group::settings);
                &TABLE
            }

            fn base() -> Self {
                Self { $($field: $default,)* }
            }
        }

        impl $Group {
            fn settings() -> Vec<$crate::config::table::Setting<Self>> {
                let mut table = $crate::config::table::TableBuilder::new(&[]);
                $(
                    table.about = &[$($doc),*];
                    $(table.add(
                        (stringify!($field), &[]), $codec,
                        |group: &Self| group.$field.clone(),
                        |group: &mut Self, value| group.$field = value,
                    );)?
                    $($crate::config::table::add!(
                        table, (stringify!($row), &[$($row_doc),*]), $row_codec,
                        $([$($place)+])? $([$get, $put])?
                    );
                    $(table.of(&[$($owner),+]);)?)*
                )*
                table.settings
            }
        }
    };
}

/// The plain shape of a group, where none is written for it.
macro_rules! shape {
    ($Group:ident) => {
        impl $crate::config::table::Shape for $Group {}
    };
    ($Group:ident, Shape) => {};
}

/// Adds a row of [`settings`] that is not a field.
macro_rules! add {
    ($table:ident, $name:expr, $codec:expr, [if let $some:pat = $field:ident { $place:expr }
        else { $none:expr }]) => {
        $table.add(
            $name,
            $codec,
            |group: &Self| if let $some = &group.$field { $place.clone() } else { $none },
            |group: &mut Self, value| if let $some = &mut group.$field { $place = value },
        )
    };
    ($table:ident, $name:expr, $codec:expr, [$get:expr, $put:expr]) => {
        $table.add($name, $codec, $get, $put)
    };
    ($table:ident, $name:expr, $codec:expr, [$($part:ident).+]) => {
        $table.add(
            $name,
            $codec,
            |group: &Self| group.$($part).+.clone(),
            |group: &mut Self, value| group.$($part).+ = value,
        )
    };
}

/// Groups without a required setting.
macro_rules! defaults {
    ($($Group:ty),*) => {
        $(impl Default for $Group {
            fn default() -> Self {
                <Self as $crate::config::table::Settings>::base()
            }
        })*
    };
}

/// Declares values that are words: each variant with its word.
macro_rules! words {
    (
        $(#[$meta:meta])*
        $vis:vis enum $Words:ident {
            $($(#[$doc:meta])* $variant:ident = $word:literal,)+
        }
    ) => {
        $(#[$meta])*
        $vis enum $Words {
            $($(#[$doc])* $variant,)+
        }

        impl $Words {
            /// Every value with its word, in files, in JSON and on the command line.
            $vis const ALL: [(&'static str, Self); [$($word),+].len()] =
                [$(($word, Self::$variant)),+];

            /// Its word.
            #[must_use]
            $vis const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }
        }
    };
}

pub(super) use {add, defaults, settings, shape, words};
