//! The command line: reads the arguments, and runs the command.
//!
//! Exit codes: 0 done; 1 the machine does not allow the start (an address is in use, or is not one
//! of this machine), or the running balancer can't be reached; 2 a mistake in arguments,
//! configuration or environment, or in a file that the configuration names; 3 io_uring is not
//! available; 128 + signal, when a second signal ends it. `run` and `check` agree.

#![forbid(unsafe_code)]

pub mod admin;
mod args;
mod check;
mod demo;
mod plan;
mod proxy;
mod run;
mod simulate;
mod tips;

pub use args::{
    Cli, ConfigFile, FleetSize, Maybe, ProxyArgs, SandboxFlag, SimulateArgs, Simulated, Task,
};
pub use plan::PlanArgs;
pub use proxy::{ProxyError, ProxyFlags, proxy_config};

use std::env;
use std::fmt::Display;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;

use crate::config::{self, Config, ConfigError, Source};
use crate::control::sandbox::{self, RunAs, Sandbox};
use crate::control::{Reread, Seen};
use crate::operational_log;
use crate::sys;

/// The exit code of every mistake in arguments, configuration or environment; clap's own.
const USAGE: u8 = 2;

/// Runs the command that the arguments of the process name.
#[must_use]
pub fn main() -> ExitCode {
    sys::hold_signals();
    let arguments = admin::with_options_behind(admin::with_joined_wait(env::args_os()));
    let command = match Cli::try_parse_from(arguments).map_err(tips::with_tip) {
        Ok(cli) => cli.command,
        Err(error) if error.use_stderr() && is_json() => {
            let text = error.to_string();
            let sentence = text.split("\n\nUsage:").next().unwrap_or_default();
            say_error(&sentence.trim_start_matches("error: "));
            return ExitCode::from(USAGE);
        }
        Err(error) => error.exit(),
    };
    match command {
        Task::Run { .. } | Task::Proxy(_) | Task::Demo(_) => {
            sys::settle_allocator();
            sys::await_signals();
            operational_log::prepare();
        }
        Task::Check { .. }
        | Task::Simulate(_)
        | Task::Plan(_)
        | Task::Client(_)
        | Task::Version => sys::release_signals(),
    }
    let code = execute(command);
    operational_log::flush();
    code
}

fn run_file(path: &Path, mut sandbox: Sandbox) -> ExitCode {
    // Look before reading: if the file changes in between, the next look finds a difference.
    let seen = Seen::of(path);
    let loaded = config::load(path);
    let mut run_as = RunAs::Unchanged;
    if let Ok((config, _)) = &loaded {
        operational_log::set_format(config.log_format);
        run_as = RunAs::Configured(config.user.as_deref());
        sandbox.is_transparent = config.is_transparent();
    }
    // A reload listens on what the file has by then.
    let may_bind = |to| {
        let listens = |loaded: &Result<(Config, _), _>| {
            let config = loaded.as_ref().ok();
            config.is_some_and(|(config, _)| config.listens_on(to))
        };
        listens(&loaded) || listens(&config::load_again(path))
    };
    if let Err(code) = begin(sandbox, run_as, &may_bind) {
        return code;
    }
    match loaded {
        Ok((config, source)) => {
            warn(&config, Some(&source));
            let reread = Reread {
                path: path.to_owned(),
                digest: source.digest(),
                seen,
                read: reread,
            };
            // Standard input is read once.
            let can_reread = path != Path::new(config::STANDARD_INPUT);
            if config.reload_on_change && !can_reread {
                say(&"warning: reload_on_change does nothing: standard input is read once");
            }
            run::run(&config, can_reread.then_some(reread))
        }
        Err(error) => refuse(&error),
    }
}

/// Gives up what a balancer does not need, while there is one thread, and then starts the thread
/// that writes the operational log.
fn begin(
    sandbox: Sandbox,
    run_as: RunAs<'_>,
    may_bind: &dyn Fn(SocketAddr) -> bool,
) -> Result<(), ExitCode> {
    let entered = sandbox::enter(sandbox, run_as, may_bind);
    // Without standard error there is nothing to write to.
    let _ = operational_log::start();
    match entered {
        Ok(warnings) => {
            for warning in warnings {
                say(&format_args!("warning: {warning}"));
            }
            Ok(())
        }
        Err(error) => {
            say(&format_args!("error: {error}"));
            Err(ExitCode::from(error.exit_code()))
        }
    }
}

