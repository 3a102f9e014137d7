//! The servers of the API, inside the control thread's runtime. A client that stalls delays its own
//! connection only, and a deadline ends that. Whatever a client sends, it gets a bounded share of
//! each turn of the runtime: one answer, one read, and some pieces of a body.

use std::future::pending;
use std::io;
use std::net::{self as tcp, SocketAddr};
use std::os::fd::AsFd;
use std::os::unix::net;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context as TaskContext, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::UnixStream;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::{Sleep, sleep, timeout};

use super::Handle;
use super::access::{Access, HttpAccess, Tokens};
use super::endpoints::{Deadlines, ServerContext, endpoints};
use super::lobby::{Client, Lobby, Stream};
use super::pace::{PAUSE, Pace};
use super::page;
use super::refusal::Refusal;
use super::slots::{ConnectionSlot, ConnectionSlots};
use super::token_file::TokenFile;
use crate::config::AdminHttp;
use crate::control::aside;
use crate::guard::Trusted;
use crate::prefix::Prefix;
use crate::sys::{self, SocketFile};

/// Where requests come in.
#[derive(Debug)]
pub struct AdminListener {
    socket: ListeningSocket,
    access: Access,
    /// Removed with this listener, if the file is still the one that it made.
    file: Option<SocketFile>,
    /// Removed with this listener too: its tokens are no longer valid.
    token_file: Option<TokenFile>,
    /// Where sockets come from that replace this one.
    replacements: mpsc::UnboundedReceiver<Replacement>,
}

/// The socket that replaces that of a listener, whose file was removed.
pub type Replacement = (net::UnixListener, SocketFile);

#[derive(Debug)]
enum ListeningSocket {
    /// With the networks whose clients may connect; `None`: any may.
    Tcp(Watched<tcp::TcpListener>, Option<Trusted>),
    /// With the socket that it replaced, in which clients may still wait.
    Unix(
        Watched<net::UnixListener>,
        Option<Watched<net::UnixListener>>,
    ),
}

impl AdminListener {
    /// Answers on a Unix socket, which allows every request. Sockets that are sent to the second
    /// replace it. To be called inside the runtime.
    ///
    /// # Errors
    /// What the runtime says of the socket.
    pub fn unix(
        listener: net::UnixListener,
        file: SocketFile,
    ) -> io::Result<(Self, mpsc::UnboundedSender<Replacement>)> {
        let (sender, replacements) = mpsc::unbounded_channel();
        let listener = Self {
            socket: ListeningSocket::Unix(Watched::new(listener)?, None),
            access: Access::Socket,
            file: Some(file),
            token_file: None,
            replacements,
        };
        Ok((listener, sender))
    }

    /// Listens on a loopback address, for callers with a token. Call it inside the runtime.
    ///
    /// # Errors
    /// What the kernel says; an address that is not of the loopback is invalid.
    pub fn http(bind: SocketAddr, tokens: Tokens) -> io::Result<Self> {
        if !bind.ip().to_canonical().is_loopback() {
            let error = "the admin API listens on loopback addresses only";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, error));
        }
        Self::tcp(bind, None, |bound| {
            Access::Http(HttpAccess {
                bound,
                tokens,
                origins: Vec::new(),
                is_open: false,
            })
        })
    }

    /// Listens for those who read metrics: from these networks, or where there are none, from
    /// anywhere; with a token, where there are tokens. Call it inside the runtime.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn metrics(bind: SocketAddr, allow: &[Prefix], tokens: Option<Tokens>) -> io::Result<Self> {
        let allowed = (!allow.is_empty()).then(|| Trusted::new(allow));
        Self::tcp(bind, allowed, |bound| Access::Metrics(bound, tokens))
    }

    fn tcp(
        bind: SocketAddr,
        allowed: Option<Trusted>,
        access: impl FnOnce(SocketAddr) -> Access,
    ) -> io::Result<Self> {
        let listener = sys::listen_alone(bind)?;
        let access = access(listener.local_addr()?);
        Ok(Self {
            socket: ListeningSocket::Tcp(Watched::new(listener)?, allowed),
            access,
            file: None,
            token_file: None,
            replacements: mpsc::unbounded_channel().1,
        })
    }

    /// Its address on TCP: with the port that the kernel chose, where 0 was asked for.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        match &self.access {
            Access::Socket => None,
            Access::Http(its) => Some(its.bound),
            Access::Metrics(bound, _) => Some(*bound),
        }
    }

    /// Answers as these settings say, and removes this file when it ends. For a listener over HTTP.
    #[must_use]
    pub fn serving(mut self, settings: &AdminHttp, file: Option<TokenFile>) -> Self {
        if let Access::Http(its) = &mut self.access {
            its.origins.clone_from(&settings.origins);
            its.is_open = settings.is_open;
        }
        self.token_file = file;
        self
    }

    /// Goes on with another socket, which replaces this one at its path.
    fn replace(&mut self, (socket, file): Replacement) -> io::Result<()> {
        let socket = Watched::new(socket)?;
        if let ListeningSocket::Unix(now, replaced) = &mut self.socket {
            *replaced = Some(std::mem::replace(now, socket));
            let old = self.file.replace(file);
            drop(aside::close(move || drop(old)));
        }
        Ok(())
    }
}

