//! The TLS of sessions' ends: records into bytes of the session, and back, in buffers of the arena.
//!
//! A record that has not come whole waits in memory of its session, as a buffer is too small for
//! the largest one. It grows by what comes, and goes when nothing waits.

use std::sync::Arc;

use crate::kernel::{BUFFER_BYTES, Buffer, Kernel};
use crate::peek::{BYTES_MAX, ClientHello, EndedTls, Miss};
use crate::session::{Event, Sealed, Unsealed};
use crate::tls::{
    Agreed, ClientIdentity, FailureKind, INCOMING_MAX, PLAIN_MAX, Records, TlsCounts, TlsFailure,
    TlsStanding,
};
use crate::token::Side;

use super::Worker;
use super::report::TlsRecord;
use super::slot::Slot;
use super::spare::Spare;
use super::tls_outcomes::count_handshake;
use super::turns::HandshakeStep;

/// The TLS of a session's ends.
#[derive(Debug, Default)]
pub(super) struct SlotTls([Option<Box<TlsEnd>>; 2]);

/// The TLS of one end of a session.
#[derive(Debug)]
pub(super) struct TlsEnd {
    pub(super) records: Box<dyn Records>,
    /// The beginning of what its client sent, up to the end of its hello; empty once nothing asks
    /// for it any more.
    hello: Vec<u8>,
    /// The hello is whole, or none.
    has_hello: bool,
    /// It is counted among the handshakes of clients that are under way.
    is_shaking: bool,
    /// The peer's hello was answered, or is ours.
    is_answered: bool,
    /// Other handshakes took this turn: what has come was not looked at.
    is_held_up: bool,
    /// The next look is at the hello alone.
    looks_at_hello: bool,
    /// What has come of records that are not whole.
    pub(super) incoming: Vec<u8>,
    /// Bytes of the peer that wait for a buffer.
    plain: Vec<u8>,
    /// Bytes for the peer, which the handshake makes, that wait for a buffer.
    reply: Vec<u8>,
    /// Records that wait for more, or for a buffer.
    sealed: Vec<u8>,
    /// Bytes of the session in records whose end is in `sealed`.
    unpaid: usize,
    pub(super) standing: TlsStanding,
    /// How far the session knows of it.
    told: TlsStanding,
    /// Why it failed.
    pub(super) failure: Option<TlsFailure>,
    /// When it began.
    pub(super) began_at: u64,
    /// How long its handshake took, in µs; 0: it is not done.
    pub(super) took_us: u32,
    /// Who its client is, where that has shown a certificate.
    identity: Option<Arc<ClientIdentity>>,
}

impl SlotTls {
    /// That of a session whose client has TLS.
    pub(super) fn of_client(end: TlsEnd) -> Self {
        Self([Some(Box::new(end)), None])
    }
}

/// The TLS of an end, where it has some. The rest of its slot may change meanwhile.
pub(super) fn tls_of(all: Option<&SlotTls>, side: Side) -> Option<&TlsEnd> {
    all?.0[side as usize].as_deref()
}

/// A step of a handshake with a backend.
pub(super) struct Step {
    /// What it is to be told.
    pub(super) reply: Vec<u8>,
    pub(super) outcome: Result<TlsStanding, TlsFailure>,
}

impl Slot {
    /// The TLS of an end, where it has some.
    pub(super) fn tls(&self, side: Side) -> Option<&TlsEnd> {
        tls_of(self.tls.as_deref(), side)
    }

    pub(super) fn tls_mut(&mut self, side: Side) -> Option<&mut TlsEnd> {
        self.tls.as_mut()?.0[side as usize].as_deref_mut()
    }

    /// An end has TLS from now on.
    pub(super) fn put_tls(&mut self, side: Side, end: TlsEnd) {
        let all = self.tls.get_or_insert_default();
        all.0[side as usize] = Some(Box::new(end));
    }

    /// Who its client is by a certificate, where that has shown one.
    pub(super) fn identity(&self) -> Option<&Arc<ClientIdentity>> {
        self.tls(Side::Client)?.identity()
    }

