//! `mahoraga check`: validates a configuration, and checks the files that a start would open. It
//! does not listen, creates no file, and connects to nothing.

use std::fs;
use std::io::{self, Write};
use std::num::NonZeroU32;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;

use serde_json::{Value as Json, json};

use super::run;
use crate::config::{
    self, Config, ConfigError, Discovery, Host, LogSink, Place, Pool, Source, Warning,
};
use crate::control::sandbox::{self, RunAs};
use crate::control::{self, StartError};
use crate::sys;

/// Says what is wrong, or that the file is valid and what was not checked: a log of a script has to
/// show that as a terminal does.
pub(super) fn check(path: &Path, deny_warnings: bool, quiet: bool, as_json: bool) -> ExitCode {
    let mut report = Report {
        found: as_json.then(Vec::new),
        warnings: 0,
    };
    let code = look(path, &mut report);
    if let Some(found) = &report.found {
        // A reader that closed standard output does not need the rest.
        let _ = writeln!(io::stdout(), "{:#}", Json::from_iter(found.iter().cloned()));
    }
    match code {
        Err(code) => code,
        Ok(_) if deny_warnings && report.warnings > 0 => ExitCode::from(super::USAGE),
        Ok(config) => {
            if !quiet && !as_json {
                super::say(&format_args!("{} is valid", config::name_of(path)));
                super::say(&not_checked(&config));
            }
            ExitCode::SUCCESS
        }
    }
}

/// Reports all that is wrong. Returns the configuration, if a start would accept it.
fn look(path: &Path, report: &mut Report) -> Result<Config, ExitCode> {
    let (config, source) = config::load(path).map_err(|error| {
        report.mistakes(&error);
        ExitCode::from(super::USAGE)
    })?;
    // A start looks at files as the user that it becomes, with the rights that it keeps.
    let run_as = RunAs::Configured(config.user.as_deref());
    if let Err(error) = sandbox::take_rights(run_as, config.is_transparent()) {
        report.error(&error, &source);
        return Err(ExitCode::from(error.exit_code()));
    }
    let mut warnings = config::warnings(&config, host(), Some(&source));
    // A start reports them in the log, once it accepts clients.
    let can_reread = path != Path::new(config::STANDARD_INPUT);
    let file = can_reread.then_some(path);
    let at_start = control::start_warnings(&config, file);
    warnings.extend(config::warnings_at(at_start, &source));
    for warning in &warnings {
        report.warning(warning);
    }
    run::check_environment()?;
    let (refusals, code) = run::refusals(&config, file);
    for error in &refusals {
        report.error(error, &source);
    }
    code.map_or(Ok(config), Err)
}

/// Where findings go: to standard error as text, or to be printed as JSON.
struct Report {
    found: Option<Vec<Json>>,
    warnings: usize,
}

impl Report {
    /// The file can't be loaded.
    fn mistakes(&mut self, error: &ConfigError) {
        match (error, &mut self.found) {
            (ConfigError::Mistakes(all), Some(found)) => {
                let all = all.iter();
                found.extend(all.map(|one| finding(Some(&one.place), "error", &one.sentence)));
            }
            (ConfigError::Unreadable { file, why }, Some(found)) => {
                let mut entry = finding(None, "error", why);
                entry["file"] = file.as_str().into();
                found.push(entry);
            }
            (_, None) => super::say(error),
        }
    }

    /// A start would refuse.
    fn error(&mut self, error: &StartError, source: &Source) {
        let place = error.setting();
        let place = place.and_then(|path| config::place_of(path, source));
        match &mut self.found {
            Some(found) => found.push(finding(place.as_ref(), "error", &error.to_string())),
            None => super::say(&format_args!("error: {error}")),
        }
    }

    fn warning(&mut self, warning: &Warning) {
        self.warnings += 1;
        let place = warning.place.as_ref();
        match &mut self.found {
            Some(found) => found.push(finding(place, "warning", &warning.sentence)),
            None => super::say(warning),
        }
    }
}

fn finding(place: Option<&Place>, severity: &str, message: &str) -> Json {
    json!({
        "file": place.map(|place| &*place.file),
        "line": place.map(|place| place.line),
        "column": place.map(|place| place.column),
        "severity": severity,
        "message": message,
    })
}

/// What only a start can find out.
fn not_checked(config: &Config) -> String {
    let access_log = config.access_log.as_ref().and_then(|log| match &log.to {
        LogSink::File(path) => Some(path),
        LogSink::Stdout | LogSink::Syslog(_) | LogSink::Journald(_) => None,
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
    let metrics = config.metrics.as_ref().map(|its| its.bind.to_string());
    let peers = config.fleet.as_ref().and_then(|its| its.peers.as_ref());
    let peers = peers.map(|its| its.listen.to_string());
    let addresses: Vec<_> = binds.chain(http).chain(metrics).chain(peers).collect();
    let shown = addresses.len().min(ADDRESSES_SHOWN);
    let more = match addresses.len() - shown {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let servers = servers(config);
    format!(
        "not checked: whether {}{more} can be listened on, {fifos}{servers}backends answer, and \
         io_uring is allowed",
        addresses[..shown].join(", ")
    )
}

/// The servers that the balancer asks, other than backends: `etcd answers, ` and such.
fn servers(config: &Config) -> String {
    let asks = |is_asked: fn(&Discovery) -> bool| {
        let mut discoveries = config.pools.iter().flat_map(|pool| &pool.discovery);
        discoveries.any(is_asked)
    };
    let asks_dns = |pool: &Pool| match pool.discovery {
        Some(Discovery::Dns { .. } | Discovery::Srv(_)) => true,
        Some(
            Discovery::File(_)
            | Discovery::Etcd(_)
            | Discovery::Consul(_)
            | Discovery::Kubernetes(_),
        )
        | None => pool.backends.iter().any(|its| its.host.is_some()),
    };
    let fleet = config.fleet.as_ref();
    let shares_by_etcd = fleet.is_some_and(|its| its.etcd.is_some());
    let servers = [
        (
            "names resolve, ",
            config.pools.iter().any(|pool| asks_dns(pool)),
        ),
        (
            "etcd answers, ",
            shares_by_etcd || asks(|its| matches!(its, Discovery::Etcd(_))),
        ),
        (
            "Consul answers, ",
            asks(|its| matches!(its, Discovery::Consul(_))),
        ),
        (
            "Kubernetes answers, ",
            asks(|its| matches!(its, Discovery::Kubernetes(_))),
        ),
        (
            "peers answer, ",
            fleet.is_some_and(|its| its.peers.is_some()),
        ),
    ];
    let asked = servers.iter().filter(|(_, is_asked)| *is_asked);
    asked.map(|(words, _)| *words).collect()
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
