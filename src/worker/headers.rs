//! Connections of proxies: each begins with a header of the PROXY protocol that names its client.
//!
//! A header is looked at where it waits, at the socket (MSG_PEEK), and only a complete one is taken
//! from there, with not a byte of what follows. So an unfinished one takes a socket and a record
//! here, and no buffer. The first look comes with the connection's turn, since nearly all headers
//! have come by then. The others are polled for. Once its header is complete a connection waits for
//! its turn again, as a client that is known.
//!
//! Unfinished headers are bounded by time, by number, and each in its looks. Each worker has its
//! part of the number. There its oldest is refused, not the one that comes: a peer that drips can't
//! keep others out.

mod client;
mod waiting;

use std::sync::Arc;

use crate::guard::{Action, PeerStage};
use crate::kernel::{Completion, Done, Interest, Kernel, Manner, Socket};
use crate::session::CloseReason;
use crate::time::MS;
use crate::token::{Purpose, Token};

use super::accept::Admitted;
use super::completed::{END, FAULT};
use super::{Worker, slot};
pub use client::ProxyPeer;
use client::{Flaw, count, look};
pub(super) use client::{HeaderClient, NamedClient, is_own, tlvs_of};
pub(super) use waiting::Headers;
use waiting::{Verdict, Waiting};

impl<K: Kernel> Worker<K> {
    /// Reads the header of a connection whose turn has come, or waits for it.
    #[cold]
    pub(super) fn read_header(&mut self, number: usize, socket: Socket) {
        let port = &self.ports[number];
        let proxy = match (port.is_tcp(), self.kernel.peer(&socket)) {
            (false, _) => ProxyPeer::Unix,
            (true, Some(address)) => ProxyPeer::Tcp(address),
            // It has gone.
            (true, None) => {
                let denial = (CloseReason::ClientReset, Action::Reset);
                return self.refuse(number, socket, None, denial);
            }
        };
        let Some(proxies) = &port.listener.proxies else {
            return self.kernel.close(socket, Manner::Reset);
        };
        let looked = match proxies.stage.trusts(proxy.ip()) {
            true => look(&mut self.kernel, &socket, proxy, false),
            false => Err(untrusted()),
        };
        let outcome = match looked {
            Ok(Ok(client)) => Ok(Box::new(client)),
            Err(flaw) => Err(flaw),
            Ok(Err(lack)) => {
                let stage = Arc::clone(&proxies.stage);
                let until = self.now.saturating_add(match lack.has_header {
                    true => SECOND_HEADER.min(proxies.timeout),
                    false => proxies.timeout,
                });
                if self.take_header_place(number, &stage) {
                    let from = (number, socket, proxy);
                    return self.await_header(Waiting::new(from, stage, until));
                }
                Err(crowded())
            }
        };
        match outcome {
            Ok(client) => self.admit_named(number, socket, *client),
            Err(flaw) => {
                if let Some(proxies) = &self.ports[number].listener.proxies {
                    count(&proxies.stage, proxy, &flaw);
                }
                let denial = (flaw.reason, Action::Reset);
                self.refuse(number, socket, proxy.address(), denial);
            }
        }
    }

    /// Takes a place for an unfinished header; where there is none, the oldest one of the worker
    /// gives its own up. `false`: there is none, as where the limit was lowered.
    fn take_header_place(&mut self, port: usize, stage: &PeerStage) -> bool {
        // They are not to take all places of sessions, which are counted with them.
        if self.headers.unfinished() >= (self.capacity / PART_OF_PLACES).max(1)
            && let Some((_, oldest)) = self.headers.oldest()
        {
            self.crowd_out(oldest);
        }
        let share = stage.unfinished_share(self.seat.worker, self.seat.of);
        for _ in 0..PLACE_TRIES {
            if self.headers.unfinished_of(port) < share && stage.begin() {
                return true;
            }
            let Some(oldest) = self.headers.oldest_of(port) else {
                return false;
            };
            self.crowd_out(oldest);
        }
        false
    }

    fn crowd_out(&mut self, key: usize) {
        self.decide(key, Err(crowded()));
    }

    fn await_header(&mut self, waiting: Waiting) {
        self.ports[waiting.port].unnamed += 1;
        let key = self.headers.insert(waiting);
        self.poll_header(key);
    }

    /// Waits for what comes next. A poll for bytes alone would complete at once, again and again,
    /// while some wait.
    fn poll_header(&mut self, key: usize) {
        let waiting = self.headers.get_mut(key);
        let token = Token::new(Purpose::Header, waiting.generation, slot::number(key));
        waiting.polling = true;
        self.kernel.poll(token, &waiting.socket, Interest::Bytes);
    }

    /// Something has come for an unfinished header, or its poll has ended.
    #[cold]
    pub(super) fn on_header_bytes(&mut self, completion: Completion) {
        let key = completion.token.slot() as usize;
        let waiting = self.headers.get_mut(key);
        assert_eq!(
            waiting.generation,
            completion.token.generation(),
            "a header's place was freed under its poll"
        );
        waiting.polling &= completion.more;
        if waiting.verdict.is_some() {
            return self.settle(key);
        }
        waiting.looks += 1;
        let events = match completion.outcome {
            Ok(Done::Count(events)) => events,
            _ => 0,
        };
        let ends = events & END != 0;
        let looked = look(&mut self.kernel, &waiting.socket, waiting.proxy, ends);
        let lack = match looked {
            Ok(Ok(client)) => return self.decide(key, Ok(client)),
            Err(flaw) => return self.decide(key, Err(flaw)),
            Ok(Err(lack)) => lack,
        };
        if lack.has_header {
            let until = self.now.saturating_add(SECOND_HEADER);
            self.headers.hasten(key, until);
        }
        let waiting = self.headers.get(key);
        let flaw = if events & FAULT != 0 {
            Some(Flaw::reset())
        } else if events & END != 0 && lack.come == 0 {
            // A probe that only connects.
            let (reason, what) = (CloseReason::ClientClosed, String::new());
            Some(Flaw { reason, what })
        } else if events & END != 0 {
            Some(Flaw::header("the connection ended within its PROXY header"))
        } else if waiting.looks >= LOOKS_MAX {
            Some(Flaw::header("its PROXY header comes in too many pieces"))
        } else {
            None
        };
        match flaw {
            Some(flaw) => self.decide(key, Err(flaw)),
            None if completion.more => {}
            None => self.poll_header(key),
        }
    }

