//! Combines the configuration file with the orders that operators gave over the API.
//!
//! Pure: the configuration in force is a function of the last file and of the orders that hold.
//!
//! An order holds over every reload. It ends when it is taken back, that is, when the result
//! equals the file. Its part about a setting also ends when a new file changes that setting; an
//! order about weights when it changes any of that route; and the whole order when a file lists its
//! subject for the first time or no longer. An order about a discovered backend holds while that is
//! away.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::by_name::ByName;
use crate::config::{
    AccessList, AdminState, Backend, Change, ChangeError, Changeable, Config, Listener, Patch,
    Pool, RouteList, RouteWeights, Topic,
};
use crate::shared::Shared;

mod words;

use words::{ended, list, words};

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
    /// Orders that the last file made its own.
    agreed: Vec<Change>,
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
            agreed: Vec::new(),
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

    /// A sentence that names the orders that hold, if there are any.
    pub(super) fn holding(&self) -> Option<String> {
        let orders: Vec<_> = self.orders.iter().chain(&self.floating).collect();
        list(&orders, ["still holds", "still hold"])
    }

    /// A sentence that names the orders that the last file made its own, if there are any: once.
    pub(super) fn take_agreed(&mut self) -> Option<String> {
        let agreed = std::mem::take(&mut self.agreed);
        let orders: Vec<_> = agreed.iter().collect();
        list(&orders, ["is in the file now", "are in the file now"])
    }

    /// Whether both have the same orders about discovered backends.
    pub(super) fn has_same_floating(&self, other: &Self) -> bool {
        self.floating == other.floating
    }

    /// Another file takes the place of the last one; `is_same_text`: its names may be at other
    /// addresses, and that is all. Orders are applied again, but for those that it ends.
    pub(super) fn reload(&self, mut file: Config, is_same_text: bool) -> (Self, Vec<EndedOrder>) {
        file.share_pools(&self.file);
        let mut next = Self::new(file);
        let mut ends = Vec::new();
        let mut hold = Vec::new();
        let in_files = Differences::between(&self.file, &next.file);
        // If the file now agrees with the order, its end changes nothing.
        let made = Differences::between(&self.config, &next.file);
        for order in &self.orders {
            let [end, rest] = if is_same_text {
                [None, Some(order.clone())]
            } else {
                in_files.split(order)
            };
            hold.extend(rest);
            let Some(end) = end else { continue };
            let [undone, agreed] = made.split(&end);
            let (why, may_return) = in_files.cause(&end);
            ends.extend(undone.map(|order| ended(order, &why, may_return)));
            next.agreed.extend(agreed);
        }
        for order in &self.floating {
            let pool = order.topic().pool().and_then(|pool| next.file.pool(pool));
            let is_declared = !is_same_text && in_files.split(order)[0].is_some();
            let why = if is_declared {
                "the file lists it now"
            } else if pool.is_none_or(|pool| pool.discovery.is_none()) {
                "its pool discovers no backends now"
            } else {
                next.floating.push(order.clone());
                continue;
            };
            ends.push(ended(order.clone(), why, is_declared));
        }
        let (config, refused) = Change::apply_all(&hold, &next.config);
        next.config = config;
        next.config.share_pools(&self.config);
        let refused: BTreeMap<_, _> = refused.into_iter().collect();
        for (place, order) in hold.into_iter().enumerate() {
            match refused.get(&place) {
                None => next.orders.push(order),
                Some(error) => next.keep_rest(order, error, &mut ends),
            }
        }
        next.settle(None);
        (next, ends)
    }

    /// Keeps what can hold of an order that can't hold as a whole: its valid settings. A backend
    /// that can't stay removed is drained, as it was taken out for a reason.
    fn keep_rest(&mut self, order: Change, error: &ChangeError, ends: &mut Vec<EndedOrder>) {
        if let Change::RemoveBackend { pool, backend } = &order
            && let Ok(patch) = Patch::of("state", AdminState::Drain.as_str())
        {
            let (pool, backend) = (pool.clone(), backend.clone());
            let drain = Change::SetBackend {
                pool,
                backend,
                patch,
            };
            let why = match self.keep(&drain) {
                Ok(()) => format!("{error}; it is drained instead"),
                Err(_) => error.to_string(),
            };
            ends.push(ended(order, &why, false));
            return;
        }
        // Only a patch has several settings.
        let is_whole = matches!(
            order,
            Change::AddBackend { .. }
                | Change::EditAccessList { .. }
                | Change::SetRoutes { .. }
                | Change::WeighRoute { .. }
        );
        let settings = 0..if is_whole { 1 } else { u32::BITS };
        for single in settings.filter_map(|setting| order.only(1 << setting)) {
            if let Err(error) = self.keep(&single) {
                ends.push(ended(single, &error.to_string(), false));
            }
        }
    }

    fn keep(&mut self, order: &Change) -> Result<(), ChangeError> {
        self.config = order.apply(&self.config)?;
        record(&mut self.orders, order);
        Ok(())
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
                    record(&mut next.orders, &order.clone().lasting(&self.config));
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
                let topic = order.topic();
                differences.keep(&mut next.floating, |one| one.topic() == topic);
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
            Topic::Pool(_) | Topic::Listener(_) | Topic::AccessList(_) | Topic::Global => false,
        };
        let away = self.floating.iter().filter(|order| is_away(order)).count();
        let mut surplus = away.saturating_sub(AWAY_MAX);
        let oldest = self.floating.extract_if(.., |order| {
            let ends = surplus > 0 && is_away(order);
            surplus -= usize::from(ends);
            ends
        });
        let why = format!("it is away, and only the last {AWAY_MAX} such orders are kept");
        oldest.map(|order| ended(order, &why, false)).collect()
    }

    /// Forgets orders that are taken back: things are as the file has them. A change can take back
    /// orders about its subject only: the others, of which there may be many, are not looked at.
    fn settle(&mut self, change: Option<&Change>) {
        let differences = Differences::between(&self.file, &self.config);
        let is_its = |order: &Change| change.is_none_or(|it| it.topic() == order.topic());
        differences.keep(&mut self.orders, is_its);
    }
}

