//! Backends that identify themselves: the first byte that a client receives is its backend's
//! number. Then they echo.

use std::io::Write;
use std::iter;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, Type};

use crate::peers::{self, echo};
use crate::watchdog::patient;

/// Some backends, numbered from 0. Each ends with the test.
#[derive(Debug)]
pub(crate) struct Fleet {
    members: Vec<Member>,
    all: Arc<Count>,
}

#[derive(Debug)]
struct Member {
    address: SocketAddr,
    listener: Arc<TcpListener>,
    count: Arc<Count>,
}

/// The counters of a connection: its backend's, and that of all.
type Counts = [Arc<Count>; 2];

#[derive(Debug, Default)]
struct Count {
    accepted: AtomicUsize,
    held: AtomicUsize,
    held_max: AtomicUsize,
    gone: AtomicBool,
}

impl Fleet {
    pub(crate) fn of(size: usize) -> Self {
        Self::with_delays(&vec![0; size])
    }

    /// Each sends its number after this many ms, in proportion to [`patient`]: a slow one must be
    /// slow beside what a visit takes on this machine.
    pub(crate) fn with_delays(delays: &[u64]) -> Self {
        let delays = delays.iter().map(|ms| patient(Duration::from_millis(*ms)));
        let members = (0..).zip(delays);
        let all = Arc::default();
        Self {
            members: members
                .map(|(number, delay)| Member::new(number, delay, &all))
                .collect(),
            all,
        }
    }

    /// For `--to`.
    pub(crate) fn addresses(&self) -> Vec<String> {
        let addresses = self.members.iter().map(|member| member.address.to_string());
        addresses.collect()
    }

    /// For the `backends` of a file, each with its other fields.
    pub(crate) fn ron(&self, extras: &[&str]) -> String {
        let extras = extras.iter().copied().chain(iter::repeat(""));
        let addresses = self.addresses().into_iter().zip(extras);
        addresses
            .map(|(address, extra)| format!("(address: \"{address}\", {extra}), "))
            .collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.members.len()
    }

    /// Connections so far, by backend.
    pub(crate) fn accepted(&self) -> Vec<usize> {
        self.each(|count| &count.accepted)
    }

    /// Open connections, by backend.
    pub(crate) fn held(&self) -> Vec<usize> {
        self.each(|count| &count.held)
    }

    /// The most connections at a time, by backend.
    pub(crate) fn held_max(&self) -> Vec<usize> {
        self.each(|count| &count.held_max)
    }

    /// The most connections at a time, to all backends together.
    pub(crate) fn held_max_in_all(&self) -> usize {
        self.all.held_max.load(Ordering::SeqCst)
    }

    fn each(&self, number: impl Fn(&Count) -> &AtomicUsize) -> Vec<usize> {
        let counts = self.members.iter().map(|member| number(&member.count));
        counts.map(|count| count.load(Ordering::SeqCst)).collect()
    }

    /// It refuses connections from now on; those that it has go on. It keeps its port.
    pub(crate) fn stop(&self, number: usize) {
        let listener = SockRef::from(&*self.members[number].listener);
        listener.shutdown(Shutdown::Both).unwrap();
        let refused = TcpStream::connect(self.members[number].address);
        assert!(refused.is_err(), "a listener that was shut down refuses");
    }

    /// It accepts connections again.
    pub(crate) fn start(&self, number: usize) {
        let listener = SockRef::from(&*self.members[number].listener);
        listener.listen(BACKLOG).unwrap();
        let address = self.members[number].listener.local_addr().unwrap();
        assert_eq!(address, self.members[number].address);
    }
}

impl Member {
    fn new(number: u8, delay: Duration, all: &Arc<Count>) -> Self {
        let listener = listen();
        let member = Self {
            address: listener.local_addr().unwrap(),
            listener: Arc::new(listener),
            count: Arc::default(),
        };
        let listener = Arc::clone(&member.listener);
        let counts: Counts = [&member.count, all].map(Arc::clone);
        thread::spawn(move || {
            while !counts[0].gone.load(Ordering::SeqCst) {
                let Ok((stream, _)) = listener.accept() else {
                    // The backend was stopped.
                    thread::sleep(Duration::from_millis(2));
                    continue;
                };
                let counts = counts.clone();
                counts.iter().for_each(|count| count.enter());
                thread::spawn(move || {
                    thread::sleep(delay);
                    serve(stream, number, &counts);
                });
            }
        });
        member
    }
}

/// A listener that keeps its port when it is shut down: one that was bound to it by number.
fn listen() -> TcpListener {
    let bound = |port| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_reuse_port(true).unwrap();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        socket.bind(&address.into()).unwrap();
        TcpListener::from(socket)
    };
    let reserved = bound(0);
    let listener = bound(reserved.local_addr().unwrap().port());
    SockRef::from(&listener).listen(BACKLOG).unwrap();
    listener
}

fn serve(stream: TcpStream, number: u8, counts: &Counts) {
    peers::limit_waits(&stream);
    stream.set_nodelay(true).unwrap();
    // The client may be gone.
    if (&stream).write_all(&[number]).is_ok() {
        echo(&stream);
    }
    // Count before the stream closes: the close frees the place.
    for count in counts {
        count.held.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Count {
    fn enter(&self) {
        self.accepted.fetch_add(1, Ordering::SeqCst);
        let held = self.held.fetch_add(1, Ordering::SeqCst) + 1;
        self.held_max.fetch_max(held, Ordering::SeqCst);
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for member in &self.members {
            member.count.gone.store(true, Ordering::SeqCst);
            // One that was stopped is no listener.
            let _ = SockRef::from(&*member.listener).shutdown(Shutdown::Both);
        }
    }
}

const BACKLOG: i32 = 128;
