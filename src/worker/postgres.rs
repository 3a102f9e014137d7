//! PostgreSQL's requests that stand before a session: for TLS, for GSSAPI, and to cancel a query.
//!
//! A request for TLS is answered here, so that the hello that follows routes the client. Its
//! backend then gets the request too, and its one byte of an answer is awaited before anything of
//! the client goes there: a server refuses bytes that stand right behind the request
//! (CVE-2021-23222). All that is part of the connect, with its time and its other attempts: the
//! session does not know of it.

use std::collections::HashMap;
use std::net::SocketAddr;

use crate::fault::Fault;
use crate::kernel::{Buffer, Done, Errno, Interest, Kernel};
use crate::peek::client_hello::each_offer;
use crate::peek::postgres::{self, CancelKey, PostgresStart, REQUEST_BYTES, SSL_REQUEST};
use crate::peek::{KeySearch, Miss, Protocol, Searched};
use crate::pool::{CancelPlace, CanceledBy};
use crate::prefix::Prefix;
use crate::session::{Event, Look, Opening, Preamble};
use crate::token::{Purpose, Side, Token};

use super::headers::{ProxyPeer, tlvs_of};
use super::slot::{Asks, Slot, number};
use super::{FailedTry, Worker};

/// The keys of sessions that may be cancelled, by their slots. They are not in the slots, which
/// sessions of other protocols pay for too.
#[derive(Debug, Default)]
pub(super) struct CancelKeys(HashMap<usize, Kept>);

#[derive(Debug)]
enum Kept {
    /// Its backend's answers are searched.
    Searched(Box<KeySearch>),
    Known(CancelKey),
}

/// What first bytes ask for.
enum Request {
    /// Nothing that is answered here.
    None,
    /// That shows with more of them.
    Unclear,
    /// This is the answer.
    Answer(Preamble),
    /// More bytes follow than may before the answer.
    TooMuch,
    /// To cancel a query, of the session of this key.
    Cancel(CancelKey),
}

impl Request {
    fn of(slot: &Slot, first: &[u8], last: bool) -> Self {
        let postgres = &slot.listener.postgres;
        let preamble = slot.session.preamble();
        // Within TLS that ends here nothing is answered in the clear.
        let answers_tls = postgres.answers_tls && slot.tls(Side::Client).is_none();
        let answer = |answer| match first.len() {
            REQUEST_BYTES => Self::Answer(answer),
            _ => Self::TooMuch,
        };
        match postgres::request(first) {
            Err(Miss::Incomplete) if !last && !first.is_empty() => Self::Unclear,
            Ok(PostgresStart::SslRequest) if answers_tls && preamble != Preamble::Tls => {
                answer(Preamble::Tls)
            }
            Ok(PostgresStart::GssRequest) if answers_tls && preamble == Preamble::None => {
                answer(Preamble::Gss)
            }
            Ok(PostgresStart::Cancel { process, key }) if postgres.cancels.is_some() => {
                // A server reads nothing behind it.
                let length = first.first_chunk().map(|bytes| u32::from_be_bytes(*bytes));
                match length.is_some_and(|length| length as usize == first.len()) {
                    true => Self::Cancel(CancelKey::new(process, key)),
                    false => Self::TooMuch,
                }
            }
            Ok(_) | Err(Miss::Incomplete | Miss::Absent) => Self::None,
        }
    }
}

