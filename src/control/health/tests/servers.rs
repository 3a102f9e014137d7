//! Little servers, each in a thread.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};

use socket2::{Domain, Socket, Type};

/// Accepts until it is dropped.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    stopped: Arc<AtomicBool>,
    open: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Serves each connection in a thread of its own.
    pub(super) fn of(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        Self::at(([127, 0, 0, 1], 0).into(), serve)
    }

    /// Reads and never answers.
    pub(super) fn silent() -> Self {
        Self::silent_at(([127, 0, 0, 1], 0).into())
    }

    pub(super) fn silent_at(address: SocketAddr) -> Self {
        Self::at(address, |mut stream| drain(&mut stream))
    }

    /// Reads the end of an HTTP request's head, or a line, and writes these bytes.
    pub(super) fn answering(answer: &'static [u8]) -> Self {
        Self::of(move |mut stream| {
            let asked = stream.read(&mut [0; 4_096]);
            // The probe may have closed.
            let _ = asked.and_then(|_| stream.write_all(answer));
            drain(&mut stream);
        })
    }

    fn at(address: SocketAddr, serve: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        // Lets a test bind its own port again at once.
        let listener = TcpListener::bind(address).expect("an address");
        let address = listener.local_addr().expect("it is bound");
        let stopped = Arc::new(AtomicBool::new(false));
        let open = Arc::new(AtomicUsize::new(0));
        let (is_stopped, counted) = (Arc::clone(&stopped), Arc::clone(&open));
        let serve = Arc::new(serve);
        let thread = thread::spawn(move || {
            for stream in listener.incoming() {
                if is_stopped.load(Ordering::SeqCst) {
                    return;
                }
                // A probe that only connects has closed before the server accepts.
                let Ok(stream) = stream else { continue };
                let (serve, counted) = (Arc::clone(&serve), Arc::clone(&counted));
                thread::spawn(move || {
                    counted.fetch_add(1, Ordering::SeqCst);
                    serve(stream);
                    counted.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Self {
            address,
            stopped,
            open,
            thread: Some(thread),
        }
    }

    /// Connections that are being served.
    pub(super) fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }

    /// Closes the listening socket.
    pub(super) fn stop(self) {
        drop(self);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::SeqCst);
        // The connect wakes the thread; if it fails the thread has ended.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the server's thread ended in order");
        }
    }
}

/// Reads to the end.
pub(super) fn drain(stream: &mut TcpStream) {
    // Reads until the end or an error.
    let _ = io::copy(stream, &mut io::sink());
}

/// An address without a listener.
pub(super) fn refusing() -> SocketAddr {
    // Bound only, and kept: no other socket gets it.
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    socket.bind(&any.into()).expect("a free port");
    let address = socket.local_addr().expect("it is bound");
    std::mem::forget(socket);
    address.as_socket().expect("an IP address")
}

/// A listener whose backlog is full: it answers no connect. The streams keep it full.
pub(super) struct Full {
    pub(super) address: SocketAddr,
    _listener: Socket,
    _waiting: Vec<Socket>,
}

pub(super) fn full() -> Full {
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    listener.bind(&any.into()).expect("a free port");
    listener.listen(0).expect("it listens");
    let address = listener.local_addr().expect("it is bound");
    let waiting = (0..4).map(|_| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), None);
        let socket = socket.expect("a socket");
        // The kernel takes the first connection, and leaves the others without an answer.
        let _ = socket.connect(&address);
        socket
    });
    let waiting = waiting.collect();
    Full {
        address: address.as_socket().expect("an IP address"),
        _listener: listener,
        _waiting: waiting,
    }
}
