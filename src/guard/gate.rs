//! A listener's gate: the limits that a new connection meets, in their fixed order.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::buckets::{SessionTimes, TimeBuckets};
use crate::metric::BucketBounds;
use crate::time::NEVER;

use super::Action;
use super::fleet_rate::{FleetRate, FleetRule};
use super::rate::{Rate, SharedBucket};
use super::sources::{Count, Held, Source, SourceRules, Sources};

/// What all workers count of a listener's clients. It outlives snapshots.
#[derive(Debug)]
pub struct Gate {
    number: u32,
    /// Its new connections.
    rate: SharedBucket,
    /// The same where the fleet limits them.
    pub fleet_rate: FleetRate,
    /// Sessions that began.
    sessions: AtomicU64,
    /// Sessions that ended, by the number of the reason.
    closed: [AtomicU64; Self::REASONS_MAX],
    /// The sources that the table has no room for, as one.
    overflow: Mutex<Count>,
    refused: [AtomicU64; Refusal::ALL.len()],
    /// Clients that were banned.
    banned: AtomicU64,
    /// Clients that its access list refused.
    access_denied: AtomicU64,
    /// Those that it would have refused.
    access_dry_run: AtomicU64,
    /// Clients that would have been refused.
    dry_run: [AtomicU64; Refusal::ALL.len()],
    /// Clients that came back just after the idle timeout had cut them.
    idle_regrets: AtomicU64,
    /// The longest idle timeout that cut one of them, in ns.
    idle_regretted: AtomicU64,
    /// How long clients waited since their accept.
    pub times: SessionTimes,
    /// How long clients waited in queues of pools, however that ended.
    pub waits: TimeBuckets,
}

/// The limits of new connections, as a snapshot has them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// For each source of the listener.
    pub source: Option<SourceRules>,
    /// For the listener.
    pub listener: Option<RateRule>,
    /// For all listeners.
    pub global: Option<RateRule>,
}

/// A limit of new connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateRule {
    /// What it allows.
    pub rate: Rate,
    /// Where it is one of the fleet, of which this balancer has a share.
    pub fleet: Option<FleetRule>,
    /// Whether connections beyond it are only counted.
    pub dry_run: bool,
    /// What is done with connections beyond it.
    pub action: Action,
}

/// The limit that a client is refused by, in the order in which they are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Its source has as many connections as it may have.
    SourceConnections,
    /// Its source connects more often than it may.
    SourceRate,
    /// The listener's clients connect more often than they may.
    ListenerRate,
    /// All listeners' clients connect more often than they may.
    GlobalRate,
}

impl Refusal {
    /// Every one, in the order of their counters.
    pub const ALL: [Self; 4] = [
        Self::SourceConnections,
        Self::SourceRate,
        Self::ListenerRate,
        Self::GlobalRate,
    ];

    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SourceConnections => "source_connections",
            Self::SourceRate => "source_rate",
            Self::ListenerRate => "listener_rate",
            Self::GlobalRate => "global_rate",
        }
    }
}

/// What an admitted connection has.
#[derive(Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Pass {
    /// Its place at its source, if that is counted.
    pub held: Option<Held>,
    /// The rule that would have refused it if it were not in dry run.
    pub dry_run: Option<Refusal>,
}

impl Rules {
    /// What is done with a client that this limit refuses.
    #[must_use]
    pub fn action(&self, refusal: Refusal) -> Action {
        let of_source = self.source.map(|rules| rules.action);
        let of_rate = |rule: Option<RateRule>| rule.map(|rule| rule.action);
        let action = match refusal {
            Refusal::SourceConnections | Refusal::SourceRate => of_source,
            Refusal::ListenerRate => of_rate(self.listener),
            Refusal::GlobalRate => of_rate(self.global),
        };
        action.unwrap_or_default()
    }

