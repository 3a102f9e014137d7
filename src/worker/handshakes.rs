//! Bounds how many clients of a listener may be within their handshake of TLS at a time, so that
//! half handshakes do not take all places. Beyond that the oldest is reset, not the one that comes:
//! clients that finish soon get in, whatever the flood of others. One that was answered begins to
//! count as old then.

use std::collections::VecDeque;

use crate::kernel::Kernel;
use crate::session::CloseReason;
use crate::token::Side;

use super::Worker;
use super::accept::Port;
use super::slot::Slot;
use super::tls::TlsEnd;
use super::turns::HandshakeStep;

/// The handshakes of a port's clients that are under way.
#[derive(Debug, Default)]
pub(super) struct Handshakes {
    under_way: usize,
    /// Each, oldest first, and some that are over.
    begun: VecDeque<Begun>,
}

/// A handshake that has begun, or was answered then.
#[derive(Clone, Copy, Debug)]
struct Begun {
    key: usize,
    generation: u32,
    step: HandshakeStep,
}

impl<K: Kernel> Worker<K> {
    /// Has room for one more handshake at a port, whose oldest may be reset for it.
    pub(super) fn make_room_for_handshake(&mut self, port: usize) {
        let max = self.handshakes_max(port);
        while self.ports[port].handshakes.under_way >= max {
            let Some(oldest) = self.ports[port].handshakes.begun.pop_front() else {
                return;
            };
            if self.is_under_way(&oldest) {
                let key = oldest.key;
                self.end_handshake(key);
                self.with_session(key, |session, cx| {
                    session.close(CloseReason::TlsHandshakesFull, cx);
                });
            }
        }
    }

    /// A handshake has begun.
    pub(super) fn begin_handshake(&mut self, key: usize) {
        self.ports[self.slots[key].port].handshakes.under_way += 1;
        self.note_handshake(key, HandshakeStep::Hello);
    }

    /// A handshake was answered, which took time: others are reset before it.
    pub(super) fn answer_handshake(&mut self, key: usize) {
        let is_shaking = self.slots[key].tls(Side::Client);
        if is_shaking.is_some_and(TlsEnd::is_shaking) {
            self.note_handshake(key, HandshakeStep::Later);
        }
    }

    fn note_handshake(&mut self, key: usize, step: HandshakeStep) {
        let slot = &self.slots[key];
        let (port, generation) = (slot.port, slot.generation);
        let handshakes = &mut self.ports[port].handshakes;
        handshakes.begun.push_back(Begun {
            key,
            generation,
            step,
        });
        if handshakes.begun.len() >= (2 * handshakes.under_way).max(SWEPT_MIN) {
            let mut begun = std::mem::take(&mut handshakes.begun);
            begun.retain(|one| self.is_under_way(one));
            self.ports[port].handshakes.begun = begun;
        }
    }

    /// The handshake of a client is over, if it was under way.
    pub(super) fn end_handshake(&mut self, key: usize) {
        let slot = &mut self.slots[key];
        end(&mut self.ports[slot.port], slot);
    }

    /// Whether it is, and has come no further.
    fn is_under_way(&self, one: &Begun) -> bool {
        let slot = self.slots.get(one.key);
        let slot = slot.filter(|slot| slot.generation == one.generation);
        slot.and_then(|slot| slot.tls(Side::Client))
            .is_some_and(|tls| tls.is_shaking() && tls.step() == one.step)
    }

    /// A quarter of the places that the worker has, or that the listener allows it, whichever are
    /// fewer; of the worker's, all listeners with TLS have equal parts.
    fn handshakes_max(&self, port: usize) -> usize {
        let with_tls = self.ports.iter();
        let with_tls = with_tls.filter(|(_, port)| port.listener.tls.is_some());
        let own = self.capacity / with_tls.count().max(1);
        let listener = self.ports[port].listener.connections.max() / self.seat.of.max(1);
        (own.min(listener as usize) / PART_OF_PLACES).max(1)
    }
}

/// The handshake of a client of this port is over, if it was under way.
pub(super) fn end(port: &mut Port, slot: &mut Slot) {
    if slot.tls_mut(Side::Client).is_some_and(TlsEnd::ends_shaking) {
        port.handshakes.under_way -= 1;
    }
}

/// Handshakes under way may take one of so many places.
const PART_OF_PLACES: usize = 4;
/// Fewer notes than this are not looked through for those that are over.
const SWEPT_MIN: usize = 64;
