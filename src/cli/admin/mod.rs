//! The command line as a client of a running balancer's admin API.
//!
//! Exit codes: 0 done, 1 the balancer can't be reached or refuses, 2 a mistake in arguments or
//! environment.

mod args;
mod change;
mod client;
mod events;
mod find;
mod place;
mod sessions;
mod show;
mod table;
mod top;
mod units;

pub use args::{
    AddArgs, Asked, BackendsArgs, Change, ClientCommand, ConfigCommand, EventsArgs, HistogramsArgs,
    PoolsArgs, ReadyArgs, RemoveArgs, SessionsArgs, SetCommand, StateArgs, TopArgs, Wait,
    WeightArgs,
};
pub use place::{Place, PlaceError};

use std::io::{self, Write};
use std::ops::ControlFlow;
use std::process::ExitCode;

use serde::Serialize;

use crate::config::AdminState;
use client::ClientError;
use table::Paint;

/// Asks the balancer, and shows what it answers.
#[must_use]
pub(super) fn ask(command: &ClientCommand) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let done = match runtime {
        Ok(runtime) => runtime.block_on(run(command)).map_err(|error| {
            super::say(&format_args!("error: {error}"));
            error.exit_code()
        }),
        Err(error) => {
            super::say(&format_args!("error: cannot create the runtime: {error}"));
            Err(1)
        }
    };
    done.map_or_else(ExitCode::from, |()| ExitCode::SUCCESS)
}

async fn run(command: &ClientCommand) -> Result<(), ClientError> {
    match command {
        ClientCommand::Status(asked) => show::status(asked).await,
        ClientCommand::Listeners(asked) => show::listeners(asked).await,
        ClientCommand::Pools(args) => show::pools(args).await,
        ClientCommand::Backends(args) => show::backends(args).await,
        ClientCommand::Sessions(args) => sessions::sessions(args).await,
        ClientCommand::Add(args) => change::add(args).await,
        ClientCommand::Remove(args) => change::remove(args).await,
        ClientCommand::Weight(args) => change::weight(args).await,
        ClientCommand::Drain(args) => change::leave(args, AdminState::Drain).await,
        ClientCommand::Ready(args) => change::ready(args).await,
        ClientCommand::Maint(args) => change::leave(args, AdminState::Maint).await,
        ClientCommand::Set(command) => change::set(command).await,
        ClientCommand::Reload(asked) => change::reload(asked).await,
        ClientCommand::Reopen(asked) => change::reopen(asked).await,
        ClientCommand::Config(ConfigCommand::Show(asked)) => show::config(asked).await,
        ClientCommand::Config(ConfigCommand::Reference { schema }) => {
            show::reference(*schema);
            Ok(())
        }
        ClientCommand::Histograms(args) => show::histograms(args).await,
        ClientCommand::Events(args) => events::events(args).await,
        ClientCommand::Top(args) => top::top(args).await,
    }
}

/// Shows a value: as JSON with --json, else as a text.
fn show<T: Serialize>(asked: &Asked, value: &T, text: impl FnOnce(&T, Paint) -> String) {
    let text = if asked.json {
        let json = serde_json::to_string_pretty(value);
        json.expect("the model has text for keys alone") + "\n"
    } else {
        text(value, Paint::of_stdout())
    };
    // A reader that closed standard output did not want to read it.
    let _ = print(&text);
}

/// Writes to standard output at once; breaks when nobody reads it any more.
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
