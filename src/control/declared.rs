//! Combines the configuration file with the orders that operators gave over the API.
//!
//! Pure: the configuration in force is a function of the last file and of the orders that hold.
//!
//! An order holds over every reload. It ends when it is taken back, that is, when the result equals
//! the file. It also ends when a new file changes the same settings of the same subject. An order
//! about a discovered backend holds while the backend is away.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::by_name::ByName;
use crate::config::{Change, ChangeError, Config, Listener, Pool, Topic, limit_words};
use crate::shared::Shared;

/// The configuration without discovered backends.
#[derive(Clone, Debug)]
pub(super) struct Declared {
    /// The configuration of the file.
    file: Config,
    config: Config,
    /// The orders, oldest first; at most one of each kind per subject.
    orders: Vec<Change>,
    /// Orders about discovered backends, oldest first. Each holds while its backend is away too.
    floating: Vec<Change>,
}

/// An order that has ended without being taken back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct EndedOrder {
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
        // A backend that is away may come back.
        Change::set_backends(self.floating.iter(), &mut config);
        config
    }

    /// Comments for the start of the text of [`Self::config`]: they name the orders about
    /// discovered backends, which the text does not have.
    pub(super) fn comments(&self) -> String {
        let orders = self.floating.iter();
        let orders = orders.map(|order| format!("// {}\n", words(order)));
        match orders.collect::<String>() {
            none if none.is_empty() => none,
            orders => format!("// {UNSAVED}:\n{orders}"),
        }
    }

    /// Whether both have the same orders about discovered backends.
    pub(super) fn floats_like(&self, other: &Self) -> bool {
        self.floating == other.floating
    }

    /// Another file takes the place of the last one; `is_same_text`: its names may be at other
    /// addresses, and that is all. Orders are applied again, but for those that it ends.
    pub(super) fn reload(&self, mut file: Config, is_same_text: bool) -> (Self, Vec<EndedOrder>) {
        file.share_pools(&self.file);
        let mut next = Self::new(file);
        let mut ended = Vec::new();
        let in_files = Differences::between(&self.file, &next.file);
        let holds = |order: &Change| is_same_text || !in_files.concern(order);
        let (hold, end): (Vec<_>, Vec<_>) = self.orders.iter().partition(|order| holds(order));
        // If the file now agrees with the order, its end changes nothing and is not reported.
        let made = Differences::between(&self.config, &next.file);
        let matters = |order: &&&Change| made.concern(order);
        ended.extend(end.iter().filter(matters).map(|order| EndedOrder {
            order: (**order).clone(),
            sentence: format!("{} no longer holds: the file has changed", describe(order)),
        }));
        for order in &self.floating {
            let pool = order.topic().pool().and_then(|pool| next.file.pool(pool));
            let why = if !holds(order) {
                "the file declares it now"
            } else if pool.is_none_or(|pool| pool.discovery.is_none()) {
                "the file has changed"
            } else {
                next.floating.push(order.clone());
                continue;
            };
            ended.push(EndedOrder {
                order: order.clone(),
                sentence: format!("{} no longer holds: {why}", describe(order)),
            });
        }
        let hold: Vec<_> = hold.into_iter().cloned().collect();
        let (config, refused) = Change::apply_all(&hold, &next.config);
        next.config = config;
        next.config.share_pools(&self.config);
        let refused: BTreeMap<_, _> = refused.into_iter().collect();
        for (place, order) in hold.into_iter().enumerate() {
            match refused.get(&place) {
                None => next.orders.push(order),
                Some(error) => ended.push(EndedOrder {
                    sentence: format!("{} no longer holds: {error}", describe(&order)),
                    order,
                }),
            }
        }
        next.settle(None);
        (next, ended)
    }

    /// The result of an order, and the orders that had to make room for it. `discovered` adds the
    /// discovered backends to a configuration.
    ///
    /// # Errors
    /// The error of [`Change::apply`], or a discovered backend can't be removed.
    pub(super) fn change(
        &self,
        order: &Change,
        discovered: impl FnOnce(&Config) -> Config,
    ) -> Result<(Self, Vec<EndedOrder>), ChangeError> {
        let mut next = self.clone();
        match order.apply(&self.config) {
            Ok(config) => {
                next.config = config;
                // A backend that is declared was perhaps discovered before: the last word counts.
                next.floating
                    .retain(|before| before.topic() != order.topic());
                if let Change::RemoveBackend { pool, backend } = order {
                    next.remove(order, (pool, backend));
                } else {
                    record(&mut next.orders, order);
                }
                next.settle(Some(order));
                Ok((next, Vec::new()))
            }
            Err(unknown @ ChangeError::Unknown { .. }) => {
                // It may be one that was discovered.
                let found = discovered(&self.config);
                let Ok(_) = order.apply(&self.complete(found.clone())) else {
                    return Err(unknown);
                };
                if let Change::RemoveBackend { backend, .. } = order {
                    return Err(ChangeError::Invalid(format!(
                        "backend `{backend}` was discovered and would be again: \
                         set it to maint, or remove it where it is discovered"
                    )));
                }
                record(&mut next.floating, order);
                let with = next.complete(found.clone());
                let differences = Differences::between(&found, &with);
                next.floating
                    .retain(|one| one.topic() != order.topic() || differences.concern(one));
                let ended = next.make_room(&found);
                Ok((next, ended))
            }
            Err(error) => Err(error),
        }
    }

    /// A backend was removed: what was ordered about it before has ended. One that was added over
    /// the API leaves no trace; the file's own is removed again after each reload.
    fn remove(&mut self, removal: &Change, (pool, backend): (&str, &str)) {
        self.orders
            .retain(|before| before.topic() != removal.topic());
        let pool = self.file.pool(pool);
        if pool.is_some_and(|pool| pool.backend(backend).is_some()) {
            self.orders.push(removal.clone());
        }
    }

    /// Ends the oldest orders about backends that are away, if there are too many of them.
    fn make_room(&mut self, found: &Config) -> Vec<EndedOrder> {
        if self.floating.len() <= AWAY_MAX {
            return Vec::new();
        }
        let members = members(found);
        let is_away = |order: &Change| match order.topic() {
            Topic::Backend(pool, backend) => !members.contains(&(pool, backend)),
            Topic::Pool(_) | Topic::Listener(_) | Topic::Clients => false,
        };
        let away = self.floating.iter().filter(|order| is_away(order)).count();
        let mut surplus = away.saturating_sub(AWAY_MAX);
        let oldest = self.floating.extract_if(.., |order| {
            let ends = surplus > 0 && is_away(order);
            surplus -= usize::from(ends);
            ends
        });
        let ended = oldest.map(|order| EndedOrder {
            sentence: format!(
                "{} no longer holds: its backend is away, and of such orders only the last \
                 {AWAY_MAX} are kept",
                describe(&order)
            ),
            order,
        });
        ended.collect()
    }

    /// Forgets orders that are taken back: things are as the file has them. A change can take back
    /// orders about its subject only: the others, of which there may be many, are not looked at.
    fn settle(&mut self, change: Option<&Change>) {
        let differences = Differences::between(&self.file, &self.config);
        let is_other = |order: &Change| change.is_some_and(|it| it.topic() != order.topic());
        self.orders
            .retain(|order| is_other(order) || differences.concern(order));
    }
}

