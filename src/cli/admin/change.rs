//! Commands that change something. Each prints what it changed, and the snapshot's number.

use std::time::Duration;

use hyper::Method;
use serde_json::json;

use super::args::{
    AddArgs, ChangeArgs, ClientOptions, ReadyArgs, SetCommand, TakeOutArgs, Wait, WeightArgs,
};
use super::client::{Client, ClientError, path};
use super::find::{BackendName, find_all};
use super::settings::SettingFlags;
use super::units::plain;
use super::{print, routes, show};
use crate::admin::model::{Changed, PoolStatus, Reloaded, Reopened};
use crate::cli::args::Maybe;
use crate::config::values::written;
use crate::config::{AdminState, Backend, Changeable, Patch};
use crate::sys;
use crate::time::between;
use crate::wording::plural;

pub(super) async fn add(args: &AddArgs) -> Result<(), ClientError> {
    let client = Client::new(&args.how.options)?;
    let given = args.backend.clone();
    let backend = Backend {
        name: args.name.clone().unwrap_or(given.name),
        group: args.group.clone(),
        member: args.member,
        state: args.state.unwrap_or(given.state),
        ..given
    };
    let to = path(&["pools", &args.pool, "backends"]);
    let changed: Changed = client.send(Method::POST, &to, &backend.json()).await?;
    let member = changed.member.map(|number| format!(" as member {number}"));
    let member = member.unwrap_or_default();
    let what = format!("{}/{} added{member}", args.pool, backend.name);
    report(&args.how, &changed, &what);
    Ok(())
}

pub(super) async fn remove(args: &TakeOutArgs) -> Result<(), ClientError> {
    let client = Client::new(&args.how.options)?;
    let all = find_all(&client, &args.backends).await?;
    for one in &all {
        let changed = client.delete(&one.path()).await?;
        report(&args.how, &changed, &format!("{} removed", one.written()));
    }
    wait_until_idle(&client, &all, args.wait).await
}

pub(super) async fn weight(args: &WeightArgs) -> Result<(), ClientError> {
    let backends = std::slice::from_ref(&args.backend);
    set_backends(backends, &args.weight, &args.how).await
}

pub(super) async fn ready(args: &ReadyArgs) -> Result<(), ClientError> {
    let client = Client::new(&args.how.options)?;
    let all = find_all(&client, &args.backends).await?;
    state(&client, &all, &args.how, AdminState::Ready).await
}

/// Takes backends out of rotation: drain or maint.
pub(super) async fn take_out(args: &TakeOutArgs, to: AdminState) -> Result<(), ClientError> {
    let client = Client::new(&args.how.options)?;
    let all = find_all(&client, &args.backends).await?;
    state(&client, &all, &args.how, to).await?;
    wait_until_idle(&client, &all, args.wait).await
}

async fn state(
    client: &Client,
    all: &[BackendName],
    how: &ChangeArgs,
    to: AdminState,
) -> Result<(), ClientError> {
    let change = json!({ "state": to });
    let is = match to {
        AdminState::Ready => "is ready",
        AdminState::Drain => "drains: no new sessions",
        AdminState::Maint => "is out of service: no new sessions, no probes",
    };
    for one in all {
        let changed = client.send(Method::PATCH, &one.path(), &change).await?;
        report(how, &changed, &format!("{} {is}", one.written()));
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
        let waited = between(begun, sys::monotonic());
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
        } => set_one(&["pools", pool], pool, settings, how).await,
        SetCommand::Backend {
            backends,
            settings,
            how,
        } => set_backends(backends, &settings.0, how).await,
        SetCommand::Listener {
            listener,
            settings,
            how,
        } => set_one(&["listeners", listener], listener, settings, how).await,
        SetCommand::Route(args) => routes::weigh(args).await,
        SetCommand::Routes(args) => routes::replace(args).await,
        SetCommand::Global { settings, how } => set_one(&["limits"], "global", settings, how).await,
    }
}

async fn set_backends(
    backends: &[String],
    new: &Patch<Backend>,
    how: &ChangeArgs,
) -> Result<(), ClientError> {
    let client = Client::new(&how.options)?;
    for one in &find_all(&client, backends).await? {
        patch(&client, &one.path(), &one.written(), new, how).await?;
    }
    Ok(())
}

async fn set_one<G: Changeable>(
    to: &[&str],
    name: &str,
    SettingFlags(new): &SettingFlags<G>,
    how: &ChangeArgs,
) -> Result<(), ClientError> {
    patch(&Client::new(&how.options)?, &path(to), name, new, how).await
}

/// Changes settings, and prints what is in force.
async fn patch<G: Changeable>(
    client: &Client,
    to: &str,
    name: &str,
    new: &Patch<G>,
    how: &ChangeArgs,
) -> Result<(), ClientError> {
    let changed = client.send(Method::PATCH, to, &new.json()).await?;
    report(how, &changed, &format!("{name} has {new}"));
    Ok(())
}

pub(super) async fn reload(options: &ClientOptions) -> Result<(), ClientError> {
    let client = Client::new(options)?;
    let reloaded: Reloaded = client.post(&path(&["reload"])).await?;
    show(options, &reloaded, |reloaded, _| {
        let lines = reloaded.sentence();
        lines.lines().map(|line| plain(line) + "\n").collect()
    });
    warn(options, &reloaded.notes);
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
pub(super) fn report(how: &ChangeArgs, changed: &Changed, what: &str) {
    if how.options.json {
        // On one line: a command may change several things, each with an answer of its own.
        let line = serde_json::to_string(changed).expect("the model has text for keys alone");
        let _ = print(&(line + "\n"));
    } else {
        let unchanged = if changed.changed { "" } else { ", as before" };
        let snapshot = changed.snapshot;
        let _ = print(&format!("snapshot {snapshot}: {what}{unchanged}\n"));
    }
    warn(&how.options, &changed.notes);
}

/// Prints warnings, unless they are in the JSON that was printed.
fn warn(options: &ClientOptions, notes: &[String]) {
    for note in notes.iter().filter(|_| !options.json) {
        crate::cli::say(&format_args!("warning: {}", plain(note)));
    }
}

/// How often to look whether a backend is idle.
const POLL: Duration = Duration::from_millis(250);
