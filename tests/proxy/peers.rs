//! Clients and backends: threads and blocking sockets, which never wait longer than the watchdog.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;
use socket2::{Domain, SockRef, Socket, Type};

use crate::balancer::Balancer;
use crate::watchdog::{eventually, patience};

/// A backend that serves each connection in a thread of its own, to the end of the test run.
#[derive(Debug)]
pub(crate) struct Backend {
    /// For `--to`.
    pub(crate) address: String,
    accepted: Arc<AtomicUsize>,
    failed: Arc<AtomicUsize>,
}

impl Backend {
    /// Echoes.
    pub(crate) fn echo() -> Self {
        Self::tcp("127.0.0.1:0", echo)
    }

    pub(crate) fn tcp(at: &str, serve: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(at).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let accept = move || {
            let (stream, _) = listener.accept().unwrap();
            limit_waits(&stream);
            stream
        };
        Self::start(address, accept, serve)
    }

    pub(crate) fn unix_echo(path: &Path) -> Self {
        let listener = UnixListener::bind(path).unwrap();
        let address = format!("unix:{}", path.display());
        Self::start(address, move || listener.accept().unwrap().0, echo)
    }

    fn start<S: Send + 'static>(
        address: String,
        accept: impl Fn() -> S + Send + 'static,
        serve: impl Fn(S) + Send + Sync + 'static,
    ) -> Self {
        let backend = Self {
            address,
            accepted: Arc::default(),
            failed: Arc::default(),
        };
        let accepted = Arc::clone(&backend.accepted);
        let failed = Arc::clone(&backend.failed);
        let serve = Arc::new(serve);
        thread::spawn(move || {
            loop {
                let stream = accept();
                accepted.fetch_add(1, Ordering::SeqCst);
                let (serve, failed) = (Arc::clone(&serve), Arc::clone(&failed));
                thread::spawn(move || {
                    if panic::catch_unwind(AssertUnwindSafe(|| serve(stream))).is_err() {
                        failed.fetch_add(1, Ordering::SeqCst);
                    }
                });
            }
        });
        backend
    }

    /// Connections so far.
    pub(crate) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        let failed = self.failed.load(Ordering::SeqCst);
        assert!(failed == 0 || thread::panicking(), "a backend failed");
    }
}

/// Says `hi` to each client, and then echoes.
pub(crate) fn greeting() -> Backend {
    Backend::tcp("127.0.0.1:0", |mut stream| {
        let _ = stream.write_all(b"hi");
        echo(stream);
    })
}

/// Echoes until the end or a reset.
pub(crate) fn echo(mut stream: impl Read + Write) {
    let mut chunk = vec![0; 64 * 1024];
    while let Ok(read) = stream.read(&mut chunk) {
        if read == 0 || stream.write_all(&chunk[..read]).is_err() {
            return;
        }
    }
}

/// Sends something and expects the echo.
#[track_caller]
pub(crate) fn ping(stream: &mut (impl Read + Write), what: &[u8]) {
    stream.write_all(what).unwrap();
    let mut answer = vec![0; what.len()];
    stream.read_exact(&mut answer).unwrap();
    assert!(answer == what, "another's answer");
}

/// Clients of a listener, one after the other, make all of their exchanges with an echo backend.
pub(crate) fn exchange_all(to: SocketAddr) {
    for round in 0..10 {
        let mut client = connect(to);
        for _ in 0..50 {
            ping(&mut client, &[round; 100]);
        }
        ping(&mut client, &vec![round; 300_000]);
    }
}

pub(crate) fn connect(to: SocketAddr) -> TcpStream {
    try_connect(to).unwrap()
}

