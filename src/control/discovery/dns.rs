//! Questions to the DNS: the addresses of a name, or its services (SRV, RFC 2782).
//!
//! A lookup that fails is answered from memory, record type by record type, so that a server that
//! fails for one type removes no backend. A lookup that finds nothing does remove them.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::config::{NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::{Query, ResponseCode};
use hickory_resolver::proto::rr::rdata::SRV;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use hickory_resolver::system_conf::read_system_conf;
use hickory_resolver::{Hosts, TokioResolver};
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;

use crate::address::{Address, kind_of_no_server};
use crate::config::{Backend, Consul, Kubernetes};
use crate::control::aside;

use super::{BACKENDS_MAX, Found, Pace, Question, Teller};

/// A question, the servers to ask, and the last answers.
#[derive(Debug)]
pub(super) struct Dns {
    pub(super) question: Question,
    /// Empty: those of /etc/resolv.conf.
    pub(super) servers: Vec<SocketAddr>,
    pub(super) memory: LastAnswers,
    /// Limits the questions of all tasks that are under way.
    pub(super) questions: Arc<Semaphore>,
}

/// The last answers, which are kept when other servers are asked.
pub(super) type LastAnswers = Arc<Mutex<Addresses>>;

/// The last good addresses by name and record type.
type Addresses = HashMap<(String, RecordType), Vec<IpAddr>>;

/// The outcome of one round of lookups.
#[derive(Debug, Default)]
struct Round {
    /// The lowest of all records, in s.
    ttl: Option<u32>,
    /// The first thing that went wrong.
    error: Option<String>,
    /// The memory for the next round.
    memory: Addresses,
}

/// The answer to one lookup.
enum Answer {
    Records(Lookup),
    /// No such records, or no such name.
    Nothing,
    Failed(String),
}

impl Dns {
    /// Asks again and again, when the answers' time to live has passed or a notification comes, and
    /// sends the outcome.
    pub(super) async fn follow(self, teller: Teller, pace: Pace, again: Arc<Notify>) {
        let mut failures = 0;
        loop {
            let mut round = Round::default();
            let at_a_time = match self.question {
                // IPv4 and IPv6.
                Question::Addresses(_) => 2,
                Question::Services(_)
                | Question::File(_)
                | Question::Etcd(_)
                | Question::Consul(_)
                | Question::Kubernetes(_) => AT_A_TIME,
            };
            // It is never closed. The timeout begins once the round may ask.
            let permits = u32::try_from(at_a_time).unwrap_or(u32::MAX);
            let permit = self.questions.acquire_many(permits).await;
            let asked = tokio::time::timeout(ROUND_TIME, self.ask(&mut round)).await;
            drop(permit);
            let mut found = match asked {
                Ok(found) => found,
                Err(_) => {
                    round.error = Some(format!(
                        "no answer within {}",
                        humantime::format_duration(ROUND_TIME)
                    ));
                    Vec::new()
                }
            };
            round.leave_out_unusable(&mut found, self.question.name());
            if found.is_empty() && round.error.is_none() {
                round.error = Some(format!("{} has no address", self.question.name()));
            }
            let next = if round.error.is_some() {
                failures += 1;
                backed_off(&pace, failures)
            } else {
                failures = 0;
                let ttl = Duration::from_secs(round.ttl.unwrap_or(0).into());
                ttl.clamp(pace.ttl_min, pace.ttl_max)
            };
            let found = (!found.is_empty()).then(|| Found::of(found));
            if found.is_some() {
                *self.memory.lock() = round.memory;
            }
            teller.tell(found, round.error, Some(next)).await;
            // Replicas get the same time to live from the same server at the same moment.
            let later = next.mul_f64(1.0 + LATER_MAX * fastrand::f64());
            tokio::select! {
                () = tokio::time::sleep(later) => {}
                () = again.notified() => {}
            }
        }
    }

