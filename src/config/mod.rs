//! The configuration of the balancer: validated, with every default filled in.
//!
//! The same [`Config`] comes from `config.ron` and from the flags of `mahoraga proxy`.

#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::by_name::ByName;
use crate::prefix::Prefix;
use crate::shared::Shared;

mod accept_proxy;
mod access_list;
mod admin;
mod availability;
mod backend;
mod bandwidth;
mod bans;
mod change;
mod check;
mod codec;
mod consul;
mod difference;
mod discovery;
mod effective;
mod error;
mod etcd;
mod flags;
mod fleet;
mod foreign;
mod history;
mod json;
mod key;
mod kubernetes;
mod limits;
mod listener;
mod load;
mod log;
mod metrics;
mod patch;
mod pool;
mod proxy_tlv;
mod reader;
mod reference;
mod route;
mod route_list;
mod rules;
mod send_proxy;
mod server;
mod source;
mod strategy;
mod strategy_file;
mod syntax;
mod table;
mod text;
mod tls;
mod tls_client;
mod tokens;
mod tree;
pub mod values;
mod warnings;

pub use accept_proxy::ProxySource;
pub use access_list::AccessList;
pub use admin::{ADMIN_SOCKET, Admin, AdminHttp, TokenFiles};
pub use availability::{AllDown, Ejection, OnDown, QueueLimits, ScaleBy, Scaling};
pub(crate) use backend::is_resolved;
pub use backend::{Backend, Target};
pub use bandwidth::{Bandwidth, Rates};
pub use bans::{BanAfter, BanTable, NewBan, shortest_ban};
pub(crate) use change::route_values;
pub use change::{
    AccessEdits, Change, ChangeError, NewWeights, PoolWeight, RouteRef, RouteWeights, Topic,
};
pub use check::{Check, Expect, HttpProbe, Initial, Probe, ProxyHeader};
pub use consul::{Consul, ConsulHealth};
pub(crate) use difference::differences;
pub use discovery::Discovery;
pub(crate) use effective::effective_settings;
pub use effective::{EffectiveSetting, SettingSource};
pub(crate) use error::bounded;
pub use error::{ConfigError, Mistake, Warning, outline};
pub use etcd::Etcd;
pub use flags::{FlagSetting, from_flags};
pub use fleet::{FleetSettings, PeerMember, PeerSettings};
pub use history::{HistoryPlace, HistorySettings};
pub use json::BodyError;
pub use key::Key;
pub use kubernetes::{AddressType, Kubernetes, ServicePort};
pub use limits::{Overload, RateLimit, SourceLimits, Tarpit};
pub use listener::{ATTEMPTS, Defaults, HalfClose, HalfSent, Listener, PostgresTls, Timeouts};
pub use load::{STANDARD_INPUT, load, load_again, name_of, parse};
pub use log::{AccessLog, LogField, LogFormat, LogOnly, LogSink, RecordFormat};
pub use metrics::MetricsHttp;
pub use patch::{Changeable, Changing, Patch, Rows};
pub(crate) use patch::{backend_schema, backend_values, changeable_values, changing, patch_schema};
pub use pool::{Pool, SNI_MEMBER};
pub use proxy_tlv::{ProxyTlv, TlvValue};
pub use reference::{SettingInfo, all_settings, reference, reference_json, schema, settings_at};
pub use route::{
    REFUSE, ROUTE_POOLS_MAX, ROUTE_REGEXES_MAX, ROUTE_VALUES_MAX, ROUTES_MAX, Route, Share,
    UNROUTED, is_condition,
};
pub use route_list::RouteList;
pub(crate) use route_list::routes_schema;
pub(crate) use rules::{Machine, found_loops, leads_back};
pub use send_proxy::{BackendHeader, HeaderPart, SendProxy};
pub use server::Server;
pub use source::{Place, Source};
pub use strategy::{
    FirstTier, Group, Hash, LeastTime, Persist, Predictive, SecondTier, SelectsBy, Strategy,
    TwoTier,
};
pub use tls::{
    BackendTls, CertificateFiles, CheckInForce, CheckTls, ClientCertificate, ProbeTls, ServedFiles,
    StartTls, Tls, TlsClients, TlsPolicy, UnknownName, Verify,
};
pub use tls_client::{TlsClientName, identity_of};
pub use warnings::{
    DESCRIPTORS_RESERVED, Host, descriptors_needed, place_of, warnings, warnings_at,
};

