//! Buffers, and the socket or operation that holds each.

use std::collections::VecDeque;

use mahoraga::kernel::{BUFFER_BYTES, Buffer, BufferId, Kernel};

use crate::kernel::FakeKernel;
use crate::ops::InFlight;
use crate::random::Random;
use crate::stream;

/// A buffer with its bytes, and what holds it.
#[derive(Debug, Default)]
pub(crate) struct Held {
    pub(crate) bytes: Vec<u8>,
    pub(crate) by: Holder,
}

/// What holds a buffer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Holder {
    #[default]
    Nothing,
    /// The session of the connection that filled it.
    Session(i32),
    /// The [`Maker`].
    Maker,
    /// The worker, which writes into it.
    Worker,
}

/// Stands for a part of the worker that makes bytes: takes buffers, and gives them back after a
/// while. Meanwhile nothing else may use them.
#[derive(Debug, Default)]
pub(crate) struct Maker {
    /// Decides by itself, so that seeds without one stay as they are.
    pub(crate) random: Option<Random>,
    made: VecDeque<(Buffer, u8)>,
}

impl FakeKernel {
    /// Takes a free buffer, all of it.
    pub(crate) fn take_for(&mut self, by: Holder) -> Option<Buffer> {
        let id = self.free.pop()?;
        let held = &mut self.buffers[usize::from(id)];
        held.by = by;
        held.bytes.resize(BUFFER_BYTES as usize, 0xee);
        Some(Buffer {
            id,
            start: 0,
            len: BUFFER_BYTES,
        })
    }

    pub(crate) fn write_buffer(&mut self, buffer: Buffer) -> &mut [u8] {
        let sends = |op: &&InFlight| !op.reported && op.kind.sends(buffer.id);
        let sending = self.ops.values().find(sends);
        assert!(sending.is_none(), "{buffer:?} is written under {sending:?}");
        let held = &mut self.buffers[usize::from(buffer.id)];
        assert_ne!(
            held.by,
            Holder::Nothing,
            "{buffer:?} is written after its end"
        );
        &mut held.bytes[buffer.start as usize..(buffer.start + buffer.len) as usize]
    }

    /// The maker takes another buffer, or gives back the first.
    pub(crate) fn make_bytes(&mut self) {
        let Some(random) = &mut self.maker.random else {
            return;
        };
        let (takes, mark) = (random.permille(600), random.below(256));
        if !takes || self.maker.made.len() == MADE_MAX {
            return self.give_back_made();
        }
        let Some(mut buffer) = self.take_for(Holder::Maker) else {
            return self.trace.see("no buffer for bytes that are made");
        };
        let mark = u8::try_from(mark).expect("a byte");
        buffer.len = 100;
        self.bytes_mut(buffer).fill(mark);
        self.maker.made.push_back((buffer, mark));
        self.trace.see("bytes that are made");
    }

    /// The maker gives back its first buffer, which still has what was made.
    pub(crate) fn give_back_made(&mut self) {
        let Some((buffer, mark)) = self.maker.made.pop_front() else {
            return;
        };
        let whole = self.bytes(buffer).iter().all(|byte| *byte == mark);
        assert!(whole, "{buffer:?} was used by something else");
        self.give_back(buffer.id);
    }

    /// The maker is done.
    pub(crate) fn stop_making(&mut self) {
        self.maker.random = None;
        while !self.maker.made.is_empty() {
            self.give_back_made();
        }
    }

    /// Puts bytes that have arrived into a free buffer.
    pub(crate) fn fill_buffer(&mut self, fd: i32, len: u64) -> Buffer {
        let bytes = self.take_bytes(fd, len);
        let buffer = self.fill_free(fd, bytes).expect("looked at before");
        self.note_early_answer(fd);
        self.wake_peer(fd);
        buffer
    }

