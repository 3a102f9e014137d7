//! Calls of the admin API, answered from the control thread's state.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use crate::admin::model::{
    Changed, ConfigText, EventKind, ListenerRoutes, ListenerStatus, SESSIONS, SESSIONS_MAX,
    SegmentsStatus, SessionFilter, SessionStatus, Stage, Status, TlsClientStatus,
};
use crate::admin::{self, Author, Call, Reply, Which};
use crate::config::{AdminState, Backend, Change, ChangeError, RouteList};
use crate::operational_log;
use crate::pool::{Health, Service};
use crate::session::CloseReason;
use crate::sys;
use crate::time::{US, seconds};
use crate::worker::{SessionInfo, Stats};

use super::announce;
use super::aside;
use super::audit::Entry;
use super::balancer::Balancer;
use super::declared::EndedOrder;
use super::events::Severity;
use super::explain::{self, NameSource};
use super::regrets;
use super::reload::ReloadRequest;
use super::replies::Answers;
use super::roster::Member;
use super::sandbox;
use super::status::{self, MemberStatus};
use super::unix_sockets::Opened;
use super::workers::Workers;

mod changed;

use changed::{action, differences, subject, target, values};

impl Balancer {
    /// Answers a call. Where workers must be asked first, a task of its own answers; what is
    /// said of pools, and the text of the configuration, is made on another thread.
    pub(super) fn on_call(&mut self, call: Call) {
        // Where the caller has gone away, the answer is dropped.
        match call {
            Call::Status(reply) => drop(reply.send(self.status())),
            Call::Listeners(reply) => drop(reply.send(self.listeners())),
            Call::AccessLists(reply) => drop(reply.send(self.access.status())),
            Call::AccessList(name, client, reply) => match self.access.detail(&name, client) {
                Ok(detail) => drop(aside::compute(move || drop(reply.send(Ok(detail()))))),
                Err(known) => drop(reply.send(Err(known))),
            },
            Call::Bans(filter, reply) => self.list_bans(filter, reply),
            Call::Ban(ban, author, reply) => drop(reply.send(self.ban(&ban, author))),
            Call::Unban(prefix, author, reply) => drop(reply.send(self.unban(prefix, author))),
            Call::UnbanAll(filter, author, reply) => self.unban_those(filter, author, reply),
            Call::Pools(which, reply) => {
                let snapshot = Arc::clone(self.publisher.snapshot());
                let known = self.known(&which);
                let tls = self.tls.of_pools();
                answer_aside(reply, move || status::pools(&snapshot, &known, tls));
            }
            Call::Config(reply) => self.show_config(reply),
            Call::Sessions(filter, reply) => {
                let workers = Rc::clone(&self.workers);
                tokio_uring::spawn(async move { drop(reply.send(list(&workers, filter).await)) });
            }
            Call::Explain(filter, reply) => {
                let asked = self.workers.decisions(filter);
                tokio_uring::spawn(explain::explain(asked, filter, self.known_names(), reply));
            }
            Call::DryRun(question, reply) => {
                let asked = self.workers.preview(&question);
                tokio_uring::spawn(explain::preview(asked, question, self.known_names(), reply));
            }
            Call::Route(name, client, spoken, reply) => {
                let snapshot = Arc::clone(self.publisher.snapshot());
                answer_aside(reply, move || {
                    explain::route(&snapshot, &name, client, &spoken)
                });
            }
            Call::Routes(name, reply) => self.show_routes(&name, reply),
            Call::Kill(filter, author, reply) => self.kill(filter, author, reply),
            Call::Latencies(reply) => {
                drop(reply.send(status::latencies(&self.workers.stats)));
            }
            Call::Histograms(reply) => {
                let workers = Rc::clone(&self.workers);
                let measurements = Rc::clone(&self.metrics.measurements);
                tokio_uring::spawn(async move {
                    if let Some(summaries) = measurements.summaries(&workers).await {
                        drop(reply.send(summaries));
                    }
                });
            }
            Call::Change {
                change,
                author,
                reply,
            } => drop(reply.send(self.change(&change, author))),
            Call::Reload(author, reply) => {
                self.in_force.discoveries.look_again();
                let reply = Some(reply);
                self.reload(ReloadRequest { author, reply });
            }
            Call::Leave(wait, author, reply) => drop(reply.send(self.leave(wait, author))),
            Call::Join(author, reply) => drop(reply.send(self.join(author))),
            Call::Reopen(reply) => {
                let reopening = self.reopen_logs();
                tokio_uring::spawn(async move { drop(reply.send(reopening.outcome().await)) });
            }
        }
    }

