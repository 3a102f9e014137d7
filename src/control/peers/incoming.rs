//! Takes connections of the others, finds out who each is, and takes in what members send.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinError, JoinSet};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_rustls::server::TlsStream;

use crate::config::PeerMember;
use crate::prefix::Prefix;

use super::clock::{compare, wall};
use super::counts::{PeerCounts, Refusal};
use super::frame::{Body, Frame};
use super::hub::{Hub, Side};
use super::link::{EntryPace, FrameReader, LinkError, handshake_failure, write};
use super::tls::named;

/// Takes connections. It ends never.
pub(super) async fn accept(hub: Arc<Hub>) {
    let listener = listen(&hub).await;
    take(&hub, || listener.accept()).await;
}

async fn listen(hub: &Hub) -> TcpListener {
    let mut is_told = false;
    loop {
        match TcpListener::bind(hub.settings.listen).await {
            Ok(listener) => return listener,
            Err(error) => tell_once(hub, &mut is_told, &error).await,
        }
        sleep(LISTEN_PAUSE).await;
    }
}

/// Takes connections. It ends never: while there are no descriptors for more, those that are there
/// go on.
pub(super) async fn take<T>(hub: &Arc<Hub>, accept: impl Fn() -> T)
where
    T: Future<Output = io::Result<(TcpStream, SocketAddr)>>,
{
    let mut connections = Connections::new(hub);
    let mut resume_at = Instant::now();
    let mut is_told = false;
    loop {
        let accepted = async {
            sleep_until(resume_at).await;
            accept().await
        };
        tokio::select! {
            accepted = accepted => match accepted {
                Ok((stream, from)) => {
                    is_told = false;
                    connections.on_accepted(stream, from);
                }
                Err(error) if is_of_client(&error) => {}
                Err(error) => {
                    resume_at = Instant::now() + ACCEPT_PAUSE;
                    tell_once(hub, &mut is_told, &error).await;
                }
            },
            Some(done) = connections.tasks.join_next_with_id() => {
                // The task of a connection that another one replaced was aborted.
                let id = done.as_ref().map_or_else(JoinError::id, |(id, _)| *id);
                connections.unknown.retain(|its| its.task.id() != id);
                if let Ok((_, Some(known))) = done {
                    connections.on_known(known).await;
                }
            }
        }
    }
}

async fn tell_once(hub: &Hub, is_told: &mut bool, why: &io::Error) {
    if !std::mem::replace(is_told, true) {
        let at = hub.settings.listen;
        let sentence = format!("cannot take connections of peers at {at}: {why}");
        hub.tell(sentence).await;
    }
}

/// The connections that others have opened.
struct Connections<'a> {
    hub: &'a Arc<Hub>,
    tasks: JoinSet<Option<Known>>,
    /// Those that have not shown who they are, the oldest first.
    unknown: Vec<Unknown>,
    /// Addresses of members, as far as the file has them as such.
    expected: Vec<IpAddr>,
    /// The connection of each member: a newer one takes its place.
    members: Vec<Option<AbortHandle>>,
    /// When a stranger was told last.
    told: Option<Instant>,
}

/// A connection that has not shown whose it is.
struct Unknown {
    /// An IPv6 network is one source: each machine has as many addresses as it likes.
    from: Prefix,
    is_expected: bool,
    task: AbortHandle,
}

/// A connection of a member.
type Known = Result<(usize, TlsStream<TcpStream>), String>;

impl<'a> Connections<'a> {
    fn new(hub: &'a Arc<Hub>) -> Self {
        Self {
            hub,
            tasks: JoinSet::new(),
            unknown: Vec::new(),
            expected: hub.settings.members.iter().filter_map(expected).collect(),
            members: hub.counts.iter().map(|_| None).collect(),
            told: None,
        }
    }

    fn on_accepted(&mut self, stream: TcpStream, from: SocketAddr) {
        let ip = from.ip().to_canonical();
        let is_expected = self.expected.contains(&ip);
        let from_prefix = source(ip);
        self.make_room(from_prefix, is_expected);
        let hub = Arc::clone(self.hub);
        let task = self.tasks.spawn(async move {
            let known = timeout(HANDSHAKE_MAX, identify(&hub, stream)).await;
            let late = || Err("it does not finish the TLS handshake".to_owned());
            let known = known.unwrap_or_else(|_| late());
            Some(known.map_err(|why| format!("{ip}: {why}")))
        });
        self.unknown.push(Unknown {
            from: from_prefix,
            is_expected,
            task,
        });
    }

    /// Ends the oldest connection of a source that has its places, or of all where no place is
    /// left: a member needs one for a moment only. Addresses of members have places of their own.
    fn make_room(&mut self, from: Prefix, is_expected: bool) {
        let of_source = |its: &Unknown| its.from == from && its.is_expected == is_expected;
        let others = |its: &Unknown| !its.is_expected;
        let count = |which: &dyn Fn(&Unknown) -> bool| {
            let all = self.unknown.iter();
            all.filter(|its| which(its)).count()
        };
        let oldest = if count(&of_source) >= UNKNOWN_OF_SOURCE {
            self.unknown.iter().position(of_source)
        } else if !is_expected && count(&others) >= UNKNOWN_MAX {
            self.unknown.iter().position(others)
        } else {
            None
        };
        if let Some(oldest) = oldest {
            self.unknown.remove(oldest).task.abort();
            self.hub.count_stranger();
        }
    }

