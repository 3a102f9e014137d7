//! Settings in JSON, as requests of the API send them. They are read from the tables that files are
//! read from, so that the same value gets the same error.

use std::fmt;

use serde::de::{self, DeserializeSeed, MapAccess, SeqAccess, Visitor};
use thiserror::Error;

use super::reader::{Around, Reader};
use super::source::Source;
use super::table::Setting;
use super::tree::{Field, Kind, Value};

/// Why a body is refused.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum BodyError {
    /// It is no JSON, or no object of these fields.
    #[error("{0}")]
    Malformed(String),
    /// A value is invalid.
    #[error("{0}")]
    Invalid(String),
}

/// Reads a JSON object as a group of these settings.
pub(super) fn read<G, T>(
    json: &[u8],
    settings: &[Setting<G>],
    read: impl for<'a> FnOnce(&'a Value, &mut Reader<'a>) -> Option<T>,
) -> Result<T, BodyError> {
    let malformed = |sentence: &str| BodyError::Malformed(sentence.to_owned());
    if json.trim_ascii().is_empty() {
        return Err(malformed(
            "invalid body: it is empty: expected a JSON object",
        ));
    }
    let mut text = String::new();
    let mut parser = serde_json::Deserializer::from_slice(json);
    let root = Json(&mut text).deserialize(&mut parser);
    let root = root.and_then(|root| parser.end().map(|()| root));
    let mut root = root.map_err(|error| {
        let at = match (error.line(), error.column()) {
            (0 | 1, column) => format!("column {column}"),
            (line, column) => format!("line {line}, column {column}"),
        };
        malformed(&format!(
            "invalid body: expected JSON, and not what is at {at}"
        ))
    })?;
    let Kind::Group(fields) = &mut root.kind else {
        return Err(malformed("invalid body: expected a JSON object"));
    };
    // A setting that is null is left out.
    let is_setting = |name: &str| settings.iter().any(|its| its.name == name);
    let is_left_out = |field: &Field| field.value.kind == Kind::Null && is_setting(&field.name);
    fields.retain(|field| field.name != KEEP && !is_left_out(field));
    for field in fields.iter_mut() {
        let setting = settings.iter().find(|its| its.name == field.name);
        // Programs that know limits as numbers write no limit as 0.
        if field.value.kind == Kind::Number(0) && setting.is_some_and(Setting::may_be_off) {
            field.value.kind = Kind::Text("off".to_owned());
        }
    }
    let source = Source::new(String::new(), text);
    let mut reader = Reader::new(&source, Around::default());
    let value = read(&root, &mut reader);
    let is_misshapen = reader.is_misshapen();
    let mistakes = reader.into_mistakes();
    match value.filter(|_| mistakes.is_empty()) {
        Some(value) => Ok(value),
        None => {
            let sentences: Vec<_> = mistakes.into_iter().map(|one| one.sentence).collect();
            let sentences = sentences.join("; ");
            Err(if is_misshapen {
                BodyError::Malformed(sentences)
            } else {
                BodyError::Invalid(sentences)
            })
        }
    }
}

/// Reads a value. Its place is that in a text that lists the values as they are written.
struct Json<'t>(&'t mut String);

impl Json<'_> {
    fn leaf(self, written: &str, kind: Kind) -> Value {
        let start = self.0.len();
        self.0.push_str(written);
        let span = start..self.0.len();
        Value { span, kind }
    }

    /// Ends a list or an object.
    fn close(&mut self, bracket: char) {
        if self.0.ends_with(',') {
            self.0.pop();
        }
        self.0.push(bracket);
    }
}

impl<'de> DeserializeSeed<'de> for Json<'_> {
    type Value = Value;

    fn deserialize<D: de::Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Json<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(self.leaf("null", Kind::Null))
    }

    fn visit_bool<E>(self, truth: bool) -> Result<Value, E> {
        Ok(self.leaf(&truth.to_string(), Kind::Bool(truth)))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(self.leaf(&number.to_string(), Kind::Number(number)))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        let kind = i64::try_from(number).map_or(Kind::Other, Kind::Number);
        Ok(self.leaf(&number.to_string(), kind))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
        Ok(self.leaf(&format!("{number:?}"), Kind::Other))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(self.leaf(&format!("{text:?}"), Kind::Text(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut from: A) -> Result<Value, A::Error> {
        let start = self.0.len();
        self.0.push('[');
        let mut items = Vec::new();
        while let Some(item) = from.next_element_seed(Json(&mut *self.0))? {
            items.push(item);
            self.0.push(',');
        }
        self.close(']');
        let span = start..self.0.len();
        Ok(Value {
            span,
            kind: Kind::List(items),
        })
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut from: A) -> Result<Value, A::Error> {
        let start = self.0.len();
        self.0.push('{');
        let mut fields = Vec::new();
        while let Some(name) = from.next_key::<String>()? {
            let name_start = self.0.len();
            self.0.push_str(&format!("{name:?}"));
            let name_span = name_start..self.0.len();
            self.0.push(':');
            let value = from.next_value_seed(Json(&mut *self.0))?;
            fields.push(Field {
                name,
                name_span,
                value,
            });
            self.0.push(',');
        }
        self.close('}');
        let span = start..self.0.len();
        Ok(Value {
            span,
            kind: Kind::Group(fields),
        })
    }
}

/// A field of every body that has no effect: every change holds over reloads.
pub(super) const KEEP: &str = "keep";
