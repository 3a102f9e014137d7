//! How backends are probed.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::codec::{Leaf, duration, list, named, number, spelled};
use super::table::{Shape, settings};
use super::values;

settings! {
    /// Active probing of a pool's backends.
    #[derive(Clone, Debug, PartialEq, Eq, Hash)]
    pub struct Check {
        /// What a probe does once it is connected.
        pub probe: Probe = Probe::Tcp;
        /// The TLS that it does that in.
        pub tls: Option<CheckTls> = None;
        /// From one probe's start to the next's.
        pub interval: Duration = Duration::from_secs(2) => duration(values::CHECK_INTERVAL);
        /// The same while a backend is down. Not given: `interval`.
        pub interval_down: Option<Duration> = None => duration(values::CHECK_INTERVAL).given();
        /// The same while a backend is on its way from up to down or back. Not given: `interval`.
        pub interval_between: Option<Duration> = None => duration(values::CHECK_INTERVAL).given();
        /// How long a whole probe may take. Not longer than the shortest interval.
        pub timeout: Duration = Duration::from_secs(1) => duration(values::CHECK_TIMEOUT);
        /// Good probes in a row that bring a backend back.
        pub rise: u32 = 2 => number(values::PROBES);
        /// Failed probes in a row that take a backend down.
        pub fall: u32 = 3 => number(values::PROBES);
        /// The port that is probed. Not given: the backend's own.
        pub port: Option<u16> = None => number(values::PORT).given();
        /// The PROXY protocol header that a probe begins with.
        pub proxy_header: Option<ProxyHeader> = None
            => named("PROXY header", &values::PROXY_HEADERS);
        /// What a backend counts as until its probes say something.
        pub initial: Initial = Initial::Up => named("initial state", &Initial::ALL);
    }
}

impl Shape for Check {
    fn implied(&self, default: &Self) -> Self {
        Self {
            timeout: self.timeout_default(),
            ..default.clone()
        }
    }
}

/// What a probe does once it is connected.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Probe {
    /// Nothing more: it closes (by RST, so that no TIME-WAIT is left).
    #[default]
    Tcp,
    /// It sends these bytes, which may be none, and waits for an answer.
    SendExpect {
        /// Sent first.
        send: Vec<u8>,
        /// In the first 16 KiB of the answer.
        expect: Expect,
    },
    /// An HTTP/1.1 request (RFC 9112).
    Http {
        /// Such as `GET`.
        method: String,
        /// Such as `/healthz`.
        path: String,
        /// The `Host` field; `None`: the backend's address, or its host name.
        host: Option<String>,
        /// Which status codes are good.
        status: RangeInclusive<u16>,
    },
}

/// What an answer must hold.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Expect {
    /// These bytes, anywhere.
    Bytes(Vec<u8>),
    /// What this regular expression matches, compiled by
    /// [`expect_regex`](super::values::expect_regex).
    Regex(String),
}

settings! {
    /// The TLS of a probe.
    #[derive(Clone, Debug, PartialEq, Eq, Hash)]
    pub struct CheckTls {
        /// The server name that a probe asks for (RFC 6066). Not given: the backend's host name, or
        /// none.
        pub sni: Option<String> = None
            => spelled("the name of a host", values::server_name, String::clone).given();
        /// The protocols that a probe offers (RFC 7301); the backend must take one of them.
        pub alpn: Vec<String> = Vec::new()
            => list(spelled("a protocol such as \"h2\"", values::alpn, String::clone));
        /// How the certificate is verified: "off", by what the machine trusts ("system"), or by the
        /// certificates of a file.
        pub verify: Verify = Verify::Off
            => spelled("\"off\", \"system\" or the path of a file", values::verify, Verify::text);
    }
}

impl Shape for CheckTls {}

super::table::defaults!(Check, CheckTls);

/// Whether and how a probe verifies a certificate. It is verified for the name of `sni`, or else
/// for the backend's host name or address.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Verify {
    /// It is not: a handshake is enough.
    #[default]
    Off,
    /// By what the machine trusts.
    System,
    /// By the certificates of this PEM file.
    File(PathBuf),
}

impl Verify {
    fn text(&self) -> String {
        match self {
            Self::Off => "off".to_owned(),
            Self::System => "system".to_owned(),
            Self::File(path) => path.display().to_string(),
        }
    }
}

/// A version of the PROXY protocol. Both headers say that the connection is the balancer's own
/// (v1 `UNKNOWN`, v2 `LOCAL`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProxyHeader {
    /// Text.
    V1,
    /// Binary.
    V2,
}

/// What a backend counts as until its probes say something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Initial {
    /// Up, until `fall` probes failed.
    #[default]
    Up,
    /// Down, until `rise` probes succeeded.
    Down,
    /// Down, until the first probe decides.
    Probe,
}

impl Probe {
    /// The method of a request when nothing else is said.
    pub const METHOD: &str = "GET";
    /// The path of a request when nothing else is said.
    pub const PATH: &str = "/";
    /// The good status codes when nothing else is said: whoever redirects is alive.
    pub const STATUS: RangeInclusive<u16> = 200..=399;
}

impl Initial {
    /// Every state with its name.
    pub const ALL: [(&'static str, Self); 3] = [
        ("up", Self::Up),
        ("down", Self::Down),
        ("probe", Self::Probe),
    ];
}

impl Check {
    /// Whether a probe judges what a backend answers, and not only that it can be reached.
    #[must_use]
    pub fn judges(&self) -> bool {
        match self.probe {
            Probe::Tcp => false,
            Probe::SendExpect { .. } | Probe::Http { .. } => true,
        }
    }

    /// The longest that a probe may take when nothing is said of it: 1 s, or where probes follow
    /// each other sooner, until the next one.
    pub(super) fn timeout_default(&self) -> Duration {
        self.shortest_interval().min(Duration::from_secs(1))
    }

    /// The shortest of its intervals: two probes of a backend never overlap.
    pub(super) fn shortest_interval(&self) -> Duration {
        let others = [self.interval_down, self.interval_between];
        others
            .into_iter()
            .flatten()
            .fold(self.interval, Duration::min)
    }
}
