//! Checks what a start would open, without making or changing anything: `mahoraga check` reports
//! what it finds, and `mahoraga run` refuses the same in the same words.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};

use crate::address::Address;
use crate::config::{
    AccessLog, BackendTls, Config, Discovery, FleetSettings, LogSink, Pool, ProbeTls,
};
use crate::sys;

use super::access_log::socket as log_socket;
use super::{
    StartError, access_lists, admin_listeners, bans, capacity, consul, discovery, etcd, health,
    history, kubernetes, listening, peers, sandbox, systemd, tls, track_file,
};

/// Why a start with this configuration would fail on this machine, where that shows without
/// listening anywhere.
#[must_use]
pub fn preflight(config: &Config) -> Vec<StartError> {
    let mut found = Vec::new();
    found.extend(capacity::memory_of(config).err());
    found.extend(certificates(config, &HashSet::new()));
    found.extend(access_lists::mistakes(config));
    found.extend(tls::read_files(config).err());
    found.extend(bans::read_import(config, &bans::KnownBans::new()).err());
    if let Some(path) = &config.bans.file
        && let Err(error) = sys::can_replace(path)
    {
        let path = path.display().to_string();
        found.push(StartError::BansFile { path, error });
    }
    if let Some(AccessLog {
        to: LogSink::File(path),
        ..
    }) = &config.access_log
        && let Err(error) = sys::can_append_to(path)
    {
        let path = path.display().to_string();
        found.push(StartError::AccessLog { path, error });
    }
    if let Some((to, Err(error))) = log_server(config)
        && !log_socket::is_absent(&error)
    {
        let path = to.to_string();
        found.push(StartError::AccessLog { path, error });
    }
    if let Some(admin) = &config.admin {
        let mut seen = |path: &Path, outcome: io::Result<()>| {
            let at = path.display().to_string();
            found.extend(outcome.err().map(|error| StartError::Admin { at, error }));
        };
        if let Some(path) = admin.socket.as_ref().filter(|_| admin.required) {
            seen(path, sys::can_listen_at(path));
        }
        if let Some(path) = &admin.audit_log {
            seen(path, sys::can_append_to(path));
        }
    }
    found.extend(admin_listeners::token_mistakes(config));
    found.extend(listening::probe_origins(config, None).err());
    // The service manager may listen where this user may not.
    let handed_in = systemd::hands_in();
    for listener in &config.listeners {
        if let Address::Unix(path) = &listener.bind
            && !handed_in
            && let Err(error) = sys::can_listen_at(path)
        {
            found.push(StartError::Bind {
                listener: listener.name.clone(),
                bind: listener.bind.clone(),
                error,
            });
        }
    }
    found
}

/// What a start goes on without: the path of a setting, and a sentence about it. It takes files of
/// backends when they are right. `file` is that of the configuration.
#[must_use]
pub fn start_warnings(config: &Config, file: Option<&Path>) -> Vec<(String, String)> {
    let pools = config.pools.iter().enumerate();
    let files = pools.filter_map(|(i, pool)| match &pool.discovery {
        Some(Discovery::File(path)) => {
            let sentence = discovery::mistake_in(path)?;
            Some((format!("pools[{i}].discover.file"), sentence))
        }
        Some(Discovery::Etcd(source)) => {
            let (setting, sentence) = etcd::mistake_in(source)?;
            Some((format!("pools[{i}].discover.etcd.{setting}"), sentence))
        }
        Some(Discovery::Consul(source)) => {
            let (setting, sentence) = consul::mistake_in(source)?;
            Some((format!("pools[{i}].discover.consul.{setting}"), sentence))
        }
        Some(Discovery::Kubernetes(source)) => {
            let (setting, sentence) = kubernetes::mistake_in(source)?;
            Some((
                format!("pools[{i}].discover.kubernetes.{setting}"),
                sentence,
            ))
        }
        Some(Discovery::Dns { .. } | Discovery::Srv(_)) | None => None,
    });
    let fleet = config.fleet.as_ref();
    let peers = fleet.and_then(|fleet| {
        let (setting, sentence) = peers::mistake_in(fleet.peers.as_ref()?)?;
        Some((format!("fleet.peers.{setting}"), sentence))
    });
    let fleet = fleet.and_then(|fleet| {
        let (setting, sentence) = etcd::mistake_in(fleet.etcd.as_ref()?)?;
        Some((format!("fleet.etcd.{setting}"), sentence))
    });
    let fleet = fleet.into_iter().chain(peers);
    let is_refused = forbidden_socket(config, file).is_some();
    let socket = default_socket(config).filter(|_| !is_refused);
    let socket = socket.and_then(|path| {
        let error = sys::can_listen_at(&path).err()?;
        let sentence = admin_listeners::absent(&path, &error);
        Some(("admin".to_owned(), sentence))
    });
    let kept = config.bans.file.as_deref().and_then(bans::mistake_in_kept);
    let kept = kept.map(|sentence| ("bans.file".to_owned(), sentence));
    let log = log_server(config).and_then(|(to, connected)| {
        let error = connected.err().filter(log_socket::is_absent)?;
        let path = to.socket()?;
        Some(("access_log".to_owned(), log_socket::absence(path, &error)))
    });
    let history = config.history.file();
    let history = history.as_deref().and_then(history::mistake_in);
    let history = history.map(|sentence| ("history.path".to_owned(), sentence));
    let track = config.track_file.as_deref().and_then(|path| {
        let error = track_file::can_write(path).err()?;
        let path = path.display();
        let sentence = format!("keepalived will not follow {path}: it can't be written: {error}");
        Some(("track_file".to_owned(), sentence))
    });
    let all = files.chain(fleet).chain(kept).chain(socket).chain(log);
    let all = all.chain(history).chain(track);
    all.chain(tls::warnings(config)).collect()
}

