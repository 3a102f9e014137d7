//! `mahoraga check`: validates a configuration, and checks the files that a start would open. It
//! does not listen, creates no file, and connects to nothing.

use std::fs;
use std::num::NonZeroU32;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;

use super::run;
use crate::config::{self, Config, Discovery, Host, LogSink, Pool};
use crate::control;
use crate::control::sandbox::{self, RunAs};
use crate::sys;

/// Says what is wrong, or that the file is valid and what was not checked: a log of a script has to
/// show that as a terminal does.
pub(super) fn check(path: &Path, deny_warnings: bool, quiet: bool) -> ExitCode {
    let (config, source) = match super::load(path) {
        Ok(loaded) => loaded,
        Err(code) => return code,
    };
    // A start looks at files as the user that it becomes, with the rights that it keeps.
    if let Err(error) = sandbox::take_rights(RunAs::Configured(config.user.as_deref())) {
        super::say(&format_args!("error: {error}"));
        return ExitCode::from(error.exit_code());
    }
    let mut warnings = super::warn(&config, Some(&source));
    // A start reports them in the log, once it accepts clients.
    let can_reread = path != Path::new(config::STANDARD_INPUT);
    let file = can_reread.then_some(path);
    for warning in config::warnings_at(control::start_warnings(&config, file), &source) {
        super::say(&warning);
        warnings += 1;
    }
    if let Err(code) = run::check_environment() {
        return code;
    }
    if let Err(code) = run::preflight(&config, file) {
        return code;
    }
    if deny_warnings && warnings > 0 {
        return ExitCode::from(super::USAGE);
    }
    if !quiet {
        super::say(&format_args!("{} is valid", config::name_of(path)));
        super::say(&not_checked(&config));
    }
    ExitCode::SUCCESS
}

/// What only a start can find out.
fn not_checked(config: &Config) -> String {
    let access_log = config.access_log.as_ref().and_then(|log| match &log.to {
        LogSink::File(path) => Some(path),
        LogSink::Stdout => None,
    });
    let audit_log = config.admin.as_ref();
    let audit_log = audit_log.and_then(|admin| admin.audit_log.as_ref());
    let is_fifo = |path: &&PathBuf| {
        let found = fs::metadata(path);
        found.is_ok_and(|found| found.file_type().is_fifo())
    };
    let fifos = access_log.into_iter().chain(audit_log).filter(is_fifo);
    let fifos: String = fifos
        .map(|path| format!("a process reads {}, ", path.display()))
        .collect();

    let http = config.admin.as_ref().and_then(|admin| admin.http.as_ref());
    let http = http.map(|http| http.bind.to_string());
    let binds = config.listeners.iter().map(|its| its.bind.to_string());
    let addresses: Vec<_> = binds.chain(http).collect();
    let shown = addresses.len().min(ADDRESSES_SHOWN);
    let more = match addresses.len() - shown {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let asks_dns = |pool: &Pool| match pool.discovery {
        Some(Discovery::Dns { .. } | Discovery::Srv(_)) => true,
        Some(Discovery::File(_)) | None => pool.backends.iter().any(|its| its.host.is_some()),
    };
    let names = if config.pools.iter().any(|pool| asks_dns(pool)) {
        "names resolve, "
    } else {
        ""
    };
    format!(
        "not checked: whether {}{more} can be listened on, {fifos}{names}backends answer, and \
         io_uring is allowed",
        addresses[..shown].join(", ")
    )
}

/// Addresses that are named; beyond them only their number is.
const ADDRESSES_SHOWN: usize = 4;

/// The resources that this machine gives to this process.
pub(super) fn host() -> Host {
    let cpus = thread::available_parallelism().ok();
    let cpus = cpus.and_then(|cpus| NonZeroU32::try_from(cpus).ok());
    let (_, descriptors_max) = sys::descriptor_limit();
    Host {
        descriptors_max,
        cpus: cpus.unwrap_or(NonZeroU32::MIN),
        memory: sys::available_memory(),
    }
}