impl<K: Kernel> Worker<K> {
    /// Answers what a client asks for before its session, and finds the session that one would
    /// cancel. `None`: its first bytes are looked at like others.
    pub(super) fn preamble(
        &mut self,
        key: usize,
        (buffer, is_ahead): (Option<Buffer>, bool),
        last: bool,
    ) -> Option<Event> {
        let slot = &self.slots[key];
        if slot.session.reason().is_some() {
            return None;
        }
        let first = match is_ahead {
            true => self.kernel.bytes_ahead(buffer, &slot.client),
            false => buffer.map_or(&[][..], |buffer| self.kernel.bytes(buffer)),
        };
        let has_cancels = slot.listener.postgres.cancels.is_some();
        let look = match Request::of(slot, first, last) {
            Request::None => {
                let asked = slot.session.preamble() != Preamble::None;
                if has_cancels && (asked || may_be_postgres(first)) {
                    let searched = Kept::Searched(Box::default());
                    self.cancel_keys.0.insert(key, searched);
                }
                return None;
            }
            Request::Unclear => Look::HalfSent,
            Request::TooMuch => Look::Refused,
            Request::Cancel(cancel) => {
                let found = self.find_canceled(key, cancel);
                return found.then_some(Event::Peeked(Look::Enough));
            }
            Request::Answer(preamble) => {
                let held = buffer.map_or(0, |buffer| buffer.len as usize);
                let mut rest = [0; REQUEST_BYTES];
                let rest = rest.get_mut(held..).unwrap_or_default();
                let waits = rest.len();
                let is_taken = waits == 0 || self.kernel.hear(&slot.client, rest) == Ok(waits);
                let is_said = is_taken && self.kernel.say(&slot.client, &[answer_to(preamble)]);
                match is_said {
                    true => Look::Answered(preamble),
                    false => Look::Refused,
                }
            }
        };
        Some(Event::Peeked(look))
    }

    /// Sends the client to the backend of the session that it would cancel.
    fn find_canceled(&mut self, key: usize, cancel: CancelKey) -> bool {
        let slot = &mut self.slots[key];
        let Some(cancels) = &slot.listener.postgres.cancels else {
            return false;
        };
        let client = slot.peer.or_else(|| self.kernel.peer(&slot.client));
        let own_ip = client.filter(|client| is_own_address(slot, *client));
        let own_ip = own_ip.map(|client| client.ip());
        let by_key = cancels.find(CanceledBy::Key(cancel));
        let found = by_key.or_else(|| cancels.find(CanceledBy::Client(own_ip?)));
        let Some(place) = found else { return false };
        // Who has the key may ask from anywhere.
        let has = |prefix: &Prefix| {
            by_key.is_some() || own_ip.is_some_and(|own_ip| prefix.contains(own_ip))
        };
        let Some(route) = slot.listener.route_to(place.pool, has) else {
            return false;
        };
        slot.route = route;
        let tlvs = tlvs_of(slot.named.as_deref());
        slot.keys = slot.plan().keys_without_bytes(client, tlvs);
        let tries = slot.tries.get_or_insert_default();
        tries.only = Some(place.backend);
        tries.has_key = by_key.is_some();
        true
    }

    /// The client has asked for TLS: asks its backend first, behind its header if it gets one.
    /// `None`: its answer is awaited.
    pub(super) fn ask_for_tls(&mut self, key: usize, header: Option<Buffer>) -> Option<Event> {
        let slot = &self.slots[key];
        let mut told = SSL_REQUEST.to_vec();
        if let Some(header) = header {
            told.splice(..0, self.kernel.bytes(header).iter().copied());
            self.kernel.give_back(header.id);
        }
        if slot.session.is_attempt_over() {
            return Some(Event::ConnectFailed(Errno::CANCELED));
        }
        let socket = slot.backend.as_ref().expect("it is connected");
        if !self.kernel.say(socket, &told) {
            return Some(Event::ConnectFailed(Errno::CONNRESET));
        }
        self.await_tls(key);
        None
    }

    fn await_tls(&mut self, key: usize) {
        let slot = &mut self.slots[key];
        let token = Token::new(Purpose::Connect, slot.generation, number(key));
        let socket = slot.backend.as_ref().expect("it is connected");
        slot.asks = Asks::ForTls;
        self.kernel.poll(token, socket, Interest::Read);
    }

    /// What the backend answered; `None`: nothing yet.
    pub(super) fn hear_tls(&mut self, key: usize, outcome: Result<Done, Errno>) -> Option<Event> {
        if let Err(errno) = outcome {
            return Some(Event::ConnectFailed(errno));
        }
        let slot = &self.slots[key];
        let socket = slot.backend.as_ref().expect("it is connected");
        // Nothing may come behind the answer before it is used.
        let mut answer = [0; 2];
        match self.kernel.hear(socket, &mut answer) {
            Ok(1) if answer.first() == Some(&answer_to(Preamble::Tls)) => {
                Some(Event::Connected(Opening::Bare))
            }
            Ok(0) => Some(Event::ConnectFailed(Errno::CONNRESET)),
            Ok(length) => {
                let told = self.kernel.say(&slot.client, &HANDSHAKE_FAILURE);
                self.note_tls_refused(key, &answer[..length]);
                Some(Event::TlsRefused(told))
            }
            Err(Errno::AGAIN) if !slot.session.is_attempt_over() => {
                self.await_tls(key);
                None
            }
            Err(errno) => Some(Event::ConnectFailed(errno)),
        }
    }

