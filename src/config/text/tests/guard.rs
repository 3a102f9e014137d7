//! Chance decides who may connect, and how often.

use std::num::NonZeroU32;

use super::Chance;
use crate::config::table::Settings;
use crate::config::{
    AccessList, BanAfter, Key, Overload, RateLimit, Route, Share, SourceLimits, Tarpit,
};
use crate::guard::{Access, Action};
use crate::peek::{Field, Protocol};
use crate::prefix::Prefix;

impl Chance<'_> {
    pub(super) fn access_lists(&mut self) -> Vec<AccessList> {
        let lists = (0..self.0.usize(..3)).map(|i| AccessList {
            name: format!("{i}{}", self.pick(&["a", "\"", "é"])),
            allow: self.prefixes(10),
            deny: self.prefixes(11),
            file: self.maybe(Self::path),
            others: Some(self.pick(&Access::ALL).1),
            dry_run: self.half(),
            action: self.action(),
        });
        lists.collect()
    }

    /// Each takes other clients.
    pub(super) fn routes(&mut self, pools: usize, is_tcp: bool) -> Vec<Route> {
        let routes = (0..self.0.usize(..3)).map(|i| {
            let name = [format!("{i}.example"), format!("*.x{i}.example")];
            let names = vec![self.pick(&name).parse().unwrap()];
            let is_tls = self.half();
            let own = if is_tls {
                Protocol::Tls
            } else {
                Protocol::Http
            };
            let protocol = self.pick(&[vec![], vec![own], vec![own, Protocol::Ssh]]);
            let alpn = self.pick(&[vec![], vec!["h2".to_owned(), "a\"\u{e9}".to_owned()]]);
            let (sni, http_host) = if is_tls {
                (names, vec![])
            } else {
                (vec![], names)
            };
            Route {
                name: self.half().then(|| format!("r{i}")),
                sni,
                alpn: if is_tls { alpn } else { vec![] },
                protocol,
                client: self.prefixes(12).into_iter().filter(|_| is_tcp).collect(),
                proxy_tlv: vec![],
                http_path: if is_tls {
                    vec![]
                } else {
                    vec!["/a".to_owned()]
                },
                http_host,
                ..self.goal(pools, is_tcp)
            }
        });
        routes.collect()
    }

    /// A route's pool, or the pools that share its clients.
    fn goal(&mut self, pools: usize, is_tcp: bool) -> Route {
        if pools < 2 || self.half() {
            return Route {
                pool: self.maybe(|it| it.0.usize(..pools)),
                ..Route::base()
            };
        }
        let weight = self.0.u16(0..=1_000);
        let by_name = Key::Peeked(Field::Sni);
        Route {
            pools: vec![Share { name: 1, weight }, Share { name: 0, weight: 7 }],
            key: match is_tcp {
                true => self.pick(&[Key::default(), by_name]),
                false => by_name,
            },
            ..Route::base()
        }
    }

    pub(super) fn rate_limit(&mut self, has_etcd: bool) -> Option<RateLimit> {
        Some(RateLimit {
            rate: self.rate()?,
            burst: self.rate(),
            fleet: has_etcd && self.half(),
            dry_run: self.half(),
            action: self.action(),
        })
    }

    pub(super) fn rate(&mut self) -> Option<NonZeroU32> {
        let rate = self.0.u32(1..=1_000_000);
        self.maybe(|_| NonZeroU32::new(rate)).flatten()
    }

    pub(super) fn source_limits(&mut self) -> Option<SourceLimits> {
        let limits = SourceLimits {
            connections: self.limit(),
            rate: self.rate(),
            burst: self.rate(),
            prefix_v4: self.pick(&[32, 24]),
            prefix_v6: self.pick(&[64, 56]),
            dry_run: self.half(),
            action: self.action(),
        };
        let is_some = limits.connections.is_some() || limits.rate.is_some();
        is_some.then_some(limits)
    }

    pub(super) fn ban(&mut self) -> BanAfter {
        BanAfter {
            after: self.0.u32(1..=100),
            within: self.ms(1_000, 60_000),
            r#for: self.ms(1_000, 60_000),
            up_to: self.ms(60_000, 86_400_000),
            dry_run: self.half(),
        }
    }

    pub(super) fn prefixes(&mut self, first: u8) -> Vec<Prefix> {
        let v4 = (0..self.0.u8(..3)).map(|i| Prefix::new([first, i, 0, 0].into(), 16));
        let v6 = self
            .half()
            .then(|| Prefix::new([u16::from(first); 8].into(), 70));
        v4.chain(v6).flatten().collect()
    }

    pub(super) fn overload(&mut self) -> Option<Overload> {
        self.maybe(|it| Overload {
            wait: it.ms(1, 10_000),
            after: it.ms(10, 60_000),
            memory: it.maybe(|it| it.0.u8(50..=100)),
            dry_run: it.half(),
        })
    }

    pub(super) fn tarpit(&mut self) -> Tarpit {
        Tarpit {
            slots: self.rate().unwrap_or(NonZeroU32::MIN),
            time: self.ms(1, 86_400_000),
        }
    }

    pub(super) fn action(&mut self) -> Action {
        self.pick(&Action::ALL).1
    }
}