    /// Refuses those whose time is over, some in a turn.
    pub(super) fn expire_headers(&mut self) {
        for _ in 0..EXPIRED_AT_ONCE {
            let Some((until, key)) = self.headers.oldest() else {
                return;
            };
            if until > self.now {
                return;
            }
            // It may have come while this thread did not run.
            let waiting = self.headers.get(key);
            let looked = look(&mut self.kernel, &waiting.socket, waiting.proxy, true);
            let verdict = looked.and_then(|client| {
                client.map_err(|lack| Flaw {
                    reason: CloseReason::ProxyHeaderTimeout,
                    what: format!("{} bytes of its PROXY header came in time", lack.come),
                })
            });
            self.decide(key, verdict);
        }
    }

    /// The header is complete, or the connection is refused.
    fn decide(&mut self, key: usize, outcome: Result<HeaderClient, Flaw>) {
        let waiting = self.headers.get(key);
        let proxies = self.ports[waiting.port].listener.proxies.as_ref();
        // Whom the listener trusts may have changed meanwhile.
        let trusts = proxies.is_some_and(|its| its.stage.trusts(waiting.proxy.ip()));
        let outcome = outcome.and_then(|client| trusts.then_some(client).ok_or_else(untrusted));
        let verdict = match outcome {
            Ok(client) => Verdict::Named(Box::new(client)),
            Err(flaw) => {
                count(&waiting.stage, waiting.proxy, &flaw);
                Verdict::Refused(flaw.reason)
            }
        };
        self.end_wait(key, verdict);
    }

    fn end_wait(&mut self, key: usize, verdict: Verdict) {
        if self.headers.decide(key, verdict) {
            let waiting = self.headers.get(key);
            waiting.stage.finish();
            if waiting.polling {
                let token = Token::new(Purpose::Header, waiting.generation, slot::number(key));
                self.kernel.cancel(token);
            }
        }
        self.settle(key);
    }

    /// Carries a verdict out, unless a poll is in flight: then its end does.
    fn settle(&mut self, key: usize) {
        if self.headers.get(key).polling {
            return;
        }
        let waiting = self.headers.remove(key);
        let number = waiting.port;
        self.ports[number].unnamed -= 1;
        self.ports_changed |= self.ports_due != u64::MAX || self.ports[number].is_left();
        match waiting.verdict {
            Some(Verdict::Named(client)) => self.arrive(number, waiting.socket, Some(client)),
            Some(Verdict::Refused(reason)) => {
                let client = waiting.proxy.address();
                self.refuse(number, waiting.socket, client, (reason, Action::Reset));
            }
            Some(Verdict::Dropped) | None => {
                self.kernel.close(waiting.socket, Manner::Reset);
            }
        }
    }

    /// Takes a client in that a proxy has named, if the rules about clients allow it. One that is
    /// refused is reset, whatever they say: to hold it would take a connection from its proxy, and
    /// so from others.
    pub(super) fn admit_named(&mut self, number: usize, socket: Socket, client: HeaderClient) {
        let stage = self.ports[number].client_stage(&self.snapshot);
        let admitted = match client.named.is_own {
            true => stage.admit_own(self.now),
            false => stage.admit(client.peer.map(|peer| peer.ip()), self.now),
        };
        match admitted {
            Ok(pass) => self.seat(
                number,
                Admitted {
                    socket,
                    peer: client.peer,
                    named: Some(client.named),
                    pass,
                },
            ),
            Err(denied) => {
                let reason = denied.by.into();
                self.note_offence(&self.ports[number].listener, client.peer, reason);
                self.refuse(number, socket, client.caller(), (reason, Action::Reset));
            }
        }
    }

    /// Closes what waits for its header: the stop's grace is over.
    pub(super) fn drop_headers(&mut self) {
        for key in self.headers.keys() {
            self.end_wait(key, Verdict::Dropped);
        }
    }
}

fn untrusted() -> Flaw {
    Flaw {
        reason: CloseReason::ProxyUntrusted,
        what: "it is not in `accept_proxy`".to_owned(),
    }
}

fn crowded() -> Flaw {
    Flaw {
        reason: CloseReason::ProxyHeadersFull,
        what: "too many PROXY headers are unfinished".to_owned(),
    }
}

/// Unfinished headers take at most this part of a worker's places for sessions: a quarter.
const PART_OF_PLACES: usize = 4;
/// Headers that give their places up for one: a limit that was lowered takes more than one away.
const PLACE_TRIES: u32 = 16;
/// How often a header is looked at after its first turn: often enough for a line of version 1 byte
/// by byte.
const LOOKS_MAX: u32 = 128;
/// Bytes behind a header that may begin a second one are the client's own after 200 ms: a sender
/// of two headers writes them together. A client that has typed just `P`, or an empty line, is not
/// to wait for longer.
const SECOND_HEADER: u64 = 200 * MS;
/// Late headers that are refused in a turn: others are not to wait for all of them.
const EXPIRED_AT_ONCE: usize = 64;
