//! Values of RON, and how they are laid out: on one line where they fit.

use std::fmt::Write;
use std::path::Path;

/// A value to be written.
#[derive(Debug)]
pub(super) enum Value {
    /// As it stands.
    Leaf(String),
    Fields(Fields),
    List(Vec<Self>),
}

/// Fields in parentheses.
#[derive(Debug, Default)]
pub(super) struct Fields(Vec<(&'static str, Value)>);

impl Fields {
    pub(super) fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.0.push((name, value.into()));
        self
    }

    /// A field that may be left out.
    pub(super) fn some(self, name: &'static str, value: Option<impl Into<Value>>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    /// A field that is left out where it says nothing.
    pub(super) fn unless(
        self,
        is_default: bool,
        name: &'static str,
        value: impl FnOnce() -> Value,
    ) -> Self {
        if is_default {
            self
        } else {
            self.with(name, value())
        }
    }

    /// A field that is left out where it is as it would be anyway.
    pub(super) fn differs<T: PartialEq + Into<Value>>(
        self,
        name: &'static str,
        value: T,
        default: T,
    ) -> Self {
        self.some(name, (value != default).then_some(value))
    }

    /// The same behind one more field.
    pub(super) fn led_by(mut self, name: &'static str, value: Value) -> Self {
        self.0.insert(0, (name, value));
        self
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn if_any(self) -> Option<Value> {
        (!self.is_empty()).then_some(Value::Fields(self))
    }

    /// The whole text of a file, a line for each field.
    pub(super) fn file(self) -> String {
        let mut text = String::new();
        Value::Fields(self).tall(&mut text, 0);
        text.push('\n');
        text
    }
}

impl Value {
    /// A string. RON takes the escapes of Rust.
    pub(super) fn text(text: &str) -> Self {
        Self::Leaf(format!("{text:?}"))
    }

    /// A string, or a byte string where the bytes are no text.
    pub(super) fn bytes(bytes: &[u8]) -> Self {
        match str::from_utf8(bytes) {
            Ok(text) => Self::text(text),
            Err(_) => Self::Leaf(format!("b\"{}\"", bytes.escape_ascii())),
        }
    }

    /// What percent are as a decimal.
    pub(super) fn ratio(percent: u16) -> Self {
        let (whole, fraction) = (percent / 100, percent % 100);
        let fraction = format!("{fraction:02}");
        let digits = fraction.strip_suffix('0').unwrap_or(&fraction);
        Self::Leaf(format!("{whole}.{digits}"))
    }

    pub(super) fn list(items: impl Iterator<Item = Self>) -> Self {
        Self::List(items.collect())
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

    /// The one or the other, behind what takes so many columns, and the comma after it.
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

impl From<Fields> for Value {
    fn from(fields: Fields) -> Self {
        Self::Fields(fields)
    }
}

impl From<&Path> for Value {
    fn from(path: &Path) -> Self {
        Self::text(&path.display().to_string())
    }
}

macro_rules! as_it_shows {
    ($($kind:ty),*) => {
        $(impl From<$kind> for Value {
            fn from(value: $kind) -> Self {
                Self::Leaf(value.to_string())
            }
        })*
    };
}

as_it_shows!(bool, u8, u16, u32);

/// The name of a value that has one.
pub(super) fn name_of<T: PartialEq>(all: &[(&'static str, T)], value: &T) -> &'static str {
    let found = all.iter().find(|(_, known)| known == value);
    found
        .map(|(name, _)| *name)
        .expect("every value is in its table")
}

const INDENT: usize = 4;
const COLUMNS: usize = 100;
