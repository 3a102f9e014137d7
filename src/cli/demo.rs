//! Placeholder of the demo.

use std::io::{self, Write};
use std::process::ExitCode;

/// Runs three small backends with the balancer in front of them.
#[must_use]
pub fn demo() -> ExitCode {
    let _ = writeln!(io::stderr(), "not built yet");
    ExitCode::FAILURE
}
