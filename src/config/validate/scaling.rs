//! Where more backends come from: discovery, and the reserve.

use crate::config::judge::{Judge, duration, number, path, text};
use crate::config::raw::{RawDiscovery, RawScaling};
use crate::config::spans::Node;
use crate::config::values;
use crate::config::{Discovery, ScaleBy, Scaling};

impl<'a> Judge<'a> {
    pub(super) fn discovery(&mut self, raw: &'a RawDiscovery, at: &'a Node) -> Option<Discovery> {
        let dns = self.leaf(&raw.dns, at, "dns");
        let port = self.leaf(&raw.port, at, "port");
        let srv = self.leaf(&raw.srv, at, "srv");
        let file = self.leaf(&raw.file, at, "file");
        let sources = [&raw.dns, &raw.srv, &raw.file];
        if sources.iter().filter(|source| source.is_set()).count() != 1 {
            let sentence = "discover: one of `dns`, `srv` and `file` is wanted";
            self.mistake(&at.start(), sentence.to_owned());
        }
        let dns = self.read(&dns, |leaf| values::discovered_name(text(leaf)?));
        let srv = self.read(&srv, |leaf| values::discovered_name(text(leaf)?));
        let file = self.read(&file, path);
        let port = if raw.dns.is_set() {
            self.require(&port, number(values::PORT))
        } else {
            if raw.port.is_set() {
                let sentence = "port: only `dns` has such a setting: the others name their ports";
                self.mistake(&at.field("port").span, sentence.to_owned());
            }
            None
        };
        let port = port.and_then(|port| u16::try_from(port).ok());
        let dns = dns
            .zip(port)
            .map(|(name, port)| Discovery::Dns { name, port });
        let (srv, file) = (srv.map(Discovery::Srv), file.map(Discovery::File));
        dns.or(srv).or(file)
    }

    pub(super) fn scaling(&mut self, raw: &'a RawScaling, at: &'a Node) -> Option<Scaling> {
        let default = Scaling::default();
        let by = self.leaf(&raw.by, at, "by");
        let high = self.leaf(&raw.high, at, "high");
        let low = self.leaf(&raw.low, at, "low");
        let window = self.leaf(&raw.window, at, "window");
        let cool_down = self.leaf(&raw.cool_down, at, "cool_down");
        let min = self.leaf(&raw.min, at, "min");
        let webhook = self.leaf(&raw.webhook, at, "webhook");
        let by = self.read(&by, |leaf| {
            values::named("measure", text(leaf)?, &ScaleBy::ALL)
        });
        let high = self.read(&high, number(values::CONNECTIONS));
        let high = high.unwrap_or(default.high);
        let low = self.read(&low, number(0..=*values::CONNECTIONS.end()));
        if let Some(low) = low.filter(|low| *low > high / 2) {
            let sentence = format!(
                "low: `{low}` is more than half of high, {high}: the pool would grow and shrink \
                 in turn"
            );
            self.mistake(&at.field("low").span, sentence);
        }
        Some(Scaling {
            by: by.unwrap_or_default(),
            high,
            low: low.unwrap_or_else(|| Scaling::low_default(high)),
            window: self
                .read(&window, duration(values::SCALING_WINDOW))
                .unwrap_or(default.window),
            cool_down: self
                .read(&cool_down, duration(values::COOL_DOWN))
                .unwrap_or(default.cool_down),
            min: self
                .read(&min, number(values::SCALING_MIN))
                .unwrap_or(default.min),
            webhook: self.read(&webhook, |leaf| values::webhook(text(leaf)?)),
        })
    }
}