    /// What the TLS of an end agreed on, or why it did not, for the log.
    pub(super) fn tls_record(&self, side: Side) -> Option<TlsRecord> {
        let mut record = self.tls(side).map(TlsEnd::record);
        let tries = self.tries.as_ref().filter(|_| side == Side::Backend);
        if let Some(why) = tries.and_then(|tries| tries.tls_error.as_deref()) {
            let error = &mut record.get_or_insert_default().error;
            error.get_or_insert_with(|| why.into());
        }
        record
    }

    /// What the TLS of an end counts by.
    pub(super) fn tls_counts(&self, side: Side) -> Option<&TlsCounts> {
        match side {
            Side::Client => self.listener.tls.as_ref().map(|its| &*its.counts),
            Side::Backend => self.plan().pool().tls.as_ref().map(|its| &*its.counts),
        }
    }
}

impl TlsEnd {
    pub(super) fn new(records: Box<dyn Records>, began_at: u64) -> Self {
        Self {
            records,
            hello: Vec::new(),
            has_hello: false,
            is_shaking: false,
            is_answered: true,
            is_held_up: false,
            looks_at_hello: false,
            incoming: Vec::new(),
            plain: Vec::new(),
            reply: Vec::new(),
            sealed: Vec::new(),
            unpaid: 0,
            standing: TlsStanding::Handshake,
            told: TlsStanding::Handshake,
            failure: None,
            began_at,
            took_us: 0,
            identity: None,
        }
    }

    /// That of a client, whose handshake begins.
    pub(super) fn of_client(records: Box<dyn Records>, began_at: u64) -> Self {
        Self {
            is_shaking: true,
            is_answered: false,
            ..Self::new(records, began_at)
        }
    }

    /// Whether it is counted among the handshakes that are under way.
    pub(super) fn is_shaking(&self) -> bool {
        self.is_shaking
    }

    /// How far its handshake is.
    pub(super) fn step(&self) -> HandshakeStep {
        match self.is_answered {
            true => HandshakeStep::Later,
            false => HandshakeStep::Hello,
        }
    }

    /// Whether what has come waits for the turn of its handshake.
    pub(super) fn is_held_up(&self) -> bool {
        self.is_held_up
    }

    /// It is not any more. `true`: it was.
    pub(super) fn ends_shaking(&mut self) -> bool {
        std::mem::take(&mut self.is_shaking)
    }

    /// What it agreed on, for the log.
    fn record(&self) -> TlsRecord {
        let agreed = self.records.agreed();
        let protocol = agreed.protocol.map(String::from_utf8_lossy);
        let is_done = self.took_us > 0;
        TlsRecord {
            version: agreed.version,
            cipher: agreed.cipher,
            protocol: protocol.map(|its| its.into()),
            resumed: is_done.then_some(agreed.resumed),
            took_us: is_done.then_some(self.took_us),
            error: self
                .failure
                .as_ref()
                .map(|failure| failure.why.as_str().into()),
            client: self.identity.clone(),
        }
    }

