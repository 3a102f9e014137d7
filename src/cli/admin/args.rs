//! The arguments of the commands to a running balancer.

mod bans;
mod leave;
mod order;
mod routes;
mod sessions;

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::address::AdminAddress;
use super::settings::SettingFlags;
use crate::cli::args::{Maybe, deadline};
use crate::config::values::backend;
use crate::config::values::{self, ValueError};
use crate::config::{AdminState, Backend, Config, Listener, Patch, Pool};
use crate::history::EVENTS_MAX;
use crate::prefix::Prefix;

pub use bans::{BanArgs, BansArgs, UnbanArgs};
use leave::LEAVE_HELP;
pub use leave::LeaveArgs;
pub(in crate::cli) use order::{with_joined_wait, with_options_behind};
pub use routes::{ExpectedVersion, RoutesArgs, SetRouteArgs, SetRoutesArgs};
use sessions::client;
pub use sessions::{ExplainArgs, RouteArgs, SessionsArgs};

/// The commands to a running balancer.
#[derive(Clone, Debug, Subcommand)]
pub enum ClientCommand {
    /// Show overall status
    #[command(after_help = "Examples:
  mahoraga status
  mahoraga status --admin /run/mahoraga/mahoraga.sock --json")]
    Status(ClientOptions),
    /// Show the listeners and their limits
    #[command(after_help = "Example:
  mahoraga listeners")]
    Listeners(ClientOptions),
    /// Show the pools: strategy, connections, queue
    #[command(after_help = "Examples:
  mahoraga pools
  mahoraga pools web")]
    Pools(PoolsArgs),
    /// Show the backends: state, weight, connections, answer times
    #[command(after_help = "Examples:
  mahoraga backends
  mahoraga backends web --json")]
    Backends(BackendsArgs),
    /// List sessions, or close them
    #[command(after_help = "Examples:
  mahoraga sessions --pool web --limit 20
  mahoraga sessions --client 192.0.2.7
  mahoraga sessions --kill 0-17 1-3
  mahoraga sessions --kill --backend app-1

An id is WORKER-NUMBER, as in the access log.")]
    Sessions(SessionsArgs),
    /// Explain where sessions went and why, or where a client would go
    #[command(after_help = "Examples:
  mahoraga explain 0-17
  mahoraga explain 192.0.2.7 --last 5
  mahoraga explain --client 192.0.2.7 --sni shop.example --listener edge
  mahoraga explain --dry-run --client 192.0.2.7 --url http://shop.example/cart web

Each worker remembers its last 4096 sessions. --client, with or without --dry-run, changes nothing.
It looks at routes as mahoraga route does, at bans and access lists, but not at limits and rates,
which depend on the clients of the moment. Keys that it can try: source_ip, source_ip_port; sni,
http_host (--sni or a whole --url); http_path (--url). The address stands in for the others.")]
    Explain(ExplainArgs),
    /// Say which route of a listener would take a client
    #[command(after_help = "Examples:
  mahoraga route edge --sni a.example --client 10.0.0.1
  mahoraga route edge --http-host a.example --http-path /api/
  mahoraga route edge --sni a.example --tls-client cn=robot --http-path /api/

It decides as for a real client that sends no more than that, and changes nothing. Where TLS ends at
the listener, the client speaks TLS, and its HTTP is inside. It does not look at bans, access lists
and limits: mahoraga explain --client looks at the first two, and says which backend the client
would get.")]
    Route(RouteArgs),
    /// Show the routes of a listener, as a file has them
    #[command(after_help = "Example:
  mahoraga routes edge")]
    Routes(RoutesArgs),
    /// Add a backend to a pool
    #[command(after_help = "Examples:
  mahoraga add web 127.0.0.1:9003
  mahoraga add web 127.0.0.1:9003,weight=2,max_connections=100 --name app-3")]
    Add(AddArgs),
    /// Remove a backend, and let its sessions end by themselves
    #[command(after_help = "Examples:
  mahoraga remove app-3 app-4
  mahoraga remove web/app-3 --wait=10m")]
    Remove(TakeOutArgs),
    /// Set the weight of a backend
    #[command(after_help = "Examples:
  mahoraga weight app-1 5
  mahoraga weight web/app-1 0")]
    Weight(WeightArgs),
    /// Send a backend no new sessions, and keep those it has
    #[command(after_help = "Examples:
  mahoraga drain app-1 app-2
  mahoraga drain web/app-1 --wait=10m && ssh app-1 reboot

Sessions end by themselves; `mahoraga sessions --kill --backend app-1` ends them now.")]
    Drain(TakeOutArgs),
    /// Return a backend to service after drain or maint
    #[command(
        visible_aliases = ["enable", "undrain"],
        after_help = "Examples:
  mahoraga ready app-1
  mahoraga ready app-1 app-2"
    )]
    Ready(ReadyArgs),
    /// Take a backend out of service: no new sessions, no probes
    #[command(
        visible_alias = "disable",
        after_help = "Examples:
  mahoraga maint web/app-1
  mahoraga maint app-1 app-2"
    )]
    Maint(TakeOutArgs),
    /// Set strategy, queue, weight, limits or routes of a pool, a backend, a listener
    #[command(subcommand)]
    Set(SetCommand),
    /// Show the access lists, one with its prefixes, or what it says of a client
    #[command(after_help = "Examples:
  mahoraga access
  mahoraga access office
  mahoraga access office --client 192.0.2.7")]
    Access(AccessArgs),
    /// Let clients of addresses or prefixes connect, by an access list
    #[command(after_help = "Examples:
  mahoraga allow 192.0.2.7
  mahoraga allow 10.0.0.0/8 2001:db8::/32 --list office

