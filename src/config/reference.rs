//! The reference of all settings, generated from their tables.

use std::fmt::Write;

use super::Config;
use super::table::Settings;

/// A setting, as the reference shows it.
pub(super) struct Row {
    /// Its name, with the groups that contain it.
    pub(super) path: String,
    about: String,
    expected: String,
    pub(super) default: Option<String>,
    waits: bool,
    is_required: bool,
}

/// The settings of a group. A setting that is itself a group is followed by its settings.
pub(super) fn rows<T: Settings>(path: &str) -> Vec<Row> {
    let mut rows = Vec::new();
    let base = T::base();
    for setting in T::table() {
        let facts = setting.row.facts();
        let path = match path {
            "" => setting.name.to_owned(),
            path => format!("{path}.{}", setting.name),
        };
        rows.push(Row {
            about: setting.sentence(),
            expected: facts.expected.clone(),
            default: setting.default(&base),
            waits: facts.waits,
            is_required: facts.is_required,
            path: path.clone(),
        });
        let inner = (facts.rows)(&path).into_iter();
        rows.extend(inner.map(|row| Row {
            waits: row.waits || facts.waits,
            ..row
        }));
    }
    rows
}

/// The JSON schema of a configuration. It covers each setting alone, not rules across settings.
#[must_use]
pub fn schema() -> serde_json::Value {
    super::table::schema::<Config>()
}

/// The settings whose change takes a restart, as a part of a sentence: what help says of them.
#[cfg(test)]
pub(crate) fn waits_for_a_start() -> String {
    let rows = rows::<Config>("").into_iter().filter(|row| row.waits);
    let paths: Vec<String> = rows.map(|row| row.path).collect();
    let is_inside = |path: &str| {
        paths
            .iter()
            .any(|other| path.starts_with(&format!("{other}.")))
    };
    let outer: Vec<&str> = paths
        .iter()
        .map(String::as_str)
        .filter(|path| !is_inside(path))
        .collect();
    match &outer[..] {
        [others @ .., last] if !others.is_empty() => format!("{} and {last}", others.join(", ")),
        all => all.concat(),
    }
}

/// Every setting: its name, what it is, what may be written, its default, and whether a change
/// takes a restart.
#[must_use]
pub fn reference() -> String {
    let mut text = String::new();
    for row in rows::<Config>("") {
        let _ = writeln!(text, "{}", row.path);
        let _ = writeln!(text, "    {}", row.about);
        let _ = write!(text, "    {}", row.expected);
        if row.is_required {
            text.push_str("; required");
        }
        if let Some(default) = row.default {
            let _ = write!(text, "; default {default}");
        }
        text.push_str(if row.waits {
            "; takes a restart\n"
        } else {
            "; changes on reload\n"
        });
    }
    text
}
