//! `mahoraga run` and `mahoraga proxy`: the balancer itself.

use std::process::ExitCode;

use env_logger::Env;

use crate::config::Config;
use crate::control;

/// Runs the balancer until it is told to stop. Operational messages go to standard error, at the
/// level that `MAHORAGA_LOG` names (`info` when it is not set).
#[must_use]
pub(super) fn run(config: &Config) -> ExitCode {
    run_then(config, "info", || log::info!("ready"))
}

/// The same, with something to do once clients are accepted.
pub(super) fn run_then(config: &Config, level: &str, ready: impl FnOnce()) -> ExitCode {
    let environment = Env::new()
        .filter_or("MAHORAGA_LOG", level)
        .write_style("MAHORAGA_LOG_STYLE");
    env_logger::Builder::from_env(environment)
        .filter_module(control::HISTOGRAMS_TARGET, log::LevelFilter::Info)
        .format_target(false)
        .init();
    match control::run(config, ready) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            super::say(&format_args!("error: {error}"));
            ExitCode::from(error.exit_code())
        }
    }
}
