//! The control thread's state, and how it becomes what the workers route by.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::SystemTime;

use crate::address::Address;
use crate::admin::model::{EventKind, Reloads, Stage};
use crate::admin::{self, Audit, Tokens};
use crate::config::{self, AdminHttp, Config, Target};
use crate::snapshot::Snapshot;
use crate::sys::{self, Bound};

use super::access_log::Orders;
use super::at_start::AtStart;
use super::crew::Crew;
use super::declared::Declared;
use super::discovery::{self, Discoveries};
use super::events::{Events, Subject, Weight};
use super::health::Checks;
use super::histograms::Measurements;
use super::lacks::Lacks;
use super::recent::Recent;
use super::reload::{ConfigWatch, Reloading};
use super::roster::Roster;
use super::supervise::Watchdog;
use super::webhook::Webhooks;
use super::{Reread, StartError, capacity, listening, pools, status};

/// All that the control thread knows.
pub(super) struct Balancer {
    pub(super) crew: Rc<Crew>,
    /// Reads the file again, where there is one.
    pub(super) reread: Option<Reread>,
    pub(super) declared: Declared,
    /// Settings that stay what they were at the start.
    pub(super) at_start: AtStart,
    /// What is declared, with what is discovered.
    pub(super) config: Config,
    pub(super) snapshot: Arc<Snapshot>,
    /// When what it tells was known: before tables were made of it, in ns of the workers' clock.
    pub(super) known_at: u64,
    /// When that was done, and how long it took, in ns.
    published_at: u64,
    publishing_took: u64,
    /// Since when more is known.
    unpublished: Option<u64>,
    /// It was discovered: the configuration in force is to be completed by it.
    discovered: bool,
    /// Pools and backends of `config`, with what is known of them.
    pub(super) roster: Roster,
    pub(super) checks: Checks,
    pub(super) discoveries: Discoveries,
    pub(super) measurements: Rc<Measurements>,
    pub(super) log_orders: Rc<Orders>,
    pub(super) events: Events,
    pub(super) audit: Rc<RefCell<Audit>>,
    pub(super) lacks: Lacks,
    pub(super) reloads: Reloads,
    pub(super) stage: Stage,
    pub(super) started_at: SystemTime,
    /// When rates were taken last, in ns of the workers' clock.
    pub(super) ticked_at: u64,
    pub(super) recent: Recent,
    /// Whether the file has changed.
    pub(super) file_watch: Option<Rc<ConfigWatch>>,
    pub(super) reloading: Reloading,
    pub(super) webhooks: Webhooks,
    pub(super) watchdog: Option<Watchdog>,
    /// The API's over HTTP, with where they come from.
    pub(super) tokens: Option<(Tokens, AdminHttp)>,
}

impl Balancer {
    /// Takes over a crew that has just begun.
    ///
    /// # Errors
    /// The audit log can't be opened.
    pub(super) fn new(
        (config, discoveries): (&Config, Discoveries),
        crew: &Rc<Crew>,
        reread: Option<Reread>,
        watchers: &admin::Events,
        log_orders: &Rc<Orders>,
    ) -> Result<Self, StartError> {
        let admin = config.admin.as_ref();
        let audit_log = admin.and_then(|admin| admin.audit_log.as_deref());
        let audit = Audit::open(audit_log).map_err(|error| StartError::Admin {
            at: audit_log.map_or_else(String::new, |path| path.display().to_string()),
            error,
        })?;
        let file_watch = reread.as_ref().map(ConfigWatch::begin);
        let mut balancer = Self {
            crew: Rc::clone(crew),
            reread,
            declared: Declared::new(config.clone()),
            at_start: AtStart::of(config),
            config: config.clone(),
            snapshot: Arc::clone(&crew.snapshot),
            known_at: sys::monotonic(),
            published_at: sys::monotonic(),
            publishing_took: 0,
            unpublished: None,
            discovered: false,
            roster: Roster::default(),
            checks: Checks::new(crew.seed),
            discoveries,
            measurements: Rc::new(Measurements::new(config.histogram_log.clone())),
            log_orders: Rc::clone(log_orders),
            events: Events::new(watchers),
            audit: Rc::new(RefCell::new(audit)),
            lacks: Lacks::default(),
            reloads: Reloads::default(),
            stage: Stage::Starting,
            started_at: SystemTime::now(),
            ticked_at: sys::monotonic(),
            recent: Recent::default(),
            file_watch,
            reloading: Reloading::default(),
            webhooks: Webhooks::new(),
            watchdog: Watchdog::new(),
            tokens: None,
        };
        balancer.tell_unresolved();
        let config = balancer.effective(&balancer.declared);
        balancer.follow(config, Vec::new());
        balancer.watch_file(true);
        Ok(balancer)
    }