    async fn ask(&self, round: &mut Round) -> Vec<Backend> {
        // Made each time, as the machine's configuration may have changed.
        let made = if self.servers.is_empty() {
            system_resolver().await
        } else {
            resolver(&self.servers).map(|resolver| (resolver, Arc::default()))
        };
        let (resolver, hosts) = match made {
            Ok(made) => made,
            Err(error) => {
                round.fail(format!("no resolver: {error}"));
                return Vec::new();
            }
        };
        match &self.question {
            Question::Addresses(name) => {
                // As getaddrinfo(3) does: a name in /etc/hosts is not looked up in the DNS.
                let local = in_hosts_file(&hosts, name);
                if !local.is_empty() {
                    round.lasts([LOCAL_TTL].into_iter());
                    return local.into_iter().map(|ip| backend(ip, 0)).collect();
                }
                let found = self.addresses(&resolver, vec![name.clone()], round).await;
                let found = found.into_values().flatten();
                // The pools that ask set the port.
                found.map(|ip| backend(ip, 0)).collect()
            }
            // Not for the DNS.
            Question::File(_)
            | Question::Etcd(_)
            | Question::Consul(_)
            | Question::Kubernetes(_) => Vec::new(),
            Question::Services(name) => {
                let lookup = match records(&resolver, name, RecordType::SRV).await {
                    Answer::Records(lookup) => lookup,
                    Answer::Nothing => {
                        round.fail(format!("{name} has no service records"));
                        return Vec::new();
                    }
                    Answer::Failed(why) => {
                        round.fail(format!("{name}: {why}"));
                        return Vec::new();
                    }
                };
                let services = services(&lookup);
                round.lasts(lookup.answers().iter().map(|record| record.ttl));
                let mut found = round.additional(&lookup);
                let names = services.iter().map(|service| service.target.to_ascii());
                let mut missing: Vec<_> = names.filter(|name| !found.contains_key(name)).collect();
                missing.sort_unstable();
                missing.dedup();
                found.extend(self.addresses(&resolver, missing, round).await);
                backends(&services, &found)
            }
        }
    }

    /// The addresses of names, looked up a few at a time; where a lookup fails, the remembered
    /// ones.
    async fn addresses(
        &self,
        resolver: &TokioResolver,
        names: Vec<String>,
        round: &mut Round,
    ) -> HashMap<String, Vec<IpAddr>> {
        let mut found: HashMap<String, Vec<IpAddr>> = HashMap::new();
        let kinds = [RecordType::A, RecordType::AAAA];
        let mut questions = names
            .into_iter()
            .flat_map(|name| kinds.map(|kind| (name.clone(), kind)));
        let mut asked = JoinSet::new();
        loop {
            while asked.len() < AT_A_TIME
                && let Some((name, kind)) = questions.next()
            {
                let resolver = resolver.clone();
                asked.spawn(async move {
                    let answer = records(&resolver, &name, kind).await;
                    (name, kind, answer)
                });
            }
            match asked.join_next().await {
                Some(Ok((name, kind, answer))) => {
                    let known = self.memory.lock().get(&(name.clone(), kind)).cloned();
                    let addresses = round.take(&name, kind, answer, known);
                    found.entry(name).or_default().extend(addresses);
                }
                // A panic aborts the process, and these tasks are not cancelled.
                Some(Err(_)) => {}
                None => return found,
            }
        }
    }
}

impl Question {
    fn name(&self) -> &str {
        match self {
            Self::Addresses(name) | Self::Services(name) => name,
            Self::File(_) => "a file",
            Self::Etcd(source) => &source.prefix,
            Self::Consul(Consul { service, .. }) | Self::Kubernetes(Kubernetes { service, .. }) => {
                service
            }
        }
    }
}

impl Round {
    fn fail(&mut self, error: String) {
        self.error.get_or_insert(error);
    }

    /// Leaves out the addresses that no server can have.
    fn leave_out_unusable(&mut self, found: &mut Vec<Backend>, name: &str) {
        found.retain(|backend| {
            let Address::Tcp(address) = &backend.address else {
                return true;
            };
            let Some(kind) = kind_of_no_server(address) else {
                return true;
            };
            let ip = address.ip();
            self.fail(format!(
                "{name}: expected addresses of servers, not {ip}, {kind}"
            ));
            false
        });
    }

    fn lasts(&mut self, ttls: impl Iterator<Item = u32>) {
        self.ttl = ttls.chain(self.ttl).min();
    }

