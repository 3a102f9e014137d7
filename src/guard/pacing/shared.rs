//! Limits that sessions share, wherever their buckets are.

use crate::guard::bandwidth::{ByteRate, Meter, Meters, Taken};
use crate::guard::{Limit, SourcePlace};

/// A limit that sessions share.
#[derive(Clone, Copy, Debug)]
pub struct SharedLimit<'a> {
    /// Its rates.
    pub meters: &'a Meters,
    /// Where its buckets are.
    pub buckets: Buckets<'a>,
}

/// The buckets of a limit, and how many sessions share it.
#[derive(Clone, Copy, Debug)]
pub enum Buckets<'a> {
    /// In its meters. The sessions are counted here.
    Own(&'a Limit),
    /// At the place of a source.
    Source(SourcePlace<'a>),
}

impl<'a> SharedLimit<'a> {
    /// Its rate in a direction, and how often that was waited for.
    pub(super) fn meter(&self, way: usize) -> &'a Meter {
        self.meters.way(way)
    }

    /// The rate of a direction.
    pub(super) fn rate(&self, way: usize) -> Option<ByteRate> {
        self.meter(way).rate()
    }

    /// The sessions that share it: one at least.
    pub(super) fn users(&self) -> u64 {
        let users = match self.buckets {
            Buckets::Own(users) => users.used(),
            Buckets::Source(place) => place.sessions(),
        };
        users.max(1).into()
    }

    pub(super) fn taken(&self, way: usize) -> Taken {
        match self.buckets {
            Buckets::Own(_) => self.meter(way).taken(),
            Buckets::Source(place) => place.with_taken(way, |taken| *taken),
        }
    }

    pub(super) fn take(&self, way: usize, rate: ByteRate, bytes: u32, now: u64) -> u64 {
        match self.buckets {
            Buckets::Own(_) => self.meter(way).take(rate, bytes, now),
            Buckets::Source(place) => place.with_taken(way, |it| it.take(rate, bytes, now)),
        }
    }

    pub(super) fn owe(&self, way: usize, rate: ByteRate, bytes: u32, now: u64) {
        match self.buckets {
            Buckets::Own(_) => self.meter(way).owe(rate, bytes, now),
            Buckets::Source(place) => place.with_taken(way, |it| it.owe(rate, bytes, now)),
        }
    }

    pub(super) fn put_back(&self, way: usize, rate: ByteRate, bytes: u32) {
        match self.buckets {
            Buckets::Own(_) => self.meter(way).put_back(rate, bytes),
            Buckets::Source(place) => place.with_taken(way, |it| it.put_back(rate, bytes)),
        }
    }
}
