//! The files of what has TLS: read, looked at each second, and put in force.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use tokio::sync::oneshot;

use crate::admin::model::{CertificateStatus, TlsStatus};
use crate::config::Config;
use crate::control::StartError;
use crate::control::aside;
use crate::control::file_watch::{FileVersion, Look};
use crate::tls::TlsCounts;

use super::TlsNews;

/// The TLS of one kind of owner: listeners, or pools.
pub(super) trait TlsOwner: Debug + Sized + 'static {
    /// The settings that name its files.
    type Settings: Clone + Debug + PartialEq + Send + 'static;
    /// What is in its files.
    type Files: Debug + Send + 'static;

    /// What its owners are called.
    const OWNER: &'static str;

    /// The owners of a configuration that have some, and their settings.
    fn of_config(config: &Config) -> impl Iterator<Item = (&str, &Self::Settings)>;

    /// The files that settings name.
    fn paths(settings: &Self::Settings) -> Vec<&PathBuf>;

    /// Reads the files, and finds what does not fit together. May take long.
    fn read(settings: &Self::Settings) -> Result<Self::Files, String>;

    /// Its own certificates.
    fn shown(files: &Self::Files) -> &[CertificateStatus];

    /// The TLS of an owner, which may have had other TLS before.
    fn new(
        files: Self::Files,
        settings: &Self::Settings,
        before: Option<(&Self, &Self::Settings)>,
    ) -> Result<Self, rustls::Error>;

    /// Takes other files by the same settings. Gives them back where all of it is to be new.
    fn replace(&self, files: Self::Files) -> Result<(), Self::Files>;
}

/// What was read for an owner.
pub(super) struct OwnerRead<S: TlsOwner> {
    owner: String,
    settings: S::Settings,
    files: S::Files,
    versions: Vec<FileVersion>,
}

/// All owners of a kind.
#[derive(Debug)]
pub(super) struct Owners<S: TlsOwner> {
    by_name: BTreeMap<String, Live<S>>,
    /// What was read for a configuration that is about to take effect.
    offered: Vec<OwnerRead<S>>,
    /// A look at all files that is under way.
    looking: Option<oneshot::Receiver<Vec<Looked<S>>>>,
}

impl<S: TlsOwner> Default for Owners<S> {
    fn default() -> Self {
        Self {
            by_name: BTreeMap::new(),
            offered: Vec::new(),
            looking: None,
        }
    }
}

/// The TLS of an owner.
#[derive(Debug)]
struct Live<S: TlsOwner> {
    its: S,
    settings: S::Settings,
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

/// A look at the files of an owner.
struct Looked<S: TlsOwner> {
    owner: String,
    versions: Vec<FileVersion>,
    /// They had changed, and were read.
    read: Option<Result<OwnerRead<S>, String>>,
}

impl<S: TlsOwner> Debug for OwnerRead<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Read").field(&self.owner).finish()
    }
}

impl<S: TlsOwner> Debug for Looked<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Looked").field(&self.owner).finish()
    }
}

/// Reads the files of all owners of a configuration. May take long.
pub(super) fn read_all<S: TlsOwner>(config: &Config) -> Result<Vec<OwnerRead<S>>, StartError> {
    let all = S::of_config(config).map(|(owner, settings)| {
        read::<S>(owner, settings).map_err(|why| StartError::Tls {
            owner: format!("{} `{owner}`", S::OWNER),
            why,
        })
    });
    all.collect()
}

fn read<S: TlsOwner>(owner: &str, settings: &S::Settings) -> Result<OwnerRead<S>, String> {
    let versions = versions::<S>(settings);
    Ok(OwnerRead {
        owner: owner.to_owned(),
        settings: settings.clone(),
        files: S::read(settings)?,
        versions,
    })
}

/// What tells the versions of an owner's files from others. May take long.
fn versions<S: TlsOwner>(settings: &S::Settings) -> Vec<FileVersion> {
    let paths = S::paths(settings).into_iter();
    paths.map(|path| Look::at(path).version).collect()
}

impl<S: TlsOwner> Live<S> {
    /// A sentence about the certificate that expires first, once for each of [`WARN_DAYS`].
    fn expiry(&mut self, owner: &str, now: SystemTime) -> Option<String> {
        let first = self.shown.iter().min_by_key(|its| its.expires)?;
        let now = now.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs();
        let left = u64::try_from(first.expires)
            .unwrap_or(0)
            .saturating_sub(now);
        let days = left.div_ceil(DAY);
        let due = WARN_DAYS.into_iter().find(|warn| days <= *warn);
        let due = due.filter(|due| self.warned_at.is_none_or(|before| *due < before))?;
        self.warned_at = Some(due);
        let (kind, file) = (S::OWNER, &first.file);
        Some(match left {
            0 => format!("{kind} `{owner}`: the certificate in {file} has expired"),
            _ => format!("{kind} `{owner}`: the certificate in {file} expires in {days} d"),
        })
    }
}

impl<S: TlsOwner> Owners<S> {
    /// Takes files that were read for the next configuration.
    pub(super) fn offer(&mut self, read: Vec<OwnerRead<S>>) {
        self.offered = read;
    }

    /// Makes the TLS of a configuration.
    pub(super) fn follow(&mut self, config: &Config) {
        for read in std::mem::take(&mut self.offered) {
            self.put(read);
        }
        self.by_name
            .retain(|name, _| S::of_config(config).any(|(owner, _)| owner == name));
    }

