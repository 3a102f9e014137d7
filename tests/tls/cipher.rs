//! A cipher of the tests' own: records of a kind, a length and bytes, each changed by its place in
//! the stream. A handshake takes three of them.

use mahoraga::tls::{
    Agreed, FailureKind, Foreseen, HelloAsked, Originate, Records, ServerAt, Taken, Terminate,
    TlsFailure, TlsStanding,
};

use crate::peers::PeerTls;

const HELLO: u8 = 1;
const DATA: u8 = 2;
const CLOSE: u8 = 3;
/// Of the balancer's part of the handshake: more than a small send.
const REPLY: usize = 3_000;

fn record(kind: u8, bytes: &[u8], at: &mut u64, out: &mut Vec<u8>) {
    let len = u16::try_from(bytes.len()).expect("a record is short");
    out.push(kind);
    out.extend(len.to_be_bytes());
    for byte in bytes {
        out.push(byte ^ key(*at));
        *at += 1;
    }
}

fn key(at: u64) -> u8 {
    (at.wrapping_mul(31) >> 3).to_le_bytes()[0] | 1
}

/// The first whole record: its kind, its bytes and its length; `Err`: there is none.
fn open(bytes: &[u8], at: &mut u64) -> Result<Option<(u8, Vec<u8>, usize)>, TlsFailure> {
    let [kind, high, low, ..] = bytes else {
        return Ok(None);
    };
    if !(HELLO..=CLOSE).contains(kind) {
        return Err(TlsFailure::new(FailureKind::NotTls, "no record"));
    }
    let end = 3 + usize::from(u16::from_be_bytes([*high, *low]));
    let Some(body) = bytes.get(3..end) else {
        return Ok(None);
    };
    let plain = body.iter().map(|byte| {
        let plain = byte ^ key(*at);
        *at += 1;
        plain
    });
    Ok(Some((*kind, plain.collect(), end)))
}

/// Begins it on the balancer.
#[derive(Debug)]
pub(crate) struct Cipher;

impl Terminate for Cipher {
    fn begin(&self) -> Box<dyn Records> {
        Box::<Balancer>::default()
    }

    fn foresee(&self, _: &HelloAsked<'_>) -> Result<Foreseen, TlsFailure> {
        Ok(Foreseen::default())
    }
}

impl Originate for Cipher {
    fn begin(&self, _: ServerAt<'_>) -> Result<Box<dyn Records>, TlsFailure> {
        Ok(Box::new(Balancer {
            originates: true,
            ..Balancer::default()
        }))
    }
}

#[derive(Debug, Default)]
struct Balancer {
    /// It speaks first.
    originates: bool,
    begun: bool,
    hellos: u8,
    ended: bool,
    /// Places in both streams.
    read: u64,
    written: u64,
}

impl Records for Balancer {
    fn open(&mut self, incoming: &mut [u8], plain: &mut Vec<u8>, reply: &mut Vec<u8>) -> Taken {
        let mut used = 0;
        if self.originates && !std::mem::replace(&mut self.begun, true) {
            record(HELLO, b"hello", &mut self.written, reply);
        }
        let standing = loop {
            match open(&incoming[used..], &mut self.read) {
                Err(failure) => {
                    reply.extend([CLOSE, 0, 0]);
                    break Err(failure);
                }
                Ok(None) => break Ok(self.standing()),
                Ok(Some((kind, bytes, end))) => {
                    used += end;
                    match kind {
                        HELLO => {
                            self.hellos += 1;
                            if self.originates {
                                self.hellos += 1;
                                record(HELLO, b"done", &mut self.written, reply);
                            } else if self.hellos == 1 {
                                record(HELLO, &[7; REPLY], &mut self.written, reply);
                            }
                        }
                        DATA if self.hellos > 1 && !self.ended => plain.extend(bytes),
                        DATA => break Err(TlsFailure::new(FailureKind::Protocol, "too soon")),
                        _ => self.ended = true,
                    }
                }
            }
        };
        Taken { used, standing }
    }

    fn seal(
        &mut self,
        plain: &[u8],
        _incoming: &mut [u8],
        sealed: &mut Vec<u8>,
    ) -> Result<(), TlsFailure> {
        record(DATA, plain, &mut self.written, sealed);
        Ok(())
    }

    fn close(&mut self, _incoming: &mut [u8], sealed: &mut Vec<u8>) {
        record(CLOSE, &[], &mut self.written, sealed);
    }

    fn agreed(&self) -> Agreed<'_> {
        Agreed::default()
    }
}

impl Balancer {
    fn standing(&self) -> TlsStanding {
        match (self.hellos > 1, self.ended) {
            (_, true) => TlsStanding::Ended,
            (true, false) => TlsStanding::Open,
            (false, false) => TlsStanding::Handshake,
        }
    }
}

/// Its peer.
#[derive(Default)]
pub(crate) struct CipherPeer {
    /// It waits for the balancer to begin.
    is_server: bool,
    hellos: u8,
    begun: bool,
    replied: bool,
    closed: bool,
    incoming: Vec<u8>,
    outgoing: Vec<u8>,
    plain: Vec<u8>,
    read: u64,
    written: u64,
}

impl CipherPeer {
    pub(crate) fn server() -> Self {
        Self {
            is_server: true,
            ..Self::default()
        }
    }
}

impl PeerTls for CipherPeer {
    fn feed(&mut self, bytes: &[u8]) -> bool {
        self.incoming.extend(bytes);
        while let Ok(Some((kind, bytes, end))) = open(&self.incoming, &mut self.read) {
            self.incoming.drain(..end);
            match kind {
                HELLO if self.is_server => {
                    self.hellos += 1;
                    self.replied = self.hellos > 1;
                    if !self.replied {
                        record(HELLO, &[7; REPLY], &mut self.written, &mut self.outgoing);
                    }
                }
                HELLO => {
                    self.replied = bytes == [7; REPLY];
                    record(HELLO, b"done", &mut self.written, &mut self.outgoing);
                }
                DATA if self.closed => return false,
                DATA => self.plain.extend(bytes),
                _ => self.closed = true,
            }
        }
        self.incoming.is_empty() || (HELLO..=CLOSE).contains(&self.incoming[0])
    }

    fn outgoing(&mut self) -> Vec<u8> {
        if !self.is_server && !std::mem::replace(&mut self.begun, true) {
            record(HELLO, b"hello", &mut self.written, &mut self.outgoing);
        }
        std::mem::take(&mut self.outgoing)
    }

    fn write(&mut self, bytes: &[u8]) {
        for part in bytes.chunks(16_384) {
            record(DATA, part, &mut self.written, &mut self.outgoing);
        }
    }

    fn close(&mut self) {
        record(CLOSE, &[], &mut self.written, &mut self.outgoing);
    }

    fn plain(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.plain)
    }

    fn is_established(&self) -> bool {
        self.replied
    }

    fn was_closed(&self) -> bool {
        self.closed
    }
}
