//! The ledger of shares in etcd: `limits/ledger`, and `limits/members/NAME` for each balancer,
//! bound to its lease. Each write is a transaction on the revision of the ledger.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::client::Client;
use super::wire::{self, Compared, Granted, Ranged, Renewed, encoded};
use crate::config::{Etcd, bounded, values};
use crate::control::remote::{self, RemoteCounts, RemoteError, WatchPace};
use crate::fleet_shares::{Answer, Ask, Ledger, LedgerView, LedgerWrite, MEMBERS_MAX};
use crate::time::SECOND;

/// Asks etcd what a member of the fleet asks.
pub(in crate::control) struct LedgerKeeper {
    client: Client,
    name: String,
    instance: String,
    /// How long a lease lasts, in seconds.
    lasts: u64,
}

impl LedgerKeeper {
    /// For a balancer of this name and instance, with leases that last for so long. An answer is
    /// waited for no longer than half as long as a renewal may be late.
    pub(in crate::control) fn new(
        source: &Etcd,
        (name, instance): (&str, &str),
        lease: Duration,
        counts: &Arc<RemoteCounts>,
    ) -> Self {
        let time = (lease / 4).clamp(Duration::from_secs(1), Duration::from_secs(5));
        let pace = WatchPace {
            open: time,
            answer: time,
            ..WatchPace::default()
        };
        Self {
            client: Client::new(source, pace, counts),
            name: name.to_owned(),
            instance: instance.to_owned(),
            // etcd counts whole seconds.
            lasts: lease.as_secs().max(1),
        }
    }

    /// The endpoint that is asked.
    pub(in crate::control) fn endpoint(&self) -> &str {
        self.client.endpoints.current()
    }

    /// Takes the next endpoint.
    pub(in crate::control) fn turn(&mut self) {
        self.client.endpoints.turn();
    }

    /// Asks, and answers with what came of it. After an error it may be done all the same.
    pub(in crate::control) async fn ask(&mut self, ask: &Ask) -> Result<Answer, RemoteError> {
        match ask {
            Ask::Grant => self.grant().await,
            Ask::Register(lease) => self.register(*lease).await,
            Ask::Renew(lease) => self.renew(*lease).await,
            Ask::Read => self.read().await,
            Ask::Write(write) => self.write(write).await,
        }
    }

    async fn grant(&mut self) -> Result<Answer, RemoteError> {
        let request = json!({ "TTL": self.lasts });
        let answer = self.client.ask("/v3/lease/grant", &request, ANSWER_MAX);
        let lease: Granted = remote::read(&answer.await?)?;
        let seconds = u64::try_from(lease.ttl).unwrap_or(0).min(LASTS_MAX);
        if lease.id == 0 || seconds == 0 {
            return Err(RemoteError::Garbage("expected a lease".to_owned()));
        }
        Ok(Answer::Granted(lease.id, seconds * SECOND))
    }

    /// Binds the name where nothing is bound to it, or this process is.
    async fn register(&mut self, lease: i64) -> Result<Answer, RemoteError> {
        let key = self.key(&member(&self.name));
        let put = json!({ "request_put": {
            "key": key, "value": encoded(self.instance.as_bytes()), "lease": lease.to_string(),
        } });
        let free = json!({ "compare": [self.is_free(&self.name)], "success": [put.clone()],
            "failure": [{ "request_range": { "key": key } }] });
        let answer = self.compare(&free).await?;
        if answer.succeeded {
            return Ok(Answer::Registered(None));
        }
        let bound = answer.responses.first();
        let bound = bound.and_then(|its| its.response_range.kvs.first());
        let bound = bound.map(|kv| text(&kv.value)).transpose()?;
        if bound.as_ref() == Some(&self.instance) {
            // By an earlier lease of this process.
            let again = json!({ "compare": [self.is_own()], "success": [put] });
            if self.compare(&again).await?.succeeded {
                return Ok(Answer::Registered(None));
            }
        }
        Ok(Answer::Registered(Some(bound.unwrap_or_default())))
    }

    async fn renew(&mut self, lease: i64) -> Result<Answer, RemoteError> {
        let request = json!({ "ID": lease.to_string() });
        let answer = self.client.ask("/v3/lease/keepalive", &request, ANSWER_MAX);
        let renewed: Renewed = remote::read(answer.await?.trim_ascii())?;
        match (renewed.result, renewed.error) {
            (Some(its), None) => Ok(Answer::Renewed(its.ttl > 0)),
            (_, Some(error)) => Err(RemoteError::Broken(remote::stream_error_words(&error))),
            (None, None) => Err(RemoteError::Garbage("expected a lease".to_owned())),
        }
    }