impl ListeningSocket {
    /// The next client to serve; none while `is_full`.
    ///
    /// Clients that connect and close fill the backlog, where others wait behind them. So each
    /// costs a few system calls, and the runtime never hears of it: a client is looked at when it
    /// is accepted, and once more before it is served, as it may have closed meanwhile. That goes
    /// on while all slots are taken. On TCP one that has sent a request and closed looks like one
    /// that has ended its requests only: see [`Lobby::ended`].
    async fn accept(
        &mut self,
        lobby: &mut Lobby,
        pace: &mut Pace,
        is_full: bool,
    ) -> io::Result<Client> {
        loop {
            let mut is_empty = false;
            while lobby.has_room() && !pace.is_due() {
                match self.try_accept() {
                    Ok(Some(client)) => lobby.take_in(client),
                    Ok(None) => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        is_empty = true;
                        break;
                    }
                    Err(error) => return Err(error),
                }
                pace.step().await;
            }
            if is_full && !lobby.has_room() {
                return pending().await;
            }
            if lobby.is_crowded() {
                // Clients of a flood close meanwhile: another look costs less than an answer.
                pace.rest().await;
            }
            if !is_full && let Some(client) = lobby.next(is_empty) {
                return Ok(client);
            }
            if is_empty && (is_full || lobby.is_empty()) {
                self.readable().await?;
            } else {
                // The backlog may never be empty.
                pace.rest().await;
            }
        }
    }

    /// `None`: one has come that may not connect, and was reset.
    fn try_accept(&mut self) -> io::Result<Option<Client>> {
        match self {
            Self::Tcp(listener, allowed) => {
                let (client, from) = listener.try_next(tcp::TcpListener::accept)?;
                let may_connect = |allowed: &Trusted| allowed.contains(from.ip());
                if allowed.as_ref().is_none_or(may_connect) {
                    return Ok(Some(Client::Tcp(client)));
                }
                REFUSED.fetch_add(1, Ordering::Relaxed);
                sys::reset_client(client);
                Ok(None)
            }
            Self::Unix(listener, replaced) => {
                let accept = net::UnixListener::accept;
                let before = replaced.as_ref().map(|before| before.try_next(accept));
                let (client, _) = match before {
                    Some(Ok(client)) => client,
                    Some(Err(_)) => {
                        let client = listener.try_next(accept)?;
                        // The old one has no client left, and no path leads to it.
                        *replaced = None;
                        client
                    }
                    None => listener.try_next(accept)?,
                };
                Ok(Some(Client::Unix(client)))
            }
        }
    }

    /// Waits until a client may have come.
    async fn readable(&self) -> io::Result<()> {
        match self {
            Self::Tcp(listener, _) => listener.ready.readable().await,
            Self::Unix(listener, None) => listener.ready.readable().await,
            Self::Unix(listener, Some(replaced)) => tokio::select! {
                ready = listener.ready.readable() => ready,
                ready = replaced.ready.readable() => ready,
            },
        }
    }
}

/// A listening socket whose readiness the runtime watches.
#[derive(Debug)]
struct Watched<T> {
    socket: T,
    /// A copy of its descriptor. The type does not matter, as nothing is read or written by it.
    ready: UnixStream,
}

