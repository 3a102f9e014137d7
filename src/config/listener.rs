//! Listeners: where clients connect to.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;

use super::codec::{Codec, duration, group, name, named, number, required, spelled, text};
use super::reader::Around;
use super::table::{self, Shape, settings};
use super::text::Text;
use super::values::{self, did_you_mean};
use crate::address::Address;

settings! {
    /// A bound address and the pool behind it.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Listener {
        /// What logs and commands call it. Without a name it is called by its address.
        pub name: String = String::new() => name();
        /// The address that clients connect to.
        pub bind: Address = stand_in() => required(spelled(
            "an address: host:port, [IPv6]:port or unix:/path",
            |text| Ok(text.parse()?),
            Address::to_string,
        ));
        /// The pool that its clients go to: its name in a file, its index in `pools` here.
        pub pool: usize = usize::MAX => required(pool_name());
        /// Its client connections at a time, over all workers. Off: only the limit of all holds.
        pub max_connections: Option<NonZeroU32> = None => number(values::CONNECTIONS).or("off");
        /// Connect attempts for each session, each on another backend while there is one. Backends
        /// that refuse at once are passed over beyond this number, up to 16 in all; 1: no second
        /// attempt.
        pub attempts: u8 = ATTEMPTS => number(values::ATTEMPTS);
        /// What happens when one side ends its direction: "relay" tells its peer and the other
        /// direction goes on, "end" delivers what has arrived and closes both.
        pub half_close: HalfClose = HalfClose::Relay
            => named("half-close setting", &HalfClose::ALL);
        /// Deadlines of its sessions.
        pub timeouts: Timeouts = Timeouts::default() => group();
    }
}

settings! {
    /// What listeners have in common: each may set its own.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Defaults {
        /// Connect attempts for each session of a listener that sets none.
        pub attempts: u8 = ATTEMPTS => number(values::ATTEMPTS);
        /// Deadlines of sessions whose listener sets none.
        pub timeouts: Timeouts = Timeouts::default() => group();
    }
}

settings! {
    /// The deadlines of a session.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Timeouts {
        /// How long one attempt to connect to a backend may take.
        pub connect: Duration = Duration::from_secs(5) => duration(values::CONNECT);
        /// A session ends when no byte moves in either direction for so long. Off: never.
        pub idle: Option<Duration> = Some(Duration::from_secs(600))
            => duration(values::DEADLINE).or("off");
        /// A session ends when one direction has ended and the other moves no byte for so long.
        pub half_closed: Duration = Duration::from_secs(30) => duration(values::DEADLINE);
        /// A session ends after so long, however busy it is. Off: never.
        pub session: Option<Duration> = None => duration(values::DEADLINE).or("off");
        /// How long a client's first bytes are waited for, where a backend is selected by them.
        pub peek: Duration = Duration::from_secs(3) => duration(values::PEEK);
    }
}

/// What becomes of a session one direction of which has ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HalfClose {
    /// The end is relayed, and the other direction goes on.
    #[default]
    Relay,
    /// What has arrived is delivered, then both connections are closed.
    End,
}

impl HalfClose {
    /// Both, with the names that the configuration knows them by.
    pub const ALL: [(&'static str, Self); 2] = [("relay", Self::Relay), ("end", Self::End)];
}

impl Shape for Listener {
    fn implied(&self, default: &Self) -> Self {
        Self {
            name: self.bind.to_string(),
            ..default.clone()
        }
    }

    fn within(base: Self, around: &Around) -> Self {
        Self {
            attempts: around.defaults.attempts,
            timeouts: around.defaults.timeouts,
            ..base
        }
    }
}

impl Shape for Defaults {}
impl Shape for Timeouts {}

super::table::defaults!(Defaults, Timeouts);

/// What listeners leave out. It is read before them.
pub(super) fn shared() -> Codec<Defaults> {
    let group = group::<Defaults>();
    Codec::new(
        &*group.facts.expected,
        group.facts.schema,
        |at, reader, default| {
            let read = reader.group(at, default)?;
            reader.around.defaults = read;
            Some(read)
        },
        table::text,
    )
    .of::<Defaults>()
}

/// A pool, by its name.
fn pool_name() -> Codec<usize> {
    Codec::new(
        "the name of a pool",
        json!({ "type": "string" }),
        |at, reader, _| {
            let name = reader.take(at, text(at))?;
            let pools = &reader.around.pools;
            let found = pools.iter().position(|pool| pool == name);
            // Without any pool, that is the mistake to report.
            if found.is_none() && !pools.is_empty() {
                let near = pools.iter().filter(|_| reader.gives_hints());
                let hint = did_you_mean(name, near.map(String::as_str));
                let sentence = format!("pool: there is no pool called `{name}`{hint}");
                reader.mistake(&at.value.span, sentence);
            }
            found
        },
        |pool, _, around| Text::quoted(around.pools.get(*pool).map_or("", String::as_str)),
    )
}

/// Stands in for a refused address; no address that is read equals it.
pub(super) fn stand_in() -> Address {
    Address::Unix(PathBuf::new())
}

/// Connect attempts of a session when nothing else is said.
pub const ATTEMPTS: u8 = 3;
