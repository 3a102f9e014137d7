//! Where a client goes: its route and its keys, with its first bytes or without them.

use std::net::SocketAddr;

use crate::kernel::{BUFFER_BYTES, Buffer, Kernel, Manner, Socket};
use crate::peek::proxy_protocol::CheckedTlvs;
use crate::peek::{FirstBytes, Protocol};
use crate::route::RouteNumber;
use crate::select::Looked;
use crate::session::{CloseReason, Event, Look, Preamble};
use crate::snapshot::LiveListener;
use crate::token::Side;

use super::decisions::Decisions;
use super::headers::tlvs_of;
use super::slot::Slot;
use super::tls::{TlsEnd, tls_of};
use super::{Stats, Worker};

impl<K: Kernel> Worker<K> {
    /// Looks in the client's first bytes for the key by which its backend is selected.
    #[inline(never)]
    pub(super) fn peek(&mut self, key: usize, first: Option<Buffer>, last: bool) -> Event {
        // Its routes may have changed since its accept. A refusal is found again in its bytes.
        self.adopt_listener(key);
        if self.slots[key].listener.postgres.needs_bytes()
            && let Some(answer) = self.preamble(key, (first, false), last)
        {
            return answer;
        }
        let slot = &mut self.slots[key];
        let takes_hello = first.is_none() && !last && slot.takes_hello();
        let look = match first {
            // The hello does not say whether what is inside cancels a query.
            None if takes_hello && slot.listener.postgres.needs_bytes() => Look::Nothing,
            None if !last && !takes_hello => {
                look_at_silence(slot, &mut self.decisions, &self.stats)
            }
            first => {
                let first = first.map_or(&[][..], |first| self.kernel.bytes(first));
                let look = look_for_keys(slot, (first, last), &mut self.decisions, &self.stats);
                if look.is_last() {
                    let around = slot.around();
                    let first = around.map_or(first, |around| around.hello);
                    self.log_lines.note_first_bytes(key, first);
                }
                look
            }
        };
        self.peeked(key, look)
    }

    /// The same with what waits at the client's socket.
    #[inline(never)]
    pub(super) fn peek_ahead(&mut self, key: usize, first: Option<Buffer>, last: bool) -> Event {
        self.adopt_listener(key);
        if self.slots[key].listener.postgres.needs_bytes()
            && let Some(answer) = self.preamble(key, (first, true), last)
        {
            return answer;
        }
        let slot = &mut self.slots[key];
        let first = self.kernel.bytes_ahead(first, &slot.client);
        let last = last || first.len() >= BUFFER_BYTES as usize;
        let look = look_for_keys(slot, (first, last), &mut self.decisions, &self.stats);
        if look.is_last() {
            self.log_lines.note_first_bytes(key, first);
        }
        self.peeked(key, look)
    }

    /// Tells a client that it is refused, once, where it is to hear that.
    fn peeked(&mut self, key: usize, look: Look) -> Event {
        let slot = &self.slots[key];
        let tells = look == Look::Told && slot.session.reason().is_none();
        let is_heard = !tells || self.kernel.say(&slot.client, &UNRECOGNIZED_NAME);
        Event::Peeked(if is_heard { look } else { Look::Refused })
    }

    /// Closes the client's connection at the end of its session. The kernel resets one that has
    /// bytes unread, which may take from the client what it was told: they are dropped first.
    pub(super) fn close_client(&mut self, client: Socket, manner: Manner, reason: CloseReason) {
        let was_told = matches!(
            reason,
            CloseReason::NoRoute | CloseReason::TlsRefused | CloseReason::TlsFailed
        );
        if was_told && manner == Manner::Graceful {
            self.kernel.hold(&client, false);
        }
        self.kernel.close(client, manner);
    }
}

/// The route of a client that is known without its first bytes, and what its session is to be told
/// where they are not needed, although other clients of the listener are asked for them.
pub(super) fn route_without_bytes(
    listener: &LiveListener,
    peer: Option<SocketAddr>,
    tlvs: CheckedTlvs<'_>,
) -> Option<(RouteNumber, Option<Look>)> {
    if listener.routes.is_empty() {
        return None;
    }
    let nothing_yet = FirstBytes::new(&[], false).behind(tlvs);
    let client = peer.map(|peer| peer.ip());
    let route = listener.routes.decide(client, &nothing_yet)?;
    // One that waits for none connects at once, and is refused there.
    let waits = listener.limits_of(route).peek.is_some();
    let look = match listener.routes.refuses(route) {
        true => Some(Look::Refused),
        // A PostgreSQL client may ask for an answer, or to cancel.
        false if listener.postgres.needs_bytes() => None,
        false => (!listener.plan_of(route).peeks()).then_some(Look::Enough),
    };
    Some((route, look.filter(|_| waits)))
}

/// Takes the route of a client that has sent nothing in its time, where it is one for such clients.
fn look_at_silence(slot: &mut Slot, decisions: &mut Decisions, stats: &Stats) -> Look {
    if slot.session.preamble() == Preamble::Tls {
        // It is to speak next.
        return Look::Nothing;
    }
    let client = slot.peer.map(|peer| peer.ip());
    let silence = FirstBytes::new(&[], true)
        .inside(tls_of(slot.tls.as_deref(), Side::Client).map(TlsEnd::around))
        .behind(tlvs_of(slot.named.as_deref()));
    match slot.listener.routes.decide_silent(client, &silence) {
        Some(_) => look_for_keys(slot, (&[], true), decisions, stats),
        None => Look::Nothing,
    }
}

/// Takes the route and the keys of a client from its first bytes; with `last`, what can be taken of
/// them. A refused client of TLS is to be told. What was parsed of its name is remembered.
fn look_for_keys(
    slot: &mut Slot,
    (first, last): (&[u8], bool),
    decisions: &mut Decisions,
    stats: &Stats,
) -> Look {
    let was_asked = slot.session.preamble() == Preamble::Tls;
    let bytes = FirstBytes::new(first, last)
        .inside(tls_of(slot.tls.as_deref(), Side::Client).map(TlsEnd::around))
        .behind(tlvs_of(slot.named.as_deref()))
        .behind_postgres(was_asked);
    let routes = &slot.listener.routes;
    let is_routed = routes.is_empty() || {
        let decided = routes.decide(slot.peer.map(|peer| peer.ip()), &bytes);
        slot.route = decided.unwrap_or_default();
        decided.is_some()
    };
    let looked = match is_routed {
        _ if routes.refuses(slot.route) => Looked::Nowhere,
        true => slot.plan().look(slot.peer, &bytes),
        false => Looked::Incomplete,
    };
    let look = match looked {
        Looked::Known(keys, missed) => {
            slot.keys = keys;
            if missed > 0 {
                stats.peek_misses.increment();
            }
            Look::Enough
        }
        Looked::Nowhere => refusal_of(&bytes),
        Looked::Incomplete if first.is_empty() => Look::Nothing,
        Looked::Incomplete => Look::HalfSent,
    };
    let name = bytes.known_server_name().filter(|_| look.is_last());
    if let Some(name) = name.copied() {
        decisions.note_name(slot, &name);
    }
    look
}

/// How a client with these first bytes is refused: one that speaks TLS is told.
fn refusal_of(first: &FirstBytes<'_>) -> Look {
    match first.protocol() == Ok(Protocol::Tls) && !first.is_inside() {
        true => Look::Told,
        false => Look::Refused,
    }
}

/// The alert that a TLS server gives a client whose name it does not know (RFC 6066, section 3):
/// fatal, 112, in a record of the version that all but a client's first have (RFC 8446, section
/// 5.1).
const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];
