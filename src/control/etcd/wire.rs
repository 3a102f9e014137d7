//! What etcd's JSON gateway takes and answers. 64-bit numbers are strings there, bytes are base64,
//! and what is zero is left out.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::Error;
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use super::watch::PAGE;
use crate::control::remote::{RemoteError, few};

/// The answer of `/v3/kv/range`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Ranged {
    pub(super) header: Header,
    #[serde(deserialize_with = "few::<PAGE, _, _>")]
    pub(super) kvs: Vec<KeyValue>,
    pub(super) more: bool,
    /// All keys of the range, beyond the limit too.
    #[serde(deserialize_with = "whole")]
    pub(super) count: i64,
}

/// Of every answer.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Header {
    #[serde(deserialize_with = "whole")]
    pub(super) revision: i64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct KeyValue {
    /// In base64, as is `value`.
    pub(super) key: String,
    pub(super) value: String,
    #[serde(deserialize_with = "whole")]
    pub(super) mod_revision: i64,
}

/// A line of `/v3/watch`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct WatchLine {
    pub(super) result: Option<Watched>,
    pub(super) error: Option<Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Watched {
    pub(super) header: Header,
    pub(super) created: bool,
    pub(super) canceled: bool,
    #[serde(deserialize_with = "whole")]
    pub(super) compact_revision: i64,
    pub(super) cancel_reason: String,
    #[serde(deserialize_with = "few::<EVENTS_MAX, _, _>")]
    pub(super) events: Vec<WatchEvent>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct WatchEvent {
    /// "DELETE", or nothing for a key that was put.
    pub(super) r#type: String,
    pub(super) kv: KeyValue,
}

/// The answer of `/v3/lease/grant`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Granted {
    #[serde(rename = "ID", deserialize_with = "whole")]
    pub(super) id: i64,
    /// In seconds; 0: it has ended.
    #[serde(rename = "TTL", deserialize_with = "whole")]
    pub(super) ttl: i64,
}

/// The answer of `/v3/lease/keepalive`: a line of its own for each lease.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Renewed {
    pub(super) result: Option<Granted>,
    pub(super) error: Option<Value>,
}

/// The answer of `/v3/kv/txn`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Compared {
    pub(super) succeeded: bool,
    #[serde(deserialize_with = "few::<1, _, _>")]
    pub(super) responses: Vec<Response>,
}

/// What a request in it was answered.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Response {
    pub(super) response_range: Ranged,
}

/// The answer of `/v3/auth/authenticate`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Authenticated {
    pub(super) token: String,
}

/// Bytes as the gateway takes them.
pub(super) fn encoded(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// Bytes of an answer.
pub(super) fn decoded(text: &str) -> Result<Vec<u8>, RemoteError> {
    let bytes = STANDARD.decode(text);
    bytes.map_err(|_| RemoteError::Garbage("expected base64".to_owned()))
}

/// The request for a page of keys from `from` on, before `to`, at this revision; 0: the present.
pub(super) fn range(from: &[u8], to: &[u8], limit: usize, revision: i64) -> Value {
    json!({
        "key": encoded(from),
        "range_end": encoded(to),
        "limit": limit,
        "revision": revision,
    })
}

/// The request for the key from `from` on, before `to`, that changed last, and how many there are.
pub(super) fn newest(from: &[u8], to: &[u8]) -> Value {
    let mut request = range(from, to, 1, 0);
    request["sort_target"] = "MOD".into();
    request["sort_order"] = "DESCEND".into();
    request["keys_only"] = true.into();
    request
}

/// The request for all changes of keys from `from` on, before `to`, since this revision.
pub(super) fn watch(from: &[u8], to: &[u8], revision: i64) -> Value {
    json!({ "create_request": {
        "key": encoded(from),
        "range_end": encoded(to),
        "start_revision": revision,
        "fragment": true,
    } })
}

/// What follows all keys with this prefix, which is not empty and ends with a slash.
pub(super) fn end_of(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    if let Some(last) = end.last_mut() {
        *last = last.saturating_add(1);
    }
    end
}

/// A whole number, or a string of one.
fn whole<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Whole {
        Number(i64),
        Text(String),
    }
    match Whole::deserialize(deserializer)? {
        Whole::Number(number) => Ok(number),
        Whole::Text(text) => text.parse().map_err(Error::custom),
    }
}

/// Changes in a line of a watch: more than one of its size has.
const EVENTS_MAX: usize = 100_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::remote::read;

    #[test]
    fn a_list_is_refused_once_it_has_too_many() {
        let text = |count| format!("{{\"kvs\": [{}]}}", vec!["{}"; count].join(","));
        let most: Ranged = read(text(PAGE).as_bytes()).unwrap();
        assert_eq!(most.kvs.len(), PAGE);
        let told = read::<Ranged>(text(PAGE + 1).as_bytes()).unwrap_err();
        assert!(told.to_string().contains("at most 512"), "{told}");
        assert!(read::<Ranged>(b"{\"kvs\": {}}").is_err());
        assert!(read::<Ranged>(b"{}").unwrap().kvs.is_empty());
    }
}