The change holds over reloads, until the file changes that prefix of the list.")]
    Allow(EditArgs),
    /// Refuse clients of addresses or prefixes, by an access list
    #[command(after_help = "Examples:
  mahoraga deny 192.0.2.7
  mahoraga deny 198.51.100.0/24 2001:db8:bad::/48 --list office

Open sessions go on: `mahoraga sessions --kill --client 192.0.2.7` ends them.")]
    Deny(EditArgs),
    /// Remove addresses or prefixes from an access list
    #[command(after_help = "Example:
  mahoraga unlist 192.0.2.7 --list office

Prefixes of the list's file stay.")]
    Unlist(EditArgs),
    /// Show the bans: networks whose clients are refused
    #[command(after_help = "Examples:
  mahoraga bans
  mahoraga bans --client 192.0.2.7
  mahoraga bans --sort hits --limit 20 --json
  mahoraga bans --export > bans.txt")]
    Bans(BansArgs),
    /// Ban clients: refuse them at every listener, and close their sessions
    #[command(after_help = "Examples:
  mahoraga ban 192.0.2.7
  mahoraga ban 198.51.100.0/24 --for 10m --reason 'floods the login'
  mahoraga ban --from bans.txt --for 1d --reason feed

Without --for a ban lasts until `mahoraga unban` lifts it. A ban of the same
network is replaced. Clients of `trusted` networks can't be banned.")]
    Ban(BanArgs),
    /// Lift bans
    #[command(after_help = "Example:
  mahoraga unban 192.0.2.7 198.51.100.0/24

The networks must be those of the bans.")]
    Unban(UnbanArgs),
    /// Read the configuration file again
    #[command(after_help = "Example:
  mahoraga check && mahoraga reload

The balancer reads the file that it was started with. A mistake leaves the old
configuration in force, and the exit code is 1.")]
    Reload(ClientOptions),
    /// Send clients to another balancer: refuse readiness, and then new clients
    #[command(after_help = LEAVE_HELP)]
    Leave(LeaveArgs),
    /// Take new clients again after a leave
    #[command(after_help = "Example:
  mahoraga join")]
    Join(ClientOptions),
    /// Open the log files again, after they were moved away
    #[command(after_help = "Example:
  mv access.log access.log.1 && mahoraga reopen")]
    Reopen(ClientOptions),
    /// Show the configuration in force, or all settings
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Show histograms: times and bytes of sessions
    #[command(after_help = "Examples:
  mahoraga histograms
  mahoraga histograms --workers")]
    Histograms(HistogramsArgs),
    /// Show recent events, and follow new ones
    #[command(after_help = "Examples:
  mahoraga events
  mahoraga events --follow --recent 0 --json")]
    Events(EventsArgs),
    /// Show everything live, refreshed each second
    #[command(after_help = "Examples:
  mahoraga top
  mahoraga top --interval 5s --admin http://127.0.0.1:9900 --token-file read.token

