//! Connections of proxies: each begins with a header of the PROXY protocol that names its client.
//!
//! A header is looked at where it waits, at the socket (MSG_PEEK), and only a complete one is taken
//! from there, with not a byte of what follows. So an unfinished one takes a socket and a record
//! here, and no buffer. The first look comes with the connection's turn, since nearly all headers
//! have come by then. The others are polled for. Once its header is complete a connection waits for
//! its turn again, as a client that is known.
//!
//! Unfinished headers are bounded by time, by number, and each in its looks. At the number the
//! oldest is refused, not the one that comes: a peer that drips can't keep others out.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use slab::Slab;

use crate::guard::{Action, PeerDenied, PeerStage};
use crate::kernel::{Completion, Done, Interest, Kernel, Manner, Socket};
use crate::peek::Miss;
use crate::peek::proxy_protocol::{self, CheckedTlvs, Endpoints, Header};
use crate::session::CloseReason;
use crate::time::NEVER;
use crate::token::{GENERATION_MASK, Purpose, Token};

use super::accept::Admitted;
use super::completed::{END, FAULT};
use super::refuse::Caller;
use super::{Worker, slot};

/// What a session keeps of the header that it began with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NamedClient {
    /// Who has sent it.
    pub(super) proxy: ProxyPeer,
    /// It is a connection of the proxy's own, such as its health check (LOCAL).
    pub(super) is_own: bool,
    /// The address that the client connected to, where the header says it.
    pub(super) destination: Option<SocketAddr>,
    /// What else it says, checked: [`CheckedTlvs::of_checked`] reads it.
    ///
    /// [`CheckedTlvs::of_checked`]: crate::peek::proxy_protocol::CheckedTlvs::of_checked
    pub(super) tlvs: Box<[u8]>,
}

impl NamedClient {
    /// What else the header says.
    pub(super) fn tlvs(&self) -> CheckedTlvs<'_> {
        CheckedTlvs::of_checked(&self.tlvs)
    }
}

/// The TLVs of the header that a client came with.
pub(super) fn tlvs_of(named: Option<&NamedClient>) -> CheckedTlvs<'_> {
    named.map_or(CheckedTlvs::NONE, NamedClient::tlvs)
}

/// The peer that names clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyPeer {
    /// Its address.
    Tcp(SocketAddr),
    /// It came by a Unix socket.
    Unix,
}

impl ProxyPeer {
    fn address(self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) => Some(address),
            Self::Unix => None,
        }
    }

    fn ip(self) -> Option<IpAddr> {
        self.address().map(|address| address.ip())
    }
}

impl std::fmt::Display for ProxyPeer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix => f.write_str("unix"),
        }
    }
}

/// Who a connection's client is by its header.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct HeaderClient {
    /// The address that counts; `None`: it came by a Unix socket, and the header has none.
    peer: Option<SocketAddr>,
    named: Box<NamedClient>,
}

impl HeaderClient {
    /// The address that rules about clients are asked about; `None`: the connection is the
    /// proxy's own, or has none.
    pub(super) fn asked(&self) -> Option<IpAddr> {
        let peer = self.peer.filter(|_| !self.named.is_own);
        peer.map(|peer| peer.ip())
    }

    /// The client of a header that this peer has sent.
    fn of(header: &Header<'_>, proxy: ProxyPeer) -> Self {
        let (peer, destination) = match header.endpoints {
            Endpoints::Tcp {
                source,
                destination,
            } => (Some(source), Some(destination)),
            Endpoints::Local | Endpoints::Unknown | Endpoints::Unix { .. } => {
                (proxy.address(), None)
            }
        };
        Self {
            peer,
            named: Box::new(NamedClient {
                proxy,
                is_own: header.endpoints == Endpoints::Local,
                destination,
                tlvs: header.tlvs.as_bytes().into(),
            }),
        }
    }

    pub(super) fn caller(&self) -> Caller {
        Caller {
            client: self.peer,
            proxy: Some(self.named.proxy),
        }
    }
}

/// The unfinished headers of a worker.
#[derive(Debug, Default)]
pub(super) struct Headers {
    waiting: Slab<Waiting>,
    /// The deadlines of those that are not decided, with their places.
    deadlines: BTreeSet<(u64, usize)>,
    generation: u32,
}

