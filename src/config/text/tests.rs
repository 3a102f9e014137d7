//! A written configuration reads back as it was.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::num::{NonZeroU16, NonZeroU32};
use std::path::PathBuf;
use std::time::Duration;

use fastrand::Rng;

use crate::address::Address;
use crate::config::reference::rows;
use crate::config::tree::Value;
use crate::config::{
    ATTEMPTS, AccessLog, Admin, AdminHttp, AdminState, AllDown, Backend, BanTable, Bandwidth,
    Check, CheckTls, Config, Defaults, Discovery, Ejection, Expect, FirstTier, Group,
    HISTOGRAM_LOG, HalfClose, HalfSent, Hash, HttpProbe, Initial, Key, LeastTime, Listener,
    LogField, LogFormat, LogOnly, LogSink, MetricsHttp, OnDown, Persist, Pool, Predictive, Probe,
    ProxyHeader, QueueLimits, Rates, RecordFormat, ScaleBy, Scaling, SecondTier, Strategy,
    Timeouts, TwoTier, Verify, parse,
};
use crate::config::{HistoryPlace, HistorySettings};
use crate::origin::{Origins, Ports};
use crate::peek::Field;
use crate::session::CloseReason;
use crate::shared::Shared;

#[track_caller]
fn read(text: &str) -> Config {
    let read = parse("f".to_owned(), text.into());
    read.unwrap_or_else(|error| panic!("{error}\n{text}")).0
}

#[test]
fn what_is_written_is_read_as_it_was() {
    let mut written = HashSet::new();
    for seed in 0..SEEDS {
        let mut rng = Rng::with_seed(seed);
        let config = Chance(&mut rng).config();
        let text = config.to_ron();
        assert_eq!(read(&text), config, "seed {seed}\n{text}");
        let wide = text.lines().find(|line| line.chars().count() > 100);
        let is_long_value = |line: &str| line.matches(": ").count() < 2;
        assert!(wide.is_none_or(is_long_value), "seed {seed}: {wide:?}");
        let tree = Value::parse(&text).unwrap();
        collect_paths("", &tree, &mut written);
    }
    // Only values that differ from the default are written: each setting differed at least once.
    let paths = rows::<Config>("").into_iter().map(|row| row.path);
    let never: Vec<_> = paths.filter(|path| !written.contains(path)).collect();
    assert_eq!(never, Vec::<String>::new());
}

fn collect_paths(path: &str, value: &Value, paths: &mut HashSet<String>) {
    for item in value.items() {
        collect_paths(path, item, paths);
    }
    for field in value.fields() {
        let path = format!("{path}.{}", field.name);
        let path = path.trim_start_matches('.');
        collect_paths(path, &field.value, paths);
        paths.insert(path.to_owned());
    }
}