settings! {
    /// A whole, valid configuration.
    ///
    /// Invariant: names are unique among listeners, among access lists, among pools and within a
    /// pool; every listener's `pool`, and that of each of its routes, is an index into `pools`, and
    /// its `access_list` is there; every pool has a backend of weight above 0 that is not of the
    /// reserve, unless it discovers; the reserve stands behind all others, and is there where the
    /// pool scales and nowhere else;
    /// in a pool of `two_tier`, all backends have a group, or none has one.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Config {
        /// How many worker threads run. Auto: one for each CPU that the process may use.
        pub workers: Option<NonZeroU32> = None => waits(number(values::WORKERS).or("auto"));
        /// The most client connections at a time. Auto: as many as the descriptor limit allows.
        pub max_connections: Option<NonZeroU32> = None
            => number(values::CONNECTIONS).or("auto").also("off");
        /// The most client connections at a time, over all balancers of the `fleet`: this one has a
        /// share of them. Off: any number.
        pub fleet_max_connections: Option<NonZeroU32> = None
            => number(values::CONNECTIONS).or("off");
        /// The most memory of receive buffers and pipes, over all workers. Auto: a share of the
        /// machine's memory.
        pub memory: Option<u64> = None => waits(memory().or("auto"));
        /// The most new connections of all listeners in a second. Off: any number.
        pub rate_limit: Option<RateLimit> = None => group_or_off(limits::RATE_LIMIT);
        /// The most bytes that all sessions together move in a second. Off: any number.
        pub bandwidth: Rates = Rates::default() => group_or_none();
        /// Where refused clients are held whose rule's `action` is "drop" or "tarpit".
        pub tarpit: Tarpit = Tarpit::default() => group();
        /// Which new clients are refused while a worker can't keep up. Off: they wait.
        pub overload: Option<Overload> = Some(Overload::default())
            => group_or_off(limits::OVERLOAD);
        /// The memory that counts sources, for listeners with `source_limits`. A source takes 92
        /// bytes; the least recently seen one without connections is forgotten first.
        pub source_table: u64 = limits::SOURCE_TABLE => waits(memory());
        /// The table of banned clients.
        pub bans: BanTable = BanTable::default() => group();
        /// Addresses and prefixes of clients that are never banned.
        pub trusted: Vec<Prefix> = Vec::new() => list(access_list::prefix());
        /// How long sessions may go on after SIGTERM.
        pub shutdown_grace: Duration = SHUTDOWN_GRACE => duration(values::GRACE);
        /// The access log, with a line for each session. Off: no access log.
        pub access_log: Option<AccessLog> = Some(AccessLog::default())
            => group_or_off(
                "\"off\", \"-\", a file or a group such as (to: \"FILE\", format: \"json\")",
            );
        /// The shape of the operational log on standard error.
        pub log_format: RecordFormat = RecordFormat::Text
            => named("log format", &RecordFormat::ALL);
        /// The history of all figures and events.
        pub history: HistorySettings = HistorySettings::default() => waits(group());
        /// The file that SIGUSR1 appends histograms to (HdrHistogram V2 log format).
        pub histogram_log: PathBuf = HISTOGRAM_LOG.into() => path();
        /// Whether the file is read again when it changes.
        pub reload_on_change: bool = false => truth();
        /// DNS servers that look up host names of backends and names of `discover`. Empty: those of
        /// /etc/resolv.conf, after /etc/hosts.
        pub resolvers: Vec<SocketAddr> = Vec::new()
            => list(spelled(
                "the IP address of a resolver, such as \"127.0.0.1:53\"",
                values::resolver,
                ToString::to_string,
            ));
        /// A file that follows `/readyz` for keepalived (`track_file`): 0 while it holds, else 1.
        /// Off: none.
        pub track_file: Option<PathBuf> = None => path().or("off");
        /// The user that `mahoraga run` becomes where root starts it. Auto: mahoraga, if there is
        /// one, else it stays root.
        pub user: Option<String> = None => waits(
            name()
                .checked("the name of a user, but not nobody", |name| name != "nobody")
                .or("auto"),
        );
        /// The admin API. Off: no admin API.
        pub admin: Option<Admin> = Some(Admin::default()) => waits(group_or_off(
            "\"off\", a path or a group such as (socket: \"PATH\", http: (...))",
        ));
        /// A listener of its own for `/metrics`, which other machines may reach. Off: `/metrics` is
        /// on the admin API alone.
        pub metrics: Option<MetricsHttp> = None => waits(group_or_off(
            "\"off\", an address or a group such as (bind: \"0.0.0.0:9100\", allow: [...])",
        ));
        /// What several balancers share: bans, administrative states of backends, sticky clients,
        /// and limits. Off: nothing.
        pub fleet: Option<FleetSettings> = None => group_or_off(
            "\"off\" or a group such as (etcd: (endpoints: [...], prefix: \"/mahoraga/fleet/\"))",
        );
        /// Defaults for settings that listeners leave out.
        pub defaults: Defaults = Defaults::default() => listener::shared();
        /// Lists of the clients that may connect, which listeners name.
        pub access_lists: Vec<Shared<AccessList>> = Vec::new() => shared_groups();
        /// The addresses that clients connect to.
        pub listeners: Vec<Listener> = Vec::new() => groups();
        /// The groups of backends that listeners name.
        pub pools: Vec<Shared<Pool>> = Vec::new() => shared_groups();
    }
}