    /// Whether they limit nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The bucket of a rate, and that of the fleet's.
#[derive(Clone, Copy)]
struct Buckets<'a>(&'a SharedBucket, &'a FleetRate);

impl RateRule {
    /// Takes a token of the bucket that is meant.
    fn try_take(&self, buckets: Buckets<'_>, now: u64) -> bool {
        match self.fleet {
            None => buckets.0.try_take(self.rate, now),
            Some(whole) => buckets.1.try_take(whole, now),
        }
    }
}

impl Gate {
    /// There are no more close reasons than this. Their names are not known here.
    pub const REASONS_MAX: usize = 48;

    /// The gate of a new listener.
    #[must_use]
    pub fn new(sources: &Sources) -> Self {
        Self {
            number: sources.number_gate(),
            rate: SharedBucket::default(),
            fleet_rate: FleetRate::default(),
            overflow: Mutex::default(),
            sessions: AtomicU64::new(0),
            closed: std::array::from_fn(|_| AtomicU64::new(0)),
            refused: Default::default(),
            banned: AtomicU64::new(0),
            access_denied: AtomicU64::new(0),
            access_dry_run: AtomicU64::new(0),
            dry_run: Default::default(),
            idle_regrets: AtomicU64::new(0),
            idle_regretted: AtomicU64::new(0),
            times: SessionTimes::default(),
            waits: TimeBuckets::new(BucketBounds::WAITS),
        }
    }

    /// Admits a connection at `now`, in ns, or says which limit refuses it, which is counted. A
    /// refused connection takes nothing from any limit. `client` is `None` if it came by a
    /// Unix socket.
    pub fn admit(
        &self,
        sources: &Sources,
        rules: &Rules,
        client: Option<IpAddr>,
        now: u64,
    ) -> Result<Pass, Refusal> {
        let admitted = match &rules.source {
            Some(of_source) => self.admit_source(sources, (rules, of_source), client, now),
            None => self.admit_rates(sources, rules, now),
        };
        let counted = match &admitted {
            Ok(pass) => pass.dry_run.map(|rule| (&self.dry_run, rule)),
            Err(rule) => Some((&self.refused, *rule)),
        };
        if let Some((counts, rule)) = counted {
            counts[rule as usize].fetch_add(1, Ordering::Relaxed);
        }
        admitted
    }

    /// An admitted connection has ended.
    pub fn release(&self, sources: &Sources, held: Held) {
        sources.release(held, &self.overflow);
    }

    /// Counts a client that was refused as it is banned.
    pub fn count_banned(&self) {
        self.banned.fetch_add(1, Ordering::Relaxed);
    }

    /// Clients that were refused as they are banned.
    #[must_use]
    pub fn banned(&self) -> u64 {
        self.banned.load(Ordering::Relaxed)
    }

    /// Counts a session that begins.
    pub fn count_session(&self) {
        self.sessions.fetch_add(1, Ordering::Relaxed);
    }

    /// Sessions that have begun.
    #[must_use]
    pub fn sessions(&self) -> u64 {
        self.sessions.load(Ordering::Relaxed)
    }

    /// Counts a session that ends for the reason of this number.
    pub fn count_closed(&self, reason: u8) {
        self.closed[usize::from(reason)].fetch_add(1, Ordering::Relaxed);
    }

    /// Sessions that have ended for the reason of this number.
    #[must_use]
    pub fn closed(&self, reason: u8) -> u64 {
        self.closed[usize::from(reason)].load(Ordering::Relaxed)
    }

    /// Counts a client that the access list refused.
    pub fn count_access_denied(&self) {
        self.access_denied.fetch_add(1, Ordering::Relaxed);
    }

    /// Clients that the access list refused.
    #[must_use]
    pub fn access_denied(&self) -> u64 {
        self.access_denied.load(Ordering::Relaxed)
    }

    /// Counts a client that the access list would have refused if it were not in dry run.
    pub fn count_access_dry_run(&self) {
        self.access_dry_run.fetch_add(1, Ordering::Relaxed);
    }