Tab shows pools, listeners, sessions and bans. D drains the marked backend, R makes it ready,
after a question. ? shows all keys. --json prints one line for each interval instead.")]
    Top(TopArgs),
    /// Show what figures were, by second, minute or hour, or past events
    #[command(after_help = "Examples:
  mahoraga history
  mahoraga history --pool web --since 24h
  mahoraga history --backend app-1 --since 30d --json
  mahoraga history --since 2026-01-31T12:00:00Z --until 2026-01-31T13:00:00Z --csv
  mahoraga history --events --since 7d
  mahoraga history --file /var/lib/mahoraga/history.db

A table has the figures that all have; --json and --csv have every figure.")]
    History(HistoryArgs),
}

/// How to reach the balancer, and how to show its answer.
#[derive(Args, Clone, Debug, Default)]
pub struct ClientOptions {
    /// How to reach the balancer.
    #[arg(
        long,
        value_name = "PATH|URL",
        help = "The balancer's admin socket, or http://HOST:PORT on loopback \
                [env: MAHORAGA_ADMIN] [default: mahoraga.sock, or else \
                /run/mahoraga/mahoraga.sock]"
    )]
    pub admin: Option<AdminAddress>,
    /// The file of the token.
    #[arg(
        long,
        value_name = "FILE",
        help = "The file with the token for http:// [env: MAHORAGA_TOKEN_FILE]"
    )]
    pub token_file: Option<PathBuf>,
    /// Print JSON; an error is {"error": "..."} on standard error
    #[arg(long)]
    pub json: bool,
}

/// The arguments of `mahoraga pools`.
#[derive(Args, Clone, Debug)]
pub struct PoolsArgs {
    /// One pool, with its backends; without it, all pools
    pub pool: Option<String>,
    /// How to reach the balancer.
    #[command(flatten)]
    pub options: ClientOptions,
}

/// The arguments of `mahoraga backends`.
#[derive(Args, Clone, Debug)]
pub struct BackendsArgs {
    /// Only those of this pool
    #[arg(value_name = "POOL", conflicts_with = "pool")]
    pub of: Option<String>,
    /// The same
    #[arg(long, value_name = "POOL")]
    pub pool: Option<String>,
    /// Also show the history of each: failed checks, times down, last change
    #[arg(long)]
    pub wide: bool,
    /// How to reach the balancer.
    #[command(flatten)]
    pub options: ClientOptions,
}

/// The arguments of `mahoraga add`.
#[derive(Args, Clone, Debug)]
pub struct AddArgs {
    /// The pool
    pub pool: String,
    /// Its address, then any of ,weight=N ,max_connections=N and ,backup
    #[arg(value_name = "ADDR", value_parser = backend)]
    pub backend: Backend,
    /// Its name [default: its address]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Its group, for two_tier
    #[arg(long, value_name = "NAME")]
    pub group: Option<String>,
    /// Its number in a pool with sni_member [default: its place]
    #[arg(long, value_name = "N", value_parser = values::member)]
    pub member: Option<u32>,
    /// ready, drain or maint [default: ready]
    #[arg(long, value_name = "STATE", value_parser = values::admin_state)]
    pub state: Option<AdminState>,
    /// How to make the change.
    #[command(flatten)]
    pub how: ChangeArgs,
}

/// How to make a change.
#[derive(Args, Clone, Debug, Default)]
pub struct ChangeArgs {
    /// Does nothing: every change holds over reloads. For scripts that still pass it
    #[arg(long, hide = true)]
    pub keep: bool,
    /// How to reach the balancer.
    #[command(flatten)]
    pub options: ClientOptions,
}

/// Whether the command waits until the backend has no connection.
#[derive(Args, Clone, Copy, Debug, Default)]
pub struct Wait {
    /// Whether to wait, and how long.
    #[arg(
        long,
        help = "Wait until it has no connection; --wait=10m: at most this long",
        value_name = "DUR|off",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "off",
        value_parser = deadline
    )]
    pub wait: Option<Maybe<Duration>>,
}

/// The arguments of `mahoraga weight`.
#[derive(Args, Clone, Debug)]
pub struct WeightArgs {
    /// The backend: its name, or POOL/BACKEND
    pub backend: String,
    /// Its weight, 0 to 256
    #[arg(value_name = "N", value_parser = weight)]
    pub weight: Patch<Backend>,
    /// How to make the change.
    #[command(flatten)]
    pub how: ChangeArgs,
}

/// The arguments of `mahoraga ready`.
#[derive(Args, Clone, Debug)]
pub struct ReadyArgs {
    /// Backends: names, or POOL/BACKEND
    #[arg(value_name = "BACKEND", required = true)]
    pub backends: Vec<String>,
    /// How to make the change.
    #[command(flatten)]
    pub how: ChangeArgs,
}

