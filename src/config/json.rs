//! Settings in JSON, as requests of the API send them. They are read from the tables that files are
//! read from, so that the same value gets the same error.

use thiserror::Error;

use super::reader::{Around, Reader};
use super::source::Source;
use super::table::Setting;
use super::tree::{Kind, NamedValue, Value};

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
    let valid = serde_json::from_slice::<serde_json::Value>(json);
    valid.map_err(|error| {
        let at = match (error.line(), error.column()) {
            (0 | 1, column) => format!("column {column}"),
            (line, column) => format!("line {line}, column {column}"),
        };
        malformed(&format!(
            "invalid body: expected JSON, and not what is at {at}"
        ))
    })?;
    let text = String::from_utf8_lossy(json).into_owned();
    let root = Value::of_json(&text);
    let mut root = root.map_err(|(_, sentence)| malformed(&sentence))?;
    let Kind::Group(fields) = &mut root.kind else {
        return Err(malformed("invalid body: expected a JSON object"));
    };
    // A setting that is null is left out.
    let is_setting = |name: &str| settings.iter().any(|its| its.name == name);
    let is_left_out =
        |field: &NamedValue| field.value.kind == Kind::Null && is_setting(&field.name);
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

/// A field of every body that has no effect: every change holds over reloads.
pub(super) const KEEP: &str = "keep";
