//! How a session keeps to limits of bandwidth: when a direction may take bytes, and how many.
//!
//! A stream pays before it takes: it reserves a quantum in each bucket in turn, and rests until the
//! bucket has it. Reservations come due in the order in which they were made, so streams take
//! turns. A session that moves little takes first and pays then, so its messages do not wait behind
//! another's stream, and nothing is reserved for a session that is idle.

mod shared;

use super::bandwidth::{ByteRate, Meter, Meters};
pub use shared::{Buckets, SharedLimit};

use crate::kernel::{BUFFER_BYTES, RECV_BYTES_MAX, UNBOUNDED};
use crate::time::SECOND;

/// One direction of a session with limits.
#[derive(Clone, Copy, Debug)]
pub struct Lane {
    /// When the bucket of the session is full again.
    full_at: u64,
    /// The same of a bucket that fills by half of an equal share of what is shared: while it is not
    /// empty the session moves little.
    share_until: u64,
    /// The direction rests until then.
    ready_at: u64,
    /// Bytes that are paid for.
    credit: u32,
    /// Bytes that are being paid for.
    asked: u32,
    /// The buckets that have been paid for them.
    paid: u8,
    /// Bytes that were taken before they were paid for, from buckets that others share.
    owed: u32,
    /// How many bytes the next operation may take.
    granted: u32,
}

impl Default for Lane {
    fn default() -> Self {
        Self {
            full_at: 0,
            share_until: 0,
            ready_at: 0,
            credit: 0,
            asked: 0,
            paid: 0,
            owed: 0,
            granted: UNBOUNDED,
        }
    }
}

impl Lane {
    /// How many bytes the operation that the session has just asked for may take.
    #[must_use]
    pub fn granted(&self) -> u32 {
        self.granted
    }

    /// No limit holds any more.
    pub fn lift(&mut self) {
        *self = Self {
            full_at: self.full_at,
            share_until: self.share_until,
            ..Self::default()
        };
    }

    /// Limits have changed: what rests asks again.
    pub fn reconsider(&mut self) {
        self.ready_at = 0;
    }
}

/// The limits of a session, while it handles an event.
#[derive(Debug)]
pub struct Pacing<'a> {
    /// Its directions.
    pub lanes: &'a mut [Lane; 2],
    /// The rates of each session. The buckets of one are in its lanes.
    pub session: &'a Meters,
    /// The others, from the narrowest to the widest.
    pub shared: [Option<SharedLimit<'a>>; SHARED],
    /// It has a backend.
    pub is_connected: bool,
    /// How often a direction rested.
    pub rests: &'a mut u64,
}

impl<'a> Pacing<'a> {
    /// Asks for bytes of a direction at `now`, in ns. `None`: as many as [`Lane::granted`] says may
    /// be taken; else the direction is to rest until that time, and take none. With `streams` they
    /// are paid for in any case.
    pub fn ask(&mut self, way: usize, streams: bool, now: u64) -> Option<u64> {
        let Some(quantum) = self.quantum(way) else {
            self.lanes[way].lift();
            return None;
        };
        let lane = &mut self.lanes[way];
        lane.granted = 0;
        if now < lane.ready_at {
            return Some(lane.ready_at);
        }
        if lane.credit == 0 {
            if lane.paid == 0 {
                let free = Some(self.unpaid(way, now)).filter(|_| !streams).flatten();
                if let Some(bytes) = free {
                    self.lanes[way].granted = bytes;
                    return None;
                }
                self.lanes[way].asked = quantum;
            }
            if let Some(at) = self.pay(way, now) {
                return Some(at);
            }
        }
        let lane = &mut self.lanes[way];
        lane.granted = lane.credit;
        None
    }

    /// Lets a direction take bytes of a buffer without asking: the first bytes of a client.
    pub fn pass(&mut self, way: usize) {
        self.lanes[way].granted = BUFFER_BYTES;
    }

