//! Connects to a server by its name, for webhooks and etcd.

use std::fmt::Display;
use std::io;
use std::net::SocketAddr;

use thiserror::Error;
use tokio::net::TcpStream;

use crate::sys;

use super::discovery::system_resolver;

/// Why there is no connection.
#[derive(Debug, Error)]
pub(super) enum DialError {
    /// The name has no address, or none is known.
    #[error("cannot resolve `{host}`: {why}; check the name and the resolver's configuration")]
    Name {
        /// As it is written.
        host: String,
        /// The resolver's words.
        why: String,
    },
    /// The last address did not answer.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Connects to the first address that answers. Names are not resolved by getaddrinfo(3), which
/// would block a thread and delay the end of the process.
pub(super) async fn dial(host: &str, port: u16) -> Result<TcpStream, DialError> {
    let name = |error: &dyn Display| DialError::Name {
        host: host.to_owned(),
        why: error.to_string(),
    };
    let found = match host.parse() {
        Ok(ip) => vec![ip],
        Err(_) => {
            let resolver = system_resolver().await;
            let (resolver, _) = resolver.map_err(|error| name(&error))?;
            let found = resolver.lookup_ip(host).await;
            found.map_err(|error| name(&error))?.iter().collect()
        }
    };
    let mut failed = name(&"it has no address");
    for ip in found {
        match TcpStream::connect(SocketAddr::new(ip, port)).await {
            // The socket connected to itself: nothing listens, and its local port is this port.
            Ok(stream) if sys::is_one_end(stream.local_addr().ok(), stream.peer_addr().ok()) => {
                failed = io::Error::from_raw_os_error(libc::ECONNREFUSED).into();
            }
            Ok(stream) => return Ok(stream),
            Err(error) => failed = error.into(),
        }
    }
    Err(failed)
}
