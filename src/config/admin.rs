//! Where the running balancer is administered.

use std::net::SocketAddr;
use std::path::PathBuf;

/// The admin API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// A Unix socket of mode 0600: who may open it may do all.
    pub socket: Option<PathBuf>,
    /// The file names the socket: a start fails where it can't be had. Else the socket is the
    /// default one, or none.
    pub required: bool,
    /// HTTP on loopback, for who has a token.
    pub http: Option<AdminHttp>,
    /// Each change as a line of JSON; `None`: in the operational log.
    pub audit_log: Option<PathBuf>,
}

/// The admin API over TCP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminHttp {
    /// A loopback address.
    pub bind: SocketAddr,
    /// The file of the token that may look; at least one of the two is there.
    pub read_token: Option<PathBuf>,
    /// The file of the token that may change too.
    pub write_token: Option<PathBuf>,
}

impl Default for Admin {
    fn default() -> Self {
        Self {
            socket: Some(PathBuf::from(ADMIN_SOCKET)),
            required: false,
            http: None,
            audit_log: None,
        }
    }
}

/// The admin socket when nothing else is said.
pub const ADMIN_SOCKET: &str = "mahoraga.sock";
