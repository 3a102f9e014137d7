//! Commands that change something. Each prints what it changed, and the new version.

use std::time::Duration;

use hyper::Method;

use super::args::{
    AddArgs, Change, ClientOptions, ReadyArgs, RemoveArgs, SetCommand, StateArgs, Wait, WeightArgs,
};
use super::client::{Client, ClientError, path};
use super::find::{BackendName, find, find_all};
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
    let client = Client::new(&args.how.options)?;
    let found = find(&client, &args.backend).await?;
    let change = BackendChange {
        weight: Some(args.weight),
        ..BackendChange::default()
    };
    let changed = client.send(Method::PATCH, &found.path(), &change).await?;
    let what = format!("{} has weight {}", found.written(), args.weight);
    report(&args.how, changed, &what);
    Ok(())
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
        SetCommand::Strategy {
            pool,
            strategy,
            how,
        } => {
            let change = PoolChange {
                strategy: Some(strategy.clone()),
                ..PoolChange::default()
            };
            let what = format!("{pool} selects by {strategy}");
            set_pool((pool, &change), how, &what).await
        }
        SetCommand::Queue {
            pool,
            max,
            timeout,
            how,
        } => {
            let change = PoolChange {
                queue_max: *max,
                queue_timeout: timeout.clone(),
                ..PoolChange::default()
            };
            let places = max.map(|max| plural(max.into(), "place"));
            let wait = timeout
                .as_ref()
                .map(|time| format!("a wait of at most {time}"));
            let has: Vec<_> = places.into_iter().chain(wait).collect();
            let what = format!("the queue of {pool} has {}", has.join(" and "));
            set_pool((pool, &change), how, &what).await
        }
        SetCommand::Limit {
            limit,
            pool,
            listener,
            backend,
            how,
        } => match (pool, listener, backend) {
            (Some(pool), ..) => {
                let change = PoolChange {
                    max_connections: Some(*limit),
                    ..PoolChange::default()
                };
                set_pool(
                    (pool, &change),
                    how,
                    &limit_of(&format!("to {pool}"), *limit),
                )
                .await
            }
            (_, Some(listener), _) => {
                let to = path(&["listeners", listener]);
                set_limit(&to, how, *limit, &format!("of clients of {listener}")).await
            }
            (_, _, Some(backend)) => set_backend_limit(backend, how, *limit).await,
            (None, None, None) => set_limit(&path(&["limits"]), how, *limit, "of clients").await,
        },
    }
}

async fn set_pool(
    (pool, change): (&str, &PoolChange),
    how: &Change,
    what: &str,
) -> Result<(), ClientError> {
    let client = Client::new(&how.options)?;
    let to = path(&["pools", pool]);
    let changed = client.send(Method::PATCH, &to, change).await?;
    report(how, changed, what);
    Ok(())
}

async fn set_limit(to: &str, how: &Change, limit: u32, whose: &str) -> Result<(), ClientError> {
    let client = Client::new(&how.options)?;
    let change = LimitChange {
        max_connections: limit,
        keep: false,
    };
    let changed = client.send(Method::PATCH, to, &change).await?;
    report(how, changed, &limit_of(whose, limit));
    Ok(())
}

async fn set_backend_limit(backend: &str, how: &Change, limit: u32) -> Result<(), ClientError> {
    let client = Client::new(&how.options)?;
    let found = find(&client, backend).await?;
    let change = BackendChange {
        max_connections: Some(limit),
        ..BackendChange::default()
    };
    let changed = client.send(Method::PATCH, &found.path(), &change).await?;
    let what = limit_of(&format!("to {}", found.written()), limit);
    report(how, changed, &what);
    Ok(())
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
            [] => "no log is a file: there is nothing to open\n".to_owned(),
            files => format!("opened again: {}\n", plain(&files.join(", "))),
        },
    );
    Ok(())
}

/// Prints what a command changed.
fn report(how: &Change, changed: Changed, what: &str) {
    show(&how.options, &changed, |changed, _| {
        format!("version {}: {what}\n", changed.snapshot)
    });
}

fn limit_of(whose: &str, limit: u32) -> String {
    match limit {
        0 => format!("connections {whose} have no limit of their own"),
        _ => format!("at most {} {whose}", plural(limit.into(), "connection")),
    }
}

/// How often to look whether a backend is idle.
const POLL: Duration = Duration::from_millis(250);