    fn show_config(&self, reply: Reply<ConfigText>) {
        let at_start = self.at_start.clone();
        let declared = Arc::clone(&self.in_force.declared);
        let in_force = self.in_force.config.clone();
        answer_aside(reply, move || at_start.text(&declared, &in_force));
    }

    fn show_routes(&self, name: &str, reply: Reply<Result<ListenerRoutes, Vec<String>>>) {
        let config = &self.in_force.config;
        let Some(listener) = config.listener(name) else {
            let known = config.listeners.iter().map(|its| its.name.clone());
            return drop(reply.send(Err(known.collect())));
        };
        let routes = RouteList::of(config, listener);
        answer_aside(reply, move || {
            Ok(ListenerRoutes {
                version: routes.version(),
                routes: routes.json(),
            })
        });
    }

    fn known_names(&self) -> NameSource {
        NameSource {
            snapshot: Arc::clone(self.publisher.snapshot()),
            past: Arc::clone(self.publisher.past()),
        }
    }

    fn kill(&self, filter: SessionFilter, author: Author, reply: Reply<Result<u64, String>>) {
        let (workers, audit) = (Rc::clone(&self.workers), Rc::clone(&self.audit));
        let version = self.publisher.version();
        tokio_uring::spawn(async move {
            let closed = kill(&workers, &filter).await;
            audit.record(&Entry {
                author,
                action: "kill",
                target: "sessions",
                old: None,
                new: Some(json!({ "filter": filter, "sessions": closed.as_ref().ok() })),
                outcome: closed.clone().map(|_| version),
            });
            let _ = reply.send(closed);
        });
    }

    pub(super) fn listeners(&self) -> Vec<ListenerStatus> {
        let mut listeners = status::listeners(self.publisher.snapshot(), &self.workers);
        let fleet = self.fleet.limits.status();
        let mut limits: HashMap<String, Vec<_>> = HashMap::new();
        for limit in fleet.into_iter().flat_map(|fleet| fleet.limits) {
            if let Some(name) = limit.listener() {
                limits.entry(name.to_owned()).or_default().push(limit);
            }
        }
        for listener in &mut listeners {
            listener.fleet = limits.remove(&listener.name).unwrap_or_default();
            listener.tls = self.tls.of_listener(&listener.name);
        }
        listeners
    }

