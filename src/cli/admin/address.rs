//! The address of a balancer's admin API: its Unix socket, or HTTP on loopback.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use thiserror::Error;

/// The address of an admin API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminAddress {
    /// A Unix socket: a process that may open it may do everything.
    Socket(PathBuf),
    /// HTTP on loopback, for callers with a token.
    Http(SocketAddr),
}

/// Why a text is not an [`AdminAddress`].
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum AdminAddressError {
    /// Neither a path nor such a URL.
    #[error("invalid admin API `{0}`: expected the path of a socket, or http://HOST:PORT")]
    Malformed(String),
    /// An address of another machine.
    #[error("`{0}` is not on loopback: a token would cross the network unencrypted")]
    NotLoopback(String),
}

impl FromStr for AdminAddress {
    type Err = AdminAddressError;

    /// Reads a path or `http://HOST:PORT`, where the host is an address or `localhost`.
    fn from_str(text: &str) -> Result<Self, AdminAddressError> {
        let malformed = || AdminAddressError::Malformed(text.to_owned());
        if text.is_empty() || text.starts_with("https://") {
            return Err(malformed());
        }
        let Some(rest) = text.strip_prefix("http://") else {
            if text.parse::<SocketAddr>().is_ok() {
                return Err(malformed());
            }
            return Ok(Self::Socket(PathBuf::from(text)));
        };
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        let address = match authority.strip_prefix("localhost:") {
            Some(port) => {
                let port = port.parse().map_err(|_| malformed())?;
                SocketAddr::from((Ipv4Addr::LOCALHOST, port))
            }
            None => authority.parse().map_err(|_| malformed())?,
        };
        if address.ip().to_canonical().is_loopback() {
            Ok(Self::Http(address))
        } else {
            Err(AdminAddressError::NotLoopback(text.to_owned()))
        }
    }
}

impl fmt::Display for AdminAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(path) => path.display().fmt(f),
            Self::Http(address) => write!(f, "http://{address}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_or_loopback() {
        let address = |text: &str| {
            text.parse::<AdminAddress>()
                .map(|address| address.to_string())
        };
        let error = |text: &str| address(text).unwrap_err().to_string();
        assert_eq!(address("/run/a.sock"), Ok("/run/a.sock".to_owned()));
        for (text, want) in [
            ("http://127.0.0.1:9900", "http://127.0.0.1:9900"),
            ("http://localhost:9900/", "http://127.0.0.1:9900"),
            ("http://[::1]:9900", "http://[::1]:9900"),
        ] {
            assert_eq!(address(text), Ok(want.to_owned()));
        }
        assert_eq!(
            error("http://10.0.0.1:80"),
            "`http://10.0.0.1:80` is not on loopback: \
             a token would cross the network unencrypted"
        );
        for bad in [
            "",
            "https://127.0.0.1:1",
            "http://127.0.0.1",
            "http://localhost:x",
            "127.0.0.1:9900",
        ] {
            assert!(error(bad).ends_with("or http://HOST:PORT"), "{bad}");
        }
    }
}