/// What differs between two configurations, by name: there may be thousands of orders to compare.
struct Differences<'a> {
    both: [&'a Config; 2],
    listeners: HashMap<&'a str, Both<'a, Listener>>,
    access_lists: HashMap<&'a str, Both<'a, Shared<AccessList>>>,
    pools: HashMap<&'a str, Both<'a, Shared<Pool>>>,
    /// Of those pools.
    backends: HashMap<(&'a str, &'a str), Both<'a, Backend>>,
}

/// What two configurations have of one name.
type Both<'a, T> = [Option<&'a T>; 2];

impl<'a> Differences<'a> {
    fn between(one: &'a Config, other: &'a Config) -> Self {
        let listeners = differing(
            [&one.listeners, &other.listeners],
            |its| &its.name,
            PartialEq::eq,
        );
        let access_lists = differing(
            [&one.access_lists, &other.access_lists],
            |its| &its.name,
            PartialEq::eq,
        );
        let pools = differing(
            [&one.pools, &other.pools],
            |pool| &pool.name,
            Shared::is_same,
        );
        let pools: HashMap<_, _> = pools.collect();
        let mut backends = HashMap::new();
        for (pool, both) in &pools {
            let both = both.map(|pool| pool.map_or(&[][..], |pool| &pool.backends));
            let differ = differing(both, |backend| &backend.name, PartialEq::eq);
            backends.extend(differ.map(|(name, both)| ((*pool, name), both)));
        }
        Self {
            both: [one, other],
            listeners: listeners.collect(),
            access_lists: access_lists.collect(),
            pools,
            backends,
        }
    }

    /// The part of an order about what differs, and the rest.
    fn split(&self, order: &Change) -> [Option<Change>; 2] {
        match order {
            Change::AddBackend { .. } | Change::RemoveBackend { .. } => match self.backend(order) {
                None => [None, Some(order.clone())],
                Some(_) => [Some(order.clone()), None],
            },
            Change::SetBackend { .. } => parts(order, self.backend(order)),
            Change::SetPool { pool, .. } => {
                let both = self.pools.get(&**pool);
                parts(
                    order,
                    both.map(|both| both.map(|pool| pool.map(|pool| &**pool))),
                )
            }
            Change::SetListener { listener, .. } => {
                parts(order, self.listeners.get(&**listener).copied())
            }
            Change::SetRoutes { listener, .. } => {
                let [one, other] = self.both.map(|config| routes_of(config, listener));
                whole(order, one != other)
            }
            // A weight says what its pool gets beside those of the others.
            Change::WeighRoute {
                listener, route, ..
            } => {
                let now = |config| RouteWeights::now(config, listener, route);
                let [one, other] = self.both.map(now);
                whole(order, one != other)
            }
            Change::EditAccessList { list, edits } => match self.access_lists.get(&**list) {
                None => [None, Some(order.clone())],
                Some([Some(one), Some(other)]) => edits.split(one, other).map(|edits| {
                    let list = list.clone();
                    (!edits.is_empty()).then_some(Change::EditAccessList { list, edits })
                }),
                Some(_) => [Some(order.clone()), None],
            },
            Change::SetGlobal { .. } => parts(order, Some(self.both.map(Some))),
        }
    }

