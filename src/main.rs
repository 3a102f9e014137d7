//! The `mahoraga` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    mahoraga::cli::main()
}
