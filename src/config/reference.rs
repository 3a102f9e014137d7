//! The reference of all settings, generated from their tables.

use std::fmt::Write;
use std::sync::Arc;

use serde_json::{Value as Json, json};

use super::Config;
use super::table::Settings;
use super::values::{self, ValueError};

/// A setting, as the reference and the help of flags show it.
#[allow(
    missing_debug_implementations,
    reason = "functions have nothing to show"
)]
pub struct SettingInfo {
    /// Its name, with the groups that contain it.
    pub path: String,
    /// Its description, in one line.
    pub about: String,
    expected: String,
    /// The text of its default, if it has one.
    pub default: Option<String>,
    /// A change takes effect with the next start.
    pub waits: bool,
    is_required: bool,
    /// Its value is a group of settings.
    pub(super) is_group: bool,
    /// Validates its value as a flag has it.
    pub read: Arc<ReadFlag>,
}

type ReadFlag = dyn Fn(&str) -> Result<(), ValueError> + Send + Sync;

/// Every setting. A setting that is itself a group is followed by its settings.
#[must_use]
pub fn all_settings() -> Vec<SettingInfo> {
    rows::<Config>("")
}

/// The settings of a group. A setting that is itself a group is followed by its settings.
pub(super) fn rows<T: Settings>(path: &str) -> Vec<SettingInfo> {
    let mut rows = Vec::new();
    let base = T::base();
    for setting in T::table() {
        let facts = setting.row.facts();
        let path = match path {
            "" => setting.name.to_owned(),
            path => format!("{path}.{}", setting.name),
        };
        rows.push(SettingInfo {
            about: setting.sentence(),
            expected: facts.expected.clone(),
            default: setting.default(&base),
            waits: facts.waits,
            is_required: facts.is_required,
            is_group: facts.are_groups(),
            path: path.clone(),
            read: Arc::new(|text| setting.read_flag(text, &mut T::base())),
        });
        let inner = (facts.rows)(&path).into_iter();
        rows.extend(inner.map(|row| SettingInfo {
            waits: row.waits || facts.waits,
            ..row
        }));
    }
    rows
}

/// The JSON schema of a configuration. It covers each setting alone, not rules across settings.
#[must_use]
pub fn schema() -> Json {
    super::table::schema::<Config>()
}

/// The settings at this path and within it, or all for an empty path.
///
/// # Errors
/// There is no such setting.
pub fn settings_at(path: &str) -> Result<Vec<SettingInfo>, ValueError> {
    let mut rows = all_settings();
    let is_within = |row: &SettingInfo| {
        let rest = row.path.strip_prefix(path);
        path.is_empty() || rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    if !rows.iter().any(is_within) {
        let paths = rows.iter().map(|row| &*row.path);
        // Someone may know a setting, and not where it stands.
        let ending = format!(".{path}");
        let elsewhere = paths.clone().filter(|one| one.ends_with(&ending));
        let elsewhere: Vec<_> = elsewhere.collect();
        let hint = match &elsewhere[..] {
            [] => values::did_you_mean(path, paths),
            places => format!(": there is {}", values::one_of(places)),
        };
        return Err(ValueError::Refused(format!(
            "there is no setting `{path}`{hint}"
        )));
    }
    rows.retain(is_within);
    Ok(rows)
}

/// Settings as JSON, with the fields of [`reference()`].
#[must_use]
pub fn reference_json(rows: &[SettingInfo]) -> Json {
    let all = rows.iter().map(|row| {
        json!({
            "name": row.path,
            "about": row.about,
            "expected": row.expected,
            "default": row.default,
            "required": row.is_required,
            "restart": row.waits,
        })
    });
    all.collect()
}

/// Settings in text: the name of each, what it is, what may be written, its default, and whether a
/// change takes a restart.
#[must_use]
pub fn reference(rows: Vec<SettingInfo>) -> String {
    let mut text = String::new();
    for row in rows {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_example_of_a_group_is_valid() {
        let rows = all_settings();
        let groups = rows.iter().filter(|row| row.expected.contains("such as ("));
        let mut count = 0;
        for row in groups {
            let (_, example) = row.expected.split_once("such as ").unwrap();
            // Where dots stand for more, the example is none to be read.
            if !example.contains("...") {
                assert_eq!((row.read)(example).err(), None, "{}: {example}", row.path);
                count += 1;
            }
        }
        assert!(count > 10, "{count}");
    }
}