    /// What it agreed on.
    pub(super) fn agreed(&self) -> Agreed<'_> {
        self.records.agreed()
    }

    /// Who its client is, by a certificate that was verified.
    pub(super) fn identity(&self) -> Option<&Arc<ClientIdentity>> {
        self.identity.as_ref()
    }

    /// Takes what has come.
    fn take_in(&mut self, bytes: &mut [u8], spare: &mut Spare) {
        spare.lend(&mut self.plain);
        spare.lend(&mut self.reply);
        if !self.has_hello {
            self.note_hello(bytes);
        }
        let taken = if self.incoming.is_empty() {
            let taken = self.records.open(bytes, &mut self.plain, &mut self.reply);
            if let Some(left @ [_, ..]) = bytes.get(taken.used..) {
                spare.lend(&mut self.incoming);
                self.incoming.extend_from_slice(left);
            }
            taken
        } else {
            self.incoming.extend_from_slice(bytes);
            let incoming = &mut self.incoming[..];
            let taken = self
                .records
                .open(incoming, &mut self.plain, &mut self.reply);
            self.incoming.drain(..taken.used.min(self.incoming.len()));
            taken
        };
        match taken.standing {
            Ok(standing) => self.standing = standing,
            Err(failure) => self.failure = Some(failure),
        }
        if self.failure.is_none() && self.incoming.len() > INCOMING_MAX {
            let why = "a message of the handshake is too long";
            self.failure = Some(TlsFailure::new(FailureKind::Protocol, why));
        }
        if self.failure.is_some() || self.standing == TlsStanding::Ended {
            // Nothing after it counts.
            self.incoming.clear();
        }
        spare.take_back(&mut self.incoming);
    }

    /// Takes what has come of a handshake with a backend.
    pub(super) fn shake(&mut self, bytes: &mut [u8], spare: &mut Spare) -> Step {
        self.has_hello = true;
        self.take_in(bytes, spare);
        let reply = std::mem::take(&mut self.reply);
        spare.take_back(&mut self.plain);
        self.told = TlsStanding::Open;
        let outcome = match &self.failure {
            Some(failure) => Err(failure.clone()),
            None => Ok(self.standing),
        };
        Step { reply, outcome }
    }

    /// Keeps what has come for another turn.
    fn hold_up(&mut self, bytes: &[u8], spare: &mut Spare) {
        if !self.has_hello {
            self.note_hello(bytes);
        }
        spare.lend(&mut self.incoming);
        self.incoming.extend_from_slice(bytes);
        self.is_held_up = true;
    }

    /// Keeps what the client's hello says: it is gone once it was taken in.
    fn note_hello(&mut self, bytes: &[u8]) {
        // A client may ask for TLS before it.
        let begins = self.incoming.is_empty() && self.records.are_records(bytes);
        if self.hello.is_empty() && !begins {
            return;
        }
        let room = BYTES_MAX - self.hello.len();
        self.hello
            .extend_from_slice(bytes.get(..room).unwrap_or(bytes));
        let is_half = ClientHello::parse(&self.hello) == Err(Miss::Incomplete);
        self.has_hello = !is_half;
        if is_half && self.hello.len() >= BYTES_MAX {
            let why = format!("its hello is longer than {BYTES_MAX} bytes");
            self.failure = Some(TlsFailure::new(FailureKind::Protocol, why));
        }
    }

    /// Whether the next look is at the hello alone. Only the first one is.
    pub(super) fn takes_hello(&mut self) -> bool {
        std::mem::take(&mut self.looks_at_hello)
    }

    /// What routes and headers ask of it, until there is a backend.
    pub(super) fn around(&self) -> EndedTls<'_> {
        EndedTls {
            hello: &self.hello,
            protocol: self.records.agreed().protocol,
            client: self.identity.as_deref(),
        }
    }

    /// What the session is to hear next; the first two go into the buffer that is passed in.
    fn next(&self) -> Next {
        if self.failure.is_some() {
            Next::Failure
        } else if !self.reply.is_empty() {
            Next::Reply
        } else if self.told == TlsStanding::Handshake && self.standing != TlsStanding::Handshake {
            Next::Established
        } else if !self.plain.is_empty() {
            Next::Plain
        } else if self.told != self.standing {
            Next::Ended
        } else {
            Next::Nothing
        }
    }
}

/// What a session hears of its TLS, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Failure,
    Reply,
    Established,
    Plain,
    Ended,
    Nothing,
}