    /// Puts in force what was read of an owner's files.
    fn put(&mut self, read: OwnerRead<S>) {
        let OwnerRead {
            owner,
            settings,
            mut files,
            versions,
        } = read;
        let shown = S::shown(&files).to_vec();
        let live = self.by_name.get_mut(&owner);
        if let Some(live) = live.filter(|live| live.settings == settings) {
            match live.its.replace(files) {
                Ok(()) => {
                    live.shown = shown;
                    live.seen.clone_from(&versions);
                    live.versions = versions;
                    (live.error, live.warned_at) = (None, None);
                    return;
                }
                Err(back) => files = back,
            }
        }
        let before = self.by_name.get(&owner);
        let before = before.map(|live| (&live.its, &live.settings));
        match S::new(files, &settings, before) {
            Ok(its) => {
                let live = Live {
                    its,
                    settings,
                    shown,
                    seen: versions.clone(),
                    versions,
                    error: None,
                    warned_at: None,
                };
                self.by_name.insert(owner, live);
            }
            // It was made before from the same files, so only random bytes can be missing.
            Err(error) => log::error!("{} `{owner}`: tls: {error}", S::OWNER),
        }
    }

    /// Looks at the files on another thread, and takes what the last look has found.
    pub(super) fn tick(&mut self, news: &mut Vec<TlsNews>) {
        let now = SystemTime::now();
        for (name, live) in &mut self.by_name {
            news.extend(live.expiry(name, now).map(TlsNews::Expires));
        }
        match self.looking.as_mut().map(oneshot::Receiver::try_recv) {
            Some(Err(oneshot::error::TryRecvError::Empty)) => return,
            Some(Ok(looked)) => looked.into_iter().for_each(|its| self.take(its, news)),
            Some(Err(oneshot::error::TryRecvError::Closed)) | None => {}
        }
        self.looking = (!self.by_name.is_empty()).then(|| self.look());
    }

    fn look(&self) -> oneshot::Receiver<Vec<Looked<S>>> {
        let all = self.by_name.iter();
        let all = all.map(|(name, live)| {
            let before = (live.versions.clone(), live.seen.clone());
            (name.clone(), live.settings.clone(), before)
        });
        let all: Vec<_> = all.collect();
        aside::read(move || {
            let all = all.into_iter();
            all.map(|(owner, settings, (in_force, seen))| {
                let versions = versions::<S>(&settings);
                // Its writer may not be done, until it is the same at two looks.
                let is_new = versions != in_force && versions == seen;
                let read = is_new.then(|| read::<S>(&owner, &settings));
                Looked {
                    owner,
                    versions,
                    read,
                }
            })
            .collect()
        })
    }

    fn take(&mut self, looked: Looked<S>, news: &mut Vec<TlsNews>) {
        let name = looked.owner;
        let Some(live) = self.by_name.get_mut(&name) else {
            return;
        };
        live.seen.clone_from(&looked.versions);
        match looked.read {
            None => {}
            // A reload came first.
            Some(Ok(read)) if read.settings != live.settings => {}
            Some(Ok(read)) => {
                self.put(read);
                let owner = S::OWNER;
                let sentence = format!("{owner} `{name}`: its new certificates are in force");
                news.push(TlsNews::Read(sentence));
            }
            Some(Err(why)) => {
                live.versions = looked.versions;
                let sentence = problem::<S>(&name, &why);
                live.error = Some(why);
                news.push(TlsNews::Failed(sentence));
            }
        }
    }

    /// The TLS of an owner.
    pub(super) fn its(&self, name: &str) -> Option<&S> {
        self.by_name.get(name).map(|live| &live.its)
    }

    /// What each owner has, by its name.
    pub(super) fn by_name<T>(&self, has: impl Fn(&S) -> T) -> BTreeMap<String, T> {
        let all = self.by_name.iter();
        all.map(|(name, live)| (name.clone(), has(&live.its)))
            .collect()
    }

    /// What is wrong with files now, a sentence each.
    pub(super) fn problems(&self) -> impl Iterator<Item = String> {
        let all = self.by_name.iter();
        all.filter_map(|(name, live)| Some(problem::<S>(name, live.error.as_ref()?)))
    }

    /// The TLS of an owner, as the API shows it.
    pub(super) fn status(
        &self,
        name: &str,
        counts: impl Fn(&S) -> &TlsCounts,
    ) -> Option<TlsStatus> {
        let live = self.by_name.get(name)?;
        let counts = counts(&live.its);
        let begun = [(false, "full"), (true, "resumed")];
        let handshakes = counts.handshakes().filter(|its| its.2 > 0);
        let failures = counts.failures().filter(|its| its.1 > 0);
        Some(TlsStatus {
            certificates: live.shown.clone(),
            handshakes: handshakes
                .map(|(version, resumed, count)| {
                    let begun = begun[usize::from(resumed)].1;
                    (format!("{version}/{begun}"), count)
                })
                .collect(),
            failures: failures
                .map(|(kind, count)| (kind.as_str().to_owned(), count))
                .collect(),
            error: live.error.clone(),
        })
    }
}

fn problem<S: TlsOwner>(owner: &str, why: &str) -> String {
    let kind = S::OWNER;
    format!("{kind} `{owner}`: tls: {why}; the certificates of before stay in force")
}

/// Days before a certificate expires that an event says so.
const WARN_DAYS: [u64; 4] = [0, 1, 7, 30];
/// In seconds.
const DAY: u64 = Duration::from_secs(24 * 60 * 60).as_secs();