    /// A direction took so many bytes.
    pub fn charge(&mut self, way: usize, bytes: u32, now: u64) {
        let lane = &mut self.lanes[way];
        let paid = bytes.min(lane.credit);
        lane.credit -= paid;
        let unpaid = bytes - paid;
        if unpaid == 0 {
            return;
        }
        lane.owed = lane.owed.saturating_add(unpaid);
        if let Some(rate) = self.session.way(way).rate() {
            self.lanes[way].take(rate, unpaid, now);
        }
        // What came before there is a backend is paid when there is one, to it too.
        if self.is_connected && self.lanes[way].owed >= self.unpaid_most(way).min(OWED_MAX) {
            self.settle(way, now);
        }
    }

    /// The session ends, or has another backend: pays what it owes, and gives back what it did not
    /// take.
    pub fn end(&mut self, now: u64) {
        for way in 0..2 {
            self.settle(way, now);
            let lane = std::mem::take(&mut self.lanes[way]);
            let reserved = if lane.paid > 0 {
                lane.asked
            } else {
                lane.credit
            };
            let paid = if lane.paid > 0 { lane.paid } else { BUCKETS };
            let shared = self
                .shared
                .iter()
                .zip(1..)
                .filter(|(_, stage)| *stage < paid);
            for limit in shared.filter_map(|(limit, _)| limit.as_ref()) {
                if let Some(rate) = limit.rate(way) {
                    limit.put_back(way, rate, reserved);
                }
            }
        }
    }

    /// The rates of a direction with those that share them: 1 for that of the session.
    fn rates(&self, way: usize) -> impl Iterator<Item = (ByteRate, u64)> + use<'_, 'a> {
        let own = self.session.way(way).rate().map(|rate| (rate, 1));
        own.into_iter().chain(self.shared_rates(way))
    }

    fn shared_rates(&self, way: usize) -> impl Iterator<Item = (ByteRate, u64)> + use<'_, 'a> {
        let limits = self.shared.iter().flatten();
        limits.filter_map(move |limit| {
            let rate = limit.rate(way)?;
            Some((rate, limit.users()))
        })
    }

    /// How many bytes a stream takes at a time; `None`: the direction has no limit.
    fn quantum(&self, way: usize) -> Option<u32> {
        self.rates(way).map(|(rate, _)| rate.quantum()).min()
    }

    /// How many bytes may be taken before they are paid for, if any: the session moves little, and
    /// each bucket has them, or all that owe something move little too.
    fn unpaid(&self, way: usize, now: u64) -> Option<u32> {
        let bytes = self.unpaid_most(way);
        let lane = &self.lanes[way];
        if let Some(rate) = self.session.way(way).rate() {
            let ahead = lane.full_at.saturating_sub(now) + rate.time(bytes.into());
            if ahead > rate.ahead() {
                return None;
            }
        }
        if lane.share_until.saturating_sub(now) > self.share_time(way, bytes) {
            return None;
        }
        let mut shared = self.shared.iter().flatten();
        let fits = shared.all(|limit| {
            limit.rate(way).is_none_or(|rate| {
                let taken = limit.taken(way);
                taken.has(rate, bytes, now) || taken.may_owe(rate, now)
            })
        });
        fits.then_some(bytes)
    }

    /// How many bytes a session may take at most before it pays: what half of an equal share gives
    /// in a second. So however many begin at one moment, others that move little wait for seconds
    /// at most until all that is paid.
    fn unpaid_most(&self, way: usize) -> u32 {
        let shares = self.shared_rates(way);
        let shares = shares.map(|(rate, users)| (rate.per_second() / (2 * users)).max(UNPAID_MIN));
        let bursts = self.rates(way).map(|(rate, _)| rate.burst());
        let most = shares.chain(bursts).fold(BUFFER_BYTES.into(), u64::min);
        u32::try_from(most).unwrap_or(BUFFER_BYTES)
    }

