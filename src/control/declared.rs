//! Combines the configuration file with the orders that operators gave over the API.
//!
//! Pure: the configuration in force is a function of the last file and of the orders that hold.
//!
//! An order holds over every reload. It ends when it is taken back, that is, when the result equals
//! the file. It also ends when a new file changes the same settings of the same subject.

use std::collections::{BTreeMap, HashSet};

use crate::config::{Backend, Change, ChangeError, Config, limit_words};

/// The configuration without discovered backends.
#[derive(Clone, Debug)]
pub(super) struct Declared {
    /// The configuration of the file.
    file: Config,
    config: Config,
    /// The orders, oldest first; at most one of each kind per subject.
    orders: Vec<Change>,
    /// Orders about backends that were discovered, which are applied to each set of them.
    floating: Vec<Change>,
}

/// An order that a reload has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ended {
    pub(super) order: Change,
    /// The order and why it ended, in a sentence.
    pub(super) sentence: String,
}

impl Declared {
    /// Starts from a file, without orders.
    pub(super) fn new(file: Config) -> Self {
        Self {
            config: file.clone(),
            file,
            orders: Vec::new(),
            floating: Vec::new(),
        }
    }

    /// The configuration in force, without discovered backends.
    pub(super) fn config(&self) -> &Config {
        &self.config
    }

    /// The configuration of the last file.
    pub(super) fn file(&self) -> &Config {
        &self.file
    }

    /// Applies the orders about discovered backends. `config` holds the declared and the discovered
    /// backends.
    pub(super) fn complete(&self, mut config: Config) -> Config {
        // The backend may have vanished, and may come back.
        Change::set_backends(self.floating.iter(), &mut config);
        config
    }

    /// Another file takes the place of the last one; `is_same_text`: its names may be at other
    /// addresses, and that is all. Orders are applied again, but for those that it ends.
    pub(super) fn reload(&self, mut file: Config, is_same_text: bool) -> (Self, Vec<Ended>) {
        file.share_pools(&self.file);
        let mut next = Self::new(file);
        let mut ended = Vec::new();
        let holds = |order: &Change| is_same_text || !differs(order, &self.file, &next.file);
        let (hold, end): (Vec<_>, Vec<_>) = self.orders.iter().partition(|order| holds(order));
        // If the file now agrees with the order, its end changes nothing and is not reported.
        let matters = |order: &&&Change| differs(order, &self.config, &next.file);
        ended.extend(end.iter().filter(matters).map(|order| Ended {
            order: (**order).clone(),
            sentence: format!("{} no longer holds: the file has changed", describe(order)),
        }));
        let (floating, declared): (Vec<_>, Vec<_>) =
            self.floating.iter().partition(|order| holds(order));
        ended.extend(declared.iter().map(|order| Ended {
            order: (**order).clone(),
            sentence: format!(
                "{} no longer holds: the file declares it now",
                describe(order)
            ),
        }));
        next.floating = floating.into_iter().cloned().collect();
        let hold: Vec<_> = hold.into_iter().cloned().collect();
        let (config, refused) = Change::apply_all(&hold, &next.config);
        next.config = config;
        next.config.share_pools(&self.config);
        let refused: BTreeMap<_, _> = refused.into_iter().collect();
        for (place, order) in hold.into_iter().enumerate() {
            match refused.get(&place) {
                None => next.orders.push(order),
                Some(error) => ended.push(Ended {
                    sentence: format!("{} no longer holds: {error}", describe(&order)),
                    order,
                }),
            }
        }
        next.settle(None);
        (next, ended)
    }

    /// The result of an order. `effective` is the configuration in force with discovered backends.
    ///
    /// # Errors
    /// The error of [`Change::apply`], or a discovered backend can't be removed.
    pub(super) fn change(&self, order: &Change, effective: &Config) -> Result<Self, ChangeError> {
        let mut next = self.clone();
        match order.apply(&self.config) {
            Ok(config) => {
                next.config = config;
                // A backend that is declared was perhaps discovered before: the last word counts.
                next.floating
                    .retain(|before| !is_of_same_backend(before, order));
                match order {
                    Change::RemoveBackend { .. } => next.remove(order),
                    Change::AddBackend { .. }
                    | Change::SetBackend { .. }
                    | Change::SetPool { .. }
                    | Change::SetListener { .. }
                    | Change::SetLimit { .. } => record(&mut next.orders, order),
                }
                next.settle(Some(order));
                Ok(next)
            }
            Err(unknown @ ChangeError::Unknown { .. }) => {
                // It may be one that was discovered.
                let Ok(_) = order.apply(effective) else {
                    return Err(unknown);
                };
                if let Change::RemoveBackend { backend, .. } = order {
                    return Err(ChangeError::Invalid(format!(
                        "backend `{backend}` was discovered and would be again: \
                         set it to maint, or remove it where it is discovered"
                    )));
                }
                // Orders about backends that vanished for good are dropped.
                let members = members(effective);
                let is_there =
                    |order: &Change| name_of(order).is_some_and(|it| members.contains(&it));
                next.floating.retain(is_there);
                record(&mut next.floating, order);
                Ok(next)
            }
            Err(error) => Err(error),
        }
    }

