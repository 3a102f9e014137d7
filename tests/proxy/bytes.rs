//! Streams of bytes that show at once when one is lost, doubled, swapped or foreign.

use std::io::{ErrorKind, Read, Write};
use std::sync::LazyLock;
use std::time::Duration;

use crate::watchdog::slowness;

/// A stream: what one end sends and the other expects. All streams repeat the same random block,
/// each from its own offset. The block's length is a prime near 1 MiB, so a buffer or pipe that
/// went astray does not fit elsewhere.
#[derive(Clone, Debug)]
pub(crate) struct Bytes {
    at: usize,
    /// How many were sent or received so far.
    pub(crate) count: u64,
}

const PERIOD: usize = 1_048_573;
const CHUNK: usize = 64 * 1024;

/// The block twice, so that every chunk is a slice.
static BLOCK: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let words = std::iter::repeat_with(|| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random.to_ne_bytes()
    });
    let once: Vec<u8> = words.flatten().take(PERIOD).collect();
    once.repeat(2)
});

impl Bytes {
    pub(crate) fn new(seed: usize) -> Self {
        Self {
            at: (seed * 7_919 + 1) % PERIOD,
            count: 0,
        }
    }

    fn next(&self, most: u64) -> &'static [u8] {
        let most = usize::try_from(most).unwrap_or(CHUNK).min(CHUNK);
        &BLOCK[self.at..self.at + most]
    }

    fn advance(&mut self, by: usize) {
        self.at = (self.at + by) % PERIOD;
        self.count += by as u64;
    }

    pub(crate) fn send(&mut self, to: &mut impl Write, bytes: u64) {
        let end = self.count + bytes;
        while self.count < end {
            let sent = to.write(self.next(end - self.count)).unwrap();
            self.advance(sent);
        }
    }

    /// Sends until the other side takes no more: its reader sleeps and all buffers are full. The
    /// socket must be nonblocking.
    pub(crate) fn send_until_stuck(&mut self, to: &mut impl Write) {
        self.send_pieces_until_stuck(to, u64::MAX, Duration::ZERO);
    }

    /// The same in pieces of this many bytes, with a pause after each.
    pub(crate) fn send_pieces_until_stuck(
        &mut self,
        to: &mut impl Write,
        bytes: u64,
        pause: Duration,
    ) {
        let mut refusals = 0;
        // A slow machine may take long to deliver what is in flight.
        while refusals < 40 * slowness() {
            match to.write(self.next(bytes)) {
                Ok(sent) => {
                    refusals = 0;
                    self.advance(sent);
                    std::thread::sleep(pause);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    refusals += 1;
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(error) => panic!("a stalled stream broke: {error}"),
            }
        }
    }

    /// Receives exactly this many bytes, and checks each.
    #[track_caller]
    pub(crate) fn expect(&mut self, from: &mut impl Read, bytes: u64) {
        let end = self.count + bytes;
        let mut chunk = vec![0; CHUNK];
        while self.count < end {
            let most = self.next(end - self.count).len();
            let read = from.read(&mut chunk[..most]).unwrap();
            assert!(read > 0, "the stream ended at {} of {end}", self.count);
            self.check(&chunk[..read]);
        }
    }

    /// Receives to the end, and checks each byte.
    #[track_caller]
    pub(crate) fn expect_to_end(&mut self, from: &mut impl Read) {
        let mut chunk = vec![0; CHUNK];
        loop {
            match from.read(&mut chunk).unwrap() {
                0 => return,
                read => self.check(&chunk[..read]),
            }
        }
    }

    /// Receives until the connection is reset, and checks each byte.
    #[track_caller]
    pub(crate) fn expect_to_reset(&mut self, from: &mut impl Read) {
        let mut chunk = vec![0; CHUNK];
        loop {
            match from.read(&mut chunk) {
                Ok(0) => panic!("a truncated stream ended as if it were whole"),
                Ok(read) => self.check(&chunk[..read]),
                Err(error) => return assert_eq!(error.kind(), ErrorKind::ConnectionReset),
            }
        }
    }

    #[track_caller]
    fn check(&mut self, bytes: &[u8]) {
        let wanted = &BLOCK[self.at..self.at + bytes.len()];
        // Not by assert_eq, which would print both.
        assert!(bytes == wanted, "a wrong byte after {}", self.count);
        self.advance(bytes.len());
    }
}
