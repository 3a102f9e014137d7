//! Where a scraper reads `/metrics`, beside the admin API.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use super::access_list::prefix;
use super::admin::TokenFiles;
use super::codec::{list, parsed, path, required};
use super::table::{Shape, settings};
use super::values;
use crate::prefix::Prefix;

settings! {
    /// A listener of its own for `/metrics`, `/healthz` and `/readyz`.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct MetricsHttp: Shape {
        /// The address that it listens on. Beyond loopback `allow` or `read_token` must be given.
        pub bind: SocketAddr = UNBOUND
            => required(parsed(
                "an address such as 127.0.0.1:9100 or [::]:9100",
                values::http_bind,
                ToString::to_string,
            ));
        /// Addresses and prefixes of the machines that may connect; others are reset before
        /// anything of theirs is read. Empty: any machine.
        pub allow: Vec<Prefix> = Vec::new() => list(prefix());
        /// The file of the token that `/metrics` asks for. A reload reads it again.
        pub read_token: Option<PathBuf> = None => path().given();
    }
}

impl Shape for MetricsHttp {
    const SHORT: Option<&'static str> = Some("bind");
}

impl MetricsHttp {
    /// The file of its token, where it has one.
    #[must_use]
    pub fn tokens(&self) -> Option<TokenFiles> {
        self.read_token.as_ref().map(|path| TokenFiles {
            read: Some(path.clone()),
            write: None,
        })
    }

    /// Whether only programs of this machine can reach it.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.bind.ip().to_canonical().is_loopback()
    }
}

/// The value of an address that is not given.
const UNBOUND: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
