//! The peers of a balancer: clients inside of some kind of TLS, and backends without.

use std::collections::VecDeque;

use fastrand::Rng;

/// The client's side of a kind of TLS.
pub(crate) trait ClientTls {
    /// Takes bytes of the balancer. `false`: they can't be read.
    fn feed(&mut self, bytes: &[u8]) -> bool;
    /// Takes out what is to be sent.
    fn outgoing(&mut self) -> Vec<u8>;
    /// Sends bytes inside of it; before the handshake is done they wait.
    fn write(&mut self, bytes: &[u8]);
    /// Says that no more is sent.
    fn close(&mut self);
    /// What has come inside of it.
    fn plain(&mut self) -> Vec<u8>;
    fn is_established(&self) -> bool;
    /// The balancer has said that no more comes.
    fn was_closed(&self) -> bool;
}

/// How a peer ends what it sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// In order, once all is sent.
    Told,
    /// In order, once the other one has ended.
    Follows,
    /// By the end of its connection alone.
    Cut,
    /// By a reset.
    Reset,
    /// By garbage.
    Garbage,
}

/// A client with what it sends, and what it has got.
pub(crate) struct Client {
    pub(crate) tls: Box<dyn ClientTls>,
    /// Bytes that it still sends.
    left: u64,
    pub(crate) sent: u64,
    pub(crate) got: u64,
    pub(crate) end: End,
    /// It has ended what it sends.
    pub(crate) has_ended: bool,
    /// For the connection.
    pub(crate) outgoing: VecDeque<u8>,
}

/// A backend with what it sends, and what it has got.
pub(crate) struct Backend {
    left: u64,
    pub(crate) sent: u64,
    pub(crate) got: u64,
    pub(crate) end: End,
    pub(crate) has_ended: bool,
    pub(crate) outgoing: VecDeque<u8>,
}

/// The byte at a place of what a client, or a backend, sends.
pub(crate) fn byte(from_client: bool, at: u64) -> u8 {
    let mixed = at.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40;
    mixed.to_le_bytes()[0] ^ if from_client { 0x5A } else { 0 }
}

fn bytes(from_client: bool, from: u64, count: u64) -> Vec<u8> {
    (from..from + count)
        .map(|at| byte(from_client, at))
        .collect()
}

/// An amount: often small, sometimes more than buffers hold.
fn amount(random: &mut Rng) -> u64 {
    match random.u8(..4) {
        0 => 0,
        1 => random.u64(1..200),
        2 => random.u64(1..20_000),
        _ => random.u64(1..150_000),
    }
}

impl Client {
    pub(crate) fn new(tls: Box<dyn ClientTls>, random: &mut Rng) -> Self {
        let end = match random.u8(..20) {
            0..8 => End::Told,
            8..15 => End::Follows,
            15..17 => End::Cut,
            17..19 => End::Reset,
            _ => End::Garbage,
        };
        Self {
            tls,
            left: amount(random),
            sent: 0,
            got: 0,
            end,
            has_ended: false,
            outgoing: VecDeque::new(),
        }
    }

    /// Does something. Answers how its connection is to end, once it is to.
    pub(crate) fn act(&mut self, random: &mut Rng) -> Option<End> {
        let mut ends = None;
        if self.tls.is_established() && self.left > 0 && self.outgoing.len() < 60_000 {
            let part = random.u64(1..=self.left.min(40_000));
            self.tls.write(&bytes(true, self.sent, part));
            self.sent += part;
            self.left -= part;
        }
        let is_done = self.tls.is_established() && self.left == 0;
        let may_end = self.end != End::Follows || self.tls.was_closed();
        // Some leave in their handshake.
        let leaves = !self.tls.is_established() && self.end == End::Reset && random.u8(..30) == 0;
        if (is_done && may_end || leaves) && !self.has_ended {
            self.has_ended = true;
            match self.end {
                End::Told | End::Follows => self.tls.close(),
                End::Garbage => self.outgoing.extend(std::iter::repeat_n(0xEE, 300)),
                End::Cut | End::Reset => {}
            }
            ends = Some(self.end);
        }
        let out = self.tls.outgoing();
        self.outgoing.extend(out);
        ends
    }

    /// Takes bytes of the balancer, and checks those of the backend that are in them.
    pub(crate) fn take(&mut self, bytes: &[u8]) {
        // An alert may overtake records that it makes useless.
        let is_read = self.tls.feed(bytes) || self.end == End::Garbage && self.has_ended;
        assert!(
            is_read,
            "{:?}: the balancer's records can't be read",
            self.end
        );
        for got in self.tls.plain() {
            assert_eq!(
                got,
                byte(false, self.got),
                "byte {} of the backend",
                self.got
            );
            self.got += 1;
        }
    }
}

impl Backend {
    pub(crate) fn new(random: &mut Rng) -> Self {
        let end = match random.u8(..10) {
            0..4 => End::Told,
            4..9 => End::Follows,
            _ => End::Reset,
        };
        Self {
            left: amount(random),
            sent: 0,
            got: 0,
            end,
            has_ended: false,
            outgoing: VecDeque::new(),
        }
    }

    /// The same; `client_ended`: the end of the client's stream has come.
    pub(crate) fn act(&mut self, client_ended: bool, random: &mut Rng) -> Option<End> {
        if self.left > 0 && self.outgoing.len() < 60_000 {
            let part = random.u64(1..=self.left.min(40_000));
            self.outgoing.extend(bytes(false, self.sent, part));
            self.sent += part;
            self.left -= part;
        }
        // Two that wait for each other's end would never end.
        let may_end = self.end != End::Follows || client_ended || random.u8(..40) == 0;
        if self.left == 0 && may_end && !self.has_ended {
            self.has_ended = true;
            return Some(self.end);
        }
        None
    }

    pub(crate) fn take(&mut self, bytes: &[u8]) {
        for got in bytes {
            assert_eq!(
                *got,
                byte(true, self.got),
                "byte {} of the client",
                self.got
            );
            self.got += 1;
        }
    }
}
