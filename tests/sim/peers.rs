//! The network behind the fake kernel: peers act, bytes and resets arrive.

use mahoraga::time::MS;
use mahoraga::token::Side;

use crate::kernel::{FIRST_LISTENER, FakeKernel};
use crate::net::Hold;
use crate::ops::REACTION;
use crate::peer::{Act, Peer};
use crate::scenario::is_local;
use crate::stream::{self, REQUEST};
use crate::world::Event;

impl FakeKernel {
    /// A client connects.
    pub(crate) fn arrive(&mut self, listener: usize) {
        if self.listeners[listener].closed {
            return;
        }
        let drip = self.world.drip;
        let peer = match drip {
            0 => Peer::client(&mut self.random),
            every => Peer::dripping(every, &mut self.random),
        };
        let fd = self.add(Side::Client, peer);
        if drip > 0 {
            self.conn(fd).inbound.stream = REQUEST;
        }
        if self.world.asks {
            self.let_ask(fd);
        }
        if self.world.cancels.is_some() {
            self.let_cancel(fd);
        }
        self.trace.fact("arrive", fd, 0);
        self.conn(fd).listener = listener;
        self.conn(fd).local = is_local(listener);
        if self.world.proxied.contains(&listener) {
            self.begin_with_header(fd);
        }
        self.listeners[listener].backlog.push_back(fd);
        self.wake_ops(FIRST_LISTENER + i32::try_from(listener).expect("few"));
        self.wake_peer(fd);
        self.doom(fd);
    }

    /// A client was refused, and is held: nothing is read from it.
    pub(crate) fn hold_unread(&mut self, fd: i32) {
        self.assert_alone(fd, "hold", |_| true);
        let conn = self.conn(fd);
        assert!(conn.side == Side::Client && conn.partner.is_none() && !conn.held);
        conn.held = true;
        self.trace.see("a refused client is held");
    }

    /// Some peers abort in the middle of any act.
    pub(crate) fn doom(&mut self, fd: i32) {
        if self.random.permille(150) {
            let most = self.random.pick(&[MS, 30 * MS, 300 * MS]);
            let delay = self.random.below(most);
            self.after(delay, Event::Reset(fd));
        }
    }

    /// Something has happened that may let a peer go on with its script.
    pub(crate) fn wake_peer(&mut self, fd: i32) {
        let lag = self.random.lag();
        let peer = &mut self.conn(fd).peer;
        if !peer.acting && !peer.script.is_empty() {
            peer.acting = true;
            self.after(REACTION + lag, Event::Act(fd));
        }
    }

    fn act_after(&mut self, fd: i32, delay: u64) {
        self.conn(fd).peer.acting = true;
        self.after(delay, Event::Act(fd));
    }

    pub(crate) fn act(&mut self, fd: i32) {
        self.conn(fd).peer.acting = false;
        loop {
            let conn = self.conn(fd);
            if conn.awaits_acknowledgement() {
                return self.trace.see("a peer waits for an acknowledgement");
            }
            let gone = matches!(conn.hold, Hold::Closed { .. }) || conn.is_reset();
            let Some(act) = conn.peer.script.front().copied() else {
                return;
            };
            if gone || !self.act_one(fd, act) {
                return;
            }
            self.conn(fd).peer.script.pop_front();
        }
    }

    /// Performs the front act of a script; returns whether it is done.
    fn act_one(&mut self, fd: i32, act: Act) -> bool {
        let now = self.now;
        let conn = self.conn(fd);
        let all_read = conn.outbound.fin && conn.outbound.read == conn.outbound.given;
        match act {
            Act::Header => {
                let pause = self.header_comes(fd);
                if let Some(pause) = pause {
                    self.act_after(fd, pause);
                }
                return pause.is_none();
            }
            Act::Send(left) => return self.peer_sends(fd, left),
            Act::Drip(period) => {
                if conn.inbound_room() > 0 {
                    self.arrive_bytes(fd, 1);
                }
                self.act_after(fd, period);
                return false;
            }
            Act::Echo => {
                let owed = conn.outbound.read - conn.peer.echoed;
                let bytes = owed.min(conn.inbound_room());
                conn.peer.echoed += bytes;
                if bytes > 0 {
                    self.arrive_bytes(fd, bytes);
                }
                return all_read && owed == bytes;
            }
            Act::Await(bytes) => return conn.outbound.read >= bytes || all_read,
            Act::AwaitAnswer => return conn.after_preamble.is_none(),
            Act::AwaitEnd => return all_read,
            Act::Pause(time) => {
                conn.peer.script[0] = Act::Pause(0);
                if time > 0 {
                    self.act_after(fd, time);
                }
                return time == 0;
            }
            Act::Deafen(time) => conn.peer.deaf_until = now + time,
            Act::Sip(time) => conn.peer.sips_until = now + time,
            Act::Fin => {
                conn.inbound.fin = true;
                self.trace.fact("peer ends", fd, 0);
                self.wake_ops(fd);
            }
            Act::Close if conn.waiting() > 0 => self.on_reset(fd),
            Act::Close => {
                conn.inbound.fin = true;
                conn.peer.closed_at = Some(now);
                self.trace.fact("peer closes", fd, 0);
                self.wake_ops(fd);
            }
            Act::Reset => self.on_reset(fd),
        }
        true
    }

    fn peer_sends(&mut self, fd: i32, left: u64) -> bool {
        let room = self.conn(fd).inbound_room();
        let most = left.min(room);
        if most == 0 {
            return left == 0;
        }
        let bytes = if self.random.permille(600) {
            most
        } else {
            self.random.between(1, most)
        };
        self.arrive_bytes(fd, bytes);
        self.conn(fd).peer.script[0] = Act::Send(left - bytes);
        let write_time = self.conn(fd).peer.write_time;
        let delay = REACTION + self.random.below(write_time);
        self.act_after(fd, delay);
        false
    }