#[derive(Debug)]
struct Waiting {
    port: usize,
    socket: Socket,
    proxy: ProxyPeer,
    stage: Arc<PeerStage>,
    generation: u32,
    until: u64,
    /// How often it was looked at since its first turn.
    looks: u32,
    /// The poll that is in flight.
    polling: bool,
    /// What becomes of it once nothing is in flight; `None`: its header is unfinished.
    verdict: Option<Verdict>,
}

#[derive(Debug)]
enum Verdict {
    Named(Box<HeaderClient>),
    Refused(CloseReason),
    /// The stop's grace is over.
    Dropped,
}

/// Why a header is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Flaw {
    reason: CloseReason,
    what: String,
}

impl Flaw {
    fn header(what: impl ToString) -> Self {
        let what = what.to_string();
        let reason = CloseReason::ProxyHeader;
        Self { reason, what }
    }

    /// The connection broke: it is no fault of the header.
    fn reset() -> Self {
        let what = String::new();
        let reason = CloseReason::ClientReset;
        Self { reason, what }
    }
}

impl Headers {
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// When the next one is late, in ns.
    pub(super) fn next(&self) -> u64 {
        self.deadlines.first().map_or(NEVER, |(until, _)| *until)
    }

    /// The oldest one that is undecided; with a port, of that port.
    fn oldest(&self, port: Option<usize>) -> Option<usize> {
        let is_of = |key: &usize| port.is_none_or(|port| self.waiting[*key].port == port);
        let mut keys = self.deadlines.iter().map(|(_, key)| *key);
        keys.find(is_of)
    }
}

/// The client of a header in the first bytes of a connection, and the header's length; `None`: more
/// bytes are needed. `last`: none is waited for any more.
///
/// A second header would name another client, and two readers might take different ones. So bytes
/// that begin one are refused, and what may be its beginning is waited for.
fn client_of(
    first: &[u8],
    proxy: ProxyPeer,
    last: bool,
) -> Result<Option<(u32, HeaderClient)>, Flaw> {
    let Some(header) = proxy_protocol::parse(first).map_err(Flaw::header)? else {
        return Ok(None);
    };
    let rest = &first[header.length..];
    match proxy_protocol::version_of(rest) {
        Ok(_) => return Err(Flaw::header("a second PROXY header follows the first")),
        Err(Miss::Incomplete) if !rest.is_empty() && !last => return Ok(None),
        Err(Miss::Incomplete | Miss::Absent) => {}
    }
    let length = u32::try_from(header.length).expect("a header is short");
    Ok(Some((length, HeaderClient::of(&header, proxy))))
}

