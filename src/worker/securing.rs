//! The handshake of TLS with a backend. It is a part of the connect, within its time: where it
//! fails, the attempt has failed, and another backend may be tried.

use std::sync::Arc;

use crate::kernel::{Buffer, Done, Errno, Interest, Kernel};
use crate::session::{Event, Opening};
use crate::tls::{FailureKind, ServerAt, TlsFailure, TlsStanding};
use crate::token::{Purpose, Side, Token};

use super::Worker;
use super::slot::{Asks, number};
use super::tls::{Step, TlsEnd};
use super::tls_outcomes::count_handshake;
use super::turns::HandshakeStep;

impl<K: Kernel> Worker<K> {
    /// Whether a session waits for another turn to begin a handshake: others took this one.
    pub(super) fn puts_off_handshake(&mut self, key: usize) -> bool {
        let waits = self.turns.is_taken(HandshakeStep::Later);
        if waits {
            self.await_turn(key, Asks::Turn);
        }
        waits
    }

    /// Begins TLS with the backend that a session is connected to, behind its header if it gets
    /// one. `None`: its answer is awaited.
    pub(super) fn begin_tls(&mut self, key: usize, header: Option<Buffer>) -> Option<Event> {
        let slot = &mut self.slots[key];
        let mut told = Vec::new();
        if let Some(header) = header {
            told.extend_from_slice(self.kernel.bytes(header));
            self.kernel.give_back(header.id);
        }
        // Its connect was cancelled too late: nothing would end a wait for the backend.
        if slot.session.is_attempt_over() {
            return Some(Event::ConnectFailed(Errno::CANCELED));
        }
        let backend = slot.target.as_ref().expect("it is connected");
        let server = ServerAt {
            host: backend.host.as_deref(),
            address: &backend.address,
        };
        let pool = slot.plan().pool();
        let begun = pool.tls.as_ref().map(|tls| tls.begins.begin(server))?;
        match begun {
            Ok(records) => slot.put_tls(Side::Backend, TlsEnd::new(records, self.now)),
            Err(failure) => return Some(self.refuse_backend(key, &failure)),
        }
        self.shake(key, &mut [], told)
    }

    /// What the backend answered, or its turn to begin; `None`: its answer is awaited.
    pub(super) fn hear_handshake(
        &mut self,
        key: usize,
        outcome: Result<Done, Errno>,
    ) -> Option<Event> {
        if let Err(errno) = outcome {
            return Some(Event::ConnectFailed(errno));
        }
        let mut bytes = [0; HEARD_AT_ONCE];
        loop {
            if self.slots[key].session.is_attempt_over() {
                return Some(Event::ConnectFailed(Errno::CANCELED));
            }
            if self.turns.is_taken(HandshakeStep::Later) {
                // What has come waits at the socket.
                self.await_turn(key, Asks::Handshake);
                return None;
            }
            let socket = self.slots[key].socket(Side::Backend);
            match self.kernel.hear(socket, &mut bytes) {
                Ok(0) => {
                    let why = "the server closed the connection in the handshake";
                    let failure = TlsFailure::new(FailureKind::Left, why);
                    return Some(self.refuse_backend(key, &failure));
                }
                Ok(length) => {
                    if let Some(event) = self.shake(key, &mut bytes[..length], Vec::new()) {
                        return Some(event);
                    }
                }
                Err(Errno::AGAIN) => {
                    self.await_backend(key);
                    return None;
                }
                Err(errno) => return Some(Event::ConnectFailed(errno)),
            }
        }
    }

    /// Takes in what the backend has said, and says what follows from it, behind what is `told`
    /// anyway. `None`: the handshake goes on.
    fn shake(&mut self, key: usize, bytes: &mut [u8], mut told: Vec<u8>) -> Option<Event> {
        let slot = &mut self.slots[key];
        let is_first = bytes.is_empty();
        let began = self.kernel.now();
        let tls = slot.tls_mut(Side::Backend)?;
        let Step { reply, outcome } = tls.shake(bytes, &mut self.spare);
        self.turns.took(self.kernel.now().saturating_sub(began));
        told.extend_from_slice(&reply);
        let is_heard = told.is_empty() || self.kernel.say(slot.socket(Side::Backend), &told);
        match outcome {
            Err(failure) => Some(self.refuse_backend(key, &failure)),
            // Its socket took nothing yet: there is no room only once it is broken.
            Ok(_) if !is_heard => Some(Event::ConnectFailed(Errno::CONNRESET)),
            Ok(TlsStanding::Handshake) => {
                if is_first {
                    self.await_backend(key);
                }
                None
            }
            Ok(TlsStanding::Open | TlsStanding::Ended) => {
                count_handshake(&mut self.slots[key], Side::Backend, self.now);
                Some(Event::Connected(Opening::Sealed))
            }
        }
    }

    /// The handshake goes on with what the backend says next.
    fn await_backend(&mut self, key: usize) {
        let slot = &mut self.slots[key];
        slot.asks = Asks::Handshake;
        let token = Token::new(Purpose::Connect, slot.generation, number(key));
        self.kernel
            .poll(token, slot.socket(Side::Backend), Interest::Read);
    }

    /// The handshake begins, or goes on, once it is its turn.
    fn await_turn(&mut self, key: usize, asks: Asks) {
        let slot = &mut self.slots[key];
        slot.asks = asks;
        let token = Token::new(Purpose::Connect, slot.generation, number(key));
        self.turns.wait(token, HandshakeStep::Later);
    }

    /// A handshake failed: takes note of why.
    fn refuse_backend(&mut self, key: usize, failure: &TlsFailure) -> Event {
        let slot = &self.slots[key];
        let pool = slot.plan().pool();
        if let (Some(tls), Some(backend)) = (&pool.tls, &slot.target) {
            tls.on_failed((&backend.name, &backend.address), failure);
        }
        let tries = self.slots[key].tries.get_or_insert_default();
        tries.tls_error = Some(Arc::from(&*failure.why));
        Event::ConnectFailed(Errno::TLS_FAILED)
    }
}

/// Bytes that are taken off a socket at a time: most certificates come whole.
const HEARD_AT_ONCE: usize = 8 * 1024;
