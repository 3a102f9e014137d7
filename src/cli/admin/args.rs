//! The arguments of what is asked of a running balancer.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::place::Place;
use crate::admin::model::SESSIONS_MAX;
use crate::cli::args::Deadline;
use crate::config::values::backend;
use crate::config::values::{self, ValueError};
use crate::config::{AdminState, Backend};

/// What may be asked of a running balancer.
#[derive(Clone, Debug, Subcommand)]
pub enum ClientCommand {
    /// How the balancer is going
    #[command(after_help = "Examples:
  mahoraga status
  mahoraga status --admin /run/mahoraga/mahoraga.sock --json")]
    Status(Asked),
    /// The listeners and their limits
    #[command(after_help = "Example:
  mahoraga listeners")]
    Listeners(Asked),
    /// The pools: strategy, connections, who waits
    #[command(after_help = "Examples:
  mahoraga pools
  mahoraga pools web")]
    Pools(PoolsArgs),
    /// The backends: state, weight, connections, answer times
    #[command(after_help = "Examples:
  mahoraga backends
  mahoraga backends --pool web --json")]
    Backends(BackendsArgs),
    /// The sessions: list or close them
    #[command(after_help = "Examples:
  mahoraga sessions --pool web --limit 20
  mahoraga sessions --client 192.0.2.7
  mahoraga sessions --kill 0-17 1-3
  mahoraga sessions --kill --backend app-1

An id is worker and number, as in the access log.")]
    Sessions(SessionsArgs),
    /// Add a backend to a pool
    #[command(after_help = "Examples:
  mahoraga add web 127.0.0.1:9003
  mahoraga add web 127.0.0.1:9003,weight=2,max_connections=100 --name app-3")]
    Add(AddArgs),
    /// Remove a backend: its sessions go on
    #[command(after_help = "Examples:
  mahoraga remove app-3 app-4
  mahoraga remove web/app-3 --wait=10m")]
    Remove(RemoveArgs),
    /// Set the share of a backend
    #[command(after_help = "Examples:
  mahoraga weight app-1 5
  mahoraga weight web/app-1 0")]
    Weight(WeightArgs),
    /// Give a backend no more sessions: those that it has go on
    #[command(after_help = "Examples:
  mahoraga drain app-1 app-2
  mahoraga drain web/app-1 --wait=10m && ssh app-1 reboot

Sessions end by themselves only: `mahoraga sessions --kill --backend app-1` ends them now.")]
    Drain(StateArgs),
    /// Give a backend its share again, after drain or maint
    #[command(
        alias = "enable",
        after_help = "Examples:
  mahoraga ready app-1
  mahoraga ready app-1 app-2"
    )]
    Ready(ReadyArgs),
    /// Take a backend away: no sessions and no probes
    #[command(
        alias = "disable",
        after_help = "Examples:
  mahoraga maint web/app-1
  mahoraga maint app-1 app-2"
    )]
    Maint(StateArgs),
    /// Set the strategy, the queue or the limit of a pool, and other limits
    #[command(subcommand)]
    Set(SetCommand),
    /// Read the configuration file again
    #[command(after_help = "Example:
  mahoraga check && mahoraga reload")]
    Reload(Asked),
    /// Open the files of the logs again, after they were moved away
    #[command(after_help = "Example:
  mv access.log access.log.1 && mahoraga reopen")]
    Reopen(Asked),
    /// The configuration that is in force
    #[command(subcommand)]
    Config(ConfigCommand),
    /// What the workers measured: times and bytes of sessions
    #[command(after_help = "Examples:
  mahoraga histograms
  mahoraga histograms --workers")]
    Histograms(HistogramsArgs),
    /// What happened of late, and what happens
    #[command(after_help = "Examples:
  mahoraga events
  mahoraga events --follow --recent 0 --json")]
    Events(EventsArgs),
    /// All at a glance, each second anew
    #[command(after_help = "Examples:
  mahoraga top
  mahoraga top --interval 5s --admin http://127.0.0.1:9900 --token-file read.token

? shows the keys. With --json, a line for each interval instead.")]
    Top(TopArgs),
}

/// Where it is asked, and how its answer is shown.
#[derive(Args, Clone, Debug, Default)]
pub struct Asked {
    /// Where the balancer is asked.
    #[arg(
        long,
        value_name = "PATH|URL",
        help = "The balancer's admin socket, or http://HOST:PORT on loopback \
                [env: MAHORAGA_ADMIN] [default: mahoraga.sock, or else \
                /run/mahoraga/mahoraga.sock]"
    )]
    pub admin: Option<Place>,
    /// The file of the token.
    #[arg(
        long,
        value_name = "FILE",
        help = "The file of the token that http:// wants [env: MAHORAGA_TOKEN_FILE]"
    )]
    pub token_file: Option<PathBuf>,
    /// Write the balancer's JSON
    #[arg(long)]
    pub json: bool,
}