/// Looks for the header at a socket, and takes it from there once it is complete. `None`: it is
/// not, and so many bytes have come.
fn look(
    kernel: &mut impl Kernel,
    socket: &Socket,
    proxy: ProxyPeer,
    last: bool,
) -> Result<Result<HeaderClient, usize>, Flaw> {
    let first = kernel.bytes_ahead(None, socket);
    let come = first.len();
    let Some((length, client)) = client_of(first, proxy, last)? else {
        return Ok(Err(come));
    };
    match kernel.discard(socket, length) {
        true => Ok(Ok(client)),
        false => Err(Flaw::reset()),
    }
}

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
            false => Err(Flaw {
                reason: CloseReason::ProxyUntrusted,
                what: "it is not in `accept_proxy`".to_owned(),
            }),
        };
        let outcome = match looked {
            Ok(Ok(client)) => Ok(Box::new(client)),
            Err(flaw) => Err(flaw),
            Ok(Err(_)) => {
                let stage = Arc::clone(&proxies.stage);
                let until = self.now.saturating_add(proxies.timeout);
                if self.take_header_place(number, &stage) {
                    let from = (number, socket, proxy);
                    return self.await_header(from, stage, until);
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

    /// Takes a place for an unfinished header; where there is none, the oldest one gives its own
    /// up. `false`: others have all.
    fn take_header_place(&mut self, port: usize, stage: &PeerStage) -> bool {
        // They are not to take all places of sessions, which are counted with them.
        if self.headers.deadlines.len() >= (self.capacity / PART_OF_PLACES).max(1) {
            let oldest = self.headers.oldest(None);
            oldest.into_iter().for_each(|key| self.crowd_out(key));
        }
        for _ in 0..PLACE_TRIES {
            if stage.begin() {
                return true;
            }
            let Some(oldest) = self.headers.oldest(Some(port)) else {
                return false;
            };
            self.crowd_out(oldest);
        }
        stage.begin()
    }

    fn crowd_out(&mut self, key: usize) {
        self.decide(key, Err(crowded()));
    }

    fn await_header(
        &mut self,
        (port, socket, proxy): (usize, Socket, ProxyPeer),
        stage: Arc<PeerStage>,
        until: u64,
    ) {
        let headers = &mut self.headers;
        headers.generation = (headers.generation + 1) & GENERATION_MASK;
        self.ports[port].unnamed += 1;
        let key = headers.waiting.insert(Waiting {
            port,
            socket,
            proxy,
            stage,
            generation: headers.generation,
            until,
            looks: 0,
            polling: false,
            verdict: None,
        });
        headers.deadlines.insert((until, key));
        self.poll_header(key);
    }

    /// Waits for what comes next. A poll for bytes alone would complete at once, again and again,
    /// while some wait.
    fn poll_header(&mut self, key: usize) {
        let waiting = &mut self.headers.waiting[key];
        let token = Token::new(Purpose::Header, waiting.generation, slot::number(key));
        waiting.polling = true;
        self.kernel.poll(token, &waiting.socket, Interest::Bytes);
    }

    /// Something has come for an unfinished header, or its poll has ended.
    #[cold]
    pub(super) fn on_header_bytes(&mut self, completion: Completion) {
        let key = completion.token.slot() as usize;
        let waiting = &mut self.headers.waiting[key];
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
        let come = match looked {
            Ok(Ok(client)) => return self.decide(key, Ok(client)),
            Err(flaw) => return self.decide(key, Err(flaw)),
            Ok(Err(come)) => come,
        };
        let flaw = if events & FAULT != 0 {
            Some(Flaw::reset())
        } else if events & END != 0 && come == 0 {
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
            let Some(&(until, key)) = self.headers.deadlines.first() else {
                return;
            };
            if until > self.now {
                return;
            }
            // It may have come while this thread did not run.
            let waiting = &self.headers.waiting[key];
            let looked = look(&mut self.kernel, &waiting.socket, waiting.proxy, true);
            let verdict = looked.and_then(|client| {
                client.map_err(|come| Flaw {
                    reason: CloseReason::ProxyHeaderTimeout,
                    what: format!("{come} bytes of its PROXY header came in time"),
                })
            });
            self.decide(key, verdict);
        }
    }

    /// The header is complete, or the connection is refused.
    fn decide(&mut self, key: usize, outcome: Result<HeaderClient, Flaw>) {
        let waiting = &self.headers.waiting[key];
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
        let waiting = &mut self.headers.waiting[key];
        if waiting.verdict.replace(verdict).is_none() {
            waiting.stage.finish();
            self.headers.deadlines.remove(&(waiting.until, key));
            if waiting.polling {
                let token = Token::new(Purpose::Header, waiting.generation, slot::number(key));
                self.kernel.cancel(token);
            }
        }
        self.settle(key);
    }

    /// Carries a verdict out, unless a poll is in flight: then its end does.
    fn settle(&mut self, key: usize) {
        if self.headers.waiting[key].polling {
            return;
        }
        let waiting = self.headers.waiting.remove(key);
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
        let keys: Vec<_> = self.headers.waiting.iter().map(|(key, _)| key).collect();
        for key in keys {
            self.end_wait(key, Verdict::Dropped);
        }
    }
}

fn crowded() -> Flaw {
    Flaw {
        reason: CloseReason::ProxyHeadersFull,
        what: "too many PROXY headers are unfinished".to_owned(),
    }
}

/// Counts a flaw that is the peer's.
fn count(stage: &PeerStage, proxy: ProxyPeer, flaw: &Flaw) {
    let denied = PeerDenied::ALL
        .into_iter()
        .find(|denied| CloseReason::from(*denied) == flaw.reason);
    if let Some(denied) = denied {
        stage.count_refused(denied, || match proxy.ip() {
            Some(ip) => format!("{ip}: {}", flaw.what),
            None => flaw.what.clone(),
        });
    }
}

/// Unfinished headers take at most this part of a worker's places for sessions: a quarter.
const PART_OF_PLACES: usize = 4;
/// How often a place is made: another worker may take it first.
const PLACE_TRIES: u32 = 4;
/// How often a header is looked at after its first turn: often enough for a line of version 1 byte
/// by byte.
const LOOKS_MAX: u32 = 128;
/// Late headers that are refused in a turn: others are not to wait for all of them.
const EXPIRED_AT_ONCE: usize = 64;

#[cfg(test)]
mod tests;