    pub(super) fn status(&self) -> Status {
        let stats = &self.workers.stats;
        let sum = |number: fn(&Stats) -> u64| stats.iter().map(|its| number(its)).sum();
        let mut closed = BTreeMap::new();
        for (reason, number) in stats.iter().flat_map(|its| status::closed(its)) {
            *closed.entry(reason).or_default() += number;
        }
        let (metrics, snapshot) = (&self.metrics, self.publisher.snapshot());
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            build: option_env!("MAHORAGA_BUILD").map(str::to_owned),
            pid: std::process::id(),
            started_at: humantime::format_rfc3339_millis(metrics.started_at).to_string(),
            uptime_s: metrics.uptime().as_secs_f64(),
            stage: self.shown_stage(),
            not_ready: self.fleet.limits.shareless(),
            still_here: self.still_here(),
            snapshot: snapshot.version,
            publish_us: self.publisher.latency().map(|time| time / US),
            connections: u64::from(snapshot.connections.used()),
            max_connections: u64::from(snapshot.connections.max()),
            accepted: sum(|its| its.accepted.get()),
            traffic: status::traffic(stats.iter().map(|its| &its.traffic)),
            closed,
            access_lists: self.access.status(),
            sources: status::sources(&snapshot.sources),
            paced: status::paced(&snapshot.bandwidth),
            bans: self.bans_status(),
            syn_filter: self.syn_filter.status(),
            history: self.history.status(),
            lacks: metrics.lacks(),
            alerts: self.alerts(),
            regrets: regrets::sentences(stats, snapshot, (&self.in_force.config, &self.roster)),
            waiting: self.at_start.pending(self.in_force.declared.config()),
            latencies: metrics.recent.status(stats),
            reloads: self.reloading.status.clone(),
            webhook_failures: self.webhooks.failures(),
            etcd: self.in_force.discoveries.etcd_status(),
            peers: self.peers.status(),
            consul: self.in_force.discoveries.consul_status(),
            kubernetes: self.in_force.discoveries.kubernetes_status(),
            fleet: self.fleet.limits.status(),
            log_lines_dropped: operational_log::dropped(),
            scrapers_refused: admin::refused_scrapers(),
            segments: metrics.segments.map(|its| SegmentsStatus {
                received: its.received,
                sent: its.sent,
                sent_again: its.sent_again,
            }),
            privileges: sandbox::status(),
            control: metrics.measurements.control(),
            workers: (0u32..)
                .zip(stats)
                .map(|(worker, its)| status::worker(worker, its))
                .collect(),
        }
    }

    /// What is known of the backends of each pool that is to be shown with them.
    fn known(&self, which: &Which) -> Vec<Option<Vec<MemberStatus>>> {
        let pools = self.in_force.config.pools.iter().zip(&self.roster.pools);
        let known = pools.map(|(pool, record)| {
            which.includes(&pool.name).then(|| {
                let both = pool.backends.iter().zip(&record.members);
                let known = both.map(|(backend, member)| MemberStatus {
                    // All of thousands of backends would be a long answer.
                    probes: match which {
                        Which::All => Vec::new(),
                        Which::Named(_) => status::probes(self.checks.recent(member)),
                    },
                    ..self.known_of(&pool.name, backend, member)
                });
                known.collect()
            })
        });
        known.collect()
    }

    pub(super) fn known_of(
        &self,
        pool: &str,
        configured: &Backend,
        member: &Member,
    ) -> MemberStatus {
        let report = self.checks.report(member);
        let failure = report
            .as_ref()
            .and_then(|report| report.last.as_ref()?.failure.as_ref());
        let waits = report
            .as_ref()
            .is_some_and(|report| report.last.is_none() && report.health == Health::Down);
        let not_yet = waits.then_some("not probed yet");
        let is_unresolved = !configured.is_resolved();
        let why = is_unresolved.then(|| self.in_force.discoveries.why_unresolved(pool, configured));
        MemberStatus {
            checks_failed: report.as_ref().map_or(0, |report| report.failures),
            is_checked: report.is_some(),
            is_unresolved,
            check: why
                .or_else(|| failure.map(ToString::to_string))
                .or_else(|| not_yet.map(str::to_owned)),
            ejected_until: member.ejection.until(),
            ejection_regrets: member.ejection_regrets,
            probes: Vec::new(),
        }
    }

    /// The number that an added backend has, by which clients select it.
    fn member_added(&self, change: &Change) -> Option<u32> {
        let Change::AddBackend { pool, backend } = change else {
            return None;
        };
        let mut pools = self.in_force.config.pools.iter();
        let pool = pools.find(|its| its.name == *pool)?;
        pool.member_of(&backend.name)
    }

    /// Makes a change, and reports it as an event and in the audit log.
    fn change(&mut self, change: &Change, author: Author) -> Result<Changed, ChangeError> {
        let (topic, target) = (change.topic(), target(change.topic()));
        let old = values(change, &self.in_force.config);
        let pool = topic.pool();
        let before = pool.and_then(|pool| self.service(pool));
        let mut notes = Vec::new();
        let outcome = self.make(change, &mut notes);
        let new = values(change, &self.in_force.config);
        if let Ok(readmitted) = outcome
            && let (Some(old), Some(new)) = (&old, &new)
            && (old != new || readmitted)
        {
            let message = format!("{target}: {}, changed {author}", differences(old, new));
            self.events
                .tell(Severity::Info, EventKind::Changed, subject(topic), message);
        }
        let after = pool.and_then(|pool| self.service(pool));
        if let Some((before, _)) = before
            && let Some((_, sentence)) = after.filter(|(after, _)| *after < before)
        {
            notes.push(sentence);
        }
        if let Change::SetBackend {
            pool,
            backend,
            patch,
        } = change
            && let Some(wanted) = patch.get("state")
        {
            notes.extend(self.held_by_fleet(pool, backend, wanted.state));
        }
        let outcome = outcome.map(|readmitted| Changed {
            snapshot: self.publisher.version(),
            changed: old != new || readmitted,
            member: self.member_added(change),
            notes,
        });
        self.audit.record(&Entry {
            author,
            action: action(change),
            target: &target,
            old,
            new,
            outcome: match &outcome {
                Ok(changed) => Ok(changed.snapshot),
                Err(error) => Err(error.to_string()),
            },
        });
        outcome
    }

    /// Where the new sessions of a pool go, also in a sentence.
    fn service(&self, pool: &str) -> Option<(Service, String)> {
        let mut plans = self.publisher.snapshot().pools.iter();
        let plan = plans.find(|plan| plan.pool().name == pool)?;
        let service = plan.pool().service();
        Some((service, announce::sentence(plan.pool(), service)))
    }

    /// The pools whose new sessions do not go to usable backends, and what goes wrong with
    /// discovery and with the files of access lists, a sentence each.
    fn alerts(&self) -> Vec<String> {
        if self.stage == Stage::Starting {
            // Before the first probes are done nothing is known.
            return Vec::new();
        }
        let plans = self.publisher.snapshot().pools.iter();
        let services = plans.map(|plan| (plan.pool(), plan.pool().service()));
        let mut worse = services.filter(|(_, service)| *service < Service::Usable);
        let first = worse.by_ref().take(ALERTS_MAX);
        let mut sentences: Vec<_> = first
            .map(|(pool, service)| announce::sentence(pool, service))
            .collect();
        let more = worse.count();
        if more > 0 {
            sentences.push(format!("{more} more pools have too few usable backends"));
        }
        let (problems, more) = self.in_force.discoveries.problems(ALERTS_MAX);
        sentences.extend(problems);
        if more > 0 {
            sentences.push(format!("{more} more problems with discovery"));
        }
        sentences.extend(self.bans.problems());
        sentences.extend(self.fleet.problems());
        sentences.extend(self.peers.problems());
        sentences.extend(self.history.problem());
        sentences.extend(self.track_file.problem());
        sentences.extend(self.tls.problems().take(ALERTS_MAX));
        let (problems, more) = self.access.problems(ALERTS_MAX);
        sentences.extend(problems);
        if more > 0 {
            sentences.push(format!("{more} more files of access lists have mistakes"));
        }
        sentences
    }

    /// Makes a change, and notes the orders that it ends. Answers whether it ended an ejection.
    fn make(&mut self, change: &Change, notes: &mut Vec<String>) -> Result<bool, ChangeError> {
        if self.stage == Stage::Stopping {
            return Err(ChangeError::Invalid("the balancer is stopping".to_owned()));
        }
        if let Change::AddBackend { pool, backend } = change
            && let Some(why) =
                self.in_force
                    .discoveries
                    .leads_back(self.in_force.declared.config(), pool, backend)
        {
            return Err(ChangeError::Invalid(format!("pool `{pool}`: {why}")));
        }
        if let Change::EditAccessList { list, edits } = change {
            let checked = self.access.check_edits(list, edits);
            notes.extend(checked.map_err(ChangeError::Invalid)?);
        }
        let (declared, ended) = self
            .in_force
            .declared
            .change(change, |declared| self.in_force.with_discovered(declared))?;
        let applied = self.apply(declared, &mut Opened::default());
        applied.map_err(|error| ChangeError::Invalid(error.to_string()))?;
        let readmitted = if let Change::SetBackend {
            pool,
            backend,
            patch,
        } = change
            && patch
                .get("state")
                .is_some_and(|its| its.state == AdminState::Ready)
        {
            self.health_cycle().readmit(pool, backend)
        } else {
            false
        };
        if readmitted {
            self.publish();
        }
        notes.extend(self.tell_ended(ended));
        Ok(readmitted)
    }

    /// Reports orders that ended. Answers with a sentence for each.
    pub(super) fn tell_ended(&self, ended: Vec<EndedOrder>) -> impl Iterator<Item = String> {
        ended.into_iter().map(|EndedOrder { order, sentence }| {
            let about = subject(order.topic());
            self.events
                .tell(Severity::Warn, EventKind::Changed, about, sentence.clone());
            sentence
        })
    }
}

