//! A connection between two balancers: one sends, the other takes in and answers beats.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout};

use super::frame::{FRAME_MAX, Frame, FrameError};

/// Why a connection ends.
#[derive(Debug, Error)]
pub(super) enum LinkError {
    #[error("it closed the connection")]
    Closed,
    #[error(transparent)]
    Io(io::Error),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("it sends nothing for {} s", .0.as_secs())]
    Silent(Duration),
    #[error("it takes nothing for {} s", .0.as_secs())]
    Stalled(Duration),
    #[error(
        "its clock differs from the one here by {0} s, and up to 10 s are tolerated: set the \
         clocks by NTP"
    )]
    Clock(u64),
    #[error("it is too slow for changes")]
    Lagged,
    #[error("it sends what only the other side sends")]
    Order,
}

impl From<io::Error> for LinkError {
    fn from(error: io::Error) -> Self {
        match is_end(&error) {
            true => Self::Closed,
            false => Self::Io(error),
        }
    }
}

/// Why there is no TLS with the other side.
pub(super) fn handshake_failure(error: &io::Error) -> String {
    match is_end(error) {
        true => "it closed the connection within the TLS handshake".to_owned(),
        false => error.to_string(),
    }
}

/// Whether the other side has closed the connection, in whatever way. Without close_notify (RFC
/// 8446, section 6.1) rustls says so by a text for programmers.
fn is_end(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
    )
}

/// The frames that come.
#[derive(Debug, Default)]
pub(super) struct FrameReader {
    /// What came of the next frames: never more than one and what a read adds to it.
    read: Vec<u8>,
    /// How many of these bytes were of frames that are read. They are removed before the next read
    /// of the connection, not for each frame: thousands of small ones may be there.
    done: usize,
}

impl FrameReader {
    /// The next frame. The future can be dropped without loss.
    pub(super) async fn next(
        &mut self,
        from: &mut (impl AsyncRead + Unpin),
    ) -> Result<Frame, LinkError> {
        loop {
            let waiting = &self.read[self.done..];
            let length = Frame::length(waiting)?;
            if let Some(length) = length
                && let Some(bytes) = waiting.get(4..4 + length)
            {
                let frame = Frame::read(bytes);
                self.done += 4 + length;
                return Ok(frame?);
            }
            self.read.drain(..self.done);
            self.done = 0;
            let missing = 4 + length.unwrap_or(0) - self.read.len();
            self.read.reserve(missing.clamp(1, FRAME_MAX));
            if from.read_buf(&mut self.read).await? == 0 {
                return Err(LinkError::Closed);
            }
        }
    }
}

/// Writes a frame, which the other side must take in so much time.
pub(super) async fn write(
    to: &mut (impl AsyncWrite + Unpin),
    frame: &Arc<[u8]>,
    time: Duration,
) -> Result<(), LinkError> {
    let write = async {
        to.write_all(frame).await?;
        to.flush().await
    };
    let written = timeout(time, write).await;
    Ok(written.map_err(|_| LinkError::Stalled(time))??)
}

/// Bounds how many entries a member may send in a second.
#[derive(Debug)]
pub(super) struct EntryPace {
    /// When all that came by now would have come at the highest rate.
    until: Instant,
}

impl EntryPace {
    pub(super) fn new() -> Self {
        Self {
            until: Instant::now(),
        }
    }

    /// Waits as long as so many entries came too early: meanwhile no more are read, and those that
    /// wait fill the buffers of the sender's side.
    pub(super) async fn wait(&mut self, entries: usize) {
        let now = Instant::now();
        let due = self.due(entries, now);
        if due > now {
            tokio::time::sleep_until(due).await;
        }
    }

    /// When so many entries that come now may be taken.
    fn due(&mut self, entries: usize, now: Instant) -> Instant {
        // A frame without entries is work too.
        let cost = u32::try_from(entries.max(FRAME_COST)).unwrap_or(u32::MAX);
        self.until = self.until.max(now) + Duration::from_secs(1) * cost / RATE;
        self.until.checked_sub(BURST).unwrap_or(now)
    }
}

/// How long a side may be silent, or take nothing.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// Entries that are taken of a member in a second.
const RATE: u32 = 100_000;
/// As many as come in this time may come at once.
const BURST: Duration = Duration::from_millis(500);
/// Entries that a frame counts as, at least.
const FRAME_COST: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::peers::frame::Body;

    #[tokio::test]
    async fn frames_are_read_however_they_are_cut() {
        let beat = |sent| Frame {
            sent,
            body: Body::Beat,
        };
        let bytes = [beat(1).bytes(), beat(2).bytes()].concat();
        for size in 1..bytes.len() {
            let mut reader = FrameReader::default();
            let mut pieces = pieces_of(&bytes, size);
            for stamp in [1, 2] {
                assert_eq!(reader.next(&mut pieces).await.unwrap(), beat(stamp));
            }
            let end = reader.next(&mut pieces).await;
            assert!(matches!(end, Err(LinkError::Closed)));
        }
    }

    /// Reads of so many bytes at most.
    fn pieces_of(bytes: &[u8], size: usize) -> impl AsyncRead + Unpin {
        let (mut near, far) = tokio::io::duplex(size);
        let bytes = bytes.to_vec();
        tokio::spawn(async move { near.write_all(&bytes).await });
        far
    }

    #[tokio::test]
    async fn what_is_read_is_removed_once_for_many_frames() {
        let frame = Frame::now(Body::Beat);
        let bytes = frame.bytes().repeat(1_000);
        let mut reader = FrameReader::default();
        reader.read.extend_from_slice(&bytes);
        let mut none: &[u8] = &[];
        for nth in 1..=1_000 {
            assert_eq!(reader.next(&mut none).await.unwrap(), frame);
            let left = (reader.read.len(), reader.done);
            assert_eq!(left, (bytes.len(), bytes.len() / 1_000 * nth));
        }
        assert!(reader.next(&mut none).await.is_err());
        assert!(reader.read.is_empty() && reader.done == 0);
    }

    #[tokio::test]
    async fn a_declared_length_takes_no_memory() {
        let mut reader = FrameReader::default();
        let mut huge: &[u8] = &[0xFF; 16];
        let refused = reader.next(&mut huge).await;
        assert!(matches!(refused, Err(LinkError::Frame(_))));
        assert!(reader.read.capacity() <= FRAME_MAX);
    }

    #[test]
    fn a_flood_is_slowed_down() {
        let mut pace = EntryPace::new();
        let began = Instant::now();
        let mut now = began;
        // A million entries.
        for _ in 0..500 {
            now = now.max(pace.due(2_000, now));
        }
        let took = now - began;
        assert!(took >= Duration::from_secs(9), "{took:?}");
        assert!(took <= Duration::from_secs(10), "{took:?}");
    }
}
