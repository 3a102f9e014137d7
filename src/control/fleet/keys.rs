//! Keys of the fleet: `bans/PREFIX` and `states/POOL/BACKEND`.

use std::sync::Arc;
use std::time::SystemTime;

use serde::Deserialize;
use tokio::sync::{Notify, mpsc};

use crate::config::{AdminState, Etcd, bounded, shortest_ban, values};
use crate::control::etcd::Watch;
use crate::control::remote::{self, Gathered, Keys, RemoteCounts, STEPS, WatchPace};
use crate::guard::{BannedBy, ImportedBan, ImportedBans};
use crate::prefix::Prefix;
use crate::sys;
use crate::time::{NEVER, nanos};

use super::{FleetNews, Shares};

/// The value of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Share {
    Ban {
        prefix: Prefix,
        /// `None`: as long as the key is there.
        until: Option<SystemTime>,
        reason: Arc<str>,
    },
    State(String, String, AdminState),
    /// Of the shares of limits, which [`super::limits`] reads.
    Limits,
}

/// The value of a ban.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BanValue {
    until: Option<String>,
    reason: Option<String>,
}

/// The value of a state.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StateValue {
    state: String,
}

/// Follows the keys, and sends what they say. It runs on the thread of `remote`.
pub(super) async fn follow(
    source: Etcd,
    (number, sender): (u64, mpsc::Sender<FleetNews>),
    pace: WatchPace,
    counts: Arc<RemoteCounts>,
) {
    let (steps, news) = mpsc::channel(STEPS);
    let again = Arc::new(Notify::new());
    let watch = Watch::new(&source, (share, KEYS_MAX), pace, &counts);
    let keys = Keys::new(
        ("key", format!("keys under `{}`", source.prefix)),
        &source.prefix,
        KEYS_MAX,
    );
    let mut gathered = Gathered::new(keys, news, Arc::clone(&again));
    let send = async {
        let mut sent = None;
        while let Some(keys) = gathered.changed().await {
            let state = (keys.failure().cloned(), others(keys));
            // Shares of limits change often, and all bans would be looked at.
            if keys.failure().is_none() && sent.as_ref() == Some(&state) {
                continue;
            }
            sent = Some(state);
            let (shares, error) = match keys.failure() {
                Some((why, _)) => (None, Some(why.clone())),
                None if keys.is_wiped() => (None, Some(WIPED.to_owned())),
                None => (Some(shares(keys)), keys.mistakes().sentence()),
            };
            let news = FleetNews::Known {
                number,
                shares,
                error: error.map(bounded),
            };
            // Without a receiver the balancer is ending, and this task with it.
            let _ = sender.send(news).await;
        }
    };
    tokio::select! {
        () = remote::follow(watch, steps, again) => {}
        () = send => {}
    }
}

/// What shows that other keys than those of limits have changed: how many there are, the revision
/// of the latest, and what is wrong with some.
fn others(keys: &Keys<Share>) -> (usize, Option<i64>, Option<String>) {
    let (mut count, mut latest) = (0, None);
    for (_, revision, share) in keys.good() {
        if *share != Share::Limits {
            count += 1;
            latest = latest.max(Some(revision));
        }
    }
    (count, latest, keys.mistakes().sentence())
}

/// What all keys say.
fn shares(keys: &Keys<Share>) -> Shares {
    let mut shares = Shares::default();
    let mut bans = Vec::new();
    let (now, wall) = (sys::monotonic(), SystemTime::now());
    for (_, _, share) in keys.good() {
        match share {
            Share::Ban {
                prefix,
                until,
                reason,
            } => {
                let until = until.map_or(NEVER, |until| {
                    let left = until.duration_since(wall).unwrap_or_default();
                    now.saturating_add(nanos(left))
                });
                let (prefix, reason) = (*prefix, Arc::clone(reason));
                bans.push(ImportedBan {
                    prefix,
                    reason,
                    until,
                });
            }
            Share::Limits | Share::State(_, _, AdminState::Ready) => {}
            Share::State(pool, backend, state) => {
                let states = shares.states.entry(pool.clone()).or_default();
                states.insert(backend.clone(), *state);
            }
        }
    }
    shares.bans = ImportedBans::of(BannedBy::Fleet, bans);
    shares
}

/// A fleet that bans nothing.
pub(super) fn no_bans() -> ImportedBans {
    ImportedBans::of(BannedBy::Fleet, Vec::new())
}