    fn arrive_bytes(&mut self, fd: i32, bytes: u64) {
        let now = self.now;
        let conn = self.conn(fd);
        assert!(
            !conn.inbound.fin,
            "a peer of the simulation sends after its FIN"
        );
        if conn.unread() == 0 {
            conn.unread_since = now;
        }
        conn.inbound.written += bytes;
        if !conn.quick {
            conn.owed_since.get_or_insert(now);
        }
        self.trace.fact("peer sends", fd, bytes);
        self.wake_ops(fd);
    }

    pub(crate) fn peer_reads(&mut self, fd: i32) {
        let now = self.now;
        let conn = self.conn(fd);
        conn.peer.reading = false;
        if conn.is_reset() || conn.peer.closed_at.is_some() {
            return;
        }
        if now < conn.peer.deaf_until {
            let delay = conn.peer.deaf_until - now;
            conn.peer.reading = true;
            return self.after(delay, Event::Read(fd));
        }
        let waiting = conn.waiting();
        if waiting > 0 {
            conn.outbound.read_at = now;
        }
        let most = if now < conn.peer.sips_until {
            SIP
        } else {
            conn.peer.read_bytes
        };
        conn.outbound.read += waiting.min(most);
        self.read_on(fd);
        self.wake_ops(fd);
        self.wake_peer(fd);
    }

    fn read_on(&mut self, fd: i32) {
        let now = self.now;
        let conn = self.conn(fd);
        if conn.waiting() > 0 && !conn.peer.reading {
            conn.peer.reading = true;
            let sips = now < conn.peer.sips_until;
            let most = if sips { 20 * MS } else { conn.peer.read_time };
            let delay = REACTION + self.random.below(most);
            self.after(delay, Event::Read(fd));
        }
    }

    /// The peer's RST has arrived.
    pub(crate) fn on_reset(&mut self, fd: i32) {
        let now = self.now;
        let conn = self.conn(fd);
        // After both FINs, or a close on this machine, there is no connection left to reset.
        let over = conn.is_gone() || conn.inbound.fin && conn.outbound.fin;
        if over || conn.is_reset() || matches!(conn.hold, Hold::Closed { .. }) {
            return;
        }
        conn.reset_at = Some(now);
        conn.error_pending = true;
        self.trace.fact("peer resets", fd, 0);
        self.wake_ops(fd);
    }

    /// The balancer sends to a peer: these must be its partner's next bytes. With `more` some of
    /// the last ones wait for what follows.
    pub(crate) fn deliver(&mut self, fd: i32, bytes: &[u8], more: bool) {
        let made = self.take_header(fd, bytes);
        let bytes = &bytes[made..];
        if made > 0 && bytes.is_empty() {
            return self.on_header_sent(fd, more);
        }
        let partner = self.conn(fd).partner.expect("bytes come from a partner");
        self.conn(partner).vain = Default::default();
        let stream = self.conn(partner).inbound.stream;
        let at = self.conn(fd).outbound.given;
        if let Some(wrong) = stream::mismatch(stream, at, bytes) {
            panic!(
                "{fd} gets a foreign, lost or displaced byte at {} of {}",
                at + wrong as u64,
                bytes.len()
            );
        }
        if stream == stream::CANCEL {
            self.on_cancel_sent(at + bytes.len() as u64);
        }
        let now = self.now;
        let conn = self.conn(fd);
        conn.outbound.given += bytes.len() as u64;
        conn.outbound.held += bytes.len() as u64;
        conn.moved_at = now;
        let held = conn.outbound.held;
        let kept = if !more {
            0
        } else if self.random.permille(700) {
            held
        } else {
            // Full segments leave.
            self.random.below(held)
        };
        if kept > 0 {
            self.trace.see("bytes held back for an end");
            self.conn(fd).outbound.held_since = now;
        }
        self.let_go(fd, kept);
    }

    /// A header, or a part of it, went to a peer alone.
    pub(crate) fn on_header_sent(&mut self, fd: i32, more: bool) {
        let partner = self.conn(fd).partner.expect("it names its partner");
        self.conn(partner).vain = Default::default();
        let now = self.now;
        let conn = self.conn(fd);
        conn.moved_at = now;
        if conn.peer.closed_at.is_some() {
            let lag = self.random.lag();
            self.after(lag, Event::Reset(fd));
        }
        if !more {
            self.on_acknowledged(fd);
        }
    }

    /// The bytes held back arrive at the peer, except for this many.
    pub(crate) fn let_go(&mut self, fd: i32, kept: u64) {
        let outbound = &mut self.conn(fd).outbound;
        let arrived = outbound.held - kept;
        outbound.held = kept;
        if arrived == 0 {
            return;
        }
        if self.conn(fd).peer.closed_at.is_some() {
            let lag = self.random.lag();
            self.after(lag, Event::Reset(fd));
        }
        self.on_acknowledged(fd);
        self.read_on(fd);
    }

    /// A packet has acknowledged all bytes of a peer.
    pub(crate) fn on_acknowledged(&mut self, fd: i32) {
        let conn = self.conn(fd);
        let awaited = conn.awaits_acknowledgement();
        conn.established = true;
        conn.owed_since = None;
        if awaited {
            self.wake_peer(fd);
        }
    }
}

/// The most bytes that a peer reads at once while it reads in sips.
const SIP: u64 = 100;