/// A client that may be reset before it knows that it is connected.
pub(crate) fn try_connect(to: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(to)?;
    limit_waits(&stream);
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// A client that does not wait until it is connected, which a full backlog keeps it from.
pub(crate) fn begin_to_connect(to: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_nonblocking(true).unwrap();
    // On loopback it is connected when this returns, or its SYN was dropped.
    let _ = socket.connect(&to.into());
    TcpStream::from(socket)
}

/// A client of this address.
pub(crate) fn connect_from(source: Ipv4Addr, to: SocketAddr) -> TcpStream {
    try_connect_from(source, to).unwrap()
}

/// The same as [`try_connect`].
pub(crate) fn try_connect_from(source: Ipv4Addr, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((source, 0)).into()).unwrap();
    socket.connect(&to.into())?;
    let stream = TcpStream::from(socket);
    limit_waits(&stream);
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// A connection that was served, or `None` if it was reset.
#[track_caller]
pub(crate) fn visit(from: Ipv4Addr, to: SocketAddr) -> Option<TcpStream> {
    let served = try_connect_from(from, to).and_then(|mut stream| {
        stream.write_all(b"ping")?;
        stream.read_exact(&mut [0; 4])?;
        Ok(stream)
    });
    let is_reset = |kind| matches!(kind, ErrorKind::ConnectionReset | ErrorKind::BrokenPipe);
    served
        .inspect_err(|error| assert!(is_reset(error.kind()), "{error}"))
        .ok()
}

/// A listener for tests that play the backend themselves, and its address for `--to`.
pub(crate) fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, address)
}

/// Both ends of a new session: the client's and the backend's.
pub(crate) fn session(balancer: &Balancer, backend: &TcpListener) -> (TcpStream, TcpStream) {
    let client = balancer.connect();
    let (backend, _) = backend.accept().unwrap();
    limit_waits(&backend);
    backend.set_nodelay(true).unwrap();
    (client, backend)
}

/// An address without a listener. Its port stays bound until the process ends: else the kernel may
/// give it to a listener of another test, which accepts and sends nothing.
pub(crate) fn refusing_address() -> String {
    static BOUND: Mutex<Vec<Socket>> = Mutex::new(Vec::new());
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    socket.bind(&any.into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    BOUND.lock().push(socket);
    address.to_string()
}

/// An address of loopback whose port is free on every address and that no other test gets: below
/// the ports that the kernel gives to other sockets.
pub(crate) fn free() -> String {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let first = std::process::id() as usize;
    loop {
        let number = first + NEXT.fetch_add(1, Ordering::SeqCst);
        let port = 20_000 + u16::try_from(number % 12_000).unwrap();
        if TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok() {
            return format!("127.0.0.1:{port}");
        }
    }
}

pub(crate) fn limit_waits(stream: &TcpStream) {
    stream.set_read_timeout(Some(patience())).unwrap();
    stream.set_write_timeout(Some(patience())).unwrap();
}

/// Closes with RST.
pub(crate) fn reset(stream: TcpStream) {
    let socket = SockRef::from(&stream);
    socket.set_linger(Some(Duration::ZERO)).unwrap();
}

/// The stream ends here, in order.
#[track_caller]
pub(crate) fn expect_end(from: &mut impl Read) {
    assert_eq!(from.read(&mut [0; 16]).unwrap(), 0, "bytes after the end");
}

/// The connection is reset here: no byte, and no orderly end.
#[track_caller]
pub(crate) fn expect_reset(from: &mut impl Read) {
    let error = from.read(&mut [0; 16]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

/// A new client is reset; connect(2) may already report it.
#[track_caller]
pub(crate) fn expect_turned_away(to: SocketAddr) {
    match try_connect(to) {
        Ok(mut client) => expect_reset(&mut client),
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
    }
}

/// The connection breaks, and a sender learns of it.
#[track_caller]
pub(crate) fn expect_broken(stream: &TcpStream) {
    let mut found = None;
    eventually("a broken connection", || {
        found = stream.take_error().unwrap();
        found.is_some()
    });
    let kind = found.unwrap().kind();
    let broken = [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe];
    assert!(broken.contains(&kind), "{kind}");
}