impl<T: AsFd> Watched<T> {
    fn new(socket: T) -> io::Result<Self> {
        let copy = socket.as_fd().try_clone_to_owned()?;
        Ok(Self {
            socket,
            ready: UnixStream::from_std(copy.into())?,
        })
    }

    /// A connection that waits, which the runtime does not watch; `WouldBlock`: there is none.
    fn try_next<S>(&self, accept: impl Fn(&T) -> io::Result<S>) -> io::Result<S> {
        let accept = || accept(&self.socket);
        self.ready.try_io(Interest::READABLE, accept)
    }
}

/// Answers requests until `stop` changes or its sender is gone. Requests that are being answered
/// then have a second to end.
pub async fn serve(listener: AdminListener, handle: Handle, stop: watch::Receiver<()>) {
    let context = ServerContext {
        handle,
        stop,
        watchers: Arc::new(Semaphore::new(WATCHERS_MAX)),
        scrapes: Arc::new(Semaphore::new(SCRAPES_MAX)),
        explanations: Arc::new(Semaphore::new(EXPLANATIONS_AT_ONCE)),
        readings: Arc::new(Semaphore::new(READINGS_AT_ONCE)),
        deadlines: Deadlines::default(),
    };
    serve_in(listener, context).await;
}

pub(super) async fn serve_in(mut listener: AdminListener, context: ServerContext) {
    let (mut stop, deadlines) = (context.stop.clone(), context.deadlines);
    let router = router(context, listener.access.clone());
    // In this task, so that the turns of the control thread are measured with them.
    let mut connections = FuturesUnordered::new();
    let mut slots = ConnectionSlots::default();
    let mut lobby = Lobby::default();
    let (mut pace, mut pace_of_gone) = (Pace::new(ACCEPTS_AT_ONCE), Pace::new(TAKEN_IN_AT_ONCE));
    loop {
        // All slots are taken and one more client has come: it gets the next free slot.
        let is_full = connections.len() > CONNECTIONS_MAX;
        if is_full {
            slots.evict_oldest_idle();
        }
        tokio::select! {
            _ = stop.changed() => break,
            Some(()) = connections.next() => {}
            () = slots.became_idle(), if is_full => {}
            // A new connection turns out to be idle without a notice.
            () = sleep(LOOK_AGAIN), if is_full => {}
            Some(other) = listener.replacements.recv() => {
                if let Err(error) = listener.replace(other) {
                    log::error!("cannot replace the socket of the admin API: {error}");
                }
            }
            accepted = listener.socket.accept(&mut lobby, &mut pace_of_gone, is_full) => {
                match accepted.and_then(Client::begin) {
                    Ok((stream, copy)) => {
                        let (router, slot) = (router.clone(), slots.take(copy));
                        let stop = stop.clone();
                        connections.push(serve_connection(stream, router, slot, stop, deadlines));
                        pace.step().await;
                    }
                    // The client is gone, or there is no descriptor: do not retry at full speed.
                    Err(_) => sleep(ACCEPT_PAUSE).await,
                }
            }
        }
    }
    // The file system may not answer.
    let files = (listener.file.take(), listener.token_file.take());
    drop(listener);
    let removed = aside::close(move || drop(files));
    while connections.next().await.is_some() {}
    let _ = timeout(REMOVAL_TIME, removed).await;
}

fn router(context: ServerContext, access: Access) -> Router {
    let mut router = Router::new();
    let nothing = match access {
        Access::Socket | Access::Http(..) => NOTHING,
        Access::Metrics(..) => NOTHING_ELSE,
    };
    for endpoint in endpoints().into_iter().filter(|its| access.has(its)) {
        router = router.route(endpoint.path, endpoint.route());
    }
    let router = match access {
        Access::Socket | Access::Http(..) => page::add_to(router),
        Access::Metrics(..) => router,
    };
    router
        .fallback(async move || Refusal::new(StatusCode::NOT_FOUND, nothing))
        .method_not_allowed_fallback(async || {
            let error = "this can't be done here: see the Allow header";
            Refusal::new(StatusCode::METHOD_NOT_ALLOWED, error)
        })
        .layer(middleware::from_fn_with_state(access, admit))
        .with_state(context)
}

