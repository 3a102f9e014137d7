//! The TLS of listeners: their certificates, which are read before a configuration that names them
//! takes effect, and again when one of their files has changed.
//!
//! Each listener keeps the keys of its tickets over all configurations, so that its clients resume.
//! Other certificates take the places of those before without a new listener: connections that
//! stand go on. Where files can't be used the certificates of before stay.

mod files;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::oneshot;

use crate::admin::model::{CertificateStatus, TlsStatus};
use crate::config::{Config, Tls};
use crate::tls::{
    Certificates, SelectBy, ServerSettings, Terminate, Terminator, Terminators, TlsServer,
};

use super::StartError;
use super::aside;
use super::file_watch::{FileVersion, Look};

pub(super) use files::TlsRead;

/// The TLS of all listeners that have some.
#[derive(Debug, Default)]
pub(super) struct TlsListeners {
    by_listener: BTreeMap<String, Live>,
    /// What was read for a configuration that is about to take effect.
    offered: Vec<TlsRead>,
    terminators: Terminators,
    /// A look at all files that is under way.
    looking: Option<oneshot::Receiver<Vec<Looked>>>,
}

/// The TLS of a listener.
#[derive(Debug)]
struct Live {
    settings: Tls,
    certificates: Arc<Certificates>,
    server: Arc<TlsServer>,
    terminator: Arc<Terminator>,
    shown: Vec<CertificateStatus>,
    /// The versions of its files that are in force, or that can't be used.
    versions: Vec<FileVersion>,
    /// The same at the last look.
    seen: Vec<FileVersion>,
    /// Why its files could not be used when they had changed.
    error: Option<String>,
    /// The last warning that a certificate expires said that it has so many days left.
    warned_at: Option<u64>,
}

/// A look at the files of a listener.
#[derive(Debug)]
struct Looked {
    listener: String,
    versions: Vec<FileVersion>,
    /// They had changed, and were read.
    read: Option<Result<TlsRead, String>>,
}

/// What is to be told about certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum TlsNews {
    /// New ones are in force.
    Read(String),
    /// They can't be used.
    Failed(String),
    /// One expires soon.
    Expires(String),
}

/// Reads the certificates and keys of all listeners. May take long.
///
/// # Errors
/// A listener, and what is wrong with one of its files.
pub(super) fn read_files(config: &Config) -> Result<Vec<TlsRead>, StartError> {
    let secured = config.listeners.iter();
    let secured = secured.filter_map(|listener| Some((listener, listener.tls.as_ref()?)));
    let all = secured.map(|(listener, settings)| {
        read(&listener.name, settings).map_err(|why| StartError::Tls {
            listener: listener.name.clone(),
            why,
        })
    });
    all.collect()
}

/// Reads the files of a listener. What does not fit together shows here.
fn read(listener: &str, settings: &Tls) -> Result<TlsRead, String> {
    let versions = versions(settings);
    let read = files::read(listener, settings, versions)?;
    let probe = Arc::new(Certificates::new(SelectBy::default()));
    TlsServer::new(&read.server_settings(&probe), None).map_err(|error| error.to_string())?;
    Ok(read)
}

/// What tells the versions of a listener's files from others. May take long.
fn versions(settings: &Tls) -> Vec<FileVersion> {
    settings
        .files()
        .map(|path| Look::at(path).version)
        .collect()
}

impl TlsRead {
    fn server_settings(&self, certificates: &Arc<Certificates>) -> ServerSettings {
        ServerSettings {
            certificates: Arc::clone(certificates),
            policy: self.settings.policy.policy(),
            protocols: self.settings.alpn.clone(),
            clients: self.clients.clone(),
        }
    }
}

