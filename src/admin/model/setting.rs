//! Schemas of settings, as the tables of the configuration have them.

use schemars::{Schema, SchemaGenerator};

use crate::config::setting_schema;

pub(super) fn weight(_: &mut SchemaGenerator) -> Schema {
    of("pools.backends.weight")
}

pub(super) fn queue_timeout(_: &mut SchemaGenerator) -> Schema {
    of("pools.queue.timeout")
}

fn of(path: &str) -> Schema {
    let schema = setting_schema(path).and_then(|schema| schema.try_into().ok());
    schema.unwrap_or_default()
}
