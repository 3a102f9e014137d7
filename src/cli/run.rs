//! `mahoraga run` and `mahoraga proxy`: the balancer itself.

use std::env;
use std::process::ExitCode;

use crate::config::{Config, values};
use crate::control::{self, Reread};
use crate::operational_log;

/// Runs the balancer until it is told to stop. Operational messages go to standard error, at the
/// level that `MAHORAGA_LOG` names (`info` when it is not set). `reread` reads the configuration
/// again, where that makes sense.
#[must_use]
pub(super) fn run(config: &Config, reread: Option<Reread>) -> ExitCode {
    run_then(config, reread, "info", || log::info!("ready"))
}

/// The same, with something to do once clients are accepted.
pub(super) fn run_then(
    config: &Config,
    reread: Option<Reread>,
    level: &str,
    ready: impl FnOnce(),
) -> ExitCode {
    if let Err(code) = check_level() {
        return code;
    }
    let seed = match env::var_os(SEED).map(|text| values::seed(&text)) {
        Some(Err(error)) => return super::refuse(&format_args!("error: {SEED}: {error}")),
        Some(Ok(seed)) => seed,
        None => fastrand::u64(..),
    };
    operational_log::follow(LEVEL, level);
    match control::run(config, reread, seed, ready) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            super::say(&format_args!("error: {error}"));
            ExitCode::from(error.exit_code())
        }
    }
}

/// Refuses a level that there is not. The logger takes any other word for a target of its own, and
/// falls silent.
pub(super) fn check_level() -> Result<(), ExitCode> {
    match env::var_os(LEVEL).map(|name| values::log_level(&name)) {
        Some(Err(error)) => Err(super::refuse(&format_args!("error: {LEVEL}: {error}"))),
        Some(Ok(_)) | None => Ok(()),
    }
}

/// The variable that names the level of the operational log.
const LEVEL: &str = "MAHORAGA_LOG";
/// The variable that names what chance begins with, for tests that are to be repeated.
const SEED: &str = "MAHORAGA_SEED";