    /// Takes note of what the backend answered, as of an attempt that failed.
    fn note_tls_refused(&mut self, key: usize, answer: &[u8]) {
        let slot = &self.slots[key];
        let Some(backend) = slot.target.clone() else {
            return;
        };
        slot.listener.postgres.refused.note(|| {
            let pool = &slot.plan().pool().name;
            let (name, address) = (&backend.name, &backend.address);
            let answer = answer.escape_ascii();
            format!("backend `{name}` of pool `{pool}` at {address}: it answered `{answer}`")
        });
        let failed = FailedTry {
            backend,
            fault: Fault::Backend,
            errno: Errno::NO_TLS,
            took: self.now.saturating_sub(slot.session.view().active_at),
        };
        self.note_try(key, failed);
    }

    /// A session has its backend, where others may ask to cancel what it does.
    pub(super) fn note_cancelable(&self, key: usize) {
        let slot = &self.slots[key];
        let Some(cancels) = &slot.listener.postgres.cancels else {
            return;
        };
        if slot.only().is_some() {
            return;
        }
        // Others ask to cancel nothing.
        if !self.cancel_keys.0.contains_key(&key) {
            return;
        }
        let client = slot.peer.or_else(|| self.kernel.peer(&slot.client));
        if let Some(place) = place_of(slot)
            && let Some(client) = client.filter(|client| is_own_address(slot, *client))
        {
            cancels.note(CanceledBy::Client(client.ip()), place);
        }
    }

    /// Bytes of a backend's first answers.
    #[inline(never)]
    pub(super) fn overhear(&mut self, key: usize, bytes: Buffer) {
        let Some(Kept::Searched(search)) = self.cancel_keys.0.get_mut(&key) else {
            return;
        };
        match search.search(self.kernel.bytes(bytes)) {
            Searched::GoesOn => {}
            Searched::Nothing => drop(self.cancel_keys.0.remove(&key)),
            Searched::Found(cancel) => {
                let slot = &self.slots[key];
                if let Some(place) = place_of(slot)
                    && let Some(cancels) = &slot.listener.postgres.cancels
                {
                    cancels.note(CanceledBy::Key(cancel), place);
                    self.cancel_keys.0.insert(key, Kept::Known(cancel));
                }
            }
        }
    }

    /// A session has ended: there is nothing left to cancel.
    pub(super) fn forget_cancelable(&mut self, key: usize, slot: &Slot) {
        // Its listener may have ended to look for them meanwhile.
        let kept = self.cancel_keys.0.remove(&key);
        if let Some(cancels) = &slot.listener.postgres.cancels
            && let Some(Kept::Known(cancel)) = kept
        {
            cancels.forget(CanceledBy::Key(cancel));
        }
    }
}

/// Whether an address is the client's, and not that of a proxy whose header names none: behind it
/// are others too.
fn is_own_address(slot: &Slot, client: SocketAddr) -> bool {
    slot.proxy() != Some(ProxyPeer::Tcp(client))
}

/// Whether first bytes are of a client of PostgreSQL, or of one that may be: direct TLS is told by
/// its protocol (`postgresql`).
fn may_be_postgres(first: &[u8]) -> bool {
    let mut offers = false;
    let _ = each_offer(first, |offer| offers |= offer == b"postgresql");
    offers || Protocol::of(first) == Ok(Protocol::Postgres)
}

fn place_of(slot: &Slot) -> Option<CancelPlace> {
    let backend = slot.target.as_ref()?;
    Some(CancelPlace {
        pool: slot.plan().pool().number,
        backend: backend.number,
    })
}

/// The alert of a TLS server that has nothing in common with its client: fatal, 40 (RFC 8446,
/// section 6).
const HANDSHAKE_FAILURE: [u8; 7] = [21, 3, 3, 0, 2, 2, 40];

/// What a PostgreSQL server answers to a request for encryption.
fn answer_to(preamble: Preamble) -> u8 {
    match preamble {
        Preamble::Tls => b'S',
        Preamble::Gss | Preamble::None => b'N',
    }
}