    /// The addresses of an answer, or the remembered ones if the lookup failed.
    fn take(
        &mut self,
        name: &str,
        kind: RecordType,
        answer: Answer,
        known: Option<Vec<IpAddr>>,
    ) -> Vec<IpAddr> {
        let addresses: Vec<IpAddr> = match answer {
            Answer::Records(lookup) => {
                self.lasts(lookup.answers().iter().map(|record| record.ttl));
                let records = lookup.answers().iter();
                bounded(records.filter_map(|record| record.data.ip_addr()).collect())
            }
            Answer::Nothing => return Vec::new(),
            Answer::Failed(why) => {
                self.fail(format!("{name}: {why}"));
                known.unwrap_or_default()
            }
        };
        let key = (name.to_owned(), kind);
        self.memory.insert(key, addresses.clone());
        addresses
    }

    /// Addresses of targets in the additional section of the service records.
    fn additional(&mut self, lookup: &Lookup) -> HashMap<String, Vec<IpAddr>> {
        let mut found: HashMap<String, Vec<IpAddr>> = HashMap::new();
        for record in lookup.additionals() {
            if let Some(ip) = record.data.ip_addr() {
                self.lasts([record.ttl].into_iter());
                found.entry(record.name.to_ascii()).or_default().push(ip);
            }
        }
        found
            .values_mut()
            .for_each(|its| *its = bounded(std::mem::take(its)));
        found
    }
}

/// Each address once, and at most one more than a pool may have, which shows that there are too
/// many.
fn bounded(mut addresses: Vec<IpAddr>) -> Vec<IpAddr> {
    addresses.sort_unstable();
    addresses.dedup();
    addresses.truncate(BACKENDS_MAX + 1);
    addresses
}

/// A resolver that asks the given servers only. It caches nothing: its tasks keep the times to
/// live.
fn resolver(servers: &[SocketAddr]) -> Result<TokioResolver, NetError> {
    let server = |server: &SocketAddr| {
        let mut config = NameServerConfig::udp_and_tcp(server.ip());
        for connection in &mut config.connections {
            connection.port = server.port();
        }
        config
    };
    let servers = servers.iter().map(server).collect();
    let config = ResolverConfig::from_parts(None, Vec::new(), servers);
    let mut options = ResolverOpts::default();
    options.timeout = SERVER_TIME;
    built(config, options)
}

/// A resolver by /etc/resolv.conf, and /etc/hosts. Another thread reads them.
pub(in crate::control) async fn system_resolver() -> Result<(TokioResolver, Arc<Hosts>), NetError> {
    let read = aside::read(|| {
        let hosts = Hosts::from_system().unwrap_or_default();
        (read_system_conf(), Arc::new(hosts))
    });
    let no_thread = |_| NetError::from("no thread can be created");
    let (system, hosts) = read.await.map_err(no_thread)?;
    let (config, options) = system?;
    let mut resolver = built(config, options)?;
    resolver.set_hosts(Arc::clone(&hosts));
    Ok((resolver, hosts))
}

/// Reads no file.
fn built(config: ResolverConfig, mut options: ResolverOpts) -> Result<TokioResolver, NetError> {
    options.use_hosts_file = ResolveHosts::Never;
    options.cache_size = 0;
    let provider = TokioRuntimeProvider::default();
    let builder = TokioResolver::builder_with_config(config, provider);
    builder.with_options(options).build()
}

/// The addresses of a name in /etc/hosts.
fn in_hosts_file(hosts: &Hosts, name: &str) -> Vec<IpAddr> {
    let Ok(name) = Name::from_ascii(name) else {
        return Vec::new();
    };
    let kinds = [RecordType::A, RecordType::AAAA].into_iter();
    let found =
        kinds.filter_map(|kind| hosts.lookup_static_host(&Query::query(name.clone(), kind)));
    let found = found.flat_map(|lookup| lookup.answers().to_vec());
    found.filter_map(|record| record.data.ip_addr()).collect()
}

async fn records(resolver: &TokioResolver, name: &str, kind: RecordType) -> Answer {
    match resolver.lookup(name, kind).await {
        Ok(lookup) => Answer::Records(lookup),
        Err(NetError::Dns(DnsError::NoRecordsFound(none)))
            if matches!(
                none.response_code,
                ResponseCode::NXDomain | ResponseCode::NoError
            ) =>
        {
            Answer::Nothing
        }
        Err(NetError::Dns(DnsError::ResponseCode(code))) => {
            Answer::Failed(format!("the DNS answers \"{code}\""))
        }
        Err(error) => Answer::Failed(error.to_string()),
    }
}

