//! Reports clients that rules refuse: each kind at once, and then every ten seconds at most.
//! Workers only count them.
//!
//! A new kind of rule has a [`Report`], and a function that lists its [`Refuser`]s.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::admin::model::EventKind;
use crate::guard::{Gate, PeerDenied, Refusal};
use crate::pool::Pool;
use crate::session::CloseReason;
use crate::snapshot::Snapshot;
use crate::wording::plural;
use crate::worker::Stats;

use super::events::{Events, Severity, Subject};

/// What was reported of each kind.
#[derive(Default)]
pub(super) struct Refusals {
    access: Report,
    limits: Report,
    first_bytes: Report,
    proxies: Report,
    tls: Report,
    /// By the pool: one that fails is not told behind another.
    backend_tls: HashMap<String, Report>,
    sources: Report,
}

/// Refused clients of one kind.
#[derive(Default)]
struct Report {
    /// By the name of what refuses, and rule: how many were reported so far.
    reported: HashMap<(String, &'static str, Mode), u64>,
    /// Seconds until the next report may come.
    left: u32,
}

/// What refuses clients, such as a listener, and how many it has refused so far by each rule.
struct Refuser {
    name: String,
    mode: Mode,
    counts: Vec<(&'static str, u64)>,
    /// More about one of them, if it is known.
    example: Option<String>,
}

/// Whether clients are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Mode {
    On,
    DryRun,
    /// Connections to backends failed; clients may have got another backend.
    Connects,
}

impl Refusals {
    /// To be called each second.
    pub(super) fn tick(&mut self, stats: &[Arc<Stats>], snapshot: &Snapshot, events: &Events) {
        let tell = |report: &mut Report, kind, refusers: &dyn Fn() -> Vec<Refuser>| {
            if let Some(message) = report.tick(refusers) {
                events.tell(Severity::Info, kind, Subject::default(), message);
            }
        };
        let of_access = || by_access_list(snapshot);
        tell(&mut self.access, EventKind::AccessDenied, &of_access);
        let of_limits = || by_limit(snapshot);
        tell(&mut self.limits, EventKind::LimitExceeded, &of_limits);
        let of_proxies = || by_peer(snapshot);
        tell(&mut self.proxies, EventKind::ProxyRefused, &of_proxies);
        let of_tls = || by_tls(snapshot);
        tell(&mut self.tls, EventKind::TlsRefused, &of_tls);
        self.tick_backend_tls(snapshot, |pool, message| {
            let about = Subject::pool(pool);
            events.tell(Severity::Warn, EventKind::BackendTlsFailed, about, message);
        });
        let reason = CloseReason::FirstBytesTimeout;
        let late = stats.iter().map(|its| its.closed[reason as usize].get());
        if let Some(new) = self.first_bytes.tick_count(late.sum()) {
            let message = format!(
                "{} reset, which had begun to send first bytes and not finished in time \
                 (`timeouts.peek`)",
                plural(new, "client")
            );
            let about = Subject::default();
            events.tell(Severity::Info, EventKind::FirstBytesTimeout, about, message);
        }
        let sources = &snapshot.sources;
        if let Some(new) = self.sources.tick_count(sources.overflowed()) {
            let message = format!(
                "the table of {} is full of those with connections: {} shared the limits of one \
                 source; raise `source_table`",
                plural(sources.capacity().into(), "source"),
                plural(new, "new client"),
            );
            let about = Subject::default();
            events.tell(Severity::Warn, EventKind::SourceTableFull, about, message);
        }
    }
}

impl Refusals {
    /// Pools whose backends could not be spoken to by TLS, each with a report of its own.
    fn tick_backend_tls(&mut self, snapshot: &Snapshot, mut tell: impl FnMut(&str, String)) {
        let pools = snapshot.pools.iter().map(|plan| &**plan.pool());
        let pools = pools.filter(|pool| pool.tls.is_some());
        let mut before = std::mem::take(&mut self.backend_tls);
        let mut told = 0;
        for pool in pools {
            let mut report = before.remove(&pool.name).unwrap_or_default();
            // Those beyond are told in the seconds that follow.
            if told < POOLS_AT_ONCE
                && let Some(message) = report.tick(&|| by_backend_tls(pool))
            {
                told += 1;
                tell(&pool.name, message);
            }
            self.backend_tls.insert(pool.name.clone(), report);
        }
    }
}

/// Listeners whose access list refuses clients, and lists in a dry run.
fn by_access_list(snapshot: &Snapshot) -> Vec<Refuser> {
    let listeners = snapshot.listeners.iter().map(|listener| Refuser {
        name: format!("listener `{}`", listener.name),
        mode: Mode::On,
        counts: vec![("access_denied", listener.gate.access_denied())],
        example: None,
    });
    let lists = snapshot.access.values().filter(|list| list.dry_run);
    // Several listeners may have one list.
    let lists: BTreeMap<_, _> = lists.map(|list| (&list.name, list)).collect();
    let lists = lists.into_values().map(|list| Refuser {
        name: format!("access list `{}`", list.name),
        mode: Mode::DryRun,
        counts: vec![("", list.refused.load(Ordering::Relaxed))],
        example: None,
    });
    listeners.chain(lists).collect()
}

/// Listeners whose limits of new connections refuse clients, or would.
fn by_limit(snapshot: &Snapshot) -> Vec<Refuser> {
    let both = snapshot.listeners.iter().flat_map(|listener| {
        let gate = &listener.gate;
        type Count = fn(&Gate, Refusal) -> u64;
        let counts: [(Mode, Count); 2] = [(Mode::On, Gate::refused), (Mode::DryRun, Gate::dry_run)];
        counts.map(|(mode, count)| Refuser {
            name: format!("listener `{}`", listener.name),
            mode,
            counts: Refusal::ALL
                .map(|rule| (rule.as_str(), count(gate, rule)))
                .to_vec(),
            example: None,
        })
    });
    both.collect()
}

/// Listeners that refuse peers before their clients are known.
fn by_peer(snapshot: &Snapshot) -> Vec<Refuser> {
    let listeners = snapshot.listeners.iter();
    let both = listeners.filter_map(|its| Some((its, &its.proxies.as_ref()?.stage)));
    let refusers = both.map(|(listener, stage)| Refuser {
        name: format!("listener `{}`", listener.name),
        mode: Mode::On,
        counts: PeerDenied::ALL
            .map(|denied| (denied.as_str(), stage.refused(denied)))
            .to_vec(),
        example: stage.take_last(),
    });
    refusers.collect()
}

/// Listeners whose PostgreSQL backends have no TLS for clients that were told that they may begin
/// with it.
fn by_tls(snapshot: &Snapshot) -> Vec<Refuser> {
    let listeners = snapshot.listeners.iter();
    let answering = listeners.filter(|its| its.postgres.answers_tls);
    let reason = CloseReason::TlsRefused;
    let refusers = answering.map(|listener| Refuser {
        name: format!("listener `{}`", listener.name),
        mode: Mode::On,
        counts: vec![(reason.as_str(), listener.gate.closed(reason as u8))],
        example: listener.postgres.refused.take(),
    });
    refusers.collect()
}

/// A pool whose backends could not be spoken to by TLS.
fn by_backend_tls(pool: &Pool) -> Vec<Refuser> {
    let refuser = pool.tls.as_ref().map(|tls| {
        let counts = tls.counts.failures();
        Refuser {
            name: format!("pool `{}`", pool.name),
            mode: Mode::Connects,
            counts: counts.map(|(kind, count)| (kind.as_str(), count)).collect(),
            example: tls.refused.take(),
        }
    });
    refuser.into_iter().collect()
}

impl Report {
    /// What is new, if a report may come. To be called each second.
    fn tick(&mut self, refusers: &dyn Fn() -> Vec<Refuser>) -> Option<String> {
        if !self.may_come() {
            return None;
        }
        let mut counts = HashMap::new();
        let mut sentences = Vec::new();
        for refuser in refusers() {
            sentences.extend(self.sentence(&refuser));
            let Refuser {
                name,
                mode,
                counts: by_rule,
                ..
            } = refuser;
            let all = by_rule.into_iter().filter(|(_, count)| *count > 0);
            counts.extend(all.map(|(rule, count)| ((name.clone(), rule, mode), count)));
        }
        self.reported = counts;
        let message = joined(sentences)?;
        self.left = PAUSE_SECONDS;
        Some(message)
    }

