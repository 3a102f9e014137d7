//! The command line as a client of a running balancer's admin API.
//!
//! Exit codes: 0 done, 1 the balancer can't be reached or refuses, 2 a mistake in arguments or
//! environment.

mod access;
mod address;
mod args;
mod bans;
mod change;
mod client;
mod configuration;
mod events;
mod explain;
mod find;
mod history;
mod leave;
mod route;
mod routes;
mod sessions;
mod settings;
mod show;
mod table;
mod top;
mod units;

pub use address::{AdminAddress, AdminAddressError};
pub use args::{
    AccessArgs, AddArgs, BackendsArgs, BanArgs, BansArgs, ChangeArgs, ClientCommand, ClientOptions,
    ConfigCommand, EditArgs, EventsArgs, ExpectedVersion, ExplainArgs, HistogramsArgs, HistoryArgs,
    LeaveArgs, PoolsArgs, ReadyArgs, RouteArgs, RoutesArgs, SessionsArgs, SetCommand, SetRouteArgs,
    SetRoutesArgs, TakeOutArgs, TopArgs, UnbanArgs, Wait, WeightArgs,
};

use std::io::{self, Write};
use std::ops::ControlFlow;
use std::process::ExitCode;

use serde::Serialize;

use crate::config::AdminState;
pub(super) use args::{with_joined_wait, with_options_behind};
use client::ClientError;
pub(super) use client::is_default;
use table::Paint;

/// Runs a command: asks the balancer, and shows the answer.
#[must_use]
pub(super) fn ask(command: &ClientCommand) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let done = match runtime {
        Ok(runtime) => runtime.block_on(run(command)).map_err(|error| {
            super::say_error(&error);
            error.exit_code()
        }),
        Err(error) => {
            super::say_error(&format_args!("cannot create the runtime: {error}"));
            Err(1)
        }
    };
    done.map_or_else(ExitCode::from, |()| ExitCode::SUCCESS)
}

async fn run(command: &ClientCommand) -> Result<(), ClientError> {
    match command {
        ClientCommand::Status(options) => show::status(options).await,
        ClientCommand::Listeners(options) => show::listeners(options).await,
        ClientCommand::Pools(args) => show::pools(args).await,
        ClientCommand::Backends(args) => show::backends(args).await,
        ClientCommand::Sessions(args) => sessions::sessions(args).await,
        ClientCommand::Explain(args) => explain::explain(args).await,
        ClientCommand::Route(args) => route::route(args).await,
        ClientCommand::Routes(args) => routes::routes(args).await,
        ClientCommand::Add(args) => change::add(args).await,
        ClientCommand::Remove(args) => change::remove(args).await,
        ClientCommand::Weight(args) => change::weight(args).await,
        ClientCommand::Drain(args) => change::take_out(args, AdminState::Drain).await,
        ClientCommand::Ready(args) => change::ready(args).await,
        ClientCommand::Maint(args) => change::take_out(args, AdminState::Maint).await,
        ClientCommand::Set(command) => change::set(command).await,
        ClientCommand::Access(args) => access::access(args).await,
        ClientCommand::Allow(args) => access::edit(args, "allow").await,
        ClientCommand::Deny(args) => access::edit(args, "deny").await,
        ClientCommand::Unlist(args) => access::edit(args, "remove").await,
        ClientCommand::Bans(args) => bans::bans(args).await,
        ClientCommand::Ban(args) => bans::ban(args).await,
        ClientCommand::Unban(args) => bans::unban(args).await,
        ClientCommand::Reload(options) => change::reload(options).await,
        ClientCommand::Leave(args) => leave::leave(args).await,
        ClientCommand::Join(options) => leave::join(options).await,
        ClientCommand::Reopen(options) => change::reopen(options).await,
        ClientCommand::Config(ConfigCommand::Show { sources, options }) => {
            configuration::in_force(options, *sources).await
        }
        ClientCommand::Config(ConfigCommand::Reference { at, json, schema }) => {
            configuration::reference(at, *json, *schema)
        }
        ClientCommand::Histograms(args) => show::histograms(args).await,
        ClientCommand::Events(args) => events::events(args).await,
        ClientCommand::Top(args) => top::top(args).await,
        ClientCommand::History(args) => history::history(args).await,
    }
}

/// Prints a value: as JSON with --json, else as text.
fn show<T: Serialize>(options: &ClientOptions, value: &T, text: impl FnOnce(&T, Paint) -> String) {
    let text = if options.json {
        let json = serde_json::to_string_pretty(value);
        json.expect("the model has text for keys alone") + "\n"
    } else {
        text(value, Paint::of_stdout())
    };
    // A reader that closed standard output does not need the rest.
    let _ = print(&text);
}

/// Writes to standard output and flushes; breaks when its reader is gone.
fn print(text: &str) -> ControlFlow<()> {
    let mut stdout = io::stdout().lock();
    let written = stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush());
    match written {
        Ok(()) => ControlFlow::Continue(()),
        Err(_) => ControlFlow::Break(()),
    }
}
