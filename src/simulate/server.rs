//! A backend as a processor-sharing server.
//!
//! With n requests in service each proceeds at `speed * min(1, cores / n)`. Virtual time is the
//! service that any one request has had since the server was last idle: it is the same for all, so
//! a request is done when virtual time has come to where it began plus its work. Requests wait in a
//! heap by that mark, and each event costs O(log n).

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use super::chance;

/// A server and its requests.
#[derive(Debug)]
pub(super) struct Server {
    cores: f64,
    speed: f64,
    /// The service, in ns at speed 1, of a request that began when the server was last idle.
    virtual_ns: f64,
    /// The time of `virtual_ns`, in ns.
    at: u64,
    requests: BinaryHeap<Reverse<Request>>,
    /// Requests so far: requests that end at the same time leave in the order of their arrival.
    begun: u64,
}

#[derive(Clone, Copy, Debug)]
struct Request {
    /// Its end in virtual time.
    end: f64,
    number: u64,
    session: usize,
}

impl Server {
    /// A server that is idle at time 0. Both numbers are above 0; `cores` need not be whole.
    pub(super) fn new(cores: f64, speed: f64) -> Self {
        Self {
            cores,
            speed,
            virtual_ns: 0.0,
            at: 0,
            requests: BinaryHeap::new(),
            begun: 0,
        }
    }

    /// Its capacity: work in ns at speed 1 for each ns.
    pub(super) fn capacity(&self) -> f64 {
        self.cores * self.speed
    }

    /// A request of a session arrives; `work` is in ns at speed 1.
    pub(super) fn begin(&mut self, session: usize, work: f64, now: u64) {
        self.advance(now);
        self.begun += 1;
        self.requests.push(Reverse(Request {
            end: self.virtual_ns + work,
            number: self.begun,
            session,
        }));
    }

    /// When the next request ends if no other arrives, in ns.
    pub(super) fn next_end(&self) -> Option<u64> {
        let Reverse(first) = self.requests.peek()?;
        let left = (first.end - self.virtual_ns).max(0.0);
        Some(self.at + chance::ceil(left / self.rate()))
    }

    /// Removes a request that ends at `now` and returns its session. Call it at [`Self::next_end`]
    /// until it returns `None`.
    pub(super) fn end(&mut self, now: u64) -> Option<usize> {
        self.advance(now);
        let Reverse(first) = self.requests.peek()?;
        // Times are whole nanoseconds, and floats are not exact.
        if first.end > self.virtual_ns + ROUNDING {
            return None;
        }
        let Reverse(first) = self.requests.pop()?;
        if self.requests.is_empty() {
            self.virtual_ns = 0.0;
        }
        Some(first.session)
    }

    /// Drops all requests.
    pub(super) fn clear(&mut self) {
        self.requests.clear();
        self.virtual_ns = 0.0;
    }

    fn advance(&mut self, now: u64) {
        if !self.requests.is_empty() {
            self.virtual_ns += chance::float(now - self.at) * self.rate();
        }
        self.at = now;
    }

    /// The service of each request, in ns at speed 1 for each ns.
    fn rate(&self) -> f64 {
        let requests = chance::float(self.requests.len() as u64);
        self.speed * (self.cores / requests.max(1.0)).min(1.0)
    }
}

impl Ord for Request {
    fn cmp(&self, other: &Self) -> Ordering {
        let by_end = self.end.total_cmp(&other.end);
        by_end.then(self.number.cmp(&other.number))
    }
}

impl PartialOrd for Request {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Request {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Request {}

/// A request ends when at most this much of its work is left, in ns.
const ROUNDING: f64 = 0.01;

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a server over (arrival, work); answers with (end, session) in order of the ends.
    fn ends(mut server: Server, arrivals: &[(u64, f64)]) -> Vec<(u64, usize)> {
        let mut ends = Vec::new();
        let mut arrivals = arrivals.iter().enumerate().peekable();
        loop {
            let arrival = arrivals.peek().map(|(_, (at, _))| *at);
            let end = server.next_end();
            match (arrival, end) {
                (Some(at), end) if end.is_none_or(|end| at < end) => {
                    let (session, (_, work)) = arrivals.next().unwrap();
                    server.begin(session, *work, at);
                }
                (_, Some(end)) => {
                    while let Some(session) = server.end(end) {
                        ends.push((end, session));
                    }
                }
                _ => return ends,
            }
        }
    }

    #[test]
    fn alone_a_request_takes_its_work() {
        assert_eq!(ends(Server::new(1.0, 1.0), &[(7, 100.0)]), [(107, 0)]);
        assert_eq!(ends(Server::new(4.0, 0.5), &[(7, 100.0)]), [(207, 0)]);
    }

    #[test]
    fn one_core_is_shared() {
        // Both run at half speed from 50 on: the first has 50 left and ends at 150; the second
        // has had 50 by then and goes on alone for its other 50.
        let arrivals = [(0, 100.0), (50, 100.0)];
        assert_eq!(ends(Server::new(1.0, 1.0), &arrivals), [(150, 0), (200, 1)]);
    }

    #[test]
    fn the_small_passes_the_large() {
        // Three on one core: at 30 each has 10, of 90, 30 and 10.
        let arrivals = [(0, 90.0), (0, 30.0), (0, 10.0)];
        let want = [(30, 2), (70, 1), (130, 0)];
        assert_eq!(ends(Server::new(1.0, 1.0), &arrivals), want);
    }

    #[test]
    fn cores_are_not_shared_while_there_are_enough() {
        let arrivals = [(0, 100.0), (10, 100.0), (20, 60.0)];
        // Two cores for three from 20 on, at 2/3 each: the third would need 90 ns, the first has 80
        // left and needs 120. The third ends at 110; the first has 20 left and ends at 130.
        let want = [(110, 2), (130, 0), (140, 1)];
        assert_eq!(ends(Server::new(2.0, 1.0), &arrivals), want);
    }

    #[test]
    fn equals_leave_as_they_came() {
        let arrivals = [(0, 50.0), (0, 50.0)];
        assert_eq!(ends(Server::new(1.0, 1.0), &arrivals), [(100, 0), (100, 1)]);
    }

    #[test]
    fn lost_requests_never_end() {
        let mut server = Server::new(1.0, 1.0);
        server.begin(0, 100.0, 0);
        server.clear();
        assert_eq!((server.next_end(), server.end(1_000)), (None, None));
        server.begin(1, 100.0, 2_000);
        assert_eq!(server.next_end(), Some(2_100));
    }

    #[test]
    fn no_work_is_lost_over_many_requests() {
        // Busy without a gap: the last one ends when all the work is done.
        let arrivals: Vec<_> = (0..10_000_u64)
            .map(|n| (n * 10_000, chance::float(11_000 + n % 7 * 1_000)))
            .collect();
        let work: f64 = arrivals.iter().map(|(_, work)| work).sum();
        let ends = ends(Server::new(1.0, 1.0), &arrivals);
        assert_eq!(ends.len(), 10_000);
        let last = chance::float(ends.last().unwrap().0);
        // Ends are rounded up by less than a nanosecond each.
        assert!((0.0..10_000.0).contains(&(last - work)), "{last} {work}");
    }
}