/// Answers on another thread what takes long.
fn answer_aside<T: Send + 'static>(reply: Reply<T>, answer: impl FnOnce() -> T + Send + 'static) {
    drop(aside::compute(move || {
        // A caller that has given up by now needs no answer.
        if !reply.is_closed() {
            drop(reply.send(answer()));
        }
    }));
}

/// Pools that the alerts of the status name, and problems with discovery.
const ALERTS_MAX: usize = 10;

async fn list(workers: &Workers, mut filter: SessionFilter) -> Result<Vec<SessionStatus>, String> {
    let limit = filter.limit.unwrap_or(SESSIONS).min(SESSIONS_MAX);
    filter.limit = Some(limit);
    let lists = workers.list(&filter).gather().await;
    let sessions = all_of(lists, limit as usize)?;
    let now = sys::monotonic();
    Ok(sessions.iter().map(|info| session(info, now)).collect())
}

/// The sessions of all workers, up to a limit: fewer only if each worker has answered.
fn all_of(lists: Answers<Vec<SessionInfo>>, limit: usize) -> Result<Vec<SessionInfo>, String> {
    let silent = silent(&lists);
    let sessions: Vec<_> = lists.all.into_iter().flatten().take(limit).collect();
    match silent.filter(|_| sessions.len() < limit) {
        Some(why) => Err(format!("cannot list all sessions: {why}: try again")),
        None => Ok(sessions),
    }
}

