//! `mahoraga run` and `mahoraga proxy`: the balancer itself.

use std::env;
use std::path::Path;
use std::process::ExitCode;

use crate::config::{Config, values};
use crate::control::{self, Reread, StartError};
use crate::operational_log;

/// Runs the balancer until a signal stops it. Operational messages go to standard error, at the
/// level that `MAHORAGA_LOG` names (`info` when it is not set). `reread` reads the configuration
/// again; without a file there is none.
#[must_use]
pub(super) fn run(config: &Config, reread: Option<Reread>) -> ExitCode {
    run_then(config, reread, "info", || log::info!("accepting clients"))
}

/// The same, with something to do once clients are accepted.
pub(super) fn run_then(
    config: &Config,
    reread: Option<Reread>,
    level: &str,
    ready: impl FnOnce(),
) -> ExitCode {
    if let Err(code) = check_environment() {
        return code;
    }
    let seed = match env::var_os(SEED) {
        None => fastrand::u64(..),
        Some(text) => match values::seed(&text) {
            Ok(seed) => seed,
            Err(error) => {
                let error = error.about(SEED, &text.to_string_lossy());
                return super::refuse(&format_args!("error: {error}"));
            }
        },
    };
    operational_log::follow(LEVEL, level);
    if let Err(code) = preflight(config, reread.as_ref().map(|its| &*its.path)) {
        return code;
    }
    match control::run(config, reread, seed, ready) {
        Ok(()) => {
            log::info!("stopped");
            ExitCode::SUCCESS
        }
        Err(error) => {
            super::say(&format_args!("error: {error}"));
            ExitCode::from(error.exit_code())
        }
    }
}

/// Reports every reason to refuse the start that can be seen in advance. `file` is that of the
/// configuration, where it can be read again.
pub(super) fn preflight(config: &Config, file: Option<&Path>) -> Result<(), ExitCode> {
    let (refusals, code) = refusals(config, file);
    for error in &refusals {
        super::say(&format_args!("error: {error}"));
    }
    code.map_or(Ok(()), Err)
}

/// Every reason to refuse the start that can be seen in advance, and the exit code if there is one.
pub(super) fn refusals(
    config: &Config,
    file: Option<&Path>,
) -> (Vec<StartError>, Option<ExitCode>) {
    let mut refusals = control::preflight(config);
    refusals.extend(control::unreadable(config, file));
    let code = if refusals.iter().all(StartError::is_machines) {
        REFUSED
    } else {
        super::USAGE
    };
    let code = (!refusals.is_empty()).then(|| ExitCode::from(code));
    (refusals, code)
}

/// Refuses an unknown level or format of the log. The logger would take the word for the name of a
/// module, and write nothing.
pub(super) fn check_environment() -> Result<(), ExitCode> {
    let level = env::var_os(LEVEL).map(|name| values::log_level(&name).map(drop));
    let format = operational_log::format_in_environment().map(|format| format.map(drop));
    for (name, outcome) in [(LEVEL, level), (operational_log::FORMAT, format)] {
        if let Some(Err(error)) = outcome {
            return Err(super::refuse(&format_args!("error: {name}: {error}")));
        }
    }
    Ok(())
}

/// The exit code of a start that the machine does not allow.
const REFUSED: u8 = 1;
/// The variable that names the level of the operational log.
const LEVEL: &str = "MAHORAGA_LOG";
/// The variable with the seed of random numbers, to repeat a test.
const SEED: &str = "MAHORAGA_SEED";
