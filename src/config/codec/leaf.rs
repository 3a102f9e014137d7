//! Values without parts. A leaf reads its value from the file and from a flag alike, and says once
//! what is expected.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use serde_json::{Value as Json, json};

use crate::config::reader::At;
use crate::config::text::{Text, name_of};
use crate::config::tree::{Kind, Value};
use crate::config::values::{self, Bounds, ValueError};

/// Reads and writes a value without parts.
pub(in crate::config) struct Leaf<T> {
    /// The expected values, in words.
    pub(super) expected: String,
    pub(super) schema: Json,
    pub(super) parse: Box<Parse<T>>,
    pub(super) text: Box<Show<T>>,
}

type Parse<T> = dyn Fn(At<'_>) -> Result<T, LeafError> + Send + Sync;
type Show<T> = dyn Fn(&T) -> Text + Send + Sync;

/// Why a value is refused.
pub(in crate::config) enum LeafError {
    /// It is none of the expected values.
    Unexpected,
    /// It is none of the expected values; this ends the sentence that says which are.
    Hint(String),
    /// Another reason.
    Because(ValueError),
}

impl From<ValueError> for LeafError {
    fn from(error: ValueError) -> Self {
        Self::Because(error)
    }
}

impl<T: 'static> Leaf<T> {
    pub(in crate::config) fn new(
        expected: impl Into<String>,
        schema: Json,
        parse: impl Fn(At<'_>) -> Result<T, LeafError> + Send + Sync + 'static,
        text: impl Fn(&T) -> Text + Send + Sync + 'static,
    ) -> Self {
        Self {
            expected: expected.into(),
            schema,
            parse: Box::new(parse),
            text: Box::new(text),
        }
    }

    /// Reads a value of a file.
    pub(in crate::config) fn read(&self, at: At<'_>) -> Result<T, ValueError> {
        (self.parse)(at).map_err(|wrong| match wrong {
            LeafError::Unexpected => ValueError::Unexpected(self.expected.clone()),
            LeafError::Hint(hint) => ValueError::Unexpected(format!("{}{hint}", self.expected)),
            LeafError::Because(error) => error,
        })
    }

    /// Reads the value of a flag: the same without quotes.
    pub(in crate::config) fn flag(&self, text: &str) -> Result<T, ValueError> {
        let value = Value {
            span: 0..text.len(),
            kind: Kind::Text(text.to_owned()),
        };
        let read = self.read(At {
            value: &value,
            name: "",
            written: text,
            is_item: false,
        });
        read.map_err(ValueError::of_flag)
    }

    /// Reads and writes only those values that fit.
    pub(in crate::config) fn checked(self, expected: &'static str, fits: fn(&T) -> bool) -> Self {
        let parse = self.parse;
        let parse = move |at: At<'_>| {
            let value = parse(at)?;
            fits(&value).then_some(value).ok_or(LeafError::Unexpected)
        };
        Self {
            expected: expected.to_owned(),
            parse: Box::new(parse),
            ..self
        }
    }

    /// Proposes our word for an unknown one that `ours` knows.
    pub(in crate::config) fn meaning(self, ours: fn(&str) -> Option<&'static str>) -> Self {
        let parse = self.parse;
        let parse = move |at: At<'_>| {
            parse(at).map_err(|wrong| match wrong {
                LeafError::Because(error) => {
                    LeafError::Because(error.meaning(at.text().and_then(ours)))
                }
                LeafError::Unexpected | LeafError::Hint(_) => wrong,
            })
        };
        Self {
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
                parse(at).map(Some)
            },
            move |value| match value {
                None => Text::quoted(word),
                Some(value) => text(value),
            },
        )
    }

    /// The same for another word, which stays valid in files and requests and is not written.
    pub(in crate::config) fn also(self, word: &'static str) -> Self
    where
        T: Default,
    {
        let Self {
            parse, mut schema, ..
        } = self;
        if let Some(choices) = schema["anyOf"].as_array_mut() {
            choices.push(json!({ "const": word }));
        }
        let parse = move |at: At<'_>| {
            if at.text() == Some(word) {
                return Ok(T::default());
            }
            parse(at)
        };
        Self {
            schema,
            parse: Box::new(parse),
            ..self
        }
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
    read: fn(&str) -> Option<T>,
    show: fn(&T) -> String,
) -> Leaf<T> {
    Leaf::new(
        expected,
        json!({ "type": "string" }),
        move |at| read(text(at)?).ok_or(LeafError::Unexpected),
        move |value| Text::quoted(&show(value)),
    )
}

/// A string with a meaning, whose reader has reasons of its own to refuse it.
pub(in crate::config) fn parsed<T: 'static>(
    expected: &'static str,
    read: fn(&str) -> Result<T, ValueError>,
    show: fn(&T) -> String,
) -> Leaf<T> {
    Leaf::new(
        expected,
        json!({ "type": "string" }),
        move |at| Ok(read(text(at)?)?),
        move |value| Text::quoted(&show(value)),
    )
}

/// The name of a listener, a pool, a backend or a group.
pub(in crate::config) fn name() -> Leaf<String> {
    spelled(
        "1 to 64 characters, and no control character",
        |text| values::is_name(text).then(|| text.to_owned()),
        String::clone,
    )
}

/// The path of a file.
pub(in crate::config) fn path() -> Leaf<PathBuf> {
    spelled(
        "the path of a file",
        |text| Some(Path::new(text).to_owned()).filter(|path| values::is_file(path)),
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
        values::joined(&quoted, "or"),
        json!({ "enum": names }),
        move |at| Ok(values::named(kind, text(at)?, all)?),
        move |value| Text::quoted(name_of(all, value)),
    )
}

