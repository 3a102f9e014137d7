//! How backends are probed.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::codec::{
    Codec, Leaf, bytes, duration, group_or_off, named, number, parsed, required, spelled, status,
};
use super::reader::{At, Reader};
use super::table::{self, Shape, settings, words};
use super::tls::{CheckTls, check_tls};
use super::values::{self, CheckType, MINUTE, between};

settings! {
    /// Active probing of a pool's backends.
    #[derive(Clone, Debug, PartialEq, Eq, Hash)]
    pub struct Check: Shape {
        /// What a probe does once it is connected.
        pub probe: Probe = Probe::Tcp;
            @r#type
            /// What a probe does: "tcp" connects, "tls" shakes hands, "http" asks for a path,
            /// "send_expect" sends bytes and waits for others.
            => required(parsed(
                    "\"off\", \"tcp\", \"tls\", \"http\" or \"send_expect\"",
                    values::check_type,
                    |kind| kind.as_str().to_owned(),
                )),
                Self::kind, Self::put_kind;
            @send of ["send_expect"]
            /// the bytes that are sent first.
            [if let Probe::SendExpect { send, .. } = probe { *send } else { Vec::new() }]
            => bytes();
            @expect of ["send_expect"]
            /// bytes in the first 16 KiB of the answer.
            => expected_bytes().given(),
                |check: &Self| match check.expected() {
                    Some(Expect::Bytes(bytes)) if !bytes.is_empty() => Some(bytes.clone()),
                    _ => None,
                },
                |check: &mut Self, bytes| check.put_expected(bytes.map(Expect::Bytes));
            @expect_regex of ["send_expect"]
            /// a regular expression that matches the answer, in place of `expect`.
            => parsed(
                    "a regular expression",
                    |pattern| values::expect_regex(pattern).map(|_| pattern.to_owned()),
                    String::clone,
                ).given(),
                |check: &Self| match check.expected() {
                    Some(Expect::Regex(pattern)) => Some(pattern.clone()),
                    _ => None,
                },
                |check: &mut Self, pattern| check.put_expected(pattern.map(Expect::Regex));
            @method of ["http"]
            /// the method of the request.
            [if let Probe::Http(its) = probe { its.method } else { HttpProbe::default().method }]
            => spelled("a method such as \"GET\"", values::http_method, String::clone);
            @path of ["http"]
            /// the path of the request.
            [if let Probe::Http(its) = probe { its.path } else { HttpProbe::default().path }]
            => spelled(
                    "a path such as \"/healthz\", without spaces",
                    values::http_path,
                    String::clone,
                );
            @host of ["http"]
            /// the `Host` field of the request. The default is the backend's host.
            [if let Probe::Http(its) = probe { its.host } else { None }]
            => spelled(
                    "a host such as \"example.org\" or \"example.org:8080\"",
                    values::http_host,
                    String::clone,
                ).given();
            @status of ["http"]
            /// which status codes are good.
            [if let Probe::Http(its) = probe { its.status } else { HttpProbe::default().status }]
            => status();
        /// Whether probes speak TLS. Auto: as connections to the backends do, unless the check has
        /// a port of its own. True: by the settings of the pool's `tls`, or without verification
        /// where the pool has none. False: never. A group: by these settings alone.
        pub tls: CheckTls = CheckTls::Auto => check_tls();
        /// The time from the start of one probe to the start of the next.
        pub interval: Duration = Duration::from_secs(2) => duration(values::CHECK_INTERVAL);
        /// The interval while a backend is down. Not given: `interval`.
        pub interval_down: Option<Duration> = None => duration(values::CHECK_INTERVAL).given();
        /// The interval while a backend is between up and down. Not given: `interval`.
        pub interval_between: Option<Duration> = None => duration(values::CHECK_INTERVAL).given();
        /// How long a whole probe may take. Not longer than the shortest interval.
        pub timeout: Duration = Duration::from_secs(1) => duration(between(10, MINUTE));
        /// Good probes in a row that bring a backend back.
        pub rise: u32 = 2 => number(values::PROBES);
        /// Failed probes in a row that take a backend down.
        pub fall: u32 = 3 => number(values::PROBES);
        /// The port that is probed. Not given: the backend's own.
        pub port: Option<u16> = None => number(values::PORT).given();
        /// The PROXY header that a probe begins with. Auto: that of the backend's connections,
        /// unless the check has a port of its own.
        pub proxy_header: ProxyHeader = ProxyHeader::Auto
            => named("PROXY header", &ProxyHeader::ALL);
        /// The state of a backend until its probes have decided.
        pub initial: Initial = Initial::Up => named("initial state", &Initial::ALL);
    }
}

impl Shape for Check {
    const SHORT: Option<&'static str> = Some("type");

    fn implied(&self, default: &Self) -> Self {
        let mut implied = default.clone();
        implied.put_kind(self.kind());
        implied.timeout = self.timeout_default();
        implied
    }

    fn is_off(at: At<'_>, reader: &mut Reader<'_>) -> bool {
        let is_off = at.says("type", "off");
        if is_off && at.value.fields().len() > 1 {
            let sentence = "nothing else stands with `off`: write check: \"off\"";
            reader.wrong(at, "type", sentence);
        }
        is_off
    }