/// The service records, best priority first. A target of "." says that there is no such service.
fn services(lookup: &Lookup) -> Vec<SRV> {
    let records = lookup.answers().iter();
    let services = records.filter_map(|record| {
        if let RData::SRV(service) = &record.data {
            Some(service)
        } else {
            None
        }
    });
    let services = services.filter(|service| !service.target.is_root() && service.port > 0);
    let mut services: Vec<_> = services.cloned().collect();
    // By all that tells them apart: servers answer in another order each time, and those that are
    // too many are to be the same each time.
    services.sort_by_cached_key(|its| (its.priority, its.target.to_ascii(), its.port));
    services.truncate(BACKENDS_MAX);
    services
}

/// Those of the best priority that has an address are backends, the others backups. Each address of
/// a target has the weight of its record. A few records with many addresses each make millions of
/// backends: those beyond the most that a pool may have are left out before they are made.
fn backends(services: &[SRV], addresses: &HashMap<String, Vec<IpAddr>>) -> Vec<Backend> {
    let mut found = Vec::new();
    let mut places = HashSet::new();
    for of_one in services.chunk_by(|one, next| one.priority == next.priority) {
        let backup = !found.is_empty();
        let weights: Vec<_> = of_one.iter().map(|service| service.weight).collect();
        for (service, weight) in of_one.iter().zip(weights_of(&weights)) {
            let of_target = addresses.get(&service.target.to_ascii());
            for ip in of_target.into_iter().flatten() {
                places.insert((*ip, service.port));
                // One more shows that there were too many.
                if places.len() > BACKENDS_MAX + 1 {
                    return found;
                }
                found.push(Backend {
                    weight,
                    backup,
                    ..backend(*ip, service.port)
                });
            }
        }
    }
    found
}

/// Weights of service records and instances, 0 to 65,535, as those of backends, 1 to 256: as they
/// are where that is possible, else in proportion to the highest. 0 is "a very small chance of
/// being selected" beside others, and says nothing where there are no others.
pub(super) fn weights_of(weights: &[u16]) -> Vec<u16> {
    let highest = weights.iter().copied().max().unwrap_or(0);
    let fits = highest <= WEIGHT_MAX && !weights.contains(&0);
    let scaled = |&weight: &u16| {
        if fits {
            return weight;
        }
        let part = u32::from(weight) * u32::from(WEIGHT_MAX);
        let part = part / u32::from(highest.max(1));
        u16::try_from(part).unwrap_or(WEIGHT_MAX).max(1)
    };
    weights.iter().map(scaled).collect()
}

fn backend(ip: IpAddr, port: u16) -> Backend {
    Backend::at(Address::Tcp(SocketAddr::new(ip, port)))
}

/// How long to wait after so many failures in a row, of which there is one at least.
fn backed_off(pace: &Pace, failures: u32) -> Duration {
    let doubled = 1_u32.checked_shl(failures - 1).unwrap_or(u32::MAX);
    pace.retry_min.saturating_mul(doubled).min(pace.retry_max)
}

/// The highest weight of a backend.
const WEIGHT_MAX: u16 = 256;
/// How long what a file of this machine says holds, in s.
const LOCAL_TTL: u32 = 10;
/// Questions under way at a time.
const AT_A_TIME: usize = 16;
/// One server's time to answer; it is asked three times at most.
const SERVER_TIME: Duration = Duration::from_secs(2);
/// All questions of one round.
const ROUND_TIME: Duration = Duration::from_secs(30);
/// By what part a round may begin later than it is due.
const LATER_MAX: f64 = 0.1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_keep_their_proportions() {
        assert_eq!(weights_of(&[10, 60, 30]), [10, 60, 30]);
        assert_eq!(weights_of(&[0, 0]), [1, 1]);
        assert_eq!(weights_of(&[0, 1]), [1, 256]);
        assert_eq!(weights_of(&[65_535, 32_768, 1]), [256, 128, 1]);
        assert!(weights_of(&[]).is_empty());
    }

    #[test]
    fn retries_come_ever_later() {
        let pace = Pace::default();
        let after = |failures| backed_off(&pace, failures).as_secs();
        assert_eq!([1, 2, 3, 5, 6, 60].map(after), [1, 2, 4, 16, 30, 30]);
    }
}
