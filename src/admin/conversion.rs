//! Turns bodies of requests into changes of the configuration. Values follow the rules of
//! `config.ron`.

use std::num::NonZeroU32;
use std::ops::RangeInclusive;

use super::model::{BackendChange, NewBackend, PoolChange, SessionFilter};
use super::refusal::Refusal;
use crate::config::values::ValueError;
use crate::config::{AdminState, Backend, BackendPatch, Change, PoolPatch, Strategy, values};

/// A limit of connections; 0: no limit.
pub(super) fn limit(connections: u32) -> Result<Option<NonZeroU32>, Refusal> {
    let limit = NonZeroU32::new(connections);
    if limit.is_some() {
        number("max_connections", connections, values::CONNECTIONS)?;
    }
    Ok(limit)
}

fn number(name: &str, number: u32, range: RangeInclusive<u32>) -> Result<u32, Refusal> {
    let text = number.to_string();
    named(name, &text, values::number(&text, range))
}

/// Adds the name of a field to the error of its value.
fn named<T>(name: &str, text: &str, read: Result<T, ValueError>) -> Result<T, Refusal> {
    read.map_err(|error| ValueError::Refused(error.about(name, text)).into())
}

fn weight(weight: u32) -> Result<u16, Refusal> {
    let weight = number("weight", weight, values::WEIGHT)?;
    Ok(u16::try_from(weight).expect("WEIGHT ends below"))
}

fn state(name: &str) -> Result<AdminState, Refusal> {
    Ok(values::admin_state(name)?)
}

fn strategy(text: &str) -> Result<Strategy, Refusal> {
    named("strategy", text, values::strategy_of(text))
}

/// A new backend.
pub(super) fn backend(body: &NewBackend) -> Result<Backend, Refusal> {
    let mut backend = values::backend_at(&body.address)?;
    if let Some(name) = &body.name {
        backend.name = named("name", name, values::name(name))?;
    }
    if let Some(new) = body.weight {
        backend.weight = weight(new)?;
    }
    if let Some(new) = body.max_connections {
        backend.max_connections = limit(new)?;
    }
    if let Some(new) = &body.state {
        backend.state = state(new)?;
    }
    backend.backup = body.backup.unwrap_or(backend.backup);
    backend.group.clone_from(&body.group);
    Ok(backend)
}

pub(super) fn backend_change(
    pool: String,
    backend: String,
    body: &BackendChange,
) -> Result<Change, Refusal> {
    let fields = BackendChange {
        keep: false,
        ..body.clone()
    };
    refuse_empty(fields == BackendChange::default())?;
    Ok(Change::SetBackend {
        pool,
        backend,
        patch: BackendPatch {
            weight: body.weight.map(weight).transpose()?,
            max_connections: body.max_connections.map(limit).transpose()?,
            state: body.state.as_deref().map(state).transpose()?,
        },
    })
}

pub(super) fn pool_change(pool: String, body: &PoolChange) -> Result<Change, Refusal> {
    let fields = PoolChange {
        keep: false,
        ..body.clone()
    };
    refuse_empty(fields == PoolChange::default())?;
    let waiting = |max: u32| number("queue_max", max, values::QUEUE);
    let time = |text: &str| {
        let time = values::duration(text, values::QUEUE_WAIT);
        named("queue_timeout", text, time)
    };
    Ok(Change::SetPool {
        pool,
        patch: PoolPatch {
            strategy: body.strategy.as_deref().map(strategy).transpose()?,
            max_connections: body.max_connections.map(limit).transpose()?,
            queue_max: body.queue_max.map(waiting).transpose()?,
            queue_timeout: body.queue_timeout.as_deref().map(time).transpose()?,
        },
    })
}

/// Closing all sessions takes an explicit `all=true`.
pub(super) fn refuse_unclear_kill(filter: &SessionFilter) -> Result<(), Refusal> {
    let others = SessionFilter {
        all: false,
        ..filter.clone()
    };
    let why = match (filter.all, others == SessionFilter::default()) {
        _ if filter.limit.is_some() => "`limit` goes with a list only",
        (true, true) | (false, false) => return Ok(()),
        (false, true) => "expected a filter, or `all=true` for every session",
        (true, false) => "`all=true` goes with no other filter",
    };
    Err(Refusal::malformed(why))
}

fn refuse_empty(is_empty: bool) -> Result<(), Refusal> {
    if is_empty {
        return Err(Refusal::malformed("expected at least one field to change"));
    }
    Ok(())
}
