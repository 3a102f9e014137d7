//! Pools of any kind.

use super::*;
use crate::config::CertificateFiles;
use crate::peek::{MEMBER_MAX, MemberPattern};

impl Chance<'_> {
    pub(super) fn pool(&mut self, i: usize) -> Pool {
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
        let own = self.pick(&[Some(vec![]), Some(vec!["10.0.0.5", "fd00::5"]), None]);
        let mut pool = Pool {
            persist: persist.filter(|_| !is_sticky),
            strategy,
            max_connections: self.limit(),
            origins: Origins {
                addresses: own.iter().flatten().map(|ip| ip.parse().unwrap()).collect(),
                at_client: own.is_none(),
                ports: self.pick(&[None, Ports::new(20_000, 39_999), Ports::new(1, 1)]),
            },
            send_proxy: self.maybe(Self::send_proxy),
            tls: self.maybe(Self::backend_tls),
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
        };
        if self.half() {
            self.name_members(&mut pool);
        }
        pool
    }

    /// Lets clients of a pool select by name, which rules out much else.
    fn name_members(&mut self, pool: &mut Pool) {
        let patterns = ["broker-{n}.k.example", "{n}"];
        pool.sni_member = MemberPattern::read(self.pick(&patterns));
        pool.strategy = Strategy::default();
        pool.persist = None;
        pool.queue = QueueLimits::default();
        pool.discovery = None;
        pool.scaling = None;
        pool.backends.retain(|backend| !backend.reserve);
        if pool.backends.is_empty() {
            pool.backends.push(Backend::at(self.address(0)));
        }
        for (backend, place) in pool.backends.iter_mut().zip(0..) {
            backend.backup = false;
            backend.group = None;
            backend.member = self.pick(&[None, Some(place), Some(place + MEMBER_MAX - 9)]);
        }
    }

    fn send_proxy(&mut self) -> SendProxy {
        let version = self.pick(&[HeaderVersion::V1, HeaderVersion::V2]);
        let tlvs = match version {
            HeaderVersion::V1 => Vec::new(),
            HeaderVersion::V2 => {
                let all = HeaderPart::ALL.map(|(_, part)| part);
                self.pick(&[vec![], vec![HeaderPart::Crc32c], all.to_vec()])
            }
        };
        SendProxy {
            version,
            tlvs,
            relay: version == HeaderVersion::V2 && self.half(),
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
            send_proxy: match self.0.u8(..4) {
                0 => BackendHeader::Off,
                1 => BackendHeader::Own(self.send_proxy()),
                _ => BackendHeader::OfPool,
            },
            backup: self.half(),
            member: self.pick(&[None, Some(0), Some(MEMBER_MAX)]),
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
            tls: self.check_tls(),
            interval: self.pick(&[Check::default().interval, Duration::from_millis(100)]),
            interval_down: self.maybe(|it| it.ms(100, 3_600_000)),
            interval_between: self.maybe(|it| it.ms(100, 3_600_000)),
            rise: self.0.u32(1..=100),
            fall: self.pick(&[3, 100]),
            port: self.maybe(|it| it.0.u16(1..)),
            proxy_header: self.pick(&ProxyHeader::ALL).1,
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

    fn check_tls(&mut self) -> CheckTls {
        match self.0.u8(..4) {
            0 => CheckTls::Auto,
            1 => CheckTls::Plain,
            2 => CheckTls::On,
            _ => CheckTls::Own(self.tls()),
        }
    }

    fn tls(&mut self) -> BackendTls {
        let verify = match self.0.u8(..4) {
            0 => Verify::Auto,
            1 => Verify::Off,
            2 => Verify::System,
            _ => Verify::File(self.path()),
        };
        let verifies = matches!(verify, Verify::System | Verify::File(_));
        BackendTls {
            sni: self.maybe(|_| "a.example".to_owned()),
            alpn: self.pick(&[vec![], vec!["h2".to_owned(), "é\"".to_owned()]]),
            verify,
            crl: self.maybe(Self::path).filter(|_| verifies),
            certificate: self.maybe(|its| CertificateFiles {
                certificate: its.path(),
                key: its.path(),
            }),
            policy: self.pick(&[TlsPolicy::Modern, TlsPolicy::Intermediate]),
            starttls: self.pick(&[StartTls::Off, StartTls::Postgres]),
        }
    }

    /// Where the listener ends TLS, or no pool speaks it itself, any.
    pub(super) fn postgres_tls(&mut self, ends_tls: bool, pools: &[Pool]) -> PostgresTls {
        match !ends_tls && pools.iter().any(|pool| pool.tls.is_some()) {
            true => PostgresTls::Pass,
            false => self.pick(&[PostgresTls::Pass, PostgresTls::Answer]),
        }
    }

    fn backend_tls(&mut self) -> BackendTls {
        let mut tls = self.tls();
        if tls.verify != Verify::Off {
            // A Unix socket has no other name to verify.
            tls.sni = Some("a.example".to_owned());
        }
        tls
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
        match self.0.u8(..6) {
            0 => Discovery::Dns {
                name: "web.example".to_owned(),
                port: self.0.u16(1..),
            },
            1 => Discovery::Srv("_web._tcp.example.".to_owned()),
            2 => Discovery::File(self.path()),
            3 => Discovery::Consul(self.consul()),
            4 => Discovery::Kubernetes(self.kubernetes()),
            _ => Discovery::Etcd(self.etcd()),
        }
    }

    fn consul(&mut self) -> Consul {
        let key = self.maybe(Self::path);
        Consul {
            service: "my \"redis\"".to_owned(),
            endpoints: vec!["https://consul:8501".to_owned(); self.0.usize(1..=16)],
            health: self.pick(&ConsulHealth::ALL).1,
            tags: vec!["primary".to_owned(); self.0.usize(0..3)],
            filter: self.maybe(|_| "Service.Meta.version == \"2\"".to_owned()),
            datacenter: self.maybe(|_| "dc1".to_owned()),
            namespace: self.maybe(|_| "team".to_owned()),
            partition: self.maybe(|_| "part".to_owned()),
            token_file: self.maybe(Self::path),
            ca: self.maybe(Self::path),
            certificate: key.as_ref().map(|_| self.path()),
            key,
        }
    }

    fn kubernetes(&mut self) -> Kubernetes {
        let key = self.maybe(Self::path);
        let port = self.0.u16(1..);
        let ports = [
            ServicePort::Name("http".to_owned()),
            ServicePort::Number(port),
        ];
        Kubernetes {
            service: "web".to_owned(),
            namespace: "shop-2".to_owned(),
            port: self.maybe(|it| it.pick(&ports)),
            address_type: self.maybe(|it| it.pick(&AddressType::ALL).1),
            endpoints: vec!["https://k8s:6443".to_owned(); self.0.usize(1..=16)],
            token_file: self.maybe(Self::path),
            ca: self.maybe(Self::path),
            certificate: key.as_ref().map(|_| self.path()),
            key,
        }
    }

    pub(super) fn etcd(&mut self) -> Etcd {
        let key = self.maybe(Self::path);
        let user = self.maybe(|_| "balancer".to_owned());
        Etcd {
            endpoints: vec!["https://etcd-1:2379".to_owned(); self.0.usize(1..=16)],
            prefix: self.pick(&["/", "/mahoraga/\"web\"/"]).to_owned(),
            ca: self.maybe(Self::path),
            certificate: key.as_ref().map(|_| self.path()),
            key,
            password_file: user.as_ref().map(|_| self.path()),
            user,
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
