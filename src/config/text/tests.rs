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
    ATTEMPTS, AccessLog, Admin, AdminHttp, AdminState, AllDown, Backend, BackendHeader, BanTable,
    Bandwidth, Check, CheckTls, Config, Defaults, Discovery, Ejection, Expect, FirstTier, Group,
    HISTOGRAM_LOG, HalfClose, HalfSent, Hash, HeaderPart, HttpProbe, Initial, Key, LeastTime,
    Listener, LogField, LogFormat, LogOnly, LogSink, MetricsHttp, OnDown, Persist, Pool,
    PostgresTls, Predictive, Probe, ProxyHeader, ProxySource, QueueLimits, Rates, RecordFormat,
    Route, ScaleBy, Scaling, SecondTier, SendProxy, Strategy, Timeouts, TwoTier, Verify, parse,
};
use crate::config::{AddressType, Consul, ConsulHealth, Etcd, FleetSettings};
use crate::config::{
    BackendTls, ClientCertificate, ServedFiles, StartTls, Tls, TlsClients, TlsPolicy, UnknownName,
};
use crate::config::{HistoryPlace, HistorySettings, Kubernetes, ServicePort};
use crate::config::{PeerMember, PeerSettings};
use crate::origin::{Origins, Ports};
use crate::peek::Field;
use crate::peek::proxy_protocol::HeaderVersion;
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

mod guard;
mod pools;