/// What differs between two configurations, by name: there may be thousands of orders to compare.
struct Differences<'a> {
    limit: bool,
    /// Listeners with another limit.
    listeners: HashSet<&'a str>,
    pools: HashMap<&'a str, [Option<&'a Shared<Pool>>; 2]>,
    /// Of those pools.
    backends: HashSet<(&'a str, &'a str)>,
}

impl<'a> Differences<'a> {
    fn between(one: &'a Config, other: &'a Config) -> Self {
        let is_same =
            |one: &Listener, other: &Listener| one.max_connections == other.max_connections;
        let listeners = differing([&one.listeners, &other.listeners], |its| &its.name, is_same);
        let pools = differing(
            [&one.pools, &other.pools],
            |pool| &pool.name,
            Shared::is_same,
        );
        let pools: HashMap<_, _> = pools.collect();
        let mut backends = HashSet::new();
        for (pool, both) in &pools {
            let both = both.map(|pool| pool.map_or(&[][..], |pool| &pool.backends));
            let differ = differing(both, |backend| &backend.name, PartialEq::eq);
            backends.extend(differ.map(|(name, _)| (*pool, name)));
        }
        Self {
            limit: one.max_connections != other.max_connections,
            listeners: listeners.map(|(name, _)| name).collect(),
            pools,
            backends,
        }
    }