/// Reads the value of a key.
fn share(key: &str, value: &[u8]) -> Result<Share, String> {
    if let Some(prefix) = key.strip_prefix("bans/") {
        return ban(prefix, value);
    }
    if key.starts_with("limits/") {
        return Ok(Share::Limits);
    }
    let parts = key
        .strip_prefix("states/")
        .and_then(|rest| rest.split_once('/'));
    let Some((pool, backend)) = parts else {
        return Err("unknown key: expected `bans/PREFIX` or `states/POOL/BACKEND`".to_owned());
    };
    let name = |name: &str| values::name(name).map_err(|error| error.about("name", name));
    let (pool, backend) = (name(pool)?, name(backend)?);
    let value: StateValue = read(value, "{\"state\": \"drain\"}")?;
    let state = values::admin_state(&value.state);
    let state = state.map_err(|error| error.about("`state`", &value.state))?;
    Ok(Share::State(pool, backend, state))
}

fn ban(text: &str, value: &[u8]) -> Result<Share, String> {
    let prefix = values::prefix(text).map_err(|error| error.about("prefix", text))?;
    // `unban` deletes the key by this name.
    if prefix.to_string() != text {
        return Err(format!(
            "invalid prefix `{text}`: expected it written as `{prefix}`"
        ));
    }
    let shortest = shortest_ban(prefix);
    if prefix.length() < shortest {
        return Err(format!(
            "invalid prefix `{prefix}`: expected /{shortest} or longer, as it bans a large part \
             of the internet; `mahoraga ban --force` bans it all the same"
        ));
    }
    let example = "{\"until\": \"2030-01-01T00:00:00Z\", \"reason\": \"floods the login\"}";
    let value: BanValue = read(value, example)?;
    let until = value.until.as_deref().map(|text| {
        let read = humantime::parse_rfc3339(text);
        read.map_err(|_| format!("invalid `until` `{text}`: expected a time in UTC of RFC 3339"))
    });
    let reason = values::shown_reason(&value.reason.unwrap_or_default());
    Ok(Share::Ban {
        prefix,
        until: until.transpose()?,
        reason: reason.into(),
    })
}

fn read<'a, T: Deserialize<'a>>(value: &'a [u8], example: &str) -> Result<T, String> {
    serde_json::from_slice(value)
        .map_err(|error| format!("invalid value: expected JSON such as {example}: {error}"))
}

/// Bans and states are not to end by that.
const WIPED: &str = "the cluster was wiped: its revision went back, and no key is left; what was \
                     known before stays until a key is written";
/// Keys of a fleet. Beyond: others are left out.
const KEYS_MAX: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Option<SystemTime> {
        Some(humantime::parse_rfc3339(text).unwrap())
    }

    #[test]
    fn keys_are_bans_and_states() {
        let ban = |prefix: &str, until, reason: &str| Share::Ban {
            prefix: prefix.parse().unwrap(),
            until,
            reason: reason.into(),
        };
        let value = br#"{"until": "2030-01-01T00:00:00Z", "reason": "floods"}"#;
        let until = at("2030-01-01T00:00:00Z");
        assert_eq!(
            share("bans/192.0.2.0/24", value),
            Ok(ban("192.0.2.0/24", until, "floods"))
        );
        assert_eq!(
            share("bans/2001:db8::1", b"{}"),
            Ok(ban("2001:db8::1", None, ""))
        );
        let state = Share::State("web".to_owned(), "unix:/a".to_owned(), AdminState::Maint);
        assert_eq!(
            share("states/web/unix:/a", br#"{"state": "maint"}"#),
            Ok(state)
        );
    }

    #[test]
    fn what_is_no_share_is_refused() {
        for (key, value, why) in [
            (
                "x",
                "{}",
                "unknown key: expected `bans/PREFIX` or `states/POOL/BACKEND`",
            ),
            ("states/web", "{}", "unknown key: "),
            (
                "states/web/a",
                "",
                "invalid value: expected JSON such as {\"state\": \"drain\"}: ",
            ),
            ("states/web/a", r#"{"state": "up"}"#, "invalid "),
            ("states//a", r#"{"state": "drain"}"#, "invalid name ``: "),
            ("bans/all", "{}", "invalid prefix `all`: "),
            (
                "bans/0.0.0.0/0",
                "{}",
                "invalid prefix `0.0.0.0/0`: expected /8 or longer",
            ),
            (
                "bans/192.0.2.1/32",
                "{}",
                "invalid prefix `192.0.2.1/32`: expected it written as `192.0.2.1`",
            ),
            ("bans/::1", r#"{"untl": "x"}"#, "invalid value: "),
            (
                "bans/::1",
                r#"{"until": "soon"}"#,
                "invalid `until` `soon`: ",
            ),
        ] {
            let told = share(key, value.as_bytes()).unwrap_err();
            assert!(told.starts_with(why), "{told}");
        }
    }
}
