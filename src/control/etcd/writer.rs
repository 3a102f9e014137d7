//! Writes keys under a prefix.

use std::sync::Arc;

use serde_json::json;

use super::client::Client;
use super::wire::{Granted, encoded};
use crate::config::Etcd;
use crate::control::remote::{RemoteCounts, RemoteError, WatchPace, read};

/// Writes keys, one after the other.
pub(in crate::control) struct KeyWriter {
    client: Client,
}

impl KeyWriter {
    pub(in crate::control) fn new(
        source: &Etcd,
        pace: WatchPace,
        counts: &Arc<RemoteCounts>,
    ) -> Self {
        Self {
            client: Client::new(source, pace, counts),
        }
    }

    /// Takes the next endpoint.
    pub(in crate::control) fn turn(&mut self) {
        self.client.endpoints.turn();
    }

    /// Puts a key, of a value that lasts so many seconds.
    pub(in crate::control) async fn put(
        &mut self,
        key: &str,
        value: &str,
        lasts: Option<u64>,
    ) -> Result<(), RemoteError> {
        let mut request = json!({
            "key": encoded(self.name(key).as_bytes()),
            "value": encoded(value.as_bytes()),
        });
        if let Some(seconds) = lasts {
            let grant = json!({ "TTL": seconds });
            let answer = self.client.ask("/v3/lease/grant", &grant, ANSWER_MAX);
            let lease: Granted = read(&answer.await?)?;
            request["lease"] = lease.id.to_string().into();
        }
        let answer = self.client.ask("/v3/kv/put", &request, ANSWER_MAX);
        answer.await.map(drop)
    }

    /// Deletes a key.
    pub(in crate::control) async fn delete(&mut self, key: &str) -> Result<(), RemoteError> {
        let request = json!({ "key": encoded(self.name(key).as_bytes()) });
        let answer = self.client.ask("/v3/kv/deleterange", &request, ANSWER_MAX);
        answer.await.map(drop)
    }

    fn name(&self, key: &str) -> String {
        format!("{}{key}", self.client.source().prefix)
    }
}

/// Bytes of an answer: it has no key.
const ANSWER_MAX: usize = 64 << 10;
