//! Values without parts.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value as Json, json};

use crate::config::reader::At;
use crate::config::text::{Text, name_of};
use crate::config::tree::Kind;
use crate::config::values::{self, Bounds, Ratio, ValueError};

/// Reads and writes a value without parts.
pub(in crate::config) struct Leaf<T> {
    /// The expected values, in words.
    pub(super) expected: String,
    pub(super) schema: Json,
    pub(super) parse: Box<Parse<T>>,
    pub(super) text: Box<Show<T>>,
}

type Parse<T> = dyn Fn(At<'_>) -> Result<T, ValueError> + Send + Sync;
type Show<T> = dyn Fn(&T) -> Text + Send + Sync;

impl<T: 'static> Leaf<T> {
    pub(in crate::config) fn new(
        expected: impl Into<String>,
        schema: Json,
        parse: impl Fn(At<'_>) -> Result<T, ValueError> + Send + Sync + 'static,
        text: impl Fn(&T) -> Text + Send + Sync + 'static,
    ) -> Self {
        Self {
            expected: expected.into(),
            schema,
            parse: Box::new(parse),
            text: Box::new(text),
        }
    }

    /// The same, limited to fewer values.
    pub(in crate::config) fn checked(self, expected: &'static str, fits: fn(&T) -> bool) -> Self {
        let parse = self.parse;
        let parse = move |at: At<'_>| {
            let value = parse(at)?;
            fits(&value)
                .then_some(value)
                .ok_or_else(|| at.not(expected))
        };
        Self {
            expected: expected.to_owned(),
            parse: Box::new(parse),
            ..self
        }
    }

    /// The value, or a word such as `auto` in its place.
    pub(in crate::config) fn or(self, word: &'static str) -> Leaf<Option<T>> {
        let (parse, text) = (self.parse, self.text);
        Leaf::new(
            format!("{}, or \"{word}\"", self.expected),
            json!({ "anyOf": [{ "const": word }, self.schema] }),
            move |at| {
                if at.text() == Some(word) {
                    return Ok(None);
                }
                parse(at).map(Some).map_err(|error| error.or(word))
            },
            move |value| match value {
                None => Text::quoted(word),
                Some(value) => text(value),
            },
        )
    }

    /// The value, of a setting without a default of its own.
    pub(in crate::config) fn given(self) -> Leaf<Option<T>> {
        let (parse, text) = (self.parse, self.text);
        Leaf::new(
            self.expected,
            self.schema,
            move |at| parse(at).map(Some),
            move |value: &Option<T>| match value {
                None => Text::Leaf("None".to_owned()),
                Some(value) => text(value),
            },
        )
    }
}

/// A string with a meaning.
pub(in crate::config) fn spelled<T: 'static>(
    expected: &'static str,
    read: fn(&str) -> Result<T, ValueError>,
    show: fn(&T) -> String,
) -> Leaf<T> {
    Leaf::new(
        expected,
        json!({ "type": "string" }),
        move |at| read(text(at)?),
        move |value| Text::quoted(&show(value)),
    )
}

/// The name of a listener, a pool, a backend or a group.
pub(in crate::config) fn name() -> Leaf<String> {
    spelled("a name of up to 64 characters", values::name, String::clone)
}

/// The path of a file.
pub(in crate::config) fn path() -> Leaf<PathBuf> {
    spelled(
        "the path of a file",
        |text| values::file(Path::new(text)).map(Path::to_owned),
        |path| path.display().to_string(),
    )
}

/// One of several words; `kind` names them in messages.
pub(in crate::config) fn named<T: Clone + PartialEq + Sync>(
    kind: &'static str,
    all: &'static [(&'static str, T)],
) -> Leaf<T> {
    let names: Vec<_> = all.iter().map(|(name, _)| *name).collect();
    let quoted: Vec<_> = names.iter().map(|name| format!("{name:?}")).collect();
    Leaf::new(
        quoted.join(" or "),
        json!({ "enum": names }),
        move |at| values::named(kind, text(at)?, all),
        move |value| Text::quoted(name_of(all, value)),
    )
}