/// The arguments of `mahoraga drain`, `maint` and `remove`.
#[derive(Args, Clone, Debug)]
pub struct TakeOutArgs {
    /// Backends: names, or POOL/BACKEND
    #[arg(value_name = "BACKEND", required = true)]
    pub backends: Vec<String>,
    /// Whether to wait.
    #[command(flatten)]
    pub wait: Wait,
    /// How to make the change.
    #[command(flatten)]
    pub how: ChangeArgs,
}

/// The arguments of `mahoraga access`.
#[derive(Args, Clone, Debug)]
pub struct AccessArgs {
    /// One list, with its prefixes; without it, all lists
    pub list: Option<String>,
    /// Whether a client of this address may connect, and which prefix says so
    #[arg(long, value_name = "IP", value_parser = client)]
    pub client: Option<IpAddr>,
    /// How to reach the balancer.
    #[command(flatten)]
    pub options: ClientOptions,
}

/// The arguments of `mahoraga allow`, `deny` and `unlist`.
#[derive(Args, Clone, Debug)]
pub struct EditArgs {
    /// Addresses or prefixes, such as 10.0.0.0/8
    #[arg(value_name = "CIDR", required = true, value_parser = values::prefix)]
    pub prefixes: Vec<Prefix>,
    /// The access list; it may be left out where there is one only
    #[arg(long, value_name = "NAME")]
    pub list: Option<String>,
    /// How to make the change.
    #[command(flatten)]
    pub how: ChangeArgs,
}

/// The commands that set something: each has what is set, and its settings as in a file.
#[derive(Clone, Debug, Subcommand)]
pub enum SetCommand {
    /// Set the strategy, the limit or the queue of a pool
    #[command(after_help = "Examples:
  mahoraga set pool web --strategy least_connections
  mahoraga set pool web --strategy '(name: \"hash\", key: \"sni\")'
  mahoraga set pool web --max-connections 500 --queue-max 100 --queue-timeout 2s")]
    Pool {
        /// The pool
        pool: String,
        /// What to set.
        #[command(flatten)]
        settings: SettingFlags<Pool>,
        /// How to make the change.
        #[command(flatten)]
        how: ChangeArgs,
    },
    /// Set the weight, the state or the limits of backends
    #[command(after_help = "Examples:
  mahoraga set backend app-1 --weight 5
  mahoraga set backend web/app-1 web/app-2 --max-connections off")]
    Backend {
        /// Backends: names, or POOL/BACKEND
        #[arg(value_name = "BACKEND", required = true)]
        backends: Vec<String>,
        /// What to set.
        #[command(flatten)]
        settings: SettingFlags<Backend>,
        /// How to make the change.
        #[command(flatten)]
        how: ChangeArgs,
    },
    /// Set the limits, the ban rule or the access list of a listener
    #[command(after_help = "Examples:
  mahoraga set listener front --max-connections 1000
  mahoraga set listener front --access-list office
  mahoraga set listener front --source-limits '(connections: 100, rate: 50)'
  mahoraga set listener front --bandwidth '(all: (down: \"500MB/s\"))'")]
    Listener {
        /// The listener
        listener: String,
        /// What to set.
        #[command(flatten)]
        settings: SettingFlags<Listener>,
        /// How to make the change.
        #[command(flatten)]
        how: ChangeArgs,
    },
    /// Set weights of the pools of a route
    #[command(after_help = "Examples:
  mahoraga set route edge 1 stable=50 canary=50
  mahoraga set route edge shop canary=0")]
    Route(SetRouteArgs),
    /// Replace all routes of a listener
    #[command(after_help = "Example:
  mahoraga routes edge > routes.ron && vi routes.ron
  mahoraga set routes edge --from routes.ron")]
    Routes(SetRoutesArgs),
    /// Set the limits of all listeners together
    #[command(after_help = "Example:
  mahoraga set global --max-connections 10000")]
    Global {
        /// What to set.
        #[command(flatten)]
        settings: SettingFlags<Config>,
        /// How to make the change.
        #[command(flatten)]
        how: ChangeArgs,
    },
}

