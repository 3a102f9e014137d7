//! Which peers of a listener may say who their client is, by a header of the PROXY protocol.

use std::fmt;
use std::str::FromStr;

use super::codec::{Leaf, parsed};
use super::values::{self, ValueError};
use crate::prefix::Prefix;

/// Peers that may name clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProxySource {
    /// All that connect to the listener's Unix socket: its file's permissions say which.
    Unix,
    /// Those of a network.
    Network(Prefix),
}

impl ProxySource {
    /// The networks of a list.
    #[must_use]
    pub fn networks(all: &[Self]) -> Vec<Prefix> {
        let networks = all.iter().filter_map(|one| match one {
            Self::Unix => None,
            Self::Network(prefix) => Some(*prefix),
        });
        networks.collect()
    }
}

impl FromStr for ProxySource {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        if text == UNIX {
            return Ok(Self::Unix);
        }
        match values::prefix(text) {
            Ok(prefix) => Ok(Self::Network(prefix)),
            Err(ValueError::Unexpected(_)) => Err(ValueError::Unexpected(EXPECTED.to_owned())),
            Err(other) => Err(other),
        }
    }
}

impl fmt::Display for ProxySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix => f.write_str(UNIX),
            Self::Network(prefix) => prefix.fmt(f),
        }
    }
}

/// One of them, in a file and in a flag.
pub(super) fn proxy_source() -> Leaf<ProxySource> {
    parsed(EXPECTED, str::parse, ToString::to_string)
}

const UNIX: &str = "unix";
const EXPECTED: &str = "an address or a prefix of proxies, such as \"10.0.0.0/8\", or \"unix\"";
