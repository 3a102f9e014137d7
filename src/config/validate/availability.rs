//! What a pool does when backends fail, return, or are full.

use std::time::Duration;

use crate::config::judge::{Judge, Leaf, duration, number, number_or, ratio_or_off, text, text_or};
use crate::config::raw::{RawEjection, RawOnDown, RawQueue, Scalar};
use crate::config::spans::Node;
use crate::config::values::{self, ValueError};
use crate::config::{AllDown, Ejection, OnDown, Queue};

impl<'a> Judge<'a> {
    pub(in crate::config) fn queue(&mut self, raw: &'a RawQueue, at: &'a Node) -> Queue {
        let default = Queue::default();
        let max = self.leaf(&raw.max, at, "max");
        let timeout = self.leaf(&raw.timeout, at, "timeout");
        let max = self.read(&max, number_or("off", values::QUEUE));
        Queue {
            max: max.map_or(default.max, |max| max.map_or(0, u32::from)),
            timeout: self
                .read(&timeout, duration(values::QUEUE_WAIT))
                .unwrap_or(default.timeout),
        }
    }

    pub(super) fn ejection(&mut self, raw: &'a RawEjection, at: &'a Node) -> Option<Ejection> {
        let default = Ejection::default();
        let failures = self.leaf(&raw.failures, at, "failures");
        let base = self.leaf(&raw.base, at, "base");
        let max = self.leaf(&raw.max, at, "max");
        let latency = self.leaf(&raw.latency, at, "latency");
        let base = self.read(&base, duration(values::EJECTION));
        let base = base.unwrap_or(default.base);
        let max = self.read(&max, duration(values::EJECTION));
        if let Some(max) = max.filter(|max| *max < base) {
            let (max, base) = (values::written(max), values::written(base));
            let sentence = format!("max: `{max}` is less than the first ejection, {base}");
            self.mistake(&at.field("max").span, sentence);
        }
        Some(Ejection {
            failures: self
                .read(&failures, number(values::FAILURES))
                .unwrap_or(default.failures),
            base,
            // A base beyond the default is its own limit.
            max: max.unwrap_or_else(|| default.max.max(base)),
            share: self.percent(&raw.share, (at, "share"), default.share),
            latency: self
                .read(&latency, ratio_or_off(&values::LATENCY))
                .unwrap_or(default.latency),
        })
    }

    pub(super) fn panic_below(&mut self, raw: &'a Scalar, at: &'a Node) -> Option<u8> {
        let leaf = self.leaf(raw, at, "panic_below");
        let read = self.read(&leaf, |leaf| auto_or(leaf, number(values::PERCENT)));
        read.flatten()
            .and_then(|percent| u8::try_from(percent).ok())
    }

    fn percent(
        &mut self,
        raw: &'a Scalar,
        (at, name): (&'a Node, &'static str),
        default: u8,
    ) -> u8 {
        let leaf = self.leaf(raw, at, name);
        let percent = self.read(&leaf, number(values::PERCENT));
        percent
            .and_then(|percent| u8::try_from(percent).ok())
            .unwrap_or(default)
    }

    pub(super) fn all_down(&mut self, raw: &'a Scalar, at: &'a Node) -> Option<AllDown> {
        let leaf = self.leaf(raw, at, "all_down");
        let named = |leaf: &Leaf<'_>| values::named("answer", text(leaf)?, &AllDown::ALL);
        self.read(&leaf, |leaf| auto_or(leaf, named)).flatten()
    }

    pub(super) fn on_down(&mut self, raw: &'a RawOnDown, at: &'a Node) -> OnDown {
        let bare = self.leaf(&raw.bare, at, "");
        let close_over = self.leaf(&raw.close_over, at, "close_over");
        let bare = self.read(&bare, |leaf| match text_or(leaf, ON_DOWN_WANTED)? {
            "keep" => Ok(OnDown::Keep),
            "close" => Ok(OnDown::Close(Duration::ZERO)),
            _ => Err(not(leaf.written(), ON_DOWN_WANTED)),
        });
        let close_over = self.read(&close_over, duration(values::GRACE));
        bare.or_else(|| close_over.map(OnDown::Close))
            .unwrap_or_default()
    }
}

/// What `read` makes of a value; none where it is left to the kind of check.
fn auto_or<T>(
    leaf: &Leaf<'_>,
    read: impl FnOnce(&Leaf<'_>) -> Result<T, ValueError>,
) -> Result<Option<T>, ValueError> {
    match text(leaf) {
        Ok("auto") => Ok(None),
        Ok(_) | Err(_) => read(leaf).map(Some),
    }
}

fn not(value: &str, wanted: &str) -> ValueError {
    ValueError::Not {
        value: value.to_owned(),
        wanted: wanted.to_owned(),
    }
}

const ON_DOWN_WANTED: &str = "\"keep\", \"close\" or (close_over: \"30s\")";
