//! Commands that change something. Each prints what it changed, and the new version.

use std::time::Duration;

use hyper::Method;
use serde::Serialize;

use super::args::{
    AddArgs, Change, ClientOptions, ReadyArgs, RemoveArgs, SetCommand, StateArgs, Wait, WeightArgs,
};
use super::client::{Client, ClientError, path};
use super::find::{BackendName, find_all};
use super::show;
use super::units::{plain, plural};
use crate::admin::model::{
    BackendChange, Changed, LimitChange, NewBackend, PoolChange, PoolStatus, Reloaded, Reopened,
};
use crate::cli::args::Maybe;
use crate::config::values::written;
use crate::config::{AdminState, Backend};
use crate::sys;

pub(super) async fn add(args: &AddArgs) -> Result<(), ClientError> {
    let client = Client::new(&args.how.options)?;
    let backend = &args.backend;
    let default = Backend::at(backend.address.clone());
    let new = NewBackend {
        address: backend.target().to_string(),
        name: args.name.clone(),
        weight: (backend.weight != default.weight).then(|| backend.weight.into()),
        max_connections: backend.max_connections.map(u32::from),
        backup: backend.backup.then_some(true),
        group: args.group.clone(),
        state: args.state.map(|state| state.as_str().to_owned()),
        keep: false,
    };
    let to = path(&["pools", &args.pool, "backends"]);
    let changed = client.send(Method::POST, &to, &new).await?;
    let name = args.name.as_ref().unwrap_or(&backend.name);
    report(&args.how, changed, &format!("{}/{name} added", args.pool));
    Ok(())
}

pub(super) async fn remove(args: &RemoveArgs) -> Result<(), ClientError> {
    let client = Client::new(&args.how.options)?;
    let all = find_all(&client, &args.backends).await?;
    for one in &all {
        let changed = client.delete(&one.path()).await?;
        report(&args.how, changed, &format!("{} removed", one.written()));
    }
    wait_until_idle(&client, &all, args.wait).await
}

pub(super) async fn weight(args: &WeightArgs) -> Result<(), ClientError> {
    let backends = std::slice::from_ref(&args.backend);
    set_backends(backends, Some(args.weight), None, &args.how).await
}

pub(super) async fn ready(args: &ReadyArgs) -> Result<(), ClientError> {
    let client = Client::new(&args.how.options)?;
    let all = find_all(&client, &args.backends).await?;
    state(&client, &all, &args.how, AdminState::Ready).await
}

/// Takes backends out of rotation: drain or maint.
pub(super) async fn take_out(args: &StateArgs, to: AdminState) -> Result<(), ClientError> {
    let client = Client::new(&args.how.options)?;
    let all = find_all(&client, &args.backends).await?;
    state(&client, &all, &args.how, to).await?;
    wait_until_idle(&client, &all, args.wait).await
}

async fn state(
    client: &Client,
    all: &[BackendName],
    how: &Change,
    to: AdminState,
) -> Result<(), ClientError> {
    let change = BackendChange {
        state: Some(to.as_str().to_owned()),
        ..BackendChange::default()
    };
    let is = match to {
        AdminState::Ready => "is ready",
        AdminState::Drain => "drains: no new sessions",
        AdminState::Maint => "is out of service: no new sessions, no probes",
    };
    for one in all {
        let changed = client.send(Method::PATCH, &one.path(), &change).await?;
        report(how, changed, &format!("{} {is}", one.written()));
    }
    Ok(())
}

/// With --wait: waits until none of these backends has a connection. All share one deadline.
async fn wait_until_idle(
    client: &Client,
    all: &[BackendName],
    wait: Wait,
) -> Result<(), ClientError> {
    let Some(deadline) = wait.wait else {
        return Ok(());
    };
    let begun = sys::monotonic();
    for one in all {
        wait_for_one(client, one, deadline, begun).await?;
    }
    Ok(())
}

async fn wait_for_one(
    client: &Client,
    found: &BackendName,
    deadline: Maybe<Duration>,
    begun: u64,
) -> Result<(), ClientError> {
    loop {
        let of = path(&["pools", &found.pool]);
        let pool: PoolStatus = client.get(&of).await?;
        let its = pool.backends.iter().filter(|one| one.name == found.backend);
        let connections: u64 = its.map(|backend| backend.connections).sum();
        if connections == 0 {
            return Ok(());
        }
        let waited = Duration::from_nanos(sys::monotonic() - begun);
        if let Some(longest) = deadline.filter(|longest| waited >= *longest) {
            return Err(ClientError::StillBusy(format!(
                "{} still has {} after {}",
                found.written(),
                plural(connections, "connection"),
                written(longest),
            )));
        }
        tokio::time::sleep(POLL).await;
    }
}