impl Live {
    /// The TLS of a listener, which may have had other TLS before.
    fn new(mut read: TlsRead, before: Option<&Self>) -> Result<Self, rustls::Error> {
        let certificates = Arc::new(Certificates::new(std::mem::take(&mut read.select)));
        // Tickets of clients that had to show less must not open what asks for more.
        let same = before.filter(|before| before.settings.clients == read.settings.clients);
        let tickets = same.map(|before| before.server.tickets());
        let server = Arc::new(TlsServer::new(
            &read.server_settings(&certificates),
            tickets,
        )?);
        let counts = before.map(|before| Arc::clone(&before.terminator.counts));
        let terminator = Terminator {
            begins: Arc::clone(&server) as Arc<dyn Terminate>,
            counts: counts.unwrap_or_default(),
        };
        Ok(Self {
            settings: read.settings,
            certificates,
            server,
            terminator: Arc::new(terminator),
            shown: read.shown,
            seen: read.versions.clone(),
            versions: read.versions,
            error: None,
            warned_at: None,
        })
    }

    /// A sentence about the certificate that expires first, once for each of [`WARN_DAYS`].
    fn expiry(&mut self, listener: &str, now: SystemTime) -> Option<String> {
        let first = self.shown.iter().min_by_key(|its| its.expires)?;
        let now = now.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs();
        let left = u64::try_from(first.expires)
            .unwrap_or(0)
            .saturating_sub(now);
        let days = left.div_ceil(DAY);
        let due = WARN_DAYS.into_iter().find(|warn| days <= *warn);
        let due = due.filter(|due| self.warned_at.is_none_or(|before| *due < before))?;
        self.warned_at = Some(due);
        let file = &first.file;
        Some(match left {
            0 => format!("listener `{listener}`: the certificate in {file} has expired"),
            _ => format!("listener `{listener}`: the certificate in {file} expires in {days} d"),
        })
    }
}

impl TlsListeners {
    /// The TLS of a configuration whose files were read.
    pub(super) fn new(config: &Config, read: Vec<TlsRead>) -> Self {
        let mut all = Self {
            offered: read,
            ..Self::default()
        };
        all.follow(config);
        all
    }

    /// What workers begin TLS by, by the names of listeners.
    pub(super) fn terminators(&self) -> &Terminators {
        &self.terminators
    }

    /// Takes files that were read for the next configuration.
    pub(super) fn offer(&mut self, read: Vec<TlsRead>) {
        self.offered = read;
    }

    /// Makes the TLS of a configuration. Answers whether listeners have other TLS now.
    pub(super) fn follow(&mut self, config: &Config) -> bool {
        for read in std::mem::take(&mut self.offered) {
            self.put(read);
        }
        let wanted = |name: &String| {
            let mut listeners = config.listeners.iter();
            listeners.any(|listener| listener.name == *name && listener.tls.is_some())
        };
        self.by_listener.retain(|name, _| wanted(name));
        self.has_changed()
    }

    /// Puts in force what was read of a listener's files.
    fn put(&mut self, mut read: TlsRead) {
        let listener = std::mem::take(&mut read.listener);
        if let Some(live) = self.by_listener.get_mut(&listener)
            && live.settings == read.settings
            && read.clients.is_none()
        {
            live.certificates.replace(read.select);
            live.shown = read.shown;
            live.seen.clone_from(&read.versions);
            live.versions = read.versions;
            (live.error, live.warned_at) = (None, None);
            return;
        }
        match Live::new(read, self.by_listener.get(&listener)) {
            Ok(live) => drop(self.by_listener.insert(listener, live)),
            // It was made before from the same files, so only random bytes can be missing.
            Err(error) => log::error!("listener `{listener}`: tls: {error}"),
        }
    }

    /// Whether workers are to begin TLS by something else than before.
    fn has_changed(&mut self) -> bool {
        let all = self.by_listener.iter();
        let all = all.map(|(name, live)| (name.clone(), Arc::clone(&live.terminator)));
        let before = std::mem::replace(&mut self.terminators, all.collect());
        !is_same(&before, &self.terminators)
    }