impl From<SandboxFlag> for Sandbox {
    fn from(flag: SandboxFlag) -> Self {
        Self {
            is_on: !flag.no_sandbox,
            is_transparent: false,
            keeps_helper: true,
        }
    }
}

fn execute(command: Task) -> ExitCode {
    match command {
        Task::Run {
            config,
            sandbox,
            no_helper,
        } => {
            let sandbox = Sandbox {
                keeps_helper: !no_helper,
                ..sandbox.into()
            };
            run_file(config.path(), sandbox)
        }
        Task::Check {
            config,
            deny_warnings,
            quiet,
            json,
        } => check::check(config.path(), deny_warnings, quiet, json),
        Task::Proxy(args) => run_proxy(&args),
        Task::Demo(sandbox) => match begin(sandbox.into(), RunAs::Unchanged, &|_| false) {
            Ok(()) => demo::demo(),
            Err(code) => code,
        },
        Task::Simulate(args) => simulate::simulate(&args),
        Task::Plan(args) => plan::plan(&args),
        Task::Client(command) => admin::ask(&command),
        Task::Version => {
            // A reader that closed standard output does not need the rest.
            let _ = writeln!(io::stdout(), "mahoraga {VERSION}");
            ExitCode::SUCCESS
        }
    }
}

/// The version, and in a release build the commit that it is of.
const VERSION: &str = env!("MAHORAGA_VERSION");

fn run_proxy(args: &ProxyArgs) -> ExitCode {
    let config = proxy_config(args);
    let may_bind = |to| config.as_ref().is_ok_and(|config| config.listens_on(to));
    let sandbox = Sandbox {
        is_transparent: config.as_ref().is_ok_and(Config::is_transparent),
        ..args.sandbox.into()
    };
    if let Err(code) = begin(sandbox, RunAs::Unchanged, &may_bind) {
        return code;
    }
    match config {
        Ok(config) => {
            warn(&config, None);
            if let Some(warning) = proxy::others_warning(args) {
                say(&warning);
            }
            run::run(&config, None)
        }
        Err(error) => refuse(&format_args!("error: {error}")),
    }
}

fn load(path: &Path) -> Result<(Config, Source), ExitCode> {
    config::load(path).map_err(|error| refuse(&error))
}

/// Loads a configuration again while the balancer runs: its warnings go to the operational log.
fn reread(path: &Path) -> Result<(Config, u128), ConfigError> {
    let (config, source) = config::load_again(path)?;
    for warning in config::warnings(&config, check::host(), Some(&source)) {
        operational_log::report(log::Level::Warn, &warning);
    }
    Ok((config, source.digest()))
}

/// Prints the warnings about a configuration.
fn warn(config: &Config, source: Option<&Source>) {
    for warning in config::warnings(config, check::host(), source) {
        say(&warning);
    }
}

/// Reports a mistake in arguments, configuration or environment: `why` has its place and text.
fn refuse(why: &dyn Display) -> ExitCode {
    if is_json() {
        say_error(&why.to_string().trim_start_matches("error: "));
    } else {
        say(why);
    }
    ExitCode::from(USAGE)
}

/// Reports an error: as JSON where the answer would be JSON.
fn say_error(why: &dyn Display) {
    if is_json() {
        say(&serde_json::json!({ "error": why.to_string() }));
    } else {
        say(&format_args!("error: {why}"));
    }
}

/// Whether the arguments ask for JSON. It holds for arguments that can't be parsed, too.
fn is_json() -> bool {
    let arguments = env::args_os().skip(1);
    let mut flags = arguments.take_while(|argument| argument != "--");
    flags.any(|argument| argument == "--json")
}

/// Prints a line to standard error, or nowhere when that is closed.
fn say(line: &dyn Display) {
    operational_log::say(line);
}