#[test]
fn what_is_as_ever_is_left_out() {
    let smallest = "\
(
    listeners: [(bind: \"127.0.0.1:8080\", pool: \"web\")],
    pools: [(name: \"web\", backends: [\"127.0.0.1:9001\"])],
)
";
    assert_eq!(read(smallest).to_ron(), smallest);
    let example = read(include_str!("../../../config.ron"));
    let text = example.to_ron();
    assert_eq!(read(&text), example);
    let want = "\
(
    listeners: [(name: \"web\", bind: \"127.0.0.1:8080\", pool: \"web\")],
    pools: [
        (
            name: \"web\",
            backends: [
                \"127.0.0.1:9001\",
                (address: \"127.0.0.1:9002\", name: \"second\"),
                \"127.0.0.1:9003\",
            ],
        ),
    ],
)
";
    assert_eq!(text, want);
}

#[test]
fn a_long_text_is_laid_out() {
    let text = "\
(
    workers: 2,
    resolvers: [\"127.0.0.1:53\", \"[::1]:5353\"],
    admin: (
        socket: \"/run/mahoraga.sock\",
        http: (bind: \"127.0.0.1:9900\", read_token: \"/etc/mahoraga/read.token\"),
    ),
    defaults: (attempts: 2, timeouts: (idle: \"off\")),
    listeners: [
        (bind: \"127.0.0.1:80\", pool: \"web\", max_connections: 100),
        (bind: \"[::1]:80\", pool: \"web\"),
    ],
    pools: [
        (
            name: \"web\",
            strategy: (name: \"hash\", key: \"http_cookie(ID)\", max_load: 1.5),
            source: [\"10.0.0.5\"],
            source_ports: \"20000-39999\",
            queue: \"off\",
            check: (type: \"http\", path: \"/up\", status: 204, tls: true, interval: \"500ms\"),
            ejection: (base: \"10m\", latency: \"off\"),
            on_down: (close_over: \"30s\"),
            scaling: (high: 1000, webhook: \"https://scale.example/\"),
            backends: [(address: \"unix:/run/\\\"a\\\".sock\", weight: 3, state: \"drain\")],
            reserve: [\"127.0.0.1:9009\"],
        ),
    ],
)
";
    assert_eq!(read(text).to_ron(), text);
}

/// Random valid configurations.
mod guard;

struct Chance<'a>(&'a mut Rng);

impl Chance<'_> {
    fn half(&mut self) -> bool {
        self.0.bool()
    }

    fn pick<T: Clone>(&mut self, all: &[T]) -> T {
        self.0.choice(all).expect("nothing to pick from").clone()
    }

    fn maybe<T>(&mut self, make: impl FnOnce(&mut Self) -> T) -> Option<T> {
        self.half().then(|| make(self))
    }

    fn ms(&mut self, from: u64, to: u64) -> Duration {
        let to = self.pick(&[to, to.min(from * 10)]);
        Duration::from_millis(self.0.u64(from..=to))
    }

    fn name(&mut self) -> String {
        let telling = [
            'a', 'é', '"', '\\', '\'', ' ', '日', '(', '/', '\u{301}', '\u{202e}',
        ];
        let length = self.0.usize(1..=64);
        (0..length).map(|_| self.pick(&telling)).collect()
    }

    fn path(&mut self) -> PathBuf {
        let telling = ["a", "/b", "\"", "\n", "\u{7f}", "é", "\t"];
        let parts = self.0.usize(0..9);
        let mut path = "/p".to_owned();
        (0..parts).for_each(|_| path.push_str(self.pick(&telling)));
        path.into()
    }

    fn tcp(&mut self) -> SocketAddr {
        let port = self.0.u16(1..);
        let any = [[127, 0, 0, 1], [10, 0, 255, 0]].map(|ip| SocketAddr::from((ip, port)));
        let zone = format!("[fe80::{:x}%3]:{port}", self.0.u16(..));
        let [first, second] = any;
        self.pick(&[first, second, zone.parse().unwrap()])
    }

    /// An address that no other backend has.
    fn address(&mut self, i: usize) -> Address {
        match self.half() {
            true => Address::Unix(format!("/\"é\\{i}").into()),
            false => Address::Tcp(SocketAddr::from((
                [127, 0, 0, 1],
                1 + u16::try_from(i).unwrap(),
            ))),
        }
    }

    fn limit(&mut self) -> Option<NonZeroU32> {
        let limit = self.0.u32(1..=1 << 24);
        self.maybe(|_| NonZeroU32::new(limit)).flatten()
    }

    #[expect(clippy::too_many_lines, reason = "a line for each setting")]
    fn config(&mut self) -> Config {
        let pools: Vec<_> = (0..self.0.usize(1..4)).map(|i| self.pool(i)).collect();
        let default = Timeouts::default();
        let timeouts = self.timeouts();
        let attempts = self.pick(&[ATTEMPTS, 2]);
        let shared = Defaults {
            attempts,
            timeouts: self.pick(&[default, timeouts]),
        };
        let access_lists = self.access_lists();
        let access_list = access_lists.last().map(|list| list.name.clone());
        let listeners = (0..self.0.usize(1..4)).map(|i| {
            // Apart from the backends: a pool that leads back to itself is refused.
            let bind = self.address(1000 + i);
            let own = self.timeouts();
            let is_tcp = matches!(bind, Address::Tcp(_));
            Listener {
                name: match self.half() {
                    true => format!("{i}\""),
                    false => bind.to_string(),
                },
                bind,
                pool: self.0.usize(..pools.len()),
                max_connections: self.limit(),
                access_list: access_list.clone().filter(|_| is_tcp),
                rate_limit: self.rate_limit(),
                source_limits: self.source_limits().filter(|_| is_tcp),
                ban: self.maybe(Self::ban).filter(|_| is_tcp),
                bandwidth: Bandwidth::any(self.0, is_tcp),
                attempts: self.pick(&[ATTEMPTS, 1, 16]),
                half_close: self.pick(&[HalfClose::Relay, HalfClose::End]),
                half_sent: self.pick(&[HalfSent::Close, HalfSent::Pass]),
                timeouts: self.pick(&[default, timeouts, timeouts, own]),
            }
        });
        let listeners = listeners.collect();
        Config {
            workers: NonZeroU32::new(self.0.u32(..=1024)),
            max_connections: self.limit(),
            memory: self.maybe(|it| u64::from(it.0.u32(4_096..=1 << 30)) << 10),
            rate_limit: self.rate_limit(),
            bandwidth: Rates::any(self.0),
            tarpit: self.tarpit(),
            overload: self.overload(),
            source_table: u64::from(self.0.u32(4_096..=1 << 30)) << 10,
            bans: BanTable {
                max: self.0.u32(1..=1_000_000),
                file: self.maybe(Self::path).map(|path| path.join("kept")),
                import: self.maybe(Self::path),
                action: self.action(),
            },
            trusted: self.prefixes(12),
            shutdown_grace: self.ms(0, 86_400_000),
            access_log: self.maybe(|chance| AccessLog {
                to: match chance.0.u32(..6) {
                    0..2 => LogSink::Stdout,
                    2..4 => LogSink::File(chance.path()),
                    4 => LogSink::Syslog(chance.path()),
                    _ => LogSink::Journald("/run/systemd/journal/socket".into()),
                },
                format: chance.pick(&LogFormat::ALL).1,
                only: chance.pick(&[
                    LogOnly::All,
                    LogOnly::Errors,
                    LogOnly::Reasons(vec![CloseReason::Killed, CloseReason::Stalled]),
                ]),
                sample: NonZeroU32::new(chance.0.u32(1..=1_000_000)).unwrap(),
                fields: chance.pick(&[
                    vec![LogField::Standard],
                    vec![LogField::Sample, LogField::Standard],
                    vec![LogField::Client, LogField::Reason],
                ]),
            }),
            log_format: self.pick(&RecordFormat::ALL).1,
            history: HistorySettings {
                path: match self.maybe(Self::path) {
                    Some(path) => HistoryPlace::File(path),
                    None => self
                        .pick(&[HistoryPlace::Auto, HistoryPlace::Memory])
                        .clone(),
                },
                max_size: u64::from(self.0.u32(4_096..=1 << 30)) << 10,
                seconds: self.ms(60_000, 3_600_000),
                minutes: self.ms(3_600_000, 86_400_000),
                hours: self.ms(86_400_000, 900_000_000),
            },
            histogram_log: self
                .maybe(Self::path)
                .unwrap_or_else(|| HISTOGRAM_LOG.into()),
            user: self.maybe(|it| it.pick(&["root", "balancer"]).to_owned()),
            reload_on_change: self.half(),
            admin: self.maybe(Self::admin),
            metrics: self.maybe(Self::metrics),
            resolvers: (0..self.0.usize(..3)).map(|_| self.tcp()).collect(),
            defaults: shared,
            access_lists: access_lists.into_iter().map(Shared::from).collect(),
            listeners,
            pools: pools.into_iter().map(Shared::from).collect(),
        }
    }

    fn timeouts(&mut self) -> Timeouts {
        let default = Timeouts::default();
        let month = 30 * 86_400_000;
        Timeouts {
            connect: self
                .maybe(|it| it.ms(1, 3_600_000))
                .unwrap_or(default.connect),
            idle: self.maybe(|it| it.ms(1, month)),
            half_closed: self.ms(1, month),
            session: self.maybe(|it| it.ms(1, month)),
            peek: self.ms(1, 60_000),
        }
    }

    fn metrics(&mut self) -> MetricsHttp {
        let (bind, allow) = (self.tcp(), self.prefixes(14));
        let needed = allow.is_empty().then(|| self.path());
        MetricsHttp {
            bind,
            allow,
            read_token: self.maybe(Self::path).or(needed),
        }
    }

    fn admin(&mut self) -> Admin {
        let http = self.maybe(|it| AdminHttp {
            bind: it
                .pick(&["127.0.0.1:1", "[::1]:9900", "127.1.2.3:80"])
                .parse()
                .unwrap(),
            read_token: it.maybe(Self::path),
            write_token: Some(it.path()),
            origins: (0..it.0.usize(..3))
                .map(|_| {
                    it.pick(&["https://a.example", "http://[::1]:8443"])
                        .to_owned()
                })
                .collect(),
            ..AdminHttp::default()
        });
        let named = Admin {
            socket: Some(self.path()),
            required: true,
            ..Admin::default()
        };
        let nowhere = Admin {
            socket: None,
            ..Admin::default()
        };
        let some = self.pick(&[Admin::default(), named.clone()]);
        let admin = match http {
            Some(_) => self.pick(&[nowhere, named, Admin::default()]),
            None => some,
        };
        Admin {
            http,
            audit_log: self.maybe(Self::path),
            ..admin
        }
    }

    fn pool(&mut self, i: usize) -> Pool {
        let discovery = self.maybe(Self::discovery);
        let least = usize::from(discovery.is_none());
        let mut backends: Vec<_> = (0..self.0.usize(least..5))
            .map(|i| self.backend(i))
            .collect();
        if let Some(first) = backends.first_mut() {
            first.weight = first.weight.max(1);
        }
        let scaling = self.maybe(Self::scaling);
        if scaling.is_some() {
            let reserve = (5..self.0.usize(6..9)).map(|i| Backend {
                reserve: true,
                ..self.backend(i)
            });
            backends.extend(reserve.collect::<Vec<_>>());
        }
        let strategy = self.strategy(&mut backends);
        let is_sticky = matches!(strategy, Strategy::StickyRoundRobin(_));
        let persist = self.maybe(Self::persist);
        Pool {
            persist: persist.filter(|_| !is_sticky),
            strategy,
            max_connections: self.limit(),
            origins: Origins {
                addresses: self
                    .pick(&[vec![], vec!["10.0.0.5", "fd00::5"]])
                    .into_iter()
                    .map(|ip| ip.parse().unwrap())
                    .collect(),
                ports: self.pick(&[None, Ports::new(20_000, 39_999), Ports::new(1, 1)]),
            },
            queue: QueueLimits {
                max: self.pick(&[0, 1, 1024, 1 << 24]),
                timeout: self.pick(&[Duration::from_secs(5), Duration::from_millis(20)]),
            },
            check: self.maybe(Self::check),
            ejection: self.maybe(Self::ejection),
            panic_below: self.maybe(|it| it.0.u8(..=100)),
            all_down: self.maybe(|it| it.pick(&AllDown::ALL).1),
            slow_start: self.maybe(|it| it.ms(100, 3_600_000)),
            on_down: match self.0.u8(..3) {
                0 => OnDown::Keep,
                1 => OnDown::Close(Duration::ZERO),
                _ => OnDown::Close(self.ms(1, 86_400_000)),
            },
            discovery,
            scaling,
            ..Pool::of(
                format!("pool {i} \u{7}é\"").replace('\u{7}', "\\"),
                backends,
            )
        }
    }

    fn backend(&mut self, i: usize) -> Backend {
        let backend = Backend::at(self.address(i));
        Backend {
            name: self
                .maybe(|it| format!("{i}{}", it.name()).chars().take(64).collect())
                .unwrap_or(backend.name),
            weight: self.pick(&[0, 1, 1, 2, 256]),
            max_connections: self.limit(),
            bandwidth: Rates::any(self.0),
            backup: self.half(),
            state: self.pick(&AdminState::ALL).1,
            ..Backend::at(backend.address)
        }
    }

    fn key(&mut self) -> Key {
        let cookie = Field::HttpCookie("__Host-a!#$".to_owned());
        let keys = Key::all().map(|(_, key)| key).into_iter();
        let mut keys: Vec<_> = keys.filter(|key| key.name() != "http_cookie").collect();
        keys.extend([Key::SourceIp { v4: 24, v6: 0 }, Key::Peeked(cookie)]);
        self.pick(&keys)
    }

    fn persist(&mut self) -> Persist {
        let key = match self.key() {
            Key::SourceIpPort => Key::default(),
            key @ (Key::SourceIp { .. } | Key::Peeked(_)) => key,
        };
        let default = Persist::default();
        let other = Persist {
            ttl: self.ms(1000, 86_400_000),
            clients_max: self.0.u32(1..=1 << 24),
            ..default.clone()
        };
        Persist {
            key,
            ..self.pick(&[default, other])
        }
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the other strategies have no settings"
    )]
    fn strategy(&mut self, backends: &mut [Backend]) -> Strategy {
        let decay = LeastTime {
            decay: self.pick(&[LeastTime::default().decay, Duration::from_millis(100)]),
        };
        match self.pick(&Strategy::all()).1 {
            Strategy::Hash(_) => Strategy::Hash(Hash {
                key: self.key(),
                max_load: self.maybe(|it| it.0.u16(101..=1000)),
            }),
            Strategy::LeastTime(_) => Strategy::LeastTime(decay),
            Strategy::StickyRoundRobin(_) => Strategy::StickyRoundRobin(self.persist()),
            Strategy::TwoTier(_) => Strategy::TwoTier(self.two_tier(backends, decay)),
            Strategy::Predictive(_) => Strategy::Predictive(Predictive {
                horizon: Duration::from_secs(self.0.u64(1..=600)),
                season: self.maybe(|it| it.ms(600_000, 86_400_000)),
            }),
            plain => plain,
        }
    }

    fn two_tier(&mut self, backends: &mut [Backend], decay: LeastTime) -> TwoTier {
        let seconds = SecondTier::all().map(|(_, tier)| tier);
        let then = match self.pick(&seconds) {
            SecondTier::LeastTime(_) => SecondTier::LeastTime(decay),
            then @ (SecondTier::LeastConnections | SecondTier::PowerOfTwo) => then,
        };
        let hash = FirstTier::Hash {
            key: self.key(),
            subset: NonZeroU16::new(2).unwrap(),
        };
        if backends.is_empty() || self.half() {
            let subset = NonZeroU16::new(self.0.u16(1..=16)).unwrap();
            let key = self.key();
            return TwoTier {
                first: FirstTier::Hash { key, subset },
                then,
                groups: Vec::new(),
            };
        }
        for backend in &mut *backends {
            backend.group = Some(self.pick(&["blue", "\"green\"", "日"]).to_owned());
        }
        let mut groups = Group::of(&*backends);
        self.0.shuffle(&mut groups);
        groups[0].weight = self.pick(&[0, 1, 1 << 16]);
        groups.truncate(if self.half() { groups.len() } else { 0 });
        TwoTier {
            first: self.pick(&[hash, FirstTier::Weight, FirstTier::Priority]),
            then,
            groups,
        }
    }

    fn check(&mut self) -> Check {
        let mut check = Check {
            probe: self.probe(),
            tls: self.maybe(Self::tls),
            interval: self.pick(&[Check::default().interval, Duration::from_millis(100)]),
            interval_down: self.maybe(|it| it.ms(100, 3_600_000)),
            interval_between: self.maybe(|it| it.ms(100, 3_600_000)),
            rise: self.0.u32(1..=100),
            fall: self.pick(&[3, 100]),
            port: self.maybe(|it| it.0.u16(1..)),
            proxy_header: self.maybe(|it| it.pick(&[ProxyHeader::V1, ProxyHeader::V2])),
            initial: self.pick(&Initial::ALL).1,
            ..Check::default()
        };
        check.timeout = check.timeout_default();
        if self.half() {
            check.timeout = Duration::from_millis(self.0.u64(10..=100));
        }
        let plain = Check {
            probe: check.probe.clone(),
            tls: check.tls.clone(),
            ..Check::default()
        };
        self.pick(&[check, plain])
    }

    fn probe(&mut self) -> Probe {
        let bytes: [&[u8]; 4] = [b"PING\r\n", "é\"\\\0".as_bytes(), b"\xff\x00\"'\\", b"\x7f"];
        match self.0.u8(..3) {
            0 => Probe::Tcp,
            1 => Probe::SendExpect {
                send: self
                    .maybe(|it| it.pick(&bytes).to_vec())
                    .unwrap_or_default(),
                expect: match self.half() {
                    true => Expect::Bytes(self.pick(&bytes).to_vec()),
                    false => Expect::Regex(r#"^\+"PONG\s\xffé"#.to_owned()),
                },
            },
            _ => Probe::Http(HttpProbe {
                method: self.pick(&["GET", "HEAD"]).to_owned(),
                path: self.pick(&["/", "/a?b=\"c\\"]).to_owned(),
                host: self.maybe(|_| "[::1]:80".to_owned()),
                status: self.pick(&[200..=399, 204..=204, 100..=599]),
            }),
        }
    }

    fn tls(&mut self) -> CheckTls {
        CheckTls {
            sni: self.maybe(|_| "a.example".to_owned()),
            alpn: self.pick(&[vec![], vec!["h2".to_owned(), "é\"".to_owned()]]),
            verify: match self.0.u8(..3) {
                0 => Verify::Off,
                1 => Verify::System,
                _ => Verify::File(self.path()),
            },
        }
    }

    fn ejection(&mut self) -> Ejection {
        let base = self.pick(&[Ejection::default().base, Duration::from_secs(3600)]);
        let max = self.pick(&[Ejection::default().max, Duration::from_secs(7200)]);
        Ejection {
            failures: self.0.u32(1..=1000),
            base,
            max: max.max(base),
            share: self.0.u8(..=100),
            latency: self.maybe(|it| it.0.u16(150..=10_000)),
        }
    }

    fn discovery(&mut self) -> Discovery {
        match self.0.u8(..3) {
            0 => Discovery::Dns {
                name: "web.example".to_owned(),
                port: self.0.u16(1..),
            },
            1 => Discovery::Srv("_web._tcp.example.".to_owned()),
            _ => Discovery::File(self.path()),
        }
    }

    fn scaling(&mut self) -> Scaling {
        let high = self.0.u32(1..=1 << 24);
        let high = self.pick(&[100, high]);
        let low = self.0.u32(..=high / 2);
        Scaling {
            by: self.pick(&ScaleBy::ALL).1,
            high,
            low: self.pick(&[low, Scaling::low_default(high)]),
            window: self.ms(1000, 3_600_000),
            cool_down: self.ms(1000, 86_400_000),
            min: self.0.u32(1..=1 << 16),
            webhook: self.maybe(|_| "http://[::1]:80/a?b=\"".to_owned()),
        }
    }
}

const SEEDS: u64 = 200;
