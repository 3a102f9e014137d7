//! Where the running balancer is administered.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::codec::{group_or_off, list, parsed, path, required, spelled};
use super::table::{Settings, Shape, settings};
use super::values;

settings! {
    /// The admin API.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Admin: Shape {
        /// A Unix socket of mode 0600: a user who may open it may do everything. The default is
        /// mahoraga.sock, if that is free.
        pub socket: Option<PathBuf> = Some(ADMIN_SOCKET.into());
            @socket => parsed(
                    "the path of a socket, or \"off\"",
                    values::admin_socket,
                    |path| path.as_deref().map_or_else(|| "off".to_owned(), shown),
                ).given(),
                |admin: &Self| {
                    let is_named = admin.required || admin.socket.is_none();
                    is_named.then(|| admin.socket.clone())
                },
                |admin: &mut Self, socket| {
                    admin.required = matches!(socket, Some(Some(_)));
                    admin.socket = socket.unwrap_or_else(|| Self::base().socket);
                };
        /// The file names the socket: a start fails where it cannot be made.
        pub required: bool = false;
        /// The admin API over HTTP on loopback, for callers with a token.
        pub http: Option<AdminHttp> = None
            => group_or_off("\"off\" or a group such as (bind: \"127.0.0.1:9900\", ...)");
        /// The file that gets a line of JSON for each change; "-": the operational log.
        pub audit_log: Option<PathBuf> = None => path().or("-");
    }
}

settings! {
    /// The admin API over TCP.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct AdminHttp {
        /// The loopback address that it listens on.
        pub bind: SocketAddr = UNBOUND
            => required(parsed(
                "a loopback address such as 127.0.0.1:9900 or [::1]:9900",
                values::loopback,
                ToString::to_string,
            ));
        /// The file of the token that may read. At least one of the two tokens must be given. A
        /// reload reads both files again.
        pub read_token: Option<PathBuf> = None => path().given();
        /// The file of the token that may read and change.
        pub write_token: Option<PathBuf> = None => path().given();
        /// Origins of reverse proxies in front of the API and the dashboard.
        pub origins: Vec<String> = Vec::new()
            => list(spelled(
                "an origin such as \"https://lb.example.com\"",
                values::origin,
                String::clone,
            ));
        /// `proxy` and `demo`: the balancer makes the tokens.
        pub makes_tokens: bool = false;
        /// `demo`: callers without a token may read.
        pub is_open: bool = false;
    }
}

impl AdminHttp {
    /// The API over HTTP, with tokens that the balancer makes.
    #[must_use]
    pub fn with_made_tokens(bind: SocketAddr) -> Self {
        Self {
            bind,
            makes_tokens: true,
            ..Self::base()
        }
    }
}

/// The files of tokens, by the role that their callers have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenFiles {
    /// The token that may read.
    pub read: Option<PathBuf>,
    /// The token that may read and change.
    pub write: Option<PathBuf>,
}

impl AdminHttp {
    /// The files of its tokens.
    #[must_use]
    pub fn tokens(&self) -> TokenFiles {
        TokenFiles {
            read: self.read_token.clone(),
            write: self.write_token.clone(),
        }
    }
}

impl Shape for Admin {
    const SHORT: Option<&'static str> = Some("socket");
}

super::table::defaults!(Admin, AdminHttp);

fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// The default admin socket.
pub const ADMIN_SOCKET: &str = "mahoraga.sock";
/// The value of an address that is not given.
const UNBOUND: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 0);