    /// Clients that the access list would have refused.
    #[must_use]
    pub fn access_dry_run(&self) -> u64 {
        self.access_dry_run.load(Ordering::Relaxed)
    }

    /// Counts a client that came back within a second after the idle timeout of this many ns had
    /// cut it. [`NEVER`]: that timeout has been left out since, and its length is not known.
    pub fn count_idle_regret(&self, idle: u64) {
        if idle != NEVER {
            self.idle_regretted.fetch_max(idle, Ordering::Relaxed);
        }
        self.idle_regrets.fetch_add(1, Ordering::Relaxed);
    }

    /// Clients that came back within a second after the idle timeout had cut them.
    #[must_use]
    pub fn idle_regrets(&self) -> u64 {
        self.idle_regrets.load(Ordering::Relaxed)
    }

    /// The longest idle timeout that cut a client that came back, in ns; 0: none did.
    #[must_use]
    pub fn idle_regretted(&self) -> u64 {
        self.idle_regretted.load(Ordering::Relaxed)
    }

    /// Clients that this limit has refused.
    #[must_use]
    pub fn refused(&self, rule: Refusal) -> u64 {
        self.refused[rule as usize].load(Ordering::Relaxed)
    }

    /// Clients that this limit would have refused if it were not in dry run.
    #[must_use]
    pub fn dry_run(&self, rule: Refusal) -> u64 {
        self.dry_run[rule as usize].load(Ordering::Relaxed)
    }

    /// Connections of sources that the table had no room for.
    #[must_use]
    pub fn overflow_connections(&self) -> u32 {
        self.overflow.lock().connections()
    }

    pub(super) fn overflow(&self) -> &Mutex<Count> {
        &self.overflow
    }

    fn admit_source(
        &self,
        sources: &Sources,
        (rules, of_source): (&Rules, &SourceRules),
        client: Option<IpAddr>,
        now: u64,
    ) -> Result<Pass, Refusal> {
        let source = client.and_then(|ip| Source::new(self.number, ip, of_source));
        let mut by_others = false;
        let others = || {
            let admitted = self.admit_rates(sources, rules, now);
            by_others = admitted.is_err();
            admitted
        };
        let admitted = sources.admit(source, &self.overflow, (of_source, now), others);
        match admitted {
            Ok((held, pass)) => Ok(Pass { held, ..pass }),
            Err(rule) if of_source.dry_run && !by_others => {
                let _ = self.admit_rates(sources, rules, now)?;
                let place = || sources.hold_beyond(source, &self.overflow);
                Ok(Pass {
                    held: of_source.is_paced.then(place),
                    dry_run: Some(rule),
                })
            }
            Err(rule) => Err(rule),
        }
    }

    /// Asks the rates of the listener and of all listeners.
    fn admit_rates(&self, sources: &Sources, rules: &Rules, now: u64) -> Result<Pass, Refusal> {
        let take = |buckets: Buckets<'_>, limit: Option<RateRule>, refusal| match limit {
            Some(limit) if !limit.try_take(buckets, now) => match limit.dry_run {
                true => Ok(Some(refusal)),
                false => Err(refusal),
            },
            _ => Ok(None),
        };
        let own = Buckets(&self.rate, &self.fleet_rate);
        let all = Buckets(&sources.all, &sources.fleet_rate);
        let listener = take(own, rules.listener, Refusal::ListenerRate)?;
        let global = take(all, rules.global, Refusal::GlobalRate);
        if let (Err(_), None, Some(limit)) = (&global, listener, rules.listener) {
            match limit.fleet {
                None => self.rate.put_back(limit.rate),
                Some(whole) => self.fleet_rate.put_back(whole),
            }
        }
        Ok(Pass {
            held: None,
            dry_run: listener.or(global?),
        })
    }
}

#[cfg(test)]
mod tests;