impl Config {
    /// The pool of this name.
    #[must_use]
    pub fn pool(&self, name: &str) -> Option<&Pool> {
        self.pools
            .iter()
            .map(|pool| &**pool)
            .find(|pool| pool.name == name)
    }

    /// The listener of this name.
    #[must_use]
    pub fn listener(&self, name: &str) -> Option<&Listener> {
        self.listeners.iter().find(|listener| listener.name == name)
    }

    /// Takes over the pools of `before` that are equal. A comparison of the two then looks only
    /// into pools that have changed.
    pub(crate) fn share_pools(&mut self, before: &Self) {
        let old = ByName::new(&before.pools, |pool| &pool.name);
        for (place, pool) in self.pools.iter_mut().enumerate() {
            if let Some(old) = old.get(place, &pool.name)
                && old == pool
            {
                *pool = old.clone();
            }
        }
    }

    /// A configuration with these listeners and pools. It has no access log and no admin API.
    #[must_use]
    pub fn of(listeners: Vec<Listener>, pools: Vec<Pool>) -> Self {
        Self {
            access_log: None,
            admin: None,
            listeners,
            pools: pools.into_iter().map(Shared::from).collect(),
            ..Self::base()
        }
    }

    /// Takes over the settings of another configuration that take effect only at a start.
    pub(crate) fn take_waiting(&mut self, from: &Self) {
        for setting in Self::waiting() {
            setting.row.copy(self, from);
        }
    }

    /// The names of those in which two configurations differ.
    pub(crate) fn waiting_changes(&self, other: &Self) -> impl Iterator<Item = &'static str> {
        let differing = Self::waiting().filter(|one| !one.row.is_same(self, other));
        differing.map(|setting| setting.name)
    }

    fn waiting() -> impl Iterator<Item = &'static Setting<Self>> {
        Self::table().iter().filter(|one| one.row.facts().waits)
    }

    /// The text of a file with this configuration. It holds only what differs from the defaults.
    /// Reading it gives an equal configuration, if paths are UTF-8 and no log file is called `-`
    /// or `off`.
    #[must_use]
    pub fn to_ron(&self) -> String {
        table::fields(self, &Self::base(), &self.around()).file()
    }

    /// What the text of its parts depends on.
    fn around(&self) -> Around {
        Around {
            defaults: self.defaults,
            pools: self.pools.iter().map(|pool| pool.name.clone()).collect(),
            ..Around::default()
        }
    }
}

words! {
    /// The administrative state of a backend, in HAProxy's words.
    #[derive(
        Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema,
    )]
    #[serde(rename_all = "snake_case")]
    pub enum AdminState {
        /// It gets its share of new sessions.
        #[default]
        Ready = "ready",
        /// It keeps its sessions and gets no new ones.
        Drain = "drain",
        /// It keeps its sessions, gets no new ones and is not probed.
        Maint = "maint",
    }
}

/// The default grace of a stop.
pub const SHUTDOWN_GRACE: Duration = Duration::from_secs(30);
/// The default histogram log.
pub const HISTOGRAM_LOG: &str = "mahoraga.hlog";

use codec::{
    duration, group, group_or_none, group_or_off, groups, list, memory, name, named, number, path,
    shared_groups, spelled, truth, waits,
};
use reader::Around;
use table::{Setting, Settings, settings, words};

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) use tests::waits_for_a_start;
