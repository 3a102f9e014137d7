//! Where a client goes: its route and its keys, with its first bytes or without them.

use std::net::SocketAddr;

use crate::kernel::{BUFFER_BYTES, Buffer, Kernel};
use crate::peek::FirstBytes;
use crate::route::RouteNumber;
use crate::select::Looked;
use crate::session::{Event, Look};
use crate::snapshot::LiveListener;

use super::slot::Slot;
use super::{Stats, Worker};

impl<K: Kernel> Worker<K> {
    /// Looks in the client's first bytes for the key by which its backend is selected.
    #[inline(never)]
    pub(super) fn peek(&mut self, key: usize, first: Option<Buffer>, last: bool) -> Event {
        // Its routes may have changed since its accept. A refusal is found again in its bytes.
        self.adopt_listener(key);
        let slot = &mut self.slots[key];
        let first = first.map_or(&[][..], |first| self.kernel.bytes(first));
        look_for_keys(slot, first, last, &self.stats)
    }

    /// The same with what waits at the client's socket.
    #[inline(never)]
    pub(super) fn peek_ahead(&mut self, key: usize, first: Option<Buffer>, last: bool) -> Event {
        self.adopt_listener(key);
        let slot = &mut self.slots[key];
        let first = self.kernel.bytes_ahead(first, &slot.client);
        let last = last || first.len() >= BUFFER_BYTES as usize;
        look_for_keys(slot, first, last, &self.stats)
    }
}

/// The route of a client that is known without its first bytes, and what its session is to be told
/// where they are not needed, although other clients of the listener are asked for them.
pub(super) fn route_without_bytes(
    listener: &LiveListener,
    peer: Option<SocketAddr>,
) -> Option<(RouteNumber, Option<Look>)> {
    if listener.routes.is_empty() {
        return None;
    }
    let nothing_yet = FirstBytes::new(&[], false);
    let client = peer.map(|peer| peer.ip());
    let route = listener.routes.decide(client, &nothing_yet)?;
    // One that waits for none connects at once, and is refused there.
    let waits = listener.limits_of(route).peek.is_some();
    let look = match listener.routes.refuses(route) {
        true => Some(Look::Refused),
        false => (!listener.plan_of(route).peeks()).then_some(Look::Enough),
    };
    Some((route, look.filter(|_| waits)))
}

/// Takes the route and the keys of a client from its first bytes; with `last`, what can be taken of
/// them.
fn look_for_keys(slot: &mut Slot, first: &[u8], last: bool, stats: &Stats) -> Event {
    let bytes = FirstBytes::new(first, last);
    let routes = &slot.listener.routes;
    let is_routed = routes.is_empty() || {
        let decided = routes.decide(slot.peer.map(|peer| peer.ip()), &bytes);
        slot.route = decided.unwrap_or_default();
        decided.is_some()
    };
    if routes.refuses(slot.route) {
        return Event::Peeked(Look::Refused);
    }
    let looked = match is_routed {
        true => slot.plan().look(slot.peer, &bytes),
        false => Looked::Incomplete,
    };
    match looked {
        Looked::Known(keys, missed) => {
            slot.keys = keys;
            if missed > 0 {
                stats.peek_misses.increment();
            }
            Event::Peeked(Look::Enough)
        }
        Looked::Incomplete if first.is_empty() => Event::Peeked(Look::Nothing),
        Looked::Incomplete => Event::Peeked(Look::HalfSent),
    }
}
