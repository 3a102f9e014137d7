//! Flags of `sessions`, `explain` and `route`.

use std::net::IpAddr;

use clap::Args;

use super::ClientOptions;
use crate::admin::model::{EXPLANATIONS_MAX, RouteQuestion, SESSIONS_MAX, SessionFilter};
use crate::config::values::{self, ValueError};

/// The arguments of `mahoraga sessions`.
#[derive(Args, Clone, Debug)]
pub struct SessionsArgs {
    /// Which sessions.
    #[command(flatten)]
    pub filter: FilterFlags,
    /// Close sessions: those with these ids, or those that the other flags select
    #[arg(long, value_name = "ID", num_args = 0.., conflicts_with = "limit")]
    pub kill: Option<Vec<String>>,
    /// How to reach the balancer.
    #[command(flatten)]
    pub options: ClientOptions,
}

/// The arguments of `mahoraga explain`.
#[derive(Args, Clone, Debug)]
pub struct ExplainArgs {
    /// A session's id, or a client's address; with --client, a pool
    #[arg(value_name = "SESSION|CLIENT|POOL", required_unless_present = "client")]
    pub subject: Option<String>,
    /// Explain the last N that match, up to 100
    #[arg(long, value_name = "N", default_value = "1", value_parser = last)]
    pub last: u32,
    /// Say where a client would go now: --client alone says so too
    #[arg(long, requires = "client", conflicts_with = "last")]
    pub dry_run: bool,
    /// The listener that it would connect to, in place of a pool [default: the one that there is]
    #[arg(
        long,
        value_name = "NAME",
        requires = "client",
        conflicts_with = "subject"
    )]
    pub listener: Option<String>,
    /// What it requests in HTTP, such as /path or http://host/path: --sni is the host then
    #[arg(long, value_name = "URL", requires = "client")]
    pub url: Option<String>,
    /// The client that would connect.
    #[command(flatten)]
    pub asked: ClientFlags,
    /// How to reach the balancer.
    #[command(flatten)]
    pub options: ClientOptions,
}

/// The arguments of `mahoraga route`.
#[derive(Args, Clone, Debug)]
pub struct RouteArgs {
    /// The listener
    pub listener: String,
    /// The client that would connect.
    #[command(flatten)]
    pub asked: ClientFlags,
    /// How to reach the balancer.
    #[command(flatten)]
    pub options: ClientOptions,
}

/// A client that would connect, and what it would say.
#[derive(Args, Clone, Debug)]
pub struct ClientFlags {
    /// The client's address
    #[arg(long, value_name = "IP", value_parser = client)]
    pub client: Option<IpAddr>,
    /// The server name that it asks for in TLS
    #[arg(long, value_name = "NAME")]
    pub sni: Option<String>,
    /// An application protocol that it offers in TLS; may be given again
    #[arg(long, value_name = "NAME")]
    pub alpn: Vec<String>,
    /// The protocol that it speaks, inside of TLS where that ends at the listener: tls, http, ssh,
    /// postgres, rdp, mqtt, other, or server_first, which says nothing
    #[arg(long, value_name = "NAME")]
    pub protocol: Option<String>,
    /// The host of its HTTP request
    #[arg(long, value_name = "NAME")]
    pub http_host: Option<String>,
    /// The path of its HTTP request
    #[arg(long, value_name = "PATH")]
    pub http_path: Option<String>,
    /// What its proxy's header says, such as authority=a.example or 0xE0=blue; may be given again
    #[arg(long, value_name = "TLV=VALUE")]
    pub proxy_tlv: Vec<String>,
    /// Whom its certificate names, such as cn=robot or dns=a.example; may be given again
    #[arg(long, value_name = "KIND=VALUE")]
    pub tls_client: Vec<String>,
}

impl ClientFlags {
    /// What is asked about such a client.
    pub(in crate::cli::admin) fn question(&self) -> RouteQuestion {
        let joined = |all: &[String]| (!all.is_empty()).then(|| all.join(","));
        // Commas stand between them.
        let escaped = |all: &[String]| {
            let all = all.iter().map(|one| one.replace(',', "\\x2C"));
            joined(&all.collect::<Vec<_>>())
        };
        RouteQuestion {
            client: self.client,
            sni: self.sni.clone(),
            alpn: joined(&self.alpn),
            protocol: self.protocol.clone(),
            http_host: self.http_host.clone(),
            http_path: self.http_path.clone(),
            proxy_tlv: escaped(&self.proxy_tlv),
            tls_client: escaped(&self.tls_client),
        }
    }
}

fn last(text: &str) -> Result<u32, ValueError> {
    values::number(text, 1..=EXPLANATIONS_MAX)
}

/// Selects sessions: every flag that is given must match.
#[derive(Args, Clone, Debug)]
pub struct FilterFlags {
    /// Only those of this listener
    #[arg(long, value_name = "NAME")]
    pub listener: Option<String>,
    /// Only those of this pool
    #[arg(long, value_name = "NAME")]
    pub pool: Option<String>,
    /// Only those of this backend: its name, or POOL/BACKEND
    #[arg(long, value_name = "BACKEND")]
    pub backend: Option<String>,
    /// Only those of this client address
    #[arg(long, value_name = "IP", value_parser = client)]
    pub client: Option<IpAddr>,
    /// Show at most N, up to 10000 [default: 1000]
    #[arg(long, value_name = "N", value_parser = limit)]
    pub limit: Option<u32>,
    /// With --kill: close every session
    #[arg(
        long,
        requires = "kill",
        conflicts_with_all = ["listener", "pool", "backend", "client"]
    )]
    pub all: bool,
}

impl FilterFlags {
    pub(in crate::cli::admin) fn filter(&self) -> SessionFilter {
        let flags = self.clone();
        SessionFilter {
            id: None,
            listener: flags.listener,
            pool: flags.pool,
            backend: flags.backend,
            client: flags.client,
            limit: flags.limit,
            all: flags.all,
        }
    }
}

pub(super) fn client(text: &str) -> Result<IpAddr, ValueError> {
    let expected = || ValueError::Unexpected("an IP address".to_owned());
    text.parse().map_err(|_| expected())
}

fn limit(text: &str) -> Result<u32, ValueError> {
    values::number(text, 1..=SESSIONS_MAX)
}