    /// The same for a single count: how much it has grown.
    fn tick_count(&mut self, count: u64) -> Option<u64> {
        if !self.may_come() {
            return None;
        }
        let before = self.reported.insert((String::new(), "", Mode::On), count);
        let new = count.saturating_sub(before.unwrap_or(0));
        (new > 0).then(|| {
            self.left = PAUSE_SECONDS;
            new
        })
    }

    fn may_come(&mut self) -> bool {
        self.left = self.left.saturating_sub(1);
        self.left == 0
    }

    /// How many clients were refused since the last report, if any.
    fn sentence(&self, refuser: &Refuser) -> Option<String> {
        let Refuser {
            name,
            mode,
            counts,
            example,
        } = refuser;
        let new = counts.iter().map(|(rule, all)| {
            let before = self.reported.get(&(name.clone(), rule, *mode));
            (
                *rule,
                all.saturating_sub(before.copied().unwrap_or(0)),
                *all,
            )
        });
        let new: Vec<_> = new.filter(|(_, new, _)| *new > 0).collect();
        let sum: u64 = new.iter().map(|(_, new, _)| new).sum();
        let all: u64 = new.iter().map(|(.., all)| all).sum();
        let (what, refused) = match mode {
            Mode::On => ("client", "refused"),
            Mode::DryRun => ("client", "would be refused (dry_run)"),
            Mode::Connects => ("connection", "to backends failed"),
        };
        let clients = plural(sum, what);
        let by = match &new[..] {
            [] => return None,
            [("", ..)] => String::new(),
            [(rule, ..)] => format!(" by {rule}"),
            several => {
                let words = several
                    .iter()
                    .map(|(rule, new, _)| format!("{new} by {rule}"));
                format!(": {}", Vec::from_iter(words).join(", "))
            }
        };
        let example = example.as_ref();
        let example = example.map_or_else(String::new, |what| format!(" (such as {what})"));
        Some(format!(
            "{name}: {clients} {refused}{by}, {all} in all{example}"
        ))
    }
}

/// The first sentences.
fn joined(mut sentences: Vec<String>) -> Option<String> {
    let more = sentences.len().saturating_sub(NAMED_MAX);
    sentences.truncate(NAMED_MAX);
    if more > 0 {
        sentences.push(format!("and {more} more"));
    }
    (!sentences.is_empty()).then(|| sentences.join("; "))
}

/// From one report to the next.
const PAUSE_SECONDS: u32 = 10;
/// Pools that are told of in a second.
const POOLS_AT_ONCE: usize = 20;
/// Refusers that a report names.
const NAMED_MAX: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;