/// Random valid configurations.
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

    fn histogram_log(&mut self) -> PathBuf {
        self.maybe(Self::path)
            .unwrap_or_else(|| HISTOGRAM_LOG.into())
    }

    fn config(&mut self) -> Config {
        let pools: Vec<_> = (0..self.0.usize(1..4)).map(|i| self.pool(i)).collect();
        let (default, timeouts) = (Timeouts::default(), self.timeouts());
        let shared = Defaults {
            attempts: self.pick(&[ATTEMPTS, 2]),
            timeouts: self.pick(&[default, timeouts]),
        };
        let access_lists = self.access_lists();
        let access_list = access_lists.last().map(|list| list.name.clone());
        let fleet = self.maybe(Self::fleet);
        let has_etcd = fleet.as_ref().is_some_and(|its| its.etcd.is_some());
        let listeners = (0..self.0.usize(1..4)).map(|i| {
            // Apart from the backends: a pool that leads back to itself is refused.
            let bind = self.address(1000 + i);
            let own = self.timeouts();
            let is_tcp = matches!(bind, Address::Tcp(_));
            let accept_proxy = self.proxies(is_tcp);
            let (tls, routes) = self.tls_and_routes(pools.len(), is_tcp, !accept_proxy.is_empty());
            Listener {
                name: self.listener_name(i, &bind),
                bind,
                freebind: is_tcp && self.half(),
                pool: self.0.usize(..pools.len()),
                accept_proxy,
                unfinished_headers: self.limit().unwrap_or(NonZeroU32::MIN),
                routes,
                max_connections: self.limit(),
                fleet_max_connections: self.limit().filter(|_| has_etcd),
                access_list: access_list.clone().filter(|_| is_tcp),
                rate_limit: self.rate_limit(has_etcd),
                source_limits: self.source_limits().filter(|_| is_tcp),
                ban: self.maybe(Self::ban).filter(|_| is_tcp),
                bandwidth: Bandwidth::any(self.0, is_tcp),
                attempts: self.pick(&[ATTEMPTS, 1, 16]),
                half_close: self.pick(&[HalfClose::Relay, HalfClose::End]),
                half_sent: self.pick(&[HalfSent::Close, HalfSent::Pass]),
                postgres_tls: self.postgres_tls(tls.is_some(), &pools),
                postgres_cancel: self.half(),
                tls,
                timeouts: self.pick(&[default, timeouts, timeouts, own]),
            }
        });
        let listeners = listeners.collect();
        Config {
            workers: NonZeroU32::new(self.0.u32(..=1024)),
            max_connections: self.limit(),
            fleet_max_connections: self.limit().filter(|_| has_etcd),
            memory: self.maybe(|it| u64::from(it.0.u32(4_096..=1 << 30)) << 10),
            rate_limit: self.rate_limit(has_etcd),
            bandwidth: Rates::any(self.0),
            tarpit: self.tarpit(),
            overload: self.overload(),
            source_table: u64::from(self.0.u32(4_096..=1 << 30)) << 10,
            bans: self.bans(),
            trusted: self.prefixes(12),
            shutdown_grace: self.ms(0, 86_400_000),
            access_log: self.maybe(Self::access_log),
            log_format: self.pick(&RecordFormat::ALL).1,
            history: self.history(),
            histogram_log: self.histogram_log(),
            track_file: self.maybe(Self::path),
            user: self.maybe(|it| it.pick(&["root", "balancer"]).to_owned()),
            reload_on_change: self.half(),
            admin: self.maybe(Self::admin),
            metrics: self.maybe(Self::metrics),
            fleet,
            resolvers: (0..self.0.usize(..3)).map(|_| self.tcp()).collect(),
            defaults: shared,
            access_lists: access_lists.into_iter().map(Shared::from).collect(),
            listeners,
            pools: pools.into_iter().map(Shared::from).collect(),
        }
    }

    fn listener_name(&mut self, number: usize, bind: &Address) -> String {
        match self.half() {
            true => format!("{number}\""),
            false => bind.to_string(),
        }
    }

    /// Routes of a listener; `has_headers`: proxies name its clients.
    fn routes_behind(&mut self, pools: usize, is_tcp: bool, has_headers: bool) -> Vec<Route> {
        let mut routes = self.routes(pools, is_tcp);
        if has_headers {
            let tlvs = ["alpn=h2", "authority=*.a.example", "0xE0=\\x00\"b\\\\"];
            let tlvs = tlvs.map(|text| text.parse().unwrap());
            for route in &mut routes {
                route.proxy_tlv = self.pick(&[&[][..], &tlvs]).to_vec();
            }
        }
        routes
    }

    /// TLS of a listener, and routes, which ask for certificates where that does.
    fn tls_and_routes(
        &mut self,
        pools: usize,
        is_tcp: bool,
        has_headers: bool,
    ) -> (Option<Tls>, Vec<Route>) {
        let tls = self.maybe(Self::ended_tls);
        let mut routes = self.routes_behind(pools, is_tcp, has_headers);
        let asks = tls.as_ref().is_some_and(|tls| tls.clients.is_some());
        let names = [
            "cn=a\"b\\",
            "dns=*.a.example",
            "ip=::1",
            "uri=a:b",
            "email=a@b",
        ];
        let names = names.map(|text| text.parse().unwrap());
        for route in routes.iter_mut().filter(|_| asks) {
            route.tls_client = self.pick(&[&[][..], &names]).to_vec();
        }
        (tls, routes)
    }

    fn ended_tls(&mut self) -> Tls {
        let certificates = (0..self.0.usize(1..3)).map(|i| ServedFiles {
            certificate: PathBuf::from(format!("/etc/c{i}.pem")),
            key: PathBuf::from(format!("k{i}\".pem")),
            ocsp: (i == 1).then(|| PathBuf::from("a.ocsp")),
        });
        Tls {
            certificates: certificates.collect(),
            unknown_name: self.pick(&UnknownName::ALL).1,
            policy: self.pick(&TlsPolicy::ALL).1,
            alpn: self
                .pick(&[&[][..], &["h2", "http/1.1"]])
                .iter()
                .map(|&its| its.to_owned())
                .collect(),
            clients: self.maybe(|it| TlsClients {
                ca: PathBuf::from("ca.pem"),
                crl: it.maybe(|_| PathBuf::from("/etc/x.crl")),
                certificate: it.pick(&ClientCertificate::ALL).1,
            }),
            handshake: self.ms(1, 60_000),
        }
    }

    fn fleet(&mut self) -> FleetSettings {
        let etcd = self.maybe(Self::etcd);
        let peers = match &etcd {
            None => Some(self.peers()),
            Some(_) => self.maybe(Self::peers),
        };
        FleetSettings {
            etcd,
            peers,
            share_bans: self.half(),
            name: self.maybe(|it| it.pick(&["lb-1", "b\""]).to_owned()),
            lease: self.ms(2_000, 300_000),
        }
    }

    fn peers(&mut self) -> PeerSettings {
        let members = (0..self.0.usize(1..=8)).map(|i| PeerMember {
            name: format!("lb-{i}.example"),
            address: format!("[::1]:{}", 1 + i),
        });
        PeerSettings {
            listen: self.tcp(),
            members: members.collect(),
            certificate: self.path(),
            key: self.path(),
            ca: self.path(),
        }
    }

    fn bans(&mut self) -> BanTable {
        BanTable {
            max: self.0.u32(1..=1_000_000),
            file: self.maybe(Self::path).map(|path| path.join("kept")),
            import: self.maybe(Self::path),
            action: self.action(),
        }
    }

    fn history(&mut self) -> HistorySettings {
        HistorySettings {
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
        }
    }

    fn access_log(&mut self) -> AccessLog {
        let more = self.maybe(|it| (it.half(), it.maybe(|it| it.ms(1_000, 86_400_000))));
        AccessLog {
            to: match self.0.u32(..6) {
                0..2 => LogSink::Stdout,
                2..4 => LogSink::File(self.path()),
                4 => LogSink::Syslog(self.path()),
                _ => LogSink::Journald("/run/systemd/journal/socket".into()),
            },
            format: self.pick(&LogFormat::ALL).1,
            only: match &more {
                Some(_) => LogOnly::All,
                None => self.pick(&[
                    LogOnly::All,
                    LogOnly::Errors,
                    LogOnly::Reasons(vec![CloseReason::Killed, CloseReason::Stalled]),
                ]),
            },
            proxy_checks: self.0.bool(),
            start: more.is_some_and(|(start, _)| start),
            progress: more.and_then(|(_, progress)| progress),
            sample: NonZeroU32::new(self.0.u32(1..=1_000_000)).unwrap(),
            fields: self.pick(&[
                vec![LogField::Standard],
                vec![LogField::Sample, LogField::Standard],
                vec![LogField::Client, LogField::Reason],
            ]),
        }
    }

    fn proxies(&mut self, is_tcp: bool) -> Vec<ProxySource> {
        match (self.half(), is_tcp) {
            (false, _) => Vec::new(),
            (true, true) => {
                let all = self.prefixes(16).into_iter();
                all.map(ProxySource::Network).collect()
            }
            (true, false) => vec![ProxySource::Unix],
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
            proxy_header: self.ms(1, 60_000),
            server_first: self.ms(1, 60_000),
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
}

const SEEDS: u64 = 200;