    /// Routes by what is declared now, whatever it was before. What it needs of the kernel is taken
    /// first; where that fails, all stays as it is.
    pub(super) fn apply(&mut self, declared: Declared) -> Result<(), StartError> {
        let config = self.effective(&declared);
        listening::probe_origins(&config, Some(&self.config))?;
        let new = listening::bind_new(&self.crew, &self.snapshot, &config)?;
        self.declared = declared;
        // What is known of other questions, or by other ports, counts from now on.
        self.discoveries.follow(&config);
        let config = self.effective(&self.declared);
        self.follow(config, new);
        Ok(())
    }

    /// What is declared, with what is discovered.
    fn effective(&self, declared: &Declared) -> Config {
        let found = |pool: &str| self.discoveries.found(pool);
        let mut config = declared.complete(discovery::merge(declared.config(), found));
        self.discoveries.resolve(&mut config);
        config
    }

    /// Whether every pool that discovers and every host name has had an answer, good or bad.
    pub(super) fn has_discovered(&self) -> bool {
        let mut pools = self.config.pools.iter();
        pools.all(|pool| pool.discovery.is_none() || self.discoveries.has_answer(&pool.name))
            && self.discoveries.knows_hosts()
    }

    /// Backends were discovered or have vanished, or a host name means something else. What is in
    /// force follows with the next publication: all answers that came until then at once, as each
    /// time the whole configuration is gone through.
    pub(super) fn on_discovered(&mut self) {
        self.discoveries.take_rest();
        self.discovered = true;
        self.publish_soon();
    }

    fn follow_discovered(&mut self) {
        let began = sys::monotonic();
        self.tell_unresolved();
        let config = self.effective(&self.declared);
        if config == self.config {
            self.publish_with(Vec::new());
        } else {
            self.follow(config, Vec::new());
        }
        self.publishing_took = sys::monotonic() - began;
    }

    fn follow(&mut self, config: Config, new: Vec<Bound>) {
        self.discoveries.follow(&config);
        self.roster.follow(&config);
        self.checks.follow(&config, &mut self.roster);
        let before = std::mem::replace(&mut self.config, config);
        self.publish_with(new);
        self.tell_differences(&before);
        self.tell_resolved(&before);
    }

    /// Has all workers route by what is known now.
    pub(super) fn publish(&mut self) {
        if std::mem::take(&mut self.discovered) {
            self.follow_discovered();
        } else {
            self.publish_with(Vec::new());
        }
    }

    /// The same in a moment, together with whatever comes until then: a network that is lost takes
    /// hundreds of backends down one after the other.
    pub(super) fn publish_soon(&mut self) {
        self.unpublished.get_or_insert_with(sys::monotonic);
    }

    /// When what has come since the last publication is to be published, in ns of the workers'
    /// clock. To publish takes a fifth of this thread's time at most.
    pub(super) fn publish_due(&self) -> Option<u64> {
        let pause = (4 * self.publishing_took).max(PUBLISH_PAUSE);
        self.unpublished.map(|_| self.published_at + pause)
    }

    fn publish_with(&mut self, new: Vec<Bound>) {
        // Tables of selectors are made first: whoever waits for the change waits for them too.
        let began = sys::monotonic();
        self.known_at = self.unpublished.take().unwrap_or(began);
        let max = capacity::within(self.config.max_connections, self.crew.connections_possible);
        let config = &self.config;
        let standings = |place: usize| self.roster.standings(&config.pools[place], place);
        let draft = Snapshot::compose(Some(&self.snapshot), config, max, standings);
        let next = Arc::new(draft.take_effect());
        self.roster.begin_to_count(&next);
        self.crew.publish(&next, new);
        self.published_at = sys::monotonic();
        self.publishing_took = self.published_at - began;
        pools::follow(&mut self.roster, &next);
        self.snapshot = next;
        status::note_conditions(&self.snapshot);
        self.tell_panics();
        self.close_downed();
    }

    /// A worker whose mailbox was full has missed the last snapshot.
    pub(super) fn publish_again(&self) {
        let late = sys::monotonic().saturating_sub(self.known_at) > ADOPTED_WITHIN;
        if late && self.crew.adopted_at(self.snapshot.version).is_none() {
            self.crew.publish(&self.snapshot, Vec::new());
        }
    }

    /// Tells which pools panic, and which do so no longer. Before everybody was probed few may
    /// count as usable, and nothing is wrong yet.
    fn tell_panics(&mut self) {
        if self.stage == Stage::Starting {
            return;
        }
        for (plan, record) in self.snapshot.pools.iter().zip(&mut self.roster.pools) {
            let pool = plan.pool();
            let about = Subject::pool(&pool.name);
            let reported = std::mem::replace(&mut record.panics, pool.panic);
            if pool.panic && !reported {
                let usable = pool.backends.iter().filter(|its| its.is_usable()).count();
                let message = format!(
                    "pool `{}` panics: {usable} of {} backends are usable, so all that are ready \
                     get connections",
                    pool.name,
                    pool.backends.len()
                );
                self.events
                    .tell(Weight::Warn, EventKind::Panic, about, message);
            } else if reported && !pool.panic {
                let message = format!("pool `{}` has enough usable backends again", pool.name);
                self.events
                    .tell(Weight::Info, EventKind::PanicOver, about, message);
            }
        }
    }