    /// Whether the two differ in what an order changes.
    fn concern(&self, order: &Change) -> bool {
        match order.topic() {
            Topic::Backend(pool, backend) => self.backends.contains(&(pool, backend)),
            Topic::Pool(pool) => match (self.pools.get(pool), order) {
                (Some([Some(one), Some(other)]), Change::SetPool { patch, .. }) => {
                    patch.tells_apart(one, other)
                }
                (only_one, _) => only_one.is_some(),
            },
            Topic::Listener(listener) => self.listeners.contains(listener),
            Topic::Clients => self.limit,
        }
    }
}

/// What only one of two lists has, or what differs in them: each by name, from both.
fn differing<T>(
    [one, other]: [&[T]; 2],
    name: fn(&T) -> &str,
    is_same: impl Fn(&T, &T) -> bool,
) -> impl Iterator<Item = (&str, [Option<&T>; 2])> {
    let [ours, theirs] = [one, other].map(|all| ByName::new(all, name));
    let gone_or_changed = one.iter().enumerate().filter_map(move |(place, its)| {
        let found = theirs.get(place, name(its));
        let differs = !found.is_some_and(|found| is_same(its, found));
        differs.then_some((name(its), [Some(its), found]))
    });
    let added = other.iter().enumerate().filter_map(move |(place, its)| {
        let is_new = ours.get(place, name(its)).is_none();
        is_new.then_some((name(its), [None, Some(its)]))
    });
    gone_or_changed.chain(added)
}

/// An order in words, as the subject of a sentence.
fn describe(order: &Change) -> String {
    format!("the order `{}`", words(order))
}

/// The subject of an order and what it changes.
fn words(order: &Change) -> String {
    let words = match order {
        Change::AddBackend { .. } => vec!["added".to_owned()],
        Change::RemoveBackend { .. } => vec!["removed".to_owned()],
        Change::SetBackend { patch, .. } => patch.words(),
        Change::SetPool { patch, .. } => patch.words(),
        Change::SetListener {
            max_connections, ..
        }
        | Change::SetLimit { max_connections } => vec![limit_words(*max_connections)],
    };
    format!("{}: {}", order.topic(), words.join(", "))
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

/// Every backend: its pool's name, and its own.
fn members(config: &Config) -> HashSet<(&str, &str)> {
    let pools = config.pools.iter();
    let all = pools.flat_map(|pool| pool.backends.iter().map(|its| (&*pool.name, &*its.name)));
    all.collect()
}

/// Merges two changes of one subject. Settings that the second does not name stay as in the first.
fn merged(first: &Change, second: &Change) -> Option<Change> {
    if first.topic() != second.topic() {
        return None;
    }
    let mut both = second.clone();
    match (first, &mut both) {
        (Change::SetBackend { patch: before, .. }, Change::SetBackend { patch, .. }) => {
            *patch = patch.after(before);
        }
        (Change::SetPool { patch: before, .. }, Change::SetPool { patch, .. }) => {
            *patch = patch.after(before);
        }
        (Change::SetListener { .. }, Change::SetListener { .. })
        | (Change::SetLimit { .. }, Change::SetLimit { .. }) => {}
        _ => return None,
    }
    Some(both)
}

/// Why the text of the configuration lacks orders about discovered backends.
const UNSAVED: &str =
    "A restart ends these changes, as this file does not list the backends, which are discovered";
/// Orders about discovered backends that are away: as many as a pool may discover. A backend that
/// moves leaves an order behind for good, and another one may get its address.
const AWAY_MAX: usize = 1_000;

#[cfg(test)]
mod tests;