    fn check(&self, at: At<'_>, reader: &mut Reader<'_>) {
        let Some(kind) = CheckType::ALL
            .into_iter()
            .find(|(name, _)| at.says("type", name))
        else {
            return;
        };
        let (name, kind) = kind;
        table::refuse_others::<Self>(at, reader, ("check", name));
        if kind == CheckType::Tls && !self.tls.is_asked_for() {
            let sentence = "a check of type `tls` can't be without: write true or a group, or \
                            leave it out";
            reader.wrong(at, "tls", sentence);
        }
        let is_given = |name| at.value.field(name).is_some();
        match (is_given("expect"), is_given("expect_regex")) {
            (true, true) => {
                let sentence = "`expect` says already what is expected: leave one out";
                reader.wrong(at, "expect_regex", sentence);
            }
            (false, false) if kind == CheckType::SendExpect => {
                let sentence = "missing field `expect` or `expect_regex`";
                reader.mistake(&at.value.start(), sentence.to_owned());
            }
            _ => {}
        }
    }
}

/// A check, or none.
pub(super) fn check() -> Codec<Option<Check>> {
    group_or_off("\"off\", a type or a group such as (type: \"http\", path: \"/up\")")
}

/// The bytes that are expected.
fn expected_bytes() -> Leaf<Vec<u8>> {
    let bytes = bytes();
    bytes.checked("a string of 1 to 16384 bytes", |bytes| {
        (1..=16 << 10).contains(&bytes.len())
    })
}

/// What a probe does once it is connected.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Probe {
    /// Nothing more: it closes (by RST, so that no TIME-WAIT is left).
    #[default]
    Tcp,
    /// It sends these bytes, possibly none, and waits for an answer.
    SendExpect {
        /// Sent first.
        send: Vec<u8>,
        /// In the first 16 KiB of the answer.
        expect: Expect,
    },
    /// An HTTP/1.1 request (RFC 9112).
    Http(HttpProbe),
}

/// The request of a probe, and which answers are good.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HttpProbe {
    /// Such as `GET`.
    pub method: String,
    /// Such as `/healthz`.
    pub path: String,
    /// The `Host` field; `None`: the backend's address, or its host name.
    pub host: Option<String>,
    /// Which status codes are good.
    pub status: RangeInclusive<u16>,
}

impl Default for HttpProbe {
    fn default() -> Self {
        Self {
            method: "GET".to_owned(),
            path: "/".to_owned(),
            host: None,
            // A server that redirects is alive.
            status: 200..=399,
        }
    }
}

/// What an answer must contain.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Expect {
    /// These bytes, anywhere.
    Bytes(Vec<u8>),
    /// A match of this regular expression, compiled by
    /// [`expect_regex`](super::values::expect_regex).
    Regex(String),
}

super::table::defaults!(Check);

words! {
    /// The PROXY header of probes. It says that the connection is the balancer's own (v1 `UNKNOWN`,
    /// v2 `LOCAL`).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub enum ProxyHeader {
        /// That of the backend's connections.
        #[default]
        Auto = "auto",
        /// None.
        Off = "off",
        /// Text.
        V1 = "v1",
        /// Binary.
        V2 = "v2",
    }
}

words! {
    /// The state of a backend until its probes have decided.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub enum Initial {
        /// Up, until `fall` probes failed.
        #[default]
        Up = "up",
        /// Down, until `rise` probes succeeded.
        Down = "down",
        /// Down, until the first probe decides.
        Probe = "probe",
    }
}

impl Check {
    /// Whether a probe checks the backend's answer, and not only that it can be reached.
    #[must_use]
    pub fn checks_answers(&self) -> bool {
        match self.probe {
            Probe::Tcp => false,
            Probe::SendExpect { .. } | Probe::Http(_) => true,
        }
    }

    fn kind(&self) -> CheckType {
        match self.probe {
            Probe::Tcp if self.tls.is_asked_for() => CheckType::Tls,
            Probe::Tcp => CheckType::Tcp,
            Probe::SendExpect { .. } => CheckType::SendExpect,
            Probe::Http(_) => CheckType::Http,
        }
    }

    fn put_kind(&mut self, kind: CheckType) {
        self.probe = match kind {
            CheckType::Off | CheckType::Tcp | CheckType::Tls => Probe::Tcp,
            CheckType::Http => Probe::Http(HttpProbe::default()),
            CheckType::SendExpect => Probe::SendExpect {
                send: Vec::new(),
                expect: Expect::Bytes(Vec::new()),
            },
        };
        self.tls = match kind {
            CheckType::Tls => CheckTls::On,
            CheckType::Off | CheckType::Tcp | CheckType::Http | CheckType::SendExpect => {
                CheckTls::Auto
            }
        };
    }

    fn expected(&self) -> Option<&Expect> {
        match &self.probe {
            Probe::SendExpect { expect, .. } => Some(expect),
            Probe::Tcp | Probe::Http(_) => None,
        }
    }

    fn put_expected(&mut self, expected: Option<Expect>) {
        if let (Probe::SendExpect { expect, .. }, Some(expected)) = (&mut self.probe, expected) {
            *expect = expected;
        }
    }

    /// The default timeout of a probe: 1 s, or the shortest interval if that is shorter.
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