/// A duration.
pub(in crate::config) fn duration(bounds: Bounds) -> Leaf<Duration> {
    Leaf::new(
        format!("a duration, {}", bounds.words()),
        json!({ "type": "string", "pattern": "^[0-9]+(ms|s|m|h|d)$" }),
        move |at| match (at.text(), &at.value.kind) {
            (Some(text), _) => values::duration(text, bounds),
            (None, Kind::Number(n @ 0..)) => Err(at.not(&format!(
                "a duration: write \"{n}ms\", \"{n}s\", \"{n}m\" or \"{n}h\""
            ))),
            (None, _) => Err(at.not("a duration such as \"5s\"")),
        },
        |value| Text::quoted(&values::written(*value)),
    )
}

/// A whole number.
pub(in crate::config) fn number<T>(range: RangeInclusive<u32>) -> Leaf<T>
where
    T: TryFrom<u32> + Display + 'static,
{
    let (min, max) = range.clone().into_inner();
    Leaf::new(
        format!("a whole number, {min} to {max}"),
        json!({ "type": "integer", "minimum": min, "maximum": max }),
        move |at| {
            let number = if let Kind::Number(number) = at.value.kind {
                u32::try_from(number).ok()
            } else if at.written.bytes().all(|b| b.is_ascii_digit()) {
                // RON reads a number that fits no integer type as a fraction.
                None
            } else {
                return Err(at.not("a whole number"));
            };
            let number = values::in_range(number, &range, at.written)?;
            T::try_from(number).map_err(|_| ValueError::out_of_range(at.written, &range))
        },
        |value| Text::Leaf(value.to_string()),
    )
}

/// A ratio, written as a decimal and kept in percent.
pub(in crate::config) fn ratio(ratio: &'static Ratio) -> Leaf<u16> {
    Leaf::new(
        format!("a number, {}", ratio.range),
        json!({ "type": "number" }),
        move |at| values::percent(at.written, ratio),
        |percent| Text::ratio(*percent),
    )
}

/// `true` or `false`.
pub(in crate::config) fn truth() -> Leaf<bool> {
    Leaf::new(
        "true or false",
        json!({ "type": "boolean" }),
        |at| {
            let Kind::Bool(truth) = at.value.kind else {
                return Err(at.not("true or false"));
            };
            Ok(truth)
        },
        |truth| Text::Leaf(truth.to_string()),
    )
}

/// An amount of memory.
pub(in crate::config) fn memory() -> Leaf<u64> {
    Leaf::new(
        "an amount of memory such as \"512MiB\"",
        json!({ "type": "string" }),
        |at| values::memory(at.text().unwrap_or(at.written)),
        |bytes| Text::quoted(&values::memory_text(*bytes)),
    )
}

/// A string, of text or of any bytes.
pub(in crate::config) fn bytes() -> Leaf<Vec<u8>> {
    Leaf::new(
        "a string",
        json!({ "type": "string" }),
        |at| {
            if let Kind::Bytes(bytes) = &at.value.kind {
                return Ok(bytes.clone());
            }
            text(at).map(|text| text.as_bytes().to_vec())
        },
        |bytes| Text::bytes(bytes),
    )
}

/// A status code, or a range of them in a string.
pub(in crate::config) fn status() -> Leaf<RangeInclusive<u16>> {
    Leaf::new(
        "a status code, or a range such as \"200-399\"",
        json!({ "type": ["integer", "string"] }),
        |at| values::status(at.text().unwrap_or(at.written)),
        |codes| match (codes.start(), codes.end()) {
            (from, to) if from == to => Text::Leaf(from.to_string()),
            (from, to) => Text::quoted(&format!("{from}-{to}")),
        },
    )
}

/// A string.
pub(in crate::config) fn text<'a>(at: At<'a>) -> Result<&'a str, ValueError> {
    at.text()
        .ok_or_else(|| at.not_text("a string in double quotes"))
}
