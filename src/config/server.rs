//! How a server of shared state is reached: its endpoints, and the files of its TLS.

use std::path::{Path, PathBuf};

use super::codec::{Codec, list, spelled};
use super::reader::{At, Reader};
use super::values;

/// The endpoints of a server, and how they are reached by TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Server {
    /// `http://HOST:PORT` or `https://HOST:PORT`.
    pub endpoints: Vec<String>,
    /// The authorities that certificates of endpoints are verified by.
    pub ca: Option<PathBuf>,
    /// What this balancer shows to the endpoints.
    pub certificate: Option<PathBuf>,
    /// The private key of `certificate`.
    pub key: Option<PathBuf>,
}

impl Server {
    /// The files that it names, each with the name of its setting.
    pub fn files(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        let all = [
            ("ca", &self.ca),
            ("certificate", &self.certificate),
            ("key", &self.key),
        ];
        all.into_iter()
            .filter_map(|(name, path)| Some((name, path.as_deref()?)))
    }

    /// Whether an endpoint is reached by TLS.
    #[must_use]
    pub fn is_secured(&self) -> bool {
        self.endpoints.iter().any(|its| its.starts_with("https:"))
    }

    /// Checks the settings of a group that has all of these.
    pub(super) fn check(&self, at: At<'_>, reader: &mut Reader<'_>) {
        let count = self.endpoints.len();
        if at.value.field("endpoints").is_some() && !(1..=ENDPOINTS_MAX).contains(&count) {
            let sentence = format!("expected 1 to {ENDPOINTS_MAX}");
            reader.wrong(at, "endpoints", sentence);
        }
        both_or_none(("certificate", "key"), at, reader);
        if !self.endpoints.is_empty() && !self.is_secured() {
            for setting in ["ca", "certificate"] {
                reader.wrong(at, setting, "no endpoint is `https://`: write them so");
            }
        }
    }
}

/// The endpoints of a server.
pub(super) fn endpoints() -> Codec<Vec<String>> {
    list(spelled(
        "an endpoint such as \"https://etcd-1:2379\", without a path",
        values::endpoint,
        String::clone,
    ))
}

/// Refuses one of these settings without the other.
pub(super) fn both_or_none(
    (one, other): (&'static str, &'static str),
    at: At<'_>,
    reader: &mut Reader<'_>,
) {
    for (given, missing) in [(one, other), (other, one)] {
        if at.value.field(given).is_some() && at.value.field(missing).is_none() {
            let sentence = format!("expected `{missing}` beside it");
            reader.wrong(at, given, sentence);
        }
    }
}

/// Endpoints of a server. etcd advises against more than seven members.
const ENDPOINTS_MAX: usize = 16;
