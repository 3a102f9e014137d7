//! `mahoraga check`: judges a configuration and binds nothing.

use std::fs;
use std::num::NonZeroU32;
use std::path::Path;
use std::process::ExitCode;
use std::thread;

use crate::config::Host;

/// Quiet when all is well.
pub(super) fn check(path: &Path, deny_warnings: bool) -> ExitCode {
    let (config, source) = match super::load(path) {
        Ok(loaded) => loaded,
        Err(code) => return code,
    };
    let warnings = super::warn(&config, Some(&source));
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
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    Host {
        // Without /proc there is nothing to warn by.
        descriptors_max: descriptors_max(&limits).unwrap_or(u64::MAX),
        cpus: cpus.unwrap_or(NonZeroU32::MIN),
    }
}

/// The hard limit in `/proc/self/limits` (proc_pid_limits(5)); none when there is none.
fn descriptors_max(limits: &str) -> Option<u64> {
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_hard_limit() {
        let limits = "Limit                     Soft Limit           Hard Limit           Units\n\
                      Max open files            1024                 524288               files\n";
        assert_eq!(descriptors_max(limits), Some(524_288));
        let unlimited = limits.replace("524288", "unlimited");
        assert_eq!(descriptors_max(&unlimited), None);
        assert_eq!(descriptors_max(""), None);
        assert_ne!(host().descriptors_max, u64::MAX);
    }
}