/// That some workers did not answer in time, if so.
pub(super) fn silent<T>(answers: &Answers<T>) -> Option<String> {
    let Answers { asked, silent, .. } = answers;
    (*silent > 0).then(|| format!("{silent} of {asked} workers did not answer in time"))
}

async fn kill(workers: &Workers, filter: &SessionFilter) -> Result<u64, String> {
    let counts = workers.close(filter, CloseReason::Killed, Duration::ZERO);
    closed_in_all(&counts.gather().await)
}

/// The sum of what the workers closed, if each of them has answered and refused nothing.
fn closed_in_all(counts: &Answers<Option<u64>>) -> Result<u64, String> {
    let closed: u64 = counts.all.iter().flatten().sum();
    let why = if let Some(why) = silent(counts) {
        why + ": look at `sessions`, and try again"
    } else if counts.all.contains(&None) {
        "a worker is still closing those of earlier requests: try again in a moment".to_owned()
    } else {
        return Ok(closed);
    };
    Err(format!(
        "cannot close all sessions ({closed} closed): {why}"
    ))
}

fn session(info: &SessionInfo, now: u64) -> SessionStatus {
    let since = |at: u64| seconds(now.saturating_sub(at));
    SessionStatus {
        id: info.id.to_string(),
        listener: info.listener.name.clone(),
        pool: info.pool.name.clone(),
        backend: info.backend.as_ref().map(|backend| backend.name.clone()),
        client: info.client.map(|client| client.to_string()),
        proxy: info.proxy.map(|proxy| proxy.to_string()),
        tls_client: info.identity.as_deref().map(TlsClientStatus::from),
        state: info.view.state,
        age_s: since(info.view.opened_at),
        idle_s: since(info.view.active_at),
        bytes_up: info.view.delivered[0],
        bytes_down: info.view.delivered[1],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers of these workers, of two that run.
    fn answers<T>(all: Vec<T>) -> Answers<T> {
        let silent = 2 - all.len();
        Answers {
            all,
            asked: 2,
            silent,
        }
    }

    #[test]
    fn sessions_are_listed_only_if_every_worker_has_answered() {
        assert_eq!(all_of(answers(vec![vec![], vec![]]), 9).unwrap().len(), 0);
        let late = all_of(answers(vec![vec![]]), 9).unwrap_err();
        let want = "cannot list all sessions: 1 of 2 workers did not answer in time: try again";
        assert_eq!(late, want);
        // The limit leaves out those of the others anyway.
        assert!(all_of(answers(vec![vec![]]), 0).is_ok());
    }

    #[test]
    fn sessions_count_as_closed_only_if_every_worker_has_answered() {
        assert_eq!(closed_in_all(&answers(vec![Some(3), Some(4)])), Ok(7));
        let late = closed_in_all(&answers(vec![Some(3)])).unwrap_err();
        let begin = "cannot close all sessions (3 closed): ";
        assert_eq!(
            late.strip_prefix(begin),
            Some("1 of 2 workers did not answer in time: look at `sessions`, and try again")
        );
        let refused = closed_in_all(&answers(vec![Some(3), None])).unwrap_err();
        assert_eq!(
            refused.strip_prefix(begin),
            Some("a worker is still closing those of earlier requests: try again in a moment")
        );
    }
}
