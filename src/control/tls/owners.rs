//! The files of what has TLS: read, looked at each second, and put in force.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Debug;
use std::path::PathBuf;
use std::time::SystemTime;

use tokio::sync::oneshot;

use crate::admin::model::TlsStatus;
use crate::config::Config;
use crate::control::StartError;
use crate::control::aside;
use crate::control::file_watch::{FileVersion, Look};
use crate::tls::TlsCounts;

use super::TlsNews;
use super::expiry::{Shown, Warned};
use super::files::Unfit;

/// The TLS of one kind of owner: listeners, or pools.
pub(super) trait TlsOwner: Debug + Sized + 'static {
    /// The settings that name its files.
    type Settings: Clone + Debug + PartialEq + Send + 'static;
    /// What is in its files.
    type Files: Debug + Send + 'static;

    /// What its owners are called.
    const OWNER: &'static str;

    /// The owners of a configuration, and the settings of those that have some.
    fn of_config(config: &Config) -> impl Iterator<Item = (&str, Option<&Self::Settings>)>;

    /// The files that settings name.
    fn paths(settings: &Self::Settings) -> Vec<&PathBuf>;

    /// Reads the files, and finds what does not fit together. May take long.
    fn read(settings: &Self::Settings) -> Result<Self::Files, Unfit>;

    /// Whether clients show certificates, where it has clients.
    fn clients(_: &Self::Settings) -> Option<&'static str> {
        None
    }

    /// What is shown of its files.
    fn shown(files: &Self::Files) -> &Shown;

    /// The TLS of an owner, which may have had other TLS before.
    fn new(
        files: Self::Files,
        settings: &Self::Settings,
        before: Option<&Self>,
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
    shown: Shown,
    /// The versions of its files that are in force, or that can't be used.
    versions: Vec<FileVersion>,
    /// The same at the last look.
    seen: Vec<FileVersion>,
    /// Why its files could not be used when they had changed.
    error: Option<String>,
    warned: Warned,
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
    let all = S::of_config(config).enumerate();
    let all = all.filter_map(|(place, (owner, settings))| {
        let read = read::<S>(owner, settings?);
        Some(read.map_err(|Unfit { setting, why }| {
            StartError::Tls {
                owner: format!("{} `{owner}`", S::OWNER),
                setting: format!("{}s[{place}].tls.{setting}", S::OWNER)
                    .trim_end_matches('.')
                    .to_owned(),
                why,
            }
        }))
    });
    all.collect()
}

fn read<S: TlsOwner>(owner: &str, settings: &S::Settings) -> Result<OwnerRead<S>, Unfit> {
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
    /// What is to be told of what expires.
    fn expiry(&mut self, owner: &str, now: SystemTime) -> Option<String> {
        let news = self.warned.news(&self.shown, now)?;
        Some(format!("{} `{owner}`: {news}", S::OWNER))
    }

    /// What is wrong with its files now, a sentence each.
    fn problems(&self, owner: &str, now: SystemTime) -> impl Iterator<Item = String> {
        let kind = S::OWNER;
        let error = self.error.as_ref();
        let error = error.map(|why| problem::<S>(owner, why));
        let expired = self.shown.expired(now);
        let expired = expired.map(move |what| format!("{kind} `{owner}`: {what}"));
        error.into_iter().chain(expired)
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
        let owners = S::of_config(config).filter_map(|(owner, its)| its.map(|_| owner));
        let owners: HashSet<_> = owners.collect();
        self.by_name.retain(|name, _| owners.contains(&**name));
    }

    /// Puts in force what was read of an owner's files.
    fn put(&mut self, read: OwnerRead<S>) {
        let OwnerRead {
            owner,
            settings,
            mut files,
            versions,
        } = read;
        let shown = S::shown(&files).clone();
        let live = self.by_name.get_mut(&owner);
        if let Some(live) = live.filter(|live| live.settings == settings) {
            match live.its.replace(files) {
                Ok(()) => {
                    live.shown = shown;
                    live.seen.clone_from(&versions);
                    live.versions = versions;
                    live.error = None;
                    return;
                }
                Err(back) => files = back,
            }
        }
        let before = self.by_name.get_mut(&owner);
        match S::new(files, &settings, before.as_ref().map(|live| &live.its)) {
            Ok(its) => {
                let warned = before.map(|live| std::mem::take(&mut live.warned));
                let live = Live {
                    its,
                    settings,
                    shown,
                    seen: versions.clone(),
                    versions,
                    error: None,
                    warned: warned.unwrap_or_default(),
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
                let read = is_new.then(|| read::<S>(&owner, &settings).map_err(|its| its.why));
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
                let sentence = format!("{owner} `{name}`: what its files hold now is in force");
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
        let now = SystemTime::now();
        let all = self.by_name.iter();
        all.flat_map(move |(name, live)| live.problems(name, now))
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
            certificates: live.shown.certificates.clone(),
            revocation_lists: live.shown.revocation_lists.clone(),
            staples: live.shown.staples.clone(),
            clients: S::clients(&live.settings).map(str::to_owned),
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
    format!("{kind} `{owner}`: tls: {why}; what they held before stays in force")
}
