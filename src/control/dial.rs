//! Connects to a server by its name, for webhooks and etcd.

use std::fmt::Display;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use thiserror::Error;
use tokio::net::TcpStream;
use tokio::time::Instant;

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

/// Connects to the first address that answers, within so much time: each gets an equal share of
/// what the ones before it have left, so that one that is silent does not take it all. Names are
/// not resolved by getaddrinfo(3), which would block a thread and delay the end of the process.
pub(super) async fn dial(host: &str, port: u16, time: Duration) -> Result<TcpStream, DialError> {
    let until = Instant::now() + time;
    let name = |error: &dyn Display| DialError::Name {
        host: host.to_owned(),
        why: error.to_string(),
    };
    let found: Vec<IpAddr> = match host.parse() {
        Ok(ip) => vec![ip],
        Err(_) => {
            let resolver = system_resolver().await;
            let (resolver, _) = resolver.map_err(|error| name(&error))?;
            let found = resolver.lookup_ip(host).await;
            found.map_err(|error| name(&error))?.iter().collect()
        }
    };
    if found.is_empty() {
        return Err(name(&"it has no address"));
    }
    connect(&found, port, until).await.map_err(DialError::Io)
}

async fn connect(to: &[IpAddr], port: u16, until: Instant) -> io::Result<TcpStream> {
    let mut failed = io::ErrorKind::NotFound.into();
    for (i, ip) in to.iter().enumerate() {
        let left = u32::try_from(to.len() - i).unwrap_or(u32::MAX);
        let share = until.saturating_duration_since(Instant::now()) / left;
        let connect = TcpStream::connect(SocketAddr::new(*ip, port));
        let connected = tokio::time::timeout(share, connect).await;
        match connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            // The socket connected to itself: nothing listens, and its local port is this port.
            Ok(stream) if sys::is_one_end(stream.local_addr().ok(), stream.peer_addr().ok()) => {
                failed = io::Error::from_raw_os_error(libc::ECONNREFUSED);
            }
            Ok(stream) => return Ok(stream),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_that_is_silent_does_not_take_the_time_of_the_next() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        // Its queue is full, so the kernel drops what else comes.
        let silent = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        let silent = silent.unwrap();
        let at: SocketAddr = format!("127.0.0.2:{port}").parse().unwrap();
        silent.bind(&at.into()).unwrap();
        silent.listen(0).unwrap();
        let _first = TcpStream::connect(at).await.unwrap();
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let time = Duration::from_millis(600);
        let both = [ip("127.0.0.2"), ip("127.0.0.1")];
        let reached = connect(&both, port, Instant::now() + time).await.unwrap();
        assert_eq!(reached.peer_addr().unwrap().ip(), both[1]);
        let failed = connect(&both[..1], port, Instant::now() + time).await;
        assert_eq!(failed.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}