    /// Pays for what was asked in one bucket after the other. When a bucket has it only later, the
    /// direction rests until then, and goes on with the next bucket.
    fn pay(&mut self, way: usize, now: u64) -> Option<u64> {
        while self.lanes[way].paid < BUCKETS {
            let bucket = usize::from(self.lanes[way].paid);
            self.lanes[way].paid += 1;
            let (meter, due) = match bucket {
                0 => self.pay_own(way, now),
                _ => self.pay_shared(way, bucket - 1, now),
            };
            if due > now {
                let lane = &mut self.lanes[way];
                lane.ready_at = due;
                *self.rests += 1;
                if let Some(meter) = meter {
                    meter.on_rest(lane.asked);
                }
                return Some(due);
            }
        }
        let lane = &mut self.lanes[way];
        lane.paid = 0;
        lane.credit = lane.asked;
        // Now that the bytes move, not when they were reserved: among many streams that was long
        // ago, and each would seem to move little between two turns.
        let asked = lane.asked;
        self.use_share(way, asked, now);
        None
    }

    fn pay_own(&mut self, way: usize, now: u64) -> (Option<&'a Meter>, u64) {
        let meter = self.session.way(way);
        let lane = &mut self.lanes[way];
        let due = meter
            .rate()
            .map_or(0, |rate| lane.take(rate, lane.asked, now));
        (Some(meter), due)
    }

    fn pay_shared(&self, way: usize, limit: usize, now: u64) -> (Option<&'a Meter>, u64) {
        let Some(limit) = self.shared[limit] else {
            return (None, 0);
        };
        let asked = self.lanes[way].asked;
        let rate = limit.rate(way);
        let due = rate.map_or(0, |rate| limit.take(way, rate, asked, now));
        (Some(limit.meter(way)), due)
    }

    /// Pays what was taken before.
    fn settle(&mut self, way: usize, now: u64) {
        let owed = std::mem::take(&mut self.lanes[way].owed);
        if owed == 0 {
            return;
        }
        for limit in self.shared.iter().flatten() {
            if let Some(rate) = limit.rate(way) {
                limit.owe(way, rate, owed, now);
            }
        }
        self.use_share(way, owed, now);
    }

    /// Takes bytes from the share of the session.
    fn use_share(&mut self, way: usize, bytes: u32, now: u64) {
        let time = self.share_time(way, bytes);
        let most = self.share_time(way, self.unpaid_most(way)) + SHARE_AHEAD_MAX;
        let lane = &mut self.lanes[way];
        let until = lane.share_until.max(now).saturating_add(time);
        lane.share_until = until.min(now.saturating_add(most));
    }

    /// The time of so many bytes at half of an equal share of the tightest limit that is shared.
    fn share_time(&self, way: usize, bytes: u32) -> u64 {
        let rates = self.shared_rates(way);
        let times = rates.map(|(rate, users)| rate.time(bytes.into()).saturating_mul(2 * users));
        times.max().unwrap_or(0)
    }
}

impl Lane {
    /// Takes bytes from the bucket of the session; returns when they may move.
    fn take(&mut self, rate: ByteRate, bytes: u32, now: u64) -> u64 {
        // Emptied under a slower rate, it is no more than empty.
        let most = now + rate.ahead() + rate.time(RECV_BYTES_MAX.into());
        let full_at = self.full_at.clamp(now, most);
        self.full_at = full_at.saturating_add(rate.time(bytes.into()));
        self.full_at.saturating_sub(rate.ahead())
    }
}

#[cfg(test)]
mod tests;

/// Limits that sessions share.
pub const SHARED: usize = 4;
/// With that of the session.
const BUCKETS: u8 = 5;
const _: () = assert!(BUCKETS as usize == SHARED + 1);
/// A session pays what it owes in such pieces: workers write a bucket so much less often.
const OWED_MAX: u32 = 4 << 10;
/// A small message: a session that was idle may receive it, however many share its limit.
const UNPAID_MIN: u64 = 1 << 10;
/// A session that moved much moves little again after so long: 1 s.
const SHARE_AHEAD_MAX: u64 = SECOND;