    fn refuser(number: usize, mode: Mode, counts: &[(&'static str, u64)]) -> Refuser {
        Refuser {
            name: format!("listener `{number}`"),
            mode,
            counts: counts.to_vec(),
            example: None,
        }
    }

    /// The next report of these counts, and after how many seconds it came.
    fn next(report: &mut Report, counts: &[(&'static str, u64)], mode: Mode) -> (u32, String) {
        let mut tick = |_: &u32| report.tick(&|| vec![refuser(1, mode, counts)]);
        let mut ticks = (1..20).filter_map(|second| Some((second, tick(&second)?)));
        ticks.next().unwrap_or_default()
    }

    #[test]
    fn a_report_has_what_is_new_by_rule() {
        let mut report = Report::default();
        let words = "listener `1`: 2 clients refused by access_denied, 2 in all";
        let counts = [("access_denied", 2), ("rate", 0)];
        assert_eq!(next(&mut report, &counts, Mode::On), (1, words.to_owned()));
        assert_eq!(next(&mut report, &counts, Mode::On), (0, String::new()));
        let words = "listener `1`: 4 clients refused: 1 by access_denied, 3 by rate, 6 in all";
        let counts = [("access_denied", 3), ("rate", 3)];
        assert_eq!(next(&mut report, &counts, Mode::On), (1, words.to_owned()));
        let words = "listener `1`: 1 client refused by rate, 4 in all";
        let counts = [("access_denied", 3), ("rate", 4)];
        assert_eq!(next(&mut report, &counts, Mode::On), (10, words.to_owned()));
        let words = "listener `1`: 1 client would be refused (dry_run), 1 in all";
        let dry = next(&mut Report::default(), &[("", 1)], Mode::DryRun);
        assert_eq!(dry, (1, words.to_owned()));
    }

    #[test]
    fn a_single_count_is_reported_when_it_grows() {
        let mut report = Report::default();
        assert_eq!(report.tick_count(0), None);
        assert_eq!(report.tick_count(3), Some(3));
        let later: Vec<_> = (0..20).filter_map(|_| report.tick_count(5)).collect();
        assert_eq!(later, [2]);
    }

    #[test]
    fn a_report_names_few() {
        let mut report = Report::default();
        let all = || (0..8).map(|number| refuser(number, Mode::On, &[("rate", 1)]));
        let message = report.tick(&|| all().collect()).unwrap();
        assert!(message.starts_with("listener `0`: 1 client"), "{message}");
        assert!(message.ends_with("listener `4`: 1 client refused by rate, 1 in all; and 3 more"));
        assert!(Report::default().tick(&Vec::new).is_none());
    }
}
