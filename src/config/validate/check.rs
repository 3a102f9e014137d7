//! How the backends of a pool are probed.

use std::time::Duration;

use crate::config::judge::{Judge, bytes, duration, number, status, text, text_or, truth};
use crate::config::raw::{RawCheck, RawCheckTls, Scalar};
use crate::config::spans::Node;
use crate::config::values::{self, CheckType};
use crate::config::{Check, CheckTls, Expect, Probe};

/// How a check was written.
type Written<'a> = (&'a RawCheck, &'a Node);

impl<'a> Judge<'a> {
    pub(in crate::config) fn check(&mut self, raw: &'a RawCheck, at: &'a Node) -> Option<Check> {
        let kind = self.leaf(&raw.r#type, at, "type");
        let kind = self.require(&kind, |leaf| {
            values::check_type(text_or(leaf, CHECK_WANTED)?)
        });
        let send_expect = self.send_expect((raw, at));
        let http = self.http((raw, at));
        let tls = at.find("tls").map(|at| self.check_tls(&raw.tls.0, at));
        let times = self.check_times((raw, at));
        let kind = kind?;
        let is_alone = at.find("type").is_none();
        if kind == CheckType::Off {
            if !is_alone {
                let sentence = "type: nothing else stands with `off`: write check: \"off\"";
                self.mistake(&at.field("type").span, sentence.to_owned());
            }
            return None;
        }
        self.only_type(kind, CheckType::SendExpect, (raw, at));
        self.only_type(kind, CheckType::Http, (raw, at));
        if kind == CheckType::Tls && tls == Some(None) {
            let sentence = "tls: a check of type `tls` can't be without";
            self.mistake(&at.field("tls").span, sentence.to_owned());
        }
        let tls = tls.flatten();
        let (probe, tls) = match kind {
            CheckType::Off | CheckType::Tcp => (Probe::Tcp, tls),
            CheckType::Tls => (Probe::Tcp, Some(tls.unwrap_or_default())),
            CheckType::Http => (http, tls),
            CheckType::SendExpect => {
                let expects = raw.expect.is_set() || raw.expect_regex.is_set();
                if !expects {
                    let sentence = "the field `expect` or `expect_regex` is missing here";
                    self.mistake(&at.start(), sentence.to_owned());
                }
                (send_expect?, tls)
            }
        };
        Some(Check {
            probe,
            tls,
            ..times
        })
    }

    fn send_expect(&mut self, (raw, at): Written<'a>) -> Option<Probe> {
        let send = self.leaf(&raw.send, at, "send");
        let expect = self.leaf(&raw.expect, at, "expect");
        let regex = self.leaf(&raw.expect_regex, at, "expect_regex");
        if raw.expect.is_set() && raw.expect_regex.is_set() {
            let sentence = "expect_regex: `expect` says already what is expected: leave one out";
            self.mistake(&at.field("expect_regex").span, sentence.to_owned());
        }
        let send = self.read(&send, bytes).unwrap_or_default();
        let expect = self.read(&expect, |leaf| {
            values::expect_bytes(bytes(leaf)?, leaf.written())
        });
        let regex = self.read(&regex, |leaf| {
            let pattern = text(leaf)?;
            values::expect_regex(pattern).map(|_| pattern.to_owned())
        });
        let regex = regex.map(Expect::Regex);
        let expect = expect.map(Expect::Bytes).or(regex)?;
        Some(Probe::SendExpect { send, expect })
    }

    fn http(&mut self, (raw, at): Written<'a>) -> Probe {
        let method = self.leaf(&raw.method, at, "method");
        let path = self.leaf(&raw.path, at, "path");
        let host = self.leaf(&raw.host, at, "host");
        let codes = self.leaf(&raw.status, at, "status");
        let method = self.read(&method, |leaf| values::http_method(text(leaf)?));
        let path = self.read(&path, |leaf| values::http_path(text(leaf)?));
        Probe::Http {
            method: method.unwrap_or_else(|| Probe::METHOD.to_owned()),
            path: path.unwrap_or_else(|| Probe::PATH.to_owned()),
            host: self.read(&host, |leaf| values::http_host(text(leaf)?)),
            status: self.read(&codes, status).unwrap_or(Probe::STATUS),
        }
    }

    /// TLS; none where it says `false`.
    fn check_tls(&mut self, raw: &'a RawCheckTls, at: &'a Node) -> Option<CheckTls> {
        let bare = self.leaf(&raw.bare, at, "");
        let sni = self.leaf(&raw.sni, at, "sni");
        let verify = self.leaf(&raw.verify, at, "verify");
        if self.read(&bare, truth) == Some(false) {
            return None;
        }
        let alpn_at = at.field("alpn");
        Some(CheckTls {
            sni: self.read(&sni, |leaf| values::server_name(text(leaf)?)),
            alpn: self.items((&raw.alpn, alpn_at), "alpn", |leaf| {
                values::alpn(text(leaf)?)
            }),
            verify: self
                .read(&verify, |leaf| values::verify(text(leaf)?))
                .unwrap_or_default(),
        })
    }

    /// What all checks have: a plain one with its times and counts.
    fn check_times(&mut self, (raw, at): Written<'a>) -> Check {
        let default = Check::default();
        let interval = self.interval(&raw.interval, at, "interval");
        let timeout = self.leaf(&raw.timeout, at, "timeout");
        let port = self.leaf(&raw.port, at, "port");
        let proxy_header = self.leaf(&raw.proxy_header, at, "proxy_header");
        let initial = self.leaf(&raw.initial, at, "initial");
        let port = self.read(&port, number(values::PORT));
        let mut check = Check {
            interval: interval.unwrap_or(default.interval),
            interval_down: self.interval(&raw.interval_down, at, "interval_down"),
            interval_between: self.interval(&raw.interval_between, at, "interval_between"),
            rise: self.probes(&raw.rise, (at, "rise"), default.rise),
            fall: self.probes(&raw.fall, (at, "fall"), default.fall),
            port: port.and_then(|port| u16::try_from(port).ok()),
            proxy_header: self
                .read(&proxy_header, |leaf| values::proxy_header(text(leaf)?))
                .flatten(),
            initial: self
                .read(&initial, |leaf| values::initial(text(leaf)?))
                .unwrap_or_default(),
            ..default
        };
        let timeout = self.read(&timeout, duration(values::CHECK_TIMEOUT));
        let shortest = check.shortest_interval();
        if let Some(timeout) = timeout.filter(|timeout| *timeout > shortest) {
            let (timeout, shortest) = (values::written(timeout), values::written(shortest));
            let sentence = format!(
                "timeout: `{timeout}` is longer than the time to the next probe, {shortest}"
            );
            self.mistake(&at.field("timeout").span, sentence);
        }
        check.timeout = timeout.unwrap_or_else(|| check.timeout_default());
        check
    }

    fn interval(&mut self, raw: &'a Scalar, at: &'a Node, name: &'static str) -> Option<Duration> {
        let leaf = self.leaf(raw, at, name);
        self.read(&leaf, duration(values::CHECK_INTERVAL))
    }

    fn probes(
        &mut self,
        raw: &'a Scalar,
        (at, name): (&'a Node, &'static str),
        default: u32,
    ) -> u32 {
        let leaf = self.leaf(raw, at, name);
        self.read(&leaf, number(values::PROBES)).unwrap_or(default)
    }

    /// Refuses the settings that only one type of check has.
    fn only_type(&mut self, kind: CheckType, owner: CheckType, (raw, at): Written<'a>) {
        if kind == owner {
            return;
        }
        let settings = if owner == CheckType::Http {
            vec![
                ("method", &raw.method),
                ("path", &raw.path),
                ("host", &raw.host),
                ("status", &raw.status),
            ]
        } else {
            vec![
                ("send", &raw.send),
                ("expect", &raw.expect),
                ("expect_regex", &raw.expect_regex),
            ]
        };
        for (setting, _) in settings.into_iter().filter(|(_, raw)| raw.is_set()) {
            let error = values::not_its_setting(("check", kind.name()), &[owner.name()]);
            self.mistake(&at.field(setting).span, format!("{setting}: {error}"));
        }
    }
}

const CHECK_WANTED: &str = "a check: write \"TYPE\" or (type: \"TYPE\", ...) with settings";
