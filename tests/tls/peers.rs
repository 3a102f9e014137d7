//! The peers of a balancer: clients and backends, inside of some kind of TLS or without.

use std::collections::VecDeque;

use fastrand::Rng;
use mahoraga::peek::postgres::SSL_REQUEST;

/// A peer's side of a kind of TLS.
pub(crate) trait PeerTls {
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

/// A client that asks for TLS first, as those of PostgreSQL do.
pub(crate) struct Asking {
    inner: Box<dyn PeerTls>,
    has_asked: bool,
    is_answered: bool,
}

impl Asking {
    pub(crate) fn new(inner: Box<dyn PeerTls>) -> Self {
        Self {
            inner,
            has_asked: false,
            is_answered: false,
        }
    }
}

impl PeerTls for Asking {
    fn feed(&mut self, bytes: &[u8]) -> bool {
        match bytes.split_first() {
            Some((answer, rest)) if !self.is_answered => {
                assert_eq!((*answer, rest), (b'S', &b""[..]));
                self.is_answered = true;
                true
            }
            _ => self.inner.feed(bytes),
        }
    }

    fn outgoing(&mut self) -> Vec<u8> {
        if !std::mem::replace(&mut self.has_asked, true) {
            SSL_REQUEST.to_vec()
        } else if self.is_answered {
            self.inner.outgoing()
        } else {
            Vec::new()
        }
    }

    fn write(&mut self, bytes: &[u8]) {
        self.inner.write(bytes);
    }

    fn close(&mut self) {
        self.inner.close();
    }

    fn plain(&mut self) -> Vec<u8> {
        self.inner.plain()
    }

    fn is_established(&self) -> bool {
        self.inner.is_established()
    }

    fn was_closed(&self) -> bool {
        self.inner.was_closed()
    }
}

/// A backend that is asked for TLS first, as those of PostgreSQL are.
pub(crate) struct Asked {
    inner: Box<dyn PeerTls>,
    request: Vec<u8>,
    has_answered: bool,
}

impl Asked {
    pub(crate) fn new(inner: Box<dyn PeerTls>) -> Self {
        Self {
            inner,
            request: Vec::new(),
            has_answered: false,
        }
    }
}

impl PeerTls for Asked {
    fn feed(&mut self, bytes: &[u8]) -> bool {
        if self.request.len() == SSL_REQUEST.len() {
            return self.inner.feed(bytes);
        }
        self.request.extend(bytes);
        assert!(SSL_REQUEST.starts_with(&self.request), "nothing behind it");
        true
    }

    fn outgoing(&mut self) -> Vec<u8> {
        if self.request.len() < SSL_REQUEST.len() {
            Vec::new()
        } else if !std::mem::replace(&mut self.has_answered, true) {
            b"S".to_vec()
        } else {
            self.inner.outgoing()
        }
    }

    fn write(&mut self, bytes: &[u8]) {
        self.inner.write(bytes);
    }

    fn close(&mut self) {
        self.inner.close();
    }

    fn plain(&mut self) -> Vec<u8> {
        self.inner.plain()
    }

    fn is_established(&self) -> bool {
        self.inner.is_established()
    }

    fn was_closed(&self) -> bool {
        self.inner.was_closed()
    }
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

/// A peer with what it sends, and what it has got.
pub(crate) struct Talker {
    pub(crate) is_client: bool,
    pub(crate) tls: Option<Box<dyn PeerTls>>,
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

impl Talker {
    pub(crate) fn new(is_client: bool, tls: Option<Box<dyn PeerTls>>, random: &mut Rng) -> Self {
        let end = match (random.u8(..20), &tls) {
            (0..8, _) => End::Told,
            (8..15, _) => End::Follows,
            (15..17, Some(_)) => End::Cut,
            (19, Some(_)) => End::Garbage,
            _ => End::Reset,
        };
        Self {
            is_client,
            tls,
            left: amount(random),
            sent: 0,
            got: 0,
            end,
            has_ended: false,
            outgoing: VecDeque::new(),
        }
    }

    pub(crate) fn is_established(&self) -> bool {
        self.tls.as_ref().is_none_or(|tls| tls.is_established())
    }

    /// Does something; `heard_end`: the end of its connection has come. Answers how that is to end,
    /// once it is to.
    pub(crate) fn act(&mut self, heard_end: bool, random: &mut Rng) -> Option<End> {
        let mut ends = None;
        let is_established = self.is_established();
        if is_established && self.left > 0 && self.outgoing.len() < 60_000 {
            let part = random.u64(1..=self.left.min(40_000));
            let bytes = bytes(self.is_client, self.sent, part);
            match &mut self.tls {
                Some(tls) => tls.write(&bytes),
                None => self.outgoing.extend(bytes),
            }
            self.sent += part;
            self.left -= part;
        }
        let other_ended = self.tls.as_ref().map_or(heard_end, |tls| tls.was_closed());
        // Two that wait for each other's end would never end.
        let gives_up = !self.is_client && random.u8(..40) == 0;
        let may_end = self.end != End::Follows || other_ended || gives_up;
        // Some leave in their handshake.
        let leaves = !is_established && self.end == End::Reset && random.u8(..30) == 0;
        let is_done = is_established && self.left == 0;
        if (is_done && may_end || leaves) && !self.has_ended {
            self.has_ended = true;
            match (self.end, &mut self.tls) {
                (End::Told | End::Follows, Some(tls)) => tls.close(),
                (End::Garbage, _) => self.outgoing.extend(std::iter::repeat_n(0xEE, 300)),
                (End::Told | End::Follows | End::Cut | End::Reset, _) => {}
            }
            ends = Some(self.end);
        }
        if let Some(tls) = &mut self.tls {
            self.outgoing.extend(tls.outgoing());
        }
        ends
    }

    /// Takes bytes of the balancer, and checks those of the other peer that are in them.
    pub(crate) fn take(&mut self, bytes: &[u8]) {
        let plain = match &mut self.tls {
            None => bytes.to_vec(),
            Some(tls) => {
                // An alert may overtake records that it makes useless.
                let is_read = tls.feed(bytes) || self.end == End::Garbage && self.has_ended;
                assert!(
                    is_read,
                    "{:?}: the balancer's records can't be read",
                    self.end
                );
                tls.plain()
            }
        };
        for got in plain {
            let at = self.got;
            assert_eq!(
                got,
                byte(!self.is_client, at),
                "byte {at} of the other peer"
            );
            self.got += 1;
        }
    }
}