/// What `mahoraga pools` takes.
#[derive(Args, Clone, Debug)]
pub struct PoolsArgs {
    /// One pool, with its backends; without it, all pools
    pub pool: Option<String>,
    /// Where it is asked.
    #[command(flatten)]
    pub asked: Asked,
}

/// What `mahoraga backends` takes.
#[derive(Args, Clone, Debug)]
pub struct BackendsArgs {
    /// Of this pool alone
    #[arg(long, value_name = "POOL")]
    pub pool: Option<String>,
    /// Also what happened to each: failed checks, times down, last change
    #[arg(long)]
    pub wide: bool,
    /// Where it is asked.
    #[command(flatten)]
    pub asked: Asked,
}

/// What `mahoraga sessions` takes.
#[derive(Args, Clone, Debug)]
pub struct SessionsArgs {
    /// Those of a listener
    #[arg(long, value_name = "NAME")]
    pub listener: Option<String>,
    /// Those of a pool
    #[arg(long, value_name = "NAME")]
    pub pool: Option<String>,
    /// Those of a backend: its name, or POOL/BACKEND
    #[arg(long, value_name = "BACKEND")]
    pub backend: Option<String>,
    /// Those of a client's address
    #[arg(long, value_name = "IP")]
    pub client: Option<IpAddr>,
    /// Show so many at most, up to 10000 [default: 1000]
    #[arg(long, value_name = "N", value_parser = sessions_limit, conflicts_with = "kill")]
    pub limit: Option<u32>,
    /// Close them instead: those of these ids, or those that the other flags say
    #[arg(long, value_name = "ID", num_args = 0.., conflicts_with = "limit")]
    pub kill: Option<Vec<String>>,
    /// With --kill alone: close every session
    #[arg(
        long,
        requires = "kill",
        conflicts_with_all = ["listener", "pool", "backend", "client"]
    )]
    pub all: bool,
    /// Where it is asked.
    #[command(flatten)]
    pub asked: Asked,
}

/// What `mahoraga add` takes.
#[derive(Args, Clone, Debug)]
pub struct AddArgs {
    /// The pool
    pub pool: String,
    /// Where it is, and behind it ,weight=N ,max_connections=N and ,backup as wanted
    #[arg(value_name = "ADDR", value_parser = backend)]
    pub backend: Backend,
    /// Its name [default: its address]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// The group that it is in, for two_tier
    #[arg(long, value_name = "NAME")]
    pub group: Option<String>,
    /// ready, drain or maint [default: ready]
    #[arg(long, value_name = "STATE", value_parser = values::admin_state)]
    pub state: Option<AdminState>,
    /// How it is changed.
    #[command(flatten)]
    pub how: Change,
}

/// How a change is made.
#[derive(Args, Clone, Debug, Default)]
pub struct Change {
    /// Every change holds over reloads: scripts may say so still
    #[arg(long, hide = true)]
    pub keep: bool,
    /// Where it is asked.
    #[command(flatten)]
    pub asked: Asked,
}

/// Whether the command ends when the backend has no connection.
#[derive(Args, Clone, Copy, Debug, Default)]
pub struct Wait {
    /// Whether and for how long it is waited for.
    #[arg(
        long,
        help = "Wait until it is idle; --wait=10m: for so long at most; without it: \
                return at once",
        value_name = "DUR|off",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "off"
    )]
    pub wait: Option<Deadline>,
}

/// What `mahoraga remove` takes.
#[derive(Args, Clone, Debug)]
pub struct RemoveArgs {
    /// Which: names, or POOL/BACKEND
    #[arg(value_name = "BACKEND", required = true)]
    pub backends: Vec<String>,
    /// Whether it is waited for.
    #[command(flatten)]
    pub wait: Wait,
    /// How it is changed.
    #[command(flatten)]
    pub how: Change,
}

/// What `mahoraga weight` takes.
#[derive(Args, Clone, Debug)]
pub struct WeightArgs {
    /// Which: its name, or POOL/BACKEND
    pub backend: String,
    /// Its share, 0 to 256
    #[arg(value_name = "N", value_parser = weight)]
    pub weight: u32,
    /// How it is changed.
    #[command(flatten)]
    pub how: Change,
}

/// What `mahoraga ready` takes.
#[derive(Args, Clone, Debug)]
pub struct ReadyArgs {
    /// Which: names, or POOL/BACKEND
    #[arg(value_name = "BACKEND", required = true)]
    pub backends: Vec<String>,
    /// How it is changed.
    #[command(flatten)]
    pub how: Change,
}