/// The log server that takes the access log, and whether it can be reached. It does not notice.
fn log_server(config: &Config) -> Option<(&LogSink, io::Result<()>)> {
    let to = &config.access_log.as_ref()?.to;
    let path = to.socket()?;
    Some((to, log_socket::connect(path).map(drop)))
}

/// The socket of the admin API, where the configuration names none.
fn default_socket(config: &Config) -> Option<PathBuf> {
    let admin = config.admin.as_ref().filter(|admin| !admin.required)?;
    let path = admin.socket.as_ref()?;
    Some(admin_listeners::socket_path(path, admin.required))
}

/// What is opened again while the balancer runs, and the user of this process can't open:
/// [`preflight`] looks at the others. `file` is that of the configuration.
#[must_use]
pub fn unreadable(config: &Config, file: Option<&Path>) -> Vec<StartError> {
    let discoveries = config.pools.iter().flat_map(|pool| &pool.discovery);
    let lists = discoveries.flat_map(Discovery::files);
    let fleet = config.fleet.iter().flat_map(FleetSettings::files);
    let lists = lists.chain(fleet.map(|path| &**path));
    let read = file.into_iter().chain(lists);
    let read = read.map(|path| (path, sys::open_regular(path).map(drop)));
    // A file that is not there may come.
    let is_denied = |error: &io::Error| error.kind() == io::ErrorKind::PermissionDenied;
    let denied = read.filter_map(|(path, outcome)| {
        let path = path.display().to_string();
        outcome.err().filter(is_denied).map(|_| {
            let user = sandbox::user();
            StartError::Unreadable { path, user }
        })
    });
    denied.chain(forbidden_socket(config, file)).collect()
}

/// A default socket that this user may never make. `proxy` and `demo` have no file of their
/// operator's that could name another one: they do without.
fn forbidden_socket(config: &Config, file: Option<&Path>) -> Option<StartError> {
    let is_denied = |error: &io::Error| error.kind() == io::ErrorKind::PermissionDenied;
    let path = default_socket(config).filter(|_| file.is_some())?;
    // Another balancer's lock is no reason to refuse.
    sys::can_listen_at(&path).err().filter(is_denied)?;
    let error = sys::can_make(&path).err().filter(is_denied)?;
    let at = path.display().to_string();
    Some(StartError::DefaultAdmin { at, error })
}

/// Certificate files that probes can't use. Those in `used` are not looked at.
pub(super) fn certificates(config: &Config, used: &HashSet<PathBuf>) -> Vec<StartError> {
    let mut seen = used.clone();
    let mut found = Vec::new();
    for (place, pool) in config.pools.iter().enumerate() {
        let Some(tls) = check_tls(pool) else {
            continue;
        };
        let new = tls.files().filter(|path| seen.insert((*path).clone()));
        if new.count() > 0
            && let Err(why) = health::can_use_certificates(&tls)
        {
            found.push(StartError::Certificates {
                pool: pool.name.clone(),
                setting: format!("pools[{place}].check.tls"),
                why,
            });
        }
    }
    found
}

/// The certificate files that the probes of a configuration use.
pub(super) fn certificate_files(config: &Config) -> HashSet<PathBuf> {
    let checks = config.pools.iter().filter_map(|pool| check_tls(pool));
    let paths = checks.flat_map(|tls| tls.files().cloned().collect::<Vec<_>>());
    paths.collect()
}

/// The TLS of a check, where it is not the pool's: the files of that are read with the pool.
fn check_tls(pool: &Pool) -> Option<BackendTls> {
    match pool.check_in_force()?.tls {
        ProbeTls::Own(tls) => Some(tls),
        ProbeTls::Plain | ProbeTls::OfPool(_) => None,
    }
}
