//! What etcd's JSON gateway takes and answers. 64-bit numbers are strings there, bytes are base64,
//! and what is zero is left out.

use std::fmt;
use std::marker::PhantomData;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use super::EtcdError;
use super::watch::PAGE;

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
}

/// The answer of `/v3/auth/authenticate`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Authenticated {
    pub(super) token: String,
}

/// What comes with a status that is not 200.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct GatewayError {
    error: Value,
    message: String,
}

/// Reads an answer.
pub(super) fn read<'a, T: Deserialize<'a>>(text: &'a [u8]) -> Result<T, EtcdError> {
    serde_json::from_slice(text).map_err(|error| EtcdError::Garbage(error.to_string()))
}

/// The words of an answer that is an error.
pub(super) fn error_words(text: &[u8]) -> Option<String> {
    let error: GatewayError = serde_json::from_slice(text).ok()?;
    let words = match (&*error.message, &error.error) {
        ("", Value::String(words)) => words.clone(),
        ("", other) => stream_error_words(other),
        (message, _) => message.to_owned(),
    };
    Some(words).filter(|words| !words.is_empty())
}

/// The words of an error in a line.
pub(super) fn stream_error_words(error: &Value) -> String {
    let words = error.get("message").and_then(Value::as_str);
    words.map_or_else(|| error.to_string(), str::to_owned)
}

/// Bytes as the gateway takes them.
pub(super) fn encoded(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// Bytes of an answer.
pub(super) fn decoded(text: &str) -> Result<Vec<u8>, EtcdError> {
    let bytes = STANDARD.decode(text);
    bytes.map_err(|_| EtcdError::Garbage("expected base64".to_owned()))
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

/// A list of so many at most. The text is bounded, but what is left out in it takes memory: it is
/// refused before that.
fn few<'de, const MAX: usize, T, D>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    struct Few<const MAX: usize, T>(PhantomData<T>);

    impl<'de, const MAX: usize, T: Deserialize<'de>> Visitor<'de> for Few<MAX, T> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "a list of at most {MAX}")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
            let mut all = Vec::new();
            while let Some(one) = seq.next_element()? {
                if all.len() == MAX {
                    return Err(A::Error::custom(format!(
                        "expected at most {MAX} in a list"
                    )));
                }
                all.push(one);
            }
            Ok(all)
        }
    }
    deserializer.deserialize_seq(Few::<MAX, T>(PhantomData))
}

/// Changes in a line of a watch: more than one of its size has.
const EVENTS_MAX: usize = 100_000;

#[cfg(test)]
mod tests {
    use super::*;

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