    /// The backend that an order is about, if it differs.
    fn backend(&self, order: &Change) -> Option<Both<'a, Backend>> {
        match order.topic() {
            Topic::Backend(pool, backend) => self.backends.get(&(pool, backend)).copied(),
            Topic::Pool(_) | Topic::Listener(_) | Topic::AccessList(_) | Topic::Global => None,
        }
    }

    /// Reduces the orders for which `is_its` holds to what differs.
    fn keep(&self, orders: &mut Vec<Change>, is_its: impl Fn(&Change) -> bool) {
        orders.retain_mut(|order| {
            if !is_its(order) {
                return true;
            }
            let [part, _] = self.split(order);
            part.map(|part| *order = part).is_some()
        });
    }

    /// Why the second of two files ends a part of an order, as [`Self::split`] gives it, and
    /// whether the order may be given again.
    fn cause(&self, part: &Change) -> (String, bool) {
        let names = match part {
            Change::AddBackend { .. } => Vec::new(),
            Change::RemoveBackend { .. } => match self.backend(part) {
                Some([Some(one), Some(other)]) => one.differing(other),
                _ => Vec::new(),
            },
            Change::SetBackend { patch, .. } => names(patch),
            Change::SetPool { patch, .. } => names(patch),
            Change::SetListener { patch, .. } => names(patch),
            Change::EditAccessList { .. } => vec!["prefixes"],
            Change::SetRoutes { .. } => vec!["routes"],
            Change::WeighRoute { .. } => vec!["routes or their weights"],
            Change::SetGlobal { patch } => names(patch),
        };
        let in_files = match part.topic() {
            Topic::Backend(..) => self.backend(part).map(|both| both.map(|its| its.is_some())),
            Topic::Pool(pool) => self
                .pools
                .get(pool)
                .map(|both| both.map(|its| its.is_some())),
            Topic::Listener(listener) => {
                let both = self.listeners.get(listener);
                both.map(|both| both.map(|its| its.is_some()))
            }
            Topic::AccessList(list) => {
                let both = self.access_lists.get(list);
                both.map(|both| both.map(|its| its.is_some()))
            }
            Topic::Global => None,
        };
        match in_files {
            Some([_, false]) => ("the file no longer lists it".to_owned(), false),
            Some([false, true]) if matches!(part, Change::AddBackend { .. }) => {
                let why = "the file lists it now, with its own settings";
                (why.to_owned(), false)
            }
            Some([false, true]) => ("the file lists it now".to_owned(), true),
            Some([true, true]) | None => (
                format!("the file has changed its {}", names.join(", ")),
                self.takes(part),
            ),
        }
    }

    /// Whether the second of two files would take an order that it ends.
    fn takes(&self, order: &Change) -> bool {
        let Change::WeighRoute {
            listener,
            route,
            weights,
            ..
        } = order
        else {
            return true;
        };
        weights.fit(self.both[1], listener, route)
    }
}

/// An order that has no parts, as what differs or as the rest.
fn whole(order: &Change, differs: bool) -> [Option<Change>; 2] {
    let [differing, rest] = [differs, !differs].map(|is_it| is_it.then(|| order.clone()));
    [differing, rest]
}

/// The part of an order whose settings differ between both, and the rest.
fn parts<G: Changeable>(order: &Change, both: Option<Both<'_, G>>) -> [Option<Change>; 2] {
    match both {
        None => [None, Some(order.clone())],
        Some([Some(one), Some(other)]) => {
            let differing = Patch::differing(one, other);
            [differing, !differing].map(|settings| order.only(settings))
        }
        Some(_) => [Some(order.clone()), None],
    }
}

fn names<G: Changeable>(patch: &Patch<G>) -> Vec<&'static str> {
    patch.words().map(|(name, _)| name).collect()
}

/// The routes of a listener, if it is there.
fn routes_of(config: &Config, listener: &str) -> Option<RouteList> {
    let mut listeners = config.listeners.iter();
    let listener = listeners.find(|its| its.name == listener)?;
    Some(RouteList::of(config, listener))
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

/// Records an order, merged with an earlier one about the same subject.
fn record(orders: &mut Vec<Change>, order: &Change) {
    if let Change::SetRoutes { .. } = order {
        // They have weights of their own.
        let is_weight = |before: &Change| matches!(before, Change::WeighRoute { .. });
        orders.retain(|before| before.topic() != order.topic() || !is_weight(before));
    }
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
        (Change::AddBackend { pool, backend }, Change::SetBackend { patch, .. }) => {
            let mut backend = backend.clone();
            patch.apply(&mut backend);
            let pool = pool.clone();
            both = Change::AddBackend { pool, backend };
        }
        (Change::SetBackend { patch: before, .. }, Change::SetBackend { patch, .. }) => {
            *patch = patch.after(before);
        }
        (Change::SetPool { patch: before, .. }, Change::SetPool { patch, .. }) => {
            *patch = patch.after(before);
        }
        (Change::SetListener { patch: before, .. }, Change::SetListener { patch, .. }) => {
            *patch = patch.after(before);
        }
        (Change::SetRoutes { .. }, Change::SetRoutes { .. }) => {}
        (
            Change::SetRoutes {
                listener, routes, ..
            },
            Change::WeighRoute { route, weights, .. },
        ) => {
            both = Change::SetRoutes {
                listener: listener.clone(),
                routes: routes.weighed(route, weights)?,
                version: None,
            };
        }
        (
            Change::WeighRoute {
                route: one,
                weights: before,
                ..
            },
            Change::WeighRoute { route, weights, .. },
        ) if one == route => *weights = weights.after(before),
        (Change::EditAccessList { edits: before, .. }, Change::EditAccessList { edits, .. }) => {
            *edits = edits.after(before)
        }
        (Change::SetGlobal { patch: before }, Change::SetGlobal { patch }) => {
            *patch = patch.after(before);
        }
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