    /// Ends a lease.
    pub(in crate::control) async fn revoke(&mut self, lease: i64) -> Result<(), RemoteError> {
        let request = json!({ "ID": lease.to_string() });
        let answer = self.client.ask("/v3/lease/revoke", &request, ANSWER_MAX);
        answer.await.map(drop)
    }

    async fn read(&mut self) -> Result<Answer, RemoteError> {
        let prefix = format!("{}limits/", self.client.source().prefix);
        let request = wire::range(prefix.as_bytes(), &wire::end_of(&prefix), KEYS_MAX, 0);
        let answer = self.client.ask("/v3/kv/range", &request, READ_MAX);
        let ranged: Ranged = remote::read(&answer.await?)?;
        if ranged.more {
            let why = format!(
                "more than {KEYS_MAX} keys under `{prefix}`: expected `{LEDGER}`, and \
                 `members/NAME` of at most {MEMBERS_MAX} balancers; delete the others"
            );
            return Err(RemoteError::Broken(why));
        }
        let mut view = LedgerView::default();
        for kv in ranged.kvs {
            let key = text(&kv.key)?;
            let value = wire::decoded(&kv.value)?;
            let name = key.strip_prefix(&*prefix).unwrap_or_default();
            if name == LEDGER {
                view.revision = kv.mod_revision;
                view.ledger = ledger(&value).map_err(|error| {
                    let error = bounded(error);
                    RemoteError::Broken(format!("key `{key}`: {error}; delete it"))
                })?;
            } else if let Some(member) = name.strip_prefix("members/") {
                let instance = String::from_utf8_lossy(&value).into_owned();
                view.instances.insert(member.to_owned(), instance);
            }
        }
        Ok(Answer::Read(view))
    }

    async fn write(&mut self, write: &LedgerWrite) -> Result<Answer, RemoteError> {
        let key = self.key(LEDGER);
        let value = serde_json::to_vec(&write.ledger);
        let value = value.map_err(|error| RemoteError::broken(&error))?;
        let revision = json!({ "key": key, "target": "MOD", "result": "EQUAL",
            "mod_revision": write.revision.to_string() });
        let gone = write.gone.iter().map(|name| self.is_free(name));
        let compare: Vec<_> = [revision, self.is_own()].into_iter().chain(gone).collect();
        let put = json!({ "request_put": { "key": key, "value": encoded(&value) } });
        let request = json!({ "compare": compare, "success": [put] });
        Ok(Answer::Written(self.compare(&request).await?.succeeded))
    }

    /// That nothing is bound to a name.
    fn is_free(&self, name: &str) -> Value {
        let key = self.key(&member(name));
        json!({ "key": key, "target": "VERSION", "result": "EQUAL", "version": "0" })
    }

    /// That this process is bound to its name.
    fn is_own(&self) -> Value {
        let (key, value) = (self.key(&member(&self.name)), self.instance.as_bytes());
        json!({ "key": key, "target": "VALUE", "result": "EQUAL", "value": encoded(value) })
    }

    async fn compare(&mut self, request: &Value) -> Result<Compared, RemoteError> {
        let answer = self.client.ask("/v3/kv/txn", request, READ_MAX);
        remote::read(&answer.await?)
    }

    fn key(&self, name: &str) -> String {
        let key = format!("{}limits/{name}", self.client.source().prefix);
        encoded(key.as_bytes())
    }
}

/// Reads a ledger, which balancers write, but others may.
fn ledger(text: &[u8]) -> Result<Ledger, String> {
    let ledger: Ledger = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    let count = ledger.members.len();
    if count > MEMBERS_MAX {
        return Err(format!("{count} balancers: expected at most {MEMBERS_MAX}"));
    }
    let mut names = ledger.members.keys();
    match names.find(|name| !values::is_name(name)) {
        None => Ok(ledger),
        Some(name) => Err(format!(
            "invalid name {name:?}: expected 1 to 64 characters, and no control character"
        )),
    }
}

fn member(name: &str) -> String {
    format!("members/{name}")
}

fn text(encoded: &str) -> Result<String, RemoteError> {
    let bytes = wire::decoded(encoded)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

const LEDGER: &str = "ledger";
/// The ledger, and the names of balancers.
const KEYS_MAX: usize = 1 + MEMBERS_MAX;
/// Bytes of a ledger and those keys.
const READ_MAX: usize = 1 << 20;
/// Bytes of an answer without keys.
const ANSWER_MAX: usize = 64 << 10;
/// The longest lease that is believed, in seconds.
const LASTS_MAX: u64 = 600;