/// What `mahoraga drain` and `maint` take.
#[derive(Args, Clone, Debug)]
pub struct StateArgs {
    /// Which: names, or POOL/BACKEND
    #[arg(value_name = "BACKEND", required = true)]
    pub backends: Vec<String>,
    /// Whether it is waited for.
    #[command(flatten)]
    pub wait: Wait,
    /// How it is changed.
    #[command(flatten)]
    pub how: Change,
}

/// What can be set.
#[derive(Clone, Debug, Subcommand)]
pub enum SetCommand {
    /// How a pool selects
    #[command(after_help = "Examples:
  mahoraga set strategy web least_connections
  mahoraga set strategy web '(name: \"hash\", key: \"sni\")'")]
    Strategy {
        /// The pool
        pool: String,
        /// A strategy as config.ron writes it: its name, or its name and settings in brackets
        strategy: String,
        /// How it is changed.
        #[command(flatten)]
        how: Change,
    },
    /// How many clients wait for a place in a pool, and how long
    #[command(after_help = "Example:
  mahoraga set queue web --max 100 --timeout 2s")]
    Queue {
        /// The pool
        pool: String,
        /// Clients that wait at most; 0: none waits
        #[arg(long, value_name = "N", required_unless_present = "timeout")]
        max: Option<u32>,
        /// How long they wait at most
        #[arg(long, value_name = "DUR", value_parser = queue_timeout)]
        timeout: Option<String>,
        /// How it is changed.
        #[command(flatten)]
        how: Change,
    },
    /// How many connections there may be: of all clients, or as a flag says
    #[command(after_help = "Examples:
  mahoraga set limit 10000
  mahoraga set limit 500 --pool web
  mahoraga set limit off --backend web/app-1")]
    Limit {
        /// The limit; off: none of its own
        #[arg(value_name = "N|off", value_parser = limit)]
        limit: u32,
        /// To all backends of a pool together
        #[arg(long, value_name = "POOL", conflicts_with_all = ["listener", "backend"])]
        pool: Option<String>,
        /// Of the clients of a listener
        #[arg(long, value_name = "NAME", conflicts_with = "backend")]
        listener: Option<String>,
        /// To a backend: its name, or POOL/BACKEND
        #[arg(long, value_name = "BACKEND")]
        backend: Option<String>,
        /// How it is changed.
        #[command(flatten)]
        how: Change,
    },
}

/// What is asked of the configuration.
#[derive(Clone, Debug, Subcommand)]
pub enum ConfigCommand {
    /// Write it as a config.ron: the file, and the changes since
    #[command(after_help = "Example:
  mahoraga config show > config.ron.new")]
    Show(Asked),
    /// Print every setting: what it is, what may be written, its default
    #[command(after_help = "Example:
  mahoraga config reference | less")]
    Reference {
        /// Print the JSON schema of a configuration instead
        #[arg(long)]
        schema: bool,
    },
}

/// What `mahoraga histograms` takes.
#[derive(Args, Clone, Debug)]
pub struct HistogramsArgs {
    /// Each worker's too, not only all together
    #[arg(long)]
    pub workers: bool,
    /// Where it is asked.
    #[command(flatten)]
    pub asked: Asked,
}

/// What `mahoraga events` takes.
#[derive(Args, Clone, Debug)]
pub struct EventsArgs {
    /// Go on with what happens, until Ctrl-C
    #[arg(short, long)]
    pub follow: bool,
    /// Begin with the last N that are known
    #[arg(long, value_name = "N", default_value = "20")]
    pub recent: u32,
    /// Where it is asked.
    #[command(flatten)]
    pub asked: Asked,
}

/// What `mahoraga top` takes.
#[derive(Args, Clone, Debug)]
pub struct TopArgs {
    /// How often it is asked
    #[arg(long, value_name = "DUR", default_value = "1s", value_parser = interval)]
    pub interval: Duration,
    /// Where it is asked.
    #[command(flatten)]
    pub asked: Asked,
}

fn weight(text: &str) -> Result<u32, ValueError> {
    values::number(text, values::WEIGHT)
}

fn sessions_limit(text: &str) -> Result<u32, ValueError> {
    values::number(text, 1..=SESSIONS_MAX)
}

/// 0 goes over the wire for no limit.
fn limit(text: &str) -> Result<u32, ValueError> {
    if text == "off" {
        return Ok(0);
    }
    values::number(text, values::CONNECTIONS)
}

/// The balancer reads it again: what is wrong with it is said before anything is asked.
fn queue_timeout(text: &str) -> Result<String, ValueError> {
    values::duration(text, values::QUEUE_WAIT).map(|_| text.to_owned())
}

fn interval(text: &str) -> Result<Duration, ValueError> {
    values::duration(text, values::REFRESH)
}