impl<K: Kernel> Worker<K> {
    /// Takes what is in the records of a buffer, or what is left of them.
    #[inline(never)]
    pub(super) fn decrypt(&mut self, key: usize, from: Side, buffer: Option<Buffer>) -> Event {
        let Some(tls) = self.slots[key].tls_mut(from) else {
            debug_assert!(false, "only sessions with TLS ask for it");
            return Event::Decrypted(from, Unsealed::Nothing, false);
        };
        let is_handshake = tls.standing == TlsStanding::Handshake;
        // What was made of that before may go on.
        let has_come = buffer.is_some() || tls.is_held_up;
        let waits = is_handshake && has_come && self.turns.is_taken(tls.step());
        if waits && tls.incoming.len() <= INCOMING_MAX {
            if let Some(buffer) = buffer {
                tls.hold_up(self.kernel.bytes(buffer), &mut self.spare);
                self.kernel.give_back(buffer.id);
            }
            return Event::Decrypted(from, Unsealed::NoBuffer, false);
        }
        if buffer.is_some() | std::mem::take(&mut tls.is_held_up) {
            self.take_records(key, from, buffer);
        }
        let Some(tls) = self.slots[key].tls_mut(from) else {
            return Event::Decrypted(from, Unsealed::Nothing, false);
        };
        let next = tls.next();
        let opened = match next {
            Next::Reply | Next::Plain => {
                let whole = buffer.map(whole).or_else(|| self.kernel.take_buffer());
                let Some(whole) = whole else {
                    return Event::Decrypted(from, Unsealed::NoBuffer, false);
                };
                let is_reply = next == Next::Reply;
                let waiting = if is_reply {
                    &mut tls.reply
                } else {
                    &mut tls.plain
                };
                let filled = pour(&mut self.kernel, waiting, whole);
                self.spare.take_back(waiting);
                if is_reply {
                    Unsealed::Reply(filled)
                } else {
                    Unsealed::Plain(filled)
                }
            }
            Next::Established => {
                tls.told = TlsStanding::Open;
                tls.looks_at_hello = true;
                self.on_established(key);
                return self.end_decrypt(from, buffer, Unsealed::Established, true);
            }
            Next::Ended => {
                tls.told = TlsStanding::Ended;
                Unsealed::Ended
            }
            Next::Failure => {
                let alert = std::mem::take(&mut tls.reply);
                let slot = &self.slots[key];
                // In the middle of a record it would be no alert.
                let told = !alert.is_empty()
                    && !slot.session.is_past_telling(from)
                    && self.kernel.say(slot.socket(from), &alert);
                return self.end_decrypt(from, buffer, Unsealed::Failed(told), false);
            }
            Next::Nothing => Unsealed::Nothing,
        };
        let more = tls.next() != Next::Nothing;
        self.spare.take_back(&mut tls.reply);
        self.spare.take_back(&mut tls.plain);
        let used = matches!(opened, Unsealed::Reply(_) | Unsealed::Plain(_));
        self.end_decrypt(from, buffer.filter(|_| !used), opened, more)
    }

    /// Takes in what has come, in a buffer or before.
    fn take_records(&mut self, key: usize, from: Side, buffer: Option<Buffer>) {
        let Some(tls) = self.slots[key].tls_mut(from) else {
            return;
        };
        let is_handshake = tls.standing == TlsStanding::Handshake;
        let began = if is_handshake { self.kernel.now() } else { 0 };
        let bytes = match buffer {
            Some(buffer) => self.kernel.bytes_mut(buffer),
            None => &mut [],
        };
        tls.take_in(bytes, &mut self.spare);
        if !tls.sealed.is_empty() {
            // It follows the record whose end waits there.
            tls.sealed.append(&mut tls.reply);
        }
        let answers = !tls.is_answered && !tls.reply.is_empty();
        tls.is_answered |= answers;
        if is_handshake {
            self.turns.took(self.kernel.now().saturating_sub(began));
        }
        if answers {
            self.answer_handshake(key);
        }
    }

    /// Nothing asks for the hello of a session any more.
    pub(super) fn forget_hello(&mut self, key: usize) {
        if let Some(tls) = self.slots[key].tls_mut(Side::Client) {
            tls.hello = Vec::new();
        }
    }

    /// The handshake of a client is done.
    fn on_established(&mut self, key: usize) {
        let slot = &self.slots[key];
        if slot.limits().peek.is_none()
            && let Some(around) = slot.around()
        {
            self.log_lines.note_first_bytes(key, around.hello);
        }
        if let Some(tls) = self.slots[key].tls_mut(Side::Client) {
            let certificate = tls.records.peer_certificate();
            tls.identity = certificate.map(|its| Arc::new(ClientIdentity::of(its)));
        }
        count_handshake(&mut self.slots[key], Side::Client, self.now);
        self.end_handshake(key);
    }

    fn end_decrypt(
        &mut self,
        from: Side,
        unused: Option<Buffer>,
        opened: Unsealed,
        more: bool,
    ) -> Event {
        if let Some(buffer) = unused {
            self.kernel.give_back(buffer.id);
        }
        Event::Decrypted(from, opened, more)
    }

