//! Placeholder of the balancer's start.

use std::io::{self, Write};
use std::process::ExitCode;

use crate::config::Config;

/// Runs the balancer until it is told to stop.
#[must_use]
pub fn run(_config: Config) -> ExitCode {
    let _ = writeln!(io::stderr(), "not built yet");
    ExitCode::FAILURE
}
