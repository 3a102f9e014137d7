//! A change in words and values, for events and the audit log.

use serde_json::Value;

use crate::config::{Change, Config, Topic, backend_values, changeable_values, route_values};
use crate::control::events::Subject;
use crate::guard::Access;

/// The differences between two states of the same thing, in words.
pub(super) fn differences(old: &Value, new: &Value) -> String {
    let (Some(old), Some(new)) = (old.as_object(), new.as_object()) else {
        return "changed".to_owned();
    };
    let differ = new
        .iter()
        .filter(|(field, value)| old.get(*field) != Some(value));
    let differ = differ.map(|(field, value)| match old.get(field) {
        Some(before) => format!("{field} {} to {}", word(before), word(value)),
        None => format!("{field} {} added", word(value)),
    });
    let gone = old.iter().filter(|(field, _)| new.get(*field).is_none());
    let gone = gone.map(|(field, value)| format!("{field} {} removed", word(value)));
    let differ = differ.chain(gone);
    let mut differ: Vec<_> = differ.collect();
    if differ.is_empty() {
        return "unchanged".to_owned();
    }
    let more = differ.len().saturating_sub(DIFFERENCES_MAX);
    differ.truncate(DIFFERENCES_MAX);
    let differ = differ.join(", ");
    match more {
        0 => differ,
        more => format!("{differ} and {more} more"),
    }
}

fn word(value: &Value) -> String {
    match value {
        Value::Null => "off".to_owned(),
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}

/// The name of a change in the audit log.
pub(super) fn action(change: &Change) -> &'static str {
    match change {
        Change::AddBackend { .. } => "add_backend",
        Change::RemoveBackend { .. } => "remove_backend",
        Change::SetBackend { .. } => "set_backend",
        Change::SetPool { .. } => "set_pool",
        Change::SetListener { .. } => "set_listener",
        Change::SetRoutes { .. } => "set_routes",
        Change::WeighRoute { .. } => "set_route",
        Change::EditAccessList { .. } => "edit_access_list",
        Change::SetGlobal { .. } => "set_global",
    }
}

/// The name of what a change is about, in events and in the audit log.
pub(super) fn target(topic: Topic<'_>) -> String {
    match topic {
        Topic::Backend(..) => topic.to_string(),
        Topic::Pool(name) | Topic::Listener(name) | Topic::AccessList(name) => name.to_owned(),
        Topic::Global => topic.to_string(),
    }
}

pub(super) fn subject(topic: Topic<'_>) -> Subject<'_> {
    match topic {
        Topic::Backend(pool, backend) => Subject::backend(pool, backend),
        Topic::Pool(pool) => Subject::pool(pool),
        Topic::Listener(_) | Topic::AccessList(_) | Topic::Global => Subject::default(),
    }
}

/// The values of a change's subject in a configuration, for the audit log.
pub(super) fn values(change: &Change, config: &Config) -> Option<Value> {
    match change.topic() {
        Topic::Backend(pool, backend) => config.pool(pool)?.backend(backend).map(backend_values),
        Topic::Pool(pool) => config.pool(pool).map(changeable_values),
        Topic::Listener(name) => {
            if let Change::SetRoutes { .. } | Change::WeighRoute { .. } = change {
                return route_values(change, config);
            }
            config.listener(name).map(changeable_values)
        }
        Topic::AccessList(name) => {
            let list = config.access_lists.iter().find(|its| its.name == name)?;
            let Change::EditAccessList { edits, .. } = change else {
                return None;
            };
            // Of the list there may be much more.
            let now = edits.now(list);
            let now = now
                .iter()
                .map(|(prefix, access)| (prefix.to_string(), access.map(Access::as_str).into()));
            Some(Value::Object(now.collect()))
        }
        Topic::Global => Some(changeable_values(config)),
    }
}

/// Differences that an event names.
const DIFFERENCES_MAX: usize = 10;
