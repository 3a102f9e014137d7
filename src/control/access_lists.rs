//! Access lists as workers ask them: the prefixes of the configuration, and those of files that
//! are followed.
//!
//! A file is read before the configuration that names it takes effect, so that no client gets in
//! while it is unread, and again when it changes. A bad file leaves the last good list in force,
//! and so does one that suddenly has no prefix: it was most likely truncated.

mod file;

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::admin::model::{AccessDecision, AccessListDetail, AccessListStatus};
use crate::config::{self, AccessEdits, Config};
use crate::guard::{self, Access, Prefixes};
use crate::prefix::Prefix;
use crate::shared::Shared;
use crate::wording::plural;

use super::aside;
use super::list_files::{self, Followed, ListFiles};

use file::PrefixFile;
pub use file::read_access_list;
pub(super) use file::{KnownPrefixes, PrefixesRead, mistakes, read_files};

/// The access lists in force, and the files that they are read from.
pub(super) struct AccessLists {
    /// The lists as they are configured, and as workers ask them.
    configured: Vec<Shared<config::AccessList>>,
    lists: guard::AccessFilters,
    files: ListFiles<PrefixFile>,
    /// Files that were read for a configuration that is about to take effect.
    offered: Vec<PrefixesRead>,
    /// Tables that were replaced, until no worker asks them.
    replaced: Vec<Arc<Prefixes>>,
}

/// What was read of a file that has changed.
pub(super) type PrefixNews = list_files::News<Prefixes>;

impl AccessLists {
    /// The lists of a configuration whose files were read. To be called inside the control
    /// thread's runtime.
    pub(super) fn new(config: &Config, read: Vec<PrefixesRead>) -> Self {
        let mut lists = Self {
            configured: Vec::new(),
            lists: BTreeMap::new(),
            files: ListFiles::new(),
            offered: read,
            replaced: Vec::new(),
        };
        lists.follow(config);
        lists
    }

    /// The lists by name.
    pub(super) fn lists(&self) -> &guard::AccessFilters {
        &self.lists
    }

    /// The files that are followed.
    pub(super) fn known(&self) -> KnownPrefixes {
        self.files.known()
    }

    /// What is wrong with the files now: at most so many sentences, and how many more there are.
    pub(super) fn problems(&self, at_most: usize) -> (Vec<String>, usize) {
        let mut wrong = self.files.all().filter_map(problem);
        let first = wrong.by_ref().take(at_most).collect();
        (first, wrong.count())
    }

    /// Notes about an edit that removes prefixes.
    ///
    /// # Errors
    /// Why a prefix can't be removed: the file has it, or the list has not.
    pub(super) fn check_edits(
        &self,
        name: &str,
        edits: &AccessEdits,
    ) -> Result<Vec<String>, String> {
        let configured = self.configured.iter().find(|list| list.name == name);
        let Some((configured, filter)) = configured.zip(self.lists.get(name)) else {
            return Ok(Vec::new());
        };
        let now = edits.now(configured);
        let removed = edits.iter().zip(now.iter());
        let removed = removed.filter(|((_, becomes), _)| becomes.is_none());
        let mut notes = Vec::new();
        for (_, (prefix, now)) in removed {
            let file = configured.file.as_ref().zip(filter.in_file(prefix));
            let file = file.map(|(path, access)| (path.display(), access));
            match (now, file) {
                (Some(_), Some((file, access))) if notes.len() < NOTES_MAX => {
                    let access = access.as_str();
                    notes.push(format!("{file} has {prefix} too, and holds now: {access}"));
                }
                (Some(_), _) => {}
                (None, Some((file, access))) => {
                    let other = match access {
                        Access::Allow => "deny",
                        Access::Deny => "allow",
                    };
                    return Err(format!(
                        "cannot remove {prefix}: {file} has it; take it out of that file, or \
                         `mahoraga {other}` it, which counts before the file"
                    ));
                }
                (None, None) => return Err(unknown(filter, prefix)),
            }
        }
        Ok(notes)
    }

    /// The lists as the API shows them.
    pub(super) fn status(&self) -> Vec<AccessListStatus> {
        let all = self.configured.iter();
        all.filter_map(|configured| self.status_of(configured))
            .collect()
    }