/// Identifies the caller. The table of endpoints says what each caller may do.
async fn admit(State(access): State<Access>, mut request: Request, next: Next) -> Response {
    let mut response = match access.admit(request.uri(), request.headers()) {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(refusal) => refusal.into_response(),
    };
    let headers = response.headers_mut();
    let nosniff = HeaderValue::from_static("nosniff");
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, nosniff);
    // What has a version is a file of the page: a browser may keep it.
    if !headers.contains_key(header::ETAG) {
        let no_store = HeaderValue::from_static("no-store");
        headers.insert(header::CACHE_CONTROL, no_store);
    }
    response
}

async fn serve_connection(
    stream: Box<dyn Stream>,
    router: Router,
    slot: Arc<ConnectionSlot>,
    mut stop: watch::Receiver<()>,
    deadlines: Deadlines,
) {
    let stream = TokioIo::new(ClientStream {
        stream,
        patience: deadlines.write,
        stalled: None,
        pause: None,
    });
    let service = TowerToHyperService::new(router);
    let requests = Arc::clone(&slot);
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(Arc::clone(&requests));
        let (busy, answer) = (requests.keep(), service.call(request));
        async move {
            // hyper would answer many requests of a client that pipelines them before anything
            // else has its turn.
            sleep(PAUSE).await;
            drop(busy);
            answer.await
        }
    });
    let mut connection = std::pin::pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(deadlines.head)
            .max_buf_size(HEADER_MAX)
            // `nc -N` and the like end their requests and wait for the answer.
            .half_close(true)
            .serve_connection(stream, service)
    );
    // Errors of the connection are the client's: nothing to report.
    tokio::select! {
        _ = &mut connection => return,
        () = slot.evicted() => return,
        _ = stop.changed() => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = timeout(deadlines.end, connection).await;
}

/// A stream that fails when its peer accepts no byte for `patience`, and pauses after each read.
struct ClientStream {
    stream: Box<dyn Stream>,
    patience: Duration,
    /// The deadline of the write that waits now.
    stalled: Option<Pin<Box<Sleep>>>,
    /// The pause after the last read.
    pause: Option<Pin<Box<Sleep>>>,
}

impl ClientStream {
    fn watch<T>(
        &mut self,
        cx: &mut TaskContext<'_>,
        outcome: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.stalled = None;
            return outcome;
        }
        let patience = self.patience;
        let stalled = self
            .stalled
            .get_or_insert_with(|| Box::pin(sleep(patience)));
        ready!(stalled.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for ClientStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(pause) = &mut self.pause {
            ready!(pause.as_mut().poll(cx));
            self.pause = None;
        }
        let outcome = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if outcome.is_ready() {
            self.pause = Some(Box::pin(sleep(PAUSE)));
        }
        outcome
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.watch(cx, outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.watch(cx, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Clients that were reset because [`AdminListener::metrics`] does not allow them.
#[must_use]
pub fn refused_scrapers() -> u64 {
    REFUSED.load(Ordering::Relaxed)
}

/// Of the one listener for metrics that a process has.
static REFUSED: AtomicU64 = AtomicU64::new(0);
/// Connections of a server. Beyond them the connection that has been idle for longest ends; while
/// none is idle, new ones wait in the backlog.
pub(super) const CONNECTIONS_MAX: usize = 64;
/// Connections that may follow events at a time. Each lasts for as long as its client likes.
pub(super) const WATCHERS_MAX: usize = 32;
/// Scrapes that a server answers at a time; others wait for their turn.
pub(super) const SCRAPES_MAX: usize = 1;
/// Explanations that a server asks workers for at a time; others wait for their turn.
pub(super) const EXPLANATIONS_AT_ONCE: usize = 1;
/// Requests that take long to read and that a server reads at a time; others wait for their turn.
pub(super) const READINGS_AT_ONCE: usize = 1;
const NOTHING: &str = "there is nothing at this path: /v1/openapi.json lists all paths";
const NOTHING_ELSE: &str = "there is nothing at this path: /metrics, /healthz and /readyz are here";
/// Bytes of a request's head.
const HEADER_MAX: usize = 64 * 1024;
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long the end waits for the removal of the socket's file.
const REMOVAL_TIME: Duration = Duration::from_secs(1);
/// While all slots are taken and a client waits for one.
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// Connections that are accepted before everything else has its turn.
const ACCEPTS_AT_ONCE: u32 = 16;
/// Connections that are taken in before everything else has its turn: each costs a few system
/// calls.
const TAKEN_IN_AT_ONCE: u32 = 256;