    /// A backend was removed: what was ordered about it before has ended. One that was added over
    /// the API leaves no trace; the file's own is removed again after each reload.
    fn remove(&mut self, removal: &Change) {
        let Change::RemoveBackend { pool, backend } = removal else {
            return;
        };
        self.orders
            .retain(|before| !is_of_same_backend(before, removal));
        if backend_of(&self.file, pool, backend).is_some() {
            self.orders.push(removal.clone());
        }
    }

    /// Forgets orders that are taken back: things are as the file has them. A change can take back
    /// orders about its subject only: the others, of which there may be many, are not looked at.
    fn settle(&mut self, change: Option<&Change>) {
        let (file, config) = (&self.file, &self.config);
        let is_other =
            |order: &Change| change.is_some_and(|change| name_of(change) != name_of(order));
        self.orders
            .retain(|order| is_other(order) || differs(order, file, config));
    }
}

/// Whether two configurations differ in what an order concerns.
fn differs(order: &Change, one: &Config, other: &Config) -> bool {
    let both = [one, other];
    match order {
        Change::AddBackend { pool, backend } => {
            let [one, other] = both.map(|config| backend_of(config, pool, &backend.name));
            one != other
        }
        Change::RemoveBackend { pool, backend } | Change::SetBackend { pool, backend, .. } => {
            let [one, other] = both.map(|config| backend_of(config, pool, backend));
            one != other
        }
        Change::SetPool { pool, patch } => {
            let [Some(one), Some(other)] = both.map(|config| config.pool(pool)) else {
                return true;
            };
            patch.tells_apart(one, other)
        }
        Change::SetListener { listener, .. } => {
            let [one, other] = both.map(|config| {
                let mut all = config.listeners.iter();
                let found = all.find(|one| one.name == *listener);
                found.map(|one| one.max_connections)
            });
            one != other
        }
        Change::SetLimit { .. } => one.max_connections != other.max_connections,
    }
}

fn backend_of<'a>(config: &'a Config, pool: &str, backend: &str) -> Option<&'a Backend> {
    config.pool(pool)?.backend(backend)
}

/// An order in words, as the subject of a sentence.
fn describe(order: &Change) -> String {
    let (about, words) = match order {
        Change::AddBackend { pool, backend } => {
            (format!("{pool}/{}", backend.name), vec!["added".to_owned()])
        }
        Change::RemoveBackend { pool, backend } => {
            (format!("{pool}/{backend}"), vec!["removed".to_owned()])
        }
        Change::SetBackend {
            pool,
            backend,
            patch,
        } => (format!("{pool}/{backend}"), patch.words()),
        Change::SetPool { pool, patch } => (format!("pool {pool}"), patch.words()),
        Change::SetListener {
            listener,
            max_connections,
        } => {
            let limit = limit_words(*max_connections);
            (format!("listener {listener}"), vec![limit])
        }
        Change::SetLimit { max_connections } => (
            "all clients".to_owned(),
            vec![limit_words(*max_connections)],
        ),
    };
    format!("the order `{about}: {}`", words.join(", "))
}

/// Records an order, merged with an earlier one about the same subject.
fn record(orders: &mut Vec<Change>, order: &Change) {
    for before in orders.iter_mut() {
        if let Some(both) = merged(before, order) {
            *before = both;
            return;
        }
    }
    orders.push(order.clone());
}

fn is_of_same_backend(one: &Change, other: &Change) -> bool {
    let name = name_of(one);
    name.is_some() && name == name_of(other)
}

/// The backend that an order is about: its pool's name, and its own.
fn name_of(order: &Change) -> Option<(&str, &str)> {
    match order {
        Change::AddBackend { pool, backend } => Some((pool, &backend.name)),
        Change::RemoveBackend { pool, backend } | Change::SetBackend { pool, backend, .. } => {
            Some((pool, backend))
        }
        Change::SetPool { .. } | Change::SetListener { .. } | Change::SetLimit { .. } => None,
    }
}

/// Every backend: its pool's name, and its own.
fn members(config: &Config) -> HashSet<(&str, &str)> {
    let pools = config.pools.iter();
    let all = pools.flat_map(|pool| pool.backends.iter().map(|its| (&*pool.name, &*its.name)));
    all.collect()
}

/// Merges two changes of one subject. Settings that the second does not name stay as in the first.
fn merged(first: &Change, second: &Change) -> Option<Change> {
    match (first, second) {
        (
            Change::SetBackend {
                pool,
                backend,
                patch,
            },
            Change::SetBackend {
                pool: its_pool,
                backend: same,
                patch: next,
            },
        ) if pool == its_pool && backend == same => Some(Change::SetBackend {
            pool: pool.clone(),
            backend: backend.clone(),
            patch: next.after(patch),
        }),
        (
            Change::SetPool { pool, patch },
            Change::SetPool {
                pool: same,
                patch: next,
            },
        ) if pool == same => Some(Change::SetPool {
            pool: pool.clone(),
            patch: next.after(patch),
        }),
        (Change::SetListener { listener, .. }, Change::SetListener { listener: same, .. })
            if listener == same =>
        {
            Some(second.clone())
        }
        (Change::SetLimit { .. }, Change::SetLimit { .. }) => Some(second.clone()),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
