//! Values without parts.

use std::fmt::Display;
use std::marker::PhantomData;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value as Json, json};

use crate::config::reader::At;
use crate::config::text::{Text, name_of};
use crate::config::tree::Kind;
use crate::config::values::{self, Bounds, Ratio, ValueError};

/// Reads and writes a value without parts.
pub(in crate::config) trait Leaf {
    type Value: Clone + PartialEq;

    fn parse(&self, at: At<'_>) -> Result<Self::Value, ValueError>;
    fn text(&self, value: &Self::Value) -> Text;
    /// What may be written, in words.
    fn expected(&self) -> String;
    fn schema(&self) -> Json;

    /// The value, or a word that leaves it open.
    fn or(self, word: &'static str) -> Or<Self>
    where
        Self: Sized,
    {
        Or { word, leaf: self }
    }

    /// The value, of a setting without a default of its own.
    fn given(self) -> Given<Self>
    where
        Self: Sized,
    {
        Given(self)
    }
}

/// A value that is none where the setting is not given.
pub(in crate::config) struct Given<L>(L);

impl<L: Leaf> Leaf for Given<L> {
    type Value = Option<L::Value>;

    fn parse(&self, at: At<'_>) -> Result<Self::Value, ValueError> {
        self.0.parse(at).map(Some)
    }

    fn text(&self, value: &Self::Value) -> Text {
        let text = value.as_ref().map(|value| self.0.text(value));
        text.unwrap_or_else(|| Text::Leaf("None".to_owned()))
    }

    fn expected(&self) -> String {
        self.0.expected()
    }

    fn schema(&self) -> Json {
        self.0.schema()
    }
}

/// A value, or a word that leaves it open.
pub(in crate::config) struct Or<L> {
    word: &'static str,
    leaf: L,
}

impl<L: Leaf> Leaf for Or<L> {
    type Value = Option<L::Value>;

    fn parse(&self, at: At<'_>) -> Result<Self::Value, ValueError> {
        if at.text() == Some(self.word) {
            return Ok(None);
        }
        let read = self.leaf.parse(at).map(Some);
        read.map_err(|error| error.or(self.word))
    }

    fn text(&self, value: &Self::Value) -> Text {
        match value {
            None => Text::quoted(self.word),
            Some(value) => self.leaf.text(value),
        }
    }

    fn expected(&self) -> String {
        format!("{}, or \"{}\"", self.leaf.expected(), self.word)
    }

    fn schema(&self) -> Json {
        json!({ "anyOf": [{ "const": self.word }, self.leaf.schema()] })
    }
}

/// A string with a meaning.
pub(in crate::config) fn spelled<T>(
    expected: &'static str,
    read: fn(&str) -> Result<T, ValueError>,
    show: fn(&T) -> String,
) -> Spelled<T> {
    Spelled {
        expected,
        read,
        show,
    }
}

/// What a listener, a pool, a backend or a group is called.
pub(in crate::config) fn name() -> Spelled<String> {
    spelled("a name of up to 64 characters", values::name, String::clone)
}

/// The path of a file.
pub(in crate::config) fn path() -> Spelled<PathBuf> {
    let read = |text: &str| values::file(Path::new(text)).map(Path::to_owned);
    spelled("the path of a file", read, |path| {
        path.display().to_string()
    })
}

pub(in crate::config) struct Spelled<T> {
    expected: &'static str,
    read: fn(&str) -> Result<T, ValueError>,
    show: fn(&T) -> String,
}

impl<T: Clone + PartialEq> Leaf for Spelled<T> {
    type Value = T;

    fn parse(&self, at: At<'_>) -> Result<T, ValueError> {
        (self.read)(text(at)?)
    }

    fn text(&self, value: &T) -> Text {
        Text::quoted(&(self.show)(value))
    }

    fn expected(&self) -> String {
        self.expected.to_owned()
    }

    fn schema(&self) -> Json {
        json!({ "type": "string" })
    }
}

/// One of several words; `kind` is what they are.
pub(in crate::config) fn named<T>(
    kind: &'static str,
    all: &'static [(&'static str, T)],
) -> Named<T> {
    Named { kind, all }
}

pub(in crate::config) struct Named<T: 'static> {
    kind: &'static str,
    all: &'static [(&'static str, T)],
}

impl<T: Clone + PartialEq> Leaf for Named<T> {
    type Value = T;

    fn parse(&self, at: At<'_>) -> Result<T, ValueError> {
        values::named(self.kind, text(at)?, self.all)
    }

    fn text(&self, value: &T) -> Text {
        Text::quoted(name_of(self.all, value))
    }

    fn expected(&self) -> String {
        let names: Vec<_> = self
            .all
            .iter()
            .map(|(name, _)| format!("{name:?}"))
            .collect();
        names.join(" or ")
    }

    fn schema(&self) -> Json {
        let names: Vec<_> = self.all.iter().map(|(name, _)| *name).collect();
        json!({ "enum": names })
    }
}

/// A duration.
pub(in crate::config) fn duration(bounds: Bounds) -> DurationLeaf {
    DurationLeaf(bounds)
}

pub(in crate::config) struct DurationLeaf(Bounds);

impl Leaf for DurationLeaf {
    type Value = Duration;

