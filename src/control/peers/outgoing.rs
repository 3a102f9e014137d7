//! Keeps a connection to a member: sends all that is known, and then what changes.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::client::TlsStream;

use crate::control::dial::dial;
use crate::pool::StickyPage;
use crate::time::MS;

use super::clock::wall;
use super::counts::PeerCounts;
use super::frame::{Body, Frame};
use super::hub::{Change, Hub, Side, now};
use super::link::{EntryPace, FrameReader, LinkError, handshake_failure, write};

/// Connects again and again, and sends. It ends never.
pub(super) async fn keep(hub: Arc<Hub>, place: usize) {
    let mut pause = PAUSE_MIN;
    loop {
        let (identity, _) = hub.identities.present().await;
        let is_own = identity.is_some_and(|its| its.own == Some(place));
        hub.counts[place].is_own.store(is_own, Ordering::Relaxed);
        if is_own {
            // The certificate may name another member one day.
            sleep(PAUSE_OWN).await;
            continue;
        }
        let began = Instant::now();
        let why = connect_and_send(&hub, place).await;
        hub.counts[place].is_sending.store(false, Ordering::Relaxed);
        hub.note(place, Side::Outgoing, Some(why)).await;
        if began.elapsed() > LONG {
            pause = PAUSE_MIN;
        }
        // Balancers do not come together.
        tokio::select! {
            () = sleep(pause.mul_f64(1.0 + fastrand::f64() / 2.0)) => {}
            () = hub.retries[place].notified() => {}
        }
        pause = PAUSE_MAX.min(pause * 2);
    }
}

/// Sends until that fails. Answers why.
async fn connect_and_send(hub: &Hub, place: usize) -> String {
    let stream = match connect(hub, place).await {
        Ok(stream) => stream,
        Err(why) => return why,
    };
    let (mut from, mut to) = tokio::io::split(stream);
    let error = tokio::select! {
        error = read_answers(hub, place, &mut from) => error,
        error = send(hub, place, &mut to) => error,
    };
    error.to_string()
}

async fn connect(hub: &Hub, place: usize) -> Result<TlsStream<TcpStream>, String> {
    let member = &hub.settings.members[place];
    let identity = match hub.identities.present().await {
        (Some(identity), _) => identity,
        (None, why) => return Err(why.unwrap_or_default()),
    };
    let (host, port) = member.address.rsplit_once(':').unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let dialed = dial(host, port.parse().unwrap_or_default(), OPEN_MAX).await;
    let stream = dialed.map_err(|error| error.to_string())?;
    // Frames are small, and are to arrive at once.
    let _ = stream.set_nodelay(true);
    let name = ServerName::try_from(member.name.clone()).map_err(|error| error.to_string())?;
    let secured = timeout(OPEN_MAX, identity.connector.connect(name, stream)).await;
    match secured {
        Ok(secured) => secured.map_err(|error| handshake_failure(&error)),
        Err(_) => Err("it does not answer by TLS".to_owned()),
    }
}

/// Takes the answers to beats. The first one says that the member takes this balancer's
/// certificate.
async fn read_answers(hub: &Hub, place: usize, from: &mut (impl AsyncRead + Unpin)) -> LinkError {
    let mut reader = FrameReader::default();
    let mut pace = EntryPace::new();
    let counts = &hub.counts[place];
    loop {
        let frame = match timeout(hub.patience, reader.next(from)).await {
            Ok(Ok(frame)) => frame,
            Ok(Err(error)) => return error,
            Err(_) => return LinkError::Silent(hub.patience),
        };
        let Body::Ack(sent) = frame.body else {
            return LinkError::Order;
        };
        pace.wait(0).await;
        let lag = wall().saturating_sub(sent).div_ceil(MS);
        counts.lag_ms.store(lag, Ordering::Relaxed);
        if !counts.is_sending.swap(true, Ordering::Relaxed) {
            hub.note(place, Side::Outgoing, None).await;
        }
    }
}