    /// Looks at the files, each second, on another thread. Answers whether workers are to begin TLS
    /// by something else now, and with what is to be told.
    pub(super) fn tick(&mut self) -> (bool, Vec<TlsNews>) {
        let mut news = Vec::new();
        let now = SystemTime::now();
        for (name, live) in &mut self.by_listener {
            news.extend(live.expiry(name, now).map(TlsNews::Expires));
        }
        match self.looking.as_mut().map(oneshot::Receiver::try_recv) {
            Some(Err(oneshot::error::TryRecvError::Empty)) => return (false, news),
            Some(Ok(looked)) => looked.into_iter().for_each(|its| self.take(its, &mut news)),
            Some(Err(oneshot::error::TryRecvError::Closed)) | None => {}
        }
        self.looking = (!self.by_listener.is_empty()).then(|| self.look());
        (self.has_changed(), news)
    }

    fn look(&self) -> oneshot::Receiver<Vec<Looked>> {
        let all = self.by_listener.iter();
        let all = all.map(|(name, live)| {
            let before = (live.versions.clone(), live.seen.clone());
            (name.clone(), live.settings.clone(), before)
        });
        let all: Vec<_> = all.collect();
        aside::read(move || {
            let all = all.into_iter();
            all.map(|(listener, settings, (in_force, seen))| {
                let versions = versions(&settings);
                // Its writer may not be done, until it is the same at two looks.
                let is_new = versions != in_force && versions == seen;
                let read = is_new.then(|| read(&listener, &settings));
                Looked {
                    listener,
                    versions,
                    read,
                }
            })
            .collect()
        })
    }

    fn take(&mut self, looked: Looked, news: &mut Vec<TlsNews>) {
        let name = looked.listener;
        let Some(live) = self.by_listener.get_mut(&name) else {
            return;
        };
        live.seen.clone_from(&looked.versions);
        match looked.read {
            None => {}
            // A reload came first.
            Some(Ok(read)) if read.settings != live.settings => {}
            Some(Ok(read)) => {
                self.put(read);
                let sentence = format!("listener `{name}`: its new certificates are in force");
                news.push(TlsNews::Read(sentence));
            }
            Some(Err(why)) => {
                live.versions = looked.versions;
                let sentence = problem(&name, &why);
                live.error = Some(why);
                news.push(TlsNews::Failed(sentence));
            }
        }
    }

    /// What is wrong with files now, a sentence each.
    pub(super) fn problems(&self) -> impl Iterator<Item = String> {
        let all = self.by_listener.iter();
        all.filter_map(|(name, live)| Some(problem(name, live.error.as_ref()?)))
    }

    /// The TLS of a listener, as the API shows it.
    pub(super) fn status(&self, listener: &str) -> Option<TlsStatus> {
        let live = self.by_listener.get(listener)?;
        let counts = &live.terminator.counts;
        let begun = [(false, "full"), (true, "resumed")];
        let handshakes = counts.handshakes().filter(|its| its.2 > 0);
        let failures = counts.failures().filter(|its| its.1 > 0);
        Some(TlsStatus {
            certificates: live.shown.clone(),
            handshakes: handshakes
                .map(|(version, resumed, count)| {
                    (
                        format!("{version}/{}", begun[usize::from(resumed)].1),
                        count,
                    )
                })
                .collect(),
            failures: failures
                .map(|(kind, count)| (kind.as_str().to_owned(), count))
                .collect(),
            error: live.error.clone(),
        })
    }
}

fn problem(listener: &str, why: &str) -> String {
    format!("listener `{listener}`: tls: {why}; the certificates of before stay in force")
}

fn is_same(one: &Terminators, other: &Terminators) -> bool {
    let mut both = one.iter().zip(other);
    one.len() == other.len()
        && both.all(|(one, other)| one.0 == other.0 && Arc::ptr_eq(one.1, other.1))
}

/// Days before a certificate expires that an event says so.
const WARN_DAYS: [u64; 4] = [0, 1, 7, 30];
/// In seconds.
const DAY: u64 = Duration::from_secs(24 * 60 * 60).as_secs();