    /// Makes records of a buffer's bytes, or hands over the end of those before.
    #[inline(never)]
    pub(super) fn encrypt(&mut self, key: usize, to: Side, buffer: Option<Buffer>) -> Event {
        let nothing = Sealed {
            buffer: None,
            plain: 0,
            held: false,
            full: false,
            failed: false,
        };
        let Some(tls) = self.slots[key].tls_mut(to) else {
            debug_assert!(false, "only sessions with TLS ask for it");
            return Event::Encrypted(to, nothing);
        };
        let mut last = 0;
        if let Some(buffer) = buffer {
            self.spare.lend(&mut tls.sealed);
            let before = tls.sealed.len();
            let bytes = self.kernel.bytes(buffer);
            let sealed = &mut tls.sealed;
            if let Err(failure) = tls.records.seal(bytes, &mut tls.incoming, sealed) {
                // What it says of an end must not be sent: this is a cut.
                tls.failure = Some(failure);
                tls.sealed.clear();
                self.kernel.give_back(buffer.id);
                let failed = true;
                return Event::Encrypted(to, Sealed { failed, ..nothing });
            }
            tls.unpaid += bytes.len();
            last = tls.sealed.len() - before;
        }
        self.hand_over(key, to, (buffer, last))
    }

    /// Makes the record that tells the peer that no more comes.
    #[inline(never)]
    pub(super) fn notify(&mut self, key: usize, to: Side) -> Event {
        if let Some(tls) = self.slots[key].tls_mut(to) {
            self.spare.lend(&mut tls.sealed);
            tls.records.close(&mut tls.incoming, &mut tls.sealed);
        }
        self.hand_over(key, to, (None, 0))
    }

    /// Hands over as many records as fit a buffer: that of the bytes that were encrypted last, or
    /// another one. The last record takes `last` bytes.
    fn hand_over(
        &mut self,
        key: usize,
        to: Side,
        (buffer, last): (Option<Buffer>, usize),
    ) -> Event {
        let mut sealed = Sealed {
            buffer: None,
            plain: 0,
            held: false,
            full: false,
            failed: false,
        };
        let Some(tls) = self.slots[key].tls_mut(to) else {
            return Event::Encrypted(to, sealed);
        };
        if tls.sealed.is_empty() {
            if let Some(buffer) = buffer {
                self.kernel.give_back(buffer.id);
            }
            self.spare.take_back(&mut tls.sealed);
            return Event::Encrypted(to, sealed);
        }
        let whole = buffer.map(whole).or_else(|| self.kernel.take_buffer());
        let Some(whole) = whole else {
            sealed.held = true;
            return Event::Encrypted(to, sealed);
        };
        let filled = pour(&mut self.kernel, &mut tls.sealed, whole);
        let left = tls.sealed.len();
        // The last record counts once its end is sent. Those before it are shorter than a buffer.
        let new = buffer.map_or(0, |buffer| buffer.len as usize);
        let paid = match left {
            0 => tls.unpaid,
            _ if left <= last => tls.unpaid - new,
            _ => 0,
        };
        tls.unpaid -= paid;
        sealed.buffer = Some(filled);
        sealed.plain = u16::try_from(paid).unwrap_or(u16::MAX);
        sealed.held = left > 0;
        sealed.full = left >= FULL;
        self.spare.take_back(&mut tls.sealed);
        Event::Encrypted(to, sealed)
    }
}

/// A buffer's bytes fit one record.
const _: () = assert!(BUFFER_BYTES as usize <= PLAIN_MAX);

/// All of a buffer.
fn whole(buffer: Buffer) -> Buffer {
    Buffer {
        start: 0,
        len: BUFFER_BYTES,
        ..buffer
    }
}

/// Moves the first bytes of what waits into a buffer.
fn pour<K: Kernel>(kernel: &mut K, waiting: &mut Vec<u8>, whole: Buffer) -> Buffer {
    let len = waiting.len().min(whole.len as usize);
    kernel.bytes_mut(whole)[..len].copy_from_slice(&waiting[..len]);
    waiting.drain(..len);
    Buffer {
        len: u32::try_from(len).unwrap_or(whole.len),
        ..whole
    }
}

/// What is held back beyond this fills a buffer of its own: 8 KiB.
const FULL: usize = 8 * 1024;
