//! Settings that flags give. They become values of the tree that a file is read into: the same
//! tables read them, and they follow the same rules.

use std::collections::HashMap;

use super::load::config;
use super::reference::all_settings;
use super::source::Source;
use super::tree::{Kind, NamedValue, Value};
use super::values::ValueError;
use super::{Config, Mistake};

/// A setting that a flag gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlagSetting {
    /// The flag: a mistake in the setting is one of the flag.
    pub flag: &'static str,
    /// The path of the setting, such as `listeners.0.timeouts.idle`. A number is a place in a list.
    pub path: String,
    /// The value as in a file, but for the quotes.
    pub text: String,
}

/// Reads and validates the configuration that flags give.
///
/// # Errors
/// A setting breaks a rule: its flag, and the rule in a sentence.
pub fn from_flags(given: &[FlagSetting]) -> Result<Config, (&'static str, String)> {
    let rows = all_settings();
    let mut text = String::new();
    // The first line of each value.
    let mut lines = Vec::new();
    let mut line = 1;
    let mut parts = Vec::new();
    for setting in given {
        let start = text.len();
        text += &setting.text;
        let path = without_places(&setting.path);
        let is_group = rows.iter().any(|row| row.path == path && row.is_group);
        let value = value_of(&text, start, is_group);
        let value = value.map_err(|error| (setting.flag, error.to_string()))?;
        parts.push((&*setting.path, value));
        lines.push(line);
        line += 1 + setting.text.matches('\n').count();
        text.push('\n');
    }
    let source = Source::of(text, whole(parts));
    config(&source).map_err(|mistakes| {
        let first = mistakes.into_iter().next();
        let Mistake { place, sentence } = first.expect("a refused configuration has a mistake");
        let at = lines.partition_point(|line| *line <= place.line);
        // A place in that text means nothing to a caller.
        let sentence = sentence.split("; the first is at ").next();
        let flag = given.get(at.saturating_sub(1)).map_or("", |its| its.flag);
        (flag, sentence.unwrap_or_default().to_owned())
    })
}

/// The value of a flag, from this byte of the text on: a string without quotes, or a group in
/// parentheses.
pub(super) fn value_of(text: &str, start: usize, is_group: bool) -> Result<Value, ValueError> {
    let written = &text[start..];
    if is_group && written.starts_with('(') {
        // Spaces in place of what is before it give its parts their places.
        let alone = format!("{:start$}{written}", "");
        let source = Source::new(String::new(), alone).parsed()?;
        return Ok(source.root().clone());
    }
    Ok(Value {
        span: start..text.len(),
        kind: Kind::Text(written.to_owned()),
    })
}

/// The value that has these parts, each with its path in it.
fn whole(mut parts: Vec<(&str, Value)>) -> Value {
    if let [("", _)] = &parts[..] {
        return parts.remove(0).1;
    }
    let start = parts.first().map_or(0, |(_, first)| first.span.start);
    let end = parts.last().map_or(0, |(_, last)| last.span.end);
    let mut steps: Vec<(&str, Vec<(&str, Value)>)> = Vec::new();
    let mut places = HashMap::new();
    for (path, value) in parts {
        let (step, rest) = path.split_once('.').unwrap_or((path, ""));
        let place = *places.entry(step).or_insert(steps.len());
        if place == steps.len() {
            steps.push((step, Vec::new()));
        }
        steps[place].1.push((rest, value));
    }
    let is_list = steps.iter().all(|(step, _)| is_place(step));
    let steps = steps.into_iter().map(|(step, parts)| (step, whole(parts)));
    let kind = if is_list {
        Kind::List(steps.map(|(_, value)| value).collect())
    } else {
        let fields = steps.map(|(name, value)| NamedValue {
            name: name.to_owned(),
            name_span: value.start(),
            value,
        });
        Kind::Group(fields.collect())
    };
    Value {
        span: start..end,
        kind,
    }
}

/// A path without the places in lists, as the reference has it.
fn without_places(path: &str) -> String {
    let names: Vec<_> = path.split('.').filter(|step| !is_place(step)).collect();
    names.join(".")
}

fn is_place(step: &str) -> bool {
    step.starts_with(|c: char| c.is_ascii_digit())
}
