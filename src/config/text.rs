//! Writes RON, on one line where it fits.

use std::fmt::Write;

use serde_json::{Map, Value as Json};

/// A value to write.
#[derive(Debug)]
pub(super) enum Text {
    /// As it stands.
    Leaf(String),
    Fields(Fields),
    List(Vec<Self>),
}

/// Fields in parentheses.
#[derive(Debug, Default)]
pub(super) struct Fields(pub(super) Vec<(&'static str, Text)>);

impl Fields {
    /// As a value: the only field alone, where it may stand for them all.
    pub(super) fn or_bare(mut self, short: Option<&str>) -> Text {
        match &*self.0 {
            [(name, Text::Leaf(_))] if Some(*name) == short => self.0.remove(0).1,
            _ => Text::Fields(self),
        }
    }

    /// The whole text of a file, a line for each field.
    pub(super) fn file(self) -> String {
        Text::Fields(self).lines()
    }
}

impl Text {
    /// A string. RON takes the escapes of Rust.
    pub(super) fn quoted(text: &str) -> Self {
        Self::Leaf(format!("{text:?}"))
    }

    /// A string, or a byte string where the bytes are no text.
    pub(super) fn bytes(bytes: &[u8]) -> Self {
        match str::from_utf8(bytes) {
            Ok(text) => Self::quoted(text),
            Err(_) => Self::Leaf(format!("b\"{}\"", bytes.escape_ascii())),
        }
    }

    /// Percent as a decimal, which has a point for RON.
    pub(super) fn ratio(percent: u16) -> Self {
        let decimal = decimal(percent);
        Self::Leaf(if decimal.contains('.') {
            decimal
        } else {
            decimal + ".0"
        })
    }

    /// On one line; none where there is nothing to be shown.
    pub(super) fn shown(&self) -> Option<String> {
        let mut text = String::new();
        self.flat(&mut text);
        Some(text).filter(|text| text != "None" && text != "()" && text != "\"\"")
    }

    /// A line for each field or item, as a text of its own.
    pub(super) fn lines(&self) -> String {
        let mut text = String::new();
        self.tall(&mut text, 0);
        text.push('\n');
        text
    }

    /// As JSON; fields stand in a string, as in a file.
    pub(super) fn json(&self) -> Json {
        match self {
            Self::Leaf(none) if none == "None" => Json::Null,
            Self::Leaf(text) if text.starts_with('"') => {
                ron::from_str::<String>(text).unwrap_or_default().into()
            }
            Self::Leaf(text) => serde_json::from_str(text).unwrap_or_default(),
            Self::Fields(_) => {
                let mut text = String::new();
                self.flat(&mut text);
                text.into()
            }
            Self::List(items) => items.iter().map(Self::json).collect(),
        }
    }

    /// As JSON of a request, where fields are an object.
    pub(super) fn body(&self) -> Json {
        match self {
            Self::Leaf(_) => self.json(),
            Self::Fields(Fields(fields)) => {
                let fields = fields.iter();
                let fields = fields.map(|(name, value)| ((*name).to_owned(), value.body()));
                fields.collect::<Map<_, _>>().into()
            }
            Self::List(items) => items.iter().map(Self::body).collect(),
        }
    }

    /// Without line breaks.
    fn flat(&self, out: &mut String) {
        match self {
            Self::Leaf(text) => out.push_str(text),
            Self::Fields(Fields(fields)) => {
                out.push('(');
                for (i, (name, value)) in fields.iter().enumerate() {
                    let _ = write!(out, "{}{name}: ", if i == 0 { "" } else { ", " });
                    value.flat(out);
                }
                out.push(')');
            }
            Self::List(items) => {
                out.push('[');
                for (i, value) in items.iter().enumerate() {
                    out.push_str(if i == 0 { "" } else { ", " });
                    value.flat(out);
                }
                out.push(']');
            }
        }
    }

    /// A line for each field or item.
    fn tall(&self, out: &mut String, indent: usize) {
        let inner = indent + INDENT;
        match self {
            Self::Leaf(text) => out.push_str(text),
            Self::Fields(Fields(fields)) => {
                out.push_str("(\n");
                for (name, value) in fields {
                    let _ = write!(out, "{:inner$}{name}: ", "");
                    value.fitting(out, inner, inner + name.len() + 2);
                }
                let _ = write!(out, "{:indent$})", "");
            }
            Self::List(items) => {
                out.push_str("[\n");
                for value in items {
                    let _ = write!(out, "{:inner$}", "");
                    value.fitting(out, inner, inner);
                }
                let _ = write!(out, "{:indent$}]", "");
            }
        }
    }

    /// The one-line or the long form, after a prefix of this width, with the comma after it.
    fn fitting(&self, out: &mut String, indent: usize, column: usize) {
        let start = out.len();
        self.flat(out);
        if column + out[start..].chars().count() + 1 > COLUMNS {
            out.truncate(start);
            self.tall(out, indent);
        }
        out.push_str(",\n");
    }
}

/// Percent as a decimal.
pub(super) fn decimal(percent: u16) -> String {
    let decimal = format!("{}.{:02}", percent / 100, percent % 100);
    let decimal = decimal.trim_end_matches('0');
    decimal.strip_suffix('.').unwrap_or(decimal).to_owned()
}

/// The name of a value that has one.
pub(super) fn name_of<T: PartialEq>(all: &[(&'static str, T)], value: &T) -> &'static str {
    let found = all.iter().find(|(_, known)| known == value);
    found
        .map(|(name, _)| *name)
        .expect("every value is in its table")
}

const INDENT: usize = 4;
const COLUMNS: usize = 100;

#[cfg(test)]
mod tests;
