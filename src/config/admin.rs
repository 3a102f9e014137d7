//! Where the running balancer is administered.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::codec::{Codec, Leaf, Via, group_or_off, path, required, spelled};
use super::table::{Settings, Shape, settings};
use super::tree::Kind;
use super::values;

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

settings! {
    /// The admin API over TCP.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct AdminHttp {
        /// The loopback address that it listens on.
        pub bind: SocketAddr = UNBOUND
            => required(spelled("a loopback address", values::loopback, ToString::to_string));
        /// The file of the token that may look. At least one of the two tokens is given.
        pub read_token: Option<PathBuf> = None => path().given();
        /// The file of the token that may look and change.
        pub write_token: Option<PathBuf> = None => path().given();
    }
}

settings! {
    /// The admin API in a file.
    #[derive(Clone, PartialEq)]
    struct AdminFile {
        /// A Unix socket of mode 0600: who may open it may do everything. Without a name it is
        /// mahoraga.sock, if that is free.
        socket: Option<Option<PathBuf>> = None => spelled(
            "the path of a socket, or \"off\"",
            values::admin_socket,
            |path| path.as_deref().map_or_else(|| "off".to_owned(), shown),
        ).given();
        /// The same over HTTP on loopback, for those who have a token.
        http: Option<AdminHttp> = None => group_or_off("(bind: \"127.0.0.1:9900\", ...)");
        /// The file that gets a line of JSON for each change; "-": the operational log.
        audit_log: Option<PathBuf> = None => path().or("-");
    }
}

impl Shape for AdminHttp {}

impl Shape for AdminFile {
    const SHORT: Option<&'static str> = Some("socket");
    const WANTED: Option<&'static str> =
        Some("a path: write \"PATH\", \"off\" or (socket: \"PATH\", http: (...))");
}

/// The admin API, or none.
pub(super) fn admin() -> impl Codec<Value = Option<Admin>> {
    Via {
        expected: "\"off\", a path or a group such as (socket: \"PATH\", http: (...))",
        from: |file: AdminFile, at| {
            // A group that names neither is a mistake of its own.
            let is_group = matches!(at.value.kind, Kind::Group(_));
            Some((is_group || file.socket != Some(None)).then(|| Admin {
                required: matches!(file.socket, Some(Some(_))),
                socket: file.socket.unwrap_or_else(|| Admin::default().socket),
                http: file.http,
                audit_log: file.audit_log,
            }))
        },
        to: |admin| match admin {
            None => AdminFile {
                socket: Some(None),
                ..AdminFile::base()
            },
            Some(admin) => AdminFile {
                socket: (admin.required || admin.socket.is_none()).then(|| admin.socket.clone()),
                http: admin.http.clone(),
                audit_log: admin.audit_log.clone(),
            },
        },
    }
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

fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// The admin socket when nothing else is said.
pub const ADMIN_SOCKET: &str = "mahoraga.sock";
/// Stands in for an address that is not given.
const UNBOUND: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 0);