pub(super) async fn set(command: &SetCommand) -> Result<(), ClientError> {
    match command {
        SetCommand::Pool {
            pool,
            settings,
            how,
        } => {
            let change = PoolChange {
                strategy: settings.strategy.clone(),
                max_connections: settings.max_connections,
                queue_max: settings.queue_max,
                queue_timeout: settings.queue_timeout.clone(),
                keep: false,
            };
            let what = words([
                ("strategy", settings.strategy.clone()),
                ("max_connections", settings.max_connections.map(limit)),
                ("queue_max", settings.queue_max.map(|max| max.to_string())),
                ("queue_timeout", settings.queue_timeout.clone()),
            ]);
            let client = Client::new(&how.options)?;
            patch(
                &client,
                &path(&["pools", pool]),
                &change,
                how,
                (pool, &what),
            )
            .await
        }
        SetCommand::Backend {
            backends,
            settings,
            how,
        } => {
            let (weight, max_connections) = (settings.weight, settings.max_connections);
            set_backends(backends, weight, max_connections, how).await
        }
        SetCommand::Listener {
            listener,
            max_connections,
            how,
        } => set_limit(&["listeners", listener], listener, *max_connections, how).await,
        SetCommand::Global {
            max_connections,
            how,
        } => set_limit(&["limits"], "global", *max_connections, how).await,
    }
}

async fn set_backends(
    backends: &[String],
    weight: Option<u32>,
    max_connections: Option<u32>,
    how: &Change,
) -> Result<(), ClientError> {
    let client = Client::new(&how.options)?;
    let all = find_all(&client, backends).await?;
    let change = BackendChange {
        weight,
        max_connections,
        ..BackendChange::default()
    };
    let what = words([
        ("weight", weight.map(|weight| weight.to_string())),
        ("max_connections", max_connections.map(limit)),
    ]);
    for one in &all {
        patch(&client, &one.path(), &change, how, (&one.written(), &what)).await?;
    }
    Ok(())
}

async fn set_limit(
    to: &[&str],
    name: &str,
    max_connections: u32,
    how: &Change,
) -> Result<(), ClientError> {
    let client = Client::new(&how.options)?;
    let change = LimitChange {
        max_connections,
        keep: false,
    };
    let what = words([("max_connections", Some(limit(max_connections)))]);
    patch(&client, &path(to), &change, how, (name, &what)).await
}

/// Changes settings, and prints what is in force.
async fn patch(
    client: &Client,
    to: &str,
    change: &impl Serialize,
    how: &Change,
    (name, what): (&str, &str),
) -> Result<(), ClientError> {
    let changed = client.send(Method::PATCH, to, change).await?;
    report(how, changed, &format!("{name} has {what}"));
    Ok(())
}

/// Settings with their values: those that are given.
fn words<const N: usize>(settings: [(&str, Option<String>); N]) -> String {
    let given = settings.into_iter();
    let given = given.filter_map(|(name, value)| Some(format!("{name} {}", value?)));
    given.collect::<Vec<_>>().join(", ")
}

/// A limit, as a file writes it.
fn limit(max: u32) -> String {
    match max {
        0 => "off".to_owned(),
        max => max.to_string(),
    }
}

pub(super) async fn reload(options: &ClientOptions) -> Result<(), ClientError> {
    let client = Client::new(options)?;
    let reloaded: Reloaded = client.post(&path(&["reload"])).await?;
    show(options, &reloaded, |reloaded, _| {
        let notes = reloaded.notes.iter();
        let notes: String = notes.map(|note| plain(note) + "\n").collect();
        let sentence = Reloaded::sentence(reloaded.snapshot, reloaded.changed);
        format!("{sentence}\n{notes}")
    });
    Ok(())
}

pub(super) async fn reopen(options: &ClientOptions) -> Result<(), ClientError> {
    let client = Client::new(options)?;
    let reopened: Reopened = client.post(&path(&["reopen"])).await?;
    show(
        options,
        &reopened,
        |reopened, _| match &reopened.files[..] {
            [] => "no log is written to a file: nothing to open again\n".to_owned(),
            files => format!("opened again: {}\n", plain(&files.join(", "))),
        },
    );
    Ok(())
}

/// Prints what is in force after a command, and warnings about it.
fn report(how: &Change, changed: Changed, what: &str) {
    show(&how.options, &changed, |changed, _| {
        let unchanged = if changed.changed { "" } else { ", as before" };
        format!("version {}: {what}{unchanged}\n", changed.snapshot)
    });
    if !how.options.json {
        for note in &changed.notes {
            crate::cli::say(&format_args!("warning: {}", plain(note)));
        }
    }
}

/// How often to look whether a backend is idle.
const POLL: Duration = Duration::from_millis(250);
