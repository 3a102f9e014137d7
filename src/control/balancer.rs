//! The control thread's state, and how the snapshots of the workers are made from it.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::admin::Tokens;
use crate::admin::model::Stage;
use crate::config::{Config, TokenFiles};
use crate::pool::Tally;
use crate::sys::{self, Bound};

use super::access_lists::AccessLists;
use super::access_log::Orders;
use super::admin_listeners::AdminSocket;
use super::at_start::AtStart;
use super::audit::Audit;
use super::bans::BanReports;
use super::declared::Declared;
use super::discovery::Discoveries;
use super::events::Events;
use super::fleet::Fleet;
use super::health::Checks;
use super::health_cycle::HealthCycle;
use super::histograms::Measurements;
use super::history::Recorder;
use super::in_force::InForce;
use super::leaving::Leaving;
use super::metrics::Metrics;
use super::peers::Peers;
use super::publisher::Publisher;
use super::reload::Reloading;
use super::roster::Roster;
use super::scaling::Scaling;
use super::syn_filter::SynFilter;
use super::tls::TlsInForce;
use super::track_file::TrackFile;
use super::unix_sockets::Opened;
use super::watchdog::Watchdog;
use super::webhook::Webhooks;
use super::workers::Workers;
use super::{Reread, StartError, announce, listening, pools, status};

/// The state of the control thread.
pub(super) struct Balancer {
    pub(super) workers: Rc<Workers>,
    pub(super) in_force: InForce,
    /// Settings that take effect only at a start.
    pub(super) at_start: AtStart,
    pub(super) publisher: Publisher,
    /// Pools and backends in force, with what is known of them.
    pub(super) roster: Roster,
    pub(super) checks: Checks,
    pub(super) access: AccessLists,
    pub(super) tls: TlsInForce,
    pub(super) bans: BanReports,
    pub(super) fleet: Fleet,
    pub(super) peers: Peers,
    pub(super) syn_filter: SynFilter,
    pub(super) metrics: Metrics,
    pub(super) history: Recorder,
    pub(super) log_orders: Rc<Orders>,
    pub(super) events: Events,
    pub(super) audit: Rc<Audit>,
    pub(super) stage: Stage,
    pub(super) leaving: Leaving,
    pub(super) track_file: TrackFile,
    pub(super) reloading: Reloading,
    pub(super) webhooks: Webhooks,
    pub(super) watchdog: Option<Watchdog>,
}

impl Balancer {
    /// The state at the start, once the workers run.
    ///
    /// # Errors
    /// The audit log can't be opened.
    pub(super) fn new(
        (config, discoveries, (access, tls)): (&Config, Discoveries, (AccessLists, TlsInForce)),
        workers: &Rc<Workers>,
        (reread, tokens, socket): (
            Option<Reread>,
            Vec<(Tokens, TokenFiles)>,
            Option<AdminSocket>,
        ),
        events: &Events,
        (log_orders, measurements, history): (&Rc<Orders>, &Rc<Measurements>, Recorder),
    ) -> Result<Self, StartError> {
        let admin = config.admin.as_ref();
        let audit_log = admin.and_then(|admin| admin.audit_log.as_deref());
        let audit =
            Audit::open(audit_log, Some(history.notes())).map_err(|error| StartError::Admin {
                at: audit_log.map_or_else(String::new, |path| path.display().to_string()),
                error,
            })?;
        let fleet = Fleet::new(events, discoveries.etcd_counts());
        let mut balancer = Self {
            workers: Rc::clone(workers),
            in_force: InForce::new(config, discoveries),
            at_start: AtStart::of(config),
            publisher: Publisher::new(workers),
            roster: Roster::default(),
            checks: Checks::new(workers.seed),
            access,
            tls,
            bans: BanReports::default(),
            fleet,
            peers: Peers::new(events),
            syn_filter: SynFilter::new(),
            metrics: Metrics::new(measurements),
            history,
            log_orders: Rc::clone(log_orders),
            events: events.clone(),
            audit: Rc::new(audit),
            stage: Stage::Starting,
            leaving: Leaving::default(),
            track_file: TrackFile::begin(),
            reloading: Reloading::new(reread, tokens, socket),
            webhooks: Webhooks::new(),
            watchdog: Watchdog::new(),
        };
        announce::unresolved(&balancer.events, &mut balancer.in_force);
        let config = balancer.in_force.renewed();
        balancer.follow(config, Vec::new());
        balancer.follow_fleet();
        balancer.follow_peers();
        balancer.watch_file(true);
        Ok(balancer)
    }