/// Sends all that is known, and then changes. Where the member is too slow for those, all again.
pub(super) async fn send(hub: &Hub, place: usize, to: &mut (impl AsyncWrite + Unpin)) -> LinkError {
    let mut changes = hub.changes();
    loop {
        let lagged = match send_all(hub, place, (to, &mut changes)).await {
            Ok(()) => follow(hub, place, (to, &mut changes)).await,
            Err(error) => Err(error),
        };
        match lagged {
            Ok(()) | Err(LinkError::Lagged) => {}
            Err(error) => return error,
        }
        PeerCounts::add(&hub.counts[place].resyncs, 1);
        sleep(RESYNC_PAUSE).await;
        changes = hub.changes();
    }
}

/// Sends all that is known. Beats and changes go in between.
async fn send_all(
    hub: &Hub,
    place: usize,
    (to, changes): (&mut (impl AsyncWrite + Unpin), &mut Receiver<Change>),
) -> Result<(), LinkError> {
    // Its answer says that the connection is in use.
    write(to, &Frame::now(Body::Beat).bytes(), hub.patience).await?;
    for body in hub.known_bans() {
        let frame = Frame::now(body);
        write(to, &frame.bytes(), hub.patience).await?;
        PeerCounts::add(&hub.counts[place].sent, frame.entries());
        // If changes of clients were lost: all clients are yet to be sent.
        send_waiting(hub, place, (to, changes)).await?;
    }
    let (pools, base) = hub.pools();
    let mut has_lost = false;
    for pool in pools {
        let mut page = Some(StickyPage::default());
        while let Some(at) = page {
            let (frames, next) = pool.page(at, base, now());
            page = next;
            for clients in frames {
                let frame = Frame::now(Body::Clients(clients));
                write(to, &frame.bytes(), hub.patience).await?;
                PeerCounts::add(&hub.counts[place].sent, frame.entries());
            }
            has_lost |= send_waiting(hub, place, (to, changes)).await?;
            // Others on this thread have their turn.
            tokio::task::yield_now().await;
        }
    }
    write(to, &Frame::now(Body::Synced).bytes(), hub.patience).await?;
    // Those that were lost may be of clients that were sent before.
    (!has_lost).then_some(()).ok_or(LinkError::Lagged)
}

/// Sends the changes that wait. Answers whether others were lost.
async fn send_waiting(
    hub: &Hub,
    place: usize,
    (to, changes): (&mut (impl AsyncWrite + Unpin), &mut Receiver<Change>),
) -> Result<bool, LinkError> {
    let mut has_lost = false;
    loop {
        match changes.try_recv() {
            Ok(Change::Frame(frame, entries, _)) => {
                write(to, &frame, hub.patience).await?;
                PeerCounts::add(&hub.counts[place].sent, entries);
            }
            Ok(Change::All) => has_lost = true,
            Err(TryRecvError::Empty | TryRecvError::Closed) => return Ok(has_lost),
            Err(TryRecvError::Lagged(_)) => return Err(LinkError::Lagged),
        }
    }
}

/// Sends changes as they come, until the member is too slow for them.
async fn follow(
    hub: &Hub,
    place: usize,
    (to, changes): (&mut (impl AsyncWrite + Unpin), &mut Receiver<Change>),
) -> Result<(), LinkError> {
    loop {
        match changes.recv().await {
            Ok(Change::Frame(frame, entries, since)) if since.elapsed() < AGE_MAX => {
                write(to, &frame, hub.patience).await?;
                PeerCounts::add(&hub.counts[place].sent, entries);
            }
            // The hub outlives its tasks.
            Ok(_) | Err(RecvError::Lagged(_) | RecvError::Closed) => return Ok(()),
        }
    }
}

/// How long connecting, and then TLS, may take.
const OPEN_MAX: Duration = Duration::from_secs(5);
/// Before the next try, up to half longer at random.
const PAUSE_MIN: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// Before this balancer looks again whether a member is itself.
const PAUSE_OWN: Duration = Duration::from_secs(10);
/// A connection that held for so long was well.
const LONG: Duration = Duration::from_secs(30);
/// Before all is sent again to a member that was too slow.
const RESYNC_PAUSE: Duration = Duration::from_secs(1);
/// Changes that have waited for longer are out of date.
const AGE_MAX: Duration = Duration::from_secs(5);