    /// Tells what host names of backends mean now, where that is something else.
    fn tell_resolved(&self, before: &Config) {
        for pool in &self.config.pools {
            let named = pool.backends.iter().filter(|its| its.host.is_some());
            for backend in named.filter(|its| its.is_resolved()) {
                let old = before.pool(&pool.name);
                let old = old.and_then(|old| old.backend(&backend.name));
                let old = old.filter(|old| old.target() == backend.target());
                let (name, address) = (&backend.name, &backend.address);
                let message = match old.filter(|old| old.is_resolved()) {
                    Some(old) if old.address == *address => continue,
                    Some(old) => format!(
                        "backend `{name}` of pool `{}` is at {address} now, no longer at {}",
                        pool.name, old.address
                    ),
                    None => format!("backend `{name}` of pool `{}` is at {address}", pool.name),
                };
                let about = Subject::backend(&pool.name, name);
                self.events
                    .tell(Weight::Info, EventKind::BackendResolved, about, message);
            }
        }
    }

    /// Tells which host names have no address at the first look.
    pub(super) fn tell_unresolved(&mut self) {
        let failed: HashSet<_> = self.discoveries.failed_hosts().into_iter().collect();
        if failed.is_empty() {
            return;
        }
        for pool in &self.config.pools {
            for backend in pool.backends.iter().filter(|its| !its.is_resolved()) {
                let host = backend.host.as_ref().map(|host| host.to_ascii_lowercase());
                let Some(host) = host.filter(|host| failed.contains(host)) else {
                    continue;
                };
                let why = self.discoveries.host_error(&host).unwrap_or_default();
                let (name, of) = (&backend.name, &pool.name);
                let message = format!("backend `{name}` of pool `{of}` has no address: {why}");
                let about = Subject::backend(of, name);
                self.events
                    .tell(Weight::Quiet, EventKind::BackendUnresolved, about, message);
            }
        }
    }

    /// Tells which listeners and backends came and went.
    fn tell_differences(&self, before: &Config) {
        let [old, new] = [before, &self.config].map(listeners);
        for (kind, here, there, verb) in [
            (EventKind::ListenerAdded, &new, &old, "is added"),
            (EventKind::ListenerRemoved, &old, &new, "is removed"),
        ] {
            for (name, bind) in here.difference(there) {
                let message = format!("listener `{name}` on {bind} {verb}");
                self.events
                    .tell(Weight::Quiet, kind, Subject::default(), message);
            }
        }
        let (old, new) = (by_name(before), by_name(&self.config));
        // Most pools are as they were.
        let changed = |one: &config::Pool| {
            let [old, new] = [&old, &new].map(|pools| pools.get(&*one.name));
            old.map(|its| &its.backends) != new.map(|its| &its.backends)
        };
        let [old, new] = [before, &self.config].map(|config| backends(config, changed));
        for (kind, here, there, verb) in [
            (EventKind::BackendAdded, &new, &old, "joins"),
            (EventKind::BackendRemoved, &old, &new, "leaves"),
        ] {
            let differ: Vec<_> = here.difference(there).collect();
            // Discovery can bring hundreds at once: then one line says so.
            let weight = if differ.len() > TOLD_SINGLY {
                log::info!("{} backends are here: each {verb} its pool", differ.len());
                Weight::Quiet
            } else {
                Weight::Info
            };
            for (pool, name, address) in differ {
                let message = format!("backend `{name}` at {address} {verb} pool `{pool}`");
                let about = Subject::backend(pool, name);
                self.events.tell(weight, kind, about, message);
            }
        }
    }
}

fn listeners(config: &Config) -> BTreeSet<(&str, &Address)> {
    let listeners = config.listeners.iter();
    listeners.map(|its| (&*its.name, &its.bind)).collect()
}

fn by_name(config: &Config) -> HashMap<&str, &config::Pool> {
    let pools = config.pools.iter();
    pools.map(|pool| (&*pool.name, pool)).collect()
}

/// The backends of some pools.
fn backends(
    config: &Config,
    mut some: impl FnMut(&config::Pool) -> bool,
) -> BTreeSet<(&str, &str, Target<'_>)> {
    let pools = config.pools.iter().filter(|pool| some(pool));
    let all = pools.flat_map(|pool| {
        let backends = pool.backends.iter();
        backends.map(|its| (&*pool.name, &*its.name, its.target()))
    });
    all.collect()
}

/// Workers that have not adopted a snapshot by then are told again: 1 s, in ns.
const ADOPTED_WITHIN: u64 = 1_000_000_000;
/// Backends that may come or go with a line in the log for each.
const TOLD_SINGLY: usize = 20;
/// From one publication to the next at least, where nobody waits for it: 2 ms, in ns.
const PUBLISH_PAUSE: u64 = 2_000_000;
