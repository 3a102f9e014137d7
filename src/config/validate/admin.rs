//! Where it is administered, and who is asked for names.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::config::judge::{Judge, path, text, text_or};
use crate::config::raw::{RawAdmin, RawAdminHttp, Scalar};
use crate::config::spans::Node;
use crate::config::values;
use crate::config::{Admin, AdminHttp};

impl<'a> Judge<'a> {
    /// The admin API; nothing stands for what it is when nothing is said.
    pub(super) fn admin(&mut self, raw: &'a RawAdmin, at: Option<&'a Node>) -> Option<Admin> {
        let Some(at) = at else {
            return Some(Admin::default());
        };
        let socket = self.leaf(&raw.socket, at, "socket");
        let audit_log = self.leaf(&raw.audit_log, at, "audit_log");
        let socket = self.read(&socket, |leaf| {
            values::admin_socket(text_or(leaf, ADMIN_WANTED)?)
        });
        let audit_log = self.read(&audit_log, |leaf| match text(leaf)? {
            "-" => Ok(None),
            path => values::file(Path::new(path)).map(|path| Some(path.to_owned())),
        });
        let http_at = at.field("http");
        let http = raw.http.as_ref();
        let http = http.and_then(|http| self.admin_http(http, http_at));
        let is_group = at.find("socket").is_some();
        if socket == Some(None) && raw.http.is_none() {
            if is_group {
                let sentence = "admin: it is served nowhere: write admin: \"off\", or give `http`";
                self.mistake(&at.start(), sentence.to_owned());
            }
            return None;
        }
        let default = Admin::default();
        Some(Admin {
            required: matches!(socket, Some(Some(_))),
            socket: socket.unwrap_or(default.socket),
            http,
            audit_log: audit_log.flatten(),
        })
    }

    fn admin_http(&mut self, raw: &'a RawAdminHttp, at: &'a Node) -> Option<AdminHttp> {
        let bind = self.leaf(&raw.bind, at, "bind");
        let read_token = self.token(&raw.read_token, at, "read_token");
        let write_token = self.token(&raw.write_token, at, "write_token");
        if !raw.read_token.is_set() && !raw.write_token.is_set() {
            let sentence = "http: a token is wanted: give the file of `read_token`, of \
                            `write_token` or of both";
            self.mistake(&at.start(), sentence.to_owned());
        }
        let bind = self.require(&bind, |leaf| values::loopback(text(leaf)?))?;
        Some(AdminHttp {
            bind,
            read_token,
            write_token,
        })
    }

    fn token(&mut self, raw: &'a Scalar, at: &'a Node, name: &'static str) -> Option<PathBuf> {
        let token = self.leaf(raw, at, name);
        self.read(&token, path)
    }

    pub(super) fn resolvers(&mut self, raw: &'a [Scalar], at: &'a Node) -> Vec<SocketAddr> {
        self.items((raw, at), "resolvers", |leaf| values::resolver(text(leaf)?))
    }
}

const ADMIN_WANTED: &str = "a path: write \"PATH\", \"off\" or (socket: \"PATH\", http: (...))";