    /// One list with its prefixes, and what it says of a client; `Err`: the names that are known.
    pub(super) fn detail(
        &self,
        name: &str,
        client: Option<IpAddr>,
    ) -> Result<impl FnOnce() -> AccessListDetail + Send + 'static, Vec<String>> {
        let configured = self.configured.iter().find(|list| list.name == name);
        let list = configured.and_then(|list| Some((list, self.status_of(list)?)));
        let Some((configured, list)) = list else {
            return Err(self.lists.keys().cloned().collect());
        };
        let (configured, filter) = (configured.clone(), self.lists.get(name).cloned());
        let client = client.and_then(|ip| Some((ip, filter?.decide(ip))));
        let texts = |prefixes: &[Prefix]| prefixes.iter().map(Prefix::to_string).collect();
        Ok(move || AccessListDetail {
            list,
            allow: texts(&configured.allow),
            deny: texts(&configured.deny),
            client: client.map(|(client, decision)| AccessDecision {
                client,
                access: decision.access.as_str().to_owned(),
                prefix: decision.prefix.map(|prefix| prefix.to_string()),
                in_file: decision.is_in_file,
            }),
        })
    }

    fn status_of(&self, configured: &config::AccessList) -> Option<AccessListStatus> {
        let list = self.lists.get(&configured.name)?;
        let path = configured.file.as_ref();
        let file = path.and_then(|path| self.files.get(path));
        Some(AccessListStatus {
            name: list.name.clone(),
            prefixes: list.len() as u64,
            others: list.others().as_str().to_owned(),
            refused: list.refused.load(Ordering::Relaxed),
            dry_run: list.dry_run,
            file: path.map(|path| path.display().to_string()),
            error: file.and_then(|file| file.error.clone()),
        })
    }

    /// Takes files that were read for the next configuration, and lets go of those of another.
    pub(super) fn offer(&mut self, read: Vec<PrefixesRead>) {
        let old = std::mem::replace(&mut self.offered, read);
        self.replaced.extend(old.into_iter().map(|its| its.list));
    }

    /// Makes the lists of a configuration, and follows its files. Answers whether lists changed.
    pub(super) fn follow(&mut self, config: &Config) -> bool {
        let offered = std::mem::take(&mut self.offered);
        if offered.is_empty() && self.configured == config.access_lists {
            return false;
        }
        let configured = std::mem::replace(&mut self.configured, config.access_lists.clone());
        let paths = self.configured.iter().filter_map(|list| list.file.clone());
        self.replaced.extend(self.files.follow(offered, paths));
        self.make(&configured);
        true
    }

    /// Makes the lists again. Those whose configuration is as before share its prefixes, and each
    /// shares the table of its file: a change of one prefix takes no time by the size of others.
    fn make(&mut self, before: &[Shared<config::AccessList>]) {
        let before = before.iter().map(|list| (&*list.name, list));
        let before: HashMap<_, _> = before.collect();
        let lists = self.configured.iter().map(|list| {
            let old = self.lists.get(&list.name);
            let is_same = |other: &&Shared<config::AccessList>| {
                Shared::is_same(other, list)
                    || (&other.allow, &other.deny) == (&list.allow, &list.deny)
            };
            let same = before.get(&*list.name).filter(|other| is_same(other));
            let own = match old.filter(|_| same.is_some()) {
                Some(old) => Arc::clone(old.own()),
                None => Arc::new(own(list)),
            };
            let file = list.file.as_ref().and_then(|path| self.files.get(path));
            let file = file.map(|file| Arc::clone(&file.list));
            let refused = old.map_or_else(Arc::default, |old| Arc::clone(&old.refused));
            // The rules of configurations refuse a list without it.
            let others = list.others.unwrap_or(Access::Deny);
            let made = guard::AccessFilter::new(list.name.clone(), own, file, others)
                .counting(refused, list.dry_run)
                .acting(list.action);
            (list.name.clone(), Arc::new(made))
        });
        self.lists = lists.collect();
    }

    /// Waits until a file has changed. The future can be dropped without loss.
    pub(super) async fn changed(&mut self) -> PrefixNews {
        self.files.changed().await
    }

    /// Takes the new prefixes of a file, or what is wrong with it. Answers with a sentence.
    pub(super) fn take(&mut self, news: PrefixNews) -> Option<Result<String, String>> {
        let taken = self.files.take(news)?;
        let Some(old) = taken.replaced else {
            return problem(taken.file).map(Err);
        };
        let (shown, count) = (taken.path.display(), taken.file.list.len());
        let count = plural(count as u64, "prefix");
        let message = format!("access list file {shown}: {count}");
        self.replaced.push(old);
        let configured = self.configured.clone();
        self.make(&configured);
        Some(Ok(message))
    }

    /// Frees tables that no worker asks any more, on another thread: to free much memory takes
    /// long.
    pub(super) fn tick(&mut self) {
        let free = self
            .replaced
            .extract_if(.., |table| Arc::strong_count(table) == 1);
        for table in free {
            drop(aside::compute(move || drop(table)));
        }
    }
}

/// Why a prefix that a list does not have can't be removed.
fn unknown(filter: &guard::AccessFilter, prefix: Prefix) -> String {
    let around = filter.decide(prefix.ip()).prefix;
    let around = around.filter(|around| around.covers(prefix));
    let part = around.map_or_else(String::new, |around| format!(", but {around}"));
    let name = &filter.name;
    format!(
        "cannot remove {prefix}: the access list `{name}` does not have it{part}; \
         `mahoraga access {name}` shows what it has"
    )
}

/// Notes about one change.
const NOTES_MAX: usize = 10;

/// The prefixes of the configuration.
fn own(list: &config::AccessList) -> Prefixes {
    let both = [(&list.allow, Access::Allow), (&list.deny, Access::Deny)];
    let all = both
        .into_iter()
        .flat_map(|(prefixes, access)| prefixes.iter().map(move |prefix| (*prefix, access)));
    // The rules of configurations let no prefix be there twice.
    Prefixes::new(all.collect()).unwrap_or_default()
}

/// What is wrong with a file, and what holds meanwhile.
fn problem(file: &Followed<Prefixes>) -> Option<String> {
    let (error, count) = (file.error.as_ref()?, file.list.len());
    Some(format!(
        "access list file {error}; the last good list stays in force, with {}",
        plural(count as u64, "prefix")
    ))
}