    /// Puts another declared configuration in force. What can fail, such as listening, comes first:
    /// after an error nothing has changed. `opened` has the sockets of new Unix listeners.
    pub(super) fn apply(
        &mut self,
        declared: Declared,
        opened: &mut Opened,
    ) -> Result<(), StartError> {
        let config = declared.config();
        listening::probe_origins(config, Some(&self.in_force.config))?;
        let new = listening::bind_new(&self.workers, self.publisher.snapshot(), config, opened)?;
        // The pools may have other names or files to discover by.
        self.in_force.discoveries.follow(config);
        let has_other_lists = self.access.follow(config) | self.tls.follow(config);
        self.bans.import.follow(config);
        let config = self.in_force.effective(&declared);
        self.in_force.declared = Arc::new(declared);
        if config == self.in_force.config && new.is_empty() && !has_other_lists {
            // Files that probes read may have changed all the same.
            self.checks.refresh();
        } else {
            self.follow(config, new);
        }
        self.follow_fleet();
        self.follow_peers();
        self.bans.run(self.publisher.snapshot());
        Ok(())
    }

    /// Discovery found other backends, or another address of a host name. The configuration follows
    /// with the next publication, for all answers until then at once, as that goes through all
    /// pools.
    pub(super) fn on_discovered(&mut self) {
        self.in_force.on_discovered();
        self.publisher.request();
    }

    fn follow_discovered(&mut self) {
        let began = sys::monotonic();
        announce::unresolved(&self.events, &mut self.in_force);
        let config = self.in_force.renewed();
        if config == self.in_force.config {
            self.publish_with(Vec::new());
        } else {
            self.follow(config, Vec::new());
        }
        self.publisher.took_since(began);
    }

    fn follow(&mut self, config: Config, new: Vec<Bound>) {
        let looping = self.looping();
        self.roster.follow(&config);
        self.checks.follow(&config, &mut self.roster);
        let client_of = |pool: &str| self.tls.client_of_pool(pool);
        self.checks.follow_tls(&config, client_of);
        let before = std::mem::replace(&mut self.in_force.config, config);
        self.publish_with(new);
        if !looping.is_empty() {
            self.workers.close_downed(&looping);
        }
        announce::differences(&self.events, &before, &self.in_force.config);
        announce::resolved(&self.events, &before, &self.in_force.config);
    }

    /// The backends in force that lead back to their own pool by now, with the time to close their
    /// sessions in. Each session is the client of another one: they would keep each other open.
    fn looping(&self) -> Vec<(Arc<Tally>, Duration)> {
        let mut looping = Vec::new();
        for plan in &self.publisher.snapshot().pools {
            let pool = plan.pool();
            if self.in_force.discoveries.leaves_out_of(&pool.name) {
                let out = |address| {
                    self.in_force
                        .discoveries
                        .leaves_out_address(&pool.name, address)
                };
                let backends = pool.backends.iter().filter(|its| out(&its.address));
                looping.extend(backends.map(|its| (Arc::clone(&its.tally), Duration::ZERO)));
            }
        }
        looping
    }

    /// Gives listeners other sockets, each by the id of its listener.
    pub(super) fn replace_sockets(&mut self, mut sockets: Vec<(u64, Bound)>) {
        let ids = self.publisher.snapshot().listeners.iter().map(|its| its.id);
        let ids: Vec<_> = ids.collect();
        // A listener may have been removed meanwhile.
        let place = |id: u64| ids.iter().position(|its| *its == id);
        sockets.retain(|(id, _)| place(*id).is_some());
        sockets.sort_by_key(|(id, _)| place(*id));
        if sockets.is_empty() {
            return;
        }
        let (ids, bound): (Vec<_>, Vec<_>) = sockets.into_iter().unzip();
        self.publisher.replace_sockets(&ids);
        self.publish_with(bound);
    }

    /// Publishes a snapshot of what is known now.
    pub(super) fn publish(&mut self) {
        if self.in_force.has_news() {
            self.follow_discovered();
        } else {
            self.publish_with(Vec::new());
        }
    }

    fn publish_with(&mut self, new: Vec<Bound>) {
        let by = (
            &self.in_force.config,
            self.access.lists(),
            self.tls.by_owner(),
        );
        let changed = self.publisher.publish(by, &mut self.roster, new);
        let snapshot = self.publisher.snapshot();
        pools::follow(&mut self.roster, snapshot, &changed);
        status::note_conditions(snapshot, &changed);
        // Before every backend was probed few may count as usable, and nothing is wrong yet.
        if self.stage != Stage::Starting {
            announce::service(&self.events, snapshot, &mut self.roster);
        }
        let downed = self.health_cycle().sessions_to_close(&changed);
        if !downed.is_empty() {
            // One command for all: a network that is lost takes hundreds down at once.
            self.workers.close_downed(&downed);
        }
    }

    /// The scaling of what is in force.
    pub(super) fn scaling(&mut self) -> Scaling<'_> {
        Scaling {
            roster: &mut self.roster,
            snapshot: self.publisher.snapshot(),
            events: &self.events,
            audit: &self.audit,
            webhooks: &self.webhooks,
        }
    }

    /// The health cycle over what is in force.
    pub(super) fn health_cycle(&mut self) -> HealthCycle<'_> {
        HealthCycle {
            roster: &mut self.roster,
            checks: &self.checks,
            snapshot: self.publisher.snapshot(),
            events: &self.events,
        }
    }
}
