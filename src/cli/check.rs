//! `mahoraga check`: judges a configuration and binds nothing.

use std::num::NonZeroU32;
use std::path::Path;
use std::process::ExitCode;
use std::thread;

use crate::config::Host;
use crate::control;
use crate::sys;

/// Quiet when all is well.
pub(super) fn check(path: &Path, deny_warnings: bool) -> ExitCode {
    let (config, source) = match super::load(path) {
        Ok(loaded) => loaded,
        Err(code) => return code,
    };
    let warnings = super::warn(&config, Some(&source));
    if let Err(error) = control::probe_origins(&config) {
        return super::refuse(&format_args!("error: {error}"));
    }
    if deny_warnings && warnings > 0 {
        ExitCode::from(super::USAGE)
    } else {
        ExitCode::SUCCESS
    }
}

/// What this machine gives to this process.
pub(super) fn host() -> Host {
    let cpus = thread::available_parallelism().ok();
    let cpus = cpus.and_then(|cpus| NonZeroU32::try_from(cpus).ok());
    let (_, descriptors_max) = sys::descriptor_limit();
    Host {
        descriptors_max,
        cpus: cpus.unwrap_or(NonZeroU32::MIN),
    }
}