/// Proposes what was meant, if that would be read.
fn write(meant: Option<String>) -> LeafError {
    meant.map_or(LeafError::Unexpected, |it| {
        LeafError::Hint(format!(": write {it}"))
    })
}

/// Proposes the units with which a bare number is within the bounds.
fn with_units(number: &str, bounds: Bounds) -> LeafError {
    // Nothing is as long in all units.
    let units = match number.parse() {
        Ok(0_u64) => &["s"][..],
        _ => &["ms", "s", "m", "h"],
    };
    let all = units.iter().map(|unit| format!("{number}{unit}"));
    let all: Vec<_> = all.collect();
    let fits = |text: &&String| values::duration_of(text).is_some_and(|it| bounds.fit(it));
    let fitting: Vec<_> = all
        .iter()
        .filter(fits)
        .map(|it| format!("\"{it}\""))
        .collect();
    let meant = (!fitting.is_empty()).then(|| values::joined(&fitting, "or"));
    write(meant)
}

/// A duration.
pub(in crate::config) fn duration(bounds: Bounds) -> Leaf<Duration> {
    Leaf::new(
        format!("a duration, {}", bounds.words()),
        json!({ "type": "string", "pattern": "^[0-9]+(ms|s|m|h|d)$" }),
        move |at| {
            let text = at.text().unwrap_or(at.written);
            let is_number = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
            if is_number {
                return Err(with_units(text, bounds));
            }
            let form = || {
                let units = "write a whole number with ms, s, m, h or d, such as \"5s\"";
                LeafError::Hint(format!(": {units}"))
            };
            let duration = values::duration_of(text).ok_or_else(form)?;
            bounds
                .fit(duration)
                .then_some(duration)
                .ok_or(LeafError::Unexpected)
        },
        |value| Text::quoted(&values::written(*value)),
    )
}

/// A whole number.
pub(in crate::config) fn number<T>(range: RangeInclusive<u32>) -> Leaf<T>
where
    T: FromStr + Display + 'static,
{
    let (min, max) = range.clone().into_inner();
    Leaf::new(
        format!("a whole number, {min} to {max}"),
        json!({ "type": "integer", "minimum": min, "maximum": max }),
        move |at| {
            let is_number = |text: &&str| text.bytes().all(|b| b.is_ascii_digit());
            let number = if let Kind::Number(number) = at.value.kind {
                u32::try_from(number).ok()
            } else {
                let digits = Some(at.written).filter(is_number);
                digits.and_then(|digits| digits.parse().ok())
            };
            let of = |number: u32| {
                let number = Some(number).filter(|number| range.contains(number))?;
                number.to_string().parse().ok()
            };
            let unquoted = || {
                let meant = values::plain_number(at.text()?)?;
                of(meant).map(|_| meant.to_string())
            };
            number.and_then(of).ok_or_else(|| write(unquoted()))
        },
        |value: &T| Text::Leaf(value.to_string()),
    )
}

/// A ratio, written as a decimal and kept in percent.
pub(in crate::config) fn ratio(percent: RangeInclusive<u16>) -> Leaf<u16> {
    let [min, max] = [percent.start(), percent.end()].map(|percent| values::decimal(*percent));
    Leaf::new(
        format!("a number with at most two decimals, {min} to {max}"),
        json!({ "type": "number", "minimum": f64::from(*percent.start()) / 100.0,
                "maximum": f64::from(*percent.end()) / 100.0 }),
        move |at| {
            let read = values::percent(at.written).filter(|read| percent.contains(read));
            let unquoted = || {
                let text = at.text()?;
                let hundredths = text.strip_suffix('%').and_then(|text| text.parse().ok());
                let meant = hundredths.or_else(|| values::percent(text))?;
                percent.contains(&meant).then(|| values::decimal(meant))
            };
            read.ok_or_else(|| write(unquoted()))
        },
        |percent| Text::ratio(*percent),
    )
}

/// `true` or `false`.
pub(in crate::config) fn truth() -> Leaf<bool> {
    Leaf::new(
        "true or false",
        json!({ "type": "boolean" }),
        |at| match at.written {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => {
                let meant = at.text().and_then(values::truth);
                Err(write(meant.map(|truth| truth.to_string())))
            }
        },
        |truth| Text::Leaf(truth.to_string()),
    )
}

/// An amount of memory.
pub(in crate::config) fn memory() -> Leaf<u64> {
    Leaf::new(
        format!(
            "an amount of memory such as \"512MiB\", {}",
            values::memory_range()
        ),
        json!({ "type": "string", "pattern": "^[0-9]+(KiB|MiB|GiB)$" }),
        |at| {
            let text = at.text().unwrap_or(at.written);
            let binary = || Some(format!("{:?}", values::binary_memory(text)?));
            values::memory(text).ok_or_else(|| write(binary()))
        },
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
        "a status code, 100 to 599, or a range such as \"200-399\"",
        json!({ "type": ["integer", "string"] }),
        |at| {
            let codes =
                values::status(at.text().unwrap_or(at.written)).ok_or(LeafError::Unexpected)?;
            if codes.is_empty() {
                let hint = ": the greater code stands behind the `-`";
                return Err(LeafError::Hint(hint.to_owned()));
            }
            Ok(codes)
        },
        |codes| match (codes.start(), codes.end()) {
            (from, to) if from == to => Text::Leaf(from.to_string()),
            (from, to) => Text::quoted(&format!("{from}-{to}")),
        },
    )
}

/// A string.
fn text<'a>(at: At<'a>) -> Result<&'a str, LeafError> {
    at.text().ok_or_else(|| match at.unquoted() {
        Some(sentence) => LeafError::Because(ValueError::Refused(sentence)),
        None => LeafError::Hint(", in double quotes".to_owned()),
    })
}