    async fn on_known(&mut self, known: Known) {
        match known {
            Ok((place, stream)) => {
                let hub = Arc::clone(self.hub);
                let task = self.tasks.spawn(async move {
                    receive(&hub, place, stream).await;
                    None
                });
                if let Some(before) = self.members[place].replace(task) {
                    before.abort();
                }
                // It is there: what this balancer knows is to reach it at once.
                self.hub.retries[place].notify_one();
            }
            Err(why) => {
                let count = self.hub.count_stranger();
                if self.told.is_none_or(|at| at.elapsed() > TELL_PAUSE) {
                    self.told = Some(Instant::now());
                    let sentence = format!("no peer, refused ({count} so far): {why}");
                    self.hub.tell(sentence).await;
                }
            }
        }
    }
}

/// The member that a connection is of, by its certificate.
async fn identify(hub: &Hub, stream: TcpStream) -> Known {
    // Answers are small, and are to arrive at once.
    let _ = stream.set_nodelay(true);
    let identity = match hub.identities.present().await {
        (Some(identity), _) => identity,
        (None, why) => return Err(why.unwrap_or_default()),
    };
    let stream = identity.acceptor.accept(stream).await;
    let stream = stream.map_err(|error| handshake_failure(&error))?;
    let (_, connection) = stream.get_ref();
    let shown = connection.peer_certificates().and_then(<[_]>::first);
    let place = shown.and_then(|certificate| named(certificate, &hub.settings.members));
    match place {
        Some(place) if identity.own != Some(place) => Ok((place, stream)),
        Some(_) => Err("it shows the certificate of this balancer".to_owned()),
        None => Err("its certificate names none of `members`".to_owned()),
    }
}

/// Takes in what a member sends, until that fails.
async fn receive(hub: &Hub, place: usize, stream: TlsStream<TcpStream>) {
    let counts = &hub.counts[place];
    let _receiving = Receiving::new(counts);
    let (mut from, mut to) = tokio::io::split(stream);
    let error = take_frames(hub, place, (&mut from, &mut to)).await;
    match &error {
        LinkError::Frame(_) | LinkError::Order => PeerCounts::add(&counts.malformed, 1),
        LinkError::Clock(_) | LinkError::Silent(_) | LinkError::Stalled(_) => {}
        // It comes again, or the connection to it says what is wrong.
        LinkError::Closed | LinkError::Io(_) | LinkError::Lagged => return,
    }
    let side = Side::Incoming;
    hub.note(place, side, Some(error.to_string())).await;
}

async fn take_frames(
    hub: &Hub,
    place: usize,
    (from, to): (
        &mut (impl AsyncRead + Unpin),
        &mut (impl AsyncWrite + Unpin),
    ),
) -> LinkError {
    let mut reader = FrameReader::default();
    let mut pace = EntryPace::new();
    loop {
        let frame = match timeout(hub.patience, reader.next(from)).await {
            Ok(Ok(frame)) => frame,
            Ok(Err(error)) => return error,
            Err(_) => return LinkError::Silent(hub.patience),
        };
        let entries = frame.entries();
        if let Err(off) = compare(frame.sent, wall()) {
            hub.counts[place].refuse(Refusal::Clock, entries.max(1));
            return LinkError::Clock(off);
        }
        pace.wait(entries).await;
        PeerCounts::add(&hub.counts[place].received, entries);
        match frame.body {
            Body::Bans(bans) => hub.take_bans(&bans, place, None),
            Body::PassedOn(maker, bans) => hub.take_bans(&bans, place, Some(&maker)),
            Body::Clients(clients) => hub.take_clients(&clients, place),
            Body::Synced => hub.note(place, Side::Incoming, None).await,
            Body::Beat => {
                let answer = Frame::now(Body::Ack(frame.sent));
                if let Err(error) = write(to, &answer.bytes(), hub.patience).await {
                    return error;
                }
            }
            Body::Ack(_) => return LinkError::Order,
        }
    }
}

/// A member sends, while this is kept.
struct Receiving<'a>(&'a PeerCounts);

impl<'a> Receiving<'a> {
    fn new(counts: &'a PeerCounts) -> Self {
        counts.receiving.fetch_add(1, Ordering::Relaxed);
        Self(counts)
    }
}

impl Drop for Receiving<'_> {
    fn drop(&mut self) {
        self.0.receiving.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The address of a member that the file has as one.
fn expected(member: &PeerMember) -> Option<IpAddr> {
    let address: SocketAddr = member.address.parse().ok()?;
    Some(address.ip().to_canonical())
}

/// What counts as one source of connections.
fn source(ip: IpAddr) -> Prefix {
    let length = if ip.is_ipv4() { 32 } else { 64 };
    Prefix::new(ip, length).expect("it is as long as an address at most")
}

/// Whether accepting failed by the one who connects.
fn is_of_client(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
    )
}

/// Connections that have not shown who they are, beside those from addresses of members.
const UNKNOWN_MAX: usize = 32;
/// The same of an IPv4 address, or of an IPv6 network of 64 bits.
const UNKNOWN_OF_SOURCE: usize = 4;
/// How long one may take for that.
const HANDSHAKE_MAX: Duration = Duration::from_secs(3);
/// Before listening is tried again.
const LISTEN_PAUSE: Duration = Duration::from_secs(2);
/// Before a connection is taken after that has failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);
/// Strangers are told once in this time.
const TELL_PAUSE: Duration = Duration::from_secs(10);