/// The commands about the configuration.
#[derive(Clone, Debug, Subcommand)]
pub enum ConfigCommand {
    /// Print the configuration in force: the file, and the changes since
    #[command(after_help = "Examples:
  mahoraga config show > config.ron.new
  mahoraga config show --sources")]
    Show {
        /// Print where the values come from instead: the file or a flag, a command, discovery;
        /// --json also has those that are at their default
        #[arg(long)]
        sources: bool,
        /// How to reach the balancer.
        #[command(flatten)]
        options: ClientOptions,
    },
    /// Print every setting: its meaning, values and default
    #[command(after_help = "Examples:
  mahoraga config reference | less
  mahoraga config reference bans
  mahoraga config reference pools.check --json")]
    Reference {
        /// Only this setting, and those within it, such as pools.check
        #[arg(value_name = "SETTING", default_value = "", hide_default_value = true)]
        at: String,
        /// Print a list of the settings in JSON instead
        #[arg(long)]
        json: bool,
        /// Print the JSON schema of a configuration instead
        #[arg(long, conflicts_with_all = ["at", "json"])]
        schema: bool,
    },
}

/// The arguments of `mahoraga histograms`.
#[derive(Args, Clone, Debug)]
pub struct HistogramsArgs {
    /// Also show those of each worker
    #[arg(long)]
    pub workers: bool,
    /// How to reach the balancer.
    #[command(flatten)]
    pub options: ClientOptions,
}

/// The arguments of `mahoraga events`.
#[derive(Args, Clone, Debug)]
pub struct EventsArgs {
    /// Show new events as they happen, until Ctrl-C
    #[arg(short, long)]
    pub follow: bool,
    /// Begin with the last N events
    #[arg(long, value_name = "N", default_value = "20", value_parser = recent)]
    pub recent: u32,
    /// How to reach the balancer.
    #[command(flatten)]
    pub options: ClientOptions,
}

/// The arguments of `mahoraga top`.
#[derive(Args, Clone, Debug)]
pub struct TopArgs {
    /// How often to refresh
    #[arg(long, value_name = "DUR", default_value = "1s", value_parser = interval)]
    pub interval: Duration,
    /// How to reach the balancer.
    #[command(flatten)]
    pub options: ClientOptions,
}

/// The arguments of `mahoraga history`.
#[derive(Args, Clone, Debug)]
pub struct HistoryArgs {
    /// A pool and its backends
    #[arg(long, value_name = "NAME")]
    pub pool: Option<String>,
    /// Backends of this name
    #[arg(long, value_name = "NAME")]
    pub backend: Option<String>,
    /// A listener
    #[arg(long, value_name = "NAME")]
    pub listener: Option<String>,
    /// From when: how long ago, or a time such as 2026-01-31T12:00:00Z
    #[arg(long, value_name = "AGO|TIME", default_value = "1h")]
    pub since: String,
    /// Until when [default: now]
    #[arg(long, value_name = "AGO|TIME")]
    pub until: Option<String>,
    /// How long each interval is; it is longer where no shorter ones are kept
    #[arg(long, value_name = "DUR")]
    pub step: Option<String>,
    /// Only these kinds: process, listener, pool, backend
    #[arg(long, value_name = "KIND,...")]
    pub of: Option<String>,
    /// Only these figures, such as connections,worker_traffic.up
    #[arg(long, value_name = "FIGURE,...")]
    pub figures: Option<String>,
    /// Show past events instead: health, bans, reloads, scaling, who changed something
    #[arg(long, conflicts_with_all = ["csv", "step", "of", "figures", "listener"])]
    pub events: bool,
    /// The newest N events at most [default: 10000]
    #[arg(long, value_name = "N", requires = "events", value_parser = limit)]
    pub limit: Option<u32>,
    /// Print a line of CSV for each value
    #[arg(long, conflicts_with = "json")]
    pub csv: bool,
    /// Read the file of a balancer that has stopped
    #[arg(long, value_name = "FILE", conflicts_with_all = ["admin", "token_file"])]
    pub file: Option<PathBuf>,
    /// How to reach the balancer.
    #[command(flatten)]
    pub options: ClientOptions,
}

fn weight(text: &str) -> Result<Patch<Backend>, ValueError> {
    Patch::of("weight", text)
}

fn recent(text: &str) -> Result<u32, ValueError> {
    values::number(text, 0..=u32::MAX)
}

fn limit(text: &str) -> Result<u32, ValueError> {
    values::number(text, 1..=EVENTS_MAX)
}

fn interval(text: &str) -> Result<Duration, ValueError> {
    values::duration(text, values::REFRESH)
}
