//! Clients that come and go as fast as they can, streams that stay, and their errors.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use crate::bytes::Bytes;
use crate::peers::{self, echo, expect_end};

/// A backend for many clients: the thread that accepts a request answers it; a stream is echoed.
#[derive(Debug)]
pub(crate) struct Hall {
    pub(crate) address: String,
}

impl Hall {
    /// Its threads run to the end of the test run.
    pub(crate) fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let listener = Arc::new(listener);
        for _ in 0..DOORMEN {
            let listener = Arc::clone(&listener);
            thread::spawn(move || {
                loop {
                    let (stream, _) = listener.accept().unwrap();
                    // The client counts its own failure.
                    let _ = receive(stream);
                }
            });
        }
        Self { address }
    }
}

fn receive(mut stream: TcpStream) -> io::Result<()> {
    peers::limit_waits(&stream);
    stream.set_nodelay(true)?;
    let mut kind = [0];
    // A probe sends nothing.
    stream.read_exact(&mut kind)?;
    if kind == STREAM {
        thread::Builder::new()
            .stack_size(STACK)
            .spawn(|| echo(stream))?;
        return Ok(());
    }
    let mut request = [0; REQUEST];
    stream.read_exact(&mut request)?;
    request.reverse();
    stream.write_all(&request)
}

/// The results of a crowd.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) served: usize,
    /// The number of failures, by step and error.
    pub(crate) errors: BTreeMap<String, usize>,
    pub(crate) slowest: Duration,
    pub(crate) over: Duration,
}

impl Outcome {
    pub(crate) fn rate(&self) -> f64 {
        let served = u32::try_from(self.served).unwrap();
        f64::from(served) / self.over.as_secs_f64()
    }

    fn add(&mut self, other: Self) {
        self.served += other.served;
        for (what, count) in other.errors {
            *self.errors.entry(what).or_default() += count;
        }
        self.slowest = self.slowest.max(other.slowest);
    }
}

/// Clients one after the other in this many threads, at most this many per second in all, until
/// `stop`.
pub(crate) fn crowd(to: SocketAddr, threads: u32, rate: f64, stop: &AtomicBool) -> Outcome {
    let began = Instant::now();
    let mut all = Outcome::default();
    let interval = Duration::from_secs_f64(f64::from(threads) / rate);
    thread::scope(|scope| {
        let come = |_| scope.spawn(|| one_after_the_other(to, interval, stop));
        let threads: Vec<_> = (0..threads).map(come).collect();
        for thread in threads {
            all.add(thread.join().unwrap());
        }
    });
    all.over = began.elapsed();
    all
}

fn one_after_the_other(to: SocketAddr, interval: Duration, stop: &AtomicBool) -> Outcome {
    let mut outcome = Outcome::default();
    let mut next = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        let now = Instant::now();
        thread::sleep(next.saturating_duration_since(now));
        // A thread that is late makes up for only a little.
        next = next.max(now.checked_sub(LATE).unwrap_or(now)) + interval;
        let began = Instant::now();
        match visit(to) {
            Ok(()) => outcome.served += 1,
            Err((what, error)) => {
                *outcome
                    .errors
                    .entry(format!("{what}: {error}"))
                    .or_default() += 1;
            }
        }
        outcome.slowest = outcome.slowest.max(began.elapsed());
    }
    outcome
}

/// One connection with one request, which gets the right answer and an orderly end.
pub(crate) fn visit(to: SocketAddr) -> Result<(), (&'static str, io::Error)> {
    static VISITS: AtomicU32 = AtomicU32::new(0);
    let number = VISITS.fetch_add(1, Ordering::Relaxed);
    // A port rests for a minute after its connection: each address has enough of them.
    let source = Ipv4Addr::new(127, 100, 0, 1).to_bits() + number / VISITS_OF_ONE;
    let source = SocketAddr::from((Ipv4Addr::from_bits(source), 0));
    let during = |what| move |error| (what, error);
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).map_err(during("socket"))?;
    socket.bind(&source.into()).map_err(during("bind"))?;
    socket.connect(&to.into()).map_err(during("connect"))?;
    let mut stream = TcpStream::from(socket);
    peers::limit_waits(&stream);
    let mut request = [0; 1 + REQUEST];
    request[1..5].copy_from_slice(&number.to_be_bytes());
    request[5..].fill(number.to_be_bytes()[3]);
    stream.write_all(&request).map_err(during("write"))?;
    stream
        .shutdown(Shutdown::Write)
        .map_err(during("shutdown"))?;
    let mut answer = Vec::with_capacity(REQUEST);
    stream.read_to_end(&mut answer).map_err(during("read"))?;
    answer.reverse();
    if answer != request[1..] {
        return Err(("answer", io::Error::other("not the expected one")));
    }
    Ok(())
}

/// A stream that runs until `stop`: it compares the echo byte for byte, and returns the number of
/// bytes that came back. It panics on any error.
pub(crate) fn stream(to: SocketAddr, seed: u32, pause: Duration, stop: &AtomicBool) -> u64 {
    let mut stream = peers::connect(to);
    stream.write_all(&STREAM).unwrap();
    let mut random = fastrand::Rng::with_seed(u64::from(seed));
    let [mut sent, mut received] = [Bytes::new(seed as usize), Bytes::new(seed as usize)];
    while !stop.load(Ordering::Relaxed) {
        // Now and then enough bytes for a pipe to pay.
        let most = if random.u8(..) < 8 { 200_000 } else { 8_000 };
        let bytes = random.u64(1..=most);
        sent.send(&mut stream, bytes);
        received.expect(&mut stream, bytes);
        thread::sleep(pause.mul_f64(random.f64() * 2.0));
    }
    stream.shutdown(Shutdown::Write).unwrap();
    expect_end(&mut stream);
    received.count
}

/// This many streams, each of which must end rightly: how many did not, and the bytes of the
/// others.
pub(crate) fn streams(
    to: SocketAddr,
    count: u32,
    pause: Duration,
    stop: &AtomicBool,
) -> (usize, u64) {
    thread::scope(|scope| {
        let begin = |seed| {
            let builder = thread::Builder::new().stack_size(STACK);
            let run = move || stream(to, seed, pause, stop);
            builder.spawn_scoped(scope, run).unwrap()
        };
        let threads: Vec<_> = (0..count).map(begin).collect();
        let ends: Vec<_> = threads.into_iter().map(|thread| thread.join()).collect();
        let broken = ends.iter().filter(|end| end.is_err()).count();
        (broken, ends.iter().flatten().sum())
    })
}

const STREAM: [u8; 1] = [b'~'];
const REQUEST: usize = 64;
/// Threads of each backend that accept and answer.
const DOORMEN: usize = 8;
/// The stack of a thread that does little: there are many.
const STACK: usize = 256 * 1024;
const VISITS_OF_ONE: u32 = 10_000;
const LATE: Duration = Duration::from_millis(200);