    /// Puts bytes that came from a connection into a free buffer.
    pub(crate) fn fill_free(&mut self, fd: i32, bytes: Vec<u8>) -> Option<Buffer> {
        let whole = self.take_for(Holder::Session(fd))?;
        self.conn(fd).buffers += 1;
        let len = u32::try_from(bytes.len()).expect("a buffer's length");
        self.buffers[usize::from(whole.id)].bytes = bytes;
        Some(Buffer { len, ..whole })
    }

    /// Takes bytes that have arrived.
    pub(crate) fn take_bytes(&mut self, fd: i32, len: u64) -> Vec<u8> {
        let now = self.now;
        let conn = self.conn(fd);
        let (stream, at) = (conn.inbound.stream, conn.inbound.taken);
        conn.inbound.taken += len;
        conn.moved_at = now;
        conn.unread_since = now;
        // Bytes that join others behind a full sink are no progress for those.
        if conn.buffers == 0 {
            conn.vain = Default::default();
        }
        self.note_taken(fd, len);
        let mut bytes = vec![0; usize::try_from(len).expect("a length")];
        stream::fill(stream, at, &mut bytes);
        bytes
    }

    /// The bytes of a buffer and what has arrived behind them.
    pub(crate) fn look_ahead(&mut self, buffer: Option<Buffer>, fd: i32) -> &[u8] {
        let mut bytes = buffer.map_or_else(Vec::new, |buffer| self.bytes(buffer).to_vec());
        let held = bytes.len();
        let conn = self.conn(fd);
        let unread = usize::try_from(conn.unread()).expect("a length");
        bytes.resize((held + unread).min(BUFFER_BYTES as usize), 0);
        let inbound = &conn.inbound;
        stream::fill(inbound.stream, inbound.taken, &mut bytes[held..]);
        if let Some(header) = &conn.header {
            assert_eq!(held, 0, "bytes before the header of {fd}");
            bytes.splice(..0, header.seen().iter().copied());
            bytes.truncate(BUFFER_BYTES as usize);
        }
        if bytes.len() > held {
            self.trace.see("first bytes looked at where they wait");
        }
        self.scratch = bytes;
        &self.scratch
    }

    pub(crate) fn append_bytes(&mut self, to: Buffer, from: Buffer) {
        let bytes = self.bytes(from).to_vec();
        let owner = self.buffers[usize::from(from.id)].by;
        if let Holder::Session(fd) = owner {
            self.give_made_to(fd, to.id, (to.start + to.len) as usize);
        }
        let held = &mut self.buffers[usize::from(to.id)];
        assert_eq!(held.by, owner, "{from:?} is appended to another's");
        let end = (to.start + to.len) as usize;
        assert_eq!(held.bytes.len(), end, "{to:?} is cut wrongly");
        held.bytes.extend(bytes);
        assert!(held.bytes.len() <= BUFFER_BYTES as usize);
        self.trace.see("first bytes in several pieces");
    }

    /// What the worker has made, up to this end, is a session's from now on.
    pub(crate) fn give_made_to(&mut self, client: i32, id: BufferId, end: usize) {
        let held = &mut self.buffers[usize::from(id)];
        if held.by == Holder::Worker {
            held.by = Holder::Session(client);
            held.bytes.truncate(end);
            self.conn(client).buffers += 1;
        }
    }

    pub(crate) fn take_back(&mut self, id: BufferId) {
        let sending = self
            .ops
            .values()
            .find(|op| !op.reported && op.kind.sends(id));
        assert!(
            sending.is_none(),
            "buffer {id} is given back under {sending:?}"
        );
        let held = &mut self.buffers[usize::from(id)];
        let by = std::mem::take(&mut held.by);
        // Any later use of it would be detected.
        held.bytes.fill(0xee);
        self.free.push(id);
        match by {
            Holder::Nothing => panic!("buffer {id} is given back twice"),
            Holder::Session(fd) => self.conn(fd).buffers -= 1,
            Holder::Maker | Holder::Worker => {}
        }
    }

    /// Buffers that the maker holds.
    pub(crate) fn made(&self) -> u32 {
        u32::try_from(self.maker.made.len()).expect("few")
    }
}

/// Buffers that the maker has at most.
const MADE_MAX: usize = 4;
