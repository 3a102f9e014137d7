//! Finds the backend that a name means.

use super::client::{Client, ClientError, path};
use crate::admin::model::{BackendStatus, PoolStatus};
use crate::config::values::{did_you_mean, known};

/// A backend of a pool: their names, and its address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BackendName {
    pub(super) pool: String,
    pub(super) backend: String,
    address: String,
}

impl BackendName {
    /// A backend that an answer has.
    pub(super) fn of(backend: &BackendStatus) -> Self {
        Self {
            pool: backend.pool.clone(),
            backend: backend.name.clone(),
            address: backend.address.clone(),
        }
    }

    /// Its path in the API.
    pub(super) fn path(&self) -> String {
        path(&["pools", &self.pool, "backends", &self.backend])
    }

    /// Whether the other has the same names: one that was removed may be at another address.
    fn is_called_as(&self, other: &Self) -> bool {
        (&self.pool, &self.backend) == (&other.pool, &other.backend)
    }

    /// Its unambiguous name: `POOL/BACKEND`.
    pub(super) fn written(&self) -> String {
        format!("{}/{}", self.pool, self.backend)
    }
}

/// The backends that some names mean, without duplicates. One wrong name refuses them all.
pub(super) async fn find_all(
    client: &Client,
    texts: &[String],
) -> Result<Vec<BackendName>, ClientError> {
    let current_backends = current_backends(client).await?;
    let mut all = Vec::with_capacity(texts.len());
    for text in texts {
        let one = found(&current_backends, text).map_err(ClientError::Refused)?;
        if !all.contains(&one) {
            all.push(one);
        }
    }
    Ok(all)
}

async fn current_backends(client: &Client) -> Result<Vec<BackendName>, ClientError> {
    let pools: Vec<PoolStatus> = client.get(&path(&["pools"])).await?;
    Ok(named(&pools, |backend| !backend.leaving))
}

/// The backend whose sessions a name means, in one pool if the user names one. It may have been
/// removed, while it has sessions.
pub(super) async fn find_serving(
    client: &Client,
    pool: Option<&str>,
    text: &str,
) -> Result<BackendName, ClientError> {
    let mut pools: Vec<PoolStatus> = client.get(&path(&["pools"])).await?;
    if let Some(name) = pool {
        pools.retain(|pool| pool.name == name);
        if pools.is_empty() {
            // A removed pool may have sessions: the balancer knows, and refuses unknown names.
            return Ok(BackendName {
                pool: name.to_owned(),
                backend: text.to_owned(),
                address: String::new(),
            });
        }
    }
    found(&named(&pools, |_| true), text).map_err(ClientError::Refused)
}

/// The names of the backends that match, without duplicates: a removed backend may share its name
/// with a new one.
fn named(pools: &[PoolStatus], is_meant: fn(&BackendStatus) -> bool) -> Vec<BackendName> {
    let all = pools.iter().flat_map(|pool| {
        let backends = pool.backends.iter().filter(|backend| is_meant(backend));
        backends.map(|backend| BackendName {
            pool: pool.name.clone(),
            backend: backend.name.clone(),
            address: backend.address.clone(),
        })
    });
    let mut distinct = Vec::new();
    for one in all {
        if !distinct
            .iter()
            .any(|other: &BackendName| other.is_called_as(&one))
        {
            distinct.push(one);
        }
    }
    distinct
}

/// The backend called `BACKEND` in any pool, or `POOL/BACKEND`. Both names may contain a `/`.
fn found(all: &[BackendName], text: &str) -> Result<BackendName, String> {
    let meant = |found: &&BackendName| found.backend == text || found.written() == text;
    match all.iter().filter(meant).collect::<Vec<_>>()[..] {
        [] => {
            let written: Vec<_> = all.iter().map(BackendName::written).collect();
            let names = all.iter().map(|found| &*found.backend);
            if let Some(at) = all.iter().find(|found| found.address == text) {
                let name = at.written();
                return Err(format!(
                    "the backend at `{text}` has a name: write `{name}`"
                ));
            }
            let hint = match did_you_mean(text, names) {
                near if near.is_empty() => known(text, written.iter().map(String::as_str)),
                near => near,
            };
            Err(format!("there is no backend called `{text}`{hint}"))
        }
        [one] => Ok(one.clone()),
        ref several => {
            let ways: Vec<_> = several.iter().map(|found| found.written()).collect();
            let ways = ways.join(" or ");
            Err(format!(
                "more than one backend is called `{text}`: write {ways}"
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(name: &str, backends: &[(&str, bool)]) -> PoolStatus {
        let backends = backends.iter().map(|(name, leaving)| BackendStatus {
            name: (*name).to_owned(),
            address: format!("{name}.example:80"),
            leaving: *leaving,
            ..BackendStatus::default()
        });
        PoolStatus {
            name: name.to_owned(),
            backends: backends.collect(),
            ..PoolStatus::default()
        }
    }

    #[test]
    fn a_name_means_one_backend() {
        let pools = [
            pool(
                "web",
                &[("app-1", false), ("shared", false), ("app-1", true)],
            ),
            pool(
                "db",
                &[("unix:/run/a", false), ("shared", false), ("old", true)],
            ),
        ];
        let serving = named(&pools, |_| true);
        for (text, want) in [("old", "db/old"), ("app-1", "web/app-1")] {
            let one = found(&serving, text).map(|found| found.written());
            assert_eq!(one, Ok(want.to_owned()));
        }
        let current_backends = named(&pools, |backend| !backend.leaving);
        let found = |text: &str| found(&current_backends, text).map(|found| found.written());
        for (text, want) in [
            ("app-1", "web/app-1"),
            ("web/app-1", "web/app-1"),
            ("unix:/run/a", "db/unix:/run/a"),
            ("db/shared", "db/shared"),
        ] {
            assert_eq!(found(text), Ok(want.to_owned()));
        }
        for (text, want) in [
            (
                "shared",
                "more than one backend is called `shared`: write web/shared or db/shared",
            ),
            (
                "app-2",
                "there is no backend called `app-2`, did you mean `app-1`?",
            ),
            (
                "wbe/shared",
                "there is no backend called `wbe/shared`, did you mean `web/shared`?",
            ),
            (
                "app-1.example:80",
                "the backend at `app-1.example:80` has a name: write `web/app-1`",
            ),
            (
                "old",
                "there is no backend called `old`: expected `web/app-1`, `web/shared`, \
                 `db/unix:/run/a` or `db/shared`",
            ),
        ] {
            assert_eq!(found(text), Err(want.to_owned()));
        }
    }
}