    fn parse(&self, at: At<'_>) -> Result<Duration, ValueError> {
        match (at.text(), &at.value.kind) {
            (Some(text), _) => values::duration(text, self.0),
            (None, Kind::Number(n @ 0..)) => Err(at.not(&format!(
                "a duration: write \"{n}ms\", \"{n}s\", \"{n}m\" or \"{n}h\""
            ))),
            (None, _) => Err(at.not("a duration such as \"5s\"")),
        }
    }

    fn text(&self, value: &Duration) -> Text {
        Text::quoted(&values::written(*value))
    }

    fn expected(&self) -> String {
        format!("a duration, {}", self.0.words())
    }

    fn schema(&self) -> Json {
        json!({ "type": "string", "pattern": "^[0-9]+(ms|s|m|h|d)$" })
    }
}

/// A whole number.
pub(in crate::config) fn number<T>(range: RangeInclusive<u32>) -> Number<T> {
    Number(range, PhantomData)
}

pub(in crate::config) struct Number<T>(RangeInclusive<u32>, PhantomData<T>);

impl<T: Clone + PartialEq + TryFrom<u32> + Display> Leaf for Number<T> {
    type Value = T;

    fn parse(&self, at: At<'_>) -> Result<T, ValueError> {
        let is_whole = at.written.bytes().all(|b| b.is_ascii_digit());
        let number = if let Kind::Number(number) = at.value.kind {
            u32::try_from(number).ok()
        } else if is_whole {
            // RON makes a fraction of what no integer type holds.
            None
        } else {
            return Err(at.not("a whole number"));
        };
        let out_of_range = || ValueError::out_of_range(at.written, &self.0);
        let number = number.filter(|number| self.0.contains(number));
        let number = number.and_then(|number| T::try_from(number).ok());
        number.ok_or_else(out_of_range)
    }

    fn text(&self, value: &T) -> Text {
        Text::Leaf(value.to_string())
    }

    fn expected(&self) -> String {
        format!("a whole number, {} to {}", self.0.start(), self.0.end())
    }

    fn schema(&self) -> Json {
        json!({ "type": "integer", "minimum": self.0.start(), "maximum": self.0.end() })
    }
}

/// A ratio, written as a decimal and kept in percent.
pub(in crate::config) fn ratio(ratio: &'static Ratio) -> RatioLeaf {
    RatioLeaf(ratio)
}

pub(in crate::config) struct RatioLeaf(&'static Ratio);

impl Leaf for RatioLeaf {
    type Value = u16;

    fn parse(&self, at: At<'_>) -> Result<u16, ValueError> {
        values::percent(at.written, self.0)
    }

    fn text(&self, value: &u16) -> Text {
        Text::ratio(*value)
    }

    fn expected(&self) -> String {
        format!("a number, {}", self.0.range)
    }

    fn schema(&self) -> Json {
        json!({ "type": "number" })
    }
}

macro_rules! leaf {
    ($(#[$meta:meta])* $name:ident, $Leaf:ident: $Type:ty, $expected:literal, $schema:expr,
     $parse:expr, $text:expr) => {
        $(#[$meta])*
        pub(in crate::config) fn $name() -> $Leaf {
            $Leaf
        }

        pub(in crate::config) struct $Leaf;

        impl Leaf for $Leaf {
            type Value = $Type;

            fn parse(&self, at: At<'_>) -> Result<$Type, ValueError> {
                let parse: fn(At<'_>) -> Result<$Type, ValueError> = $parse;
                parse(at)
            }

            fn text(&self, value: &$Type) -> Text {
                let text: fn(&$Type) -> Text = $text;
                text(value)
            }

            fn expected(&self) -> String {
                $expected.to_owned()
            }

            fn schema(&self) -> Json {
                $schema
            }
        }
    };
}

leaf! {
    /// `true` or `false`.
    truth, Truth: bool, "true or false", json!({ "type": "boolean" }),
    |at| if let Kind::Bool(truth) = at.value.kind {
        Ok(truth)
    } else {
        Err(at.not("true or false"))
    },
    |truth| Text::Leaf(truth.to_string())
}

leaf! {
    /// An amount of memory.
    memory, Memory: u64, "an amount of memory such as \"512MiB\"", json!({ "type": "string" }),
    |at| values::memory(at.text().unwrap_or(at.written)),
    |bytes| Text::quoted(&values::memory_text(*bytes))
}

leaf! {
    /// A string, of text or of any bytes.
    bytes, Bytes: Vec<u8>, "a string", json!({ "type": "string" }),
    |at| if let Kind::Bytes(bytes) = &at.value.kind {
        Ok(bytes.clone())
    } else {
        text(at).map(|text| text.as_bytes().to_vec())
    },
    |bytes| Text::bytes(bytes)
}

leaf! {
    /// A status code, or a range of them in a string.
    status, Status: RangeInclusive<u16>, "a status code, or a range such as \"200-399\"",
    json!({ "type": ["integer", "string"] }),
    |at| values::status(at.text().unwrap_or(at.written)),
    |codes| match (codes.start(), codes.end()) {
        (from, to) if from == to => Text::Leaf(from.to_string()),
        (from, to) => Text::quoted(&format!("{from}-{to}")),
    }
}

/// A string.
pub(in crate::config) fn text<'a>(at: At<'a>) -> Result<&'a str, ValueError> {
    at.text()
        .ok_or_else(|| at.not_text("a string in double quotes"))
}
